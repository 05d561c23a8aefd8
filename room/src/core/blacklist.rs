//! The addresses and networks that the operator keeps out, for good or for a time.
//!
//! Entries from the configuration stand for the whole run; bans come and go while the Room runs. A v4 network
//! that is written as v6 is the v4 network, and a v6 entry narrower than /64 counts as its /64, since
//! whoever holds one address of a /64 holds them all. A v4 entry counts for the v6 addresses that lead to it by a
//! translator or tunnel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use parlor_protocol::network::{behind, canonical};

use crate::store::Ban;

/// The blacklist. A lookup costs one search for each prefix length in use.
#[derive(Debug, Clone, Default)]
pub struct Blacklist {
    entries: BTreeMap<IpNet, Entry>,
    /// How many entries have each prefix length: v4, v6.
    lengths: [BTreeMap<u8, usize>; 2],
}

#[derive(Debug, Clone)]
enum Entry {
    Configured,
    Ban(Ban),
}

/// How long a banned address stays banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Banned {
    /// Until the operator lifts the ban.
    ForGood,
    /// For so many seconds.
    Seconds(u32),
}

impl Banned {
    /// The seconds, as the wire has them.
    pub fn seconds(self) -> Option<u32> {
        match self {
            Banned::ForGood => None,
            Banned::Seconds(seconds) => Some(seconds),
        }
    }
}

impl Blacklist {
    /// The blacklist of a configuration and of the bans that the store kept.
    pub fn new(configured: &[IpNet], bans: Vec<Ban>) -> Self {
        let mut blacklist = Self::default();
        for ban in bans {
            blacklist.ban(ban);
        }
        for net in configured {
            blacklist.insert(canonical(*net), Entry::Configured);
        }
        blacklist
    }

    /// Adds or replaces a ban. An entry of the configuration stays as it is.
    /// Returns the network that is banned now.
    pub fn ban(&mut self, ban: Ban) -> IpNet {
        let net = canonical(ban.net);
        if !matches!(self.entries.get(&net), Some(Entry::Configured)) {
            self.insert(net, Entry::Ban(Ban { net, ..ban }));
        }
        net
    }

    /// Lifts a ban.
    pub fn unban(&mut self, net: IpNet) -> Result<IpNet, CannotUnban> {
        let net = canonical(net);
        match self.entries.get(&net) {
            None => Err(CannotUnban::NotBanned(net)),
            Some(Entry::Configured) => Err(CannotUnban::Configured(net)),
            Some(Entry::Ban(_)) => {
                self.remove(net);
                Ok(net)
            }
        }
    }

    /// Removes bans that have passed. Returns their networks.
    pub fn expire(&mut self, unix: u64) -> Vec<IpNet> {
        let over: Vec<IpNet> =
            self.entries.iter().filter(|(_, entry)| !entry.holds(unix)).map(|(net, _)| *net).collect();
        for net in &over {
            self.remove(*net);
        }
        over
    }

    /// Whether, and for how long, `ip` is kept out. The longest of all entries that cover it counts.
    pub fn banned(&self, ip: IpAddr, unix: u64) -> Option<Banned> {
        let ip = ip.to_canonical();
        let through = behind(ip).and_then(|ip| self.listed(ip, unix));
        match (self.listed(ip, unix), through) {
            (Some(Banned::Seconds(one)), Some(Banned::Seconds(other))) => {
                Some(Banned::Seconds(one.max(other)))
            }
            (Some(Banned::ForGood), _) | (_, Some(Banned::ForGood)) => Some(Banned::ForGood),
            (one, other) => one.or(other),
        }
    }

    fn listed(&self, ip: IpAddr, unix: u64) -> Option<Banned> {
        let lengths = &self.lengths[usize::from(ip.is_ipv6())];
        let mut longest = None;
        for length in lengths.keys() {
            let Ok(net) = IpNet::new(ip, *length) else { continue };
            match self.entries.get(&net.trunc()).and_then(|entry| entry.banned(unix)) {
                Some(Banned::ForGood) => return Some(Banned::ForGood),
                Some(Banned::Seconds(seconds)) => longest = longest.max(Some(seconds)),
                None => {}
            }
        }
        longest.map(Banned::Seconds)
    }

    /// Every network that is kept out now, at most `limit` of them.
    pub fn nets(&self, unix: u64, limit: usize) -> Vec<IpNet> {
        let in_force = self.entries.iter().filter(|(_, entry)| entry.holds(unix));
        in_force.map(|(net, _)| *net).take(limit).collect()
    }

    /// Every entry: its network, when it ends (seconds since 1970), and why it is there. `None` for the reason: the
    /// configuration.
    pub fn entries(&self) -> impl Iterator<Item = (IpNet, Option<u64>, Option<&str>)> {
        self.entries.iter().map(|(net, entry)| match entry {
            Entry::Configured => (*net, None, None),
            Entry::Ban(ban) => (*net, ban.until, Some(ban.reason.as_str())),
        })
    }

    /// How many networks are kept out.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if nobody is kept out.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn insert(&mut self, net: IpNet, entry: Entry) {
        if self.entries.insert(net, entry).is_none() {
            *self.lengths_of(net).entry(net.prefix_len()).or_default() += 1;
        }
    }

    fn remove(&mut self, net: IpNet) {
        if self.entries.remove(&net).is_some() {
            let lengths = self.lengths_of(net);
            if let Some(count) = lengths.get_mut(&net.prefix_len()) {
                *count -= 1;
                if *count == 0 {
                    lengths.remove(&net.prefix_len());
                }
            }
        }
    }

    fn lengths_of(&mut self, net: IpNet) -> &mut BTreeMap<u8, usize> {
        &mut self.lengths[usize::from(matches!(net, IpNet::V6(_)))]
    }
}

/// Why a ban cannot be lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotUnban {
    /// There is no such ban.
    #[error("{0} is not banned; `parlor-room ban list` shows what is")]
    NotBanned(IpNet),
    /// The configuration bans it.
    #[error("{0} is banned by the configuration; remove it from `blacklist` there and restart the Room")]
    Configured(IpNet),
}

impl Entry {
    fn banned(&self, unix: u64) -> Option<Banned> {
        match self {
            Entry::Configured | Entry::Ban(Ban { until: None, .. }) => Some(Banned::ForGood),
            Entry::Ban(Ban { until: Some(until), .. }) => match until.saturating_sub(unix) {
                0 => None,
                left => Some(Banned::Seconds(u32::try_from(left).unwrap_or(u32::MAX))),
            },
        }
    }

    fn holds(&self, unix: u64) -> bool {
        self.banned(unix).is_some()
    }
}

#[cfg(test)]
mod tests {
    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    use super::*;

    fn ban(net: &str, until: Option<u64>) -> Ban {
        Ban { net: net.parse().unwrap(), until, reason: "test".into() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_and_single_addresses_are_kept_out_in_every_way_of_writing_them() {
        let configured = ["192.0.2.7/32", "198.51.100.0/24", "2001:db8::1/128"].map(|n| n.parse().unwrap());
        let blacklist = Blacklist::new(&configured, vec![ban("::ffff:203.0.113.0/120", None)]);
        for out in [
            "192.0.2.7",
            "::ffff:192.0.2.7",
            "198.51.100.200",
            "2001:db8::2",
            "203.0.113.9",
            "::ffff:203.0.113.1",
        ] {
            assert_eq!(blacklist.banned(ip(out), 0), Some(Banned::ForGood), "{out}");
        }
        for allowed in ["192.0.2.8", "198.51.101.1", "2001:db8:0:1::1", "127.0.0.1"] {
            assert_eq!(blacklist.banned(ip(allowed), 0), None, "{allowed}");
        }
    }

    #[test]
    fn a_timed_ban_passes_by_itself_and_the_longest_counts() {
        let mut blacklist =
            Blacklist::new(&[], vec![ban("192.0.2.0/24", Some(100)), ban("192.0.2.7/32", Some(50))]);
        assert_eq!(blacklist.banned(ip("192.0.2.7"), 40), Some(Banned::Seconds(60)));
        assert_eq!(blacklist.expire(60), ["192.0.2.7/32".parse::<IpNet>().unwrap()]);
        assert_eq!(blacklist.banned(ip("192.0.2.7"), 99), Some(Banned::Seconds(1)));
        assert_eq!(blacklist.banned(ip("192.0.2.7"), 100), None);
        blacklist.expire(100);
        assert!(blacklist.is_empty());
    }

    #[test]
    fn what_the_configuration_bans_is_not_lifted_at_run_time() {
        let net: IpNet = "192.0.2.0/24".parse().unwrap();
        let mut blacklist = Blacklist::new(&[net], vec![]);
        blacklist.ban(ban("192.0.2.0/24", Some(10)));
        assert_eq!(blacklist.unban(net), Err(CannotUnban::Configured(net)));
        assert_eq!(blacklist.banned(ip("192.0.2.1"), 20), Some(Banned::ForGood));
        let other: IpNet = "10.0.0.1/32".parse().unwrap();
        assert_eq!(blacklist.unban(other), Err(CannotUnban::NotBanned(other)));
        blacklist.ban(ban("10.0.0.1/32", None));
        assert_eq!(blacklist.unban(other), Ok(other));
        assert_eq!(blacklist.banned(ip("10.0.0.1"), 20), None);
    }

    #[test]
    fn a_v4_address_is_kept_out_by_whichever_translator_it_comes() {
        let mut blacklist = Blacklist::new(&[], vec![ban("198.51.100.0/24", Some(100))]);
        let ways = ["64:ff9b::198.51.100.1", "2002:c633:6401::1", "64:ff9b:1::198.51.100.1"];
        for way in ways {
            assert_eq!(blacklist.banned(ip(way), 40), Some(Banned::Seconds(60)), "{way}");
        }
        assert_eq!(blacklist.banned(ip("64:ff9b::198.51.101.1"), 40), None);
        blacklist.ban(ban("64:ff9b::/64", None));
        assert_eq!(blacklist.banned(ip(ways[0]), 40), Some(Banned::ForGood));
    }

    proptest! {
        #[test]
        fn the_lookup_agrees_with_asking_every_network(
            nets in proptest::collection::vec((any::<[u8; 4]>(), 0u8..=32), 0..20), address: [u8; 4],
        ) {
            let nets: Vec<IpNet> = nets.into_iter().map(|(a, l)| Ipv4Net::new(a.into(), l).unwrap().into()).collect();
            let ip = IpAddr::from(address);
            let expected = nets.iter().any(|net| net.contains(&ip));
            prop_assert_eq!(Blacklist::new(&nets, vec![]).banned(ip, 0).is_some(), expected);
        }
    }
}
