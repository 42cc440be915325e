//! Whether a card is signed with a key the operator trusts (A2A 1.0, section 8.4): a detached JWS
//! over the canonical card (RFC 8785) without its signatures. Where a card says its keys are is
//! not looked at: that would believe the card before it is believed.

use crate::jwt::{self, Keys};
use policies::json::{Json, Object};
use std::fmt::Write;

/// How many signatures of a card are tried.
const MAX_SIGNATURES: usize = 16;

/// Checks a card.
///
/// # Errors
/// Why it is not believed.
pub(super) fn check(card: &Json, keys: &Keys) -> Result<(), String> {
    let Some(object) = card.as_object() else { return Err("it is no object".into()) };
    let signatures = object.get("signatures").and_then(Json::as_array).unwrap_or_default();
    if signatures.is_empty() {
        return Err("it is not signed, and keys in its [peers] table says that it must be".into());
    }
    let mut bare = object.clone();
    bare.remove("signatures");
    let bare = Json::Object(bare);
    // Signers leave out what has its default; some serve it all the same.
    let forms = [canonical(&bare), canonical(&without_defaults(&bare).unwrap_or(Json::Object(Object::new())))];
    let mut why = "its signature is none".to_owned();
    for signature in signatures.iter().take(MAX_SIGNATURES) {
        let text = |key: &str| signature.get(key).and_then(Json::as_str);
        let (Some(protected), Some(mark)) = (text("protected"), text("signature")) else { continue };
        for form in &forms {
            match jwt::detached(protected, form.as_bytes(), mark, keys) {
                Ok(()) => return Ok(()),
                Err(flaw) => why = flaw.to_string(),
            }
        }
    }
    Err(format!("its signature is not good: {why}"))
}

/// What is signed of a card that has no signatures yet: its canonical form without what is empty.
pub fn payload(card: &Json) -> String {
    canonical(&without_defaults(card).unwrap_or(Json::Object(Object::new())))
}

/// Without empty texts, lists and objects.
fn without_defaults(json: &Json) -> Option<Json> {
    match json {
        Json::Null => None,
        Json::String(text) if text.is_empty() => None,
        Json::Array(items) => {
            let items: Vec<Json> = items.iter().filter_map(without_defaults).collect();
            (!items.is_empty()).then_some(Json::Array(items))
        }
        Json::Object(object) => {
            let entries = object.iter().filter_map(|(key, value)| Some((key.to_owned(), without_defaults(value)?)));
            let object: Object = entries.collect();
            (!object.is_empty()).then_some(Json::Object(object))
        }
        other => Some(other.clone()),
    }
}

/// The canonical form of RFC 8785.
fn canonical(json: &Json) -> String {
    let mut out = String::new();
    write(json, &mut out);
    out
}

fn write(json: &Json, out: &mut String) {
    match json {
        Json::Null => out.push_str("null"),
        Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Json::Number(_) => number(json.as_f64().unwrap_or(0.0), out),
        Json::String(text) => string(text, out),
        Json::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Json::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            // By UTF-16 units, which is another order than that of bytes.
            entries.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                string(key, out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
    }
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String cannot fail.
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A number as ECMAScript writes it (ECMA-262, Number::toString).
fn number(value: f64, out: &mut String) {
    if value == 0.0 || !value.is_finite() {
        out.push('0');
        return;
    }
    if value < 0.0 {
        out.push('-');
    }
    // The shortest digits that read back the same, and where the point stands.
    let text = format!("{:e}", value.abs());
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let length = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    if length <= point && point <= 21 {
        out.push_str(&digits);
        out.push_str(&zeros(point - length));
    } else if 0 < point && point <= 21 {
        let (whole, rest) = digits.split_at(usize::try_from(point).unwrap_or(0));
        let _ = write!(out, "{whole}.{rest}");
    } else if -6 < point && point <= 0 {
        let _ = write!(out, "0.{}{digits}", zeros(-point));
    } else {
        let (first, rest) = digits.split_at(1);
        let sign = if point > 0 { '+' } else { '-' };
        let dot = if rest.is_empty() { "" } else { "." };
        let _ = write!(out, "{first}{dot}{rest}e{sign}{}", (point - 1).abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::json::Limits;

    fn parsed(text: &str) -> Json {
        Json::parse(text.as_bytes(), Limits::default()).unwrap()
    }

    /// The examples of RFC 8785, section 3.2 and appendix B.
    #[test]
    fn canonical_as_the_rfc_says() {
        let given = r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#;
        let wanted = r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#;
        assert_eq!(canonical(&parsed(given)), wanted);
        let order = r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#;
        let wanted = "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\u{fb33}\":3}";
        assert_eq!(canonical(&parsed(order)), wanted);
        for (given, wanted) in [
            ("-0", "0"),
            ("5e-324", "5e-324"),
            ("-1.7976931348623157e308", "-1.7976931348623157e+308"),
            ("9007199254740992", "9007199254740992"),
            ("295147905179352830000", "295147905179352830000"),
            ("1e21", "1e+21"),
            ("1e23", "1e+23"),
            ("0.000001", "0.000001"),
            ("1e-7", "1e-7"),
            ("333333333.33333325", "333333333.33333325"),
        ] {
            assert_eq!(canonical(&parsed(given)), wanted);
        }
    }

    /// What we sign is what our own peers check.
    #[test]
    fn a_card_of_ours_is_believed_until_it_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let key = crate::jwt::OwnKey::load(&folder.path().join("k")).unwrap();
        let keys = Keys::read(key.jwks().to_string().as_bytes()).unwrap();
        let card = parsed(r#"{"name":"a","skills":[],"capabilities":{"streaming":true,"x":""},"n":1.50}"#);
        let (protected, signature) = key.detached(payload(&card).as_bytes(), "https://x.example/keys").unwrap();
        let signed = |name: &str| {
            let text = format!(
                r#"{{"name":"{name}","skills":[],"capabilities":{{"streaming":true,"x":""}},"n":1.50,
                    "signatures":[{{"protected":"{protected}","signature":"{signature}"}}]}}"#
            );
            check(&parsed(&text), &keys)
        };
        assert_eq!(signed("a"), Ok(()));
        assert!(signed("b").is_err());
    }

    #[test]
    fn what_is_empty_is_left_out() {
        let given = r#"{"a":"","b":[],"c":{"d":[""]},"e":false,"f":[{"g":""},"x"],"h":null,"i":0}"#;
        assert_eq!(canonical(&without_defaults(&parsed(given)).unwrap()), r#"{"e":false,"f":["x"],"i":0}"#);
    }
}
