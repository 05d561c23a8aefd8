//! Published test vectors of the two patterns, run through the resolver and the records.

use serde::Deserialize;
use snow::HandshakeState;
use zeroize::Zeroizing;

use super::handshake::{noise_builder, raw_split, read_message, write_message};
use super::records::{LENGTH_BYTES, RecordKeys};
use crate::introduction::Cipher;

#[derive(Deserialize)]
struct File {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    protocol_name: String,
    init_prologue: String,
    init_static: String,
    init_ephemeral: String,
    init_remote_static: String,
    resp_prologue: String,
    resp_static: String,
    resp_ephemeral: String,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    payload: String,
    ciphertext: String,
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn key(text: &str) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(unhex(text).try_into().unwrap())
}

fn cipher(name: &str) -> Cipher {
    if name.contains("AESGCM") { Cipher::AesGcm } else { Cipher::ChaChaPoly }
}

fn ends(vector: &Vector) -> (HandshakeState, HandshakeState) {
    let initiator = noise_builder(&vector.protocol_name, key(&vector.init_ephemeral))
        .unwrap()
        .prologue(&unhex(&vector.init_prologue))
        .and_then(|b| {
            b.local_private_key(key(&vector.init_static).as_slice())?
                .remote_public_key(&unhex(&vector.init_remote_static))?
                .build_initiator()
        })
        .unwrap();
    let responder = noise_builder(&vector.protocol_name, key(&vector.resp_ephemeral))
        .unwrap()
        .prologue(&unhex(&vector.resp_prologue))
        .and_then(|b| b.local_private_key(key(&vector.resp_static).as_slice())?.build_responder())
        .unwrap();
    (initiator, responder)
}

#[test]
fn the_published_vectors_give_the_published_bytes() {
    let file: File = serde_json::from_str(include_str!("../../tests/vectors/noise_ik.json")).unwrap();
    assert_eq!(file.vectors.len(), 4);
    for vector in &file.vectors {
        let (mut initiator, mut responder) = ends(vector);
        let [first, second, rest @ ..] = vector.messages.as_slice() else { panic!("too few messages") };
        let message = write_message(&mut initiator, &unhex(&first.payload), 96).unwrap();
        assert_eq!(message, unhex(&first.ciphertext));
        assert_eq!(read_message(&mut responder, &message, 96).unwrap(), unhex(&first.payload));
        let message = write_message(&mut responder, &unhex(&second.payload), 48).unwrap();
        assert_eq!(message, unhex(&second.ciphertext));
        assert_eq!(read_message(&mut initiator, &message, 48).unwrap(), unhex(&second.payload));

        let cipher = cipher(&vector.protocol_name);
        let (forth, back) = raw_split(&mut initiator);
        let mut initiator = RecordKeys::new(forth, back, cipher).split().unwrap();
        let (forth, back) = raw_split(&mut responder);
        let mut responder = RecordKeys::new(back, forth, cipher).split().unwrap();
        for message in rest {
            let mut record = [&[0; LENGTH_BYTES], unhex(&message.payload).as_slice()].concat();
            initiator.0.seal(&mut record, 0).unwrap();
            assert_eq!(record[LENGTH_BYTES..], unhex(&message.ciphertext));
            let len = responder.1.open(&mut record[LENGTH_BYTES..]).unwrap();
            assert_eq!(record[LENGTH_BYTES..][..len], unhex(&message.payload));
            std::mem::swap(&mut initiator, &mut responder);
        }
    }
}
