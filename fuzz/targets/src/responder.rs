//! The end of a handshake that hears from strangers.

use arbitrary::{Result, Unstructured};
use parlor_protocol::introduction::Cipher;
use parlor_protocol::noise::handshake::{
    HandshakeError, Initiator, PAYLOAD_BYTES, Responder, framed_message, message_length,
};
use parlor_protocol::noise::payload::{LinkAccept, LinkHello};
use parlor_protocol::rung::Rung;

use crate::Verdict;
use crate::common::{Pair, payloads};

const CIPHERS: [Cipher; 3] = [Cipher::ChaChaPoly, Cipher::AesGcm, Cipher::Cleartext];
const RUNGS: [Rung; 3] = [Rung::SameHost, Rung::Lan, Rung::Public];

/// The script makes Bar hear one of three things: any bytes; Foo's genuine message 1 with some bytes changed, which
/// is refused; or Foo's genuine message 1 with a payload of the script, which is accepted and leads to keys that
/// both share.
pub fn responder(data: &[u8]) -> Verdict {
    let mut script = Unstructured::new(data);
    let heard = match script.arbitrary::<u8>().map(|kind| kind % 3) {
        Ok(0) => any_bytes(&mut script),
        Ok(1) => changed(&mut script),
        Ok(_) => genuine(&mut script),
        Err(_) => Ok(false),
    };
    Verdict::accepted_if(heard.unwrap_or(false))
}

fn pair(script: &mut Unstructured<'_>) -> Result<Pair> {
    Ok(Pair::new(*script.choose(&CIPHERS)?))
}

fn any_bytes(script: &mut Unstructured<'_>) -> Result<bool> {
    let pair = pair(script)?;
    let bytes = script.bytes(script.len())?;
    let Some((prefix, rest)) = bytes.split_first_chunk() else { return Ok(false) };
    let Ok(Some(length)) = message_length(*prefix) else { return Ok(false) };
    let Some(message) = rest.get(..length) else { return Ok(false) };
    let (hello, _) = payloads();
    let Ok((rung, payload, _)) = Responder::answer_any(pair.bar(), &RUNGS, message) else { return Ok(false) };
    // Only who has Foo's key makes such a message; the corpus has the one that Foo makes with the fixed keys here.
    let mut setup = pair.foo();
    setup.rung = rung;
    let Ok((_, known)) = Initiator::start(setup, &hello.encode()) else { return Ok(false) };
    assert_eq!((payload, message), (hello.encode(), known.as_slice()));
    Ok(true)
}

fn changed(script: &mut Unstructured<'_>) -> Result<bool> {
    let pair = pair(script)?;
    let (hello, _) = payloads();
    let Ok((_, genuine)) = Initiator::start(pair.foo(), &hello.encode()) else { return Ok(false) };
    let mut message = genuine.clone();
    for _ in 0..script.int_in_range(1..=4)? {
        let at = script.choose_index(message.len())?;
        message[at] ^= script.arbitrary::<u8>()?;
    }
    if script.arbitrary()? {
        message.truncate(script.int_in_range(0..=message.len())?);
    }
    let answered = Responder::answer(pair.bar(), &message);
    assert_eq!(answered.is_ok(), message == genuine, "a changed message is refused, and no other");
    Ok(answered.is_ok())
}

fn genuine(script: &mut Unstructured<'_>) -> Result<bool> {
    let pair = pair(script)?;
    let (_, accept) = payloads();
    let payload = script.bytes(script.len())?;
    let (initiator, message) = match Initiator::start(pair.foo(), payload) {
        Ok(started) => started,
        Err(error) => {
            assert_eq!(error, HandshakeError::PayloadTooLong { len: payload.len(), limit: PAYLOAD_BYTES });
            return Ok(false);
        }
    };
    assert_eq!(
        framed_message(&message).first_chunk().map(|prefix| message_length(*prefix)),
        Some(Ok(Some(message.len())))
    );
    let Ok((rung, heard, pending)) = Responder::answer_any(pair.bar(), &RUNGS, &message) else {
        panic!("a genuine message is refused")
    };
    assert_eq!((rung, heard.as_slice()), (Rung::Lan, payload));
    let hello = LinkHello::decode(&heard);
    if let Ok(hello) = hello {
        assert_eq!(LinkHello::decode(&hello.encode()), Ok(hello));
    }
    let _ = LinkAccept::decode(&heard);
    let Ok((answer, bar)) = pending.reply(&accept.encode()) else { panic!("Bar does not answer") };
    let Ok((accepted, foo)) = initiator.finish(&answer) else { panic!("Foo refuses Bar's answer") };
    assert_eq!(LinkAccept::decode(&accepted), Ok(accept));
    let (Ok((mut sealer, _)), Ok((_, mut opener))) = (foo.split(), bar.split()) else { panic!("no keys") };
    let mut record = b"\0\0first".to_vec();
    assert_eq!(sealer.seal(&mut record, 0), Ok(()));
    assert_eq!(opener.open(&mut record[2..]), Ok(5));
    Ok(hello.is_ok())
}
