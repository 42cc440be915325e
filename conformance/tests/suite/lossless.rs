//! What Pleach does not own it passes unchanged: random and adversarial JSON crosses it in all
//! four combinations of eras, over both transports, both ways, and is compared value by value
//! with key order and the text of numbers.

use conformance::mirror_server::Mirror;
use conformance::pleach::Folder;
use conformance::served::Served;
use policies::json::{Json, Limits, Object};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// A JSON text: what parsers disagree on is in it more often than by chance.
fn value() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        Just("1E2".to_owned()),
        Just("1.0".to_owned()),
        Just("-0".to_owned()),
        Just("-0.0e-0".to_owned()),
        Just("1e400".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("123456789012345678901234567890.00".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
    ];
    let text = prop_oneof![
        Just("\"\\u0000\\u001f\\u007f\"".to_owned()),
        Just("\"\\ud83d\\ude00 \\\" \\\\ / \\b\"".to_owned()),
        "[ -~]{0,12}".prop_map(|s| serde_json::Value::String(s).to_string()),
        "\\PC{0,8}".prop_map(|s| serde_json::Value::String(s).to_string()),
    ];
    let leaf = prop_oneof![Just("null".to_owned()), Just("true".to_owned()), Just("false".to_owned()), number, text];
    let key = prop_oneof![
        Just("type".to_owned()),
        Just("resultType".to_owned()),
        Just("__proto__".to_owned()),
        Just("jsonrpc".to_owned()),
        Just("_meta".to_owned()),
        Just(String::new()),
        "[a-z\\PC]{1,6}",
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((key.clone(), inner), 0..6).prop_map(|entries| {
                let mut seen = std::collections::BTreeSet::new();
                let kept = entries.into_iter().filter(|(k, _)| seen.insert(k.clone()));
                let text = kept.map(|(k, v)| format!("{}:{v}", serde_json::Value::String(k)));
                format!("{{{}}}", text.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

fn read(text: &str) -> Json {
    let limits = Limits { bytes: 16 << 20, depth: 200 };
    Json::parse(text.as_bytes(), limits).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The messages of an answer: of a stream, all of them.
fn messages(body: &str) -> Vec<Json> {
    if body.starts_with('{') {
        return vec![read(body)];
    }
    body.lines().filter_map(|l| l.strip_prefix("data: ")).filter(|d| !d.trim().is_empty()).map(read).collect()
}

/// One way through: a client of one era, a server of one era.
struct Way {
    served: Served,
    session: Option<String>,
    _folder: Folder,
    _mirror: Option<Mirror>,
}

impl Way {
    async fn new(client_modern: bool, server: &str, transport: &str) -> Self {
        let mirror = (transport == "http").then(|| Mirror::start(server, "127.0.0.1:0"));
        let reached = Mirror::entry(mirror.as_ref(), server);
        let folder = Folder::new(&format!(
            "version = 1\n[servers.m]\n{reached}\ndefault_access = \"read-only\"\n\
             [servers.m.tools.echo]\npath_args = []\nurl_args = []\n[policy]\ntools.allow = [\"*\"]\n"
        ));
        let served = Served::start(&folder);
        let session = if client_modern { None } else { Some(served.initialize("/mcp", &[]).await) };
        Self { served, session, _folder: folder, _mirror: mirror }
    }

    /// A call as text, so that no library re-spells it.
    async fn call(&self, mode: &str, value: &str) -> Vec<Json> {
        let own = match &self.session {
            Some(_) => String::new(),
            None => r#","io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}"#
                .to_owned(),
        };
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"a-1","method":"tools/call","params":{{"name":"m__echo","extra":{value},"arguments":{{"mode":"{mode}","value":{value}}},"_meta":{{"own":{value},"progressToken":7{own}}}}}}}"#
        );
        let answer = match &self.session {
            Some(session) => {
                let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
                self.served.post("/mcp", &headers, body).await
            }
            None => {
                let headers =
                    [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "m__echo")];
                self.served.post("/mcp", &headers, body).await
            }
        };
        messages(&answer.body)
    }

    async fn check(&self, value: &str) -> Result<(), TestCaseError> {
        let expected = read(value);
        let same = |what: &str, found: Option<&Json>| {
            prop_assert_eq!(found.map(Json::to_text), Some(expected.to_text()), "{}", what);
            Ok(())
        };
        let answers = self.call("progress", value).await;
        prop_assert_eq!(answers.len(), 2, "progress, then the result: {:?}", answers);
        let progress = answers[0].get("params").unwrap_or(&Json::Null);
        prop_assert_eq!(
            progress.to_text(),
            format!(r#"{{"progressToken":7,"progress":1.50,"total":2E0,"odd":{}}}"#, expected.to_text())
        );
        prop_assert_eq!(answers[1].get("id").map(Json::to_text), Some("\"a-1\"".to_owned()));
        let result = answers[1].get("result").unwrap_or(&Json::Null);
        same("an unknown member of the result", result.get("odd"))?;
        same("structuredContent", result.get("structuredContent"))?;
        same("an unknown content block", result.pointer("/content/0/x"))?;
        same("_meta of the result", result.pointer("/_meta/own"))?;
        prop_assert_eq!(result.pointer("/content/1/annotations/audience/0"), Some(&Json::from("system")));
        prop_assert_eq!(result.get("action"), Some(&Json::from("accept")));
        let order: Vec<&str> = result.as_object().into_iter().flat_map(Object::iter).map(|(k, _)| k).collect();
        let order: Vec<&str> = order.into_iter().filter(|k| !matches!(*k, "resultType" | "_meta")).collect();
        prop_assert_eq!(order, ["odd", "content", "structuredContent", "action", "arrived"]);
        same("the argument that arrived", result.pointer("/arrived/arguments/value"))?;
        same("an unknown parameter that arrived", result.pointer("/arrived/extra"))?;
        same("_meta that arrived", result.pointer("/arrived/_meta/own"))?;
        let error = self.call("error", value).await;
        let error = error[0].get("error").unwrap_or(&Json::Null);
        same("the data of an error", error.get("data"))?;
        same("an unknown member of an error", error.get("odd"))?;
        Ok(())
    }
}

fn crosses(server: &'static str, transport: &'static str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ways =
        runtime.block_on(async { [Way::new(true, server, transport).await, Way::new(false, server, transport).await] });
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let wide = format!("[{}]", vec!["1.0"; 50_000].join(","));
    let long = serde_json::Value::String("x".repeat(300_000)).to_string();
    for way in &ways {
        for value in [&deep, &wide, &long] {
            runtime.block_on(way.check(value)).unwrap();
        }
    }
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&value(), |value| {
        for way in &ways {
            runtime.block_on(way.check(&value))?;
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn to_and_from_a_legacy_server_over_http() {
    crosses("legacy", "http");
}
#[test]
fn to_and_from_a_legacy_server_over_stdio() {
    crosses("legacy", "stdio");
}
#[test]
fn to_and_from_a_modern_server_over_http() {
    crosses("modern", "http");
}
#[test]
fn to_and_from_a_modern_server_over_stdio() {
    crosses("modern", "stdio");
}
