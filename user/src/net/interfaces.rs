//! What this machine is and where it can be reached, as the Room is told.

use std::net::{IpAddr, Ipv6Addr};

use parlor_protocol::identity::PublicIdentity;
use parlor_protocol::limits::CANDIDATES;
use parlor_protocol::name::LanId;
use parlor_protocol::presence::{Encryption, HostTag, Presence};

/// Where a user can be reached and what it can do, before it is known which Room is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reachability {
    /// The local network, as the user's operator calls it.
    pub lan_id: LanId,
    /// The TCP port of the user's listener. 0: it can only dial.
    pub port: u16,
    /// The address its operator says it has on the Internet.
    pub public: Option<IpAddr>,
    /// Whether its channels are to be encrypted.
    pub encryption: Encryption,
    /// The addresses to announce. `None`: those of the interfaces, looked up at each login.
    pub addresses: Option<Vec<IpAddr>>,
    /// Whether AES is fast here; [`has_aes`] finds out.
    pub aes: bool,
}

impl Reachability {
    /// What a Room is told now.
    pub fn presence(&self, room: &PublicIdentity) -> Presence {
        let mut private = self.addresses.clone().unwrap_or_else(addresses);
        private.truncate(CANDIDATES);
        Presence {
            host_tag: HostTag::derive(&machine_facts(), room),
            lan_id: self.lan_id.clone(),
            port: self.port,
            private,
            public: self.public,
            encryption: self.encryption,
            aes: self.aes,
        }
    }
}

/// The addresses of this machine's interfaces that are up and that others may reach: no loopback, and no
/// link-local v6 address, which means nothing without its interface. Private v4 addresses come first; at most
/// [`CANDIDATES`].
pub fn addresses() -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = system_addresses().into_iter().filter(|ip| is_candidate(*ip)).collect();
    found.sort_by_key(|ip| (rank(*ip), *ip));
    found.dedup();
    found.truncate(CANDIDATES);
    found
}

/// True if this processor has instructions for AES, which make AES-GCM the faster cipher.
pub fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

fn is_candidate(ip: IpAddr) -> bool {
    let general = !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast();
    general
        && match ip {
            IpAddr::V4(_) => true,
            IpAddr::V6(v6) => !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none(),
        }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    PrivateV4,
    PrivateV6,
    GlobalV4,
    GlobalV6,
    LinkLocalV4,
}

fn rank(ip: IpAddr) -> Rank {
    match ip {
        IpAddr::V4(v4) if v4.is_link_local() => Rank::LinkLocalV4,
        IpAddr::V4(v4) if v4.is_private() => Rank::PrivateV4,
        IpAddr::V4(_) => Rank::GlobalV4,
        IpAddr::V6(v6) if Ipv6Addr::is_unique_local(&v6) => Rank::PrivateV6,
        IpAddr::V6(_) => Rank::GlobalV6,
    }
}

#[cfg(unix)]
fn system_addresses() -> Vec<IpAddr> {
    use nix::net::if_::InterfaceFlags;
    let interfaces = match nix::ifaddrs::getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!(%error, "this machine's addresses cannot be read: peers are told none");
            return Vec::new();
        }
    };
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let up = interface.flags.contains(InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING);
        let address = interface.address.filter(|_| up)?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    interfaces.filter_map(address).collect()
}

#[cfg(not(unix))]
fn system_addresses() -> Vec<IpAddr> {
    // The address from which the system would go out. Nothing is sent by connecting a UDP socket.
    let outward = |from: &str, to: &str| {
        let socket = std::net::UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    [outward("0.0.0.0:0", "192.0.2.1:9"), outward("[::]:0", "[2001:db8::1]:9")]
        .into_iter()
        .flatten()
        .collect()
}

/// What is the same for two programs if and only if they share this boot of this machine and its network
/// stack: what one binds on loopback the other reaches there.
#[cfg(target_os = "linux")]
fn machine_facts() -> Vec<u8> {
    use std::os::unix::fs::MetadataExt as _;
    let mut facts = Vec::new();
    for file in ["/proc/sys/kernel/random/boot_id", "/etc/machine-id"] {
        facts.extend(std::fs::read(file).unwrap_or_default());
        facts.push(0);
    }
    if let Ok(namespace) = std::fs::metadata("/proc/self/ns/net") {
        facts.extend(namespace.ino().to_le_bytes());
        facts.extend(namespace.dev().to_le_bytes());
    }
    facts
}

/// What names this machine where the system has no better word: its host name and addresses.
#[cfg(not(target_os = "linux"))]
fn machine_facts() -> Vec<u8> {
    let mut facts = std::env::var("COMPUTERNAME").unwrap_or_default().into_bytes();
    #[cfg(unix)]
    if let Ok(name) = nix::unistd::gethostname() {
        facts.extend(name.as_encoded_bytes());
    }
    for address in addresses() {
        facts.push(0);
        facts.extend(address.to_string().bytes());
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anywhere() -> Reachability {
        Reachability {
            lan_id: LanId::default(),
            port: 7,
            public: None,
            encryption: Encryption::On,
            addresses: None,
            aes: true,
        }
    }

    #[test]
    fn nobody_is_told_to_dial_an_address_that_means_another_machine_there() {
        let found = addresses();
        assert!(found.len() <= CANDIDATES);
        assert!(found.iter().all(|ip| is_candidate(*ip)), "{found:?}");
        for useless in ["127.0.0.1", "::1", "fe80::1", "0.0.0.0", "224.0.0.1", "::ffff:10.0.0.1"] {
            assert!(!is_candidate(useless.parse().unwrap()), "{useless}");
        }
    }

    #[test]
    fn private_v4_addresses_come_first() {
        let mut list: Vec<IpAddr> = ["2001:db8::1", "198.51.100.1", "169.254.0.1", "fd00::1", "192.168.0.2"]
            .map(|ip| ip.parse().unwrap())
            .to_vec();
        list.sort_by_key(|ip| rank(*ip));
        let order: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(order, ["192.168.0.2", "fd00::1", "198.51.100.1", "2001:db8::1", "169.254.0.1"]);
    }

    #[test]
    fn programs_of_one_machine_have_one_tag_in_a_room_and_another_in_another() {
        let (here, there) = (PublicIdentity([1; 32]), PublicIdentity([2; 32]));
        assert_eq!(anywhere().presence(&here).host_tag, anywhere().presence(&here).host_tag);
        assert_ne!(anywhere().presence(&here).host_tag, anywhere().presence(&there).host_tag);
    }

    #[test]
    fn addresses_that_were_given_are_announced_instead_of_the_interfaces() {
        let given: Vec<IpAddr> = (0..40).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let reachability = Reachability { addresses: Some(given.clone()), ..anywhere() };
        assert_eq!(reachability.presence(&PublicIdentity([1; 32])).private, given[..CANDIDATES]);
    }
}
