//! The policy changes while everything runs: what was narrowed stops at the next action on every
//! path, scored by files; its benign twin goes on; what is widened again works again.

use crate::rest::{ALICE, BOB, until};
use conformance::pleach::Folder;
use conformance::served::{Served, text};
use serde_json::{Value, json};

/// Puts another policy in its place, at once, and waits until it is in force.
pub(crate) async fn change(folder: &Folder, served: &Served, policy: &str) {
    let before = taken(served).await;
    folder.write("pleach.toml.new", policy);
    std::fs::rename(folder.join("pleach.toml.new"), folder.join("pleach.toml")).unwrap();
    in_force(served, before).await;
}

/// Waits until something is so, while everything else goes on.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while !so() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain for {what}");
}

/// Waits until another change was taken.
pub(crate) async fn in_force(served: &Served, before: u64) {
    let waited = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while taken(served).await <= before {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "it was not taken: {}", served.log.lock().unwrap());
}

pub(crate) async fn taken(served: &Served) -> u64 {
    metric(served, "pleach_policy_changes_total").await
}

pub(crate) async fn metric(served: &Served, name: &str) -> u64 {
    let page = served.get("/metrics", &[ALICE]).await.body;
    let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {page}"));
    line.trim().parse().unwrap()
}

pub(crate) async fn call(served: &Served, who: (&str, &str), tool: &str, arguments: Value) -> String {
    let answer = served.modern("/mcp", "tools/call", json!({ "name": tool, "arguments": arguments }), &[who]).await;
    let json = answer.json();
    if json["error"].is_object() { json["error"].to_string() } else { text(&answer) }
}

const AGENTS: &str = r#"
[clients.alice]
token = "alice-alice-alice-alice"
can_approve = true
may_start = ["lead", "back", "again", "asker", "thinker", "talker"]
[clients.bob]
token = "bob-bob-bob-bob-bob-bob"
may_start = ["talker"]
[agents.lead]
prompt = "p"
subagents = ["mid", "leaf"]
[agents.mid]
prompt = "p"
subagents = ["leaf"]
[agents.leaf]
prompt = "p"
[agents.back]
prompt = "p"
subagents = ["below"]
[agents.below]
prompt = "p"
[agents.again]
prompt = "p"
[agents.asker]
prompt = "p"
[agents.talker]
prompt = "p"
[agents.loop]
prompt = "p"
tools = ["files__*"]
[agents.thinker]
prompt = "p"
"#;

fn policy(tools: &str, more: &str) -> String {
    format!(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n\
         [servers.files]\nbuiltin = \"workspace\"\n{more}\n[policy]\nmax_access = \"destructive\"\n\
         filesystem = {{ read = [\"docs\"], read_write = [\"out\"] }}\ntools = {{ {tools} }}\n{AGENTS}"
    )
}

fn reply(agent: &str, text: &str, tool: Option<(&str, Value)>) -> String {
    let mut out = format!("[[reply]]\nagent = \"{agent}\"\ntext = \"{text}\"\n");
    if let Some((name, input)) = tool {
        let fields: Vec<String> =
            input.as_object().unwrap().iter().map(|(key, value)| format!("{key} = {value}")).collect();
        out.push_str(&format!("[[reply.tool]]\nname = \"{name}\"\ninput = {{ {} }}\n", fields.join(", ")));
    }
    out
}

/// What an agent does once it may go on: it writes a file, and then another by another tool.
fn acts(root: &str, agent: &str) -> String {
    let write = json!({ "file_path": format!("{root}/out/{agent}"), "content": "x" });
    let twin = json!({ "command": format!("echo x >> {root}/out/{agent}.twin") });
    [
        reply(agent, "write", Some(("files__Write", write))),
        reply(agent, "twin", Some(("files__Bash", twin))),
        reply(agent, "end", None),
    ]
    .concat()
}

/// It says that it is there, and waits until it may go on.
fn waits(root: &str, agent: &str) -> String {
    let command = format!("touch {root}/out/{agent}.at; until [ -e {root}/out/go ]; do sleep 0.05; done");
    reply(agent, "wait", Some(("files__Bash", json!({ "command": command }))))
}

fn spawns(agent: &str, child: &str, background: bool) -> String {
    let input = json!({ "description": "d", "prompt": "p", "subagent_type": child, "run_in_background": background });
    reply(agent, "spawn", Some(("Agent", input))) + &reply(agent, "end", None) + &reply(agent, "end", None)
}

fn folder(tools: &str) -> Folder {
    let folder = Folder::new(&policy(tools, ""));
    let root = folder.path().display().to_string();
    let question = json!({ "question": "Which?", "options": ["go on", "stop"] });
    let script = [
        spawns("lead", "mid", false),
        spawns("mid", "leaf", false),
        waits(&root, "leaf") + &acts(&root, "leaf"),
        spawns("back", "below", true),
        waits(&root, "below") + &acts(&root, "below"),
        reply("again", "done", None) + &acts(&root, "again"),
        reply("asker", "ask", Some(("ask_user", question))) + &acts(&root, "asker"),
        waits(&root, "thinker") + &reply("thinker", "thought", None),
        waits(&root, "talker") + &reply("talker", "talked", None),
    ]
    .concat();
    folder.write("replies.toml", &script);
    folder.write("docs/a.md", "hello");
    std::fs::create_dir_all(folder.join("out")).unwrap();
    folder
}

const ALL: &str = "allow = [\"*\"]";
const NO_WRITE: &str = "allow = [\"*\"], deny = [\"files__Write\"]";

async fn start(served: &Served, agent: &str) -> String {
    crate::rest::start(served, ALICE, agent).await
}

async fn answer(served: &Served, run: &str) {
    let question = served.get(&format!("/v1/runs/{run}"), &[ALICE]).await.json()["questions"][0]["id"].clone();
    let at = format!("/v1/approvals/{}", question.as_str().unwrap());
    let answer = crate::rest::post(served, ALICE, &at, json!({ "input": "go on" })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Depth 2, background, follow-up, woken from a row, fork, direct call, and through Pleach
/// registered as its own server.
#[tokio::test]
async fn no_path_leads_around_a_narrowing() {
    let folder = folder(ALL);
    let served = Served::start(&folder);
    let own = format!(
        "[servers.self]\nurl = \"{}/mcp/agents/loop\"\ndefault_access = \"read-write\"\n\
         headers = {{ Authorization = \"Bearer alice-alice-alice-alice\" }}",
        served.base
    );
    // A server that is added is there.
    change(&folder, &served, &policy(ALL, &own)).await;
    let write = |name: &str| json!({ "file_path": folder.join(&format!("out/{name}")), "content": "x" });
    call(&served, ALICE, "self__files__Write", write("loop-before")).await;
    assert!(folder.join("out/loop-before").exists(), "{}", served.log.lock().unwrap());

    let (lead, back) = (start(&served, "lead").await, start(&served, "back").await);
    let (again, asker) = (start(&served, "again").await, start(&served, "asker").await);
    until(&served, ALICE, &again, "completed").await;
    until(&served, ALICE, &asker, "waiting").await;
    for at in ["leaf", "below"] {
        eventually(at, || folder.join(&format!("out/{at}.at")).exists()).await;
    }

    change(&folder, &served, &policy(NO_WRITE, &own)).await;
    folder.write("out/go", "");
    let said = crate::rest::post(&served, ALICE, &format!("/v1/runs/{again}/messages"), json!({ "text": "go" })).await;
    assert!(said.status < 300, "{said:?}");
    // What waited is told as unknown to a fork, which goes on at once.
    let events = folder.run(&["show", &asker, "--json"]).out.lines().count();
    let forked = crate::rest::post(&served, ALICE, &format!("/v1/runs/{asker}/fork"), json!({ "at": events })).await;
    assert_eq!(forked.status, 201, "{forked:?}");
    let forked = forked.json()["run"].as_str().unwrap().to_owned();
    answer(&served, &asker).await;
    for run in [&lead, &back, &again, &asker, &forked] {
        until(&served, ALICE, run, "completed").await;
    }
    let direct = call(&served, ALICE, "files__Write", write("direct")).await;
    assert!(direct.contains("Unknown tool"), "{direct}");
    let looped = call(&served, ALICE, "self__files__Write", write("loop")).await;
    let bash = |name: &str| json!({ "command": format!("echo x > {}", folder.join(&format!("out/{name}")).display()) });
    call(&served, ALICE, "files__Bash", bash("direct.twin")).await;
    call(&served, ALICE, "self__files__Bash", bash("loop.twin")).await;
    for name in ["leaf", "below", "again", "asker", "direct", "loop"] {
        assert!(!folder.join(&format!("out/{name}")).exists(), "{name} was written: {looped}");
        assert!(folder.join(&format!("out/{name}.twin")).exists(), "the twin of {name} was not");
    }
    assert_eq!(folder.read("out/asker.twin").unwrap().lines().count(), 2, "the run and its fork");

    // And back again.
    change(&folder, &served, &policy(ALL, &own)).await;
    call(&served, ALICE, "files__Write", write("direct")).await;
    // Its own list follows when it is told that the other's changed.
    let looped = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while !folder.join("out/loop").exists() {
            call(&served, ALICE, "self__files__Write", write("loop")).await;
        }
    });
    assert!(looped.await.is_ok(), "{}", served.log.lock().unwrap());
    let lead = start(&served, "lead").await;
    until(&served, ALICE, &lead, "completed").await;
    for name in ["leaf", "direct", "loop"] {
        assert!(folder.join(&format!("out/{name}")).exists(), "{name}: {}", served.log.lock().unwrap());
    }
}

/// A model that may not be asked any more is not asked by a run that is under way; another client's run goes on.
#[tokio::test]
async fn a_model_that_is_withdrawn_is_not_asked() {
    let folder = folder(ALL);
    let served = Served::start(&folder);
    let (thinker, talker) = (start(&served, "thinker").await, crate::rest::start(&served, BOB, "talker").await);
    for at in ["thinker", "talker"] {
        eventually(at, || folder.join(&format!("out/{at}.at")).exists()).await;
    }
    let narrowed = policy(ALL, "") + "[clients.alice.policy]\nmodels = []\n";
    change(&folder, &served, &narrowed).await;
    folder.write("out/go", "");
    let failed = until(&served, ALICE, &thinker, "failed").await;
    assert!(failed.to_string().contains("models"), "{failed}");
    assert_eq!(until(&served, BOB, &talker, "completed").await["text"], "talked");
}

/// What is no different for a client is not told to it; what is, is, once.
#[tokio::test]
async fn a_list_is_told_to_have_changed_when_it_did() {
    let folder = folder(ALL);
    let served = Served::start(&folder);
    let mut stream = served.listen("/mcp", json!({ "toolsListChanged": true }), &[ALICE]).await;
    stream.until("acknowledged").await;
    let other = policy(ALL, "") + "# nothing\n[clients.carol]\ntoken = \"carol-carol-carol-carol\"\n";
    change(&folder, &served, &other).await;
    change(&folder, &served, &policy(NO_WRITE, "")).await;
    stream.until("notifications/tools/list_changed").await;
    change(&folder, &served, &policy(ALL, "")).await;
    while stream.heard.matches("notifications/tools/list_changed").count() < 2 {
        let heard = stream.heard.len();
        stream.until_more(heard).await;
    }
    assert_eq!(stream.heard.matches("list_changed").count(), 2, "{}", stream.heard);
}
