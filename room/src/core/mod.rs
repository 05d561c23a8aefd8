//! What the Room decides. Time, chance and the results of slow work come in as arguments; what is to be
//! done comes out as commands. Nothing here opens a socket, reads a clock or starts a task.
//!
//! [`coordinator::Coordinator`] ties the parts together: one input at a time, commands out. Each part
//! has one concern and can be read alone:
//!
//! - [`blacklist`], [`penalty`], [`door`]: which addresses may come in at all.
//! - [`accounts`], [`admission`], [`tickets`], [`certificates`]: who is let in under which name; [`mod@line`]: who has its
//!   turn first.
//! - [`directory`]: who is online, and what changed.
//! - [`pairing`], [`checks`]: which paths two users have, and which addresses the Room looks at for that.
//! - [`relay`]: which two links the Room splices.
//! - [`rate`], [`fair`]: how much of something one may have, and how many share it.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

pub mod accounts;
pub mod admission;
pub mod blacklist;
pub mod certificates;
pub mod checks;
pub mod coordinator;
pub mod directory;
pub mod door;
pub mod fair;
pub mod line;
pub mod pairing;
pub mod penalty;
pub mod rate;
pub mod relay;
pub mod tickets;

/// The time at which something happens: monotonic for waits, by the calendar for what outlives a process.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For durations.
    pub instant: Instant,
    /// Seconds since 1970.
    pub unix: u64,
}

/// Where the core's random bytes come from. They must be unpredictable: tickets and tokens are made of them.
pub trait Chance: Send {
    /// 32 fresh random bytes.
    fn draw(&mut self) -> [u8; 32];
}

impl<F: FnMut() -> [u8; 32] + Send> Chance for F {
    fn draw(&mut self) -> [u8; 32] {
        self()
    }
}

/// Tells one control connection from every other of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Tells one end of a relayed link from every other of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What counts as one address when somebody is to be held to account: a v4 address, or a v6 /64, since that
/// is what one subscriber commands. A v4 address written as v6 is the v4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(IpNet);

impl Source {
    /// The source that `ip` belongs to.
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => Ipv4Net::from(ip).into(),
            IpAddr::V6(ip) => v6_net(ip, 64),
        })
    }

    /// The source as a network.
    pub fn net(self) -> IpNet {
        self.0
    }

    /// The v6 site that it is part of: one customer's network has up to 65,536 sources (RFC 6177).
    pub fn site(self) -> Option<IpNet> {
        match self.0 {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some(v6_net(net.addr(), 48)),
        }
    }

    /// True if it cannot be reached from another machine.
    pub fn is_loopback(self) -> bool {
        match self.0 {
            IpNet::V4(net) => net.addr().is_loopback(),
            // ::1 is in ::/64, in which no address of another machine is.
            IpNet::V6(net) => net.network().is_unspecified(),
        }
    }
}

fn v6_net(ip: Ipv6Addr, prefix: u8) -> IpNet {
    // 64 is a prefix length of v6.
    Ipv6Net::new(ip, prefix).map_or_else(|_| Ipv6Net::from(ip).into(), |net| net.trunc().into())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Bytes that differ from draw to draw, and are the same in every run.
    pub(crate) fn counting_chance() -> impl Chance {
        let mut count = 0u64;
        move || {
            count += 1;
            blake3::hash(&count.to_le_bytes()).into()
        }
    }

    #[test]
    fn a_v6_subscriber_is_one_source_and_a_mapped_v4_address_is_v4() {
        let source = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.7"), source("192.0.2.7"));
        assert_ne!(source("192.0.2.7"), source("192.0.2.8"));
        assert!(source("::1").is_loopback() && source("127.0.0.2").is_loopback());
        assert!(!source("2001:db8::1").is_loopback() && !source("192.0.2.7").is_loopback());
    }
}
