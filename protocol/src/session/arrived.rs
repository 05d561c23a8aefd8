//! What a session brings, once it is whole.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::wire::peer::{MESSAGE_COST, Status};

/// Small messages share memory of about this many bytes, so that one that is kept for long keeps no whole record.
const SHARED: usize = 4 * 1024;
/// A body from this size on has memory of its own.
pub(super) const LARGE: usize = 4 * 1024;
/// Bytes before each body that shares memory: its length.
const LENGTH: usize = 2;

/// What reliable frames brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrived {
    /// Messages.
    Messages(Messages),
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

/// Messages of one event that arrived one after another. An iterator over their bodies, each with what it occupies
/// of the window until it is [consumed](super::Inbound::consume).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Messages {
    event: Option<Bytes>,
    bodies: Bodies,
    cost: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Bodies {
    One(Option<Bytes>),
    /// Each behind its length, a `u16`.
    Many(Bytes),
}

impl Messages {
    pub(super) fn one(event: Option<Bytes>, body: Bytes) -> Self {
        let cost = body.len() as u64 + MESSAGE_COST;
        Self { event, bodies: Bodies::One(Some(body)), cost }
    }

    /// Their event's name, unchecked.
    pub fn event(&self) -> Option<&Bytes> {
        self.event.as_ref()
    }

    /// What those that are left cost together.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// True if none is left.
    pub fn is_empty(&self) -> bool {
        match &self.bodies {
            Bodies::One(body) => body.is_none(),
            Bodies::Many(bodies) => bodies.is_empty(),
        }
    }
}

impl Iterator for Messages {
    type Item = (Bytes, u64);

    fn next(&mut self) -> Option<(Bytes, u64)> {
        let body = match &mut self.bodies {
            Bodies::One(body) => body.take()?,
            Bodies::Many(bodies) => {
                if bodies.is_empty() {
                    return None;
                }
                let len = usize::from(bodies.get_u16_ne());
                if len == bodies.len() { std::mem::take(bodies) } else { bodies.split_to(len) }
            }
        };
        let cost = body.len() as u64 + MESSAGE_COST;
        self.cost -= cost;
        Some((body, cost))
    }
}

/// Collects small messages of one event.
#[derive(Debug)]
pub(super) struct Collector {
    event: Option<Bytes>,
    bodies: BytesMut,
    cost: u64,
}

impl Collector {
    pub(super) fn new(event: Option<&[u8]>) -> Self {
        Self { event: event.map(Bytes::copy_from_slice), bodies: BytesMut::new(), cost: 0 }
    }

    pub(super) fn event(&self) -> Option<&[u8]> {
        self.event.as_deref()
    }

    /// True if another body would have to grow the memory that is shared.
    pub(super) fn is_full_for(&self, body: usize) -> bool {
        !self.bodies.is_empty() && self.bodies.len() + LENGTH + body > SHARED
    }

    /// `more` bytes of frames follow in this record.
    pub(super) fn push(&mut self, body: &[u8], more: usize) {
        if self.bodies.is_empty() {
            self.bodies.reserve((LENGTH + body.len() + more).min(SHARED.max(LENGTH + body.len())));
        }
        self.bodies.put_u16_ne(body.len() as u16);
        self.bodies.extend_from_slice(body);
        self.cost += body.len() as u64 + MESSAGE_COST;
    }

    pub(super) fn finish(self) -> Messages {
        Messages { event: self.event, bodies: Bodies::Many(self.bodies.freeze()), cost: self.cost }
    }
}
