//! Bodies as JSON and back.
//!
//! What JSON does not have is an object with one key: bytes are `{"$bin": "00ff"}` (hexadecimal), an extension is
//! `{"$ext": [type, "00ff"]}`, and a number that is none is `{"$float": "NaN"}`, `"inf"` or `"-inf"`. A map that
//! happens to look like one of these gets another `$` before its key. A key that is no text becomes its JSON
//! text, and of equal keys the last counts; everything else comes back as it was.
//!
//! Within such a text, quotation marks are escaped, and within a text in it once more: keys within keys would double
//! at each level, and a few hundred bytes fill any memory. So an array or map that is a key within a key
//! is only hinted at, as `[..]` or `{..}`.

use std::fmt::Write;

use serde_json::{Map, Number, Value as Json, json};

use super::Value;

const BIN: &str = "$bin";
const EXT: &str = "$ext";
const FLOAT: &str = "$float";

impl Value {
    /// The value as JSON. Bytes become `{"$bin": "00ff"}` (hexadecimal), extensions
    /// `{"$ext": [type, "00ff"]}`, and numbers that JSON does not have `{"$float": "NaN"}`; a map that happens
    /// to look like one of these gets another `$` before its key. `Value::from` reads all of it back.
    ///
    /// Lost are only keys that repeat, the type of keys that are no text (`1` becomes `"1"`), and arrays and maps
    /// that are keys within a key: they become `"[..]"` and `"{..}"`.
    ///
    /// ```
    /// use parlor_protocol::body::Value;
    /// let value = Value::Map(vec![("key".into(), Value::Bin(vec![1, 0xab]))]);
    /// assert_eq!(value.to_json().to_string(), r#"{"key":{"$bin":"01ab"}}"#);
    /// assert_eq!(Value::from(value.to_json()), value);
    /// ```
    pub fn to_json(&self) -> Json {
        json_of(self, false)
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Json {
        value.to_json()
    }
}

/// Reads JSON, with the objects of [`Value::to_json`] for what JSON does not have. An object that only
/// resembles one of those stays a map.
impl From<Json> for Value {
    fn from(json: Json) -> Value {
        match json {
            Json::Null => Value::Nil,
            Json::Bool(truth) => Value::Bool(truth),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Value::Int(number),
                (None, Some(number)) => Value::UInt(number),
                (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Str(text),
            Json::Array(values) => Value::Array(values.into_iter().map(Value::from).collect()),
            Json::Object(entries) => special(&entries).unwrap_or_else(|| map(entries)),
        }
    }
}

fn json_of(value: &Value, within_key: bool) -> Json {
    match value {
        Value::Nil => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Int(number) => Json::Number((*number).into()),
        Value::UInt(number) => Json::Number((*number).into()),
        Value::Float(number) => match Number::from_f64(*number) {
            Some(number) => Json::Number(number),
            None => json!({ FLOAT: number.to_string() }),
        },
        Value::Str(text) => Json::String(text.clone()),
        Value::Bin(bytes) => json!({ BIN: hex(bytes) }),
        Value::Ext(kind, bytes) => json!({ EXT: [json!(kind), json!(hex(bytes))] }),
        Value::Array(values) => Json::Array(values.iter().map(|value| json_of(value, within_key)).collect()),
        Value::Map(entries) => Json::Object(object(entries, within_key)),
    }
}

fn object(entries: &[(Value, Value)], within_key: bool) -> Map<String, Json> {
    let alone = entries.len() == 1;
    let entry = |(key, value): &(Value, Value)| {
        let key = match key {
            Value::Str(text) if alone && is_special(text) => format!("${text}"),
            Value::Str(text) => text.clone(),
            Value::Array(_) if within_key => "[..]".to_owned(),
            Value::Map(_) if within_key => "{..}".to_owned(),
            other => json_of(other, true).to_string(),
        };
        (key, json_of(value, within_key))
    };
    entries.iter().map(entry).collect()
}

fn map(entries: Map<String, Json>) -> Value {
    let alone = entries.len() == 1;
    let entry = |(key, value): (String, Json)| {
        let key = match key.strip_prefix('$') {
            Some(rest) if alone && is_special(rest) => rest.to_owned(),
            _ => key,
        };
        (Value::Str(key), Value::from(value))
    };
    Value::Map(entries.into_iter().map(entry).collect())
}

/// True of the special keys, and of those keys with more `$` before them.
fn is_special(key: &str) -> bool {
    key.starts_with('$')
        && [BIN, EXT, FLOAT].iter().any(|special| key.trim_start_matches('$') == &special[1..])
}

fn special(entries: &Map<String, Json>) -> Option<Value> {
    let (key, value) = entries.iter().next().filter(|_| entries.len() == 1)?;
    match key.as_str() {
        BIN => unhex(value.as_str()?).map(Value::Bin),
        EXT => match value.as_array()?.as_slice() {
            [kind, bytes] => Some(Value::Ext(i8::try_from(kind.as_i64()?).ok()?, unhex(bytes.as_str()?)?)),
            _ => None,
        },
        FLOAT => match value.as_str()? {
            "NaN" => Some(Value::Float(f64::NAN)),
            "inf" => Some(Value::Float(f64::INFINITY)),
            "-inf" => Some(Value::Float(f64::NEG_INFINITY)),
            _ => None,
        },
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some((digit(high)? << 4 | digit(low)?) as u8);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}
