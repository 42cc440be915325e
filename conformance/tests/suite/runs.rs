//! Runs from the command line: exit codes, the events, and what a killed run leaves.

use crate::sandbox_processes::{sleepers, wait_until};
use conformance::pleach::Folder;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

fn policy(extra: &str) -> String {
    format!(
        r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.files]
builtin = "workspace"
[gateway]
default_agent = "lead"
[policy]
max_access = "destructive"
filesystem = {{ read = ["docs"], read_write = ["out"] }}
tools = {{ allow = ["files__*"], ask = ["files__Write"] }}
{extra}
[agents.lead]
prompt = "Lead."
subagents = ["helper"]
[agents.helper]
prompt = "Help."
"#
    )
}

fn folder(extra: &str, replies: &str) -> Folder {
    let folder = Folder::new(&policy(extra));
    folder.write("replies.toml", replies);
    folder.write("docs/a.md", "hello");
    folder
}

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
}

fn tool(name: &str, input: &str) -> String {
    format!("[[reply.tool]]\nname = \"{name}\"\ninput = {input}\n")
}

fn agent(text: &str, name: &str, tools: &[String]) -> String {
    format!("[[reply]]\nagent = \"{name}\"\ntext = \"{text}\"\n{}", tools.concat())
}

#[test]
fn the_events_are_the_contract() {
    let spawn = tool("Agent", "{ description = \"d\", prompt = \"Help.\", subagent_type = \"helper\" }");
    let bad = tool("files__Read", "{ file_path = \"/etc/passwd\" }");
    let good = tool("files__Read", "{ file_path = \"docs/a.md\" }");
    let script = [
        agent("one", "lead", &[spawn, bad, tool("files__Nope", "{}")]),
        agent("done", "lead", &[]),
        agent("two", "helper", &[good]),
        agent("helped", "helper", &[]),
    ];
    let folder = folder("", &script.concat());
    let ran = folder.run(&["run", "--json", "Go."]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let events = events(&ran.out);
    let mut last: std::collections::BTreeMap<String, u64> = Default::default();
    for event in events.iter().filter(|e| e["type"] != "model.delta") {
        let (run, seq) = (event["run"].as_str().unwrap().to_owned(), event["seq"].as_u64().unwrap());
        assert_eq!(seq, last.get(&run).copied().unwrap_or(0) + 1, "no gap: {event}");
        assert!(event["at"].as_u64().unwrap() > 1_700_000_000_000);
        last.insert(run, seq);
    }
    assert_eq!(last.len(), 2, "two runs");
    let kinds: std::collections::BTreeSet<&str> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
    for kind in [
        "run.started",
        "model.delta",
        "model.replied",
        "tool.requested",
        "tool.decided",
        "tool.finished",
        "run.finished",
    ] {
        assert!(kinds.contains(kind), "{kind} is missing: {kinds:?}");
    }
    let decided: Vec<&Value> =
        events.iter().filter(|e| e["type"] == "tool.decided" && e["verdict"] == "deny").collect();
    assert_eq!(decided.len(), 2);
    assert!(decided[0]["rule"].as_str().unwrap().contains("(pleach.toml:"), "{}", decided[0]);
    assert_eq!(decided[0]["chain"][0], "root policy");
    let finished: Vec<&str> =
        events.iter().filter(|e| e["type"] == "tool.finished").map(|e| e["outcome"].as_str().unwrap()).collect();
    assert_eq!(finished.iter().filter(|o| **o == "denied").count(), 2);
    assert_eq!(finished.iter().filter(|o| **o == "ok").count(), 2);

    // The journal says the same, and `runs` adds it up.
    let runs = events_of(&folder, &["runs", "--json"]);
    assert_eq!(runs.len(), 2);
    for run in &runs {
        assert_eq!((run["state"].as_str(), run["usd"].as_f64()), (Some("completed"), Some(0.0)));
        let shown = events_of(&folder, &["show", run["run"].as_str().unwrap(), "--json"]);
        let live: Vec<&Value> =
            events.iter().filter(|e| e["run"] == run["run"] && e["type"] != "model.delta").collect();
        assert_eq!(shown.iter().collect::<Vec<_>>(), live, "what was journalled is what was seen");
    }
    let lead = runs.iter().find(|r| r["agent"] == "lead").unwrap();
    assert_eq!(
        (lead["turns"].as_u64(), lead["tool_calls"].as_u64(), lead["depth"].as_u64()),
        (Some(2), Some(3), Some(0))
    );
}

fn events_of(folder: &Folder, args: &[&str]) -> Vec<Value> {
    let ran = folder.run(args);
    assert_eq!(ran.code, 0, "{}", ran.err);
    events(&ran.out)
}

#[test]
fn exit_codes() {
    let answer = agent("fine", "lead", &[]);
    let completed = folder("", &answer).run(&["run", "Go."]);
    assert_eq!((completed.code, completed.out.as_str()), (0, "fine\n"));
    let failed = folder("", "").run(&["run", "Go."]);
    assert_eq!(failed.code, 1);
    assert!(failed.err.contains("has no reply for agent lead at turn 0"), "{}", failed.err);
    let looping: String = (0..5)
        .map(|_| agent("again", "lead", &[tool("files__Glob", "{ pattern = \"*\", path = \"docs\" }")]))
        .collect();
    let over = folder("budget = { turns = 3 }", &looping).run(&["run", "Go."]);
    assert_eq!(over.code, 4, "{}", over.err);
    assert!(over.err.contains("budget.turns is reached: 3 of 3"), "{}", over.err);
    let nobody = folder("", &answer).run(&["run", "--agent", "leed", "Go."]);
    assert_eq!(nobody.code, 2);
    assert!(nobody.err.contains("did you mean \"lead\"?"), "{}", nobody.err);
    assert_eq!(folder("", &answer).run(&["run"]).code, 2, "no prompt");
    let broken = folder("", "[[reply]]\ntxet = \"x\"\n").run(&["run", "Go."]);
    assert_eq!(broken.code, 2);
    assert!(broken.err.contains("replies.toml:2:1: unknown field `txet`"), "{}", broken.err);
}

#[test]
fn a_prompt_may_be_piped() {
    let folder = folder("", &agent("{{prompt}}", "lead", &[]));
    let mut child =
        folder.command(&["run"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"from a pipe\n").unwrap();
    assert_eq!(String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout), "from a pipe\n");
}

/// `ask` waits for a person; `--yes` allows once, and nothing else.
#[test]
fn asks_wait_unless_yes() {
    let write = |path: &str| tool("files__Write", &format!("{{ file_path = \"{path}\", content = \"x\" }}"));
    let script = [agent("w", "lead", &[write("out/f"), write("docs/f")]), agent("done", "lead", &[])].concat();
    let without = folder("", &script);
    let ran = without.run(&["run", "Go."]);
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.err.contains("tools.ask \"files__Write\" at root policy"), "{}", ran.err);
    assert!(!without.join("out/f").exists());
    let with = folder("", &script);
    with.run(&["run", "--yes", "Go."]);
    assert_eq!(with.read("out/f").as_deref(), Some("x"));
    assert!(!with.join("docs/f").exists(), "--yes widens no grant");
}

#[test]
fn spawn_limits_hold_and_say_so() {
    let spawn = || tool("Agent", "{ description = \"d\", prompt = \"Help.\", subagent_type = \"helper\" }");
    let script = [
        agent("all", "lead", &[spawn(), spawn(), spawn()]),
        agent("{{results}}", "lead", &[]),
        agent("helped", "helper", &[]),
    ]
    .concat();
    let total = folder("spawn = { max_total = 3 }", &script).run(&["run", "Go."]);
    assert_eq!(total.out.matches("helped").count(), 2, "{total:?}");
    assert!(total.out.contains("spawn.max_total is reached"), "{total:?}");
    let depth = folder("spawn = { max_depth = 0 }", &script).run(&["run", "Go."]);
    assert_eq!(depth.out.matches("spawn.max_depth is reached").count(), 3, "{depth:?}");
    let queue = folder("spawn = { max_concurrent = 1 }", &script).run(&["run", "Go."]);
    assert_eq!(queue.out.matches("helped").count(), 3, "one at a time, but all: {queue:?}");
    let denied = folder("", &script.replace("subagent_type = \\\"helper\\\"", "x")).run(&["run", "Go."]);
    assert_eq!(denied.code, 0);
}

#[test]
fn a_store_that_cannot_be_written_is_said_so() {
    let folder = folder("", &agent("fine", "lead", &[]));
    // Root may write anything, so the store is where nobody may: in a folder that is a file.
    let policy = policy("").replace("[gateway]", "[store]\nurl = \"sqlite:docs/a.md/pleach.db\"\n[gateway]");
    folder.write("pleach.toml", &policy);
    let ran = folder.run(&["run", "Go."]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("docs/a.md/pleach.db") && ran.err.contains("may it be written"), "{}", ran.err);
    // And one that is no database.
    let policy = policy.replace("docs/a.md/pleach.db", "docs/a.md");
    folder.write("pleach.toml", &policy);
    let ran = folder.run(&["run", "Go."]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert_eq!(folder.read("docs/a.md").as_deref(), Some("hello"), "it was not overwritten");
}

/// A run in the middle of a command that would take for ever.
fn in_the_middle(marker: &str) -> (Folder, Child) {
    let spawn = tool("Agent", "{ description = \"d\", prompt = \"Help.\", subagent_type = \"helper\" }");
    let sleep = tool("files__Bash", &format!("{{ command = \"setsid sleep {marker} & sleep {marker}\" }}"));
    let script = [agent("s", "lead", &[spawn]), agent("b", "helper", &[sleep])].concat();
    let folder = folder("", &script);
    let child =
        folder.command(&["run", "--json", "Go."]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("two sleepers", || sleepers(marker) == 2);
    (folder, child)
}

#[test]
fn sigterm_ends_the_tree_and_journals_it() {
    let marker = format!("{}", 71_000_000 + std::process::id());
    let (folder, mut child) = in_the_middle(&marker);
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let lines: Vec<String> = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let ended: Vec<Value> = events(&lines.join("\n")).into_iter().filter(|e| e["type"] == "run.finished").collect();
    assert_eq!(ended.len(), 2, "parent and child: {ended:?}");
    assert!(ended.iter().all(|e| e["state"] == "cancelled"));
    wait_until("no sleeper", || sleepers(&marker) == 0);
    assert!(events_of(&folder, &["runs", "--json"]).iter().all(|r| r["state"] == "cancelled" && !r["ended"].is_null()));
}

#[test]
fn sigkill_leaves_no_process_and_a_readable_journal() {
    let marker = format!("{}", 72_000_000 + std::process::id());
    let (folder, mut child) = in_the_middle(&marker);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("no sleeper", || sleepers(&marker) == 0);
    let runs = events_of(&folder, &["runs", "--json"]);
    assert_eq!(runs.len(), 2);
    assert!(runs.iter().all(|r| r["state"] == "acting" && r["ended"].is_null()), "{runs:?}");
    let helper = runs.iter().find(|r| r["agent"] == "helper").unwrap()["run"].as_str().unwrap().to_owned();
    let shown = events_of(&folder, &["show", &helper, "--json"]);
    assert_eq!(shown.last().unwrap()["type"], "tool.dispatched", "journalled before it was done");
    assert_eq!(folder.run(&["runs"]).out.matches("acting!").count(), 2);
    let shown = folder.run(&["show", &helper]);
    assert!(shown.out.contains("Nobody works on it any more"), "{}", shown.out);
    // The store serves the next run.
    folder.write("replies.toml", &agent("fine", "lead", &[]));
    assert_eq!(folder.run(&["run", "Go."]).code, 0);
}
