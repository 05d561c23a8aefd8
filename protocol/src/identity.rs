//! Long-lived keys and what people compare of them.
//!
//! An identity is an Ed25519 key (RFC 8032). The X25519 key of the handshake is derived from its seed, so
//! that one secret is kept, and certified by its signature, so that nobody has to know how it was derived.
//! Every signature is over a context string and the message, so that one made for one purpose is worth
//! nothing for another.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What a signature is for. The bytes stand before the signed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A Room proves its identity on one TLS connection.
    RoomProof,
    /// A user proves its identity on one TLS connection.
    LoginProof,
    /// An identity certifies the X25519 key of its handshakes.
    NoiseKey,
    /// A Room introduces two users.
    Introduction,
}

impl Purpose {
    fn context(self) -> &'static [u8] {
        match self {
            Purpose::RoomProof => b"parlor room proof v1\0",
            Purpose::LoginProof => b"parlor login proof v1\0",
            Purpose::NoiseKey => b"parlor noise key v1\0",
            Purpose::Introduction => b"parlor introduction v1\0",
        }
    }

    fn message(self, message: &[u8]) -> Vec<u8> {
        [self.context(), message].concat()
    }
}

/// A secret identity. Its memory is cleared when it is dropped; `Debug` shows the fingerprint only.
pub struct Identity {
    key: SigningKey,
}

impl Identity {
    /// The identity of a 32-byte seed. The seed must come from a cryptographic random source.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(seed) }
    }

    /// The seed, to be stored.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> PublicIdentity {
        PublicIdentity(self.key.verifying_key().to_bytes())
    }

    /// The fingerprint of the public half.
    pub fn fingerprint(&self) -> Fingerprint {
        self.public().fingerprint()
    }

    /// Signs `message` for one purpose.
    pub fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature {
        Signature(self.key.sign(&purpose.message(message)).to_bytes())
    }

    /// The X25519 secret of this identity's handshakes: HKDF-SHA-256 (RFC 5869) of the seed.
    pub fn noise_secret(&self) -> Zeroizing<[u8; 32]> {
        let mut secret = Zeroizing::new([0; 32]);
        let hkdf = hkdf::Hkdf::<sha2::Sha256>::new(None, self.seed().as_slice());
        // 32 bytes are within HKDF-SHA-256's limit of 8,160.
        let expanded = hkdf.expand(b"parlor noise static v1", secret.as_mut_slice());
        debug_assert!(expanded.is_ok());
        secret
    }

    /// The certificate for the public half of [`noise_secret`](Self::noise_secret).
    pub fn noise_certificate(&self) -> NoiseCertificate {
        let secret = x25519_dalek::StaticSecret::from(*self.noise_secret());
        let key = NoiseKey(x25519_dalek::PublicKey::from(&secret).to_bytes());
        NoiseCertificate { key, signature: self.sign(Purpose::NoiseKey, &key.0) }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

/// The public half of an identity. It may be any 32 bytes; one that is no point of the curve verifies
/// nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicIdentity(pub [u8; 32]);

impl PublicIdentity {
    /// What people compare: the first 20 bytes of BLAKE3 over a context and the key.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"parlor fingerprint v1\0").update(&self.0);
        let mut first = [0; Fingerprint::BYTES];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..Fingerprint::BYTES]);
        Fingerprint(first)
    }

    /// Checks a signature made by this identity for one purpose. Keys and signatures that RFC 8032's strict
    /// reading refuses (small order, non-canonical) are refused.
    pub fn verify(
        &self,
        purpose: Purpose,
        message: &[u8],
        signature: &Signature,
    ) -> Result<(), BadSignature> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| BadSignature)?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(&purpose.message(message), &signature).map_err(|_| BadSignature)
    }
}

impl fmt::Debug for PublicIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicIdentity({})", self.fingerprint())
    }
}

/// A signature does not belong to this key, purpose and message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match")]
pub struct BadSignature;

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

impl Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::Bytes::new(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::ByteArray::<64>::deserialize(deserializer).map(|bytes| Self(bytes.into_array()))
    }
}

/// An X25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NoiseKey(pub [u8; 32]);

impl fmt::Debug for NoiseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NoiseKey({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// An identity's statement that a handshake key is its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoiseCertificate {
    /// The certified key.
    pub key: NoiseKey,
    /// The identity's signature over the key.
    pub signature: Signature,
}

impl NoiseCertificate {
    /// Checks that `identity` made this certificate.
    pub fn verify(&self, identity: &PublicIdentity) -> Result<(), BadSignature> {
        identity.verify(Purpose::NoiseKey, &self.key.0, &self.signature)
    }
}

/// What people compare of a key: 160 bits, written as 32 characters of lower-case base32 (RFC 4648 section 6,
/// no padding).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; Self::BYTES]);

impl Fingerprint {
    /// Length in bytes.
    pub const BYTES: usize = 20;
    /// Length of its text, in characters.
    pub const CHARS: usize = 32;
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(Self::CHARS);
        for group in self.0.chunks_exact(5) {
            let bits = group.iter().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
            for shift in (0..8).rev() {
                text.push(char::from(Self::ALPHABET[(bits >> (shift * 5)) as usize & 31]));
            }
        }
        f.pad(&text)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// The text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 32 characters of a-z and 2-7, copied whole from what the Room printed")]
pub struct BadFingerprint;

impl FromStr for Fingerprint {
    type Err = BadFingerprint;

    fn from_str(text: &str) -> Result<Self, BadFingerprint> {
        if text.len() != Self::CHARS {
            return Err(BadFingerprint);
        }
        let mut bytes = [0; Self::BYTES];
        for (chunk, out) in text.as_bytes().chunks_exact(8).zip(bytes.chunks_exact_mut(5)) {
            let mut bits = 0u64;
            for byte in chunk {
                let byte = byte.to_ascii_lowercase();
                let digit = Self::ALPHABET.iter().position(|&a| a == byte).ok_or(BadFingerprint)?;
                bits = bits << 5 | digit as u64;
            }
            out.copy_from_slice(&bits.to_be_bytes()[3..]);
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = BadFingerprint;

    fn try_from(text: String) -> Result<Self, BadFingerprint> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.to_string()
    }
}

/// Tells one run of a program from another: 16 random bytes drawn at start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InstanceId(pub [u8; 16]);

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceId({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_signature_for_one_purpose_is_worth_nothing_for_another() {
        let identity = Identity::from_seed(&[7; 32]);
        let signature = identity.sign(Purpose::LoginProof, b"x");
        let public = identity.public();
        assert_eq!(public.verify(Purpose::LoginProof, b"x", &signature), Ok(()));
        assert_eq!(public.verify(Purpose::RoomProof, b"x", &signature), Err(BadSignature));
        assert_eq!(public.verify(Purpose::LoginProof, b"y", &signature), Err(BadSignature));
        assert_eq!(PublicIdentity([0; 32]).verify(Purpose::LoginProof, b"x", &signature), Err(BadSignature));
    }

    #[test]
    fn a_fingerprint_and_a_handshake_key_never_change_for_a_seed() {
        let identity = Identity::from_seed(&[1; 32]);
        insta::assert_snapshot!(identity.fingerprint(), @"ckzqhfpnsrb5n44gn6avohty7t4yz4fz");
        let certificate = identity.noise_certificate();
        insta::assert_snapshot!(format!("{:02x?}", &certificate.key.0[..8]), @"[df, 7c, 3c, aa, 0d, 12, 45, ab]");
        assert_eq!(certificate.verify(&identity.public()), Ok(()));
        assert!(certificate.verify(&Identity::from_seed(&[2; 32]).public()).is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", Identity::from_seed(&[0xab; 32]));
        assert!(!shown.contains("ab, ab") && !shown.contains("171"), "{shown}");
    }

    proptest! {
        #[test]
        fn a_fingerprint_reads_back_from_its_text(bytes in any::<[u8; 32]>()) {
            let fingerprint = PublicIdentity(bytes).fingerprint();
            let text = fingerprint.to_string();
            prop_assert_eq!(text.len(), Fingerprint::CHARS);
            prop_assert_eq!(text.parse(), Ok(fingerprint));
            prop_assert_eq!(text.to_ascii_uppercase().parse(), Ok(fingerprint));
        }

        #[test]
        fn any_text_is_a_fingerprint_or_an_error(text in ".{0,40}") {
            let _ = text.parse::<Fingerprint>();
        }
    }
}
