//! The addresses this user neither dials nor answers, as the Room handed them out last.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The shared blacklist. Clones are the same list; readers never wait.
#[derive(Debug, Clone, Default)]
pub struct Blacklist(Arc<ArcSwap<Vec<IpNet>>>);

impl Blacklist {
    /// Replaces the whole list.
    pub fn set(&self, nets: Vec<IpNet>) {
        self.0.store(Arc::new(nets.into_iter().map(effective).collect()));
    }

    /// The whole list, as it acts.
    pub fn nets(&self) -> Vec<IpNet> {
        self.0.load().to_vec()
    }

    /// True if links to and from `address` are refused. A v4 address mapped into v6 counts as the v4 address.
    pub fn blocks(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.load().iter().any(|net| net.contains(&address))
    }
}

/// What an entry acts on: a v4 range mapped into v6 is the v4 range, and a single v6 address stands for its
/// /64, as one host has all of it.
fn effective(net: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    const V6_HOST_BITS: u8 = 64;
    let IpNet::V6(v6) = net else { return net };
    let address: Ipv6Addr = v6.addr();
    match (address.to_ipv4_mapped(), v6.prefix_len().checked_sub(MAPPED_BITS)) {
        (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix).map_or(net, IpNet::V4),
        _ => {
            Ipv6Net::new(address, v6.prefix_len().min(V6_HOST_BITS)).map_or(net, |net| IpNet::V6(net.trunc()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_v4_address_is_the_v4_address_and_a_v6_address_is_its_64() {
        let blacklist = Blacklist::default();
        let blocks = |text: &str| blacklist.blocks(text.parse().unwrap());
        assert!(!blocks("192.0.2.7"));
        let nets = ["192.0.2.7/32", "198.51.100.0/24", "2001:db8:1:2::9/128", "::ffff:203.0.113.0/120"];
        blacklist.set(nets.map(|net| net.parse().unwrap()).to_vec());
        for blocked in
            ["192.0.2.7", "::ffff:192.0.2.7", "198.51.100.200", "2001:db8:1:2:ffff::1", "203.0.113.5"]
        {
            assert!(blocks(blocked), "{blocked}");
        }
        for free in ["192.0.2.8", "2001:db8:1:3::9", "203.0.114.5"] {
            assert!(!blocks(free), "{free}");
        }
        blacklist.set(Vec::new());
        assert!(!blocks("192.0.2.7"));
    }
}
