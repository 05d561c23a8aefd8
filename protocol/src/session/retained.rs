//! Sequenced frames, kept until the peer has taken them over.
//!
//! Small frames lie one behind another in chunks, so that a record takes a run of them in one copy and a
//! message costs no allocation of its own; a large body is kept as it came and copied into records only.

use std::collections::VecDeque;

use bytes::Bytes;

use super::pool::Pool;
use crate::wire::peer::{FRAME_HEAD, PeerMisbehaved, next_frame};

/// A chunk takes frames until it has this many bytes.
pub(super) const CHUNK: usize = 32 * 1024;
/// Empty chunks that are kept for the next frames.
const SPARE: usize = 8;
/// Bodies from this size on are kept as they came instead of copied into a chunk.
const OWN_CHUNK: usize = 4 * 1024;

/// Frames `acked..next`, of which `..sent` were handed to the current link.
#[derive(Debug, Default)]
pub(super) struct Retained {
    chunks: VecDeque<Chunk>,
    /// Chunks that were dropped from the front so far: the ordinal of the first one here.
    dropped: u64,
    acked: u64,
    next: u64,
    sent: u64,
    /// The highest `sent` ever was: what the peer may acknowledge.
    highest: u64,
    /// Where frame `sent` begins: the ordinal of its chunk and the offset there.
    at_chunk: u64,
    at_offset: usize,
    bytes: usize,
    unsent: usize,
    spare: Vec<Vec<u8>>,
    pool: Pool,
}

#[derive(Debug)]
struct Chunk {
    first: u64,
    count: u64,
    frames: Vec<u8>,
    /// The end of the only frame's payload.
    body: Option<Bytes>,
}

impl Chunk {
    fn len(&self) -> usize {
        self.frames.len() + self.body.as_ref().map_or(0, Bytes::len)
    }

    fn end(&self) -> u64 {
        self.first + self.count
    }

    /// The offset of the frame `index` frames after the one at `from`.
    fn skip(&self, from: usize, index: u64) -> usize {
        let mut at = from;
        for _ in 0..index {
            match next_frame(&self.frames, at) {
                Ok(Some(frame)) => at = frame.payload.end,
                Ok(None) | Err(_) => break,
            }
        }
        at
    }
}

impl Retained {
    /// The next sequence number that the peer has not taken over.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// The next sequence number to be given.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The sequence number of the next frame to be handed to the link.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// True if the frame was ever handed to a link.
    pub(super) fn was_sent(&self, seq: u64) -> bool {
        seq < self.highest
    }

    /// Bytes kept.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes not yet handed to the current link.
    pub(super) fn unsent(&self) -> usize {
        self.unsent
    }

    /// Numbers a frame. `head` writes its first `head_len` payload bytes; `body` ends it.
    pub(super) fn push(
        &mut self,
        kind: u8,
        head_len: usize,
        head: impl FnOnce(&mut Vec<u8>),
        body: &Body<'_>,
    ) -> u64 {
        let seq = self.next;
        let payload = head_len + body.len();
        let len = FRAME_HEAD + payload;
        let own = match body {
            Body::Shared(bytes) if bytes.len() >= OWN_CHUNK => Some(bytes.clone()),
            Body::Shared(_) | Body::Borrowed(_) => None,
        };
        let fits = |chunk: &Chunk| chunk.body.is_none() && chunk.frames.len() + len <= CHUNK;
        if own.is_some() || !self.chunks.back().is_some_and(fits) {
            let frames = self.spare();
            self.chunks.push_back(Chunk { first: seq, count: 0, frames, body: None });
        }
        if let Some(chunk) = self.chunks.back_mut() {
            let [low, high] = (payload as u16).to_le_bytes();
            chunk.frames.extend_from_slice(&[kind, low, high]);
            head(&mut chunk.frames);
            if own.is_none() {
                chunk.frames.extend_from_slice(body.as_slice());
            }
            chunk.body = own;
            chunk.count += 1;
        }
        self.numbered(len, 1)
    }

    /// Numbers `count` frames that are ready.
    pub(super) fn append(&mut self, frames: &[u8], count: u64) -> u64 {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.body.is_none() && chunk.frames.len() + frames.len() <= CHUNK => {
                chunk.frames.extend_from_slice(frames);
                chunk.count += count;
                self.numbered(frames.len(), count)
            }
            Some(_) | None => {
                let mut own = self.spare();
                own.extend_from_slice(frames);
                self.adopt(own, count)
            }
        }
    }

    /// Numbers `count` frames that are ready, and keeps them where they lie.
    pub(super) fn adopt(&mut self, frames: Vec<u8>, count: u64) -> u64 {
        let bytes = frames.len();
        self.chunks.push_back(Chunk { first: self.next, count, frames, body: None });
        self.numbered(bytes, count)
    }

    fn numbered(&mut self, bytes: usize, count: u64) -> u64 {
        self.next += count;
        self.bytes += bytes;
        self.unsent += bytes;
        self.next - count
    }

    /// An empty buffer for frames.
    pub(super) fn spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// An empty buffer for a large body, if there is one.
    pub(super) fn spare_body(&mut self) -> Vec<u8> {
        self.pool.any()
    }

    /// Puts another frame in the place of one that was never handed to a link. False if it was, so that the peer may
    /// have it.
    pub(super) fn replace_unsent(&mut self, seq: u64, kind: u8, payload: &[u8]) -> bool {
        if seq < self.highest || seq >= self.next {
            return false;
        }
        let index = self.chunks.partition_point(|chunk| chunk.end() <= seq);
        let Some(chunk) = self.chunks.get_mut(index) else { return false };
        let before = chunk.len();
        let start = chunk.skip(0, seq - chunk.first);
        // A body of its own is the end of its chunk's only frame.
        let end = match chunk.body.take() {
            Some(_) => chunk.frames.len(),
            None => chunk.skip(start, 1),
        };
        let [low, high] = (payload.len() as u16).to_le_bytes();
        let frame = [kind, low, high].into_iter().chain(payload.iter().copied());
        chunk.frames.splice(start..end, frame);
        self.bytes = self.bytes + chunk.len() - before;
        self.unsent = self.unsent + chunk.len() - before;
        true
    }

    /// Appends as many frames as fit into `room` bytes, from [`sent`](Self::sent) on.
    pub(super) fn transmit(&mut self, out: &mut Vec<u8>, mut room: usize) {
        while self.sent < self.next {
            let index = (self.at_chunk - self.dropped) as usize;
            let Some(chunk) = self.chunks.get(index) else { break };
            if self.sent == chunk.end() {
                self.at_chunk += 1;
                self.at_offset = 0;
                continue;
            }
            let rest = &chunk.frames[self.at_offset..];
            if let Some(body) = &chunk.body {
                if rest.len() + body.len() > room {
                    break;
                }
                out.extend_from_slice(rest);
                out.extend_from_slice(body);
                room -= rest.len() + body.len();
                self.unsent -= rest.len() + body.len();
                self.sent += 1;
                self.at_offset = chunk.frames.len();
            } else if rest.len() <= room {
                out.extend_from_slice(rest);
                room -= rest.len();
                self.unsent -= rest.len();
                self.sent = chunk.end();
                self.at_offset = chunk.frames.len();
            } else {
                let (end, frames) = fitting(&chunk.frames, self.at_offset, room);
                out.extend_from_slice(&chunk.frames[self.at_offset..end]);
                self.unsent -= end - self.at_offset;
                self.sent += frames;
                self.at_offset = end;
                break;
            }
        }
        self.highest = self.highest.max(self.sent);
    }

    /// The peer has taken over everything before `ack`.
    pub(super) fn ack(&mut self, ack: u64) -> Result<(), PeerMisbehaved> {
        if ack > self.highest {
            return Err(PeerMisbehaved::AckOfUnsent { ack, sent: self.highest });
        }
        if ack <= self.acked {
            return Ok(());
        }
        self.acked = ack;
        if self.sent < ack {
            self.seek(ack);
        }
        while self.chunks.front().is_some_and(|chunk| chunk.end() <= ack) {
            let Some(chunk) = self.chunks.pop_front() else { break };
            self.bytes -= chunk.len();
            self.dropped += 1;
            if self.at_chunk < self.dropped {
                self.at_chunk = self.dropped;
                self.at_offset = 0;
            }
            self.recycle(chunk);
        }
        Ok(())
    }

    /// A new link begins: everything from [`acked`](Self::acked) on is to be sent again.
    pub(super) fn rewind(&mut self) {
        self.seek(self.acked);
    }

    fn seek(&mut self, seq: u64) {
        let index = self.chunks.partition_point(|chunk| chunk.end() <= seq);
        self.at_chunk = self.dropped + index as u64;
        self.at_offset = match self.chunks.get(index) {
            Some(chunk) => chunk.skip(0, seq - chunk.first),
            None => 0,
        };
        self.sent = seq;
        let rest: usize = self.chunks.iter().skip(index).map(Chunk::len).sum();
        self.unsent = rest - self.at_offset;
    }

    fn recycle(&mut self, chunk: Chunk) {
        let Chunk { mut frames, body, .. } = chunk;
        if self.spare.len() < SPARE && frames.capacity() > 0 {
            frames.clear();
            self.spare.push(frames);
        }
        // The last piece of a body has it to itself.
        if let Some(Ok(mut body)) = body.map(Bytes::try_into_mut) {
            body.clear();
            self.pool.give(Vec::from(body));
        }
    }
}

/// How many whole frames from `from` on fit into `room` bytes: where they end, and their number.
fn fitting(frames: &[u8], from: usize, room: usize) -> (usize, u64) {
    let (mut end, mut count) = (from, 0);
    while let Ok(Some(frame)) = next_frame(frames, end) {
        if frame.payload.end - from > room {
            break;
        }
        end = frame.payload.end;
        count += 1;
    }
    (end, count)
}

/// The end of a frame's payload.
#[derive(Debug, Clone)]
pub(super) enum Body<'a> {
    /// Copied.
    Borrowed(&'a [u8]),
    /// Kept as it is, if it is large.
    Shared(Bytes),
}

impl Body<'_> {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Body::Borrowed(bytes) => bytes,
            Body::Shared(bytes) => bytes,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames_of(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut at, mut frames) = (0, Vec::new());
        while let Some(frame) = next_frame(bytes, at).unwrap() {
            frames.push(bytes[frame.payload.clone()].to_vec());
            at = frame.payload.end;
        }
        frames
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_refused() {
        let mut retained = Retained::default();
        retained.push(16, 0, |_| (), &Body::Borrowed(b"x"));
        assert_eq!(retained.ack(1), Err(PeerMisbehaved::AckOfUnsent { ack: 1, sent: 0 }));
        retained.transmit(&mut Vec::new(), 100);
        assert_eq!(retained.ack(1), Ok(()));
        assert_eq!(retained.bytes(), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Transmit(usize),
        Replace(usize),
        Ack(usize),
        Rewind,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop_oneof![0usize..200, 3000usize..6000, 20_000usize..32_000].prop_map(Step::Push),
            4 => (0usize..70_000).prop_map(Step::Transmit),
            1 => (0usize..10).prop_map(Step::Replace),
            2 => (0usize..50).prop_map(Step::Ack),
            1 => Just(Step::Rewind),
        ]
    }

    proptest! {
        #[test]
        fn frames_leave_in_order_and_whole_whatever_is_acknowledged_and_sent_again(
            steps in proptest::collection::vec(step(), 0..80)
        ) {
            let mut retained = Retained::default();
            let mut pushed: Vec<Vec<u8>> = Vec::new();
            for step in steps {
                match step {
                    Step::Push(len) => {
                        let body = Bytes::from(vec![pushed.len() as u8; len]);
                        let seq = retained.push(16, 1, |out| out.push(9), &Body::Shared(body.clone()));
                        prop_assert_eq!(seq, pushed.len() as u64);
                        pushed.push([&[9u8][..], &body].concat());
                    }
                    Step::Transmit(room) => {
                        let (first, mut out) = (retained.sent() as usize, Vec::new());
                        retained.transmit(&mut out, room);
                        prop_assert!(out.len() <= room);
                        let sent = frames_of(&out);
                        prop_assert_eq!(&sent[..], &pushed[first..retained.sent() as usize]);
                    }
                    Step::Replace(back) => {
                        let Some(seq) = pushed.len().checked_sub(back + 1) else { continue };
                        let never_sent = seq as u64 >= retained.highest;
                        prop_assert_eq!(retained.replace_unsent(seq as u64, 19, b"gone"), never_sent);
                        if never_sent {
                            pushed[seq] = b"gone".to_vec();
                        }
                    }
                    Step::Ack(more) => {
                        let ack = (retained.acked() + more as u64).min(retained.highest);
                        prop_assert_eq!(retained.ack(ack), Ok(()));
                    }
                    Step::Rewind => {
                        retained.rewind();
                        prop_assert_eq!(retained.sent(), retained.acked());
                    }
                }
                let size = |frames: &[Vec<u8>]| frames.iter().map(|f| f.len() + FRAME_HEAD).sum::<usize>();
                prop_assert_eq!(retained.unsent(), size(&pushed[retained.sent() as usize..]));
                prop_assert!(retained.bytes() >= size(&pushed[retained.acked() as usize..]));
                prop_assert!(retained.bytes() <= size(&pushed[retained.acked() as usize..]) + CHUNK);
            }
        }
    }
}
