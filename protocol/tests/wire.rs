//! What decoders do with what no honest sender sends, and that every message reads back.

#![allow(clippy::unwrap_used, clippy::disallowed_names, reason = "tests; Foo and Bar are the users' names")]

mod common;
mod samples;

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use parlor_protocol::identity::{
    Identity, InstanceId, NoiseCertificate, NoiseKey, PublicIdentity, Signature,
};
use parlor_protocol::introduction::{Cipher, Introduction, IntroductionId, Party, SignedIntroduction};
use parlor_protocol::limits::{CANDIDATES, CONTROL_FRAME};
use parlor_protocol::name::{LanId, UserName};
use parlor_protocol::presence::{Encryption, HostTag, Presence};
use parlor_protocol::refusal::{CloseCode, LoginRefusal, PairRefusal};
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{
    Closing, Credentials, Features, FrameError, Hello, HelloReply, Introduce, Introduced, LENGTH_BYTES,
    Login, MAGIC, Member, RelayToken, Roster, RungOffer, Secret, Ticket, TicketSecret, ToRoom, ToUser,
    Welcome, frame_length,
};
use parlor_protocol::wire::{codec, preface};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = UserName> {
    "[A-Za-z0-9][A-Za-z0-9._-]{0,31}".prop_map(|text| text.parse().unwrap())
}

fn signature() -> impl Strategy<Value = Signature> {
    any::<[[u8; 32]; 2]>().prop_map(|[a, b]| Signature([a, b].concat().try_into().unwrap()))
}

fn identity() -> impl Strategy<Value = PublicIdentity> {
    any::<[u8; 32]>().prop_map(PublicIdentity)
}

fn noise() -> impl Strategy<Value = NoiseCertificate> {
    (any::<[u8; 32]>(), signature())
        .prop_map(|(key, signature)| NoiseCertificate { key: NoiseKey(key), signature })
}

fn secret() -> impl Strategy<Value = Secret> {
    "[a-zA-Z0-9 äß]{1,30}".prop_map(|text| Secret::new(text).unwrap())
}

fn net() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0..=32u8).prop_map(|(ip, prefix)| IpNet::new(ip, prefix).unwrap())
}

fn rung() -> impl Strategy<Value = Rung> {
    prop::sample::select(Rung::ALL.to_vec())
}

fn code() -> impl Strategy<Value = CloseCode> {
    any::<u16>().prop_map(CloseCode::from)
}

fn presence() -> impl Strategy<Value = Presence> {
    let lan = "[a-z ä]{1,20}".prop_map(|text| text.parse::<LanId>().unwrap());
    (
        any::<[u8; 16]>(),
        lan,
        any::<u16>(),
        vec(any::<IpAddr>(), 0..=CANDIDATES),
        any::<Option<IpAddr>>(),
        any::<[bool; 2]>(),
    )
        .prop_map(|(tag, lan_id, port, private, public, [off, aes])| Presence {
            host_tag: HostTag(tag),
            lan_id,
            port,
            private,
            public,
            encryption: if off { Encryption::Off } else { Encryption::On },
            aes,
        })
}

fn login() -> impl Strategy<Value = Login> {
    let credentials = prop_oneof![
        Just(Credentials::Open),
        secret().prop_map(Credentials::Password),
        any::<[u8; 32]>().prop_map(|ticket| Credentials::Ticket(TicketSecret(ticket))),
    ];
    let who = (name(), identity(), signature(), noise(), any::<[u8; 16]>());
    (who, credentials, option::of(secret()), any::<bool>(), presence()).prop_map(
        |((name, identity, proof, noise, instance), credentials, room_password, take_over, presence)| Login {
            name,
            credentials,
            room_password,
            identity,
            proof,
            noise,
            instance: InstanceId(instance),
            take_over,
            presence,
        },
    )
}

fn hello() -> impl Strategy<Value = Hello> {
    (any::<[u16; 2]>(), any::<u64>(), ".{0,16}").prop_map(|([min_version, max_version], features, agent)| {
        Hello { magic: MAGIC, min_version, max_version, features: Features(features), agent }
    })
}

fn to_room() -> impl Strategy<Value = ToRoom> {
    prop_oneof![
        hello().prop_map(ToRoom::Hello),
        login().prop_map(|login| ToRoom::Login(Box::new(login))),
        presence().prop_map(ToRoom::Presence),
        (any::<u32>(), name()).prop_map(|(request, peer)| ToRoom::Introduce(Introduce { request, peer })),
        any::<u64>().prop_map(ToRoom::Ping),
        any::<u64>().prop_map(ToRoom::Pong),
        code().prop_map(ToRoom::Bye),
    ]
}

fn introduction() -> impl Strategy<Value = SignedIntroduction> {
    let party =
        || (name(), identity(), noise()).prop_map(|(name, identity, noise)| Party { name, identity, noise });
    let cipher = prop::sample::select(vec![Cipher::ChaChaPoly, Cipher::AesGcm, Cipher::Cleartext]);
    (party(), party(), any::<[u8; 16]>(), cipher, any::<u64>(), any::<u32>()).prop_map(
        |(asker, asked, id, cipher, issued_at, lifetime)| {
            let room = Identity::from_seed(&[3; 32]);
            let id = IntroductionId(id);
            Introduction { room: room.public(), id, asker, asked, cipher, issued_at, lifetime }.sign(&room)
        },
    )
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let ticket = (any::<[u8; 32]>(), any::<u32>())
        .prop_map(|(secret, seconds)| Ticket { secret: TicketSecret(secret), seconds });
    (any::<SocketAddr>(), option::of(ticket), any::<[u8; 32]>(), vec(net(), 0..9)).prop_map(
        |(observed, ticket, check_key, blacklist)| Welcome {
            observed: without_scope(observed),
            ticket,
            check_key,
            blacklist,
        },
    )
}

/// A v6 scope and flow label mean nothing to another machine and do not travel.
fn without_scope(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

fn introduced() -> impl Strategy<Value = Introduced> {
    let offer = (rung(), vec(any::<SocketAddr>(), 0..5), option::of(any::<[u8; 32]>())).prop_map(
        |(rung, dial, relay)| RungOffer {
            rung,
            dial: dial.into_iter().map(without_scope).collect(),
            relay: relay.map(RelayToken),
        },
    );
    (any::<Option<u32>>(), introduction(), vec(offer, 0..=4))
        .prop_map(|(request, introduction, rungs)| Introduced { request, introduction, rungs })
}

fn roster() -> impl Strategy<Value = Roster> {
    let member = (name(), identity()).prop_map(|(name, identity)| Member { name, identity });
    (vec(member, 0..9), vec(name(), 0..9), any::<bool>()).prop_map(|(joined, left, complete)| Roster {
        joined,
        left,
        complete,
    })
}

fn reply() -> impl Strategy<Value = HelloReply> {
    (any::<u16>(), any::<u64>(), identity(), signature(), any::<[bool; 3]>()).prop_map(
        |(version, features, room, proof, [accounts, room_password, allow_unencrypted])| HelloReply {
            version,
            features: Features(features),
            room,
            proof,
            accounts,
            room_password,
            allow_unencrypted,
        },
    )
}

fn to_user() -> impl Strategy<Value = ToUser> {
    let login_refusal = prop_oneof![
        any::<[u16; 2]>().prop_map(|[min, max]| LoginRefusal::Version { min, max }),
        any::<Option<u32>>().prop_map(|seconds| LoginRefusal::Banned { seconds }),
        any::<bool>().prop_map(|same_identity| LoginRefusal::NameInUse { same_identity }),
        ".{0,40}".prop_map(LoginRefusal::Malformed),
        Just(LoginRefusal::ShuttingDown),
    ];
    let pair_refusal = prop_oneof![
        any::<bool>().prop_map(|asker_is_off| PairRefusal::EncryptionMismatch { asker_is_off }),
        any::<u32>().prop_map(|retry_after_ms| PairRefusal::Busy { retry_after_ms }),
        Just(PairRefusal::NoPath),
    ];
    let closing = (code(), any::<Option<u32>>())
        .prop_map(|(code, reconnect_in_ms)| ToUser::Closing(Closing { code, reconnect_in_ms }));
    prop_oneof![
        reply().prop_map(ToUser::HelloReply),
        login_refusal.prop_map(ToUser::LoginRefused),
        welcome().prop_map(|welcome| ToUser::Welcome(Box::new(welcome))),
        roster().prop_map(ToUser::Roster),
        introduced().prop_map(|introduced| ToUser::Introduced(Box::new(introduced))),
        (any::<u32>(), pair_refusal).prop_map(|(request, why)| ToUser::IntroductionRefused(request, why)),
        vec(net(), 0..20).prop_map(ToUser::Blacklist),
        any::<u64>().prop_map(ToUser::Ping),
        any::<u64>().prop_map(ToUser::Pong),
        closing,
        vec(any::<IpAddr>(), 0..9).prop_map(ToUser::Reachable),
    ]
}

/// The message of a frame, its length checked.
fn unframe(bytes: &[u8]) -> &[u8] {
    let (prefix, message) = bytes.split_first_chunk::<LENGTH_BYTES>().unwrap();
    assert_eq!(frame_length(*prefix, CONTROL_FRAME), Ok(message.len()));
    message
}

proptest! {
    #[test]
    fn every_message_of_a_user_reads_back(message in to_room()) {
        prop_assert_eq!(ToRoom::decode(unframe(&message.encode())), Ok(message));
    }

    #[test]
    fn every_message_of_a_room_reads_back(message in to_user()) {
        prop_assert_eq!(ToUser::decode(unframe(&message.encode())), Ok(message));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(
        kind in prop_oneof![any::<u8>(), 1..=7u8, 129..=139u8],
        bytes in vec(any::<u8>(), 0..400),
    ) {
        let bytes = [&[kind], bytes.as_slice()].concat();
        if let Ok(message) = ToRoom::decode(&bytes) {
            prop_assert_eq!(ToRoom::decode(unframe(&message.encode())), Ok(message));
        }
        if let Ok(message) = ToUser::decode(&bytes) {
            prop_assert_eq!(ToUser::decode(unframe(&message.encode())), Ok(message));
        }
        let _ = (ToRoom::decode(&bytes[1..]), ToUser::decode(&bytes[1..]));
    }

    #[test]
    fn a_message_with_a_changed_byte_or_an_early_end_is_a_message_or_an_error(
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let frames: Vec<Vec<u8>> = samples::to_room()
            .iter()
            .map(|(_, message)| message.encode())
            .chain(samples::to_user().iter().map(|(_, message)| message.encode()))
            .collect();
        let mut message = unframe(&frames[which.index(frames.len())]).to_vec();
        let at = at.index(message.len());
        prop_assert!(ToRoom::decode(&message[..at]).is_err());
        prop_assert!(ToUser::decode(&message[..at]).is_err());
        message[at] = byte;
        let _ = (ToRoom::decode(&message), ToUser::decode(&message));
        if let Ok(ToUser::Introduced(introduced)) = ToUser::decode(&message) {
            let _ = introduced.introduction.verify(&Identity::from_seed(&[3; 32]).public());
        }
    }

    #[test]
    fn any_bytes_are_a_preface_or_an_error(head in any::<[u8; 2]>(), rest in any::<[u8; 32]>()) {
        let mut long = [0; 34];
        long[..2].copy_from_slice(&head);
        long[2..].copy_from_slice(&rest);
        let mut short = [0; 18];
        short.copy_from_slice(&long[..18]);
        for version in [head[1], preface::VERSION] {
            (long[1], short[1]) = (version, version);
            for kind in [head[0], preface::RELAY, preface::LINK, preface::CHECK] {
                (long[0], short[0]) = (kind, kind);
                let good = |expected| kind == expected && version == preface::VERSION;
                prop_assert_eq!(preface::parse_relay(&long).is_ok(), good(preface::RELAY));
                prop_assert_eq!(preface::parse_link(&short).is_ok(), good(preface::LINK));
                prop_assert_eq!(preface::parse_check(&long).is_ok(), good(preface::CHECK));
            }
        }
    }

    #[test]
    fn any_four_bytes_are_a_length_within_the_limit_or_an_error(prefix in any::<[u8; 4]>()) {
        if let Ok(len) = frame_length(prefix, CONTROL_FRAME) {
            prop_assert!((1..=CONTROL_FRAME).contains(&len));
        }
    }
}

#[test]
fn more_addresses_than_a_user_may_announce_are_refused() {
    let mut presence = match samples::to_room().swap_remove(4).1 {
        ToRoom::Presence(presence) => presence,
        other => panic!("{other:?}"),
    };
    presence.private = vec!["10.0.0.1".parse().unwrap(); CANDIDATES + 1];
    let bytes = ToRoom::Presence(presence).encode();
    assert!(matches!(ToRoom::decode(unframe(&bytes)), Err(FrameError::TooMany(_))));
}

#[test]
fn a_frame_that_has_no_message_or_more_than_one_is_refused() {
    assert_eq!(ToRoom::decode(&[]), Err(FrameError::Empty));
    assert_eq!(ToUser::decode(&[0]), Err(FrameError::UnknownKind(0)));
    let two = [unframe(&ToRoom::Ping(1).encode()), &[0]].concat();
    assert!(matches!(ToRoom::decode(&two), Err(FrameError::Decode(codec::DecodeError::Trailing(1)))));
    assert_eq!(ToRoom::decode(b"\x01GET / HTTP/1.1"), Err(FrameError::NoHello));
}

#[test]
fn a_frame_as_full_as_may_be_reads_back() {
    let nets = |count| ToUser::Blacklist(vec!["2001:db8::/32".parse().unwrap(); count]);
    let most = (CONTROL_FRAME - 1 - 3) / 18;
    assert_eq!(ToUser::decode(unframe(&nets(most).encode())), Ok(nets(most)));
    let members = (CONTROL_FRAME - 1 - 3 - 2) / 65;
    let member = Member { name: "x".repeat(32).parse().unwrap(), identity: PublicIdentity([1; 32]) };
    let roster = ToUser::Roster(Roster { joined: vec![member; members], left: vec![], complete: false });
    assert_eq!(ToUser::decode(unframe(&roster.encode())), Ok(roster));
}
