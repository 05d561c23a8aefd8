//! What becomes of a behaviour, in the words of the tables and of `docs/SECURITY.md`.

use std::fmt;

use parlor_protocol::refusal::{CloseCode, LoginRefusal, PairRefusal};
use parlor_protocol::wire::peer::Status;

/// How the victim answers a behaviour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing comes of it: the connection goes on as if nothing had been said, or the request is granted.
    Served,
    /// The connection or link ends without a word.
    Dropped,
    /// Another link takes over from one that does not end.
    Replaced,
    /// It ends with a code in words: `Closing` of the Room, CLOSE of a peer.
    Closed(CloseCode),
    /// The whole channel ends with a code: END of a peer.
    Ended(CloseCode),
    /// A handshake or a relayed link is refused with a code.
    Refused(CloseCode),
    /// A login is refused; times to wait are 0.
    LoginRefused(LoginRefusal),
    /// An introduction is refused; times to wait are 0.
    NotIntroduced(PairRefusal),
    /// TLS ends with this alert (RFC 8446 section 6.2).
    Alert(u8),
    /// A call is answered with this status.
    Answered(Status),
    /// The operator's socket answers that it was not done.
    NotDone,
    /// What a user says of itself is told to nobody.
    Withheld,
    /// The victim's program hears of an error in place of an answer, and nothing of what was wrong is used.
    NotUsed,
}

/// A login's refusal with times to wait of 0.
pub fn without_numbers(refusal: LoginRefusal) -> LoginRefusal {
    match refusal {
        LoginRefusal::TooManyAttempts { .. } => LoginRefusal::TooManyAttempts { seconds: 0 },
        LoginRefusal::Busy { .. } => LoginRefusal::Busy { retry_after_ms: 0 },
        LoginRefusal::Banned { .. } => LoginRefusal::Banned { seconds: None },
        other => other,
    }
}

/// An introduction's refusal with a time to wait of 0.
pub fn without_wait(why: PairRefusal) -> PairRefusal {
    match why {
        PairRefusal::Busy { .. } => PairRefusal::Busy { retry_after_ms: 0 },
        other => other,
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |code: &CloseCode| u16::from(*code);
        match self {
            Outcome::Served => f.write_str("nothing comes of it"),
            Outcome::Dropped => f.write_str("dropped without a word"),
            Outcome::Replaced => f.write_str("another link takes over"),
            Outcome::Closed(code) => write!(f, "closed: {code} ({})", number(code)),
            Outcome::Ended(code) => write!(f, "channel ended: {code} ({})", number(code)),
            Outcome::Refused(code) => write!(f, "refused: {code} ({})", number(code)),
            Outcome::LoginRefused(refusal) => write!(f, "login refused: `{}`", kind(refusal)),
            Outcome::NotIntroduced(why) => write!(f, "not introduced: `{}`", kind(why)),
            Outcome::Alert(number) => write!(f, "TLS alert {number}"),
            Outcome::Answered(status) => write!(f, "answered: `{}`", kind(status)),
            Outcome::NotDone => f.write_str("answered with an error"),
            Outcome::Withheld => f.write_str("told to nobody"),
            Outcome::NotUsed => f.write_str("an error in the program, nothing of it used"),
        }
    }
}

/// The name of a variant.
fn kind(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}

/// What a behaviour costs the address it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Nothing that would show.
    Nothing,
    /// Once does not bar it, and counts.
    Counts,
    /// So many times at once bar it.
    AddsUp(usize),
    /// Once bars it.
    Bars,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cost::Nothing => f.write_str("-"),
            Cost::Counts => f.write_str("counts"),
            Cost::AddsUp(times) => write!(f, "barred after {times}"),
            Cost::Bars => f.write_str("barred"),
        }
    }
}
