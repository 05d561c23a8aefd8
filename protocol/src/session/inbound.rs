//! The receiving half of a session.

use std::collections::HashMap;

use bytes::Bytes;

use crate::limits::{PIECE, RECEIVE_WINDOW, STREAMS};
use crate::wire::peer::{Head, MESSAGE_COST, PeerMisbehaved, Status, finish, kind, take, take_u32};

/// How much of an announced body is reserved before any of it has come, in bytes.
const RESERVE: usize = 1024 * 1024;

/// What a reliable frame brought, once it is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrived {
    /// A message.
    Message {
        /// Its event name, unchecked.
        event: Option<Bytes>,
        /// Its body.
        body: Bytes,
        /// What it occupies of the window until it is [consumed](Inbound::consume).
        cost: u64,
    },
    /// A call.
    Call {
        /// The caller's number for it.
        call: u32,
        /// Milliseconds the caller waits; 0: as long as it takes.
        timeout_ms: u32,
        /// The callback's name, unchecked.
        name: Bytes,
        /// The argument.
        body: Bytes,
    },
    /// An answer.
    Answer {
        /// The call it answers.
        call: u32,
        /// How the call ended.
        status: Status,
        /// The answer or the error.
        body: Bytes,
    },
    /// Nobody waits for this call any more.
    Cancelled {
        /// The caller's number for it.
        call: u32,
    },
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
}

#[derive(Debug)]
struct Assembly {
    head: Head<Bytes>,
    total: usize,
    body: Vec<u8>,
}

impl Inbound {
    /// An empty one that takes bodies of at most `max_body` bytes.
    pub fn new(max_body: u32) -> Self {
        Self { next: 0, streams: HashMap::new(), max_body, used: 0, consumed: 0, granted: RECEIVE_WINDOW }
    }

    /// The next sequence number expected: all before are taken over.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Forgets everything: a new session begins.
    pub fn reset(&mut self) {
        *self = Self::new(self.max_body);
    }

    /// Takes the frame `seq` of a record. What the peer sent before on another link is dropped.
    pub fn take(&mut self, seq: u64, kind: u8, payload: Bytes) -> Result<Option<Arrived>, PeerMisbehaved> {
        if seq < self.next {
            return Ok(None);
        }
        if seq > self.next {
            return Err(PeerMisbehaved::Gap { expected: self.next, found: seq });
        }
        let arrived = self.read(kind, payload)?;
        self.next += 1;
        Ok(arrived)
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
        self.window() - self.granted >= RECEIVE_WINDOW / 2
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
                let cost = self.admit(&head, payload.len())?;
                Ok(Some(arrived(head, payload, cost)))
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
                    self.consume(assembly.total as u64 + MESSAGE_COST);
                }
                Ok(None)
            }
            other => Err(PeerMisbehaved::Kind(other)),
        }
    }

    /// Holds a message against the window. The peer may start one while any of the window is left.
    fn admit(&mut self, head: &Head<Bytes>, body: usize) -> Result<u64, PeerMisbehaved> {
        if !matches!(head, Head::Send { .. }) {
            return Ok(0);
        }
        if self.used >= self.granted {
            return Err(PeerMisbehaved::Window);
        }
        let cost = body as u64 + MESSAGE_COST;
        self.used += cost;
        Ok(cost)
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
        self.admit(&head, total)?;
        let body = Vec::with_capacity(total.min(RESERVE));
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
        let cost = match assembly.head {
            Head::Send { .. } => assembly.total as u64 + MESSAGE_COST,
            Head::Get { .. } | Head::Answer { .. } => 0,
        };
        Ok(Some(arrived(assembly.head, assembly.body.into(), cost)))
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

fn arrived(head: Head<Bytes>, body: Bytes, cost: u64) -> Arrived {
    match head {
        Head::Send { event } => Arrived::Message { event, body, cost },
        Head::Get { call, timeout_ms, name } => Arrived::Call { call, timeout_ms, name, body },
        Head::Answer { call, status } => Arrived::Answer { call, status, body },
    }
}
