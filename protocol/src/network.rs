//! Which networks and addresses are the same when somebody is kept out: a v4 address however it is written, and by
//! whichever translator or tunnel it comes; and all of a v6 /64, since whoever holds one address of it holds them all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The network that an entry of a blacklist stands for: a v4 network that is written as v6 is the v4 network, and a v6
/// network narrower than /64 is its /64.
pub fn canonical(net: IpNet) -> IpNet {
    match net {
        IpNet::V4(net) => net.trunc().into(),
        IpNet::V6(net) => match (net.network().to_ipv4_mapped(), net.prefix_len()) {
            (Some(v4), length @ 96..) => {
                Ipv4Net::new(v4, length - 96).map_or(net.into(), |v4| v4.trunc().into())
            }
            (_, length) => {
                Ipv6Net::new(net.network(), length.min(64)).map_or(net.into(), |v6| v6.trunc().into())
            }
        },
    }
}

/// True if a [canonical] entry for `net` keeps `ip` out, by itself or by the v4 address behind it.
pub fn covers(net: IpNet, ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    net.contains(&ip) || behind(ip).is_some_and(|ip| net.contains(&ip))
}

/// The v4 address behind an address, if it is a v6 address with one [embedded].
pub fn behind(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => embedded(ip).map(IpAddr::V4),
    }
}

/// The v4 address at which a packet to a v6 address ends, where a translator or tunnel stands between: NAT64 (RFC 6052,
/// RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380), and the old form without a prefix (RFC 4291 section 2.5.5.1).
pub fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let words = ip.segments();
    let of = |high: u16, low: u16| Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match words {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, .., high, low]
        | [0x2002, high, low, ..] => of(high, low),
        [0x2001, 0, .., high, low] => of(!high, !low),
        [0, 0, 0, 0, 0, 0, high, low] if high > 0 => of(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_v4_address_is_found_behind_every_form_that_leads_to_it() {
        for way in [
            "64:ff9b::198.51.100.1",
            "64:ff9b:1::198.51.100.1",
            "2002:c633:6401::1",
            // Teredo: the client's address with every bit changed.
            "2001:0:cb00:7101:0:0:39cc:9bfe",
            "::198.51.100.1",
        ] {
            assert_eq!(behind(ip(way)), Some(ip("198.51.100.1")), "{way}");
        }
        for other in ["::1", "::", "2001:db8::198.51.100.1", "fe80::198.51.100.1", "198.51.100.1"] {
            assert_eq!(behind(ip(other)), None, "{other}");
        }
    }

    #[test]
    fn an_entry_stands_for_what_its_holder_has() {
        for (written, is) in [
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("::ffff:192.0.2.7/120", "192.0.2.0/24"),
            ("2001:db8:1:2::9/128", "2001:db8:1:2::/64"),
            ("2001:db8:1::/48", "2001:db8:1::/48"),
        ] {
            assert_eq!(canonical(written.parse().unwrap()), is.parse::<IpNet>().unwrap(), "{written}");
        }
    }

    #[test]
    fn an_entry_covers_its_addresses_in_every_way_of_writing_them() {
        let net = "198.51.100.0/24".parse().unwrap();
        for covered in ["198.51.100.9", "::ffff:198.51.100.9", "64:ff9b::198.51.100.9", "2002:c633:6409::"] {
            assert!(covers(net, ip(covered)), "{covered}");
        }
        for free in ["198.51.101.9", "64:ff9b::198.51.101.9", "2001:db8::198.51.100.9"] {
            assert!(!covers(net, ip(free)), "{free}");
        }
    }
}
