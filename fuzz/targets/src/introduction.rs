//! The Room's statement about two users.

use arbitrary::{Result, Unstructured};
use parlor_protocol::introduction::{Cipher, Introduction, SignedIntroduction};
use parlor_protocol::limits::{CONTROL_FRAME, INTRODUCTION_LIFETIME};
use parlor_protocol::wire::codec;

use crate::Verdict;
use crate::common::Pair;

/// The bytes are taken as a signed introduction, as a statement that the Room signs, and as a script that changes
/// the bytes of one that it did sign. Nothing but what the Room said is believed.
pub fn introduction(data: &[u8]) -> Verdict {
    let pair = Pair::new(Cipher::ChaChaPoly);
    let room = pair.room.public();
    let as_it_is = codec::decode::<SignedIntroduction, CONTROL_FRAME>(data).ok();
    let believed = as_it_is.and_then(|signed| signed.verify(&room).ok());
    if let Some(introduction) = &believed {
        assert!(introduction.room == room && introduction.asker.name != introduction.asked.name);
    }
    let stated = codec::decode::<Introduction, CONTROL_FRAME>(data).ok().and_then(|introduction| {
        assert!(introduction.lifetime() <= INTRODUCTION_LIFETIME);
        let believed = introduction.sign(&pair.room).verify(&room).ok()?;
        assert_eq!(believed, introduction);
        assert!(introduction.sign(&pair.foo).verify(&room).is_err(), "signed by another");
        Some(())
    });
    let _ = changed(&mut Unstructured::new(data), &pair);
    Verdict::accepted_if(believed.is_some() || stated.is_some())
}

fn changed(script: &mut Unstructured<'_>, pair: &Pair) -> Result<()> {
    let mut bytes = codec::encode(&pair.introduction.sign(&pair.room));
    for _ in 0..script.int_in_range(1..=3)? {
        let at = script.choose_index(bytes.len())?;
        bytes[at] ^= script.arbitrary::<u8>()?;
    }
    if let Ok(signed) = codec::decode::<SignedIntroduction, CONTROL_FRAME>(&bytes)
        && let Ok(believed) = signed.verify(&pair.room.public())
    {
        assert_eq!(believed, pair.introduction);
    }
    Ok(())
}
