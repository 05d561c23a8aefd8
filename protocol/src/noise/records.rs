//! The records of a link: everything both ends say after the handshake.
//!
//! A record is a `u16` (little endian) with the length of what follows, and the ciphertext: up to
//! [`PLAINTEXT_BYTES`] of plaintext and a tag of [`TAG_BYTES`]. Each direction has a key and counts its
//! records from 0; the counter is the nonce (Noise section 5.1), so a record that is repeated, left out, moved
//! or sent back does not open. There is no associated data: a changed length changes which bytes are opened.
//! A record that does not open ends the link, for nothing after it can.
//!
//! Under [`Cipher::Cleartext`] a record is its length and the plaintext, without a tag. The handshake proved
//! both ends; after it nothing is promised against who can touch the network.
//!
//! Sealing and opening happen where the bytes lie, without an allocation.

use std::fmt;

use zeroize::Zeroizing;

use super::aead::{self, AeadFailure, AeadKey, KEY_BYTES, Suite};
use crate::introduction::Cipher;
use crate::refusal::CloseCode;

/// Most plaintext of one record, in bytes: with its tag it fills the largest message Noise has.
pub const PLAINTEXT_BYTES: usize = 65_535 - TAG_BYTES;
/// Bytes of the tag behind a ciphertext.
pub const TAG_BYTES: usize = aead::TAG_BYTES;
/// Bytes of a record's length.
pub const LENGTH_BYTES: usize = 2;
/// A key is replaced after it has sealed this much plaintext, in bytes: far within what either cipher
/// allows (RFC 8446 section 5.5 bounds AES-GCM at 2^24.5 full records), and little work each time.
pub const REKEY_BYTES: u64 = 1024 * 1024 * 1024;
/// No record is sealed or opened from this counter on: the last value is `REKEY`'s (Noise section 4.2).
const LAST_COUNTER: u64 = u64::MAX - 1;

/// Why a record is not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The writer's: a record without plaintext.
    #[error("a record without plaintext")]
    Empty,
    /// The writer's: more plaintext than a record takes.
    #[error("a record of {len} bytes where at most {limit} are allowed")]
    TooLong {
        /// The length found, in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The peer's: a record too short to hold a tag.
    #[error("a record of {0} bytes is too short")]
    TooShort(usize),
    /// The peer's, or somebody's on the way: the record was changed, repeated, left out or moved.
    #[error("a record does not open: it was changed or replayed on the way")]
    Forged,
    /// Nobody's: the counter is used up, and the link has to be replaced.
    #[error("the link's keys are used up")]
    KeyExhausted,
    /// Ours: the buffer does not hold what the call says it holds.
    #[error("the buffer is too small")]
    Buffer,
    /// Ours: the library refused what it should not.
    #[error("the cipher failed within this program")]
    Internal,
}

impl RecordError {
    /// The code with which the link is closed.
    pub fn close_code(self) -> CloseCode {
        match self {
            RecordError::Empty | RecordError::TooShort(_) | RecordError::Forged => CloseCode::Malformed,
            RecordError::TooLong { .. } => CloseCode::LimitExceeded,
            RecordError::KeyExhausted => CloseCode::Superseded,
            RecordError::Buffer | RecordError::Internal => CloseCode::Internal,
        }
    }
}

/// What a handshake ends with: one key for each direction. Cleared when dropped, hidden from `Debug`.
pub struct RecordKeys {
    send: Zeroizing<[u8; KEY_BYTES]>,
    recv: Zeroizing<[u8; KEY_BYTES]>,
    cipher: Cipher,
}

impl RecordKeys {
    /// The keys of one end; the other end has them the other way round.
    pub fn new(send: Zeroizing<[u8; KEY_BYTES]>, recv: Zeroizing<[u8; KEY_BYTES]>, cipher: Cipher) -> Self {
        Self { send, recv, cipher }
    }

    /// How the records are protected.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The two directions of this end.
    pub fn split(self) -> Result<(Sealer, Opener), RecordError> {
        let sealer = Sealer { key: protection(self.cipher, &self.send)?, counter: 0, bytes: 0 };
        let opener = Opener { key: protection(self.cipher, &self.recv)?, counter: 0 };
        Ok((sealer, opener))
    }
}

impl fmt::Debug for RecordKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordKeys({})", self.cipher)
    }
}

/// The length of the record that follows a prefix. The peer is at fault for an error.
pub fn record_length(prefix: [u8; LENGTH_BYTES], cipher: Cipher) -> Result<usize, RecordError> {
    let len = usize::from(u16::from_le_bytes(prefix));
    let tag = tag_bytes(cipher);
    match len {
        len if len < tag => Err(RecordError::TooShort(len)),
        len if len == tag => Err(RecordError::Empty),
        len if len - tag > PLAINTEXT_BYTES => Err(RecordError::TooLong { len, limit: PLAINTEXT_BYTES + tag }),
        len => Ok(len),
    }
}

/// Bytes of the tag that a cipher puts behind its ciphertext.
pub fn tag_bytes(cipher: Cipher) -> usize {
    match cipher {
        Cipher::ChaChaPoly | Cipher::AesGcm => TAG_BYTES,
        Cipher::Cleartext => 0,
    }
}

/// The sending half of a link.
pub struct Sealer {
    key: Option<AeadKey>,
    counter: u64,
    bytes: u64,
}

impl Sealer {
    /// Makes the end of `buf` a record. `buf[start..start + 2]` is reserved for the length, what follows it
    /// is plaintext; it is encrypted where it lies, and the tag is appended. Several records can be sealed
    /// one behind another in one buffer; with [`TAG_BYTES`] to spare in it nothing is allocated.
    ///
    /// After an error `buf` ends at `start`, so that no plaintext is sent by mistake.
    pub fn seal(&mut self, buf: &mut Vec<u8>, start: usize) -> Result<(), RecordError> {
        let sealed = self.try_seal(buf, start);
        if sealed.is_err() {
            buf.truncate(start);
        }
        sealed
    }

    fn try_seal(&mut self, buf: &mut Vec<u8>, start: usize) -> Result<(), RecordError> {
        let record = buf.get_mut(start..).ok_or(RecordError::Buffer)?;
        let (length, plaintext) =
            record.split_first_chunk_mut::<LENGTH_BYTES>().ok_or(RecordError::Buffer)?;
        let plaintext_len = plaintext.len();
        match plaintext_len {
            0 => return Err(RecordError::Empty),
            len if len > PLAINTEXT_BYTES => {
                return Err(RecordError::TooLong { len, limit: PLAINTEXT_BYTES });
            }
            _ => {}
        }
        if let Some(key) = &self.key {
            check_counter(self.counter)?;
            *length = ((plaintext_len + TAG_BYTES) as u16).to_le_bytes();
            let tag = key.seal(self.counter, &[], plaintext).map_err(|AeadFailure| RecordError::Internal)?;
            buf.extend_from_slice(&tag);
            self.counter += 1;
        } else {
            *length = (plaintext_len as u16).to_le_bytes();
        }
        self.bytes += plaintext_len as u64;
        Ok(())
    }

    /// Plaintext sealed under the current key, in bytes.
    pub fn bytes_under_key(&self) -> u64 {
        self.bytes
    }

    /// True once the current key has sealed [`REKEY_BYTES`]. Never of cleartext.
    pub fn wants_rekey(&self) -> bool {
        self.key.is_some() && self.bytes >= REKEY_BYTES
    }

    /// Replaces the key by its successor (Noise section 4.2); the counter goes on. The peer's [`Opener`] must do
    /// the same between the same two records.
    pub fn rekey(&mut self) -> Result<(), RecordError> {
        succeed(&mut self.key)?;
        self.bytes = 0;
        Ok(())
    }
}

/// The receiving half of a link.
pub struct Opener {
    key: Option<AeadKey>,
    counter: u64,
}

impl Opener {
    /// Opens the next record, given without its length, where it lies: the plaintext is left at its front.
    /// Returns the plaintext's length. After an error the bytes mean nothing, and the link is at its end.
    pub fn open(&mut self, record: &mut [u8]) -> Result<usize, RecordError> {
        let Some(key) = &self.key else {
            return plaintext_length(record.len(), 0);
        };
        let plaintext = plaintext_length(record.len(), TAG_BYTES)?;
        check_counter(self.counter)?;
        key.open(self.counter, &[], record).map_err(|AeadFailure| RecordError::Forged)?;
        self.counter += 1;
        Ok(plaintext)
    }

    /// Opens the next record, given without its length, to the front of `out`. Returns the plaintext's length;
    /// `out` must have room for it. For big bodies, which so reach their place without a copy. After an error
    /// the bytes in `out` mean nothing, and the link is at its end.
    pub fn open_into(&mut self, record: &[u8], out: &mut [u8]) -> Result<usize, RecordError> {
        let tag = if self.key.is_some() { TAG_BYTES } else { 0 };
        let plaintext = plaintext_length(record.len(), tag)?;
        let out = out.get_mut(..plaintext).ok_or(RecordError::Buffer)?;
        let Some(key) = &self.key else {
            out.copy_from_slice(record);
            return Ok(plaintext);
        };
        check_counter(self.counter)?;
        key.open_into(self.counter, &[], record, out).map_err(|AeadFailure| RecordError::Forged)?;
        self.counter += 1;
        Ok(plaintext)
    }

    /// Replaces the key by its successor, where the peer's [`Sealer`] did.
    pub fn rekey(&mut self) -> Result<(), RecordError> {
        succeed(&mut self.key)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({:?}, next {})", self.key.as_ref().map(AeadKey::suite), self.counter)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opener({:?}, next {})", self.key.as_ref().map(AeadKey::suite), self.counter)
    }
}

fn protection(cipher: Cipher, key: &[u8; KEY_BYTES]) -> Result<Option<AeadKey>, RecordError> {
    let suite = match cipher {
        Cipher::ChaChaPoly => Suite::ChaChaPoly,
        Cipher::AesGcm => Suite::AesGcm,
        Cipher::Cleartext => return Ok(None),
    };
    AeadKey::new(suite, key).map(Some).map_err(|AeadFailure| RecordError::Internal)
}

fn succeed(key: &mut Option<AeadKey>) -> Result<(), RecordError> {
    if let Some(current) = key {
        *current = current.successor().map_err(|AeadFailure| RecordError::Internal)?;
    }
    Ok(())
}

fn check_counter(counter: u64) -> Result<(), RecordError> {
    if counter >= LAST_COUNTER { Err(RecordError::KeyExhausted) } else { Ok(()) }
}

fn plaintext_length(record: usize, tag: usize) -> Result<usize, RecordError> {
    match record.checked_sub(tag) {
        None => Err(RecordError::TooShort(record)),
        Some(0) => Err(RecordError::Empty),
        Some(len) if len > PLAINTEXT_BYTES => {
            Err(RecordError::TooLong { len: record, limit: PLAINTEXT_BYTES + tag })
        }
        Some(len) => Ok(len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(cipher: Cipher) -> (Sealer, Opener) {
        let key = || Zeroizing::new([1; KEY_BYTES]);
        RecordKeys::new(key(), key(), cipher).split().unwrap()
    }

    #[test]
    fn a_counter_that_is_used_up_seals_and_opens_nothing() {
        let (mut sealer, mut opener) = ends(Cipher::AesGcm);
        (sealer.counter, opener.counter) = (LAST_COUNTER - 1, LAST_COUNTER - 1);
        let mut record = b"\0\0x".to_vec();
        sealer.seal(&mut record, 0).unwrap();
        assert_eq!(opener.open(&mut record[2..]), Ok(1));
        assert_eq!(sealer.seal(&mut b"\0\0x".to_vec(), 0), Err(RecordError::KeyExhausted));
        assert_eq!(opener.open(&mut [0; 17]), Err(RecordError::KeyExhausted));
        assert_eq!(opener.open_into(&[0; 17], &mut [0]), Err(RecordError::KeyExhausted));
    }

    #[test]
    fn a_key_wants_to_be_replaced_after_its_share_of_bytes_and_cleartext_has_none() {
        for (cipher, wants) in [(Cipher::ChaChaPoly, true), (Cipher::Cleartext, false)] {
            let (mut sealer, _) = ends(cipher);
            sealer.bytes = REKEY_BYTES - 1;
            assert!(!sealer.wants_rekey());
            sealer.seal(&mut b"\0\0x".to_vec(), 0).unwrap();
            assert_eq!(sealer.wants_rekey(), wants);
            sealer.rekey().unwrap();
            assert!(!sealer.wants_rekey());
        }
    }
}
