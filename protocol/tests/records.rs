//! The records of a link: the bytes, and what a record that was tampered with comes to.

#![allow(clippy::unwrap_used, clippy::disallowed_names, reason = "tests; Foo and Bar are the users' names")]

mod common;

use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use common::keys;
use parlor_protocol::introduction::Cipher;
use parlor_protocol::noise::records::{
    LENGTH_BYTES, Opener, PLAINTEXT_BYTES, RecordError, RecordKeys, Sealer, TAG_BYTES, record_length,
};
use proptest::prelude::*;
use zeroize::Zeroizing;

const CIPHERS: [Cipher; 2] = [Cipher::ChaChaPoly, Cipher::AesGcm];

fn record(sealer: &mut Sealer, plaintext: &[u8]) -> Vec<u8> {
    let mut buf = [&[0; LENGTH_BYTES], plaintext].concat();
    sealer.seal(&mut buf, 0).unwrap();
    buf
}

/// Opens a record that stands behind its length.
fn open(opener: &mut Opener, cipher: Cipher, record: &[u8]) -> Result<Vec<u8>, RecordError> {
    let (prefix, ciphertext) = record.split_first_chunk::<LENGTH_BYTES>().unwrap();
    assert_eq!(record_length(*prefix, cipher), Ok(ciphertext.len()));
    let mut ciphertext = ciphertext.to_vec();
    let len = opener.open(&mut ciphertext)?;
    ciphertext.truncate(len);
    Ok(ciphertext)
}

fn with_key(key: [u8; 32], cipher: Cipher) -> (Sealer, Opener) {
    RecordKeys::new(Zeroizing::new(key), Zeroizing::new(key), cipher).split().unwrap()
}

fn reference(key: &[u8; 32], counter: u64) -> (ChaCha20Poly1305, Nonce) {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    (ChaCha20Poly1305::new(&Key::from(*key)), Nonce::from(nonce))
}

#[test]
fn aes_gives_the_bytes_of_the_published_test_case() {
    // Test case 14 of McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", appendix B.
    let mut buf = vec![0; LENGTH_BYTES + 16];
    with_key([0; 32], Cipher::AesGcm).0.seal(&mut buf, 0).unwrap();
    let (length, sealed) = buf.split_at(LENGTH_BYTES);
    assert_eq!(length, [32, 0]);
    assert_eq!(
        u128::from_be_bytes(sealed[..16].try_into().unwrap()),
        0xcea7_403d_4d60_6b6e_074e_c5d3_baf3_9d18
    );
    assert_eq!(
        u128::from_be_bytes(sealed[16..].try_into().unwrap()),
        0xd0d1_c8a7_9999_6bf0_265b_98b5_d48a_b919
    );
}

#[test]
fn many_records_are_sealed_one_behind_another_in_one_buffer() {
    for cipher in [Cipher::ChaChaPoly, Cipher::AesGcm, Cipher::Cleartext] {
        let (foo, bar) = keys(cipher);
        let (mut sealer, mut opener) = (foo.split().unwrap().0, bar.split().unwrap().1);
        let mut buf = b"before".to_vec();
        for text in ["one", "two", "three"] {
            let start = buf.len();
            buf.extend([0; LENGTH_BYTES]);
            buf.extend(text.as_bytes());
            sealer.seal(&mut buf, start).unwrap();
        }
        let mut rest = &buf[6..];
        for text in ["one", "two", "three"] {
            let len = LENGTH_BYTES + record_length([rest[0], rest[1]], cipher).unwrap();
            assert_eq!(open(&mut opener, cipher, &rest[..len]).unwrap(), text.as_bytes());
            rest = &rest[len..];
        }
        assert!(rest.is_empty());
    }
}

#[test]
fn a_record_that_is_repeated_left_out_or_moved_does_not_open() {
    for cipher in CIPHERS {
        let (foo, bar) = keys(cipher);
        let (mut sealer, mut opener) = (foo.split().unwrap().0, bar.split().unwrap().1);
        let [first, second, third] = ["a", "b", "c"].map(|text| record(&mut sealer, text.as_bytes()));
        assert_eq!(open(&mut opener, cipher, &second), Err(RecordError::Forged), "before its turn");
        assert_eq!(open(&mut opener, cipher, &first).unwrap(), b"a");
        assert_eq!(open(&mut opener, cipher, &first), Err(RecordError::Forged), "again");
        assert_eq!(open(&mut opener, cipher, &third), Err(RecordError::Forged), "one left out");
        assert_eq!(open(&mut opener, cipher, &second).unwrap(), b"b");
    }
}

#[test]
fn a_record_that_is_sent_back_to_its_sender_does_not_open() {
    for cipher in CIPHERS {
        let (mut sealer, mut opener) = keys(cipher).0.split().unwrap();
        let sent = record(&mut sealer, b"mine");
        assert_eq!(open(&mut opener, cipher, &sent), Err(RecordError::Forged));
    }
}

#[test]
fn a_length_that_no_record_has_is_refused_before_its_bytes_are_read() {
    let length = |len: u16, cipher| record_length(len.to_le_bytes(), cipher);
    for cipher in CIPHERS {
        assert_eq!(length(0, cipher), Err(RecordError::TooShort(0)));
        assert_eq!(length(15, cipher), Err(RecordError::TooShort(15)));
        assert_eq!(length(16, cipher), Err(RecordError::Empty));
        assert_eq!(length(17, cipher), Ok(17));
        assert_eq!(length(u16::MAX, cipher), Ok(65_535));
    }
    assert_eq!(length(0, Cipher::Cleartext), Err(RecordError::Empty));
    assert_eq!(length(1, Cipher::Cleartext), Ok(1));
    let over = PLAINTEXT_BYTES + 1;
    let refused = Err(RecordError::TooLong { len: over, limit: PLAINTEXT_BYTES });
    assert_eq!(length(over as u16, Cipher::Cleartext), refused);
}

#[test]
fn what_is_no_plaintext_is_not_sealed_and_leaves_nothing_in_the_buffer() {
    for cipher in [Cipher::ChaChaPoly, Cipher::Cleartext] {
        let mut sealer = keys(cipher).0.split().unwrap().0;
        let long = vec![7; 3 + LENGTH_BYTES + PLAINTEXT_BYTES + 1];
        for (plaintext, error) in [
            (&long[..3 + LENGTH_BYTES], RecordError::Empty),
            (&long[..=3], RecordError::Buffer),
            (&long[..], RecordError::TooLong { len: PLAINTEXT_BYTES + 1, limit: PLAINTEXT_BYTES }),
        ] {
            let mut buf = plaintext.to_vec();
            assert_eq!(sealer.seal(&mut buf, 3), Err(error));
            assert_eq!(buf.len(), 3);
        }
        assert_eq!(sealer.seal(&mut Vec::new(), 1), Err(RecordError::Buffer));
        let mut most = vec![7; LENGTH_BYTES + PLAINTEXT_BYTES];
        sealer.seal(&mut most, 0).unwrap();
        let mut opener = keys(cipher).1.split().unwrap().1;
        assert_eq!(open(&mut opener, cipher, &most).unwrap(), vec![7; PLAINTEXT_BYTES]);
    }
}

#[test]
fn both_ends_go_over_to_the_next_key_between_the_same_two_records() {
    for cipher in [Cipher::ChaChaPoly, Cipher::AesGcm, Cipher::Cleartext] {
        let (foo, bar) = keys(cipher);
        let (mut sealer, mut opener) = (foo.split().unwrap().0, bar.split().unwrap().1);
        assert_eq!(open(&mut opener, cipher, &record(&mut sealer, b"old key")).unwrap(), b"old key");
        assert_eq!(sealer.bytes_under_key(), 7);
        sealer.rekey().unwrap();
        assert_eq!(sealer.bytes_under_key(), 0);
        let sealed = record(&mut sealer, b"new key");
        if cipher != Cipher::Cleartext {
            assert_eq!(open(&mut opener, cipher, &sealed), Err(RecordError::Forged), "too early");
        }
        opener.rekey().unwrap();
        assert_eq!(open(&mut opener, cipher, &sealed).unwrap(), b"new key");
    }
}

#[test]
fn the_next_key_is_the_one_that_noise_defines_and_the_counter_goes_on() {
    let key = [0x5a; 32];
    let (mut sealer, _) = with_key(key, Cipher::ChaChaPoly);
    record(&mut sealer, b"counter 0");
    sealer.rekey().unwrap();
    let (cipher, nonce) = reference(&key, u64::MAX);
    let next: [u8; 32] = cipher.encrypt(&nonce, [0; 32].as_slice()).unwrap()[..32].try_into().unwrap();
    let (cipher, nonce) = reference(&next, 1);
    let expected = cipher.encrypt(&nonce, b"counter 1".as_slice()).unwrap();
    assert_eq!(record(&mut sealer, b"counter 1")[LENGTH_BYTES..], expected);
}

#[test]
fn a_buffer_without_room_for_the_plaintext_is_refused_and_the_record_can_still_be_opened() {
    let (foo, bar) = keys(Cipher::ChaChaPoly);
    let (mut sealer, mut opener) = (foo.split().unwrap().0, bar.split().unwrap().1);
    let sealed = record(&mut sealer, b"12345");
    assert_eq!(opener.open_into(&sealed[LENGTH_BYTES..], &mut [0; 4]), Err(RecordError::Buffer));
    let mut out = [0; 8];
    assert_eq!(opener.open_into(&sealed[LENGTH_BYTES..], &mut out), Ok(5));
    assert_eq!(&out, b"12345\0\0\0");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_fast_library_and_the_reference_seal_the_same_bytes_and_open_each_others(
        key in any::<[u8; 32]>(),
        seed in any::<u8>(),
        lengths in prop::collection::vec(prop_oneof![1..300usize, 1..=PLAINTEXT_BYTES], 1..4),
    ) {
        let (mut sealer, mut opener) = with_key(key, Cipher::ChaChaPoly);
        for (counter, len) in lengths.into_iter().enumerate() {
            let plaintext: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect();
            let (cipher, nonce) = reference(&key, counter as u64);
            let expected = cipher.encrypt(&nonce, plaintext.as_slice()).unwrap();
            let sealed = record(&mut sealer, &plaintext);
            prop_assert_eq!(&sealed[LENGTH_BYTES..], expected.as_slice());
            prop_assert_eq!(cipher.decrypt(&nonce, &sealed[LENGTH_BYTES..]).unwrap(), plaintext.as_slice());
            let mut theirs = expected;
            let len = opener.open(&mut theirs).unwrap();
            prop_assert_eq!(&theirs[..len], plaintext.as_slice());
        }
    }

    #[test]
    fn any_bit_flipped_in_a_record_is_noticed(
        aes in any::<bool>(),
        text in prop::collection::vec(any::<u8>(), 1..200),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let cipher = CIPHERS[usize::from(aes)];
        let (foo, bar) = keys(cipher);
        let mut sealed = record(&mut foo.split().unwrap().0, &text)[LENGTH_BYTES..].to_vec();
        let at = at.index(sealed.len());
        sealed[at] ^= 1 << bit;
        let mut opener = bar.split().unwrap().1;
        prop_assert_eq!(opener.open_into(&sealed, &mut [0; 256]), Err(RecordError::Forged));
        prop_assert_eq!(opener.open(&mut sealed), Err(RecordError::Forged));
    }

    #[test]
    fn a_record_that_ends_early_or_late_does_not_open(
        text in prop::collection::vec(any::<u8>(), 1..200),
        cut in any::<prop::sample::Index>(),
    ) {
        let (foo, bar) = keys(Cipher::ChaChaPoly);
        let mut sealed = record(&mut foo.split().unwrap().0, &text)[LENGTH_BYTES..].to_vec();
        let mut opener = bar.split().unwrap().1;
        let cut = cut.index(sealed.len());
        prop_assert!(opener.open(&mut sealed[..cut].to_vec()).is_err());
        sealed.push(0);
        prop_assert_eq!(opener.open(&mut sealed), Err(RecordError::Forged));
    }

    #[test]
    fn any_bytes_as_a_record_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut opener = keys(Cipher::AesGcm).1.split().unwrap().1;
        prop_assert!(opener.open_into(&bytes, &mut [0; 300]).is_err());
        prop_assert!(opener.open(&mut bytes.clone()).is_err());
    }

    #[test]
    fn a_record_opened_to_another_place_is_the_record_opened_where_it_lies(
        cipher in prop_oneof![Just(Cipher::ChaChaPoly), Just(Cipher::AesGcm), Just(Cipher::Cleartext)],
        text in prop::collection::vec(any::<u8>(), 1..2000),
    ) {
        let (foo, bar) = keys(cipher);
        let sealed = record(&mut foo.split().unwrap().0, &text);
        let tag = if cipher == Cipher::Cleartext { 0 } else { TAG_BYTES };
        prop_assert_eq!(sealed.len(), LENGTH_BYTES + text.len() + tag);
        let mut out = vec![0; 2000];
        let len = bar.split().unwrap().1.open_into(&sealed[LENGTH_BYTES..], &mut out).unwrap();
        prop_assert_eq!(&out[..len], text.as_slice());
        let mut opener = keys(cipher).1.split().unwrap().1;
        prop_assert_eq!(open(&mut opener, cipher, &sealed).unwrap(), text);
    }
}
