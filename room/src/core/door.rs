//! Who may open a connection at all, decided before a byte is read or a TLS key is touched.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use parlor_protocol::limits::{PENALTY_TABLE, PRE_AUTH_CONNECTIONS, PRE_AUTH_PER_ADDRESS, PRE_AUTH_SOFT};

use super::blacklist::{Banned, Blacklist};
use super::{Now, Source};

/// Counts connections that have not logged in and knows who is kept out. Loopback has no limit of its own for
/// one address: every program of the machine comes from there.
///
/// Whoever is admitted must be given back to [`leave`](Self::leave), once, when it has logged in or is gone.
#[derive(Debug, Default)]
pub struct Door {
    blacklist: Arc<Blacklist>,
    barred: HashMap<Source, Instant>,
    waiting: HashMap<Source, usize>,
    total: usize,
}

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// Its address is banned.
    Banned(Banned),
    /// There are too many connections that have not logged in.
    Crowded,
}

impl Door {
    /// Decides about a connection from `ip`. `draw` is random: a crowd is thinned out by chance, so that no
    /// pattern of arrival keeps a particular user out.
    pub fn enter(&mut self, ip: IpAddr, draw: u32, now: Now) -> Result<(), TurnedAway> {
        if let Some(banned) = self.keeps_out(ip, now) {
            return Err(TurnedAway::Banned(banned));
        }
        let source = Source::of(ip);
        let from_here = self.waiting.get(&source).copied().unwrap_or(0);
        let too_many_from_here = from_here >= PRE_AUTH_PER_ADDRESS && !source.is_loopback();
        if too_many_from_here || self.refuses_by_chance(draw) {
            return Err(TurnedAway::Crowded);
        }
        *self.waiting.entry(source).or_default() += 1;
        self.total += 1;
        Ok(())
    }

    /// Whether, and for how long, an address is kept out. To be asked again before work is done for a connection that
    /// has entered.
    pub fn keeps_out(&mut self, ip: IpAddr, now: Now) -> Option<Banned> {
        if let Some(banned) = self.blacklist.banned(ip, now.unix) {
            return Some(banned);
        }
        let source = Source::of(ip);
        let left = self.barred.get(&source)?.saturating_duration_since(now.instant);
        if left.is_zero() {
            self.barred.remove(&source);
            return None;
        }
        Some(Banned::Seconds(u32::try_from(left.as_secs() + 1).unwrap_or(u32::MAX)))
    }

    /// A connection that entered has logged in or is gone.
    pub fn leave(&mut self, ip: IpAddr) {
        let source = Source::of(ip);
        if let Some(count) = self.waiting.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&source);
            }
            self.total -= 1;
        }
    }

    /// The blacklist is now this.
    pub fn set_blacklist(&mut self, blacklist: Arc<Blacklist>) {
        self.blacklist = blacklist;
    }

    /// Keeps an address out until then.
    pub fn bar(&mut self, source: Source, until: Instant, now: Instant) {
        if self.barred.len() >= PENALTY_TABLE {
            self.barred.retain(|_, until| *until > now);
        }
        if self.barred.len() < PENALTY_TABLE {
            self.barred.insert(source, until);
        }
    }

    /// Keeps nobody of a network out any longer.
    pub fn pardon(&mut self, net: IpNet) {
        self.barred.retain(|source, _| !net.contains(&source.net()));
    }

    /// From [`PRE_AUTH_SOFT`] on the chance to be refused grows from none to certain at
    /// [`PRE_AUTH_CONNECTIONS`].
    fn refuses_by_chance(&self, draw: u32) -> bool {
        let over = self.total.saturating_sub(PRE_AUTH_SOFT) as u64;
        let span = (PRE_AUTH_CONNECTIONS - PRE_AUTH_SOFT) as u64;
        over >= span || u64::from(draw) * span < over << 32
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + n).into()
    }

    fn now() -> Now {
        Now { instant: Instant::now(), unix: 1000 }
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let (mut door, now) = (Door::default(), now());
        for _ in 0..PRE_AUTH_PER_ADDRESS {
            assert_eq!(door.enter(ip(1), 0, now), Ok(()));
        }
        assert_eq!(door.enter(ip(1), 0, now), Err(TurnedAway::Crowded));
        assert_eq!(door.enter(ip(2), 0, now), Ok(()));
        door.leave(ip(1));
        assert_eq!(door.enter(ip(1), 0, now), Ok(()));
    }

    #[test]
    fn a_crowd_is_thinned_out_by_chance_and_then_refused() {
        let (mut door, now) = (Door::default(), now());
        for n in 0..PRE_AUTH_CONNECTIONS as u32 {
            assert_eq!(door.enter(ip(n), u32::MAX, now), Ok(()), "{n}");
            if n > PRE_AUTH_SOFT as u32 {
                assert_eq!(door.enter(ip(100_000), 0, now), Err(TurnedAway::Crowded), "{n}");
            }
        }
        assert_eq!(door.enter(ip(100_000), u32::MAX, now), Err(TurnedAway::Crowded));
        for n in 0..PRE_AUTH_CONNECTIONS as u32 {
            door.leave(ip(n));
        }
        assert!(door.total == 0 && door.waiting.is_empty());
    }

    #[test]
    fn a_banned_and_a_barred_address_are_told_how_long() {
        let (mut door, now) = (Door::default(), now());
        let net = Source::of(ip(1)).net();
        door.set_blacklist(Arc::new(Blacklist::new(&[net], vec![])));
        assert_eq!(door.enter(ip(1), 0, now), Err(TurnedAway::Banned(Banned::ForGood)));
        door.bar(Source::of(ip(2)), now.instant + Duration::from_secs(15), now.instant);
        assert_eq!(door.enter(ip(2), 0, now), Err(TurnedAway::Banned(Banned::Seconds(16))));
        let later = Now { instant: now.instant + Duration::from_secs(15), ..now };
        assert_eq!(door.enter(ip(2), 0, later), Ok(()));
    }
}
