//! The values that messages carry: MessagePack, so that every language and the command line can read them.
//!
//! A body is exactly one MessagePack value, nested at most [`BODY_DEPTH`] deep. Any type with serde's
//! traits becomes one with [`to_body`] and comes back with [`from_body`]; structs are maps from field names, enums
//! as serde tags them, `()` and `None` are nil (a unit struct is an empty array). Who does not know the
//! type reads it as a [`Value`].
//!
//! The structure of a body from the network is checked before anything is decoded or allocated: recursion
//! is bounded, a length that the bytes cannot hold is refused, and no byte follows the value.
//!
//! Serde writes a `Vec<u8>` as an array of numbers, one by one. A large one belongs in a
//! [`serde_bytes::ByteBuf`] or under `#[serde(with = "serde_bytes")]`, which makes it MessagePack's binary
//! type and is many times as fast.
//!
//! ```
//! use parlor_protocol::body::{Value, from_body, to_body};
//! let body = to_body(&("answer", 42))?;
//! assert_eq!(from_body::<(String, u8)>(&body)?, ("answer".to_owned(), 42));
//! assert_eq!(Value::from_body(&body)?.to_string(), r#"["answer",42]"#);
//! # Ok::<_, parlor_protocol::body::BodyError>(())
//! ```

mod check;
mod json;
mod value;

use std::any::type_name;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::value::Value;
use crate::limits::{BODY_DEPTH, BODY_ELEMENTS};

/// What [`Value`] says through serde when it is too much for it.
const TOO_MANY: &str = "a dynamic value with too many elements";

/// Why a body is not made or not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The side that made the value: it nests too deep.
    #[error("the body nests deeper than {BODY_DEPTH}: its maker has to flatten it")]
    TooDeep,
    /// The sender: more elements than a reader of dynamic values takes.
    #[error("the body has more than {limit} elements: its sender has to split it")]
    TooManyElements {
        /// The limit.
        limit: usize,
    },
    /// The sender: the bytes are no MessagePack.
    #[error("the sender's body is no MessagePack value: {what} at byte {at}")]
    Malformed {
        /// Where, in bytes from the start.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// The sender: bytes follow the value.
    #[error("the sender's body has {0} bytes after its value")]
    Trailing(usize),
    /// Sender and reader disagree: the body is a value, but not one of the type that was asked for.
    #[error("the body is of another type than expected here: {0}")]
    Type(String),
    /// Ours: the value's own `Serialize` refused.
    #[error("this value cannot be sent: {0}")]
    Encode(String),
}

/// The body of a value.
pub fn to_body<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::with_capacity(128);
    write_body(&mut body, value)?;
    Ok(body)
}

/// Appends the body of a value to a buffer, which can be used again and again. After an error the buffer is as
/// it was.
pub fn write_body<T: Serialize + ?Sized>(buffer: &mut Vec<u8>, value: &T) -> Result<(), BodyError> {
    let start = buffer.len();
    let written = rmp_serde::encode::write_named(buffer, value)
        .map_err(|error| BodyError::Encode(error.to_string()))
        // Refused here, where the mistake is, rather than by every reader.
        .and_then(|()| check::typed(&buffer[start..]));
    if written.is_err() {
        buffer.truncate(start);
    }
    written
}

/// The value of a body. A type says itself how much it takes; a [`Value`] in it takes
/// [`BODY_ELEMENTS`] elements.
pub fn from_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyError> {
    check::typed(body)?;
    decode(body)
}

/// Decodes what [`check`] has passed.
fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    // It refuses from its limit on, counts an extension as a level, and does not count enums, which the check does.
    deserializer.set_max_depth(BODY_DEPTH + 2);
    T::deserialize(&mut deserializer).map_err(|error| match error {
        rmp_serde::decode::Error::DepthLimitExceeded => BodyError::TooDeep,
        rmp_serde::decode::Error::Syntax(text) if text == TOO_MANY => {
            BodyError::TooManyElements { limit: BODY_ELEMENTS }
        }
        rmp_serde::decode::Error::Syntax(text) => BodyError::Type(text),
        rmp_serde::decode::Error::TypeMismatch(marker) => {
            BodyError::Type(format!("found {}, reading {}", check::kind(marker.to_u8()), type_name::<T>()))
        }
        other => BodyError::Type(other.to_string()),
    })
}

#[cfg(test)]
mod tests;
