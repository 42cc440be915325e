//! The standard headers of 2026-07-28 (SEP-2243): what a request says in its body, said again
//! where intermediaries look. Written towards servers, checked from clients.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use policies::json::Object;

const START: &str = "=?base64?";
const END: &str = "?=";

/// What `Mcp-Name` says of a request, for methods that have one.
pub fn name_of<'a>(method: &str, params: &'a Object) -> Option<&'a str> {
    let key = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return None,
    };
    params.get(key)?.as_str()
}

/// A value as a header can hold it: itself, or its base64 between `=?base64?` and `?=`.
pub fn encode(value: &str) -> String {
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    let bytes = value.as_bytes();
    let plain =
        bytes.iter().all(|b| (0x20..=0x7e).contains(b)) && ![bytes.first(), bytes.last()].into_iter().any(blank);
    if plain && !(value.starts_with(START) && value.ends_with(END)) {
        value.to_owned()
    } else {
        format!("{START}{}{END}", BASE64_STANDARD.encode(value))
    }
}

/// What a header value says; `None` when its base64 is none.
pub fn decode(value: &str) -> Option<String> {
    match value.strip_prefix(START).and_then(|v| v.strip_suffix(END)) {
        Some(inner) => String::from_utf8(BASE64_STANDARD.decode(inner).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for value in ["", "plain", "in side", " lead", "trail\t", "größe", "a\r\nb: c", "=?base64?eA==?=", "~!"] {
            let header = encode(value);
            assert!(header.bytes().all(|b| (0x20..=0x7e).contains(&b)), "{header}");
            assert_eq!(decode(&header).as_deref(), Some(value));
        }
        assert_eq!(encode("größe"), "=?base64?Z3LDtsOfZQ==?=");
        assert_eq!(decode("=?base64?***?="), None);
    }
}
