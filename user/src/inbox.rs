//! Messages that no handler took.
//!
//! The inbox is bounded by the receive window of each peer: a peer whose messages nobody takes waits in its
//! `send`, and nobody else does. Nothing is dropped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parlor_protocol::body::{BodyError, Value, from_body};
use parlor_protocol::name::{EventName, UserName};
use parlor_protocol::session::Messages;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::conversation::{Conversation, Share};

/// A sender's window is told of what was taken out of many messages that came together when it is this much, in
/// bytes, or when they all are.
const TOLD: u64 = 64 * 1024;

/// A message.
#[derive(Clone)]
pub struct Message {
    pub(crate) from: UserName,
    pub(crate) event: Option<EventName>,
    pub(crate) body: Bytes,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Bodies are nobody's business but the application's.
        write!(f, "Message(from {:?}, event {:?}, {} bytes)", self.from, self.event, self.body.len())
    }
}

impl Message {
    /// Who sent it.
    pub fn from(&self) -> &UserName {
        &self.from
    }

    /// The event it was sent to, if any.
    pub fn event(&self) -> Option<&str> {
        self.event.as_ref().map(EventName::as_str)
    }

    /// Its body as a `T`. An error means that the sender sent something else.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        from_body(&self.body)
    }

    /// Its body, whatever it is.
    pub fn value(&self) -> Result<Value, BodyError> {
        Value::from_body(&self.body)
    }

    /// Its body as MessagePack. A small one shares some KiB of memory with those that came with it.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// A reader of the inbox. Several share it: each message goes to one.
#[derive(Debug, Clone)]
pub struct Inbox {
    pub(crate) queue: Arc<Queue>,
}

impl Inbox {
    /// The next message. `None` after the user has left and everything was taken. Dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Option<Message> {
        let mut woken = false;
        loop {
            match self.queue.pop(woken) {
                Popped::Message(message) => return Some(message),
                Popped::Closed => return None,
                Popped::Empty => {}
            }
            let notified = self.queue.arrived.notified();
            tokio::pin!(notified);
            // Interest is noted before another look, so that nothing slips in between.
            notified.as_mut().enable();
            woken = true;
            match self.queue.pop(woken) {
                Popped::Message(message) => return Some(message),
                Popped::Closed => return None,
                Popped::Empty => notified.await,
            }
        }
    }

    /// The next message if one is there.
    pub fn try_next(&mut self) -> Option<Message> {
        match self.queue.pop(false) {
            Popped::Message(message) => Some(message),
            Popped::Empty | Popped::Closed => None,
        }
    }
}

/// What waits to be read. Each message holds its share of its sender's window until it is taken.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Batch>,
    closed: bool,
}

/// Messages of one event that came together.
pub(crate) struct Batch {
    from: Arc<Conversation>,
    event: Option<EventName>,
    messages: Messages,
    /// The session of their sender's that they belong to.
    session: u64,
    /// What was taken out and its sender's window does not know of yet.
    taken: u64,
}

impl Batch {
    pub(crate) fn new(
        from: Arc<Conversation>,
        event: Option<EventName>,
        messages: Messages,
        session: u64,
    ) -> Self {
        Self { from, event, messages, session, taken: 0 }
    }

    fn next(&mut self) -> Option<Message> {
        let (body, cost) = self.messages.next()?;
        self.taken += cost;
        Some(Message { from: self.from.peer.clone(), event: self.event.clone(), body })
    }
}

enum Popped {
    Message(Message),
    Empty,
    Closed,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}

impl Queue {
    pub(crate) fn push(&self, batch: Batch) {
        self.lock().waiting.push_back(batch);
        self.arrived.notify_one();
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_waiters();
    }

    /// `woken`: the reader may have been told of more than one message, in the place of others.
    fn pop(&self, woken: bool) -> Popped {
        let mut state = self.lock();
        let Some(batch) = state.waiting.front_mut() else {
            return if state.closed { Popped::Closed } else { Popped::Empty };
        };
        let message = batch.next();
        let share = Share { cost: batch.taken, session: batch.session };
        let mut from = None;
        if batch.messages.is_empty() {
            from = state.waiting.pop_front().map(|batch| batch.from);
        } else if batch.taken >= TOLD {
            batch.taken = 0;
            from = Some(Arc::clone(&batch.from));
        }
        let more = !state.waiting.is_empty();
        drop(state);
        if woken && more {
            self.arrived.notify_one();
        }
        if let Some(from) = from {
            from.consumed(share);
        }
        message.map_or(Popped::Empty, Popped::Message)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
