//! `policies::json`: nothing lost, nothing ambiguous, nothing unbounded.

use policies::json::{Json, JsonErrorKind, Limits};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Json, JsonErrorKind> {
    Json::parse(text.as_bytes(), Limits::default()).map_err(|e| e.kind)
}

#[test]
fn order_and_number_text_survive() {
    for text in [
        r#"{"b":1,"a":1.0,"z":1E2,"big":123456789012345678901234567890,"neg":-0}"#,
        r#"[1e999,0.10,1E+2,-0.0]"#,
        r#"{"":{"":[]},"é":"é\n"}"#,
    ] {
        assert_eq!(parse(text).unwrap().to_text(), text);
    }
}

#[test]
fn what_is_ambiguous_or_wrong_is_refused() {
    assert_eq!(parse(r#"{"a":1,"a":2}"#), Err(JsonErrorKind::DuplicateKey("a".into())));
    assert_eq!(parse(r#"{"a":1,"\u0061":2}"#), Err(JsonErrorKind::DuplicateKey("a".into())));
    assert_eq!(parse(r#""\ud800""#), Err(JsonErrorKind::Unicode));
    assert_eq!(parse(r#""\ud800\u0041""#), Err(JsonErrorKind::Unicode));
    for bad in [
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\":}",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "NaN",
        "nul",
        "\"\n\"",
        "1 2",
        "{a:1}",
        "'a'",
        "\u{feff}1",
        "[1}",
        "\"\\x\"",
        "\"\\u12\"",
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
    assert!(
        matches!(Json::parse(b"\"\xff\"", Limits::default()), Err(e) if e.kind == JsonErrorKind::Unicode && e.offset == 1)
    );
}

#[test]
fn many_keys_are_checked_for_duplicates_too() {
    let keys: Vec<String> = (0..50_000).map(|i| format!("\"k{i}\":{i}")).collect();
    assert!(parse(&format!("{{{}}}", keys.join(","))).is_ok());
    assert!(parse(&format!("{{{},\"k40000\":0}}", keys.join(","))).is_err());
}

#[test]
fn depth_and_size_are_bounded() {
    let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert!(parse(&deep(128)).is_ok());
    assert_eq!(parse(&deep(129)), Err(JsonErrorKind::TooDeep(128)));
    assert_eq!(parse(&"[".repeat(100_000)), Err(JsonErrorKind::TooDeep(128)));
    assert_eq!(parse(&"{\"a\":".repeat(100_000)), Err(JsonErrorKind::TooDeep(128)));
    let big = vec![b' '; (4 << 20) + 1];
    assert!(matches!(Json::parse(&big, Limits::default()), Err(e) if matches!(e.kind, JsonErrorKind::TooLarge(_))));
}

#[test]
fn canonical_text_ignores_key_order_only() {
    let (a, b) =
        (parse(r#"{"a":{"x":1,"y":[2,1]},"b":0}"#).unwrap(), parse(r#"{"b":0,"a":{"y":[2,1],"x":1}}"#).unwrap());
    assert_eq!(a.to_canonical(), b.to_canonical());
    assert_ne!(a.to_canonical(), parse(r#"{"a":{"x":1,"y":[1,2]},"b":0}"#).unwrap().to_canonical());
}

/// Equal but for the last digit of floats, which serde_json reads faster than exactly.
fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (a, b) {
        (Number(a), Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            a == b || (a - b).abs() <= 1e-12 * a.abs()
        }
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Object(a), Object(b)) => a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b)),
        _ => a == b,
    }
}

fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(|v| format!("[{}]", v.join(" , "))),
            prop::collection::btree_map(any::<String>(), inner, 0..8).prop_map(|m| {
                let entries: Vec<String> =
                    m.iter().map(|(k, v)| format!("{}:{v}", serde_json::to_string(k).unwrap())).collect();
                format!("{{ {} }}", entries.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Parse, write, parse again: the same value, and the same text from then on.
    #[test]
    fn round_trip_is_identity(text in any_json()) {
        let value = parse(&text).unwrap();
        let again = parse(&value.to_text()).unwrap();
        prop_assert_eq!(&again, &value);
        prop_assert_eq!(again.to_text(), value.to_text());
    }

    /// Whatever bytes arrive: no panic, and what we accept the independent parser accepts.
    #[test]
    fn we_accept_no_more_than_serde_json(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if Json::parse(&bytes, Limits::default()).is_ok() {
            // serde_json refuses numbers beyond f64; our relay keeps their text.
            if let Err(e) = serde_json::from_slice::<serde_json::Value>(&bytes) {
                prop_assert!(e.to_string().contains("number out of range"), "{}", e);
            }
        }
    }

    /// Mutations of good JSON: accepted by us and by serde_json alike, but for duplicate keys
    /// and numbers beyond f64.
    #[test]
    fn mutations_agree_with_serde_json(text in any_json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let theirs = serde_json::from_slice::<serde_json::Value>(&bytes);
        match Json::parse(&bytes, Limits::default()) {
            Ok(ours) => if let Ok(theirs) = theirs { prop_assert!(same(&ours.to_serde(), &theirs)) },
            Err(e) => prop_assert!(theirs.is_err() || matches!(e.kind, JsonErrorKind::DuplicateKey(_)), "{}", e),
        }
    }
}
