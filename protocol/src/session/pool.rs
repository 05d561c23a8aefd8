//! Memory of large bodies, which serves the next ones when the application has let go of them: memory that is asked
//! for anew costs a fault a page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Memory is kept until it is this much, in bytes: what a peer may have sent that nobody took.
const KEPT: usize = 1024 * 1024;
/// A buffer that is larger is given back, in bytes.
const LARGEST: usize = KEPT + 64 * 1024;

/// Buffers that nobody uses.
#[derive(Debug, Default)]
pub(super) struct Pool {
    spare: Mutex<Spare>,
}

#[derive(Debug, Default)]
struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// A body and the pool its memory goes back to.
struct Pooled {
    body: Vec<u8>,
    pool: Arc<Pool>,
}

impl Pool {
    /// An empty buffer for a body of `len` bytes.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.any();
        if buffer.capacity() < len {
            return Vec::with_capacity(len);
        }
        // It may be held for long.
        cut(&mut buffer, len);
        buffer
    }

    /// An empty buffer, if there is one.
    pub(super) fn any(&self) -> Vec<u8> {
        let mut spare = self.lock();
        let buffer = spare.buffers.pop().unwrap_or_default();
        spare.bytes -= buffer.capacity();
        buffer
    }

    /// The body, whose memory comes back when it is dropped.
    pub(super) fn lend(self: &Arc<Self>, body: Vec<u8>) -> Bytes {
        Bytes::from_owner(Pooled { body, pool: Arc::clone(self) })
    }

    /// Takes memory that nobody uses any more.
    pub(super) fn give(&self, mut buffer: Vec<u8>) {
        let mut spare = self.lock();
        if spare.bytes < KEPT && buffer.capacity() <= LARGEST && buffer.capacity() > 0 {
            buffer.clear();
            spare.bytes += buffer.capacity();
            spare.buffers.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives memory back, so that a body of `len` bytes holds at most twice what it is counted for.
pub(super) fn cut(buffer: &mut Vec<u8>, len: usize) {
    if buffer.capacity() / 2 > len {
        buffer.shrink_to(len);
    }
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.body));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_serves_again_when_the_last_of_a_body_is_dropped_and_little_is_kept() {
        let pool = Arc::new(Pool::default());
        let mut buffer = pool.take(100_000);
        buffer.extend_from_slice(b"body");
        let lies_at = buffer.as_ptr();
        let body = pool.lend(buffer);
        let slice = body.slice(1..3);
        drop(body);
        assert_eq!(pool.lock().bytes, 0);
        assert_eq!(&slice[..], b"od");
        drop(slice);
        let again = pool.take(100_000);
        assert_eq!((again.as_ptr(), again.len()), (lies_at, 0));
        pool.give(again);
        assert!(pool.take(200_000).capacity() >= 200_000);
        pool.give(Vec::with_capacity(1_000_000));
        assert!(
            (40_000..=80_000).contains(&pool.take(40_000).capacity()),
            "a small body may be held for long"
        );
        for _ in 0..100 {
            pool.give(Vec::with_capacity(100_000));
            pool.give(Vec::with_capacity(LARGEST + 1));
        }
        assert!(pool.lock().bytes < KEPT + LARGEST);
        assert_eq!(pool.lock().buffers.len(), 11);
    }
}
