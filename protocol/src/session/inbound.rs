//! The receiving half of a session.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::arrived::{Arrived, Collector, LARGE, Messages};
use super::pool::Pool;
use super::pushed::{BESIDE_LONG, opening, rest};
use crate::limits::{PIECE, RECEIVE_WINDOW, STREAMS};
use crate::wire::peer::{Head, PeerMisbehaved, finish, kind, next_frame, split_name, take, take_u32};

/// How much of an announced body is reserved before any of it has come, in bytes.
const RESERVE: usize = 1024 * 1024;

/// What was taken out of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// What it brought.
    pub arrived: Option<Arrived>,
    /// How many frames it was.
    pub frames: u64,
    /// Where the next one begins in the record.
    pub end: usize,
}

/// Frames from the peer: each is taken over once, in order.
#[derive(Debug)]
pub struct Inbound {
    next: u64,
    streams: HashMap<u32, Assembly>,
    max_body: u32,
    used: u64,
    consumed: u64,
    granted: u64,
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Assembly {
    head: Head<Bytes>,
    total: usize,
    body: Vec<u8>,
}

impl Assembly {
    /// What it costs of the window when it is whole, beside what it cost at its beginning.
    fn rest(&self) -> u64 {
        if matches!(self.head, Head::Send { .. }) { rest(self.total) } else { 0 }
    }
}

impl Inbound {
    /// An empty one that takes bodies of at most `max_body` bytes.
    pub fn new(max_body: u32) -> Self {
        Self {
            next: 0,
            streams: HashMap::new(),
            max_body,
            used: 0,
            consumed: 0,
            granted: RECEIVE_WINDOW,
            pool: Arc::default(),
        }
    }

    /// The next sequence number expected: all before are taken over.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Forgets everything: a new session begins.
    pub fn reset(&mut self) {
        *self = Self::new(self.max_body);
    }

    /// Takes the reliable frame `seq`, which is at `at` in a record; small messages of one event together, as many as
    /// follow. What the peer sent before on another link is dropped.
    pub fn take(&mut self, seq: u64, record: &Bytes, at: usize) -> Result<Taken, PeerMisbehaved> {
        let frame = next_frame(record, at)?.ok_or(PeerMisbehaved::Truncated)?;
        let end = frame.payload.end;
        if seq < self.next {
            return Ok(Taken { arrived: None, frames: 1, end });
        }
        if seq > self.next {
            return Err(PeerMisbehaved::Gap { expected: self.next, found: seq });
        }
        if frame.kind == kind::SEND && frame.payload.len() < LARGE {
            return self.collect(record, at);
        }
        let arrived = self.read(frame.kind, record.slice(frame.payload))?;
        self.next += 1;
        Ok(Taken { arrived, frames: 1, end })
    }

    /// The application has taken messages that cost this much.
    pub fn consume(&mut self, cost: u64) {
        self.consumed += cost;
    }

    /// What the peer may send in all.
    pub fn window(&self) -> u64 {
        self.consumed + RECEIVE_WINDOW
    }

    /// True if the peer should be told of its [`window`](Self::window) now.
    pub fn grant_is_due(&self) -> bool {
        let more = self.window() - self.granted;
        more >= RECEIVE_WINDOW / 2
            || more >= BESIDE_LONG / 2 && self.streams.values().any(|assembly| assembly.rest() > 0)
    }

    /// The window, as it is told to the peer now.
    pub fn grant(&mut self) -> u64 {
        self.granted = self.window();
        self.granted
    }

    fn read(&mut self, kind: u8, mut payload: Bytes) -> Result<Option<Arrived>, PeerMisbehaved> {
        match kind {
            kind::SEND | kind::GET | kind::ANSWER => {
                let head = Head::read(kind, &mut payload)?;
                if payload.len() > self.max_body as usize {
                    return Err(PeerMisbehaved::TooLarge(payload.len() as u32));
                }
                if matches!(head, Head::Send { .. }) {
                    self.admit(payload.len())?;
                    // It may wait for long, and must not keep what was read along with it.
                    return Ok(Some(arrived(own(head), Bytes::copy_from_slice(&payload))));
                }
                Ok(Some(arrived(head, payload)))
            }
            kind::CANCEL => {
                let call = take_u32(&mut payload)?;
                finish(kind, &payload)?;
                Ok(Some(Arrived::Cancelled { call }))
            }
            kind::BEGIN => self.begin(payload).map(|()| None),
            kind::PIECE => self.piece(payload),
            kind::ABORT => {
                let stream = take_u32(&mut payload)?;
                finish(kind, &payload)?;
                let assembly = self.streams.remove(&stream).ok_or(PeerMisbehaved::Piece)?;
                if matches!(assembly.head, Head::Send { .. }) {
                    self.consume(opening(assembly.total));
                }
                Ok(None)
            }
            other => Err(PeerMisbehaved::Kind(other)),
        }
    }

    /// Takes small messages of one event, one at least. A mistake behind others is found when it is the first.
    fn collect(&mut self, record: &Bytes, at: usize) -> Result<Taken, PeerMisbehaved> {
        let (mut end, mut frames, mut collector) = (at, 0, None);
        loop {
            match self.collect_one(record, end, &mut collector) {
                Ok(Some(next)) => (end, frames) = (next, frames + 1),
                Err(misbehaved) if frames == 0 => return Err(misbehaved),
                Ok(None) | Err(_) => break,
            }
        }
        let arrived = collector.map(|collector: Collector| Arrived::Messages(collector.finish()));
        Ok(Taken { arrived, frames, end })
    }

    /// Adds the message at `at` to those collected, unless something else is there or it goes to another event.
    fn collect_one(
        &mut self,
        record: &[u8],
        at: usize,
        collector: &mut Option<Collector>,
    ) -> Result<Option<usize>, PeerMisbehaved> {
        let Some(frame) = next_frame(record, at)?.filter(|frame| frame.kind == kind::SEND) else {
            return Ok(None);
        };
        let end = frame.payload.end;
        let (event, body) = split_name(&record[frame.payload])?;
        if let Some(collector) = collector
            && (collector.event() != event || body.len() >= LARGE || collector.is_full_for(body.len()))
        {
            return Ok(None);
        }
        if body.len() > self.max_body as usize {
            return Err(PeerMisbehaved::TooLarge(body.len() as u32));
        }
        self.admit(body.len())?;
        self.next += 1;
        let collector = collector.get_or_insert_with(|| Collector::new(event));
        collector.push(body, record.len() - end);
        Ok(Some(end))
    }

    /// Holds a message against the window. The peer may start one while any of the window is left.
    fn admit(&mut self, body: usize) -> Result<(), PeerMisbehaved> {
        if self.used >= self.granted {
            return Err(PeerMisbehaved::Window);
        }
        self.used += opening(body);
        Ok(())
    }

    fn begin(&mut self, mut payload: Bytes) -> Result<(), PeerMisbehaved> {
        let (stream, total) = (take_u32(&mut payload)?, take_u32(&mut payload)?);
        let [inner] = take::<1>(&mut payload)?;
        let head = Head::read(inner, &mut payload)?;
        finish(kind::BEGIN, &payload)?;
        if total > self.max_body {
            return Err(PeerMisbehaved::TooLarge(total));
        }
        if total == 0 || self.streams.contains_key(&stream) {
            return Err(PeerMisbehaved::Piece);
        }
        if self.streams.len() >= STREAMS {
            return Err(PeerMisbehaved::Streams);
        }
        let total = total as usize;
        if matches!(head, Head::Send { .. }) {
            if rest(total) > 0 && self.streams.values().any(|other| other.rest() > 0) {
                return Err(PeerMisbehaved::Window);
            }
            self.admit(total)?;
        }
        let body = self.pool.take(total.min(RESERVE));
        self.streams.insert(stream, Assembly { head: own(head), total, body });
        Ok(())
    }

    fn piece(&mut self, mut payload: Bytes) -> Result<Option<Arrived>, PeerMisbehaved> {
        let stream = take_u32(&mut payload)?;
        let assembly = self.streams.get_mut(&stream).ok_or(PeerMisbehaved::Piece)?;
        if payload.is_empty() || payload.len() > PIECE || assembly.body.len() + payload.len() > assembly.total
        {
            return Err(PeerMisbehaved::Piece);
        }
        assembly.body.extend_from_slice(&payload);
        if assembly.body.len() < assembly.total {
            return Ok(None);
        }
        let Some(assembly) = self.streams.remove(&stream) else { return Ok(None) };
        self.used += assembly.rest();
        Ok(Some(arrived(assembly.head, self.pool.lend(assembly.body))))
    }
}

/// The same head in memory of its own, so that it does not keep a whole record alive.
fn own(head: Head<Bytes>) -> Head<Bytes> {
    match head {
        Head::Send { event } => Head::Send { event: event.map(|name| Bytes::copy_from_slice(&name)) },
        Head::Get { call, timeout_ms, name } => {
            Head::Get { call, timeout_ms, name: Bytes::copy_from_slice(&name) }
        }
        Head::Answer { .. } => head,
    }
}

fn arrived(head: Head<Bytes>, body: Bytes) -> Arrived {
    match head {
        Head::Send { event } => Arrived::Messages(Messages::one(event, body)),
        Head::Get { call, timeout_ms, name } => Arrived::Call { call, timeout_ms, name, body },
        Head::Answer { call, status } => Arrived::Answer { call, status, body },
    }
}
