//! A Room's address as people write it: `room://HOST:PORT/#FINGERPRINT`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::identity::{BadFingerprint, Fingerprint};
use crate::limits::DEFAULT_PORT;

/// Where a Room is and, if known, which key it must show.
///
/// `room://` and the port may be left out when it is written; a v6 address stands in brackets.
///
/// ```
/// use parlor_protocol::address::RoomAddress;
/// let address: RoomAddress = "room.example:2429".parse()?;
/// assert_eq!(address.to_string(), "room://room.example:2429/");
/// assert!("room://[::1]:0".parse::<RoomAddress>().is_err());
/// # Ok::<_, parlor_protocol::address::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoomAddress {
    host: Host,
    port: u16,
    fingerprint: Option<Fingerprint>,
}

/// The host part of an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address in digits.
    Ip(IpAddr),
    /// A name for DNS, in lower case.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// Why a text is no Room address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Another scheme than `room://`.
    #[error("a Room's address starts with room://, not {0}://")]
    Scheme(String),
    /// The host is missing or is neither an IP address nor a DNS name.
    #[error("the host {0:?} is neither an IP address nor a DNS name (a v6 address stands in brackets)")]
    Host(String),
    /// The port is no number from 1 to 65535.
    #[error("the port {0:?} is no number from 1 to 65535")]
    Port(String),
    /// Something stands where only `/` may.
    #[error("after the port only /#FINGERPRINT may follow, not {0:?}")]
    Path(String),
    /// The part after `#` is no fingerprint.
    #[error(transparent)]
    Fingerprint(#[from] BadFingerprint),
}

impl RoomAddress {
    /// The address of a Room on `address`, without a fingerprint.
    pub fn from_socket(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip()), port: address.port(), fingerprint: None }
    }

    /// The same address with a fingerprint to hold the Room to.
    #[must_use]
    pub fn with_fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        self.fingerprint = Some(fingerprint);
        self
    }

    /// The same address without its fingerprint.
    #[must_use]
    pub fn without_fingerprint(mut self) -> Self {
        self.fingerprint = None;
        self
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The key the Room must show, if the address says.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// True of an address that cannot leave this machine: `127.0.0.0/8`, `::1`, `localhost`.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
            Host::Name(name) => name == "localhost",
        }
    }
}

/// `room://127.0.0.1:2428/`
impl Default for RoomAddress {
    fn default() -> Self {
        Self::from_socket(SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)))
    }
}

impl fmt::Display for RoomAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "room://{}:{}/", self.host, self.port)?;
        match self.fingerprint {
            Some(fingerprint) => write!(f, "#{fingerprint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for RoomAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RoomAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("room") => rest,
            Some((scheme, _)) => return Err(AddressError::Scheme(scheme.to_owned())),
            None => text,
        };
        let (rest, fingerprint) = match rest.split_once('#') {
            Some((rest, fingerprint)) => (rest, Some(fingerprint.parse()?)),
            None => (rest, None),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !path.is_empty() {
            return Err(AddressError::Path(path.to_owned()));
        }
        let (host, port) = parse_authority(authority)?;
        Ok(Self { host, port, fingerprint })
    }
}

fn parse_authority(authority: &str) -> Result<(Host, u16), AddressError> {
    let bad_host = || AddressError::Host(authority.to_owned());
    if let Some(rest) = authority.strip_prefix('[') {
        let (ip, after) = rest.split_once(']').ok_or_else(bad_host)?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| bad_host())?;
        let port = match after {
            "" => DEFAULT_PORT,
            after => parse_port(after.strip_prefix(':').ok_or_else(bad_host)?)?,
        };
        return Ok((Host::Ip(ip.into()), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, parse_port(port)?),
        None => (authority, DEFAULT_PORT),
    };
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok((Host::Ip(ip), port));
    }
    if is_dns_name(host) { Ok((Host::Name(host.to_ascii_lowercase()), port)) } else { Err(bad_host()) }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    match text.parse() {
        Ok(port) if port != 0 && !text.starts_with('+') => Ok(port),
        _ => Err(AddressError::Port(text.to_owned())),
    }
}

/// Letters, digits and hyphens in labels of 1-63, 253 in all (RFC 1123 section 2.1), not all digits and dots, so
/// that a mistyped v4 address is no name.
fn is_dns_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    host.len() <= 253 && host.split('.').all(label) && host.bytes().any(|b| b.is_ascii_alphabetic())
}

impl TryFrom<String> for RoomAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<RoomAddress> for String {
    fn from(address: RoomAddress) -> String {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_way_to_write_an_address_reads_as_the_whole_one() {
        let fingerprint = crate::identity::Identity::from_seed(&[1; 32]).fingerprint();
        for (written, whole) in [
            ("room://192.168.0.2:2428/", "room://192.168.0.2:2428/".to_owned()),
            ("192.168.0.2", "room://192.168.0.2:2428/".to_owned()),
            ("Room.Example:99", "room://room.example:99/".to_owned()),
            ("room://[2001:db8::1]", "room://[2001:db8::1]:2428/".to_owned()),
            (&format!("ROOM://[::1]:7#{fingerprint}"), format!("room://[::1]:7/#{fingerprint}")),
        ] {
            assert_eq!(written.parse::<RoomAddress>().unwrap().to_string(), whole, "{written}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_part_that_is_wrong() {
        for (written, part) in [
            ("http://x/", "room://, not http"),
            ("room://x:0/", "port"),
            ("room://x:70000/", "port"),
            ("room://x:+7/", "port"),
            ("room:///", "host"),
            ("room://256.1.1.1/", "host"),
            ("::1", "port"),
            ("room://a b/", "host"),
            ("room://x/rooms/1", "after the port"),
            ("room://x/#short", "fingerprint"),
        ] {
            let error = written.parse::<RoomAddress>().unwrap_err().to_string();
            assert!(error.contains(part), "{written}: {error}");
        }
    }

    #[test]
    fn only_what_cannot_leave_the_machine_is_loopback() {
        for (written, loopback) in [
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost", true),
            ("localhost.example", false),
            ("10.0.0.1", false),
            ("[::]", false),
        ] {
            assert_eq!(written.parse::<RoomAddress>().unwrap().is_loopback(), loopback, "{written}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_that_reads_back_or_an_error(text in "(room://)?[a-z0-9.:\\[\\]/#]{0,50}") {
            if let Ok(address) = text.parse::<RoomAddress>() {
                prop_assert_eq!(address.to_string().parse::<RoomAddress>().unwrap(), address);
            }
        }
    }
}
