//! The clients of both providers' formats against servers that others wrote: `aimock` (npm) and
//! `llmock` (PyPI), each on a free loopback port, with a real `pleach run` on our side. The
//! second breaks what it sends on demand, and judges its client by what it sees on the wire.

use conformance::pleach::{Folder, Ran};
use conformance::served::Served;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const KEY: &str = "k-not-to-be-told-anywhere";
const CLAIM: &str = "A living fence mends itself, says the first paper.";

/// Where the servers are, which `cargo conformance kits` installs.
fn kit(path: &str) -> std::path::PathBuf {
    let path = crate::kits().join("models").join(path);
    assert!(path.exists(), "{} is not installed; run `cargo conformance kits`", path.display());
    path
}

/// A provider that others wrote. It ends when this does.
struct Provider {
    child: Child,
    url: String,
    _in: ChildStdin,
    _out: BufReader<ChildStdout>,
}

impl Provider {
    /// Starts it; the line that holds its address says that it listens.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let url = loop {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "{command:?} ended before it listened");
            if let Some(at) = line.find("http://127.0.0.1:") {
                break line[at..].trim().to_owned();
            }
        };
        Self { _in: child.stdin.take().unwrap(), child, url, _out: out }
    }
    fn llmock() -> Self {
        let serve = "import sys\nfrom llmock.testing import LLMockServer\n\
                     with LLMockServer() as server:\n    print(server.url, flush=True)\n    sys.stdin.read()\n";
        Self::start(Command::new(kit("venv/bin/python")).args(["-c", serve]))
    }
    fn aimock(folder: &Folder, fixtures: &Value) -> Self {
        let fixtures = folder.write("fixtures.json", &json!({ "fixtures": fixtures }).to_string());
        let config = folder.write("aimock.json", &json!({ "llm": { "fixtures": fixtures } }).to_string());
        let main = kit("node_modules/@copilotkit/aimock/dist/aimock-cli.js");
        Self::start(Command::new("node").arg(main).arg("--config").arg(config))
    }
    async fn get(&self, path: &str) -> Value {
        let answer = Served::client().get(format!("{}{path}", self.url)).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }
    /// What the next requests to llmock meet with, and nothing from before.
    async fn meets(&self, behaviors: &[Value]) {
        for (path, body) in [("reset", json!({})), ("scenario", json!({ "behaviors": behaviors }))] {
            let to = format!("{}/_llmock/{path}", self.url);
            let answer = Served::client().post(to).body(body.to_string()).send().await.unwrap();
            assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        }
    }
    /// The requests that llmock got there: the status of each, in their order.
    async fn statuses(&self, path: &str) -> Vec<u64> {
        let seen = self.get("/_llmock/requests").await;
        let answers = seen["requests"].as_array().unwrap().iter().filter(|r| r["path"] == path);
        answers.map(|r| r["status"].as_u64().unwrap()).collect()
    }
    /// What llmock has against its client.
    async fn findings(&self) -> Vec<String> {
        let verdict = self.get("/_llmock/verdict").await;
        verdict["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One provider's format: its word, a model of its, where llmock answers and for what.
struct Wire {
    word: &'static str,
    model: &'static str,
    base: &'static str,
    path: &'static str,
}

const ANTHROPIC: Wire =
    Wire { word: "anthropic", model: "claude-sonnet-5-5", base: "/anthropic", path: "/anthropic/v1/messages" };
const OPENAI: Wire = Wire { word: "openai", model: "gpt-5", base: "/v1", path: "/v1/chat/completions" };

/// An agent that may read `docs`, answered over this wire at this address.
fn folder(wire: &Wire, base_url: &str, more: &str) -> Folder {
    let folder = Folder::new(&format!(
        "version = 1\n[models.default]\nprovider = \"{}\"\nmodel = \"{}\"\nbase_url = \"{base_url}\"\n\
         api_key = \"{KEY}\"\n{more}\n[servers.files]\nbuiltin = \"workspace\"\n[policy]\n\
         filesystem = {{ read = [\"docs\"], deny = [\"docs/private\"] }}\ntools = {{ allow = [\"files__*\"] }}\n\
         [agents.reader]\ndescription = \"Reads.\"\nprompt = \"You read.\"\n",
        wire.word, wire.model
    ));
    folder.write("docs/a.md", "Main claim: woven.\n");
    folder.write("docs/private/salaries.md", "Nobody's business\n");
    folder
}

/// A run, and its events.
fn run(folder: &Folder) -> (Ran, Vec<Value>) {
    let ran = folder.run(&["run", "--json", "Read what the papers claim."]);
    assert!(!format!("{ran:?}").contains(KEY), "the key is told to nobody");
    let events = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (ran, events)
}

fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["type"] == kind).collect()
}

fn ended(events: &[Value]) -> (&str, &str) {
    let end = of(events, "run.finished")[0];
    (end["state"].as_str().unwrap(), end["text"].as_str().unwrap())
}

/// A reply for llmock: words, or a call.
fn says(wire: &Wire, text: &str, calls: Value) -> Value {
    json!({ "type": "reply", "text": text, "tool_calls": calls, "match": { "path": wire.path } })
}

fn reads(file: &str) -> Value {
    json!([{ "name": "files__Read", "arguments": { "file_path": file } }])
}

/// Calls in parallel, one of them denied, and a streamed answer; what the server was sent in the
/// second request is what happened here.
#[tokio::test]
async fn tools_and_streams_with_aimock() {
    let call = |id: &str, file: &str| json!({ "id": id, "name": "files__Read", "arguments": { "file_path": file } });
    let fixtures = json!([
        { "match": { "userMessage": "papers", "turnIndex": 0 },
          "response": { "content": "I look.", "toolCalls": [call("toolu_1", "docs/a.md"), call("toolu_2", "docs/private/salaries.md")] } },
        { "match": { "userMessage": "papers", "turnIndex": 1, "toolResultContains": "denied: filesystem.deny" },
          "response": { "content": CLAIM } },
    ]);
    for (wire, base, path) in [(ANTHROPIC, "", "/v1/messages"), (OPENAI, "/v1", "/v1/chat/completions")] {
        let at = Folder::new("");
        let provider = Provider::aimock(&at, &fixtures);
        let folder = folder(&wire, &format!("{}{base}", provider.url), "");
        let (ran, events) = run(&folder);
        assert_eq!((ran.code, ended(&events)), (0, ("completed", CLAIM)), "{ran:?}");
        let pieces: Vec<&str> = of(&events, "model.delta").iter().map(|e| e["text"].as_str().unwrap()).collect();
        assert_eq!(pieces.concat(), format!("I look.{CLAIM}"));
        assert!(pieces.len() > 2, "it streams: {pieces:?}");
        let outcomes: Vec<&str> = of(&events, "tool.finished").iter().map(|e| e["outcome"].as_str().unwrap()).collect();
        assert!(outcomes.contains(&"ok") && outcomes.contains(&"denied") && outcomes.len() == 2, "{outcomes:?}");

        let journal = provider.get("/__aimock/journal").await;
        let entries = journal.as_array().or_else(|| journal["entries"].as_array()).unwrap();
        let asked: Vec<&Value> = entries.iter().filter(|e| e["path"] == path).collect();
        assert_eq!(asked.len(), 2, "{journal}");
        let second = asked[1]["body"].to_string();
        assert!(second.contains("Main claim: woven.") && second.contains("toolu_1") && second.contains("toolu_2"));
        assert!(!journal.to_string().contains("Nobody's business"), "the private file reached nobody");
    }
}

/// A 429 that says when to come again, twice, and then tools and an answer: the other side finds
/// nothing to complain of, neither in the waiting nor in what it was sent.
#[tokio::test]
async fn limits_are_kept_with_llmock() {
    let provider = Provider::llmock();
    for wire in [ANTHROPIC, OPENAI] {
        let folder = folder(&wire, &format!("{}{}", provider.url, wire.base), "");
        let busy =
            json!({ "type": "fail", "status": 429, "retry_after": 0.6, "times": 2, "match": { "path": wire.path } });
        provider.meets(&[busy, says(&wire, "I look.", reads("docs/a.md")), says(&wire, CLAIM, json!([]))]).await;
        let (ran, events) = run(&folder);
        assert_eq!((ran.code, ended(&events)), (0, ("completed", CLAIM)), "{ran:?}");
        assert_eq!(provider.statuses(wire.path).await, [429, 429, 200, 200]);
        assert_eq!(provider.findings().await, [""; 0], "{}", wire.word);
        // It counts no tokens for us; having said so once it is not asked again.
        let counted = provider.statuses("/anthropic/v1/messages/count_tokens").await;
        assert_eq!(counted.as_slice(), if wire.word == "anthropic" { &[404][..] } else { &[] });
        let finished = of(&events, "tool.finished");
        assert_eq!((finished[0]["outcome"].as_str(), finished.len()), (Some("ok"), 1));
        // What it counted is what is counted here.
        let sums = folder.run(&["runs", "--json"]).out;
        let sum: Value = serde_json::from_str(sums.trim()).unwrap();
        let used = of(&events, "model.replied").iter().map(|e| e["usage"]["output"].as_u64().unwrap()).sum::<u64>();
        assert!(used > 0 && sum["tokens"].as_u64().unwrap() > used, "{sum}");
    }
}

/// Overloaded for good: another model answers, if one is named; else the run says so.
#[tokio::test]
async fn an_overloaded_provider_is_answered_for() {
    let provider = Provider::llmock();
    for (wire, other) in [(ANTHROPIC, OPENAI), (OPENAI, ANTHROPIC)] {
        let base = format!("{}{}", provider.url, wire.base);
        let over = json!({ "type": "fail", "status": 529, "retry_after": 0.05, "times": null, "match": { "path": wire.path } });
        let second = format!(
            "fallback = [\"other\"]\n[models.other]\nprovider = \"{}\"\nmodel = \"{}\"\nbase_url = \"{}{}\"\n",
            other.word, other.model, provider.url, other.base
        );
        provider
            .meets(&[over.clone(), says(&other, "I look.", reads("docs/a.md")), says(&other, CLAIM, json!([]))])
            .await;
        let (ran, events) = run(&folder(&wire, &base, &second));
        assert_eq!((ran.code, ended(&events)), (0, ("completed", CLAIM)), "{ran:?}");
        let by: Vec<&str> = of(&events, "model.replied").iter().filter_map(|e| e["answered_by"].as_str()).collect();
        assert_eq!(by, [other.model; 2]);
        assert_eq!(of(&events, "tool.finished")[0]["outcome"], "ok");

        provider.meets(&[over]).await;
        let (ran, events) = run(&folder(&wire, &base, ""));
        let (state, why) = ended(&events);
        assert_eq!((ran.code, state), (1, "failed"));
        assert!(why.contains("HTTP 529") && why.contains("(5 tries)"), "{why}");
        assert_eq!(provider.statuses(wire.path).await, [529; 5]);
    }
}

/// What no repetition mends is not repeated.
#[tokio::test]
async fn what_is_refused_is_not_tried_again() {
    let provider = Provider::llmock();
    for wire in [ANTHROPIC, OPENAI] {
        let folder = folder(&wire, &format!("{}{}", provider.url, wire.base), "");
        for status in [400, 401, 403, 404] {
            let no = json!({ "type": "fail", "status": status, "times": null, "match": { "path": wire.path } });
            provider.meets(&[no]).await;
            let (ran, events) = run(&folder);
            let (state, why) = ended(&events);
            assert_eq!((ran.code, state), (1, "failed"), "{ran:?}");
            assert!(why.contains(&format!("HTTP {status}")), "{why}");
            assert_eq!(provider.statuses(wire.path).await, [status]);
        }
    }
}

/// A stream that is dropped, ends early or turns to nonsense, wherever: the answer is whole, from
/// a second try, or it is an error; half of one is never taken for all of it.
async fn broken_streams(wire: Wire) {
    let provider = Provider::llmock();
    let folder = folder(&wire, &format!("{}{}", provider.url, wire.base), "");
    let (mut whole, mut errors) = (0, 0);
    for kind in ["disconnect", "truncate", "malformed"] {
        for after in [0, 1, 3, 6] {
            let fault = json!({ "type": "stream_fault", "kind": kind, "after_chunks": after });
            provider.meets(&[fault, says(&wire, CLAIM, json!([])), says(&wire, CLAIM, json!([]))]).await;
            let (ran, events) = run(&folder);
            let (state, text) = ended(&events);
            let tries = provider.statuses(wire.path).await.len();
            let what = format!("{} {kind} after {after}: {text}", wire.word);
            match state {
                "completed" => {
                    whole += 1;
                    assert_eq!((ran.code, text, tries), (0, CLAIM, 2), "{what}");
                }
                // Somebody had read a part of it already.
                _ => {
                    errors += 1;
                    assert!(!of(&events, "model.delta").is_empty() && tries == 1, "{what}");
                    assert!(text.contains("its stream "), "{what}");
                    assert_eq!((ran.code, state, of(&events, "model.replied").len()), (1, "failed", 0), "{what}");
                }
            }
        }
    }
    assert!(whole >= 3 && errors >= 3, "{whole} whole, {errors} errors");
}

#[tokio::test]
async fn broken_streams_of_anthropic() {
    broken_streams(ANTHROPIC).await;
}

#[tokio::test]
async fn broken_streams_of_openai() {
    broken_streams(OPENAI).await;
}

/// A call of a tool that was never offered, or with arguments that are no JSON: nothing runs, the
/// model is told, and the run goes on.
#[tokio::test]
async fn nonsense_calls_run_nothing() {
    let provider = Provider::llmock();
    for wire in [ANTHROPIC, OPENAI] {
        let folder = folder(&wire, &format!("{}{}", provider.url, wire.base), "");
        for kind in ["unknown_tool", "malformed_arguments"] {
            let fault = json!({ "type": "tool_fault", "kind": kind, "match": { "path": wire.path } });
            provider.meets(&[fault]).await;
            let (ran, events) = run(&folder);
            assert_eq!((ran.code, ended(&events).0), (0, "completed"), "{} {kind} {ran:?}", wire.word);
            let finished = of(&events, "tool.finished");
            assert_eq!((finished[0]["outcome"].as_str(), finished.len()), (Some("denied"), 1), "{} {kind}", wire.word);
            assert!(of(&events, "tool.decided").iter().all(|e| e["verdict"] == "deny"));
        }
    }
}
