//! The two ciphers as Noise section 12 defines them, over aws-lc-rs.
//!
//! A nonce is a counter behind four zero bytes: little endian for ChaChaPoly, big endian for AESGCM. A key
//! never sees a counter twice; keeping that is up to the callers, each of which owns its counter.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;
/// Bytes of an authentication tag.
pub(super) const TAG_BYTES: usize = 16;

/// The bytes do not open under this key and counter, or the library failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AeadFailure;

/// Which cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suite {
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaChaPoly,
    /// AES-256-GCM (NIST SP 800-38D).
    AesGcm,
}

impl Suite {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Suite::ChaChaPoly => &CHACHA20_POLY1305,
            Suite::AesGcm => &AES_256_GCM,
        }
    }

    fn nonce(self, counter: u64) -> Nonce {
        let counter = match self {
            Suite::ChaChaPoly => counter.to_le_bytes(),
            Suite::AesGcm => counter.to_be_bytes(),
        };
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// A key that is ready for use. The library clears its memory when it is dropped.
pub(super) struct AeadKey {
    key: LessSafeKey,
    suite: Suite,
}

impl AeadKey {
    pub(super) fn new(suite: Suite, key: &[u8; KEY_BYTES]) -> Result<Self, AeadFailure> {
        let key = UnboundKey::new(suite.algorithm(), key).map_err(|_| AeadFailure)?;
        Ok(Self { key: LessSafeKey::new(key), suite })
    }

    pub(super) fn suite(&self) -> Suite {
        self.suite
    }

    /// Encrypts `text` where it lies and returns the tag that belongs behind it.
    pub(super) fn seal(
        &self,
        counter: u64,
        ad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], AeadFailure> {
        let nonce = self.suite.nonce(counter);
        let sealed =
            self.key.seal_in_place_separate_tag(nonce, Aad::from(ad), text).map_err(|_| AeadFailure)?;
        sealed.as_ref().try_into().map_err(|_| AeadFailure)
    }

    /// Decrypts ciphertext and tag where they lie and returns the length of the plaintext.
    pub(super) fn open(&self, counter: u64, ad: &[u8], sealed: &mut [u8]) -> Result<usize, AeadFailure> {
        let nonce = self.suite.nonce(counter);
        match self.key.open_in_place(nonce, Aad::from(ad), sealed) {
            Ok(plaintext) => Ok(plaintext.len()),
            Err(_) => Err(AeadFailure),
        }
    }

    /// Decrypts ciphertext and tag into `plaintext`, which is `TAG_BYTES` shorter.
    pub(super) fn open_into(
        &self,
        counter: u64,
        ad: &[u8],
        sealed: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), AeadFailure> {
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(AeadFailure)?;
        let nonce = self.suite.nonce(counter);
        self.key
            .open_separate_gather(nonce, Aad::from(ad), ciphertext, tag, plaintext)
            .map_err(|_| AeadFailure)
    }

    /// The key that follows this one: `REKEY` of Noise section 4.2.
    pub(super) fn successor(&self) -> Result<Self, AeadFailure> {
        let mut next = Zeroizing::new([0; KEY_BYTES]);
        self.seal(u64::MAX, &[], next.as_mut_slice())?;
        Self::new(self.suite, &next)
    }
}
