//! Messages that no handler took.
//!
//! The inbox is bounded by the receive window of each peer: a peer whose messages nobody takes waits in its
//! `send`, and nobody else does. Nothing is dropped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parlor_protocol::body::{BodyError, Value, from_body};
use parlor_protocol::name::UserName;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::conversation::{Conversation, Share};

/// A message.
#[derive(Clone)]
pub struct Message {
    pub(crate) from: UserName,
    pub(crate) event: Option<Box<str>>,
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
        self.event.as_deref()
    }

    /// Its body as a `T`. An error means that the sender sent something else.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        from_body(&self.body)
    }

    /// Its body, whatever it is.
    pub fn value(&self) -> Result<Value, BodyError> {
        Value::from_body(&self.body)
    }

    /// Its body as MessagePack.
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
        loop {
            let notified = self.queue.arrived.notified();
            tokio::pin!(notified);
            // Interest is noted before the look, so that nothing slips in between.
            notified.as_mut().enable();
            match self.queue.pop() {
                Popped::Message(message) => return Some(message),
                Popped::Closed => return None,
                Popped::Empty => notified.await,
            }
        }
    }

    /// The next message if one is there.
    pub fn try_next(&mut self) -> Option<Message> {
        match self.queue.pop() {
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
    waiting: VecDeque<(Message, Share, Arc<Conversation>)>,
    closed: bool,
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
    pub(crate) fn push(&self, message: Message, share: Share, from: Arc<Conversation>) {
        self.lock().waiting.push_back((message, share, from));
        self.arrived.notify_one();
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_waiters();
    }

    fn pop(&self) -> Popped {
        let mut state = self.lock();
        let popped = state.waiting.pop_front();
        let (closed, more) = (state.closed, !state.waiting.is_empty());
        drop(state);
        match popped {
            Some((message, share, from)) => {
                if more {
                    self.arrived.notify_one();
                }
                from.consumed(share);
                Popped::Message(message)
            }
            None if closed => Popped::Closed,
            None => Popped::Empty,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
