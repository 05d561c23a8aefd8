//! Where the corpora begin: real values, one or more of each kind.

use parlor_protocol::body::to_body;
use parlor_protocol::introduction::Cipher;
use parlor_protocol::noise::handshake::{Initiator, framed_message};
use parlor_protocol::wire::control::{LENGTH_BYTES, RelayToken};
use parlor_protocol::wire::peer::{Head, RecordHeader, Status, write_frame_head};
use parlor_protocol::wire::{codec, preface};

use crate::common::{Pair, payloads};
use crate::samples;

const HASH: &str = "$2b$10$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW";

/// Every seed with its target.
pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |name, seeds_of: Vec<Vec<u8>>| seeds.extend(seeds_of.into_iter().map(|seed| (name, seed)));
    add("control", control());
    add("preface", prefaces());
    add("responder", responder());
    add("records", records());
    add("session", session());
    add("body", bodies());
    add("introduction", introductions());
    add("accounts", accounts());
    add("config", configs());
    add("admin", admin());
    add("state", state());
    seeds
}

fn control() -> Vec<Vec<u8>> {
    let to_room = samples::to_room().into_iter().map(|(_, message)| message.encode());
    let to_user = samples::to_user().into_iter().map(|(_, message)| message.encode());
    let frames: Vec<Vec<u8>> = to_room.chain(to_user).collect();
    let stream = frames[..5].concat();
    frames.into_iter().map(|frame| frame[LENGTH_BYTES..].to_vec()).chain([stream]).collect()
}

fn prefaces() -> Vec<Vec<u8>> {
    let pair = Pair::new(Cipher::ChaChaPoly);
    let (_, message) = Initiator::start(pair.foo(), b"").unwrap();
    vec![
        preface::relay(&RelayToken([7; 32])).to_vec(),
        preface::check(&[5; 32]).to_vec(),
        [&preface::link(&pair.introduction.id)[..], &framed_message(&message)].concat(),
    ]
}

fn responder() -> Vec<Vec<u8>> {
    let (hello, _) = payloads();
    let ciphers = [Cipher::ChaChaPoly, Cipher::AesGcm, Cipher::Cleartext];
    let message =
        |cipher| framed_message(&Initiator::start(Pair::new(cipher).foo(), &hello.encode()).unwrap().1);
    let genuine = (0..3).map(|cipher| [&[2, cipher], &hello.encode()[..]].concat());
    let heard = (0u8..).zip(ciphers).map(|(number, cipher)| [&[0, number], &message(cipher)[..]].concat());
    genuine.chain(heard).chain([vec![1, 0, 0, 5, 0, 0, 0]]).collect()
}

/// A record's plaintext: header and frames of many kinds.
fn plaintext() -> Vec<u8> {
    let mut out = Vec::new();
    RecordHeader { ack: Some(3), credit: Some(1 << 20), seq: Some(7) }.write(&mut out);
    let heads = [
        Head::Send { event: None },
        Head::Send { event: Some(&b"note"[..]) },
        Head::Get { call: 1, timeout_ms: 5_000, name: b"up" },
        Head::Answer { call: 1, status: Status::Failed },
    ];
    for head in heads {
        write_frame_head(&mut out, head.kind(), head.encoded_len() + 1);
        head.write(&mut out);
        out.push(0xc0);
    }
    out
}

fn records() -> Vec<Vec<u8>> {
    // The cipher, no edits, no rekeying, one record: a script's numbers come one byte each.
    (0..3).map(|cipher| [&[cipher, 0, 0, 0], &plaintext()[..]].concat()).collect()
}

fn session() -> Vec<Vec<u8>> {
    let script = |who: u8, steps: &[u8]| [&[who], &steps.repeat(40)[..]].concat();
    vec![
        script(0, &[7, 7, 0, 2, 1, 0, 0, 7]),
        script(1, &[0, 0, 0, 10, 1, 9, 1, 3, 250, 0, 0, 5, 0, 6]),
        script(2, &[0, 0, 0, 100, 0, 7, 2, 250, 0, 4, 5]),
        script(2, &[0, 1, 3, 200, 90, 1, 7, 2, 250, 0, 4, 2, 9, 9, 6]),
    ]
}

fn bodies() -> Vec<Vec<u8>> {
    let values = samples::values().into_iter().map(|value| to_body(&value).unwrap());
    values.chain([to_body(&samples::order()).unwrap()]).collect()
}

fn introductions() -> Vec<Vec<u8>> {
    let pair = Pair::new(Cipher::AesGcm);
    vec![codec::encode(&pair.introduction), codec::encode(&pair.introduction.sign(&pair.room))]
}

fn accounts() -> Vec<Vec<u8>> {
    let content = format!("[accounts]\nFoo = \"{HASH}\"\n\"b-a.r\" = \"{HASH}\"\n");
    let checksum = &blake3::hash(content.as_bytes()).to_hex()[..32];
    vec![
        format!("\u{1}{content}").into(),
        format!("\0# Written\nversion = 1\nchecksum = \"{checksum}\"\n{content}").into(),
    ]
}

fn configs() -> Vec<Vec<u8>> {
    let whole = format!(
        "listen = [\"127.0.0.1:2428\", \"[::1]:0\"]\ndata = \"d\"\nopen = true\nallow_unencrypted = false\n\
         log = \"info,parlor_room=debug\"\njson = true\nroom_password = \"{HASH}\"\nblacklist = [\"192.0.2.7\", \
         \"2001:db8::/48\"]\n[accounts]\nFoo = \"{HASH}\"\n[relay]\nenabled = true\npairs_per_user = 4\npairs_total = \
         9\nrate = 0\nburst = 0\n[limits]\nmax_users = 10\npenalties = true\nban_forever_after = 3\nbcrypt_threads = 1\n\
         bcrypt_queue = 4\n"
    );
    vec![whole.into(), b"# nothing\n".to_vec()]
}

fn admin() -> Vec<Vec<u8>> {
    let lines = [
        format!(r#"{{"request":"user-add","name":"Foo","hash":"{HASH}"}}"#),
        r#"{"request":"user-remove","name":"Foo"}"#.to_owned(),
        r#"{"request":"user-list"}"#.to_owned(),
        r#"{"request":"ban-add","net":"192.0.2.0/24","seconds":60}"#.to_owned(),
        r#"{"request":"ban-remove","net":"2001:db8::/48"}"#.to_owned(),
        r#"{"request":"status"}"#.to_owned(),
        r#"{"answer":"done"}"#.to_owned(),
        r#"{"answer":"failed","kind":"not-found","sentence":"no such user"}"#.to_owned(),
        r#"{"answer":"bans","bans":[{"net":"192.0.2.0/24","until":null,"reason":"x"}]}"#.to_owned(),
    ];
    lines.into_iter().map(Into::into).collect()
}

fn state() -> Vec<Vec<u8>> {
    let (room, foo) = (Pair::new(Cipher::AesGcm).room.fingerprint(), Pair::new(Cipher::AesGcm).foo);
    let key = "ab".repeat(32);
    let sealed = [
        format!("version = 1\n[rooms]\n\"room://somewhere:1\" = \"{room}\"\n"),
        format!("version = 1\n[peers]\nbar = \"{key}\"\n"),
        format!("version = 1\nfingerprint = \"{}\"\nseed = \"{}\"\n", foo.fingerprint(), "01".repeat(32)),
        format!("version = 1\nticket = \"{key}\"\nexpires = 1800000000\npassword_tag = 7\n"),
    ];
    (0u8..).zip(sealed).map(|(which, text)| [&[which * 2 + 1], text.as_bytes()].concat()).collect()
}
