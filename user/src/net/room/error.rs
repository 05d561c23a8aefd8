//! Why a Room was not joined or was lost, each with one sentence that says what to do.

use std::io;
use std::time::Duration;

use parlor_protocol::address::RoomAddress;
use parlor_protocol::limits::ROOM_DEAD;
use parlor_protocol::refusal::{CloseCode, LoginRefusal};
use parlor_protocol::wire::control::{Closing, FrameError};

use crate::data::DataError;
use crate::trust::Distrust;

/// Why a Room was not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The Room refused the login.
    #[error("{0}")]
    Refused(LoginRefusal),
    /// The Room ended a membership for good, or said why it ends a connection instead of answering.
    #[error("the Room ended the connection: {}{}", .0.code, advice(.0.code))]
    Ended(Closing),
    /// The Room is not believed; nothing secret was sent.
    #[error(transparent)]
    Distrusted(#[from] Distrust),
    /// The Room's certificate is not its own and no authority of this machine vouches for it.
    #[error(
        "the certificate of the Room at {address} is not accepted ({why}): it must be the Room's own, \
         or one that this machine's authorities vouch for"
    )]
    Certificate {
        /// The Room.
        address: RoomAddress,
        /// What is wrong with it.
        why: String,
    },
    /// The Room says, before it hears anything, that this address is banned.
    #[error("the Room at {address} has banned this address; ask its operator")]
    TurnedAway {
        /// The Room.
        address: RoomAddress,
    },
    /// The connection was closed before anything was said.
    #[error(
        "the Room at {address} closed the connection at once: it may be stopping, or have too many connections \
         from here; try again soon"
    )]
    HungUp {
        /// The Room.
        address: RoomAddress,
    },
    /// No connection.
    #[error(
        "the Room at {address} cannot be reached: {source}; check the address and that the Room is running"
    )]
    Unreachable {
        /// The Room.
        address: RoomAddress,
        /// What the system said.
        source: io::Error,
    },
    /// The Room did not answer in time.
    #[error("the Room at {address} did not answer in time ({during}); try again")]
    Timeout {
        /// The Room.
        address: RoomAddress,
        /// What was waited for.
        during: &'static str,
    },
    /// What answers there does not behave as a Room.
    #[error("what answers at {address} is no Parlor Room, or a broken one: {fault}")]
    Misbehaved {
        /// The Room.
        address: RoomAddress,
        /// What it did.
        fault: RoomFault,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// This program cannot set up TLS.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// What a Room did that no Room does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoomFault {
    /// It does not speak TLS 1.3.
    #[error("it does not speak TLS 1.3")]
    NotTls,
    /// A frame that cannot be read.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// A message that may not come then.
    #[error("{0} came where it may not")]
    Unexpected(&'static str),
    /// It chose a version that was not offered.
    #[error("it chose protocol version {0}, which was not offered")]
    Version(u16),
    /// It did not prove the identity it claims.
    #[error("it did not prove its identity")]
    Proof,
    /// Its own certificate is for another key than its identity.
    #[error("its certificate is for another key than its identity")]
    CertificateKey,
    /// It says nothing it should have said and too much else.
    #[error("its list of users does not end")]
    EndlessRoster,
}

impl JoinError {
    /// True if the same login will not succeed by waiting.
    pub fn is_final(&self) -> bool {
        match self {
            JoinError::Refused(why) => why.retry_after().is_none(),
            JoinError::Ended(closing) => ends_for_good(closing),
            JoinError::Distrusted(_) | JoinError::Certificate { .. } | JoinError::Tls(_) => true,
            JoinError::TurnedAway { .. }
            | JoinError::HungUp { .. }
            | JoinError::Unreachable { .. }
            | JoinError::Timeout { .. }
            | JoinError::Misbehaved { .. }
            | JoinError::Data(_) => false,
        }
    }

    /// True if the Room is not there to say anything about this user, or has no time for it.
    pub fn is_outage(&self) -> bool {
        match self {
            JoinError::Unreachable { .. } | JoinError::Timeout { .. } | JoinError::HungUp { .. } => true,
            JoinError::Refused(why) => matches!(why, LoginRefusal::Busy { .. } | LoginRefusal::ShuttingDown),
            JoinError::Ended(closing) => closing.code == CloseCode::ShuttingDown,
            JoinError::Distrusted(_)
            | JoinError::Certificate { .. }
            | JoinError::TurnedAway { .. }
            | JoinError::Misbehaved { .. }
            | JoinError::Data(_)
            | JoinError::Tls(_) => false,
        }
    }

    /// True if the Room wants this user no more, so that its earlier introductions are void.
    pub fn ends_introductions(&self) -> bool {
        match self {
            JoinError::Refused(why) => matches!(
                why,
                LoginRefusal::Credentials | LoginRefusal::IdentityMismatch | LoginRefusal::Banned { .. }
            ),
            JoinError::Ended(closing) => matches!(closing.code, CloseCode::Removed | CloseCode::Banned),
            _ => false,
        }
    }

    /// How long the Room asks to wait before the same login is tried again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            JoinError::Refused(why) => why.retry_after(),
            JoinError::Ended(closing) => asked_wait(closing),
            _ => None,
        }
    }
}

/// Why the connection to the Room ended.
#[derive(Debug, thiserror::Error)]
pub enum LostReason {
    /// The Room closed it.
    #[error("{}", .0.code)]
    Closed(Closing),
    /// It ended without a word.
    #[error("the connection ended: {0}")]
    Io(#[from] io::Error),
    /// The Room said nothing for long.
    #[error("the Room said nothing for {} s", ROOM_DEAD.as_secs())]
    Silent,
    /// The Room takes nothing.
    #[error("the Room takes no more data")]
    Stuck,
    /// The Room did what no Room does.
    #[error("{0}")]
    Misbehaved(#[from] RoomFault),
}

impl LostReason {
    /// How long the Room asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            LostReason::Closed(closing) => asked_wait(closing),
            _ => None,
        }
    }
}

/// True of a close after which coming back makes no sense.
pub(super) fn ends_for_good(closing: &Closing) -> bool {
    let told_off = matches!(closing.code, CloseCode::Removed | CloseCode::Replaced | CloseCode::Banned);
    told_off && closing.reconnect_in_ms.is_none()
}

/// What to do about a close, where its words do not say.
fn advice(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Replaced => {
            "; a program with the same key took over: stop it, or give one of the two another name"
        }
        CloseCode::Removed | CloseCode::Banned => "; ask its operator",
        _ => "",
    }
}

fn asked_wait(closing: &Closing) -> Option<Duration> {
    closing.reconnect_in_ms.map(|ms| Duration::from_millis(u64::from(ms)))
}
