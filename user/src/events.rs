//! What happens in the room, for those who want to know.

use std::sync::{Mutex, PoisonError};
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
    /// How the Room went, if it was away when this stream began.
    first: Option<Event>,
    receiver: broadcast::Receiver<Event>,
}

impl Events {
    /// The next event. `None` after the user has left.
    pub async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.first.take() {
            return Some(event);
        }
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Where a user's events go out.
#[derive(Debug)]
pub(crate) struct Herald {
    sender: broadcast::Sender<Event>,
    /// How the Room went, while it is away.
    away: Mutex<Option<Event>>,
}

impl Herald {
    /// Streams keep so many events for their reader.
    pub(crate) fn new(kept: usize) -> Self {
        Self { sender: broadcast::channel(kept).0, away: Mutex::new(None) }
    }

    pub(crate) fn tell(&self, event: Event) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match &event {
            Event::RoomLost { .. } | Event::RoomRefused { .. } => *away = Some(event.clone()),
            Event::RoomBack => *away = None,
            Event::Joined { .. }
            | Event::Left { .. }
            | Event::LinkChanged { .. }
            | Event::Interrupted { .. }
            | Event::IdentityChanged { .. }
            | Event::Refused { .. }
            | Event::Missed(_) => {}
        }
        // Nobody listening is no fault.
        let _ = self.sender.send(event);
    }

    pub(crate) fn listen(&self) -> Events {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        Events { first: away.clone(), receiver: self.sender.subscribe() }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn who_begins_to_listen_while_the_room_is_away_hears_how_it_went_and_else_only_what_comes() {
        let herald = Herald::new(4);
        let refused = Event::RoomRefused { why: "banned".to_owned() };
        herald.tell(refused.clone());
        herald.tell(Event::Missed(1));
        let mut late = herald.listen();
        assert_eq!(late.next().now_or_never(), Some(Some(refused)));
        assert_eq!(late.next().now_or_never(), None);
        herald.tell(Event::RoomBack);
        assert_eq!(late.next().now_or_never(), Some(Some(Event::RoomBack)));
        assert_eq!(herald.listen().next().now_or_never(), None);
        drop(herald);
        assert_eq!(late.next().now_or_never(), Some(None));
    }
}
