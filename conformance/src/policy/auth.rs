//! A: callers. Who is let in, from where, and what one of them can get at of another.

use super::arena::Arena;
use super::gate::{ALICE, BOB, BOSS, Gate, show};
use super::world::{SECRET, leaks};
use super::{Act, Case, audience};
use crate::served::Answer;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn cases() -> Vec<Case> {
    [credentials(), origins(), rights(), crossing(), audience::cases()].into_iter().flatten().collect()
}

/// A call of `rec__peek` on a gate with these headers.
fn call(name: &'static str, headers: &[(&'static str, &str)]) -> Act {
    let headers: Vec<(&'static str, String)> = headers.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    Box::new(move |arena| {
        let gate = arena.gates.get(name)?;
        let tag = arena.tag();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        show(&gate.call(arena, "rec__peek", &json!({ "path": "docs/a.md", "tag": tag }), &headers));
        Ok(gate.reached(&tag))
    })
}

fn credentials() -> Vec<Case> {
    [
        ("A3.01", "no token", vec![]),
        ("A3.02", "a wrong token", vec![("authorization", "Bearer nobody-nobody-nobody")]),
        ("A3.03", "the beginning of a token", vec![("authorization", "Bearer alice-alice-alice")]),
        ("A3.04", "a token and more", vec![("authorization", "Bearer alice-alice-alice-alice-alice")]),
        ("A3.05", "a token in capitals", vec![("authorization", "Bearer ALICE-ALICE-ALICE-ALICE")]),
        ("A3.06", "an empty token", vec![("authorization", "Bearer ")]),
        ("A3.07", "a token under another scheme", vec![("authorization", "Basic alice-alice-alice-alice")]),
        ("A3.08", "a token without a scheme", vec![("authorization", "alice-alice-alice-alice")]),
        (
            "A3.09",
            "a wrong token, then a right one",
            vec![("authorization", "Bearer nobody"), ("authorization", ALICE)],
        ),
        ("A3.10", "a token in another header", vec![("x-api-key", "alice-alice-alice-alice")]),
        ("A3.11", "a token in a cookie", vec![("cookie", "token=alice-alice-alice-alice")]),
        ("A3.12", "the name of a client", vec![("authorization", "Bearer alice")]),
        (
            "A3.13",
            "a token for whom nobody signed",
            vec![("authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.")],
        ),
        ("A3.14", "who somebody says to be", vec![("x-forwarded-user", "alice"), ("x-forwarded-for", "127.0.0.1")]),
        ("A3.15", "two tokens in one", vec![("authorization", "Bearer nobody, Bearer alice-alice-alice-alice")]),
    ]
    .into_iter()
    .map(|(id, says, headers)| {
        Case::new(id, says, call("clients", &headers), call("clients", &[("authorization", ALICE)]))
    })
    .collect()
}

fn origins() -> Vec<Case> {
    let twin = || call("shared", &[("origin", "http://localhost:5173")]);
    [
        ("A2.01", "a rebound name", "host", "evil.example.com"),
        ("A2.02", "a name that begins alike", "host", "localhost.evil.example.com"),
        ("A2.03", "a name that resolves here", "host", "127.0.0.1.nip.io"),
        ("A2.04", "a rebound name with the port", "host", "evil.example.com:7420"),
        ("A2.05", "all zeroes", "host", "0.0.0.0"),
        ("A2.06", "a private address", "host", "192.168.0.10"),
        ("A2.07", "a name with user information", "host", "localhost@evil.example.com"),
        ("A2.08", "a page of another", "origin", "http://evil.example.com"),
        ("A2.09", "a page without an origin", "origin", "null"),
        ("A2.10", "a page whose name begins alike", "origin", "http://localhost.evil.example.com"),
        ("A2.11", "a page whose name ends alike", "origin", "http://evil-localhost"),
        ("A2.12", "a page with user information", "origin", "http://localhost@evil.example.com"),
        ("A2.13", "a file", "origin", "file://"),
        ("A2.14", "an extension", "origin", "chrome-extension://abcdefgh"),
        ("A2.15", "two origins", "origin", "http://localhost http://evil.example.com"),
        ("A2.16", "an empty origin", "origin", ""),
    ]
    .into_iter()
    .map(|(id, says, name, value)| {
        Case::new(id, format!("{says}, as {name}"), call("shared", &[(name, value)]), twin())
    })
    .collect()
}

/// A call of a tool by a client, at a door: what arrived behind, or came back.
fn does(who: &'static str, path: &'static str, tool: &'static str, arguments: &Value, word: &'static str) -> Act {
    let arguments = arguments.clone();
    Box::new(move |arena| {
        let gate = arena.gates.get("clients")?;
        let tag = arena.tag();
        let mut arguments = arguments.clone();
        if tool.starts_with("rec__") {
            arguments["tag"] = tag.clone().into();
        }
        let answer = gate.call_at(arena, path, tool, &arguments, &[("authorization", who)]);
        show(&answer);
        Ok(if word.is_empty() { gate.reached(&tag) } else { answer.body.contains(word) })
    })
}

fn rights() -> Vec<Case> {
    let path = |path: &str| json!({ "path": path });
    let file = |path: &str| json!({ "file_path": path });
    let public = super::world::PUBLIC;
    vec![
        Case::new(
            "A4.01",
            "a client reads what another may",
            does(BOB, "/mcp", "rec__peek", &path("docs/a.md"), ""),
            does(BOB, "/mcp", "rec__peek", &path("docs/sub/b.md"), ""),
        ),
        Case::new(
            "A4.02",
            "the same, by the workspace server",
            does(BOB, "/mcp", "files__Read", &file("docs/a.md"), public),
            does(BOB, "/mcp", "files__Read", &file("docs/sub/b.md"), public),
        ),
        Case::new(
            "A4.03",
            "a client that may only read writes",
            does(BOB, "/mcp", "rec__put", &path("docs/sub/b.md"), ""),
            does(BOB, "/mcp", "rec__peek", &path("docs/sub/b.md"), ""),
        ),
        Case::new(
            "A4.04",
            "a client uses what the root grants and its own table does not",
            does(ALICE, "/mcp", "rec__peek", &path("out/mine.txt"), ""),
            does(BOSS, "/mcp", "rec__peek", &path("out/mine.txt"), ""),
        ),
        Case::new(
            "A4.05",
            "an agent's door is wider than the agent",
            does(BOSS, "/mcp/agents/narrow", "rec__peek", &path("docs/a.md"), ""),
            does(BOSS, "/mcp/agents/narrow", "rec__peek", &path("docs/sub/b.md"), ""),
        ),
        Case::new(
            "A4.06",
            "an agent's door by another spelling",
            does(BOSS, "/mcp/agents/narrow/../../", "rec__peek", &path("out/mine.txt"), ""),
            does(BOSS, "/mcp", "rec__peek", &path("out/mine.txt"), ""),
        ),
        Case::new(
            "A4.07",
            "an agent's door by an encoded name",
            does(BOSS, "/mcp/agents/narro%77", "rec__peek", &path("docs/a.md"), ""),
            does(BOSS, "/mcp/agents/narro%77", "rec__peek", &path("docs/sub/b.md"), ""),
        ),
        Case::new(
            "A4.10",
            "a client's own token goes on to a server",
            passed("alice-alice"),
            does(ALICE, "/mcp", "rec__peek", &path("docs/a.md"), ""),
        ),
        Case::new(
            "A4.11",
            "a client's cookie goes on to a server",
            passed("cookie-of-alice"),
            does(ALICE, "/mcp", "rec__peek", &path("docs/a.md"), ""),
        ),
        Case::new(
            "A4.12",
            "a client's forwarded address goes on to a server",
            passed("203.0.113.9"),
            does(ALICE, "/mcp", "rec__peek", &path("docs/a.md"), ""),
        ),
    ]
}

/// Whether a word of the client's headers arrived behind.
fn passed(word: &'static str) -> Act {
    Box::new(move |arena| {
        let gate = arena.gates.get("clients")?;
        let tag = arena.tag();
        let more = [("authorization", ALICE), ("cookie", "s=cookie-of-alice"), ("x-forwarded-for", "203.0.113.9")];
        gate.call(arena, "rec__peek", &json!({ "path": "docs/a.md", "tag": tag }), &more);
        let calls = gate.upstream.came("tools/call");
        let own = calls.iter().find(|seen| seen.body.to_string().contains(&tag)).ok_or("the call did not arrive")?;
        Ok(format!("{:?}", own.headers).contains(word))
    })
}

/// A run of alice's whose answer is the secret.
fn run(arena: &Arena) -> Result<(Arc<Gate>, String), String> {
    let gate = arena.gates.get("clients")?;
    let body = json!({ "agent": "teller", "prompt": "go" }).to_string();
    let answer = gate.post(arena, "/v1/runs", &[("authorization", ALICE)], body);
    let run = answer.json()["run"].as_str().ok_or_else(|| format!("no run: {answer:?}"))?.to_owned();
    let done = super::arena::soon(std::time::Duration::from_secs(20), || {
        gate.get(arena, &format!("/v1/runs/{run}"), &[("authorization", ALICE)]).body.contains("completed")
    });
    if done { Ok((gate, run)) } else { Err("alice's run did not end".into()) }
}

type Ask = fn(&Arena, &Gate, &str, &str) -> Answer;

/// The same question by bob and by alice; what comes back decides.
fn crossing() -> Vec<Case> {
    let asks: [(&str, &str, Ask); 7] = [
        ("A5.01", "another's run", |a, g, run, who| g.get(a, &format!("/v1/runs/{run}"), &[("authorization", who)])),
        ("A5.02", "another's events", |a, g, run, who| {
            g.get(a, &format!("/v1/runs/{run}/events"), &[("authorization", who)])
        }),
        ("A5.03", "another's run by a tool", |a, g, run, who| {
            g.call(a, "pleach__run", &json!({ "run": run }), &[("authorization", who)])
        }),
        ("A5.04", "another's task", |a, g, run, who| {
            let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "GetTask", "params": { "id": run } }).to_string();
            g.post(a, "/a2a/teller", &[("authorization", who), ("a2a-version", "1.0")], body)
        }),
        ("A5.05", "another's task over HTTP", |a, g, run, who| {
            g.get(a, &format!("/a2a/teller/rest/tasks/{run}"), &[("authorization", who), ("a2a-version", "1.0")])
        }),
        ("A5.06", "everybody's tasks", |a, g, _, who| {
            let body =
                json!({ "jsonrpc": "2.0", "id": 7, "method": "ListTasks", "params": { "includeArtifacts": true } })
                    .to_string();
            g.post(a, "/a2a/teller", &[("authorization", who), ("a2a-version", "1.0")], body)
        }),
        ("A5.07", "another's task, of the older generation", |a, g, run, who| {
            let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "tasks/get", "params": { "id": run } }).to_string();
            g.post(a, "/a2a/teller", &[("authorization", who)], body)
        }),
    ];
    let act = |ask: Ask, who: &'static str| -> Act {
        Box::new(move |arena| {
            let (gate, run) = run(arena)?;
            let answer = ask(arena, &gate, &run, who);
            show(&answer);
            Ok(leaks(&answer.body) && answer.body.contains(SECRET))
        })
    };
    let mut all: Vec<Case> =
        asks.into_iter().map(|(id, says, ask)| Case::new(id, says, act(ask, BOB), act(ask, ALICE))).collect();
    all.push(Case::new("A5.10", "a session of another's", session(BOB), session(ALICE)));
    all
}

/// A call in alice's legacy session by somebody.
fn session(who: &'static str) -> Act {
    Box::new(move |arena| {
        let gate = arena.gates.get("clients")?;
        let tag = arena.tag();
        let params = json!({ "name": "rec__peek", "arguments": { "path": "docs/sub/b.md", "tag": tag } });
        arena.runtime.block_on(async {
            let session = gate.served.initialize("/mcp", &[("authorization", ALICE)]).await;
            show(&gate.served.legacy("/mcp", &session, "tools/call", params, &[("authorization", who)]).await);
        });
        Ok(gate.reached(&tag))
    })
}
