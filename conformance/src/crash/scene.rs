//! What is played: who says what at which turn, and what it uses. The prompt tells the runs of a
//! scene apart, and the argument `n` its calls.

use serde_json::{Value, json};

/// A scene, by the prompt of its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scene {
    /// One run, tools of all classes.
    Single,
    /// The same with its tools in a sandboxed process instead of behind HTTP.
    Process,
    /// Three levels, children side by side.
    Tree,
    /// A person is asked twice.
    Asks,
    /// A child in the background.
    Behind,
}

impl Scene {
    pub(super) const ALL: [Scene; 5] = [Scene::Single, Scene::Process, Scene::Tree, Scene::Asks, Scene::Behind];

    pub(super) fn prompt(self) -> &'static str {
        match self {
            Scene::Single | Scene::Process => "single",
            Scene::Tree => "tree",
            Scene::Asks => "asks",
            Scene::Behind => "behind",
        }
    }
    pub(super) fn name(self) -> &'static str {
        match self {
            Scene::Single => "single",
            Scene::Process => "process",
            Scene::Tree => "tree",
            Scene::Asks => "asks",
            Scene::Behind => "behind",
        }
    }
    /// Whether as many turns are made whatever happens when: a run with a child in the background
    /// may or may not have heard of it when it is asked.
    pub(super) fn is_steady(self) -> bool {
        self != Scene::Behind
    }
    /// Whether a person is needed.
    pub(super) fn asks(self) -> bool {
        self == Scene::Asks
    }
    /// The policy, with the tools where the scene has them.
    pub(super) fn policy(self, base: &str) -> String {
        let tools = match self {
            Scene::Process => {
                // Not our own image: the build step of the whole run may have replaced it.
                let exe = crate::pleach::binary().with_file_name("conformance");
                format!("command = {:?}\nargs = [\"ledger\", \"out/ledger\"]\n", exe.display().to_string())
            }
            _ => format!("url = \"{base}/mcp\"\n"),
        };
        format!("{HEAD}base_url = \"{base}/v1\"\n[servers.t]\n{tools}{REST}")
    }
}

/// What all runs of a tree may use together; more than any of them does.
pub(super) const TOKENS: u64 = 5_000_000;

const HEAD: &str = r#"version = 1
[models.default]
provider = "openai"
model = "double"
price = { input = 3.0, output = 15.0 }
context = 100_000
max_output = 2000
"#;

const REST: &str = r#"default_access = "read-write"
[servers.t.tools.pure]
access = "read-only"
[servers.t.tools.idem]
effect = "idempotent"
[servers.t.tools.veri]
effect = "verifiable"
verify_with = "seen"
[servers.t.tools.seen]
access = "read-only"
[policy]
max_access = "read-write"
filesystem = { read_write = ["out"] }
tools = { allow = ["t__*"], ask = ["t__asked"] }
budget = { tokens = 5_000_000, usd = 500.0 }
[gateway]
default_agent = "lead"
[agents.lead]
prompt = "lead"
expose = true
subagents = ["mid", "leaf"]
[agents.mid]
prompt = "mid"
subagents = ["leaf"]
[agents.leaf]
prompt = "leaf"
"#;

/// What the model says.
pub(super) struct Said {
    pub(super) text: String,
    pub(super) calls: Vec<(&'static str, Value)>,
}

/// What it uses: tokens read and written. Of each run and turn the same, and of no two others.
pub(super) fn usage(prompt: &str, turn: usize) -> (u64, u64) {
    let of = prompt.bytes().fold(7_u64, |sum, b| (sum * 31 + u64::from(b)) % 97);
    let turn = turn as u64;
    (100 + of + 10 * turn, 11 + of % 13 + turn)
}

fn words(text: &str) -> Said {
    Said { text: text.to_owned(), calls: Vec::new() }
}

fn wants(calls: Vec<(&'static str, Value)>) -> Said {
    Said { text: String::new(), calls }
}

fn tool(name: &'static str, n: &str) -> (&'static str, Value) {
    (name, json!({ "n": n }))
}

fn agent(name: &str, prompt: &str) -> (&'static str, Value) {
    ("Agent", json!({ "description": prompt, "prompt": prompt, "subagent_type": name }))
}

/// The reply to a run at a turn; `heard` is what it was told and given so far.
pub(super) fn reply(prompt: &str, turn: usize, heard: &[String]) -> Said {
    match (prompt, turn) {
        ("single", 0) => {
            wants(vec![tool("t__pure", "s1"), tool("t__idem", "s2"), tool("t__veri", "s3"), tool("t__once", "s4")])
        }
        ("single", 1) => wants(vec![tool("t__once", "s5"), tool("t__idem", "s6"), tool("t__veri", "s7")]),
        ("tree", 0) => wants(vec![agent("mid", "m1"), agent("mid", "m2"), tool("t__once", "t1")]),
        // What its children said, which is always the same.
        ("tree", _) => {
            let said: Vec<&str> = heard.iter().map(String::as_str).filter(|text| text.ends_with(": done")).collect();
            words(&format!("tree: done ({})", said.join(", ")))
        }
        ("m1", 0) => wants(vec![agent("leaf", "a"), agent("leaf", "b"), tool("t__idem", "m1-1")]),
        ("m1", 1) => wants(vec![tool("t__once", "m1-2")]),
        ("m2", 0) => wants(vec![agent("leaf", "c"), tool("t__veri", "m2-1")]),
        ("a" | "b" | "c" | "d", 0) => {
            wants(vec![tool("t__once", &format!("{prompt}-1")), tool("t__idem", &format!("{prompt}-2"))])
        }
        ("asks", 0) => wants(vec![("ask_user", json!({ "question": "Which?" })), tool("t__asked", "q1")]),
        ("asks", 1) => wants(vec![tool("t__once", "q2")]),
        ("behind", 0) => {
            let (name, mut input) = agent("leaf", "d");
            input["run_in_background"] = json!(true);
            wants(vec![(name, input), tool("t__once", "b1")])
        }
        ("behind", _) if !heard.iter().any(|text| text.starts_with("[the subagent leaf")) => words("I wait."),
        _ => words(&format!("{prompt}: done")),
    }
}
