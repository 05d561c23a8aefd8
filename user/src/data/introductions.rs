//! Introductions kept for the time when the Room is down. They tell who talks to whom, so they are encrypted
//! at rest under a key that only the identity's seed gives; the name of the file is bound in, so that one
//! cannot be put in the place of another.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use ipnet::IpNet;
use parlor_protocol::identity::{Fingerprint, Identity, PublicIdentity};
use parlor_protocol::introduction::SignedIntroduction;
use parlor_protocol::limits::INTRODUCTION_LIFETIME;
use parlor_protocol::name::UserName;
use parlor_protocol::wire::control::RungOffer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{DataDir, DataError, hex, of_user, text, unhex};

/// Introductions that are kept: the latest. A user that talks to more peers asks the Room for the others.
const MOST: usize = 256;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// An introduction that says it was received so many seconds from now is of a time when the clock stood elsewhere:
/// nobody can tell how old it is. Clocks that are kept in step differ by less.
const AHEAD: u64 = 300;

/// What a Room said about the way to one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedIntroduction {
    /// The peer.
    pub peer: UserName,
    /// The Room's statement. Verify it again before use.
    pub introduction: SignedIntroduction,
    /// The direct rungs the Room offered. Relay tokens are used up, and the relay is gone with the Room.
    pub rungs: Vec<RungOffer>,
    /// When it was received, in seconds since 1970 by this machine's clock.
    pub received_at: u64,
}

/// All that is kept for one user in one Room, so that it can start without the Room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedIntroductions {
    /// The Room's identity, which signed them.
    pub room: PublicIdentity,
    /// The addresses that the Room had users refuse links from.
    pub blacklist: Vec<IpNet>,
    /// The port on which peers know this user to listen.
    pub port: u16,
    /// The latest introduction to each peer.
    pub entries: Vec<CachedIntroduction>,
}

#[derive(Serialize, Deserialize)]
struct SealedFile {
    sealed: String,
}

impl DataDir {
    /// What is kept for `name` in a Room, without the introductions that are too old or of a time to come. `now` is
    /// in seconds since 1970.
    pub fn introductions(
        &self,
        room: Fingerprint,
        name: &UserName,
        identity: &Identity,
        now: u64,
    ) -> Result<Option<CachedIntroductions>, DataError> {
        let file = of_user(room, "introductions", name);
        let Some(SealedFile { sealed }) = self.read(&file)? else { return Ok(None) };
        let damaged = |why: &str| DataError::damaged(&self.files.path(&file), why);
        let sealed = unhex(&sealed).ok_or_else(|| damaged("it is not encrypted text"))?;
        let (nonce, ciphertext) =
            sealed.split_at_checked(NONCE_BYTES).ok_or_else(|| damaged("it is too short"))?;
        let nonce = Nonce::try_from(nonce).map_err(|_| damaged("it is too short"))?;
        let plain = cipher(identity)
            .decrypt(&nonce, Payload { msg: ciphertext, aad: file.as_bytes() })
            .map_err(|_| damaged("it was not encrypted under this identity"))?;
        let plain = Zeroizing::new(plain);
        let mut kept: CachedIntroductions =
            rmp_serde::from_slice(&plain).map_err(|_| damaged("its content cannot be read"))?;
        if kept.room.fingerprint() != room {
            return Err(damaged("it is about another Room"));
        }
        let good = |entry: &CachedIntroduction| {
            let ends = entry.received_at.saturating_add(INTRODUCTION_LIFETIME.as_secs());
            now < ends && entry.received_at <= now.saturating_add(AHEAD)
        };
        kept.entries.retain(good);
        Ok(Some(kept))
    }

    /// Keeps introductions for `name`, the latest 256 of them, instead of what was kept. `nonce` must be
    /// random and never used before.
    pub fn set_introductions(
        &self,
        name: &UserName,
        identity: &Identity,
        mut cache: CachedIntroductions,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<(), DataError> {
        let file = of_user(cache.room.fingerprint(), "introductions", name);
        cache.entries.sort_by_key(|entry| std::cmp::Reverse(entry.received_at));
        cache.entries.truncate(MOST);
        let damaged = || DataError::damaged(&self.files.path(&file), "its content cannot be written");
        let plain = Zeroizing::new(rmp_serde::to_vec_named(&cache).map_err(|_| damaged())?);
        let ciphertext = cipher(identity)
            .encrypt(&Nonce::from(nonce), Payload { msg: &plain, aad: file.as_bytes() })
            .map_err(|_| damaged())?;
        let sealed = hex(&[nonce.as_slice(), &ciphertext].concat());
        self.files.exclusive()?.write(&file, &text(SealedFile { sealed }))
    }
}

fn cipher(identity: &Identity) -> ChaCha20Poly1305 {
    let key =
        Zeroizing::new(blake3::derive_key("parlor introductions at rest v1", identity.seed().as_slice()));
    ChaCha20Poly1305::new(&Key::from(*key))
}
