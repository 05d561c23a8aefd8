//! Which paths two users have, from what they say, what the Room sees of them, and what its policy allows.
//!
//! [`plan`] is a pure and total function. Swapping the two users swaps the plan and changes nothing else, except
//! who is told that it was the asker that has encryption off. An address on the blacklist is in no plan.
//!
//! What users say are hints: a path counts when a handshake has proved it. A user that lies about its host or
//! LAN costs its peer an attempt that fails, and the next rung is tried. It cannot aim its peer at a stranger: what it
//! names as its own in a LAN must be of a private network or where the Room sees it come from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use parlor_protocol::introduction::Cipher;
use parlor_protocol::limits::CANDIDATES;
use parlor_protocol::network::embedded;
use parlor_protocol::presence::{Encryption, Presence};
use parlor_protocol::refusal::PairRefusal;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{RelayToken, RungOffer};

use super::Source;
use super::blacklist::Blacklist;

/// One of two users.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// What it says of itself.
    pub presence: &'a Presence,
    /// Where its control connection comes from.
    pub observed: IpAddr,
    /// Its addresses that the Room has checked: others are told to dial them.
    pub checked: &'a [IpAddr],
}

/// What the Room allows.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'a> {
    /// Whether two users may agree on channels without encryption.
    pub allow_unencrypted: bool,
    /// Whether the Room relays.
    pub relay: bool,
    /// Who is kept out.
    pub blacklist: &'a Blacklist,
    /// The time, in seconds since 1970, at which the blacklist is asked.
    pub unix: u64,
}

/// How two users can meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How their records are protected.
    pub cipher: Cipher,
    /// The paths to try, best first. Never empty.
    pub rungs: Vec<Path>,
}

/// One rung of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The kind of path.
    pub rung: Rung,
    /// What the first of the two dials.
    pub first_dials: Vec<SocketAddr>,
    /// What the second of the two dials.
    pub second_dials: Vec<SocketAddr>,
}

impl Plan {
    /// The plan as the first of the two gets it. `token` lets it onto the relay.
    pub fn for_first(&self, token: RelayToken) -> Vec<RungOffer> {
        self.rungs.iter().map(|path| path.offer(&path.first_dials, token)).collect()
    }

    /// The plan as the second of the two gets it. `token` lets it onto the relay.
    pub fn for_second(&self, token: RelayToken) -> Vec<RungOffer> {
        self.rungs.iter().map(|path| path.offer(&path.second_dials, token)).collect()
    }

    /// The plan where the relay cannot be had after all.
    pub fn without_relay(&mut self) {
        self.rungs.retain(|path| path.rung != Rung::Relay);
    }

    /// True if the plan ends with the relay.
    pub fn relays(&self) -> bool {
        self.rungs.iter().any(|path| path.rung == Rung::Relay)
    }
}

impl Path {
    fn offer(&self, dial: &[SocketAddr], token: RelayToken) -> RungOffer {
        let relay = (self.rung == Rung::Relay).then_some(token);
        RungOffer { rung: self.rung, dial: dial.to_vec(), relay }
    }
}

/// How `asker` and `asked` can meet.
pub fn plan(asker: &Side<'_>, asked: &Side<'_>, policy: &Policy<'_>) -> Result<Plan, PairRefusal> {
    if [asker, asked].iter().any(|side| policy.blocks(side.observed)) {
        return Err(PairRefusal::Blocked);
    }
    let cipher = cipher(asker.presence, asked.presence, policy)?;
    let mut rungs: Vec<Path> =
        Rung::ALL.into_iter().filter_map(|rung| path(rung, asker, asked, policy)).collect();
    if cipher == Cipher::Cleartext {
        rungs.retain(|path| path.rung.allows_cleartext());
    }
    match (rungs.is_empty(), cipher) {
        (false, _) => Ok(Plan { cipher, rungs }),
        (true, Cipher::Cleartext) => Err(PairRefusal::NoCleartextPath),
        (true, Cipher::ChaChaPoly | Cipher::AesGcm) => Err(PairRefusal::NoPath),
    }
}

fn cipher(asker: &Presence, asked: &Presence, policy: &Policy<'_>) -> Result<Cipher, PairRefusal> {
    match (asker.encryption, asked.encryption) {
        (Encryption::On, Encryption::On) if asker.aes && asked.aes => Ok(Cipher::AesGcm),
        (Encryption::On, Encryption::On) => Ok(Cipher::ChaChaPoly),
        (Encryption::Off, Encryption::Off) if policy.allow_unencrypted => Ok(Cipher::Cleartext),
        (Encryption::Off, Encryption::Off) => Err(PairRefusal::EncryptionRequired),
        (Encryption::Off, Encryption::On) => Err(PairRefusal::EncryptionMismatch { asker_is_off: true }),
        (Encryption::On, Encryption::Off) => Err(PairRefusal::EncryptionMismatch { asker_is_off: false }),
    }
}

/// The path of one kind, if there is one.
fn path(rung: Rung, a: &Side<'_>, b: &Side<'_>, policy: &Policy<'_>) -> Option<Path> {
    if rung.is_direct() && [a, b].iter().any(|side| takes_the_relay_only(side.presence)) {
        return None;
    }
    let candidates: fn(&Side<'_>) -> Vec<IpAddr> = match rung {
        Rung::SameHost if a.presence.host_tag == b.presence.host_tag => |_| vec![Ipv4Addr::LOCALHOST.into()],
        Rung::Lan if a.presence.lan_id == b.presence.lan_id => |side| side.presence.private.clone(),
        Rung::Public => |side| side.checked.to_vec(),
        Rung::Relay if policy.relay => |_| Vec::new(),
        Rung::SameHost | Rung::Lan | Rung::Relay => return None,
    };
    let dial = |side: &Side<'_>| -> Vec<SocketAddr> {
        let usable = |ip: &IpAddr| match rung {
            Rung::SameHost => true,
            Rung::Lan => dialable(*ip) && near(*ip, side.observed) && !policy.blocks(*ip),
            Rung::Public | Rung::Relay => dialable(*ip) && !policy.blocks(*ip),
        };
        let mut addresses = Vec::new();
        for ip in candidates(side).into_iter().filter(usable) {
            let address = SocketAddr::new(ip.to_canonical(), side.presence.port);
            if address.port() != 0 && !addresses.contains(&address) && addresses.len() < CANDIDATES {
                addresses.push(address);
            }
        }
        addresses
    };
    let (first_dials, second_dials) = (dial(b), dial(a));
    let possible = rung == Rung::Relay || !first_dials.is_empty() || !second_dials.is_empty();
    possible.then_some(Path { rung, first_dials, second_dials })
}

/// True of a user that names no port and no address: it wants neither to be dialed nor to dial, and an offer on which
/// nothing happens would keep its peer from the relay for a while.
fn takes_the_relay_only(presence: &Presence) -> bool {
    presence.port == 0 && presence.private.is_empty() && presence.public.is_none()
}

impl Policy<'_> {
    fn blocks(&self, ip: IpAddr) -> bool {
        self.blacklist.banned(ip, self.unix).is_some()
    }
}

/// True of an address that a user may name as its own in a LAN although nobody has checked it: one of a private
/// network, where there are no strangers, or one that the Room sees the user come from (v6: its /64, which is one
/// subscriber's). Anything else could aim others at a stranger.
fn near(ip: IpAddr, observed: IpAddr) -> bool {
    is_inside(ip) || Source::of(ip) == Source::of(observed)
}

/// True of addresses of private networks: RFC 1918, RFC 6598, RFC 3927, RFC 4193, and of loopback.
pub fn is_inside(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => {
            let through = embedded(ip).is_some_and(|ip| is_inside(ip.into()));
            through || ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
    }
}

/// From here on v4 addresses are reserved (RFC 1112 section 4); the last is broadcast.
const RESERVED: u8 = 240;

/// True of an address that another machine can be told to dial. A v6 link-local address is none, since it
/// means nothing without the name of an interface; nor is one that ends in somebody's private network by way of a
/// translator, because whose that is depends on where the translator stands.
pub fn dialable(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.octets()[0] == 0
                || ip.octets()[0] >= RESERVED)
        }
        IpAddr::V6(ip) if embedded(ip).is_some_and(|ip| is_inside(ip.into()) || !dialable(ip.into())) => {
            false
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local())
        }
    }
}

#[cfg(test)]
mod tests {
    use parlor_protocol::presence::HostTag;
    use proptest::prelude::*;

    use super::*;

    fn presence(host: u8, lan: &str, port: u16, private: &[&str]) -> Presence {
        Presence {
            host_tag: HostTag([host; 16]),
            lan_id: lan.parse().unwrap(),
            port,
            private: private.iter().map(|ip| ip.parse().unwrap()).collect(),
            public: None,
            encryption: Encryption::On,
            aes: true,
        }
    }

    fn side<'a>(presence: &'a Presence, checked: &'a [IpAddr]) -> Side<'a> {
        Side { presence, observed: [203, 0, 113, 9].into(), checked }
    }

    fn policy(blacklist: &Blacklist) -> Policy<'_> {
        Policy { allow_unencrypted: true, relay: true, blacklist, unix: 0 }
    }

    fn rungs(plan: &Plan) -> Vec<(Rung, Vec<String>, Vec<String>)> {
        let text = |list: &[SocketAddr]| list.iter().map(ToString::to_string).collect();
        plan.rungs.iter().map(|p| (p.rung, text(&p.first_dials), text(&p.second_dials))).collect()
    }

    #[test]
    fn two_users_of_one_machine_meet_on_loopback_first_and_keep_the_lan_in_reserve() {
        let (a, b) = (presence(1, "x", 1000, &["10.0.0.1"]), presence(1, "x", 0, &["10.0.0.1"]));
        let none = Blacklist::default();
        let plan = plan(&side(&a, &[]), &side(&b, &[]), &policy(&none)).unwrap();
        assert_eq!(
            rungs(&plan),
            [
                (Rung::SameHost, vec![], vec!["127.0.0.1:1000".to_owned()]),
                (Rung::Lan, vec![], vec!["10.0.0.1:1000".to_owned()]),
                (Rung::Relay, vec![], vec![]),
            ]
        );
        assert_eq!(plan.cipher, Cipher::AesGcm);
    }

    #[test]
    fn a_user_that_names_no_port_and_no_address_is_offered_the_relay_alone() {
        let (a, b) = (presence(1, "x", 1000, &["10.0.0.1"]), presence(1, "x", 0, &[]));
        let none = Blacklist::default();
        let checked = ["203.0.113.9".parse().unwrap()];
        let plan = plan(&side(&a, &checked), &side(&b, &[]), &policy(&none)).unwrap();
        assert_eq!(rungs(&plan), [(Rung::Relay, vec![], vec![])]);
    }

    #[test]
    fn in_one_lan_both_dial_every_address_that_makes_sense() {
        let a = presence(
            1,
            "x",
            1,
            &["10.0.0.1", "127.0.0.1", "fe80::1", "224.0.0.1", "::ffff:10.0.0.1", "fd00::1"],
        );
        let b = presence(2, "x", 2, &["0.0.0.0", "10.0.0.2", "255.255.255.255"]);
        let none = Blacklist::default();
        let plan = plan(&side(&a, &[]), &side(&b, &[]), &policy(&none)).unwrap();
        let lan = &rungs(&plan)[0];
        assert_eq!(lan.1, ["10.0.0.2:2"]);
        assert_eq!(lan.2, ["10.0.0.1:1", "[fd00::1]:1"]);
    }

    #[test]
    fn a_user_cannot_pass_a_stranger_off_as_its_own_lan() {
        let said = ["198.51.100.7", "203.0.113.9", "100.64.0.1", "169.254.0.1", "2001:db8::7", "8.8.8.8"];
        let (liar, victim) = (presence(1, "x", 25, &said), presence(2, "x", 2, &["2001:db8:0:1::5"]));
        let none = Blacklist::default();
        let six = Side { observed: "2001:db8:0:1::9".parse().unwrap(), ..side(&victim, &[]) };
        let plan = plan(&side(&liar, &[]), &six, &policy(&none)).unwrap();
        let lan = &rungs(&plan)[0];
        assert_eq!(lan.2, ["203.0.113.9:25", "100.64.0.1:25", "169.254.0.1:25"]);
        assert_eq!(lan.1, ["[2001:db8:0:1::5]:2"], "in the /64 that it comes from");
    }

    #[test]
    fn an_address_that_leads_into_a_private_network_by_way_of_a_translator_is_nobodys() {
        for (written, dialled) in [
            ("64:ff9b::10.0.0.1", false),
            ("64:ff9b:1::192.168.0.1", false),
            ("64:ff9b::127.0.0.1", false),
            ("2002:a00:1::1", false),
            ("2002:7f00:1::1", false),
            ("2001:0:1:2:3:4:f5ff:fffe", false),
            ("::10.0.0.1", false),
            ("64:ff9b::224.0.0.1", false),
            ("64:ff9b::198.51.100.1", true),
            ("2002:c633:6401::1", true),
            ("2001:db8::a00:1", true),
            ("240.0.0.1", false),
            ("255.255.255.255", false),
        ] {
            let ip: IpAddr = written.parse().unwrap();
            assert_eq!(dialable(ip), dialled, "{written}");
            let user = presence(1, "x", 25, &[written]);
            let other = presence(2, "x", 2, &["10.0.0.2"]);
            let none = Blacklist::default();
            let lan = rungs(&plan(&side(&user, &[]), &side(&other, &[]), &policy(&none)).unwrap());
            assert_eq!(lan[0].2, [""; 0], "{written} is neither near nor inside");
        }
        let banned = Blacklist::new(&["198.51.100.0/24".parse().unwrap()], vec![]);
        assert!(policy(&banned).blocks("64:ff9b::198.51.100.1".parse().unwrap()));
        assert!(!policy(&banned).blocks("64:ff9b::203.0.113.1".parse().unwrap()));
    }

    #[test]
    fn whoever_has_a_checked_address_is_dialled_by_the_other() {
        let (a, b) = (presence(1, "x", 1, &["10.0.0.1"]), presence(2, "y", 2, &["10.0.0.2"]));
        let checked = ["198.51.100.1".parse().unwrap()];
        let none = Blacklist::default();
        let plan = plan(&side(&a, &[]), &side(&b, &checked), &policy(&none)).unwrap();
        assert_eq!(
            rungs(&plan),
            [(Rung::Public, vec!["198.51.100.1:2".to_owned()], vec![]), (Rung::Relay, vec![], vec![])]
        );
    }

    #[test]
    fn without_encryption_two_users_meet_on_a_lan_or_not_at_all() {
        let none = Blacklist::default();
        let (mut a, mut b) = (presence(1, "x", 1, &["10.0.0.1"]), presence(2, "x", 2, &[]));
        a.encryption = Encryption::Off;
        let both = |a: &Presence, b: &Presence, allow| {
            plan(&side(a, &[]), &side(b, &[]), &Policy { allow_unencrypted: allow, ..policy(&none) })
        };
        assert_eq!(both(&a, &b, true), Err(PairRefusal::EncryptionMismatch { asker_is_off: true }));
        assert_eq!(both(&b, &a, true), Err(PairRefusal::EncryptionMismatch { asker_is_off: false }));
        b.encryption = Encryption::Off;
        assert_eq!(both(&a, &b, false), Err(PairRefusal::EncryptionRequired));
        let plan = both(&a, &b, true).unwrap();
        assert_eq!((plan.cipher, plan.rungs.len(), plan.rungs[0].rung), (Cipher::Cleartext, 1, Rung::Lan));
        b.lan_id = "y".parse().unwrap();
        assert_eq!(both(&a, &b, true), Err(PairRefusal::NoCleartextPath));
    }

    #[test]
    fn without_a_direct_path_and_without_a_relay_there_is_no_path() {
        let none = Blacklist::default();
        let (a, b) = (presence(1, "x", 0, &[]), presence(2, "y", 0, &[]));
        let off = Policy { relay: false, ..policy(&none) };
        assert_eq!(plan(&side(&a, &[]), &side(&b, &[]), &off), Err(PairRefusal::NoPath));
    }

    fn any_ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<u32>().prop_map(|n| IpAddr::V4(n.into())),
            any::<u128>().prop_map(|n| IpAddr::V6(n.into())),
            (0u8..4).prop_map(|n| IpAddr::from([10, 0, 0, n])),
            (0u8..4).prop_map(|n| IpAddr::from([127, 0, 0, n])),
            (0u16..4).prop_map(|n| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, n])),
        ]
    }

    prop_compose! {
        fn any_presence()(
            host in 0u8..3, lan in 0u8..3, port in prop_oneof![Just(0u16), any::<u16>()],
            private in proptest::collection::vec(any_ip(), 0..6), off: bool, aes: bool,
        ) -> Presence {
            Presence {
                host_tag: HostTag([host; 16]),
                lan_id: format!("lan {lan}").parse().unwrap(),
                port, private, public: None,
                encryption: if off { Encryption::Off } else { Encryption::On },
                aes,
            }
        }
    }

    fn as_side(user: &(Presence, IpAddr, Vec<IpAddr>)) -> Side<'_> {
        Side { presence: &user.0, observed: user.1, checked: &user.2 }
    }

    prop_compose! {
        fn any_user()(
            presence in any_presence(), observed in any_ip(),
            checked in proptest::collection::vec(any_ip(), 0..3),
        ) -> (Presence, IpAddr, Vec<IpAddr>) {
            (presence, observed, checked)
        }
    }

    proptest! {
        #[test]
        fn a_plan_is_total_symmetric_and_free_of_banned_addresses(
            a in any_user(), b in any_user(), allow_unencrypted: bool, relay: bool,
            banned in proptest::collection::vec((any_ip(), 0u8..=32), 0..3),
        ) {
            let banned: Vec<_> = banned.into_iter().map(|(ip, n)| ipnet::IpNet::new(ip, n).unwrap()).collect();
            let blacklist = Blacklist::new(&banned, vec![]);
            let policy = Policy { allow_unencrypted, relay, blacklist: &blacklist, unix: 0 };
            let (one, other) = (plan(&as_side(&a), &as_side(&b), &policy), plan(&as_side(&b), &as_side(&a), &policy));
            match (one, other) {
                (Ok(one), Ok(other)) => {
                    prop_assert_eq!(one.cipher, other.cipher);
                    prop_assert!(!one.rungs.is_empty());
                    prop_assert!(one.rungs.is_sorted_by_key(|path| path.rung), "best first");
                    prop_assert_eq!(one.rungs.len(), other.rungs.len());
                    for (path, mirrored) in one.rungs.iter().zip(&other.rungs) {
                        prop_assert_eq!(path.rung, mirrored.rung);
                        prop_assert_eq!(&path.first_dials, &mirrored.second_dials);
                        prop_assert_eq!(&path.second_dials, &mirrored.first_dials);
                        prop_assert!(one.cipher != Cipher::Cleartext || path.rung.allows_cleartext());
                        for address in path.first_dials.iter().chain(&path.second_dials) {
                            prop_assert!(address.port() != 0);
                            let same_host = path.rung == Rung::SameHost;
                            prop_assert!(same_host || blacklist.banned(address.ip(), 0).is_none());
                            prop_assert_eq!(same_host, address.ip().is_loopback());
                        }
                        if path.rung == Rung::Lan {
                            let aims = |dials: &[SocketAddr], observed| {
                                dials.iter().all(|address| near(address.ip(), observed))
                            };
                            prop_assert!(aims(&path.first_dials, b.1) && aims(&path.second_dials, a.1));
                        }
                    }
                    prop_assert!(blacklist.banned(a.1, 0).is_none() && blacklist.banned(b.1, 0).is_none());
                }
                (Err(PairRefusal::EncryptionMismatch { asker_is_off: one }),
                 Err(PairRefusal::EncryptionMismatch { asker_is_off: other })) => prop_assert_ne!(one, other),
                (one, other) => prop_assert_eq!(one, other),
            }
        }
    }
}
