//! Which Room key is believed.
//!
//! - A fingerprint in the address decides alone, and is remembered.
//! - Else a key remembered for this address must be shown again, whoever vouches for another.
//! - Else, at first sight: a loopback address is believed, and so is a certificate that this machine's
//!   authorities vouch for, and any key at all if the user asked to trust on first use. All of these are
//!   remembered before anything secret is sent.
//! - Else nothing is sent.

use parlor_protocol::address::{Host, RoomAddress};
use parlor_protocol::identity::Fingerprint;

/// What a Room showed when it was reached, all of it proved on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The fingerprint of its identity.
    pub fingerprint: Fingerprint,
    /// True if an authority that this machine trusts vouches for its host name.
    pub certified: bool,
}

/// Whether a Room is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// It is the one that was expected.
    Believe,
    /// It is believed and to be remembered before anything else is said. `first_use` is true if nothing but
    /// its own word spoke for it.
    BelieveAndPin {
        /// True if the key was trusted because it was the first one seen.
        first_use: bool,
    },
    /// Nothing may be sent to it.
    Refuse(Distrust),
}

/// Why a Room is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Nothing says that this key is the Room's.
    #[error(
        "the Room at {address} is not known here: compare {seen} with the fingerprint that the Room \
         printed, then use the address {} (or --tofu to trust what it shows now)",
        address.clone().with_fingerprint(*seen)
    )]
    Unknown {
        /// Where it was reached.
        address: RoomAddress,
        /// The fingerprint it showed.
        seen: Fingerprint,
    },
    /// It shows another key than the address says or than it showed before.
    #[error(
        "the Room at {address} shows the key {seen} where {expected} was expected: somebody may be in \
         between, so nothing was sent; if its operator confirms the new key, use the address {}",
        address.clone().with_fingerprint(*seen)
    )]
    Changed {
        /// Where it was reached.
        address: RoomAddress,
        /// The fingerprint in the address, or the one seen before.
        expected: Fingerprint,
        /// The fingerprint it showed.
        seen: Fingerprint,
    },
}

/// Decides whether the Room that `seen` describes is believed. `pin` is the fingerprint remembered for
/// [`pin_key`] of the address.
pub fn decide(address: &RoomAddress, pin: Option<Fingerprint>, seen: Seen, tofu: bool) -> Trust {
    let plain = || address.clone().without_fingerprint();
    match address.fingerprint().or(pin) {
        Some(expected) if expected != seen.fingerprint => {
            Trust::Refuse(Distrust::Changed { address: plain(), expected, seen: seen.fingerprint })
        }
        Some(expected) if pin == Some(expected) => Trust::Believe,
        Some(_) => Trust::BelieveAndPin { first_use: false },
        None if seen.certified => Trust::BelieveAndPin { first_use: false },
        None if address.is_loopback() || tofu => Trust::BelieveAndPin { first_use: true },
        None => Trust::Refuse(Distrust::Unknown { address: plain(), seen: seen.fingerprint }),
    }
}

/// What a Room's key is remembered under: host and port, where the usual ways to write this machine
/// are one host.
pub fn pin_key(address: &RoomAddress) -> String {
    let this_machine = match address.host() {
        Host::Ip(ip) => {
            let ip = ip.to_canonical();
            ip == std::net::Ipv4Addr::LOCALHOST || ip == std::net::Ipv6Addr::LOCALHOST
        }
        Host::Name(name) => name == "localhost",
    };
    if this_machine {
        format!("localhost:{}", address.port())
    } else {
        format!("{}:{}", address.host(), address.port())
    }
}

#[cfg(test)]
mod tests {
    use parlor_protocol::identity::PublicIdentity;

    use super::*;

    fn key(seed: u8) -> Fingerprint {
        PublicIdentity([seed; 32]).fingerprint()
    }

    fn seen(seed: u8) -> Seen {
        Seen { fingerprint: key(seed), certified: false }
    }

    fn address(text: &str) -> RoomAddress {
        text.parse().unwrap()
    }

    fn refused(address: &RoomAddress, pin: Option<Fingerprint>, seen: Seen, tofu: bool) -> String {
        match decide(address, pin, seen, tofu) {
            Trust::Refuse(why) => why.to_string(),
            other => panic!("believed: {other:?}"),
        }
    }

    #[test]
    fn a_fingerprint_in_the_address_decides_alone_and_is_remembered() {
        let given = address("room.example").with_fingerprint(key(1));
        let pin = Trust::BelieveAndPin { first_use: false };
        assert_eq!(decide(&given, None, seen(1), false), pin);
        assert_eq!(decide(&given, Some(key(1)), seen(1), false), Trust::Believe);
        assert_eq!(decide(&given, Some(key(2)), seen(1), false), pin);
        refused(&given, None, seen(2), true);
        refused(&given, Some(key(2)), seen(2), true);
        refused(&given, None, Seen { certified: true, ..seen(2) }, true);
    }

    #[test]
    fn a_loopback_room_is_trusted_on_first_use_and_held_to_its_key_from_then_on() {
        let here = address("127.0.0.1:4000");
        assert_eq!(decide(&here, None, seen(1), false), Trust::BelieveAndPin { first_use: true });
        assert_eq!(decide(&here, Some(key(1)), seen(1), false), Trust::Believe);
        let words = refused(&here, Some(key(1)), seen(2), true);
        assert!(words.contains(&key(1).to_string()), "{words}");
        assert!(words.contains(&format!("room://127.0.0.1:4000/#{}", key(2))), "{words}");
    }

    #[test]
    fn any_other_room_needs_a_fingerprint_an_authority_or_tofu() {
        let far = address("room.example");
        let words = refused(&far, None, seen(1), false);
        assert!(words.contains(&format!("room://room.example:2428/#{}", key(1))), "{words}");
        assert!(words.contains("--tofu"), "{words}");
        assert_eq!(decide(&far, None, seen(1), true), Trust::BelieveAndPin { first_use: true });
        let certified = Seen { certified: true, ..seen(1) };
        assert_eq!(decide(&far, None, certified, false), Trust::BelieveAndPin { first_use: false });
        refused(&far, Some(key(2)), certified, true);
    }

    #[test]
    fn this_machine_is_one_host_however_it_is_written() {
        for text in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "LOCALHOST"] {
            assert_eq!(pin_key(&address(text)), "localhost:2428", "{text}");
        }
        assert_eq!(pin_key(&address("127.0.0.2:7")), "127.0.0.2:7");
        assert_eq!(pin_key(&address("[2001:db8::1]").with_fingerprint(key(1))), "[2001:db8::1]:2428");
    }
}
