//! The tools whose repetition would be seen: an MCP server that only writes down what it was asked
//! to do, as the inside of an HTTP endpoint and as a process on standard streams.
//!
//! Tools by what a repetition would mean: `pure`, `idem`, `veri` (looked for with `seen`), `once`,
//! and `asked`, which a person must allow.

use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::{BufRead, Write};
use std::path::Path;

/// One thing a tool did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    /// The tool.
    pub(super) tool: String,
    /// The argument `n`, which no two calls of a scene share.
    pub(super) n: String,
    /// The key the call carried.
    pub(super) key: String,
}

/// What a message wants of the server.
pub(super) enum Wish {
    /// This is the whole answer.
    Answer(Value),
    /// A tool is to be used; then this is the answer.
    Use(Made, Value),
    /// It is asked whether the call of that key happened.
    Look(String, Value),
    /// Nothing.
    Nothing,
}

/// What a message wants.
pub(super) fn wish(message: &Value) -> Wish {
    let Some(id) = message.get("id").cloned() else { return Wish::Nothing };
    let result = |result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result });
    match message["method"].as_str().unwrap_or_default() {
        "server/discover" => Wish::Answer(result(json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} },
            "ttlMs": 0, "cacheScope": "private",
        }))),
        "tools/list" => Wish::Answer(result(json!({
            "resultType": "complete", "ttlMs": 60_000, "cacheScope": "private", "tools": all(),
        }))),
        "tools/call" => {
            let params = &message["params"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (tool, n) = (text(&params["name"]), text(&params["arguments"]["n"]));
            let key = text(&params["_meta"]["pleach/idempotency-key"]);
            let said = |words: String| {
                result(json!({ "resultType": "complete", "content": [{ "type": "text", "text": words }] }))
            };
            match tool.as_str() {
                "seen" => Wish::Look(text(&params["arguments"]["idempotency_key"]), said(String::new())),
                _ => Wish::Use(Made { n: n.clone(), key, tool: tool.clone() }, said(done(&tool, &n))),
            }
        }
        _ => Wish::Answer(json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32601, "message": "no" } })),
    }
}

/// What a tool says when it has done something.
pub(super) fn done(tool: &str, n: &str) -> String {
    format!("{tool} {n} done")
}

/// Says in an answer to `seen` whether it happened.
pub(super) fn looked(mut answer: Value, happened: bool) -> Value {
    answer["result"]["content"][0]["text"] = json!(if happened { "yes" } else { "no" });
    answer
}

fn all() -> Value {
    let tool = |name: &str, argument: &str| {
        let properties = json!({ (argument): { "type": "string" } });
        json!({ "name": name, "inputSchema": { "type": "object", "properties": properties } })
    };
    let mut tools: Vec<Value> = ["pure", "idem", "veri", "once", "asked"].map(|name| tool(name, "n")).into();
    tools.push(tool("seen", "idempotency_key"));
    tools.into()
}

/// The same on standard streams; what it does is a line in that file, written before it answers.
///
/// # Errors
/// When a stream or the file fails.
pub fn serve(file: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line?) else { continue };
        let answer = match wish(&message) {
            Wish::Nothing => continue,
            Wish::Answer(answer) => answer,
            Wish::Look(key, answer) => looked(answer, read(Path::new(file)).iter().any(|made| made.key == key)),
            Wish::Use(made, answer) => {
                let mut ledger = OpenOptions::new().create(true).append(true).open(file)?;
                ledger.write_all(format!("{} {} {}\n", made.tool, made.n, made.key).as_bytes())?;
                answer
            }
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

/// What is written in such a file.
pub(super) fn read(file: &Path) -> Vec<Made> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let made = text.lines().filter_map(|line| {
        let mut words = line.split(' ').map(str::to_owned);
        Some(Made { tool: words.next()?, n: words.next()?, key: words.next()? })
    });
    made.collect()
}
