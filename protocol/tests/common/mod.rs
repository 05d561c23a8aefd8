//! Two users, introduced, with fixed keys.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::disallowed_names, reason = "tests; Foo and Bar are the users' names")]

use parlor_protocol::identity::{Identity, InstanceId};
use parlor_protocol::introduction::{Cipher, Introduction, IntroductionId, Party};
use parlor_protocol::name::UserName;
use parlor_protocol::noise::handshake::{HandshakeSetup, Initiator, Responder};
use parlor_protocol::noise::payload::{Epoch, LinkAccept, LinkHello};
use parlor_protocol::noise::records::RecordKeys;
use parlor_protocol::rung::Rung;
use zeroize::Zeroizing;

/// Foo, who asked, and Bar.
pub(crate) struct Pair {
    pub(crate) room: Identity,
    pub(crate) foo: Identity,
    pub(crate) bar: Identity,
    pub(crate) foo_name: UserName,
    pub(crate) bar_name: UserName,
    pub(crate) introduction: Introduction,
}

impl Pair {
    pub(crate) fn new(cipher: Cipher) -> Self {
        let [room, foo, bar] = [3, 1, 2].map(|seed| Identity::from_seed(&[seed; 32]));
        let introduction = Introduction {
            room: room.public(),
            id: IntroductionId([9; 16]),
            asker: party("Foo", &foo),
            asked: party("Bar", &bar),
            cipher,
            issued_at: 1_700_000_000,
            lifetime: 86_400,
        };
        let [foo_name, bar_name] = ["Foo", "Bar"].map(|name| name.parse().unwrap());
        Self { room, foo, bar, foo_name, bar_name, introduction }
    }

    /// Foo's setup, as the initiator.
    pub(crate) fn foo(&self) -> HandshakeSetup<'_> {
        HandshakeSetup {
            introduction: &self.introduction,
            local: &self.foo,
            local_name: &self.foo_name,
            initiator: true,
            rung: Rung::Lan,
            ephemeral: Zeroizing::new([11; 32]),
        }
    }

    /// Bar's setup, as the responder.
    pub(crate) fn bar(&self) -> HandshakeSetup<'_> {
        HandshakeSetup {
            local: &self.bar,
            local_name: &self.bar_name,
            initiator: false,
            ephemeral: Zeroizing::new([22; 32]),
            ..self.foo()
        }
    }
}

pub(crate) fn party(name: &str, identity: &Identity) -> Party {
    Party { name: name.parse().unwrap(), identity: identity.public(), noise: identity.noise_certificate() }
}

pub(crate) fn epoch(instance: u8, generation: u32) -> Epoch {
    Epoch { instance: InstanceId([instance; 16]), generation }
}

pub(crate) fn payloads() -> (LinkHello, LinkAccept) {
    let hello = LinkHello {
        epoch: epoch(0xa1, 1),
        peer_epoch: Some(epoch(0xb2, 300)),
        recv_next: 70_000,
        max_body: 1_048_576,
        features: 0,
    };
    let accept =
        LinkAccept { epoch: epoch(0xb2, 300), recv_next: 5_000_000_000, max_body: 1_048_576, features: 0 };
    (hello, accept)
}

/// Foo's and Bar's keys after a handshake.
pub(crate) fn keys(cipher: Cipher) -> (RecordKeys, RecordKeys) {
    let pair = Pair::new(cipher);
    let (initiator, first) = Initiator::start(pair.foo(), b"").unwrap();
    let (_, pending) = Responder::answer(pair.bar(), &first).unwrap();
    let (second, bar) = pending.reply(b"").unwrap();
    (initiator.finish(&second).unwrap().1, bar)
}
