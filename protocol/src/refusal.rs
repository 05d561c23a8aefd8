//! Why something was refused or closed, as numbers on the wire and sentences for people.
//!
//! Numbers are never used again for something else. A number that the reader does not know is kept as
//! [`CloseCode::Unknown`] and shown as such.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a connection, link or channel ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum CloseCode {
    /// The program is done and says so.
    Done,
    /// A better link carries the channel.
    Superseded,
    /// Nothing was said for long.
    Idle,
    /// The Room stops or restarts.
    ShuttingDown,
    /// The operator removed or banned this user.
    Removed,
    /// The same program logged in again, or another with the same identity took over.
    Replaced,
    /// Bytes that this protocol does not have.
    Malformed,
    /// A message that may not come now.
    Unexpected,
    /// A limit was exceeded.
    LimitExceeded,
    /// No protocol version in common.
    Version,
    /// A deadline passed.
    TimedOut,
    /// An introduction that is unknown, expired, or names others.
    Introduction,
    /// The key differs from the one seen before under this name.
    IdentityChanged,
    /// One end wants encryption and the other does not.
    EncryptionMismatch,
    /// This address is banned.
    Banned,
    /// The reader does not keep up.
    SlowReader,
    /// A fault in the program that closes.
    Internal,
    /// A code that this version does not know.
    Unknown(u16),
}

macro_rules! close_codes {
    ($($variant:ident = $number:literal, $text:literal;)*) => {
        impl From<u16> for CloseCode {
            fn from(number: u16) -> Self {
                match number {
                    $($number => CloseCode::$variant,)*
                    other => CloseCode::Unknown(other),
                }
            }
        }

        impl From<CloseCode> for u16 {
            fn from(code: CloseCode) -> u16 {
                match code {
                    $(CloseCode::$variant => $number,)*
                    CloseCode::Unknown(other) => other,
                }
            }
        }

        impl fmt::Display for CloseCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(CloseCode::$variant => f.write_str($text),)*
                    CloseCode::Unknown(other) => write!(f, "close code {other}"),
                }
            }
        }

        #[cfg(test)]
        const CLOSE_CODES: &[(CloseCode, u16)] = &[$((CloseCode::$variant, $number),)*];
    };
}

close_codes! {
    Done = 0, "done";
    Superseded = 1, "replaced by a better link";
    Idle = 2, "idle";
    ShuttingDown = 3, "the Room is shutting down";
    Removed = 4, "removed by the operator";
    Replaced = 5, "replaced by another login under this name";
    Malformed = 16, "malformed bytes";
    Unexpected = 17, "a message that may not come now";
    LimitExceeded = 18, "a limit was exceeded";
    Version = 19, "no protocol version in common";
    TimedOut = 20, "timed out";
    Introduction = 32, "the introduction is unknown or expired";
    IdentityChanged = 33, "the identity changed";
    EncryptionMismatch = 34, "one end wants encryption and the other does not";
    Banned = 35, "this address is banned";
    SlowReader = 36, "the reader does not keep up";
    Internal = 48, "an internal error";
}

/// Why a Room does not let a connection in. Vague on purpose where an exact answer would help a guesser; the
/// Room's log is exact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginRefusal {
    /// The Room speaks other versions.
    Version {
        /// The lowest version the Room speaks.
        min: u16,
        /// The highest version the Room speaks.
        max: u16,
    },
    /// The name, its password or the room password is wrong. Which, is not said.
    Credentials,
    /// The Room has accounts and wants a password.
    PasswordNeeded,
    /// The room password is wrong or missing.
    RoomPassword,
    /// The resume ticket is unknown, expired or another identity's: log in with the password.
    Ticket,
    /// Another program is online under this name.
    NameInUse {
        /// True if it has the identity of this login, so that asking to take over would replace it.
        same_identity: bool,
    },
    /// The account is bound to another identity.
    IdentityMismatch,
    /// The proof of the identity is wrong.
    Proof,
    /// The address is banned; for so many seconds, if it passes by itself.
    Banned {
        /// Seconds until the ban ends.
        seconds: Option<u32>,
    },
    /// Too many attempts; wait.
    TooManyAttempts {
        /// Seconds to wait.
        seconds: u32,
    },
    /// The Room is busy; no failure of the login.
    Busy {
        /// Milliseconds to wait.
        retry_after_ms: u32,
    },
    /// The Room has as many users as it may.
    Full,
    /// Something in the login is not allowed.
    Malformed(String),
    /// The Room is shutting down.
    ShuttingDown,
}

impl fmt::Display for LoginRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoginRefusal::Version { min, max } => {
                write!(f, "the Room speaks protocol versions {min} to {max}; install a matching parlor")
            }
            LoginRefusal::Credentials => f.write_str("wrong name or password"),
            LoginRefusal::PasswordNeeded => {
                f.write_str("this Room wants a password: give one with --password-file")
            }
            LoginRefusal::RoomPassword => {
                f.write_str("wrong room password: give the Room's with --room-password-file")
            }
            LoginRefusal::Ticket => f.write_str("the resume ticket is no longer good"),
            LoginRefusal::NameInUse { same_identity: true } => f.write_str(
                "another program is online under this name; choose another name or take over with --take-over",
            ),
            LoginRefusal::NameInUse { same_identity: false } => {
                f.write_str("another program with another identity is online under this name; choose another name")
            }
            LoginRefusal::IdentityMismatch => f.write_str(
                "this account belongs to another identity; use the data directory it was first used with, \
                 or ask the operator for `parlor-room user reset-identity`",
            ),
            LoginRefusal::Proof => f.write_str("the proof of the identity does not match"),
            LoginRefusal::Banned { seconds: Some(seconds) } => {
                write!(f, "this address is banned for another {seconds} s")
            }
            LoginRefusal::Banned { seconds: None } => {
                f.write_str("this address is banned; ask the operator of the Room")
            }
            LoginRefusal::TooManyAttempts { seconds } => {
                write!(f, "too many failed logins; try again in {seconds} s")
            }
            LoginRefusal::Busy { retry_after_ms } => {
                write!(f, "the Room is busy; try again in {retry_after_ms} ms")
            }
            LoginRefusal::Full => f.write_str("the Room is full; ask its operator"),
            LoginRefusal::Malformed(what) => {
                write!(f, "the Room refused the login: {}", crate::name::printable(what))
            }
            LoginRefusal::ShuttingDown => f.write_str("the Room is shutting down; try again soon"),
        }
    }
}

impl LoginRefusal {
    /// How long to wait before the same login may succeed. `None`: it will not succeed by waiting.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            LoginRefusal::Busy { retry_after_ms } => Some(Duration::from_millis(u64::from(*retry_after_ms))),
            LoginRefusal::TooManyAttempts { seconds } | LoginRefusal::Banned { seconds: Some(seconds) } => {
                Some(Duration::from_secs(u64::from(*seconds)))
            }
            LoginRefusal::ShuttingDown | LoginRefusal::Full => Some(Duration::from_secs(5)),
            LoginRefusal::Version { .. }
            | LoginRefusal::Credentials
            | LoginRefusal::PasswordNeeded
            | LoginRefusal::RoomPassword
            | LoginRefusal::Ticket
            | LoginRefusal::NameInUse { .. }
            | LoginRefusal::IdentityMismatch
            | LoginRefusal::Proof
            | LoginRefusal::Banned { seconds: None }
            | LoginRefusal::Malformed(_) => None,
        }
    }
}

/// Why the Room does not introduce two users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PairRefusal {
    /// The peer is not online.
    Offline,
    /// The Room has accounts, and none has this name.
    NoSuchPeer,
    /// A user is its own peer.
    Yourself,
    /// One of the two wants encryption and the other does not.
    EncryptionMismatch {
        /// True if it is the asking user that wants it off.
        asker_is_off: bool,
    },
    /// Both want encryption off, and the Room's policy does not allow it.
    EncryptionRequired,
    /// Both want encryption off, and they share neither a host nor a LAN.
    NoCleartextPath,
    /// One of the two is banned from meeting others.
    Blocked,
    /// The Room has no path to offer: nothing direct, and its relay is used up or off.
    NoPath,
    /// Asked too often; wait.
    Busy {
        /// Milliseconds to wait.
        retry_after_ms: u32,
    },
}

impl fmt::Display for PairRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PairRefusal::Offline => f.write_str("is offline"),
            PairRefusal::NoSuchPeer => f.write_str("has no account in this Room"),
            PairRefusal::Yourself => f.write_str("is this very user"),
            PairRefusal::EncryptionMismatch { asker_is_off: true } => {
                f.write_str("wants encryption, and this user has it off; set both alike")
            }
            PairRefusal::EncryptionMismatch { asker_is_off: false } => {
                f.write_str("has encryption off, and this user wants it; set both alike")
            }
            PairRefusal::EncryptionRequired => f.write_str(
                "and this user have encryption off, and the Room does not allow that; \
                 turn it on or start the Room with --allow-unencrypted",
            ),
            PairRefusal::NoCleartextPath => f.write_str(
                "and this user have encryption off but share neither a host nor a LAN; turn it on",
            ),
            PairRefusal::Blocked => f.write_str("cannot be reached from here: an address is banned"),
            PairRefusal::NoPath => {
                f.write_str("cannot be reached directly, and the Room's relay has no room for another pair")
            }
            PairRefusal::Busy { retry_after_ms } => {
                write!(f, "was asked for too often; try again in {retry_after_ms} ms")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_keep_their_numbers() {
        for &(code, number) in CLOSE_CODES {
            assert_eq!(u16::from(code), number);
            assert_eq!(CloseCode::from(number), code);
        }
        assert_eq!(CloseCode::from(999), CloseCode::Unknown(999));
        let numbers: std::collections::HashSet<_> = CLOSE_CODES.iter().map(|(_, n)| n).collect();
        assert_eq!(numbers.len(), CLOSE_CODES.len());
    }
}
