//! One or more of every message, with fixed contents.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::disallowed_names, reason = "tests; Foo and Bar are the users' names")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use parlor_protocol::body::Value;
use parlor_protocol::identity::{Identity, InstanceId, Purpose};
use parlor_protocol::introduction::Cipher;
use parlor_protocol::presence::{Encryption, HostTag, Presence};
use parlor_protocol::refusal::{CloseCode, LoginRefusal, PairRefusal};
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{
    Closing, Credentials, Features, Hello, HelloReply, Introduce, Introduced, Login, Member, RelayToken,
    Roster, RungOffer, Secret, Ticket, TicketSecret, ToRoom, ToUser, Welcome, login_proof_message,
};
use serde::{Deserialize, Serialize};

use crate::common::Pair;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 0, 2));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));

fn presence() -> Presence {
    Presence {
        host_tag: HostTag([0x44; 16]),
        lan_id: "office".parse().unwrap(),
        port: 40_000,
        private: vec![V4, V6],
        public: Some(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9))),
        encryption: Encryption::On,
        aes: true,
    }
}

fn login(credentials: Credentials) -> ToRoom {
    let foo = Identity::from_seed(&[1; 32]);
    let name = "Foo".parse().unwrap();
    ToRoom::Login(Box::new(Login {
        proof: foo.sign(Purpose::LoginProof, &login_proof_message(&[0xee; 32], &name)),
        name,
        credentials,
        room_password: None,
        identity: foo.public(),
        noise: foo.noise_certificate(),
        instance: InstanceId([0xa1; 16]),
        take_over: false,
        presence: presence(),
    }))
}

pub(crate) fn to_room() -> Vec<(&'static str, ToRoom)> {
    let with_room_password = match login(Credentials::Ticket(TicketSecret([0x77; 32]))) {
        ToRoom::Login(mut login) => {
            login.room_password = Some(Secret::new("open sesame".to_owned()).unwrap());
            login.take_over = true;
            login.presence.public = None;
            login.presence.private.clear();
            login.presence.encryption = Encryption::Off;
            ToRoom::Login(login)
        }
        other => other,
    };
    vec![
        ("Hello", ToRoom::Hello(Hello { features: Features(0x1_0000_0001), ..Hello::new("parlor 0.1.0") })),
        ("Login, open", login(Credentials::Open)),
        (
            "Login, password (the proof is over an exporter of ee..)",
            login(Credentials::Password(Secret::new("123456".to_owned()).unwrap())),
        ),
        ("Login, ticket and room password, taking over", with_room_password),
        ("Presence", ToRoom::Presence(presence())),
        ("Introduce", ToRoom::Introduce(Introduce { request: 70_000, peer: "Bar".parse().unwrap() })),
        ("Ping", ToRoom::Ping(250)),
        ("Ping, longest", ToRoom::Ping(u64::MAX)),
        ("Pong", ToRoom::Pong(251)),
        ("Bye", ToRoom::Bye(CloseCode::Done)),
    ]
}

fn introduced(request: Option<u32>, relay: Option<RelayToken>) -> ToUser {
    let pair = Pair::new(Cipher::AesGcm);
    ToUser::Introduced(Box::new(Introduced {
        request,
        introduction: pair.introduction.sign(&pair.room),
        rungs: vec![
            RungOffer {
                rung: Rung::Lan,
                dial: vec![SocketAddr::new(V4, 40_000), SocketAddr::new(V6, 80)],
                relay: None,
            },
            RungOffer { rung: Rung::Relay, dial: Vec::new(), relay },
        ],
    }))
}

fn refusals() -> [LoginRefusal; 16] {
    [
        LoginRefusal::Version { min: 2, max: 300 },
        LoginRefusal::Credentials,
        LoginRefusal::PasswordNeeded,
        LoginRefusal::RoomPassword,
        LoginRefusal::Ticket,
        LoginRefusal::NameInUse { same_identity: true },
        LoginRefusal::NameInUse { same_identity: false },
        LoginRefusal::IdentityMismatch,
        LoginRefusal::Proof,
        LoginRefusal::Banned { seconds: Some(600) },
        LoginRefusal::Banned { seconds: None },
        LoginRefusal::TooManyAttempts { seconds: 60 },
        LoginRefusal::Busy { retry_after_ms: 3_000 },
        LoginRefusal::Full,
        LoginRefusal::Malformed("a reason".to_owned()),
        LoginRefusal::ShuttingDown,
    ]
}

fn pair_refusals() -> [PairRefusal; 9] {
    [
        PairRefusal::Offline,
        PairRefusal::NoSuchPeer,
        PairRefusal::Yourself,
        PairRefusal::EncryptionMismatch { asker_is_off: true },
        PairRefusal::EncryptionRequired,
        PairRefusal::NoCleartextPath,
        PairRefusal::Blocked,
        PairRefusal::NoPath,
        PairRefusal::Busy { retry_after_ms: 1_000 },
    ]
}

pub(crate) fn to_user() -> Vec<(String, ToUser)> {
    let room = Identity::from_seed(&[3; 32]);
    let member = |name: &str, seed| Member {
        name: name.parse().unwrap(),
        identity: Identity::from_seed(&[seed; 32]).public(),
    };
    let reply = HelloReply {
        version: 1,
        features: Features(0),
        room: room.public(),
        proof: room.sign(Purpose::RoomProof, &[0xee; 32]),
        accounts: true,
        room_password: false,
        allow_unencrypted: true,
    };
    let welcome = Welcome {
        observed: SocketAddr::new(V6, 50_000),
        ticket: Some(Ticket { secret: TicketSecret([0x77; 32]), seconds: 86_400 }),
        check_key: [6; 32],
        blacklist: vec!["198.51.100.0/24".parse().unwrap(), "2001:db8:bad::/48".parse().unwrap()],
    };
    let plain =
        Welcome { observed: SocketAddr::new(V4, 443), ticket: None, check_key: [6; 32], blacklist: vec![] };
    let roster = Roster {
        joined: vec![member("Foo", 1), member("Bar", 2)],
        left: vec!["Baz".parse().unwrap()],
        complete: true,
    };
    let closing = |code, reconnect_in_ms| ToUser::Closing(Closing { code, reconnect_in_ms });
    let mut messages = vec![
        ("HelloReply (the proof is over an exporter of ee..)".to_owned(), ToUser::HelloReply(reply)),
        ("Welcome".to_owned(), ToUser::Welcome(Box::new(welcome))),
        ("Welcome, open Room".to_owned(), ToUser::Welcome(Box::new(plain))),
        ("Roster".to_owned(), ToUser::Roster(roster)),
        ("Introduced, the asker's".to_owned(), introduced(Some(7), Some(RelayToken([7; 32])))),
        ("Introduced, the other's".to_owned(), introduced(None, None)),
        ("Blacklist".to_owned(), ToUser::Blacklist(vec!["192.0.2.7/32".parse().unwrap()])),
        ("Ping".to_owned(), ToUser::Ping(65_535)),
        ("Pong".to_owned(), ToUser::Pong(65_536)),
        ("Closing, come back".to_owned(), closing(CloseCode::ShuttingDown, Some(2_500))),
        ("Closing, an unknown code".to_owned(), closing(CloseCode::Unknown(999), None)),
        ("Reachable".to_owned(), ToUser::Reachable(vec![V4, V6])),
    ];
    messages.extend(refusals().map(|why| (format!("LoginRefused: {why:?}"), ToUser::LoginRefused(why))));
    messages.extend(
        pair_refusals()
            .map(|why| (format!("IntroductionRefused 7: {why:?}"), ToUser::IntroductionRefused(7, why))),
    );
    messages
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    item: String,
    count: u32,
    note: Option<String>,
    kind: Kind,
    sizes: (u8, i16),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    Boxed { w: u8 },
}

pub(crate) fn order() -> Order {
    Order { item: "tea".to_owned(), count: 300, note: None, kind: Kind::Boxed { w: 2 }, sizes: (1, -2) }
}

pub(crate) fn values() -> Vec<Value> {
    vec![
        Value::Nil,
        true.into(),
        127.into(),
        128.into(),
        (-32).into(),
        (-33).into(),
        i64::MIN.into(),
        u64::MAX.into(),
        1.5.into(),
        "Hello!".into(),
        Value::Bin(vec![1, 2, 3]),
        Value::Array(vec![1.into(), "two".into()]),
        Value::Map(vec![("key".into(), Value::Nil), (2.into(), 3.into())]),
        Value::Ext(5, vec![0xaa]),
    ]
}
