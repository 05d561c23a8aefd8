//! What snow runs its patterns on: X25519 of x25519-dalek, the ciphers of aws-lc-rs, BLAKE2s of RustCrypto.
//!
//! No randomness of its own: the one ephemeral key a handshake needs comes in with the resolver, and a
//! second draw is an error. A Diffie-Hellman result that the peer's key alone determines (a point of low
//! order, RFC 7748 section 6.1) is an error, too.

use std::cell::Cell;

use blake2::{Blake2s256, Digest};
use snow::Error;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::aead::{AeadKey, KEY_BYTES, Suite, TAG_BYTES};

/// Serves one handshake.
pub(super) struct Resolver {
    ephemeral: Cell<Option<Zeroizing<[u8; 32]>>>,
}

impl Resolver {
    /// `ephemeral` must come from a cryptographic random source and serve no other handshake.
    pub(super) fn new(ephemeral: Zeroizing<[u8; 32]>) -> Self {
        Self { ephemeral: Cell::new(Some(ephemeral)) }
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneDraw(self.ephemeral.take())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(X25519::new([0; 32]))),
            DHChoice::Curve448 => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::Blake2s => Some(Box::new(Blake2s(Blake2s256::new()))),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let suite = match choice {
            CipherChoice::ChaChaPoly => Suite::ChaChaPoly,
            CipherChoice::AESGCM => Suite::AesGcm,
            #[allow(unreachable_patterns, reason = "snow has a third cipher behind a feature")]
            _ => return None,
        };
        Some(Box::new(Aead { key: None, suite }))
    }
}

struct OneDraw(Option<Zeroizing<[u8; 32]>>);

impl Random for OneDraw {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let drawn = self.0.take().ok_or(Error::Rng)?;
        if dest.len() != drawn.len() {
            return Err(Error::Rng);
        }
        dest.copy_from_slice(drawn.as_slice());
        Ok(())
    }
}

struct X25519 {
    secret: StaticSecret,
    public: PublicKey,
}

impl X25519 {
    fn new(secret: [u8; 32]) -> Self {
        let secret = StaticSecret::from(secret);
        let public = PublicKey::from(&secret);
        Self { secret, public }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(privkey);
        *self = Self::new(*secret);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut secret = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(secret.as_mut_slice())?;
        *self = Self::new(*secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn privkey(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let peer: [u8; 32] = *pubkey.first_chunk().ok_or(Error::Dh)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        if !shared.was_contributory() {
            return Err(Error::Dh);
        }
        out.get_mut(..32).ok_or(Error::Dh)?.copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Blake2s256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hasher = std::mem::replace(&mut self.0, Blake2s256::new());
        out[..32].copy_from_slice(&hasher.finalize());
    }
}

struct Aead {
    key: Option<AeadKey>,
    suite: Suite,
}

impl Cipher for Aead {
    fn name(&self) -> &'static str {
        match self.suite {
            Suite::ChaChaPoly => "ChaChaPoly",
            Suite::AesGcm => "AESGCM",
        }
    }

    fn set(&mut self, key: &[u8; KEY_BYTES]) {
        self.key = AeadKey::new(self.suite, key).ok();
    }

    /// Snow's trait leaves no way to fail. A failure, which no input brings about, leaves zeros: nothing of
    /// the plaintext gets out, and the peer's side does not open it.
    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (text, rest) = out.split_at_mut(plaintext.len());
        text.copy_from_slice(plaintext);
        let tag = &mut rest[..TAG_BYTES];
        if let Some(Ok(sealed)) = self.key.as_ref().map(|key| key.seal(nonce, authtext, text)) {
            tag.copy_from_slice(&sealed);
        } else {
            text.fill(0);
            tag.fill(0);
        }
        plaintext.len() + TAG_BYTES
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let key = self.key.as_ref().ok_or(Error::Decrypt)?;
        let len = ciphertext.len().checked_sub(TAG_BYTES).ok_or(Error::Decrypt)?;
        let plaintext = out.get_mut(..len).ok_or(Error::Decrypt)?;
        key.open_into(nonce, authtext, ciphertext, plaintext).map_err(|_| Error::Decrypt)?;
        Ok(len)
    }
}
