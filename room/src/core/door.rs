//! Who may open a connection at all, decided before a byte is read or a TLS key is touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parlor_protocol::limits::{PENALTY_TABLE, PRE_AUTH_CONNECTIONS, PRE_AUTH_PER_ADDRESS, PRE_AUTH_SOFT};

use super::blacklist::{Banned, Blacklist};
use super::{Now, Source};

/// Counts connections that have not logged in and knows who is kept out. Loopback has no limit of its own for
/// one address: every program of the machine comes from there.
///
/// In a crowd somebody has to go. That is whoever has been there longest without a word, if longer than a first word
/// takes to come; then whoever was refused a login and still stands there; then who is silent for a shorter time; else
/// the one that comes. So connections that do nothing keep nobody out who means to log in and says so at once.
///
/// Whoever is admitted must be given back to [`leave`](Self::leave) when it has logged in or is gone.
#[derive(Debug, Default)]
pub struct Door {
    blacklist: Arc<Blacklist>,
    barred: HashMap<Source, Instant>,
    waiting: HashMap<Source, usize>,
    inside: HashMap<PlaceId, Source>,
    silent: BTreeMap<PlaceId, Instant>,
    refused: BTreeSet<PlaceId>,
}

/// A first word may take this long to come: a round trip to the other side of the world, and a lost packet.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// Tells a connection at the door from every other of this run. Who came later has a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlaceId(pub u64);

/// Why a connection is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnedAway {
    /// Its address is banned.
    Banned(Banned),
    /// There are too many connections that have not logged in.
    Crowded,
}

impl Door {
    /// Decides about a connection from `ip`, and says who has to go for it: that one has left. `draw` is random: a crowd
    /// is thinned out by chance, so that no pattern of arrival keeps a particular user out.
    pub fn enter(
        &mut self,
        id: PlaceId,
        ip: IpAddr,
        draw: u32,
        now: Now,
    ) -> Result<Option<PlaceId>, TurnedAway> {
        if let Some(banned) = self.keeps_out(ip, now) {
            return Err(TurnedAway::Banned(banned));
        }
        let source = Source::of(ip);
        let from_here = self.waiting.get(&source).copied().unwrap_or(0);
        let too_many_from_here = from_here >= PRE_AUTH_PER_ADDRESS && !source.is_loopback();
        if too_many_from_here {
            return Err(TurnedAway::Crowded);
        }
        let mut displaced = None;
        if self.is_crowded(draw) {
            let idle = self.idle(now.instant).ok_or(TurnedAway::Crowded)?;
            self.leave(idle);
            displaced = Some(idle);
        }
        *self.waiting.entry(source).or_default() += 1;
        self.inside.insert(id, source);
        self.silent.insert(id, now.instant);
        Ok(displaced)
    }

    /// Who has to go first.
    fn idle(&self, now: Instant) -> Option<PlaceId> {
        let silent = self.silent.first_key_value();
        let long = silent.filter(|(_, since)| now >= **since + FIRST_WORD);
        let refused = self.refused.first();
        long.map(|(id, _)| id).or(refused).or(silent.map(|(id, _)| id)).copied()
    }

    /// A connection has said something.
    pub fn spoke(&mut self, id: PlaceId) {
        self.silent.remove(&id);
        self.refused.remove(&id);
    }

    /// A connection was refused a login, and may try again.
    pub fn refused(&mut self, id: PlaceId) {
        if self.inside.contains_key(&id) {
            self.refused.insert(id);
        }
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

    /// A connection that entered has logged in or is gone. It is no fault if it had to go before.
    pub fn leave(&mut self, id: PlaceId) {
        let Some(source) = self.inside.remove(&id) else { return };
        self.spoke(id);
        if let Some(count) = self.waiting.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&source);
            }
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

    /// From [`PRE_AUTH_SOFT`] on the chance that somebody has to go grows from none to certain at
    /// [`PRE_AUTH_CONNECTIONS`].
    fn is_crowded(&self, draw: u32) -> bool {
        let over = self.inside.len().saturating_sub(PRE_AUTH_SOFT) as u64;
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

    /// A connection that has spoken.
    fn enter(
        door: &mut Door,
        id: u64,
        ip: IpAddr,
        draw: u32,
        now: Now,
    ) -> Result<Option<PlaceId>, TurnedAway> {
        let entered = door.enter(PlaceId(id), ip, draw, now);
        door.spoke(PlaceId(id));
        entered
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let (mut door, now) = (Door::default(), now());
        for id in 0..PRE_AUTH_PER_ADDRESS as u64 {
            assert_eq!(enter(&mut door, id, ip(1), 0, now), Ok(None));
        }
        assert_eq!(enter(&mut door, 100, ip(1), 0, now), Err(TurnedAway::Crowded));
        assert_eq!(enter(&mut door, 101, ip(2), 0, now), Ok(None));
        door.leave(PlaceId(0));
        assert_eq!(enter(&mut door, 102, ip(1), 0, now), Ok(None));
    }

    #[test]
    fn a_crowd_is_thinned_out_by_chance_and_then_refused() {
        let (mut door, now) = (Door::default(), now());
        for n in 0..PRE_AUTH_CONNECTIONS as u32 {
            assert_eq!(enter(&mut door, n.into(), ip(n), u32::MAX, now), Ok(None), "{n}");
            if n > PRE_AUTH_SOFT as u32 {
                assert_eq!(enter(&mut door, 100_000, ip(100_000), 0, now), Err(TurnedAway::Crowded), "{n}");
            }
        }
        assert_eq!(enter(&mut door, 100_000, ip(100_000), u32::MAX, now), Err(TurnedAway::Crowded));
        for n in 0..PRE_AUTH_CONNECTIONS as u64 {
            door.leave(PlaceId(n));
            door.leave(PlaceId(n));
        }
        assert!(door.inside.is_empty() && door.waiting.is_empty());
    }

    #[test]
    fn in_a_crowd_the_longest_silent_goes_then_who_was_refused_and_only_then_who_comes() {
        let (mut door, now) = (Door::default(), now());
        let mut next = 0;
        let mut come = |door: &mut Door| {
            next += 1;
            door.enter(PlaceId(next), ip(next as u32), u32::MAX, now)
        };
        for _ in 0..PRE_AUTH_CONNECTIONS {
            assert_eq!(come(&mut door), Ok(None));
        }
        door.spoke(PlaceId(1));
        assert_eq!(come(&mut door), Ok(Some(PlaceId(2))));
        for n in 1..=1 + PRE_AUTH_CONNECTIONS as u64 {
            door.spoke(PlaceId(n));
        }
        for n in [9, 7, 2] {
            door.refused(PlaceId(n));
        }
        assert_eq!(come(&mut door), Ok(Some(PlaceId(7))), "2 has gone before");
        // 514 has just come, and its first word may be under way.
        assert_eq!(come(&mut door), Ok(Some(PlaceId(9))));
        door.refused(PlaceId(11));
        let later = Now { instant: now.instant + FIRST_WORD, ..now };
        assert_eq!(door.enter(PlaceId(600), ip(600), u32::MAX, later), Ok(Some(PlaceId(514))));
        door.spoke(PlaceId(11));
        assert_eq!(come(&mut door), Ok(Some(PlaceId(515))));
        for n in [600, 516] {
            door.spoke(PlaceId(n));
        }
        assert_eq!(come(&mut door), Err(TurnedAway::Crowded));
        assert_eq!(door.inside.len(), PRE_AUTH_CONNECTIONS);
    }

    #[test]
    fn a_banned_and_a_barred_address_are_told_how_long() {
        let (mut door, now) = (Door::default(), now());
        let net = Source::of(ip(1)).net();
        door.set_blacklist(Arc::new(Blacklist::new(&[net], vec![])));
        assert_eq!(enter(&mut door, 1, ip(1), 0, now), Err(TurnedAway::Banned(Banned::ForGood)));
        door.bar(Source::of(ip(2)), now.instant + Duration::from_secs(15), now.instant);
        assert_eq!(enter(&mut door, 2, ip(2), 0, now), Err(TurnedAway::Banned(Banned::Seconds(16))));
        let later = Now { instant: now.instant + Duration::from_secs(15), ..now };
        assert_eq!(enter(&mut door, 3, ip(2), 0, later), Ok(None));
    }
}
