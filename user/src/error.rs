//! What can go wrong between two users, by whose move it is.

use std::fmt;
use std::time::Duration;

use parlor_protocol::body::{BodyError, Value};
use parlor_protocol::identity::Fingerprint;
use parlor_protocol::name::{NameError, UserName};
use parlor_protocol::refusal::{CloseCode, PairRefusal};

pub use crate::data::DataError;
pub use crate::net::listener::ListenError;
pub use crate::net::room::JoinError;
pub use crate::start::NoPast;

/// Why a user could not be built or could not join.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A name that is none. The caller's move.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A password that is none. The caller's move.
    #[error(transparent)]
    Password(#[from] parlor_protocol::wire::control::SecretError),
    /// A Room address that is none. The caller's move.
    #[error(transparent)]
    Address(#[from] parlor_protocol::address::AddressError),
    /// A setting out of its range. The caller's move.
    #[error("{field}: {why}")]
    Setting {
        /// The setting.
        field: &'static str,
        /// What is wrong with it and what to do.
        why: String,
    },
    /// The listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The Room did not let this user in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The Room cannot be reached, and there is nothing to start with until it is back.
    #[error("{room}; it cannot be done without: {why}")]
    RoomDown {
        /// Why the Room was not joined.
        room: Box<JoinError>,
        /// Why the user cannot start without it.
        why: NoPast,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// Why there is no channel to a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The peer is not online.
    #[error("{0} is offline")]
    Offline(UserName),
    /// The Room has accounts, and none has this name.
    #[error("{0} has no account in this Room")]
    NoSuchPeer(UserName),
    /// The Room does not introduce the two.
    #[error("{peer} {why}")]
    Refused {
        /// The peer.
        peer: UserName,
        /// Why.
        why: PairRefusal,
    },
    /// The peer shows another key than it did before. Nothing was sent.
    #[error(
        "the identity of {peer} changed: it was {pinned}, now it is {seen}; if that is right, run `parlor forget {peer}` or call `forget`"
    )]
    IdentityChanged {
        /// The peer.
        peer: UserName,
        /// The fingerprint seen before.
        pinned: Fingerprint,
        /// The fingerprint the Room introduces now.
        seen: Fingerprint,
    },
    /// The Room cannot be asked, and there is no earlier introduction that still holds.
    #[error(
        "the Room is unreachable, and no introduction that it gave in the last 24 h leads to {0} now; \
         try again when the Room is back"
    )]
    RoomLost(UserName),
    /// No rung led to the peer.
    #[error("no path leads to {peer}: {tried}")]
    NoPath {
        /// The peer.
        peer: UserName,
        /// What was tried and what came of it.
        tried: String,
    },
    /// The Room introduced the two with a statement that does not hold. The Room is at fault.
    #[error("the Room's introduction to {peer} is refused: {why}")]
    BadIntroduction {
        /// The peer.
        peer: UserName,
        /// What is wrong with it.
        why: String,
    },
    /// This user has left the room.
    #[error("this user has left the room")]
    Left,
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no channel to the peer.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The buffer for this peer is full (from [`try_send`](crate::Peer::try_send) only).
    #[error("the send buffer for this peer is full")]
    Full,
    /// The value cannot be a body. The caller's move.
    #[error(transparent)]
    Encode(#[from] BodyError),
    /// The value is larger than the peer or this user takes. The caller's move.
    #[error(
        "a body of {len} bytes is larger than the {limit} that may be sent; raise `max_body` at both ends"
    )]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// An event name that is none. The caller's move.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// What became of a message whose receipt is awaited, when it was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the conversation was interrupted before the peer took the message over: {why}")]
pub struct Interrupted {
    /// What interrupted it.
    pub why: String,
}

/// Why a call has no answer. `E` is the type of the callback's own errors.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GetError<E: fmt::Debug + fmt::Display = RemoteError> {
    /// The Room has accounts, and none has this name.
    #[error("{0} has no account in this Room")]
    NoSuchPeer(UserName),
    /// The peer is not online.
    #[error("{0} is offline")]
    Offline(UserName),
    /// The peer has no callback of this name.
    #[error("{peer} has no callback {name:?}")]
    NoSuchCallback {
        /// The peer.
        peer: UserName,
        /// The name that was called.
        name: String,
    },
    /// The peer does not let this user call it.
    #[error("{0} does not allow this call")]
    Denied(UserName),
    /// The peer runs as many callbacks as it may.
    #[error("the peer is overloaded; try again in {retry_after:?}")]
    Overloaded {
        /// How long to wait.
        retry_after: Duration,
    },
    /// No answer came in time.
    #[error("no answer in time{}", may_have_run(*maybe_executed))]
    Timeout {
        /// False if the callback surely was not run.
        maybe_executed: bool,
    },
    /// The peer restarted or left, or the conversation ended, before the answer came.
    #[error("the conversation was interrupted before the answer came{}", may_have_run(*maybe_executed))]
    Interrupted {
        /// False if the callback surely was not run.
        maybe_executed: bool,
    },
    /// The answer is not of the expected type, or the peer could not read the argument.
    #[error("{0}")]
    Decode(String),
    /// The argument or the answer is larger than a body may be.
    #[error("the argument or the answer is larger than a body may be; raise `max_body` at both ends")]
    TooLarge,
    /// The callback panicked at the peer.
    #[error("the callback panicked")]
    Panicked,
    /// The callback answered with an error.
    #[error("{0}")]
    Remote(E),
    /// There is no channel to the peer, for another reason than being offline.
    #[error(transparent)]
    Open(OpenError),
    /// The argument cannot be sent. The caller's move.
    #[error(transparent)]
    Send(SendError),
}

fn may_have_run(maybe_executed: bool) -> &'static str {
    if maybe_executed { "; the callback may have run" } else { "; the callback was not run" }
}

impl<E: fmt::Debug + fmt::Display> From<OpenError> for GetError<E> {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Offline(peer) => GetError::Offline(peer),
            OpenError::NoSuchPeer(peer) => GetError::NoSuchPeer(peer),
            other => GetError::Open(other),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> From<SendError> for GetError<E> {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Open(open) => open.into(),
            SendError::TooLarge { .. } => GetError::TooLarge,
            other => GetError::Send(other),
        }
    }
}

/// A callback's error of any type.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct RemoteError(pub Value);

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Value::Str(text) => f.write_str(&parlor_protocol::name::printable(text)),
            other => f.write_str(&parlor_protocol::name::printable(&other.to_string())),
        }
    }
}

/// The sentence for a channel that the peer closed.
pub(crate) fn closed_by_peer(code: CloseCode) -> String {
    match code {
        CloseCode::Done => "the peer left".to_owned(),
        other => format!("the peer closed the channel: {other}"),
    }
}
