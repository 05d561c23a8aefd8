//! The values that messages carry.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use parlor_protocol::body::{BodyError, Value, from_body, to_body};
use parlor_protocol::limits::{BODY_DEPTH, BODY_ELEMENTS};
use parlor_protocol::name::is_unprintable;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::Verdict;

/// A type with a field of each kind.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    flag: bool,
    byte: u8,
    number: i64,
    large: Option<u64>,
    text: String,
    bytes: ByteBuf,
    list: Vec<(u16, char)>,
    table: BTreeMap<String, Value>,
    kind: Kind,
    within: Option<Box<Everything>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    Named { x: i8 },
    Pair(u8, String),
    Any(Value),
}

/// The bytes are a body, read without knowing its type and as several types; and a script for a value. What is read
/// or made is written, read again as the same, and shown without a character that moves a terminal's cursor.
pub fn body(data: &[u8]) -> Verdict {
    let dynamic = Value::from_body(data).inspect(holds).is_ok();
    let typed = from_body::<Everything>(data).is_ok_and(|read| {
        let Ok(written) = to_body(&read) else { panic!("{read:?} was read and cannot be written") };
        // Not compared as values: a number may be none, and that equals nothing.
        assert_eq!(from_body::<Everything>(&written).map(|again| to_body(&again)), Ok(Ok(written)));
        true
    });
    let _ = from_body::<Vec<Value>>(data);
    let _ = from_body::<BTreeMap<String, (u8, Option<f32>)>>(data);
    if let Ok(made) = value(&mut Unstructured::new(data), 0)
        && let Ok(written) = to_body(&made)
    {
        match Value::from_body(&written) {
            Ok(read) => holds(&read),
            Err(error) => assert_eq!(error, BodyError::TooManyElements { limit: BODY_ELEMENTS }),
        }
    }
    Verdict::accepted_if(dynamic || typed)
}

fn holds(value: &Value) {
    assert!(elements(value) <= BODY_ELEMENTS);
    let Ok(written) = to_body(value) else { panic!("{value:?} was read and cannot be written") };
    assert_eq!(Value::from_body(&written).map(|again| to_body(&again)), Ok(Ok(written)));
    let json = value.to_json();
    assert_eq!(Value::from(json.clone()).to_json(), json);
    let shown = value.to_string();
    assert!(!shown.chars().any(is_unprintable), "{shown:?}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).ok(), Some(json));
}

fn elements(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(elements).sum(),
        Value::Map(entries) => entries.iter().map(|(key, value)| elements(key) + elements(value)).sum(),
        _ => 0,
    }
}

/// A value of the script's, as deep as a body may be and a little deeper.
fn value(script: &mut Unstructured<'_>, depth: usize) -> Result<Value> {
    let kinds = if depth > BODY_DEPTH + 1 { 8 } else { 10 };
    Ok(match script.arbitrary::<u8>()? % kinds {
        0 => Value::Nil,
        1 => Value::Bool(script.arbitrary()?),
        2 => Value::Int(script.arbitrary()?),
        3 => Value::from(script.arbitrary::<u64>()?),
        4 => Value::Float(script.arbitrary()?),
        5 => Value::Str(script.arbitrary()?),
        6 => Value::Bin(script.arbitrary()?),
        7 => Value::Ext(script.arbitrary()?, script.arbitrary()?),
        8 => Value::Array(several(script, |script| value(script, depth + 1))?),
        _ => {
            Value::Map(several(script, |script| Ok((value(script, depth + 1)?, value(script, depth + 1)?)))?)
        }
    })
}

fn several<T>(
    script: &mut Unstructured<'_>,
    mut one: impl FnMut(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    (0..script.arbitrary::<u8>()? % 8).map(|_| one(script)).collect()
}
