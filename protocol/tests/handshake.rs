//! What two ends can count on after a handshake, and what makes one fail.

#![allow(clippy::unwrap_used, clippy::disallowed_names, reason = "tests; Foo and Bar are the users' names")]

mod common;

use common::{Pair, keys, payloads};
use parlor_protocol::identity::Identity;
use parlor_protocol::introduction::{Cipher, Introduction};
use parlor_protocol::noise::handshake::{
    HandshakeError, HandshakeSetup, Initiator, MESSAGE_BYTES, PAYLOAD_BYTES, Responder, framed_message,
    framed_refusal, message_length,
};
use parlor_protocol::noise::payload::{LinkAccept, LinkHello};
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;
use proptest::prelude::*;
use zeroize::Zeroizing;

#[test]
fn both_ends_get_each_others_payload_and_matching_keys() {
    for cipher in [Cipher::ChaChaPoly, Cipher::AesGcm, Cipher::Cleartext] {
        let pair = Pair::new(cipher);
        let (hello, accept) = payloads();
        let (initiator, first) = Initiator::start(pair.foo(), &hello.encode()).unwrap();
        let (read, pending) = Responder::answer(pair.bar(), &first).unwrap();
        assert_eq!(LinkHello::decode(&read), Ok(hello));
        let (second, bar_keys) = pending.reply(&accept.encode()).unwrap();
        let (read, foo_keys) = initiator.finish(&second).unwrap();
        assert_eq!(LinkAccept::decode(&read), Ok(accept));
        assert_eq!((foo_keys.cipher(), bar_keys.cipher()), (cipher, cipher));

        let ((mut foo_out, mut foo_in), (mut bar_out, mut bar_in)) =
            (foo_keys.split().unwrap(), bar_keys.split().unwrap());
        for (sealer, opener) in [(&mut foo_out, &mut bar_in), (&mut bar_out, &mut foo_in)] {
            let mut record = b"\0\0hello".to_vec();
            sealer.seal(&mut record, 0).unwrap();
            let len = opener.open(&mut record[2..]).unwrap();
            assert_eq!(&record[2..2 + len], b"hello");
        }
    }
}

#[test]
fn either_of_the_two_may_open_the_link() {
    let pair = Pair::new(Cipher::ChaChaPoly);
    let (initiator, first) =
        Initiator::start(HandshakeSetup { initiator: true, ..pair.bar() }, b"x").unwrap();
    let (_, pending) = Responder::answer(HandshakeSetup { initiator: false, ..pair.foo() }, &first).unwrap();
    let (second, _) = pending.reply(b"y").unwrap();
    assert_eq!(initiator.finish(&second).unwrap().0, b"y");
}

/// Message 1 of Foo, read by a Bar that has something else in mind.
fn answer(foo: &Pair, bar: &Pair, change: impl FnOnce(&mut HandshakeSetup<'_>)) -> Option<HandshakeError> {
    let (_, first) = Initiator::start(foo.foo(), b"x").unwrap();
    let mut setup = bar.bar();
    change(&mut setup);
    Responder::answer(setup, &first).err()
}

#[test]
fn two_ends_that_were_told_different_things_do_not_meet() {
    let pair = Pair::new(Cipher::ChaChaPoly);
    assert_eq!(answer(&pair, &pair, |_| {}), None);
    let refused = Some(HandshakeError::NotAuthentic);
    assert_eq!(answer(&pair, &pair, |bar| bar.rung = Rung::SameHost), refused);

    let with = |change: fn(&mut Introduction)| {
        let mut other = Pair::new(Cipher::ChaChaPoly);
        change(&mut other.introduction);
        other
    };
    for other in [
        with(|i| i.id.0[0] ^= 1),
        with(|i| i.room = Identity::from_seed(&[99; 32]).public()),
        with(|i| i.cipher = Cipher::Cleartext),
        with(|i| i.cipher = Cipher::AesGcm),
        with(|i| i.asker.name = "Foot".parse().unwrap()),
        with(|i| i.asker.identity = Identity::from_seed(&[98; 32]).public()),
    ] {
        assert_eq!(answer(&pair, &other, |_| {}), refused, "{:?}", other.introduction);
    }
}

#[test]
fn a_responder_finds_the_rung_among_those_it_was_offered() {
    let pair = Pair::new(Cipher::ChaChaPoly);
    let (initiator, first) =
        Initiator::start(HandshakeSetup { rung: Rung::Public, ..pair.foo() }, b"x").unwrap();
    let offered = [Rung::SameHost, Rung::Lan, Rung::Public];
    let (rung, payload, pending) = Responder::answer_any(pair.bar(), &offered, &first).unwrap();
    assert_eq!((rung, payload.as_slice()), (Rung::Public, b"x".as_slice()));
    assert!(initiator.finish(&pending.reply(b"y").unwrap().0).is_ok());
    for others in [&offered[..2], &[]] {
        let refused = Responder::answer_any(pair.bar(), others, &first).err();
        assert_eq!(refused, Some(HandshakeError::NotAuthentic));
    }
    let clear = Pair::new(Cipher::Cleartext);
    let refused = Responder::answer_any(clear.bar(), &[Rung::Relay], &first).err();
    assert_eq!(refused, Some(HandshakeError::CleartextRung(Rung::Relay)));
}

#[test]
fn names_that_differ_in_case_only_are_no_difference() {
    let (pair, mut other) = (Pair::new(Cipher::ChaChaPoly), Pair::new(Cipher::ChaChaPoly));
    other.introduction.asker.name = "FOO".parse().unwrap();
    assert_eq!(answer(&pair, &other, |_| {}), None);
}

#[test]
fn a_message_of_one_role_is_not_taken_in_the_other() {
    let pair = Pair::new(Cipher::ChaChaPoly);
    let (initiator, first) = Initiator::start(pair.foo(), b"x").unwrap();
    assert!(initiator.finish(&first).is_err(), "a reflected first message");
    let reflected = Responder::answer(HandshakeSetup { initiator: false, ..pair.foo() }, &first).err();
    assert_eq!(reflected, Some(HandshakeError::NotAuthentic));
    let wrong = Initiator::start(pair.bar(), b"x").err();
    assert_eq!(wrong, Some(HandshakeError::Role));
    assert_eq!(Responder::answer(pair.foo(), &first).err(), Some(HandshakeError::Role));
}

#[test]
fn a_peer_that_holds_another_key_is_refused_by_name() {
    let pair = Pair::new(Cipher::ChaChaPoly);
    let mut expected = Pair::new(Cipher::ChaChaPoly);
    expected.introduction.asker.noise = Identity::from_seed(&[97; 32]).noise_certificate();
    assert_eq!(answer(&pair, &expected, |_| {}), Some(HandshakeError::OtherKey("Foo".parse().unwrap())));

    let mut wrong = Pair::new(Cipher::ChaChaPoly);
    wrong.introduction.asked.noise = Identity::from_seed(&[97; 32]).noise_certificate();
    assert_eq!(answer(&wrong, &pair, |_| {}), Some(HandshakeError::NotAuthentic), "meant for another Bar");
}

#[test]
fn a_setup_that_is_not_ours_is_refused_before_anything_is_sent() {
    let mut pair = Pair::new(Cipher::ChaChaPoly);
    let stranger = "Baz".parse().unwrap();
    let error = Initiator::start(HandshakeSetup { local_name: &stranger, ..pair.foo() }, b"").err();
    assert_eq!(error, Some(HandshakeError::NotIntroduced(stranger.clone())));
    let other = Identity::from_seed(&[96; 32]);
    let error = Initiator::start(HandshakeSetup { local: &other, ..pair.foo() }, b"").err();
    assert_eq!(error, Some(HandshakeError::OtherIdentity("Foo".parse().unwrap())));
    pair.introduction.cipher = Cipher::Cleartext;
    for rung in [Rung::Public, Rung::Relay] {
        let error = Initiator::start(HandshakeSetup { rung, ..pair.foo() }, b"").err();
        assert_eq!(error, Some(HandshakeError::CleartextRung(rung)));
    }
}

#[test]
fn a_peer_key_of_low_order_is_refused() {
    // The u-coordinates of RFC 7748's curve whose product with any scalar is 0, in two forms.
    let one = std::array::from_fn(|at| u8::from(at == 0));
    for low in [[0; 32], one] {
        let mut pair = Pair::new(Cipher::ChaChaPoly);
        let (_, mut first) = Initiator::start(pair.foo(), b"x").unwrap();
        first[..32].copy_from_slice(&low);
        assert_eq!(Responder::answer(pair.bar(), &first).err(), Some(HandshakeError::LowOrder));

        let (initiator, first) = Initiator::start(pair.foo(), b"x").unwrap();
        let (mut second, _) = Responder::answer(pair.bar(), &first).unwrap().1.reply(b"y").unwrap();
        second[..32].copy_from_slice(&low);
        assert_eq!(initiator.finish(&second).err(), Some(HandshakeError::LowOrder));

        pair.introduction.asked.noise.key.0 = low;
        assert_eq!(Initiator::start(pair.foo(), b"x").err(), Some(HandshakeError::LowOrder));
    }
}

#[test]
fn payloads_and_messages_beyond_their_limit_are_refused() {
    let pair = Pair::new(Cipher::ChaChaPoly);
    let long = vec![0; PAYLOAD_BYTES + 1];
    assert!(matches!(Initiator::start(pair.foo(), &long), Err(HandshakeError::PayloadTooLong { .. })));
    let (_, first) = Initiator::start(pair.foo(), &long[1..]).unwrap();
    assert_eq!(Responder::answer(pair.bar(), &first).unwrap().0.len(), PAYLOAD_BYTES);
    let too_long = vec![0; PAYLOAD_BYTES + 97];
    let error = Responder::answer(pair.bar(), &too_long).err().unwrap();
    assert!(matches!(error, HandshakeError::MessageTooLong { .. }));
    assert_eq!(error.close_code(), CloseCode::LimitExceeded);
}

#[test]
fn a_message_travels_behind_its_length_and_a_length_of_0_is_a_refusal() {
    let framed = framed_message(&[7; 300]);
    assert_eq!(message_length([framed[0], framed[1]]), Ok(Some(300)));
    assert_eq!(framed[2..], [7; 300]);
    let refusal = framed_refusal(CloseCode::Introduction);
    assert_eq!(message_length([refusal[0], refusal[1]]), Ok(None));
    assert_eq!(CloseCode::from(u16::from_le_bytes([refusal[2], refusal[3]])), CloseCode::Introduction);
    assert!(message_length((MESSAGE_BYTES as u16 + 1).to_le_bytes()).is_err());
}

#[test]
fn a_second_handshake_over_a_replayed_message_has_other_keys() {
    let pair = Pair::new(Cipher::ChaChaPoly);
    let (initiator, first) = Initiator::start(pair.foo(), b"x").unwrap();
    let (_, pending) = Responder::answer(pair.bar(), &first).unwrap();
    let (_, bar_keys) = pending.reply(b"").unwrap();
    let replayed = HandshakeSetup { ephemeral: Zeroizing::new([55; 32]), ..pair.bar() };
    let (_, pending) = Responder::answer(replayed, &first).unwrap();
    let (second, _) = pending.reply(b"").unwrap();
    let mut record = b"\0\0for the first link".to_vec();
    initiator.finish(&second).unwrap().1.split().unwrap().0.seal(&mut record, 0).unwrap();
    assert!(bar_keys.split().unwrap().1.open(&mut record[2..]).is_err());
}

#[test]
fn nothing_secret_is_shown_by_debug() {
    let shown = format!("{:?}", keys(Cipher::ChaChaPoly).0);
    assert_eq!(shown, "RecordKeys(chacha20-poly1305)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_bit_flipped_in_message_1_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let pair = Pair::new(Cipher::ChaChaPoly);
        let (initiator, mut first) = Initiator::start(pair.foo(), b"payload").unwrap();
        let at = at.index(first.len());
        first[at] ^= 1 << bit;
        // X25519 ignores the top bit of a key; the transcript does not, so the second message fails then.
        if let Ok((_, pending)) = Responder::answer(pair.bar(), &first) {
            let (second, _) = pending.reply(b"").unwrap();
            prop_assert!(initiator.finish(&second).is_err());
        }
    }

    #[test]
    fn any_bit_flipped_in_message_2_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let pair = Pair::new(Cipher::AesGcm);
        let (initiator, first) = Initiator::start(pair.foo(), b"payload").unwrap();
        let (mut second, _) = Responder::answer(pair.bar(), &first).unwrap().1.reply(b"answer").unwrap();
        let at = at.index(second.len());
        second[at] ^= 1 << bit;
        prop_assert!(initiator.finish(&second).is_err());
    }

    #[test]
    fn a_handshake_message_that_ends_early_is_refused(cut in any::<prop::sample::Index>()) {
        let pair = Pair::new(Cipher::ChaChaPoly);
        let (initiator, first) = Initiator::start(pair.foo(), b"payload").unwrap();
        prop_assert!(Responder::answer(pair.bar(), &first[..cut.index(first.len())]).is_err());
        let (second, _) = Responder::answer(pair.bar(), &first).unwrap().1.reply(b"answer").unwrap();
        prop_assert!(initiator.finish(&second[..cut.index(second.len())]).is_err());
    }

    #[test]
    fn any_bytes_as_a_message_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let pair = Pair::new(Cipher::ChaChaPoly);
        prop_assert!(Responder::answer(pair.bar(), &bytes).is_err());
        let (initiator, _) = Initiator::start(pair.foo(), b"").unwrap();
        prop_assert!(initiator.finish(&bytes).is_err());
        let _ = LinkHello::decode(&bytes);
        let _ = LinkAccept::decode(&bytes);
    }
}
