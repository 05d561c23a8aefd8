//! A peer: what is sent to it and asked of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parlor_protocol::body::write_body;
use parlor_protocol::introduction::Cipher;
use parlor_protocol::name::{EventName, UserName};
use parlor_protocol::rung::Rung;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::call::{Get, Name};
use crate::conversation::{Conversation, Sent};
use crate::error::{Interrupted, OpenError, SendError};
use crate::hub::Hub;
use crate::{clock, scratch};

/// Another user in the room. Cheap to clone; it need not be online.
#[derive(Clone)]
pub struct Peer {
    pub(crate) hub: Arc<Hub>,
    pub(crate) conversation: Arc<Conversation>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({:?})", self.name())
    }
}

/// The path to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The rung that carries the conversation.
    pub rung: Rung,
    /// The smoothed round trip on it, once it was measured.
    pub rtt: Option<Duration>,
    /// How its records are protected.
    pub cipher: Cipher,
}

/// A step on the way to a peer, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How long ago.
    pub ago: Duration,
    /// The rung it is about.
    pub rung: Option<Rung>,
    /// What happened.
    pub what: String,
}

/// Encodes a value into a buffer that is used again.
fn encode<T: Serialize + ?Sized>(value: &T, max_body: u32) -> Result<Vec<u8>, SendError> {
    let mut buffer = scratch::take();
    write_body(&mut buffer, value)?;
    let limit = max_body as usize;
    if buffer.len() > limit {
        return Err(SendError::TooLarge { len: buffer.len(), limit });
    }
    Ok(buffer)
}

impl Peer {
    /// Its name.
    pub fn name(&self) -> &UserName {
        &self.conversation.peer
    }

    /// True if the Room says that it is online.
    pub fn is_online(&self) -> bool {
        self.hub.is_online(self.name())
    }

    /// Sends a value to the peer's inbox.
    ///
    /// Returns when the value is queued: it then arrives once and in order while both programs live, whatever
    /// happens to the paths between them. Waits while the queue is full (8 MiB). The receipt tells when the
    /// peer's program has taken it over; it may be ignored.
    ///
    /// # Errors
    ///
    /// [`SendError::Open`] at once if the peer is offline or cannot be reached; nothing is queued then.
    pub async fn send<T: Serialize + ?Sized>(&self, value: &T) -> Result<Receipt, SendError> {
        self.send_event(None, value).await
    }

    /// Sends a value to the peer's handler for `event`, or to its inbox if it has none. See
    /// [`send`](Self::send).
    pub async fn send_to<T: Serialize + ?Sized>(&self, event: &str, value: &T) -> Result<Receipt, SendError> {
        let event: EventName = event.parse()?;
        self.send_event(Some(event.as_str()), value).await
    }

    /// Sends a value if it can be queued without waiting.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] if the queue is full, [`SendError::Open`] if there is no channel to the peer yet:
    /// then [`send`](Self::send) opens one.
    pub fn try_send<T: Serialize + ?Sized>(&self, value: &T) -> Result<Receipt, SendError> {
        self.conversation.is_open()?;
        let mut body = encode(value, self.hub.settings.max_body)?;
        let sent = self.conversation.try_send(None, &mut body);
        scratch::give_back(body);
        Ok(self.receipt(sent?))
    }

    async fn send_event<T: Serialize + ?Sized>(
        &self,
        event: Option<&str>,
        value: &T,
    ) -> Result<Receipt, SendError> {
        let mut body = encode(value, self.hub.settings.max_body)?;
        let sent = self.conversation.send(event, &mut body).await;
        scratch::give_back(body);
        Ok(self.receipt(sent?))
    }

    fn receipt(&self, sent: Sent) -> Receipt {
        Receipt { conversation: Arc::clone(&self.conversation), sent }
    }

    /// Calls the peer's callback `name`. Await the result, or set how long to wait first.
    ///
    /// Dropping the future cancels the call at the peer.
    ///
    /// # Errors
    ///
    /// See [`GetError`](crate::GetError). A callback's own error comes as
    /// [`GetError::Remote`](crate::GetError::Remote), of any type unless
    /// [`error_type`](Get::error_type) says which.
    pub fn get<T: Serialize + ?Sized, A: DeserializeOwned>(&self, name: &str, argument: &T) -> Get<A> {
        let request =
            Name::new(name).and_then(|name| Ok((name, encode(argument, self.hub.settings.max_body)?)));
        Get::new(Arc::clone(&self.conversation), request, self.hub.settings.get_timeout)
    }

    /// The path that carries the conversation now. `None`: there is no link.
    pub fn path(&self) -> Option<Path> {
        let (rung, rtt) = self.conversation.path()?;
        Some(Path { rung, rtt, cipher: self.conversation.cipher()? })
    }

    /// Opens the channel, if it is not open, and waits for a link.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub async fn connect(&self) -> Result<Path, OpenError> {
        loop {
            self.conversation.linked().await?;
            // A link that is gone again was none.
            if let Some(path) = self.path() {
                return Ok(path);
            }
        }
    }

    /// Measures a round trip on the path that carries the conversation.
    ///
    /// # Errors
    ///
    /// Why there is no path. `None`: the path changed while the ping was under way.
    pub async fn ping(&self) -> Result<Option<(Rung, Duration)>, OpenError> {
        self.connect().await?;
        match self.conversation.ping() {
            Some(pong) => Ok(pong.await.ok()),
            None => Ok(None),
        }
    }

    /// What was tried to reach the peer, and what came of it, oldest first.
    pub fn explain(&self) -> Vec<Step> {
        let now = clock::now();
        let step = |step: crate::core::ladder::Step| Step {
            ago: now.saturating_duration_since(step.at),
            rung: step.rung,
            what: step.what,
        };
        self.conversation.story().into_iter().map(step).collect()
    }
}

/// Tells when a message has been taken over by the peer's program.
#[derive(Debug)]
pub struct Receipt {
    conversation: Arc<Conversation>,
    sent: Sent,
}

impl Receipt {
    /// Waits until the peer's program has taken the message over. Needs no deadline of its own: it ends when the
    /// message was taken over or the conversation ended.
    ///
    /// # Errors
    ///
    /// [`Interrupted`] if the conversation ended first. The message may have arrived all the same.
    pub async fn delivered(self) -> Result<(), Interrupted> {
        self.conversation.delivered(self.sent).await
    }
}
