//! The Room's signed statement that lets two users open a channel.
//!
//! An introduction names both ends with their keys, the cipher both can do, and a nonce that tells it from
//! every other. It grants nothing by itself: each end still proves its key in the handshake, and a key that
//! differs from one seen before under that name is refused.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::identity::{BadSignature, Identity, NoiseCertificate, PublicIdentity, Purpose, Signature};
use crate::limits::{CONTROL_FRAME, INTRODUCTION_LIFETIME};
use crate::name::UserName;
use crate::wire::codec::{self, DecodeError};

/// How the records of a channel are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Cipher {
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaChaPoly = 0,
    /// AES-256-GCM, where both ends have it in hardware.
    AesGcm = 1,
    /// The handshake authenticates both ends with ChaCha20-Poly1305; records then go in the clear.
    Cleartext = 2,
}

impl Cipher {
    /// How people and scripts write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Cipher::ChaChaPoly => "chacha20-poly1305",
            Cipher::AesGcm => "aes-256-gcm",
            Cipher::Cleartext => "none",
        }
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Tells one introduction from another: 16 random bytes drawn by the Room.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IntroductionId(pub [u8; 16]);

impl fmt::Debug for IntroductionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IntroductionId({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// One end of an introduction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// The name it has in the room.
    pub name: UserName,
    /// Its long-lived key.
    pub identity: PublicIdentity,
    /// Its handshake key, certified by its identity.
    pub noise: NoiseCertificate,
}

/// What the Room states about two users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The Room that states it.
    pub room: PublicIdentity,
    /// Tells it from every other introduction.
    pub id: IntroductionId,
    /// The user that asked for it. On a relayed link it opens the handshake.
    pub asker: Party,
    /// The user it asked for.
    pub asked: Party,
    /// How the channel's records are protected.
    pub cipher: Cipher,
    /// The Room's time of issue in seconds since 1970, for people who read it. Receivers count
    /// [`lifetime`](Self::lifetime) from when it reached them, by their own clock.
    pub issued_at: u64,
    /// Seconds it is good for after it was received.
    pub lifetime: u32,
}

impl Introduction {
    /// How long it is good for after it was received, at most [`INTRODUCTION_LIFETIME`].
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(u64::from(self.lifetime)).min(INTRODUCTION_LIFETIME)
    }

    /// Signs it as the Room `room`.
    pub fn sign(&self, room: &Identity) -> SignedIntroduction {
        let statement = codec::encode(self);
        let signature = room.sign(Purpose::Introduction, &statement);
        SignedIntroduction { statement, signature }
    }

    /// The party called `name` and its peer, in that order. `None` if neither is called so.
    pub fn sides(&self, name: &UserName) -> Option<(&Party, &Party)> {
        if self.asker.name == *name {
            Some((&self.asker, &self.asked))
        } else if self.asked.name == *name {
            Some((&self.asked, &self.asker))
        } else {
            None
        }
    }
}

/// An introduction as it travels and is kept: the signature is over these very bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedIntroduction {
    #[serde(with = "serde_bytes")]
    statement: Vec<u8>,
    signature: Signature,
}

/// Why an introduction is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntroductionError {
    /// It was not signed by this Room.
    #[error("the introduction is not signed by this Room")]
    Room,
    /// One of its handshake keys is not certified by its identity.
    #[error("the handshake key of {0} is not certified by its identity")]
    NoiseKey(UserName),
    /// Both ends are the same user.
    #[error("the introduction names {0} twice")]
    Twice(UserName),
    /// The statement is no introduction.
    #[error("the introduction cannot be read: {0}")]
    Decode(#[from] DecodeError),
}

impl SignedIntroduction {
    /// Checks the Room's signature and both handshake keys, and returns the statement.
    pub fn verify(&self, room: &PublicIdentity) -> Result<Introduction, IntroductionError> {
        room.verify(Purpose::Introduction, &self.statement, &self.signature)
            .map_err(|BadSignature| IntroductionError::Room)?;
        let introduction: Introduction = codec::decode::<_, CONTROL_FRAME>(&self.statement)?;
        if introduction.room != *room {
            return Err(IntroductionError::Room);
        }
        let (asker, asked) = (&introduction.asker, &introduction.asked);
        if asker.name == asked.name {
            return Err(IntroductionError::Twice(asker.name.clone()));
        }
        for party in [asker, asked] {
            party
                .noise
                .verify(&party.identity)
                .map_err(|BadSignature| IntroductionError::NoiseKey(party.name.clone()))?;
        }
        Ok(introduction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(name: &str, seed: u8) -> Party {
        let identity = Identity::from_seed(&[seed; 32]);
        Party {
            name: name.parse().unwrap(),
            identity: identity.public(),
            noise: identity.noise_certificate(),
        }
    }

    fn introduction(room: &Identity) -> Introduction {
        Introduction {
            room: room.public(),
            id: IntroductionId([9; 16]),
            asker: party("Foo", 1),
            asked: party("Bar", 2),
            cipher: Cipher::ChaChaPoly,
            issued_at: 1_700_000_000,
            lifetime: 86_400,
        }
    }

    #[test]
    fn an_introduction_is_believed_from_its_own_room_only() {
        let (room, other) = (Identity::from_seed(&[3; 32]), Identity::from_seed(&[4; 32]));
        let signed = introduction(&room).sign(&room);
        assert_eq!(signed.verify(&room.public()), Ok(introduction(&room)));
        assert_eq!(signed.verify(&other.public()), Err(IntroductionError::Room));
        let forged = introduction(&room).sign(&other);
        assert_eq!(forged.verify(&other.public()), Err(IntroductionError::Room));
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let room = Identity::from_seed(&[3; 32]);
        let signed = introduction(&room).sign(&room);
        for at in 0..signed.statement.len() {
            let mut changed = signed.clone();
            changed.statement[at] ^= 1;
            assert_eq!(changed.verify(&room.public()), Err(IntroductionError::Room));
        }
    }

    #[test]
    fn a_room_cannot_give_a_user_a_handshake_key_that_the_user_did_not_certify() {
        let room = Identity::from_seed(&[3; 32]);
        let mut swapped = introduction(&room);
        swapped.asked.noise = party("Eve", 5).noise;
        let error = swapped.sign(&room).verify(&room.public()).unwrap_err();
        assert_eq!(error, IntroductionError::NoiseKey("Bar".parse().unwrap()));
    }

    #[test]
    fn nobody_is_introduced_to_itself() {
        let room = Identity::from_seed(&[3; 32]);
        let mut twice = introduction(&room);
        twice.asked.name = "FOO".parse().unwrap();
        assert!(matches!(twice.sign(&room).verify(&room.public()), Err(IntroductionError::Twice(_))));
    }

    #[test]
    fn each_end_finds_itself_and_its_peer() {
        let introduction = introduction(&Identity::from_seed(&[3; 32]));
        let (me, peer) = introduction.sides(&"bar".parse().unwrap()).unwrap();
        assert_eq!((me.name.as_str(), peer.name.as_str()), ("Bar", "Foo"));
        assert!(introduction.sides(&"Baz".parse().unwrap()).is_none());
    }
}
