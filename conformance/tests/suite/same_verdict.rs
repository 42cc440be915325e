//! One denial, one verdict, whichever way the run came to be that is denied: eleven kinds of
//! denial in ten places, each with a twin that passes. Scored by the files that are there.

use crate::rest::{ALICE, post, until};
use crate::sandbox_processes::wait_until;
use conformance::pleach::Folder;
use conformance::served::{Served, text};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Every tool leaves a file where it is told to, or in `out` under a name.
const SERVER: &str = r#"
import json, sys
names = ["mark", "forbidden", "destroy", "asked", "put", "go"]
for line in sys.stdin:
    m = json.loads(line)
    if "id" not in m: continue
    if m["method"] == "tools/call":
        a = m["params"]["arguments"]
        try:
            open(a.get("path") or "out/" + a["name"], "w").close()
            r = {"content": [{"type": "text", "text": "left it"}]}
        except OSError as e: r = {"content": [{"type": "text", "text": str(e)}], "isError": True}
    else:
        r = {"initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}},
             "tools/list": {"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in names]}}.get(m["method"])
    out = {"result": r} if r else {"error": {"code": -32601, "message": "no"}}
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], **out}), flush=True)
"#;

const POLICY: &str = r#"
version = 1
[gateway]
default_agent = "doer"
[models.default]
provider = "scripted"
script = "replies.toml"
[models.other]
provider = "scripted"
script = "replies.toml"
[servers.s]
command = "python3"
args = ["srv/server.py"]
default_access = "read-write"
[servers.s.tools.destroy]
access = "destructive"
[servers.s.tools.put]
path_args = ["/path"]
[servers.s.tools.go]
url_args = ["/url"]
[policy]
max_access = "read-write"
models = ["default"]
filesystem = { read = ["srv"], read_write = ["out"], deny = ["out/private"] }
domains = { allow = ["ok.example"] }
tools = { allow = ["s__*"], ask = ["s__asked"], deny = ["s__forbidden"] }
spawn = { max_depth = 5, max_total = 100, max_concurrent = 8 }
[clients.alice]
token = "alice-alice-alice-alice"
may_start = ["doer", "p1", "p2", "p3", "bg"]
[agents.doer]
prompt = "d"
subagents = ["kid"]
[agents.kid]
prompt = "k"
[agents.stranger]
prompt = "s"
[agents.p1]
prompt = "p"
subagents = ["doer", "kid", "stranger"]
[agents.p2]
prompt = "p"
subagents = ["p1", "doer", "kid", "stranger"]
[agents.p3]
prompt = "p"
subagents = ["p2", "p1", "doer", "kid", "stranger"]
[agents.bg]
prompt = "p"
subagents = ["doer", "kid", "stranger"]
"#;

/// A kind of denial: the call that is denied, its twin that passes, and words of the rule.
const KINDS: [(&str, &str, &str, &str); 11] = [
    ("unknown", r#"s__nothing { name = "{{prompt}}" }"#, MARK, "no tool is named s__nothing"),
    ("rule", r#"s__forbidden { name = "{{prompt}}" }"#, MARK, "tools.deny \"s__forbidden\""),
    ("ceiling", r#"s__destroy { name = "{{prompt}}" }"#, MARK, "s__destroy is destructive"),
    (
        "outside",
        r#"s__put { path = "srv/{{prompt}}" }"#,
        r#"s__put { path = "out/{{prompt}}" }"#,
        "read_write does not cover",
    ),
    (
        "private",
        r#"s__put { path = "out/private/{{prompt}}" }"#,
        r#"s__put { path = "out/{{prompt}}" }"#,
        "filesystem.deny",
    ),
    (
        "domain",
        r#"s__go { name = "{{prompt}}", url = "https://bad.example/" }"#,
        r#"s__go { name = "{{prompt}}", url = "https://ok.example/" }"#,
        "domains.allow does not cover bad.example",
    ),
    (
        "model",
        r#"Agent { SPAWN, subagent_type = "kid", model = "other" }"#,
        r#"Agent { SPAWN, subagent_type = "kid", model = "default" }"#,
        "model other is not in models",
    ),
    ("unlisted", r#"Agent { SPAWN, subagent_type = "stranger" }"#, KID, "subagents does not list stranger"),
    (
        "wider",
        r#"Agent { SPAWN, subagent_type = "kid", policy = { max_access = "destructive" } }"#,
        r#"Agent { SPAWN, subagent_type = "kid", policy = { max_access = "read-write" } }"#,
        "wider than doer may give: max_access",
    ),
    (
        "budget",
        r#"Agent { SPAWN, subagent_type = "kid", budget = { tool_calls = 0 } }"#,
        r#"Agent { SPAWN, subagent_type = "kid", budget = { tool_calls = 5 } }"#,
        "budget.tool_calls",
    ),
    ("ask", r#"s__asked { name = "{{prompt}}" }"#, MARK, "tools.ask \"s__asked\""),
];
const MARK: &str = r#"s__mark { name = "{{prompt}}" }"#;
const KID: &str = r#"Agent { SPAWN, subagent_type = "kid" }"#;

/// What a run is asked names its kind, whether it is the twin, and its place.
fn prompt(kind: &str, twin: bool, cell: &str) -> String {
    format!("{kind}-{}-{cell}", if twin { "yes" } else { "no" })
}

fn script() -> String {
    let reply = |agent: &str, when: &str, text: &str, call: Option<(&str, &str)>| {
        let slow = if when.contains("resumed") { "delay = \"3s\"\n" } else { "" };
        let call = call.map(|(name, input)| format!("[[reply.tool]]\nname = \"{name}\"\ninput = {input}\n"));
        format!(
            "[[reply]]\nagent = \"{agent}\"\nwhen = \"{when}\"\ntext = \"{text}\"\n{slow}{}",
            call.unwrap_or_default()
        )
    };
    let spawn = |input: &str| input.replace("SPAWN", "description = \"d\", prompt = \"{{prompt}}\"");
    let mut out = String::new();
    for (kind, denied, passes, _) in KINDS {
        for (twin, call) in [(false, denied), (true, passes)] {
            let (name, input) = call.split_once(' ').unwrap();
            let input = spawn(input);
            let all = prompt(kind, twin, "");
            // One that is followed up has said something before.
            out += &reply("doer", &format!("^{all}followed"), "hello", None);
            for cell in ["resumed", "(?:[^r]|rest)"] {
                out += &reply("doer", &format!("^{all}{cell}"), "I do it.", Some((name, &input)));
            }
        }
    }
    out += &reply("doer", "", "end: {{results}}", None);
    for agent in ["kid", "stranger"] {
        out += &reply(agent, "", "I leave it.", Some(("s__mark", "{ name = \"{{prompt}}\" }")));
        out += &reply(agent, "", "kid: {{results}}", None);
    }
    for (agent, starts, background) in
        [("p1", "doer", false), ("p2", "p1", false), ("p3", "p2", false), ("bg", "doer", true)]
    {
        let input = format!(
            "{{ description = \"d\", prompt = \"{{{{prompt}}}}\", subagent_type = \"{starts}\", run_in_background = {background} }}"
        );
        out += &reply(agent, "", "I start it.", Some(("Agent", &input)));
        out += &reply(agent, "", "started", None);
        out += &reply(agent, "", "over", None);
    }
    out
}

fn folder() -> Folder {
    let folder = Folder::new(POLICY);
    folder.write("replies.toml", &script());
    folder.write("srv/server.py", SERVER);
    std::fs::create_dir_all(folder.join("out/private")).unwrap();
    folder
}

fn rows(folder: &Folder) -> Vec<Value> {
    folder.run(&["runs", "--json", "--limit", "5000"]).out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}
fn events(folder: &Folder, run: &str) -> Vec<Value> {
    folder.run(&["show", run, "--json"]).out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// What was refused in a tree, and why: the rules of its denials, and the ends that are none.
fn refusals(folder: &Folder, rows: &[Value], root: &str) -> Vec<String> {
    let of_tree = rows.iter().filter(|row| row["root"] == root);
    let runs = of_tree.filter(|row| ["doer", "kid", "stranger"].iter().any(|agent| row["agent"] == *agent));
    let mut out = Vec::new();
    for row in runs {
        for event in events(folder, row["run"].as_str().unwrap()) {
            match event["type"].as_str().unwrap() {
                "tool.decided" if event["verdict"] != "allow" => {
                    out.push(format!("{}: {} {}", row["agent"], event["verdict"], event["rule"]));
                }
                "run.finished" if event["state"] != "completed" => {
                    out.push(format!("{}: {} {}", row["agent"], event["state"], event["text"]));
                }
                _ => {}
            }
        }
    }
    out.sort();
    out
}

/// Starts a run of each kind and its twin somewhere, and gives their roots by prompt.
async fn start(folder: &Folder, served: &Served, cell: &str) -> BTreeMap<String, String> {
    let prompts: Vec<String> =
        KINDS.iter().flat_map(|(kind, ..)| [false, true].map(|twin| prompt(kind, twin, cell))).collect();
    let over_mcp = async |agent: &str, prompt: &str| {
        let arguments = json!({ "subagent_type": agent, "prompt": prompt });
        let params = json!({ "name": "pleach__Agent", "arguments": arguments });
        let answer = served.modern("/mcp", "tools/call", params, &[ALICE]).await;
        let run = &answer.json()["result"]["_meta"]["pleach/run"];
        run.as_str().unwrap_or_else(|| panic!("{prompt}: {answer:?}")).to_owned()
    };
    let over_rest = async |prompt: &str| {
        let answer = post(served, ALICE, "/v1/runs", json!({ "agent": "doer", "prompt": prompt })).await;
        answer.json()["run"].as_str().unwrap_or_else(|| panic!("{prompt}: {answer:?}")).to_owned()
    };
    let one = async |prompt: String| {
        let root = match cell {
            "main" => {
                folder.run(&["run", "--agent", "doer", &prompt]);
                rows(folder).iter().find(|row| row["depth"] == 0).unwrap()["run"].as_str().unwrap().to_owned()
            }
            "depth1" => over_mcp("p1", &prompt).await,
            "depth2" => over_mcp("p2", &prompt).await,
            "depth3" => over_mcp("p3", &prompt).await,
            "background" => over_mcp("bg", &prompt).await,
            "mcp" => over_mcp("doer", &prompt).await,
            "rest" => {
                let run = over_rest(&prompt).await;
                until(served, ALICE, &run, "completed").await;
                run
            }
            "resumed" => over_rest(&prompt).await,
            "followed" => {
                let run = over_mcp("doer", &prompt).await;
                let arguments = json!({ "run": run, "message": "And now do it." });
                let params = json!({ "name": "pleach__send", "arguments": arguments });
                let told = text(&served.modern("/mcp", "tools/call", params, &[ALICE]).await);
                assert!(told.contains("is told"), "{told}");
                wait_for(served, &run, 2).await;
                run
            }
            _ => {
                let first = over_mcp("doer", &prompt).await;
                let _ = std::fs::remove_file(folder.join(&format!("out/{prompt}")));
                let forked = post(served, ALICE, &format!("/v1/runs/{first}/fork"), json!({ "at": 1 })).await;
                let run = forked.json()["run"].as_str().unwrap_or_else(|| panic!("{forked:?}")).to_owned();
                until(served, ALICE, &run, "completed").await;
                run
            }
        };
        (prompt, root)
    };
    if cell == "main" {
        let mut out = BTreeMap::new();
        for prompt in prompts {
            let (prompt, root) = one(prompt).await;
            out.insert(prompt, root);
        }
        return out;
    }
    join_all(prompts.into_iter().map(one)).await.into_iter().collect()
}

/// Waits until a run has ended after more than so many turns.
async fn wait_for(served: &Served, run: &str, turns: u64) {
    let ended = async {
        loop {
            let now = until(served, ALICE, run, "completed").await;
            if now["turns"].as_u64() > Some(turns) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), ended).await.expect("it goes on and ends");
}

const CELLS: [&str; 10] =
    ["main", "depth1", "depth2", "depth3", "background", "forked", "resumed", "followed", "rest", "mcp"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_is_the_same_wherever_it_is() {
    let folder = folder();
    let mut served = Served::start(&folder);
    let mut roots = BTreeMap::new();
    for cell in CELLS {
        roots.extend(start(&folder, &served, cell).await);
        if cell == "resumed" {
            // Killed while all of them wait for their model; the next process goes on.
            drop(served);
            let mine: Vec<&String> = roots.iter().filter(|(p, _)| p.ends_with(cell)).map(|(_, root)| root).collect();
            let open = || {
                let rows = rows(&folder);
                rows.iter()
                    .filter(|row| mine.iter().any(|m| row["run"] == m.as_str()) && row["ended"].is_null())
                    .count()
            };
            assert_eq!(open(), mine.len(), "all are left to be resumed");
            served = Served::start(&folder);
            wait_until("all go on", || open() == 0);
        }
    }
    let rows = rows(&folder);
    for (kind, _, _, words) in KINDS {
        let mut verdicts: BTreeMap<Vec<String>, Vec<&str>> = BTreeMap::new();
        for cell in CELLS {
            // At the command line there is always somebody: the run waits instead.
            let waits = kind == "ask" && cell == "main";
            let denied = prompt(kind, false, cell);
            let refused = refusals(&folder, &rows, &roots[&denied]);
            let left = ["out", "srv", "out/private"].iter().any(|at| folder.join(&format!("{at}/{denied}")).exists());
            assert!(!left, "{denied} was done: {refused:?}");
            assert!(refused.iter().any(|r| r.contains(&words.replace('"', "\\\""))), "{denied}: {refused:?}");
            match waits {
                true => assert!(refused[0].contains("\"ask\""), "{refused:?}"),
                // Each place's file has a name of its own.
                false => {
                    let refused = refused.iter().map(|r| r.replace(&denied, "FILE")).collect();
                    verdicts.entry(refused).or_default().push(cell);
                }
            }
            let passes = prompt(kind, true, cell);
            let refused = refusals(&folder, &rows, &roots[&passes]);
            assert!(refused.is_empty(), "{passes}: {refused:?}");
            assert!(folder.join(&format!("out/{passes}")).exists(), "{passes} was not done");
        }
        assert_eq!(verdicts.len(), 1, "{kind}: {verdicts:#?}");
    }
}
