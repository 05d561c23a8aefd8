//! Messages over a plain blocking socket, sealed: what an encrypted channel costs at least.
//!
//! The stream of [`raw`](super::raw)'s messages is cut into records as large as they may be, each sealed and opened in
//! place by the cipher and library that Parlor uses, each written by one call.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use parlor_user::protocol::introduction::Cipher;
use parlor_user::protocol::noise::records::{
    LENGTH_BYTES, Opener, PLAINTEXT_BYTES, RecordKeys, Sealer, TAG_BYTES, record_length,
};

use super::args::CipherChoice;
use super::raw::{self, Counter};
use super::report::float;
use crate::clock;

/// Read at once, in bytes, besides the rest of a record.
const CHUNK: usize = 256 * 1024;
/// The key of both ends. Nobody listens.
const KEY: [u8; 32] = [7; 32];

/// The cipher of a choice.
pub(super) fn cipher(choice: CipherChoice) -> Cipher {
    match choice {
        CipherChoice::Chacha => Cipher::ChaChaPoly,
        CipherChoice::Aes => Cipher::AesGcm,
    }
}

fn ends(cipher: Cipher) -> Result<(Sealer, Opener)> {
    Ok(RecordKeys::new(KEY.into(), KEY.into(), cipher).split()?)
}

/// Messages a second that were counted at the other end.
pub(super) fn messages(to: SocketAddr, size: usize, time: Duration, choice: CipherChoice) -> Result<f64> {
    let wanted = if choice == CipherChoice::Aes { raw::SEALED_AES } else { raw::SEALED_CHACHA };
    let mut records = Records::new(raw::open(to, wanted)?, cipher(choice))?;
    let (message, length) = (vec![7; size], (size as u32).to_le_bytes());
    let started = clock::now();
    loop {
        // A look at the clock for each record at the most.
        while records.push(&length)? + records.push(black_box(&message))? == 0 {}
        if started.elapsed() >= time {
            break;
        }
    }
    records.write()?;
    records.stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    records.stream.read_exact(&mut count)?;
    Ok(float(u64::from_le_bytes(count)) / started.elapsed().as_secs_f64())
}

/// The sending end.
struct Records {
    stream: TcpStream,
    sealer: Sealer,
    out: Vec<u8>,
}

impl Records {
    fn new(stream: TcpStream, cipher: Cipher) -> Result<Self> {
        let mut out = Vec::with_capacity(LENGTH_BYTES + PLAINTEXT_BYTES + TAG_BYTES);
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        Ok(Self { stream, sealer: ends(cipher)?.0, out })
    }

    /// Adds to the stream. Returns how many records that filled; they are written.
    fn push(&mut self, mut bytes: &[u8]) -> Result<usize> {
        let mut written = 0;
        while !bytes.is_empty() {
            let room = LENGTH_BYTES + PLAINTEXT_BYTES - self.out.len();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.out.extend_from_slice(now);
            bytes = rest;
            if now.len() == room {
                self.write()?;
                written += 1;
            }
        }
        Ok(written)
    }

    fn write(&mut self) -> Result<()> {
        if self.out.len() > LENGTH_BYTES {
            self.sealer.seal(&mut self.out, 0)?;
            self.stream.write_all(&self.out)?;
            self.out.truncate(LENGTH_BYTES);
        }
        Ok(())
    }
}

/// Serves the receiving end: counts messages until the client ends its half, and answers with their number.
pub(super) fn serve(mut stream: TcpStream, cipher: Cipher) -> Result<()> {
    let (mut opener, mut count) = (ends(cipher)?.1, Counter::default());
    let (mut buffer, mut filled) = (vec![0; CHUNK], 0);
    loop {
        match stream.read(&mut buffer[filled..])? {
            0 => return Ok(stream.write_all(&count.messages.to_le_bytes())?),
            n => filled += n,
        }
        let mut at = 0;
        while let Some(&prefix) = buffer[at..filled].first_chunk::<LENGTH_BYTES>() {
            let (start, len) = (at + LENGTH_BYTES, record_length(prefix, cipher)?);
            let Some(record) = buffer[..filled].get_mut(start..start + len) else { break };
            let plain = opener.open(record)?;
            count.feed(record.get(..plain).context("a plaintext is shorter than its record")?);
            at = start + len;
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn sealed_messages_are_all_counted_whatever_their_size() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        thread::spawn(move || raw::serve(&listener));
        for choice in [CipherChoice::Aes, CipherChoice::Chacha] {
            for size in [1, 64, 70_000, 1 << 20] {
                let a_second = messages(to, size, Duration::from_millis(20), choice).unwrap();
                assert!(a_second > 0.0, "{a_second} of {size} bytes");
            }
        }
    }
}
