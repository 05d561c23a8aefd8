//! One link of a channel: its socket, its keys, and the two tasks that move records.
//!
//! Records are written by whoever has something to send: the caller's own task when nothing else is on its way,
//! the reading task after it has handled what it read, else the link's writing task, which yields once so
//! that small messages of many callers share a record. Only one of them writes at a time; the others leave
//! a note and go on. No lock is held while anything waits.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use parlor_protocol::introduction::Cipher;
use parlor_protocol::noise::records::{LENGTH_BYTES, Opener, RecordError, Sealer, record_length};
use parlor_protocol::rung::Rung;
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::core::channel::LinkId;

/// Ciphertext that is collected before it is written, in bytes: two full records.
const WRITE_AHEAD: usize = 128 * 1024;
/// Room that is made for reading, in bytes: two full records.
const READ_AHEAD: usize = 128 * 1024;
/// A buffer that grew beyond this is given back when it is empty, in bytes.
const KEEP: usize = 256 * 1024;
/// A key serves at most this long, and at most 1 GiB.
const REKEY_EVERY: Duration = Duration::from_hours(1);
/// With fewer bytes than this waiting, the writing task lets other tasks add to them first.
pub(crate) const YIELD_BELOW: usize = 1024;

/// What fills a link's records.
pub(crate) trait Source: Send + Sync + 'static {
    /// Appends the plaintext of the next record. `None`: nothing to say.
    fn fill(
        &self,
        link: LinkId,
        out: &mut Vec<u8>,
        rekey: bool,
        now: Instant,
    ) -> Option<crate::core::channel::After>;
    /// Bytes that wait to be sent.
    fn waiting(&self) -> usize;
}

/// The writing half, shared by all who write.
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) rung: Rung,
    pub(crate) cipher: Cipher,
    socket: OwnedWriteHalf,
    writer: Mutex<Writer>,
    /// Somebody has something to send.
    noted: AtomicBool,
    wake: Notify,
    /// Cancelled when the link is over.
    pub(crate) over: CancellationToken,
}

struct Writer {
    sealer: Sealer,
    pending: Vec<u8>,
    written: usize,
    /// The key has served long enough then.
    rekey_at: Instant,
    /// The socket takes no more for now; the writing task waits for it.
    blocked: bool,
    /// Nothing follows what is pending.
    closed: bool,
}

/// How far a pump got.
enum Pumped {
    Empty,
    Blocked,
    Over,
}

impl Link {
    pub(crate) fn new(
        id: LinkId,
        rung: Rung,
        cipher: Cipher,
        socket: OwnedWriteHalf,
        sealer: Sealer,
        over: CancellationToken,
    ) -> Arc<Self> {
        unpace(socket.as_ref());
        let rekey_at = clock::now() + REKEY_EVERY;
        let pending = Vec::new();
        let writer = Writer { sealer, pending, written: 0, rekey_at, blocked: false, closed: false };
        Arc::new(Self {
            id,
            rung,
            cipher,
            socket,
            writer: Mutex::new(writer),
            noted: AtomicBool::new(false),
            wake: Notify::new(),
            over,
        })
    }

    /// Asks the writing task to send what there is, after others had a chance to add to it.
    pub(crate) fn nudge(&self) {
        self.wake.notify_one();
    }

    /// Sends what there is, as far as the socket takes it now. Returns at once if another is at it: that one
    /// then sends this, too.
    pub(crate) fn flush(&self, source: &impl Source) {
        self.noted.store(true, Ordering::SeqCst);
        loop {
            let mut writer = match self.writer.try_lock() {
                Ok(writer) => writer,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            while self.noted.swap(false, Ordering::SeqCst) && !writer.blocked {
                match self.pump(&mut writer, source) {
                    Pumped::Empty => {}
                    Pumped::Blocked => {
                        writer.blocked = true;
                        self.wake.notify_one();
                    }
                    Pumped::Over => {
                        self.over.cancel();
                        return;
                    }
                }
            }
            let blocked = writer.blocked;
            drop(writer);
            if blocked || !self.noted.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// The writing task. Ends when the link is over.
    pub(crate) async fn write(self: Arc<Self>, source: Arc<impl Source>) {
        loop {
            tokio::select! {
                () = self.over.cancelled() => return,
                () = self.wake.notified() => {}
            }
            if self.is_blocked() {
                tokio::select! {
                    () = self.over.cancelled() => return,
                    writable = self.socket.writable() => if writable.is_err() {
                        self.over.cancel();
                        return;
                    }
                }
                self.lock().blocked = false;
            } else {
                self.let_others_add(&*source).await;
            }
            self.flush(&*source);
        }
    }

    /// Other tasks get a turn if little waits.
    async fn let_others_add(&self, source: &impl Source) {
        if source.waiting() < YIELD_BELOW {
            go_behind().await;
        }
    }

    fn is_blocked(&self) -> bool {
        self.lock().blocked
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pump(&self, writer: &mut Writer, source: &impl Source) -> Pumped {
        let (now, mut more) = (clock::now(), true);
        loop {
            while more && writer.pending.len() < WRITE_AHEAD && !writer.closed {
                match self.next_record(writer, source, now) {
                    Ok(is_more) => more = is_more,
                    Err(error) => {
                        tracing::debug!(%error, "a record could not be sealed");
                        return Pumped::Over;
                    }
                }
            }
            if writer.pending.is_empty() {
                return if writer.closed { Pumped::Over } else { Pumped::Empty };
            }
            match self.socket.try_write(&writer.pending[writer.written..]) {
                Ok(0) => return Pumped::Over,
                Ok(n) => writer.written += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Pumped::Blocked,
                Err(error) => {
                    tracing::debug!(%error, "a link cannot be written to");
                    return Pumped::Over;
                }
            }
            if writer.written == writer.pending.len() {
                writer.written = 0;
                if writer.pending.capacity() > KEEP {
                    writer.pending = Vec::new();
                }
                writer.pending.clear();
            }
        }
    }

    /// Seals the next record behind the pending ones. False if there is none behind it.
    fn next_record(
        &self,
        writer: &mut Writer,
        source: &impl Source,
        now: Instant,
    ) -> Result<bool, RecordError> {
        let start = writer.pending.len();
        let rekey = writer.sealer.wants_rekey() || now >= writer.rekey_at;
        writer.pending.extend_from_slice(&[0; LENGTH_BYTES]);
        let Some(after) = source.fill(self.id, &mut writer.pending, rekey, now) else {
            writer.pending.truncate(start);
            return Ok(false);
        };
        writer.sealer.seal(&mut writer.pending, start)?;
        if after.rekey {
            writer.sealer.rekey()?;
            writer.rekey_at = now + REKEY_EVERY;
        }
        writer.closed = after.closed;
        Ok(after.more)
    }
}

/// Lets all tasks run that are ready now. (The runtime's own `yield_now` looks for news from outside first, which is a
/// system call, and does so as soon as it has run 61 tasks, which would cut a crowd of callers in two.)
async fn go_behind() {
    let mut there = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut there, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Within a host there is no network to share, but a congestion control that paces (BBR) sets a timer for each
/// segment all the same, which takes a third of the sender's time. Reno does not, and any Linux has it.
fn unpace(socket: &TcpStream) {
    #[cfg(target_os = "linux")]
    if socket.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback()) {
        // Without it the link is slower, nothing else.
        let _ = SockRef::from(socket).set_tcp_congestion(b"reno");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

/// The reading half: records come out whole and opened, in the order in which they were sent.
pub(crate) struct Reader {
    socket: OwnedReadHalf,
    opener: Opener,
    cipher: Cipher,
    buffer: BytesMut,
}

/// Why a link cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the connection ended")]
    Ended,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Record(#[from] RecordError),
}

impl Reader {
    pub(crate) fn new(socket: OwnedReadHalf, opener: Opener, cipher: Cipher) -> Self {
        Self { socket, opener, cipher, buffer: BytesMut::new() }
    }

    /// Opens the next record that has been read whole. `None`: more has to be read first.
    pub(crate) fn next(&mut self) -> Result<Option<bytes::Bytes>, ReadError> {
        let Some(&prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let len = record_length(prefix, self.cipher)?;
        if self.buffer.len() < LENGTH_BYTES + len {
            return Ok(None);
        }
        let mut record = self.buffer.split_to(LENGTH_BYTES + len);
        record.advance(LENGTH_BYTES);
        let plain = self.opener.open(&mut record)?;
        record.truncate(plain);
        Ok(Some(record.freeze()))
    }

    /// The records after the last one are under the next key.
    pub(crate) fn rekey(&mut self) -> Result<(), RecordError> {
        self.opener.rekey()
    }

    /// Reads more, waiting for it.
    pub(crate) async fn read(&mut self) -> Result<(), ReadError> {
        if self.buffer.capacity() - self.buffer.len() < READ_AHEAD / 2 {
            self.buffer.reserve(READ_AHEAD);
        }
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(ReadError::Ended),
            _ => Ok(()),
        }
    }

    /// Waits for the next record.
    pub(crate) async fn record(&mut self) -> Result<bytes::Bytes, ReadError> {
        loop {
            if let Some(record) = self.next()? {
                return Ok(record);
            }
            self.read().await?;
        }
    }

    /// Reads on without looking. False at the end.
    pub(crate) async fn discard(&mut self) -> bool {
        self.buffer.clear();
        matches!(self.read().await, Ok(()))
    }
}
