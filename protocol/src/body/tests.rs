use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::limits::BODY_ELEMENTS;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    item: String,
    count: u32,
    note: Option<String>,
    tags: Vec<Tag>,
    prices: BTreeMap<String, f64>,
    #[serde(with = "serde_bytes")]
    seal: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Tag {
    Plain,
    Sized(i64),
    Boxed { w: u8, h: u8 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Chain {
    End,
    Link(Box<Chain>),
}

fn order() -> Order {
    Order {
        item: "tea".to_owned(),
        count: 3,
        note: None,
        tags: vec![Tag::Plain, Tag::Sized(-5), Tag::Boxed { w: 1, h: 255 }],
        prices: [("eur".to_owned(), 2.5)].into(),
        seal: vec![0, 255],
    }
}

#[test]
fn a_type_and_a_dynamic_value_read_the_same_body() {
    let body = to_body(&order()).unwrap();
    assert_eq!(from_body::<Order>(&body).unwrap(), order());
    let value = Value::from_body(&body).unwrap();
    insta::assert_snapshot!(value, @r#"{"item":"tea","count":3,"note":null,"tags":["Plain",{"Sized":-5},{"Boxed":{"w":1,"h":255}}],"prices":{"eur":2.5},"seal":{"$bin":"00ff"}}"#);
    assert_eq!(value.get("count").and_then(Value::as_i64), Some(3));
    assert_eq!(to_body(&value).unwrap(), body);
}

#[test]
fn nothing_is_nil() {
    for body in [to_body(&()).unwrap(), to_body(&None::<u8>).unwrap(), to_body(&Value::Nil).unwrap()] {
        assert_eq!(body, [0xc0]);
    }
    from_body::<()>(&[0xc0]).unwrap();
    assert_eq!(from_body::<Option<u8>>(&[0xc0]), Ok(None));
}

#[test]
fn a_body_is_appended_to_what_a_buffer_holds_and_an_error_leaves_the_buffer_as_it_was() {
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }
    let mut buffer = vec![1];
    write_body(&mut buffer, "x").unwrap();
    assert_eq!(buffer, [1, 0xa1, b'x']);
    let error = write_body(&mut buffer, &("x", Refuses)).unwrap_err();
    assert_eq!(error.to_string(), "this value cannot be sent: not today");
    assert_eq!(buffer, [1, 0xa1, b'x']);
}

#[test]
fn another_type_than_expected_is_named() {
    let error = from_body::<u32>(&to_body("three").unwrap()).unwrap_err();
    insta::assert_snapshot!(error, @"the body is of another type than expected here: found text, reading u32");
    let error = from_body::<Order>(&to_body(&BTreeMap::from([("item", "tea")])).unwrap()).unwrap_err();
    insta::assert_snapshot!(error, @"the body is of another type than expected here: missing field `count`");
}

fn nested(levels: usize) -> Vec<u8> {
    [vec![0x91; levels], vec![0xc0]].concat()
}

#[test]
fn nesting_has_an_end_for_readers_and_writers() {
    let mut value = Value::Nil;
    for _ in 0..BODY_DEPTH {
        value = Value::Array(vec![value]);
    }
    assert_eq!(Value::from_body(&nested(BODY_DEPTH)), Ok(value.clone()));
    assert_eq!(from_body::<Value>(&nested(BODY_DEPTH)), Ok(value.clone()));
    assert_eq!(to_body(&value).unwrap(), nested(BODY_DEPTH));
    assert_eq!(Value::from_body(&nested(BODY_DEPTH + 1)), Err(BodyError::TooDeep));
    assert_eq!(from_body::<Value>(&nested(BODY_DEPTH + 1)), Err(BodyError::TooDeep));
    assert_eq!(to_body(&Value::Array(vec![value])), Err(BodyError::TooDeep));
    assert_eq!(Value::from_body(&nested(1_000_000)), Err(BodyError::TooDeep));
}

#[test]
fn an_extension_is_no_level_of_nesting() {
    let mut value = Value::Ext(1, vec![2]);
    for _ in 0..BODY_DEPTH {
        value = Value::Array(vec![value]);
    }
    let body = to_body(&value).unwrap();
    assert_eq!(Value::from_body(&body), Ok(value.clone()));
    assert_eq!(from_body::<Value>(&body), Ok(value));
}

#[test]
fn a_chain_of_enums_is_nesting_and_does_not_use_up_the_stack() {
    let chain = |links: usize| [b"\x81\xa4Link".repeat(links), b"\xa3End".to_vec()].concat();
    assert!(from_body::<Chain>(&chain(BODY_DEPTH)).is_ok());
    assert_eq!(from_body::<Chain>(&chain(1_000_000)), Err(BodyError::TooDeep));
}

#[test]
fn a_dynamic_value_has_a_limited_number_of_elements_and_a_type_has_not() {
    let most = to_body(&vec![Value::Nil; BODY_ELEMENTS - 1]).unwrap();
    assert!(Value::from_body(&most).is_ok());
    let more = to_body(&vec![Value::Nil; BODY_ELEMENTS]).unwrap();
    assert_eq!(Value::from_body(&more), Err(BodyError::TooManyElements { limit: BODY_ELEMENTS }));
    assert_eq!(from_body::<Vec<()>>(&more).map(|v| v.len()), Ok(BODY_ELEMENTS));
}

#[test]
fn a_dynamic_value_is_limited_wherever_it_stands() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(transparent)]
    struct Failure(Value);
    #[derive(Debug, PartialEq, Deserialize)]
    struct Envelope {
        inside: Value,
    }
    let too_many = BodyError::TooManyElements { limit: BODY_ELEMENTS };
    let flat = [&b"\xdd\x00\x0f\xff\xfb"[..], &vec![0xc0; 1024 * 1024 - 5]].concat();
    assert_eq!(flat.len(), 1024 * 1024);
    assert_eq!(from_body::<Value>(&flat), Err(too_many.clone()));
    assert_eq!(from_body::<Failure>(&flat), Err(too_many.clone()));
    // A few in each place, and too many in all.
    let nested = to_body(&vec![vec![(); 1000]; 66]).unwrap();
    assert_eq!(from_body::<Value>(&nested), Err(too_many.clone()));
    let within = [b"\x81\xa6inside", &*nested].concat();
    assert_eq!(from_body::<Envelope>(&within), Err(too_many));
    let most = to_body(&vec![Value::Nil; BODY_ELEMENTS - 1]).unwrap();
    assert_eq!(from_body::<Value>(&most), Value::from_body(&most));
}

#[test]
fn a_claimed_length_is_refused_before_it_is_allocated() {
    for (body, error) in [
        (&b"\xdd\xff\xff\xff\xff"[..], BodyError::TooManyElements { limit: BODY_ELEMENTS }),
        (b"\xdc\x00\xff", BodyError::Malformed { at: 3, what: "fewer elements than announced" }),
        (b"\xdf\xff\xff\xff\xff", BodyError::TooManyElements { limit: BODY_ELEMENTS }),
        (b"\xc6\xff\xff\xff\xffxx", BodyError::Malformed { at: 7, what: "the end comes early" }),
        (b"\xdb\xff\xff\xff\xffxx", BodyError::Malformed { at: 7, what: "the end comes early" }),
        (b"\xc9\xff\xff\xff\xff\x01", BodyError::Malformed { at: 6, what: "the end comes early" }),
        (b"", BodyError::Malformed { at: 0, what: "the end comes early" }),
        (b"\x91\xc1", BodyError::Malformed { at: 1, what: "a byte that starts nothing" }),
        (b"\xa1\xff", BodyError::Malformed { at: 1, what: "text that is not UTF-8" }),
        (b"\x01\x02\x03", BodyError::Trailing(2)),
    ] {
        assert_eq!(Value::from_body(body), Err(error), "{body:02x?}");
    }
    assert!(matches!(from_body::<Vec<u64>>(b"\xdd\xff\xff\xff\xff"), Err(BodyError::Malformed { .. })));
    assert!(matches!(from_body::<String>(b"\xa1\xff"), Err(BodyError::Type(_))));
}

#[test]
fn what_json_does_not_have_reads_back_and_what_looks_like_it_does_too() {
    let map = |key: &str, value: Value| Value::Map(vec![(key.into(), value)]);
    for (value, json) in [
        (Value::Bin(vec![0, 0xab]), r#"{"$bin":"00ab"}"#),
        (Value::Ext(-1, vec![7]), r#"{"$ext":[-1,"07"]}"#),
        (Value::Float(f64::INFINITY), r#"{"$float":"inf"}"#),
        (Value::Float(f64::NEG_INFINITY), r#"{"$float":"-inf"}"#),
        (map("$bin", "00".into()), r#"{"$$bin":"00"}"#),
        (map("$$ext", "x".into()), r#"{"$$$ext":"x"}"#),
        (map("$ref", "x".into()), r#"{"$ref":"x"}"#),
        (Value::UInt(u64::MAX), "18446744073709551615"),
        (Value::Int(i64::MIN), "-9223372036854775808"),
        (Value::Float(1.0), "1.0"),
    ] {
        assert_eq!(value.to_json().to_string(), json);
        assert_eq!(Value::from(serde_json::from_str::<serde_json::Value>(json).unwrap()), value);
    }
    assert!(matches!(Value::from(Value::Float(f64::NAN).to_json()), Value::Float(n) if n.is_nan()));
    assert_eq!(Value::from(serde_json::json!({"$bin": "0"})), map("$bin", "0".into()));
    let keys = Value::Map(vec![(1.into(), true.into()), (Value::Array(vec![]), Value::Nil)]);
    assert_eq!(keys.to_json().to_string(), r#"{"1":true,"[]":null}"#);
}

#[test]
fn nothing_of_a_value_reaches_a_terminal_unescaped() {
    let shown = Value::from("a\u{1b}[31m\u{202e}\u{7f}\n\"").to_string();
    assert_eq!(shown, r#""a\u001b[31m\u202e\u007f\n\"""#);
    assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), "a\u{1b}[31m\u{202e}\u{7f}\n\"");
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("NaN is not equal to itself", |n| !n.is_nan()).prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bin),
        (any::<i8>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(k, b)| Value::Ext(k, b)),
    ]
}

/// Any value; with `json` one of those that come back from JSON: text keys, in order, each once.
fn value(json: bool) -> impl Strategy<Value = Value> {
    leaf().prop_recursive(6, 64, 8, move |inner| {
        let array = proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::Array);
        let text_key = prop_oneof![".{0,4}", r"\$(bin|ext|float|\$bin)"];
        if json {
            let entries = proptest::collection::btree_map(text_key, inner, 0..4);
            let map =
                entries.prop_map(|map| Value::Map(map.into_iter().map(|(k, v)| (k.into(), v)).collect()));
            prop_oneof![array, map].boxed()
        } else {
            let entries = proptest::collection::vec((inner.clone(), inner), 0..8);
            prop_oneof![array, entries.prop_map(Value::Map)].boxed()
        }
    })
}

proptest! {
    #[test]
    fn a_value_comes_back_from_its_body(value in value(false)) {
        let body = to_body(&value).unwrap();
        prop_assert_eq!(&Value::from_body(&body).unwrap(), &value);
        prop_assert_eq!(&from_body::<Value>(&body).unwrap(), &value);
    }

    #[test]
    fn a_value_that_json_has_room_for_comes_back_from_json(value in value(true)) {
        let text = value.to_string();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let back = Value::from(json);
        // A number's shortest text is its own; JSON's parser may miss it by the last bit.
        if !format!("{value:?}").contains("Float") {
            prop_assert_eq!(&back, &value);
        }
        prop_assert_eq!(&Value::from(value.to_json()), &value);
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(value) = Value::from_body(&body) {
            prop_assert_eq!(from_body::<Value>(&body).is_ok(), true);
            prop_assert!(to_body(&value).unwrap().len() <= body.len() * 2 + 8);
        }
        let _ = from_body::<Order>(&body);
        let _ = from_body::<Chain>(&body);
        let _ = from_body::<Vec<(String, Option<u64>)>>(&body);
    }

    #[test]
    fn a_body_with_a_changed_byte_is_a_value_or_an_error(
        value in value(false), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut body = to_body(&value).unwrap();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = Value::from_body(&body);
        let _ = from_body::<Order>(&body);
        body.truncate(at);
        prop_assert!(Value::from_body(&body).is_err());
    }

    #[test]
    fn typed_and_dynamic_agree(
        item in ".{0,20}", count in any::<u32>(), note in proptest::option::of(".{0,20}"),
        numbers in proptest::collection::vec(any::<i64>(), 0..5),
        seal in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let tags = numbers.into_iter().map(Tag::Sized).collect();
        let order = Order { item, count, note, tags, prices: BTreeMap::new(), seal };
        let body = to_body(&order).unwrap();
        let value = Value::from_body(&body).unwrap();
        prop_assert_eq!(value.get("item").and_then(Value::as_str), Some(order.item.as_str()));
        prop_assert_eq!(to_body(&value).unwrap(), body.clone());
        prop_assert_eq!(from_body::<Order>(&body).unwrap(), order);
    }
}

#[test]
fn a_number_is_the_same_to_its_last_bit_after_its_json_was_read() {
    for number in [-2.498_187_933_957_188_3e-94, 0.1 + 0.2, f64::MIN_POSITIVE, 1e300 / 3.0] {
        let shown = Value::Float(number).to_string();
        let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(Value::from(read), Value::Float(number), "{shown}");
    }
}

#[test]
fn keys_within_keys_do_not_grow_at_each_level() {
    let mut value = Value::from("key");
    for _ in 0..BODY_DEPTH - 1 {
        value = Value::Map(vec![(value, Value::Nil)]);
    }
    let body = to_body(&value).unwrap();
    let shown = Value::from_body(&body).unwrap().to_string();
    assert_eq!(shown, r#"{"{\"{..}\":null}":null}"#);
    let quotes = Value::Map(vec![(Value::Array(vec!["\"".repeat(1000).into()]), 1.into())]);
    assert!(quotes.to_string().len() < 5000);
}
