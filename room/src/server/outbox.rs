//! What is to be written on one connection. It has a limit: a reader that does not keep up is let go, so that it
//! costs the Room a bounded amount of memory and the others nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::control::{Closing, ToUser};
use tokio::sync::{Notify, SetOnce};

use super::lock;

/// Bytes that may wait. The roster of a full Room is 650 KiB.
const BYTES: usize = 2 * 1024 * 1024;
/// Frames that may wait.
const FRAMES: usize = 4096;

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It will be written.
    Queued,
    /// There is too much waiting; the connection is told so and ends.
    SlowReader,
}

/// The queue of one connection. Its clones are the same queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outbox {
    shared: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    queue: Mutex<Queue>,
    changed: Notify,
    admitted: SetOnce<()>,
    ending: SetOnce<()>,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
}

impl Outbox {
    /// Adds a frame.
    pub(crate) fn push(&self, frame: Bytes) -> Pushed {
        let mut queue = lock(&self.shared.queue);
        if queue.ended {
            return Pushed::Queued;
        }
        if queue.frames.len() >= FRAMES || queue.bytes + frame.len() > BYTES {
            queue.frames.clear();
            queue.frames.push_back(closing_frame(CloseCode::SlowReader, None));
            queue.ended = true;
            drop(queue);
            self.end();
            return Pushed::SlowReader;
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        drop(queue);
        self.shared.changed.notify_one();
        Pushed::Queued
    }

    /// Says why, after all that waits, and ends.
    pub(crate) fn close(&self, closing: &Closing) {
        let mut queue = lock(&self.shared.queue);
        if !queue.ended {
            queue.frames.push_back(closing_frame(closing.code, closing.reconnect_in_ms));
            queue.ended = true;
        }
        drop(queue);
        self.end();
    }

    /// Ends with what waits, and no word more.
    pub(crate) fn finish(&self) {
        lock(&self.shared.queue).ended = true;
        self.end();
    }

    /// Ends without a word: the connection is gone.
    pub(crate) fn abandon(&self) {
        let mut queue = lock(&self.shared.queue);
        queue.frames.clear();
        queue.ended = true;
        drop(queue);
        self.end();
    }

    fn end(&self) {
        let _ = self.shared.ending.set(());
        self.shared.changed.notify_one();
    }

    /// True if nothing can be added any more.
    pub(crate) fn has_ended(&self) -> bool {
        lock(&self.shared.queue).ended
    }

    /// Waits until nothing can be added any more.
    pub(crate) async fn ending(&self) {
        self.shared.ending.wait().await;
    }

    /// Waits for frames and takes them all. `None`: nothing follows.
    pub(crate) async fn next(&self) -> Option<VecDeque<Bytes>> {
        loop {
            {
                let mut queue = lock(&self.shared.queue);
                if !queue.frames.is_empty() {
                    queue.bytes = 0;
                    return Some(std::mem::take(&mut queue.frames));
                }
                if queue.ended {
                    return None;
                }
            }
            self.shared.changed.notified().await;
        }
    }

    /// The connection has logged in.
    pub(crate) fn admit(&self) {
        let _ = self.shared.admitted.set(());
    }

    /// True if the connection has logged in.
    pub(crate) fn is_admitted(&self) -> bool {
        self.shared.admitted.initialized()
    }

    /// Waits until the connection has logged in.
    pub(crate) async fn admitted(&self) {
        self.shared.admitted.wait().await;
    }
}

fn closing_frame(code: CloseCode, reconnect_in_ms: Option<u32>) -> Bytes {
    ToUser::Closing(Closing { code, reconnect_in_ms }).encode().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_is_told_and_let_go_with_bounded_memory() {
        let outbox = Outbox::default();
        let frame = Bytes::from(vec![0; 60 * 1024]);
        let pushed = (0..100).map(|_| outbox.push(frame.clone())).position(|p| p == Pushed::SlowReader);
        assert_eq!(pushed, Some(BYTES / frame.len()));
        assert_eq!(outbox.next().await.unwrap(), [closing_frame(CloseCode::SlowReader, None)]);
        assert!(outbox.next().await.is_none());
    }

    #[tokio::test]
    async fn what_waits_is_written_before_the_last_word() {
        let outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"one"));
        outbox.close(&Closing { code: CloseCode::Done, reconnect_in_ms: None });
        outbox.push(Bytes::from_static(b"too late"));
        let frames = outbox.next().await.unwrap();
        assert_eq!(frames, [Bytes::from_static(b"one"), closing_frame(CloseCode::Done, None)]);
        assert!(outbox.next().await.is_none());
        let displaced = Outbox::default();
        displaced.push(Bytes::from_static(b"come back later"));
        displaced.finish();
        assert_eq!(displaced.next().await.unwrap(), [Bytes::from_static(b"come back later")]);
        assert!(displaced.next().await.is_none());
    }
}
