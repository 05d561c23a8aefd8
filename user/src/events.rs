//! What happens in the room, for those who want to know.

use std::time::Duration;

use parlor_protocol::name::UserName;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;
use tokio::sync::broadcast;

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A user came online.
    Joined {
        /// The user.
        peer: UserName,
    },
    /// A user went offline.
    Left {
        /// The user.
        peer: UserName,
    },
    /// The channel to a peer is now on this rung. `None`: it has no link.
    LinkChanged {
        /// The peer.
        peer: UserName,
        /// The rung that carries the data.
        rung: Option<Rung>,
    },
    /// Messages or calls to a peer were not taken over and will not be sent again.
    Interrupted {
        /// The peer.
        peer: UserName,
        /// What interrupted the conversation.
        why: String,
    },
    /// The peer shows another key than before; it is refused.
    IdentityChanged {
        /// The peer.
        peer: UserName,
        /// What changed and what to do.
        why: String,
    },
    /// A peer wanted to talk and could not, for a reason at this end or in the Room's policy.
    Refused {
        /// The peer, if it is known.
        peer: Option<UserName>,
        /// Why.
        why: String,
    },
    /// The Room is gone; it will be tried again by itself.
    RoomLost {
        /// How it went.
        why: String,
        /// What the Room said when it closed the connection, if it said anything.
        code: Option<CloseCode>,
        /// When it is tried first.
        retry_in: Duration,
    },
    /// The Room is back.
    RoomBack,
    /// The Room does not let this user in again. The user stays in touch with peers it has links to.
    RoomRefused {
        /// Why, and what to do.
        why: String,
    },
    /// The reader was slow and missed this many events.
    Missed(u64),
}

/// A stream of [`Event`]s. One that is not read for long loses the oldest and says so.
#[derive(Debug)]
pub struct Events {
    pub(crate) receiver: broadcast::Receiver<Event>,
}

impl Events {
    /// The next event. `None` after the user has left.
    pub async fn next(&mut self) -> Option<Event> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
