//! The bytes of the protocol, held fast: whoever changes one of them sees it here and in `docs/PROTOCOL.md`.

#![allow(clippy::unwrap_used, clippy::disallowed_names, reason = "tests; Foo and Bar are the users' names")]

mod common;
mod samples;

use std::fmt::Write;

use common::{Pair, payloads};
use parlor_protocol::body::{Value, from_body, to_body};
use parlor_protocol::introduction::{Cipher, IntroductionId};
use parlor_protocol::noise::handshake::{Initiator, Responder, framed_message, framed_refusal};
use parlor_protocol::noise::payload::{LinkAccept, LinkHello};
use parlor_protocol::noise::records::{Opener, Sealer};
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::codec;
use parlor_protocol::wire::control::{LENGTH_BYTES, RelayToken, ToRoom, ToUser};
use parlor_protocol::wire::preface;

/// Names and hexadecimal bytes, 32 a line.
#[derive(Default)]
struct Sheet(String);

impl Sheet {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        writeln!(self.0, "{name}").unwrap();
        for line in bytes.chunks(32) {
            self.0.push_str("   ");
            for group in line.chunks(4) {
                self.0.push(' ');
                for byte in group {
                    write!(self.0, "{byte:02x}").unwrap();
                }
            }
            self.0.push('\n');
        }
    }
}

#[test]
fn the_messages_of_a_user_keep_their_bytes() {
    let mut sheet = Sheet::default();
    for (name, message) in samples::to_room() {
        let bytes = message.encode();
        sheet.add(name, &bytes);
        assert_eq!(ToRoom::decode(&bytes[LENGTH_BYTES..]).unwrap(), message);
    }
    insta::assert_snapshot!(sheet.0);
}

#[test]
fn the_messages_of_a_room_keep_their_bytes() {
    let mut sheet = Sheet::default();
    for (name, message) in samples::to_user() {
        let bytes = message.encode();
        sheet.add(&name, &bytes);
        assert_eq!(ToUser::decode(&bytes[LENGTH_BYTES..]).unwrap(), message);
    }
    insta::assert_snapshot!(sheet.0);
}

#[test]
fn what_stands_before_the_messages_keeps_its_bytes() {
    let mut sheet = Sheet::default();
    sheet.add("relay", &preface::relay(&RelayToken([7; 32])));
    sheet.add("link", &preface::link(&IntroductionId([9; 16])));
    sheet.add("check", &preface::check(&[5; 32]));
    sheet.add("answer to the check, with the key 06..", &preface::check_answer(&[6; 32], &[5; 32]));
    sheet.add("refusal of a link", &framed_refusal(CloseCode::Introduction));
    insta::assert_snapshot!(sheet.0);
}

#[test]
fn keys_and_the_introduction_made_of_them_keep_their_bytes() {
    let pair = Pair::new(Cipher::ChaChaPoly);
    let mut sheet = Sheet::default();
    for (name, identity) in [("Room", &pair.room), ("Foo", &pair.foo), ("Bar", &pair.bar)] {
        sheet.add(&format!("{name}: seed"), identity.seed().as_slice());
        sheet.add(&format!("{name}: identity, {}", identity.fingerprint()), &identity.public().0);
        sheet.add(&format!("{name}: handshake secret"), identity.noise_secret().as_slice());
        sheet.add(&format!("{name}: certificate"), &codec::encode(&identity.noise_certificate()));
    }
    let signed = pair.introduction.sign(&pair.room);
    assert_eq!(signed.verify(&pair.room.public()).unwrap(), pair.introduction);
    sheet.add("introduction: statement", &codec::encode(&pair.introduction));
    sheet.add("introduction: signed", &codec::encode(&signed));
    insta::assert_snapshot!(sheet.0);
}

#[test]
fn a_handshake_and_its_first_records_keep_their_bytes() {
    let mut sheet = Sheet::default();
    for cipher in [Cipher::ChaChaPoly, Cipher::AesGcm, Cipher::Cleartext] {
        let pair = Pair::new(cipher);
        let (hello, accept) = payloads();
        sheet.add(&format!("{cipher}: hello"), &hello.encode());
        assert_eq!(LinkHello::decode(&hello.encode()).unwrap(), hello);
        let (initiator, first) = Initiator::start(pair.foo(), &hello.encode()).unwrap();
        sheet.add(&format!("{cipher}: message 1, with its length"), &framed_message(&first));
        let (_, pending) = Responder::answer(pair.bar(), &first).unwrap();
        sheet.add(&format!("{cipher}: accept"), &accept.encode());
        assert_eq!(LinkAccept::decode(&accept.encode()).unwrap(), accept);
        let (second, bar) = pending.reply(&accept.encode()).unwrap();
        sheet.add(&format!("{cipher}: message 2, with its length"), &framed_message(&second));
        let (mut forth, _) = initiator.finish(&second).unwrap().1.split().unwrap();
        let (mut back, mut read) = bar.split().unwrap();
        sheet.add(&format!("{cipher}: Foo's record \"hello\""), &record(&mut forth, &mut read, b"hello"));
        sheet.add(&format!("{cipher}: Foo's record \"again\""), &record(&mut forth, &mut read, b"again"));
        forth.rekey().unwrap();
        read.rekey().unwrap();
        let next = record(&mut forth, &mut read, b"next");
        sheet.add(&format!("{cipher}: Foo's record \"next\", after a rekey"), &next);
        let mut other = b"\0\0hello".to_vec();
        back.seal(&mut other, 0).unwrap();
        sheet.add(&format!("{cipher}: Bar's record \"hello\""), &other);
    }
    insta::assert_snapshot!(sheet.0);
}

fn record(sealer: &mut Sealer, opener: &mut Opener, text: &[u8]) -> Vec<u8> {
    let mut record = [b"\0\0", text].concat();
    sealer.seal(&mut record, 0).unwrap();
    let mut opened = record.clone();
    let len = opener.open(&mut opened[2..]).unwrap();
    assert_eq!(&opened[2..2 + len], text);
    record
}

#[test]
fn bodies_keep_their_bytes() {
    let mut sheet = Sheet::default();
    for value in samples::values() {
        let body = to_body(&value).unwrap();
        sheet.add(&value.to_string(), &body);
        assert_eq!(Value::from_body(&body).unwrap(), value);
    }
    let order = samples::order();
    let body = to_body(&order).unwrap();
    sheet.add(&format!("{order:?}"), &body);
    assert_eq!(from_body::<samples::Order>(&body).unwrap(), order);
    insta::assert_snapshot!(sheet.0);
}
