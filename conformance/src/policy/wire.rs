//! J: the wire. Bodies that two parsers read differently: what was judged must be what arrives.

use super::gate::{Gate, body, posting, show};
use super::{Act, Case};
use serde_json::json;

/// A call, as text, of a tool with these arguments; `{}` is where more of `params` goes.
fn call(tool: &str, arguments: &str) -> String {
    let plain = body(&json!({ "HOLE": 1 }));
    plain.replace("{\"HOLE\":1}", arguments).replace("rec__peek", tool)
}

pub(super) fn cases() -> Vec<Case> {
    [names(), texts(), shapes(), headers()].into_iter().flatten().collect()
}

const FINE: &str = "{\"path\":\"docs/a.md\",\"tag\":\"{tag}\"}";

/// Two readings of one body.
fn names() -> Vec<Case> {
    let twin = call("rec__peek", FINE);
    let secret = "{\"path\":\"outside/secret.txt\",\"tag\":\"{tag}\"}";
    let fine = call("rec__peek", FINE);
    [
        (
            "J1.01",
            "the path twice, the granted one first",
            call("rec__peek", "{\"path\":\"docs/a.md\",\"path\":\"outside/secret.txt\",\"tag\":\"{tag}\"}"),
        ),
        (
            "J1.02",
            "the path twice, the granted one last",
            call("rec__peek", "{\"path\":\"outside/secret.txt\",\"path\":\"docs/a.md\",\"tag\":\"{tag}\"}"),
        ),
        (
            "J1.03",
            "the path twice, once escaped",
            call("rec__peek", "{\"path\":\"docs/a.md\",\"p\\u0061th\":\"outside/secret.txt\",\"tag\":\"{tag}\"}"),
        ),
        (
            "J1.04",
            "the tool twice",
            fine.replace("\"name\":\"rec__peek\"", "\"name\":\"rec__peek\",\"name\":\"rec__quiet\""),
        ),
        ("J1.05", "arguments twice", fine.replace("\"arguments\":", &format!("\"arguments\":{secret},\"arguments\":"))),
        ("J1.06", "params twice", fine.replacen("\"params\":", "\"params\":{},\"params\":", 1)),
        ("J1.07", "the method twice", fine.replacen("\"method\":", "\"method\":\"ping\",\"method\":", 1)),
        ("J1.08", "the id twice", fine.replacen("\"id\":1", "\"id\":1,\"id\":2", 1)),
        ("J1.09", "a method in capitals", fine.replacen("\"method\":", "\"Method\":", 1)),
        ("J1.10", "params with a long s", fine.replacen("\"params\":", "\"param\u{17f}\":", 1)),
        (
            "J1.11",
            "arguments in capitals, after none",
            fine.replace("\"arguments\":", "\"ARGUMENTS\":")
                .replace("\"name\":\"rec__peek\"", "\"name\":\"rec__quiet\""),
        ),
        ("J1.12", "a denied tool by an escaped name", call("rec__qui\\u0065t", FINE)),
        ("J1.13", "a denied tool with a space", call("rec__quiet ", FINE)),
        ("J1.14", "a denied tool in capitals", call("rec__QUIET", FINE)),
        ("J1.15", "a tool by its inner name", call("peek", FINE)),
        ("J1.16", "a tool of a server with a slash", call("rec/quiet", FINE)),
        ("J1.17", "a prefix twice", call("rec__rec__quiet", FINE)),
        ("J1.18", "a tool above the ceiling", call("rec__wipe", FINE)),
    ]
    .into_iter()
    .map(|(id, says, attack)| posting(id, says, "/mcp", attack.as_bytes(), twin.as_bytes()))
    .collect()
}

/// Bytes that are no JSON, or not one.
fn texts() -> Vec<Case> {
    let twin = call("rec__peek", FINE);
    let fine = twin.clone();
    let with = |from: &str, to: &str| fine.replacen(from, to, 1).into_bytes();
    let mut broken = fine.clone().into_bytes();
    broken.truncate(broken.len() - 1);
    [
        ("J1.30", "two values", format!("{fine} {fine}").into_bytes()),
        ("J1.31", "something behind", format!("{fine}x").into_bytes()),
        ("J1.32", "a batch", format!("[{fine}]").into_bytes()),
        ("J1.33", "a byte order mark", [b"\xef\xbb\xbf", fine.as_bytes()].concat()),
        ("J1.34", "UTF-16", fine.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("J1.35", "cut short", broken),
        ("J1.36", "a lone surrogate", with("docs/a.md", "docs/\\ud800")),
        ("J1.37", "bytes that are no UTF-8", [&with("docs/a.md", "docs/"), &b"\xff"[..]].concat()),
        ("J1.38", "an overlong slash", {
            let mut b = fine.clone().into_bytes();
            let at = fine.find("docs/a.md").unwrap_or(0);
            b.splice(at..at + 9, *b"docs\xc0\xaf..");
            b
        }),
        ("J1.39", "NUL between tokens", with("\"params\"", "\0\"params\"")),
        ("J1.40", "a comment", with("\"params\"", "/* x */\"params\"")),
        ("J1.41", "a comma at the end", with("\"id\":1", "\"id\":1,")),
        ("J1.42", "single quotes", fine.replace('"', "'").into_bytes()),
        ("J1.43", "NaN", with("\"tag\"", "\"n\":NaN,\"tag\"")),
        (
            "J1.44",
            "a hundred thousand levels",
            with("\"tag\"", &format!("\"n\":{}1{},\"tag\"", "[".repeat(100_000), "]".repeat(100_000))),
        ),
        ("J1.45", "larger than the limit", with("\"tag\"", &format!("\"n\":\"{}\",\"tag\"", "x".repeat(5 << 20)))),
        ("J1.46", "a line end within a string", with("docs/a.md", "docs/a\n.md")),
        ("J1.47", "a number with a leading zero", with("\"id\":1", "\"id\":01")),
    ]
    .into_iter()
    .map(|(id, says, attack)| posting(id, says, "/mcp", &attack, twin.as_bytes()))
    .collect()
}

/// Messages of a shape that is none.
fn shapes() -> Vec<Case> {
    let fine = call("rec__peek", FINE);
    let with = |from: &str, to: &str| fine.replacen(from, to, 1);
    [
        ("J1.60", "an id that is null", with("\"id\":1", "\"id\":null")),
        ("J1.61", "an id that is an object", with("\"id\":1", "\"id\":{}")),
        ("J1.62", "no id: a notification that calls", with("\"id\":1,", "")),
        ("J1.63", "another protocol", with("\"jsonrpc\":\"2.0\"", "\"jsonrpc\":\"1.0\"")),
        ("J1.64", "no protocol", with("\"jsonrpc\":\"2.0\",", "")),
        ("J1.65", "a result and a call", with("\"id\":1", "\"id\":1,\"result\":{}")),
        ("J1.66", "params in a list", with("\"params\":{", "\"params\":[{").replacen("},\"name\"", "}],\"name\"", 1)),
        ("J1.67", "arguments in a list", call("rec__peek", "[\"docs/a.md\",\"{tag}\"]")),
        (
            "J1.68",
            "arguments as a text",
            call("rec__peek", "\"{\\\"path\\\":\\\"outside/secret.txt\\\",\\\"tag\\\":\\\"{tag}\\\"}\""),
        ),
        ("J1.69", "a path that is a number", call("rec__quiet", "{\"path\":7,\"tag\":\"{tag}\"}")),
        ("J1.70", "a tool that is a number", fine.replacen("\"name\":\"rec__peek\"", "\"name\":7", 1)),
        ("J1.71", "no tool", fine.replacen("\"name\":\"rec__peek\"", "\"nome\":\"rec__peek\"", 1)),
    ]
    .into_iter()
    .map(|(id, says, attack)| posting(id, says, "/mcp", attack.as_bytes(), fine.as_bytes()))
    .collect()
}

/// Headers that say another thing than the body.
fn headers() -> Vec<Case> {
    let act = |name: &'static str, method: &'static str, tool: &'static str, kind: &'static str| -> Act {
        Box::new(move |arena| {
            let gate = arena.gates.get("shared")?;
            let tag = arena.tag();
            let text = call(tool, FINE).replace("{tag}", &tag);
            let headers = [
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", method),
                ("mcp-name", name),
                ("content-type", kind),
            ];
            show(&gate.post(arena, "/mcp", &headers, text));
            Ok(gate.reached(&tag))
        })
    };
    let json = "application/json";
    let twin = || act("rec__peek", "tools/call", "rec__peek", json);
    vec![
        Case::new(
            "J1.80",
            "a header that names another tool",
            act("rec__list", "tools/call", "rec__peek", json),
            twin(),
        ),
        Case::new(
            "J1.81",
            "a header that names a granted tool for a denied one",
            act("rec__peek", "tools/call", "rec__quiet", json),
            twin(),
        ),
        Case::new(
            "J1.82",
            "a header that names another method",
            act("rec__peek", "tools/list", "rec__peek", json),
            twin(),
        ),
        Case::new(
            "J1.83",
            "a form that no preflight is asked for",
            act("rec__peek", "tools/call", "rec__peek", "text/plain"),
            twin(),
        ),
        Case::new(
            "J1.84",
            "a URL-encoded form",
            act("rec__peek", "tools/call", "rec__peek", "application/x-www-form-urlencoded"),
            twin(),
        ),
        Case::new("J1.85", "a line end in a name that goes into a stream", newline(true), newline(false)),
    ]
}

/// A progress token, a tool's name and an id with line ends in them come back as data, not as events.
fn newline(attack: bool) -> Act {
    Box::new(move |arena| {
        let gate: std::sync::Arc<Gate> = arena.gates.get("shared")?;
        let id = if attack { "1\\n\\ndata: {\\\"evil\\\":1}\\n\\n" } else { "plain" };
        let text = call("rec__peek", "{\"path\":\"docs/a.md\"}").replacen("\"id\":1", &format!("\"id\":\"{id}\""), 1);
        let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "rec__peek")];
        let answer = gate.post(arena, "/mcp", &headers, text);
        show(&answer);
        Ok(match attack {
            true => answer.body.lines().any(|line| line.starts_with("data: {\"evil\"")),
            false => answer.body.contains("plain"),
        })
    })
}
