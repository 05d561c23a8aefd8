//! What the driver tells a process of talkers, and what that answers: one JSON object a line.

use serde::{Deserialize, Serialize};

use super::ledger::Tally;

/// What talkers are to do. Each is answered at once with a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Send so many more messages to the other user of each pair.
    Send {
        /// How many.
        messages: u64,
        /// Microseconds from one to the next. 0: as fast as they are taken.
        every_us: u64,
        /// Sizes of their bodies in bytes, from and to.
        size: (usize, usize),
        /// One in so many has 64 KiB and goes in pieces. 0: none.
        large_every: u64,
        /// After so many messages there is a call, too. 0: none.
        call_every: u64,
    },
    /// Send nothing more.
    Hush,
    /// Say how it stands, and the longest pause of those that ended after this time on the machine's clock.
    Look {
        /// The time, in nanoseconds.
        since: u64,
    },
    /// Tell what was tried to reach the other of this pair, and what came of it.
    Explain {
        /// Which pair.
        pair: usize,
    },
    /// Take no more messages until [`Order::Take`].
    Hold,
    /// Take messages again.
    Take,
}

/// How the talkers of a process stand, each pair in turn.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Status {
    /// Each pair's user of this process.
    pub(super) pairs: Vec<PairStatus>,
    /// Their calendar, in seconds since 1970.
    #[serde(default)]
    pub(super) calendar: u64,
    /// What was asked for by [`Order::Explain`].
    #[serde(default)]
    pub(super) story: Vec<String>,
}

/// How one user stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct PairStatus {
    /// The kind of path that carries the conversation.
    pub(super) rung: Option<String>,
    /// True while the Room can be asked.
    pub(super) room_is_up: bool,
    /// The port from which the Room sees the control connection come.
    pub(super) control_port: u16,
    /// True if everything that was ordered was sent, and counted below.
    pub(super) all_sent: bool,
    /// What this user has sent.
    pub(super) sent: Sent,
    /// What has come from the other.
    pub(super) taken: Tally,
    /// The longest time without a delivery since the one asked for, in nanoseconds.
    pub(super) pause: u64,
    /// Calls of the other that ran here.
    pub(super) ran: u64,
    /// Calls of the other that ran here although they had run before.
    pub(super) ran_again: u64,
}

/// What a user has sent, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    /// Messages that were taken for sending.
    pub(super) messages: u64,
    /// Of those, taken over by the other program by its word.
    pub(super) delivered: u64,
    /// Of those, reported as interrupted.
    pub(super) interrupted: u64,
    /// How often a message was not taken for sending, and so was tried again.
    pub(super) refused: u64,
    /// Calls that were made.
    pub(super) calls: u64,
    /// Of those, answered rightly.
    pub(super) answered: u64,
    /// Of those, ended in any other way.
    pub(super) failed: u64,
    /// The first error of all.
    pub(super) error: Option<String>,
}

impl PairStatus {
    /// True if nothing is to be sent, and nothing under way.
    pub(super) fn is_settled(&self) -> bool {
        self.all_sent && self.sent.is_settled()
    }
}

impl Sent {
    /// True if nothing that was sent is under way.
    pub(super) fn is_settled(&self) -> bool {
        self.messages == self.delivered + self.interrupted && self.calls == self.answered + self.failed
    }
}
