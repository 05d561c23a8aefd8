//! The one place that turns control messages into bytes and back: bincode 2 with its standard configuration
//! (little endian, variable-length integers), as `docs/PROTOCOL.md` describes it byte by byte.
//!
//! A decoder reads no more than its limit, allocates for a claimed length no more than eight times as much (32 KiB
//! before login), and refuses bytes that follow the value.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::{CONTROL_FRAME, FRAME_BEFORE_LOGIN};

/// Why bytes are not the expected value. The sender is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than its kind may be.
    #[error("{len} bytes where at most {limit} are allowed")]
    TooLong {
        /// The length found, in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Ends early, holds a value out of range, or claims a length beyond the limit.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Bytes follow the value.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
}

/// bincode counts a number towards its limit with the full width of its type, a `u64` of one byte as eight. The
/// limit is for claimed lengths; how long the input may be is checked before.
const WIDEST: usize = 8;

/// The bytes of a value. Types in this crate have an encoding for every value.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let encoded = bincode::serde::encode_to_vec(value, bincode::config::standard());
    debug_assert!(encoded.is_ok(), "a protocol type that cannot be encoded");
    encoded.unwrap_or_default()
}

/// The value of `bytes`, all of them, of which there may be at most `LIMIT`, itself at most [`CONTROL_FRAME`].
pub fn decode<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    const { assert!(LIMIT <= CONTROL_FRAME) };
    if bytes.len() > LIMIT {
        return Err(DecodeError::TooLong { len: bytes.len(), limit: LIMIT });
    }
    let config = bincode::config::standard();
    let decoded = if bytes.len() <= FRAME_BEFORE_LOGIN {
        bincode::serde::decode_from_slice(bytes, config.with_limit::<{ WIDEST * FRAME_BEFORE_LOGIN }>())
    } else {
        bincode::serde::decode_from_slice(bytes, config.with_limit::<{ WIDEST * CONTROL_FRAME }>())
    };
    let (value, read) = decoded.map_err(|error| DecodeError::Malformed(error.to_string()))?;
    match bytes.len() - read {
        0 => Ok(value),
        rest => Err(DecodeError::Trailing(rest)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u32);
        assert_eq!(decode::<u32, 16>(&bytes), Ok(7));
        bytes.push(0);
        assert_eq!(decode::<u32, 16>(&bytes), Err(DecodeError::Trailing(1)));
    }

    #[test]
    fn a_length_beyond_the_limit_allocates_nothing_and_does_not_panic() {
        let mut bytes = vec![253];
        bytes.extend(u64::MAX.to_le_bytes());
        assert!(matches!(decode::<Vec<u8>, 4096>(&bytes), Err(DecodeError::Malformed(_))));
        assert!(matches!(decode::<String, 4096>(&bytes), Err(DecodeError::Malformed(_))));
        assert!(matches!(decode::<serde_bytes::ByteBuf, 4096>(&bytes), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn more_bytes_than_the_limit_are_refused_unread() {
        assert_eq!(decode::<u8, 4>(&[0; 5]), Err(DecodeError::TooLong { len: 5, limit: 4 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode::<Vec<(String, Option<u64>)>, 4096>(&bytes);
            let _ = decode::<crate::introduction::Introduction, 4096>(&bytes);
        }
    }
}
