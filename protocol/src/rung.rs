//! The kinds of path between two users, best first. The *ladder* is their order.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A kind of path between two users. The order is the preference: a smaller rung is the better path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Rung {
    /// Both programs run on one machine: loopback.
    SameHost = 0,
    /// Both are in one local network: a private address.
    Lan = 1,
    /// One of them has an address that the other can reach from outside.
    Public = 2,
    /// Through the Room.
    Relay = 3,
}

impl Rung {
    /// Every rung, best first.
    pub const ALL: [Rung; 4] = [Rung::SameHost, Rung::Lan, Rung::Public, Rung::Relay];

    /// How people and scripts write it: `same-host`, `lan`, `public`, `relay`.
    pub fn as_str(self) -> &'static str {
        match self {
            Rung::SameHost => "same-host",
            Rung::Lan => "lan",
            Rung::Public => "public",
            Rung::Relay => "relay",
        }
    }

    /// True of a path that does not go through the Room.
    pub fn is_direct(self) -> bool {
        self != Rung::Relay
    }

    /// True of a path on which two users may agree to leave records unencrypted.
    pub fn allows_cleartext(self) -> bool {
        matches!(self, Rung::SameHost | Rung::Lan)
    }

    /// The rung of a wire number.
    pub fn from_wire(number: u8) -> Option<Rung> {
        Rung::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is no rung's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rung: use same-host, lan, public or relay")]
pub struct NoSuchRung(String);

impl FromStr for Rung {
    type Err = NoSuchRung;

    fn from_str(text: &str) -> Result<Self, NoSuchRung> {
        Rung::ALL.into_iter().find(|r| r.as_str() == text).ok_or_else(|| NoSuchRung(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_reads_back_from_its_text_and_its_number_and_the_better_one_is_smaller() {
        for rung in Rung::ALL {
            assert_eq!(rung.as_str().parse(), Ok(rung));
            assert_eq!(Rung::from_wire(rung as u8), Some(rung));
        }
        assert_eq!(Rung::from_wire(4), None);
        assert!(Rung::SameHost < Rung::Lan && Rung::Lan < Rung::Public && Rung::Public < Rung::Relay);
    }
}
