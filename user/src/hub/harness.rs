//! A hub without a Room behind it, for tests.

use std::sync::Arc;

use parlor_protocol::identity::{Identity, InstanceId};
use parlor_protocol::introduction::{Cipher, Introduction, IntroductionId, Party};
use parlor_protocol::presence::Encryption;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{self, Features, RungOffer};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Hub, Parts, Settings, Start};
use crate::data::DataDir;
use crate::net::blacklist::Blacklist;
use crate::net::room::{Joined, RoomCommand};

/// The seeds of the Room, of the user Foo, and of its peer Bar.
pub(crate) const ROOM: [u8; 32] = [3; 32];
const FOO: [u8; 32] = [1; 32];
const BAR: [u8; 32] = [2; 32];

/// The hub of Foo, in a room with nobody, and what it tells the Room.
pub(crate) fn foo(encryption: Encryption) -> (Arc<Hub>, mpsc::Receiver<RoomCommand>) {
    let (commands, told) = mpsc::channel(8);
    let joined = joined();
    let hub = Hub::new(Parts {
        name: "Foo".parse().unwrap(),
        instance: InstanceId([1; 16]),
        settings: Settings {
            encryption,
            rungs: Rung::ALL.to_vec(),
            max_body: 1 << 20,
            calls_running: 1,
            get_timeout: None,
        },
        blacklist: Blacklist::default(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        commands,
        callbacks: Arc::default(),
        data: DataDir::ephemeral(),
        identity: Arc::clone(&joined.identity),
        room: joined.room,
        kept: Vec::new(),
        start: Start::Joined(joined),
    });
    (hub, told)
}

/// A login of Foo.
pub(crate) fn joined() -> Joined {
    Joined {
        room: Identity::from_seed(&ROOM).public(),
        identity: Arc::new(Identity::from_seed(&FOO)),
        first_use: false,
        room_socket: "127.0.0.1:9".parse().unwrap(),
        observed: "127.0.0.1:9".parse().unwrap(),
        check_key: [0; 32],
        blacklist: Vec::new(),
        features: Features::default(),
        allow_unencrypted: true,
        members: Vec::new(),
    }
}

/// Bar asks to be introduced to Foo, which is to wait for it on these rungs.
pub(crate) fn bar_asks(cipher: Cipher, rungs: &[Rung]) -> control::Introduced {
    bar_asks_at(1, cipher, rungs)
}

/// The same, when the Room's calendar says so many seconds since 1970.
pub(crate) fn bar_asks_at(issued_at: u64, cipher: Cipher, rungs: &[Rung]) -> control::Introduced {
    let party = |name: &str, seed: &[u8; 32]| {
        let identity = Identity::from_seed(seed);
        Party {
            name: name.parse().unwrap(),
            identity: identity.public(),
            noise: identity.noise_certificate(),
        }
    };
    let introduction = Introduction {
        room: Identity::from_seed(&ROOM).public(),
        id: IntroductionId([7; 16]),
        asker: party("Bar", &BAR),
        asked: party("Foo", &FOO),
        cipher,
        issued_at,
        lifetime: 86_400,
    };
    control::Introduced {
        request: None,
        introduction: introduction.sign(&Identity::from_seed(&ROOM)),
        rungs: rungs.iter().map(|&rung| RungOffer { rung, dial: Vec::new(), relay: None }).collect(),
    }
}
