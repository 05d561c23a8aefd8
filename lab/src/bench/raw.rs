//! The same work over plain blocking sockets, one thread an end: what the system itself costs.
//!
//! A connection begins with one byte that says what it is for. *Echo* sends every byte back. *Count* reads
//! messages behind a length of four bytes until the client ends its half, and then answers with their number;
//! a message is looked at where it lies, and writes of small ones are collected to 64 KiB as any sender of
//! messages would. [`sealed`] counts, too.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use parlor_user::protocol::introduction::Cipher;
use socket2::SockRef;

use super::client::IN_FLIGHT;
use super::report::float;
use super::sealed;
use crate::clock;

const ECHO: u8 = b'e';
const COUNT: u8 = b'c';
/// As count, sealed with AES-256-GCM.
pub(super) const SEALED_AES: u8 = b'a';
/// As count, sealed with ChaCha20-Poly1305.
pub(super) const SEALED_CHACHA: u8 = b'x';
/// Bytes of a message's length.
const LENGTH: usize = 4;
/// Small messages are collected to this many bytes, and this much is read at once.
const CHUNK: usize = 64 * 1024;
/// Round trips before the clock starts.
const WARM: usize = 200;

/// Where raw TCP is served.
pub(super) fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Gives a socket what Parlor's own have within a host: no waiting for more to send, and a congestion control that does
/// not pace, whatever the system's default is. What is compared is then the work alone.
pub(super) fn set_up(socket: &impl AsFd) -> Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_congestion(b"reno")?;
    Ok(())
}

/// Serves connections for ever, a thread each.
pub(super) fn serve(listener: &TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        set_up(&stream)?;
        // It ends with its connection. That one broke is the client's news.
        thread::spawn(move || serve_one(stream));
    }
}

fn serve_one(mut stream: TcpStream) -> Result<()> {
    let mut wanted = [0];
    stream.read_exact(&mut wanted)?;
    match wanted[0] {
        SEALED_AES => return sealed::serve(stream, Cipher::AesGcm),
        SEALED_CHACHA => return sealed::serve(stream, Cipher::ChaChaPoly),
        _ => {}
    }
    if wanted[0] == ECHO {
        let mut buffer = vec![0; CHUNK];
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                n => stream.write_all(&buffer[..n])?,
            }
        }
    }
    let mut count = Counter::default();
    let mut buffer = vec![0; 4 * CHUNK];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(stream.write_all(&count.messages.to_le_bytes())?),
            n => count.feed(&buffer[..n]),
        }
    }
}

/// Counts messages in a stream that comes in pieces.
#[derive(Default)]
pub(super) struct Counter {
    /// Those that have come whole.
    pub(super) messages: u64,
    /// What is still to come of the current message, if its length is known.
    rest: usize,
    /// The bytes of a length that came in two pieces.
    length: Vec<u8>,
}

impl Counter {
    /// Takes in the next piece.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.rest == 0 {
                let missing = (LENGTH - self.length.len()).min(bytes.len());
                let (length, after) = bytes.split_at(missing);
                self.length.extend_from_slice(length);
                bytes = after;
                let Some(length) = self.length.first_chunk::<LENGTH>() else { return };
                self.rest = u32::from_le_bytes(*length) as usize;
                self.length.clear();
            }
            let (message, after) = bytes.split_at(self.rest.min(bytes.len()));
            black_box(message);
            self.rest -= message.len();
            bytes = after;
            if self.rest == 0 {
                self.messages += 1;
            }
        }
    }
}

/// A connection for one purpose.
pub(super) fn open(to: SocketAddr, wanted: u8) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
    set_up(&stream)?;
    stream.write_all(&[wanted])?;
    Ok(stream)
}

/// The mean round trip in microseconds.
pub(super) fn round_trip(to: SocketAddr, size: usize, time: Duration) -> Result<f64> {
    let mut stream = open(to, ECHO)?;
    let mut buffer = vec![7; size];
    let mut once = || -> Result<()> {
        stream.write_all(&buffer)?;
        Ok(stream.read_exact(&mut buffer)?)
    };
    for _ in 0..WARM {
        once()?;
    }
    let (started, mut n) = (clock::now(), 0);
    while started.elapsed() < time {
        once()?;
        n += 1;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / float(n))
}

/// Requests a second with as many under way as the calls have.
pub(super) fn requests(to: SocketAddr, size: usize, time: Duration) -> Result<f64> {
    let mut stream = open(to, ECHO)?;
    let mut buffer = vec![7; size * IN_FLIGHT];
    stream.write_all(&buffer)?;
    let (started, mut bytes) = (clock::now(), 0);
    while started.elapsed() < time {
        let n = stream.read(&mut buffer)?;
        stream.write_all(&buffer[..n])?;
        bytes += n as u64;
    }
    Ok(float(bytes) / float(size as u64) / started.elapsed().as_secs_f64())
}

/// Messages a second that were counted at the other end.
pub(super) fn messages(to: SocketAddr, size: usize, time: Duration) -> Result<f64> {
    let mut stream = open(to, COUNT)?;
    let message = vec![7; size];
    let length = (size as u32).to_le_bytes();
    let mut out = Vec::with_capacity(CHUNK + LENGTH + size);
    let started = clock::now();
    while started.elapsed() < time {
        out.clear();
        loop {
            out.extend_from_slice(&length);
            out.extend_from_slice(black_box(&message));
            if out.len() >= CHUNK {
                break;
            }
        }
        stream.write_all(&out)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    Ok(float(u64::from_le_bytes(count)) / started.elapsed().as_secs_f64())
}

/// Microseconds to connect and make one round trip.
pub(super) fn first_round_trip(to: SocketAddr, size: usize) -> Result<f64> {
    let started = clock::now();
    let mut stream = open(to, ECHO)?;
    let mut buffer = vec![7; size];
    stream.write_all(&buffer)?;
    stream.read_exact(&mut buffer)?;
    Ok(started.elapsed().as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        for len in [1u32, 5, 300, 7] {
            stream.extend_from_slice(&len.to_le_bytes());
            stream.extend(vec![9; len as usize]);
        }
        for step in 1..stream.len() {
            let mut count = Counter::default();
            stream.chunks(step).for_each(|piece| count.feed(piece));
            assert_eq!(count.messages, 4, "in pieces of {step}");
        }
    }
}
