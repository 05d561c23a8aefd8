//! The addresses this user neither dials nor answers, as the Room handed them out last.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parlor_protocol::network::{canonical, covers};

/// The shared blacklist. Clones are the same list; readers never wait.
#[derive(Debug, Clone, Default)]
pub struct Blacklist(Arc<ArcSwap<Vec<IpNet>>>);

impl Blacklist {
    /// Replaces the whole list.
    pub fn set(&self, nets: Vec<IpNet>) {
        self.0.store(Arc::new(nets.into_iter().map(canonical).collect()));
    }

    /// The whole list, as it acts.
    pub fn nets(&self) -> Vec<IpNet> {
        self.0.load().to_vec()
    }

    /// True if links to and from `address` are refused, as the Room [counts](covers) addresses.
    pub fn blocks(&self, address: IpAddr) -> bool {
        self.0.load().iter().any(|net| covers(*net, address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v4_address_is_blocked_however_it_comes_and_a_v6_address_is_its_64() {
        let blacklist = Blacklist::default();
        let blocks = |text: &str| blacklist.blocks(text.parse().unwrap());
        assert!(!blocks("192.0.2.7"));
        let nets = ["192.0.2.7/32", "198.51.100.0/24", "2001:db8:1:2::9/128", "::ffff:203.0.113.0/120"];
        blacklist.set(nets.map(|net| net.parse().unwrap()).to_vec());
        for blocked in [
            "192.0.2.7",
            "::ffff:192.0.2.7",
            "64:ff9b::192.0.2.7",
            "2002:c000:207::1",
            "2001:0:cb00:7101:0:0:3fff:fdf8",
            "198.51.100.200",
            "2001:db8:1:2:ffff::1",
            "203.0.113.5",
        ] {
            assert!(blocks(blocked), "{blocked}");
        }
        for free in ["192.0.2.8", "2001:db8:1:3::9", "203.0.114.5"] {
            assert!(!blocks(free), "{free}");
        }
        blacklist.set(Vec::new());
        assert!(!blocks("192.0.2.7"));
    }
}
