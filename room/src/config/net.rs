//! Addresses and ranges as operators write them.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Why a text is no address or range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNet {
    /// Neither an address nor a range.
    #[error("{0:?} is neither an IP address nor a range such as 198.51.100.0/24 or 2001:db8::/32")]
    Syntax(String),
    /// Bits are set that the prefix does not cover, so it is not clear what was meant.
    #[error(
        "{written} has bits set beyond its prefix: write {range} for the range or {address} for the address"
    )]
    HostBits {
        /// As it was written.
        written: IpNet,
        /// The range it lies in.
        range: IpNet,
        /// The address in it.
        address: IpAddr,
    },
}

/// Reads an address or a CIDR range. An address that is v4 mapped into v6 is v4.
pub fn parse_net(text: &str) -> Result<IpNet, BadNet> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let written: IpNet = text.parse().map_err(|_| BadNet::Syntax(text.to_owned()))?;
    let range = written.trunc();
    if range != written {
        return Err(BadNet::HostBits { written, range, address: written.addr() });
    }
    Ok(unmapped(range))
}

fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    match v4.map(|(address, prefix)| Ipv4Net::new(address, prefix)) {
        Some(Ok(v4)) => IpNet::V4(v4),
        _ => net,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_range_read_as_what_they_mean() {
        for (written, read) in [
            ("192.0.2.7", "192.0.2.7/32"),
            (" 198.51.100.0/24 ", "198.51.100.0/24"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ] {
            assert_eq!(parse_net(written).unwrap().to_string(), read, "{written}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_to_write_instead() {
        for (written, part) in [
            ("", "neither"),
            ("example.org", "neither"),
            ("192.0.2.7/33", "neither"),
            ("198.51.100.5/24", "write 198.51.100.0/24 for the range or 198.51.100.5 for the address"),
        ] {
            let error = parse_net(written).unwrap_err().to_string();
            assert!(error.contains(part), "{written}: {error}");
        }
    }
}
