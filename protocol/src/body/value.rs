//! A body whose type the reader does not know.

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_bytes::{ByteBuf, Bytes};

use super::{BodyError, TOO_MANY, check, decode};
use crate::limits::BODY_ELEMENTS;

/// Any body, of at most [`BODY_ELEMENTS`] elements, as itself or within a type.
///
/// Shown as JSON, with what JSON does not have as [`to_json`](Self::to_json) puts it.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Nothing: `()`, `None`, JSON's `null`.
    #[default]
    Nil,
    /// A truth value.
    Bool(bool),
    /// A whole number that an `i64` holds.
    Int(i64),
    /// A whole number beyond `i64::MAX`. Make it with `Value::from`, which knows when it is one.
    UInt(u64),
    /// Another number. Of `f32`, its exact value.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bin(Vec<u8>),
    /// Values in a row.
    Array(Vec<Value>),
    /// Values by key, in the order in which they were written.
    Map(Vec<(Value, Value)>),
    /// A MessagePack extension: its type and its bytes.
    Ext(i8, Vec<u8>),
}

/// What serde calls an extension of MessagePack.
const EXT: &str = rmp_serde::MSGPACK_EXT_STRUCT_NAME;
/// More elements than this are not believed until they have come. Bodies are checked before; this is for other
/// deserializers.
const RESERVE: usize = 1024;

impl Value {
    /// Reads a body of at most [`BODY_DEPTH`](crate::limits::BODY_DEPTH) levels and
    /// [`BODY_ELEMENTS`] elements, each value, key and container counted. The
    /// sender is at fault for an error.
    pub fn from_body(body: &[u8]) -> Result<Self, BodyError> {
        check::dynamic(body)?;
        decode(body)
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, if it is one that an `i64` holds.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The value under a text key, if it is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => {
                entries.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}

macro_rules! from {
    ($($from:ty => |$x:ident| $value:expr;)*) => {
        $(impl From<$from> for Value {
            fn from($x: $from) -> Self {
                $value
            }
        })*
    };
}

from! {
    () => |_x| Value::Nil;
    bool => |x| Value::Bool(x);
    i32 => |x| Value::Int(i64::from(x));
    u32 => |x| Value::Int(i64::from(x));
    i64 => |x| Value::Int(x);
    u64 => |x| i64::try_from(x).map_or(Value::UInt(x), Value::Int);
    f64 => |x| Value::Float(x);
    &str => |x| Value::Str(x.to_owned());
    String => |x| Value::Str(x);
    Vec<Value> => |x| Value::Array(x);
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        // JSON has such characters within strings only, and there it has this escape for them.
        for c in self.to_json().to_string().chars() {
            if crate::name::is_unprintable(c) {
                write!(f, "\\u{:04x}", u32::from(c))?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Nil => serializer.serialize_unit(),
            Value::Bool(truth) => serializer.serialize_bool(*truth),
            Value::Int(number) => serializer.serialize_i64(*number),
            Value::UInt(number) => serializer.serialize_u64(*number),
            Value::Float(number) => serializer.serialize_f64(*number),
            Value::Str(text) => serializer.serialize_str(text),
            Value::Bin(bytes) => serializer.serialize_bytes(bytes),
            Value::Array(values) => serializer.collect_seq(values),
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Value::Ext(kind, bytes) => serializer.serialize_newtype_struct(EXT, &(kind, Bytes::new(bytes))),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Elements { left: &Cell::new(BODY_ELEMENTS) }.deserialize(deserializer)
    }
}

/// Reads one value; a value and all within it share one count.
#[derive(Clone, Copy)]
struct Elements<'a> {
    /// Elements that may still come.
    left: &'a Cell<usize>,
}

impl Elements<'_> {
    /// An error if more elements are announced than may still come, before room is made for them.
    fn expect<E: Error>(self, announced: Option<usize>) -> Result<usize, E> {
        match announced.unwrap_or(0) {
            announced if announced > self.left.get() => Err(E::custom(TOO_MANY)),
            announced => Ok(announced.min(RESERVE)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.left.set(self.left.get().checked_sub(1).ok_or_else(|| D::Error::custom(TOO_MANY))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Str(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Str(text))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bin(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Bin(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::with_capacity(self.expect(seq.size_hint())?);
        while let Some(value) = seq.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::with_capacity(self.expect(map.size_hint())?);
        while let Some(entry) = map.next_entry_seed(self, self)? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }

    /// The only newtype that a deserializer of MessagePack presents by itself is an extension.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let (kind, bytes) = <(i8, ByteBuf)>::deserialize(deserializer)?;
        Ok(Value::Ext(kind, bytes.into_vec()))
    }
}
