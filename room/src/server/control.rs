//! One control connection: TLS, then a reader that tells the hub and a writer that empties the outbox.
//!
//! Most connections are silent most of the time, and there are many. So a silent one holds no buffer of ours: what a
//! handshake, a write or an end needs is on the heap while it lasts, and what is read passes over the stack.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parlor_protocol::limits::{CONTROL_FRAME, FRAME_BEFORE_LOGIN, ROOM_DEAD, ROOM_PING, TLS_HANDSHAKE};
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::control::{
    EXPORTER_LABEL, FrameError, LENGTH_BYTES, ToRoom, ToUser, frame_length,
};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout, timeout_at};
use tokio_rustls::server::TlsStream;

use super::outbox::Outbox;
use super::{Event, Place, Shared, tls};
use crate::clock;
use crate::core::ConnId;
use crate::core::coordinator::Input;
use crate::core::penalty::Offence;
use crate::core::rate::TokenBucket;

/// Frames a second that are read from one connection after a burst of [`FRAME_BURST`]; a faster sender waits.
const FRAMES_PER_SECOND: u64 = 500;
/// Frames that are read at once.
const FRAME_BURST: u64 = 1_000;
/// For the last message and the end of TLS to be taken.
const LAST_WORD: Duration = Duration::from_secs(2);
/// What is read at once, in bytes: more than any frame but a long roster, which users do not send.
const PASSING: usize = 4 * 1024;

/// A connection that has shaken hands.
pub(crate) struct Secured {
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
    exporter: [u8; 32],
}

/// Shakes hands on a connection whose first byte says TLS. `None`: that failed, and its address was charged where it was
/// at fault.
pub(crate) async fn secure(shared: &Shared, stream: TcpStream, from: SocketAddr) -> Option<Secured> {
    let _ = stream.set_nodelay(true);
    let stream = match timeout(TLS_HANDSHAKE, shared.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(address = %from, %error, "TLS failed");
            if tls::is_malformed(&error) {
                misbehaved(shared, from, Offence::Malformed).await;
            }
            return None;
        }
        Err(_) => {
            misbehaved(shared, from, Offence::TimedOut).await;
            return None;
        }
    };
    let exporter = stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).ok()?;
    let (reader, writer) = tokio::io::split(stream);
    Some(Secured { reader, writer, exporter })
}

/// Serves a connection that has shaken hands until it ends. `login_by` is when it must have logged in.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    secured: Secured,
    from: SocketAddr,
    place: Place,
    login_by: Instant,
) {
    let Secured { reader, writer, exporter } = secured;
    let conn = ConnId(shared.next_id());
    let outbox = Outbox::default();
    let writer = write(writer, outbox.clone());
    let mut writer = shared.spawn_connection(writer);
    let goes = place.goes();
    // Given back when it has logged in, or else when its socket is gone.
    let mut place = Some(Arc::new(place));
    let known = place.as_ref().map(Arc::downgrade).unwrap_or_default();
    shared.tell(Event::Opened { conn, from, exporter, outbox: outbox.clone(), place: known }).await;

    let mut reader = Reader { half: reader, buffer: BytesMut::new() };
    let ended = tokio::select! {
        ended = read(&shared, conn, &mut reader, &outbox, login_by, &mut place) => ended,
        // The last word is written, or nothing can be written any more.
        _ = &mut writer => Ended::Written,
        // It was refused, and its place is wanted by another.
        () = goes.cancelled() => Ended::Displaced,
    };
    Box::pin(end(&shared, conn, ended, &mut reader, &outbox, writer)).await;
}

async fn end(
    shared: &Shared,
    conn: ConnId,
    ended: Ended,
    reader: &mut Reader,
    outbox: &Outbox,
    writer: JoinHandle<Option<()>>,
) {
    match ended {
        Ended::Gone => {
            outbox.abandon();
            shared.tell(Event::Core(Input::Closed { conn })).await;
            let _ = writer.await;
        }
        Ended::Displaced => {
            // Its refusal may be under way, and says when to come back.
            outbox.finish();
            shared.tell(Event::Core(Input::Closed { conn })).await;
            let _ = writer.await;
        }
        Ended::Written => {
            shared.tell(Event::Core(Input::Closed { conn })).await;
            linger(reader).await;
        }
        Ended::Broken(code) => {
            shared.tell(Event::Core(Input::Broken { conn, code })).await;
            linger(reader).await;
            let _ = writer.await;
        }
    }
}

async fn misbehaved(shared: &Shared, from: SocketAddr, offence: Offence) {
    shared.tell(Event::Core(Input::Misbehaved { from: from.ip(), offence })).await;
}

/// Reads and throws away, so that bytes in flight do not turn the end of the connection into a reset that takes
/// the last message along.
async fn linger(reader: &mut Reader) {
    let _ = timeout(LAST_WORD, async {
        loop {
            reader.buffer.clear();
            if reader.more().await.unwrap_or(0) == 0 {
                break;
            }
        }
    })
    .await;
}

/// How a connection ends.
enum Ended {
    /// The writer is done.
    Written,
    /// The user is gone.
    Gone,
    /// Its place at the door is another's.
    Displaced,
    /// It broke the rules.
    Broken(CloseCode),
}

struct Reader {
    half: ReadHalf<TlsStream<TcpStream>>,
    buffer: BytesMut,
}

async fn read(
    shared: &Shared,
    conn: ConnId,
    reader: &mut Reader,
    outbox: &Outbox,
    login_by: Instant,
    place: &mut Option<Arc<Place>>,
) -> Ended {
    let mut rate = TokenBucket::new(FRAMES_PER_SECOND, FRAME_BURST, clock::now().instant);
    loop {
        let frame = if outbox.is_admitted() {
            *place = None;
            timeout(ROOM_DEAD, reader.frame(CONTROL_FRAME)).await
        } else {
            tokio::select! {
                frame = timeout_at(login_by, reader.frame(FRAME_BEFORE_LOGIN)) => frame,
                // From now on frames may be longer and take their time.
                () = outbox.admitted() => continue,
            }
        };
        let frame = match frame {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return Ended::Gone,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a frame cannot be read");
                return Ended::Broken(error.close_code());
            }
            Err(_) => return Ended::Broken(CloseCode::TimedOut),
        };
        shared.tell(Event::Core(Input::Frame { conn, frame })).await;
        if let Some(pause) = rate.take(1, clock::now().instant) {
            sleep(pause).await;
        }
    }
}

impl Reader {
    /// The next frame, of at most `limit` bytes; `None` at the end. Can be cancelled: what was read stays.
    async fn frame(&mut self, limit: usize) -> Result<Option<ToRoom>, FrameError> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() {
                let len = frame_length(*prefix, limit)?;
                if self.buffer.len() >= LENGTH_BYTES + len {
                    let frame = ToRoom::decode(&self.buffer[LENGTH_BYTES..LENGTH_BYTES + len])?;
                    self.buffer.advance(LENGTH_BYTES + len);
                    if self.buffer.is_empty() {
                        self.buffer = BytesMut::new();
                    }
                    return Ok(Some(frame));
                }
            }
            // A connection that ends without the end of TLS has ended all the same: the Room is no worse off.
            if self.more().await.unwrap_or(0) == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads what is there; 0 at the end. Can be cancelled.
    async fn more(&mut self) -> io::Result<usize> {
        poll_fn(|context| {
            let mut passing = [MaybeUninit::uninit(); PASSING];
            let mut passing = ReadBuf::uninit(&mut passing);
            ready!(Pin::new(&mut self.half).poll_read(context, &mut passing))?;
            self.buffer.extend_from_slice(passing.filled());
            Poll::Ready(Ok(passing.filled().len()))
        })
        .await
    }
}

/// Writes what the outbox holds and asks whether the user is there, until the outbox ends or the user does not
/// take anything for long.
async fn write(mut half: WriteHalf<TlsStream<TcpStream>>, outbox: Outbox) {
    let mut ping = interval_at(Instant::now() + ROOM_PING, ROOM_PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut nonce = 0;
    loop {
        let frames = tokio::select! {
            frames = outbox.next() => match frames {
                Some(frames) => frames,
                None => break,
            },
            _ = ping.tick(), if outbox.is_admitted() => {
                nonce += 1;
                [ToUser::Ping(nonce).encode().into()].into()
            }
        };
        if !Box::pin(write_all(&mut half, frames, &outbox)).await {
            break;
        }
    }
    let _ = Box::pin(timeout(LAST_WORD, half.shutdown())).await;
}

/// Small frames are written together, up to this many bytes: what one record of TLS holds.
const RECORD: usize = 16 * 1024;

/// Joins small frames that follow each other: each write is a record and a system call.
fn records(mut frames: VecDeque<Bytes>) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let first = frames.pop_front()?;
        let fits = |len: usize, next: Option<&Bytes>| next.is_some_and(|next| len + next.len() <= RECORD);
        if !fits(first.len(), frames.front()) {
            return Some(first);
        }
        let mut record = BytesMut::from(first);
        while fits(record.len(), frames.front())
            && let Some(next) = frames.pop_front()
        {
            record.extend_from_slice(&next);
        }
        Some(record.freeze())
    })
}

/// Writes `frames`. False: the user does not take them, or the connection ends and has had its time.
async fn write_all(
    half: &mut WriteHalf<TlsStream<TcpStream>>,
    frames: VecDeque<Bytes>,
    outbox: &Outbox,
) -> bool {
    let written = timeout(ROOM_DEAD, async {
        for record in records(frames) {
            half.write_all(&record).await?;
        }
        half.flush().await
    });
    let hurried = async {
        outbox.ending().await;
        sleep(LAST_WORD).await;
    };
    tokio::select! {
        written = written => matches!(written, Ok(Ok(()))),
        () = hurried => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_frames_are_written_together_and_every_byte_in_its_place() {
        let frames: Vec<Bytes> = [10, 20, RECORD, 5, RECORD - 5, 1, 3 * RECORD, 7]
            .iter()
            .zip(0u8..)
            .map(|(&len, n)| Bytes::from(vec![n; len]))
            .collect();
        let written: Vec<Bytes> = records(frames.clone().into()).collect();
        let lengths: Vec<usize> = written.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [30, RECORD, RECORD, 1, 3 * RECORD, 7]);
        assert_eq!(written.concat(), frames.concat());
    }
}
