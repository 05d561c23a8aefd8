//! What is pushed into a session, and what becomes of it.

use crate::limits::RECEIVE_WINDOW;
use crate::wire::peer::{Head, MESSAGE_COST};

/// The most of a body that costs window at its beginning, in bytes: while it is under way, the rest of the window is
/// for others.
const OPENING: u64 = RECEIVE_WINDOW / 4 * 3;

/// What that leaves for others, in bytes.
pub(super) const BESIDE_LONG: u64 = RECEIVE_WINDOW - OPENING;

/// What a message with a body of `len` bytes costs of the window at its beginning.
pub(super) fn opening(len: usize) -> u64 {
    (len as u64).min(OPENING) + MESSAGE_COST
}

/// What it costs when it is whole, beside that. Of those for which that is not 0, one is under way at a time.
pub(super) fn rest(len: usize) -> u64 {
    (len as u64).saturating_sub(OPENING)
}

/// The buffer is full. The sender waits until the peer has taken some of it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the send buffer is full")]
pub struct Full;

/// What a body belongs to: messages wait for the peer's receive window and for their event's order; calls and
/// answers wait for neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A message.
    Message,
    /// A call or an answer.
    Call,
}

impl Class {
    /// What something with this head is.
    pub fn of<N>(head: &Head<N>) -> Self {
        match head {
            Head::Send { .. } => Self::Message,
            Head::Get { .. } | Head::Answer { .. } => Self::Call,
        }
    }
}

/// Where something that was pushed has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It has this sequence number.
    Sequenced(u64),
    /// It waits, or goes in pieces, under this number.
    Waiting(u64),
}

/// The body of something that is pushed.
#[derive(Debug)]
pub enum Given<'a> {
    /// Copied if it has to be kept.
    Borrowed(&'a [u8]),
    /// Taken, if it has to be kept and is large: another empty buffer stands in its place then.
    Owned(&'a mut Vec<u8>),
}

impl Given<'_> {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// True of no bytes.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Given::Borrowed(bytes) => bytes,
            Given::Owned(bytes) => bytes,
        }
    }
}

/// How far the peer has taken over what was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub(super) acked: u64,
    /// Messages that waited under lower numbers are taken over.
    pub(super) waited: u64,
}

impl Progress {
    /// True if the message is known to be taken over. Of one that had to wait it may be so without being known.
    pub fn covers(self, placed: Placed) -> bool {
        match placed {
            Placed::Sequenced(seq) => seq < self.acked,
            Placed::Waiting(number) => number < self.waited,
        }
    }
}
