//! Calling back: what a run has done at another gateway uses the tools here, with exactly what the
//! run gave along and as long as its call goes on. Scored by the files that are there.

use crate::a2a::{message, state};
use crate::a2a_hop::{AUTHORITY, SERVER, road, run, said, shown};
use crate::rest::{ALICE, post};
use conformance::pleach::Folder;
use conformance::served::{Answer, Served};
use conformance::upstream::Upstream;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const DORA: (&str, &str) = ("authorization", "Bearer dora-dora-dora-dora-dora");

/// The far gateway has no tools of its own: whatever `kid` does it does at the near one.
const FAR: &str = r#"
version = 1
GATEWAY
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.near]
url = "NEAR/mcp"
auth = { flow = "grant" }
default_access = "read-only"
[policy]
max_access = "read-write"
filesystem = { read_write = ["OUT"] }
tools = { allow = ["near__*"] }
[clients.near]
grant_key = "KEY"
may_start = ["worker"]
[clients.dora]
token = "dora-dora-dora-dora-dora"
may_start = ["worker"]
[agents.worker]
prompt = "p"
expose = true
subagents = ["kid"]
[agents.kid]
prompt = "p"
"#;
const FAR_REPLIES: &str = r#"
[[reply]]
agent = "worker"
text = "I have it done."
turn = 0
[[reply.tool]]
name = "Agent"
input = { description = "d", prompt = "{{prompt}}", subagent_type = "kid" }
[[reply]]
agent = "worker"
text = "far: {{result}}"
turn = 1
KID
[[reply]]
agent = "kid"
text = "kid: {{result}}"
turn = 1
"#;

/// The near gateway has the tools, and more of them than its runs may use.
const NEAR: &str = r#"
version = 1
[gateway]
public_url = "BASE"
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.n]
command = "python3"
args = ["srv/server.py"]
runtime_paths = ["srv"]
default_access = "read-write"
tools = { put = { path_args = ["/path"] }, other = { path_args = ["/path"] } }
[peers.far]
card = "CARD"
delegate = true
callback = true
default_access = "read-only"
tools = { worker = { effect = "idempotent" } }
timeout = 600000
[policy]
max_access = "read-write"
filesystem = { read_write = ["out/ok"] }
tools = { allow = ["*"], deny = ["n__other"] }
[clients.alice]
token = "alice-alice-alice-alice"
may_start = ["boss", "reader", "narrow", "silent"]
[agents.kid]
prompt = "here it only has a name"
[agents.boss]
prompt = "p"
subagents = ["kid"]
[agents.reader]
prompt = "p"
subagents = ["kid"]
subagent_policy = { max_access = "read-only" }
policy = { max_access = "read-only" }
[agents.narrow]
prompt = "p"
subagents = ["kid"]
policy = { filesystem = { read_write = ["out/ok/deep"] } }
[agents.silent]
prompt = "p"
subagents = ["kid"]
policy = { tools = { allow = ["far__*", "near__*"] } }
"#;
const NEAR_REPLIES: &str = r#"
[[reply]]
text = "I send it."
turn = 0
[[reply.tool]]
name = "far__worker"
input = { message = "{{prompt}}" }
[[reply]]
text = "near: {{result}}"
turn = 1
"#;

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Two {
    near_folder: Folder,
    far_folder: Folder,
    near_port: u16,
}

/// Both folders. Where the near one finds its card, `card` says.
fn two(gateway: &str) -> Two {
    let near_folder = Folder::new("version = 1\n");
    let near_port = free_port();
    let out = near_folder.join("out");
    near_folder.write("out/ok/deep/.keep", "");
    near_folder.write("srv/server.py", SERVER);
    near_folder.write("replies.toml", NEAR_REPLIES);
    let key = near_folder.run(&["token", "key"]).out;
    let far = FAR
        .replace("GATEWAY", gateway)
        .replace("KEY", key.trim())
        .replace("NEAR", &format!("http://127.0.0.1:{near_port}"))
        .replace("OUT", &out.display().to_string());
    let far_folder = Folder::new(&far);
    let mut kid = String::new();
    for (first, folder) in [("root", ""), ("ok", "/ok"), ("deep", "/ok/deep")] {
        for tool in ["put", "other"] {
            kid += &format!(
                "[[reply]]\nagent = \"kid\"\nwhen = \"^{first} .*-{tool}$\"\ntext = \"I do.\"\nturn = 0\n\
                 [[reply.tool]]\nname = \"near__n__{tool}\"\ninput = {{ path = \"{}{folder}/{{{{prompt}}}}\" }}\n",
                out.display()
            );
        }
    }
    far_folder.write("replies.toml", &FAR_REPLIES.replace("KID", &kid));
    Two { near_folder, far_folder, near_port }
}

impl Two {
    fn near(&self, card: &str) -> Served {
        let base = format!("http://127.0.0.1:{}", self.near_port);
        self.near_folder.write("pleach.toml", &NEAR.replace("CARD", card).replace("BASE", &base));
        self.near_again()
    }
    fn near_again(&self) -> Served {
        Served::of(self.near_folder.command(&["serve", "--listen", &format!("127.0.0.1:{}", self.near_port)]))
    }
    fn is_there(&self, file: &str) -> bool {
        let folder = match file.split(' ').next() {
            Some("root") => "out",
            Some("ok") => "out/ok",
            _ => "out/ok/deep",
        };
        self.near_folder.join(folder).join(file).exists()
    }
}

#[tokio::test]
async fn a_child_on_another_machine_comes_back_with_what_its_parent_gave() {
    let two = two("");
    let far = Served::start(&two.far_folder);
    let near = two.near(&format!("{}/a2a/worker/.well-known/agent-card.json", far.base));
    // Agent, file, whether it may be there at the end, and words of the reason.
    let cases = [
        ("boss", "ok 1-put", true, "left it"),
        ("boss", "root 1-put", false, "does not cover"),
        ("boss", "ok 1-other", false, "n__other"),
        ("reader", "ok 2-put", false, "no tool named near__n__put"),
        ("narrow", "ok 3-put", false, "does not cover"),
        ("narrow", "deep 3-put", true, "left it"),
        ("silent", "ok 4-put", false, "n__put"),
        ("boss", "ok 5-put", true, "left it"),
    ];
    for (agent, file, there, words) in cases {
        let done = run(&near, agent, file).await;
        assert_eq!(two.is_there(file), there, "{agent} {file}: {done}\n{}\n{}", said(&far), said(&near));
        assert!(done.to_string().contains(words), "{agent} {file}: {words:?} is not in {done}");
    }
    // Two tasks at once have what each brought along.
    let (one, other) = tokio::join!(run(&near, "boss", "ok 6-put"), run(&near, "reader", "ok 7-put"));
    assert!(two.is_there("ok 6-put") && !two.is_there("ok 7-put"), "{one}\n{other}");
    // Nobody else's run has any of it.
    let task = crate::a2a::send(&far, DORA, "worker", message("m-1", "ok 8-put")).await;
    assert!(!two.is_there("ok 8-put"), "{task}");
    assert!(task.to_string().contains("no such tool") || task.to_string().contains("call back"), "{task}");
    // Where nothing may come back, nothing does.
    drop(near);
    let policy = two.near_folder.read("pleach.toml").unwrap();
    two.near_folder.write("pleach.toml", &policy.replace("callback = true\n", ""));
    let near = two.near_again();
    let done = run(&near, "boss", "ok 9-put").await;
    assert!(!two.is_there("ok 9-put"), "{done}");
    assert!(done.to_string().contains("call back"), "{done}");
}

/// A call of an MCP tool with a token.
async fn put(near: &Served, token: &str, tool: &str, path: &Path) -> Answer {
    let bearer = format!("Bearer {token}");
    let call = json!({ "name": format!("n__{tool}"), "arguments": { "path": path } });
    near.modern("/mcp", "tools/call", call, &[("authorization", &bearer)]).await
}

/// What the near gateway sends along for a run of `boss`, caught on its way: the message, the grant,
/// what may come back, and the run.
async fn caught(near: &Served, road: &Upstream, file: &str) -> (Value, String, String, String) {
    let before = road.came_to("/a2a/worker").len();
    let answer = post(near, ALICE, "/v1/runs", json!({ "agent": "boss", "prompt": file })).await;
    let run = answer.json()["run"].as_str().unwrap().to_owned();
    let mut seen = road.until_at("/a2a/worker", before + 1).await.remove(before);
    seen.body["params"]["configuration"]["returnImmediately"] = false.into();
    let grant = seen.header("authorization").strip_prefix("Bearer ").unwrap().to_owned();
    let callback = seen.body["params"]["metadata"][AUTHORITY]["callback"].clone();
    assert_eq!(callback["url"], format!("{}/mcp", near.base), "{}", seen.body);
    (seen.body["params"].clone(), grant, callback["token"].as_str().unwrap().to_owned(), run)
}

/// Until a token is refused; what was said then.
async fn refused_at_last(near: &Served, token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let refused = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let answer = near.modern("/mcp", "tools/list", json!({}), &[("authorization", &bearer)]).await;
            if answer.status != 200 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    refused.await.expect("it is still believed")
}

/// Whether any file below a folder has these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let found = match () {
            () if kind.is_dir() => holds(&path, bytes),
            () if kind.is_file() => {
                let content = std::fs::read(&path).unwrap_or_default();
                content.windows(bytes.len()).any(|window| window == bytes).then_some(path)
            }
            () => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

#[tokio::test]
async fn what_comes_back_is_good_in_its_place_while_its_task_goes_on() {
    let road = road();
    let two = two(&format!("[gateway]\npublic_url = {:?}", road.base));
    let far = Served::start(&two.far_folder);
    let near = two.near(&format!("{}/card.json", road.base));
    let (params, grant, token, id) = caught(&near, &road, "ok 5-put").await;
    let out = two.near_folder.join("out");
    let refused = |answer: &Answer, status: u16, words: &str| {
        assert!(answer.status == status && answer.body.contains(words), "{status} {words:?}: {answer:?}");
    };
    // At the endpoint it has the run's rights, and nothing else has any use for it.
    let answer = put(&near, &token, "put", &out.join("root 1")).await;
    assert!(!out.join("root 1").exists() && answer.body.contains("does not cover"), "{answer:?}");
    let answer = put(&near, &token, "other", &out.join("ok/1")).await;
    assert!(!out.join("ok/1").exists(), "{answer:?}");
    let answer = put(&near, &token, "put", &out.join("ok/1")).await;
    assert!(out.join("ok/1").exists(), "{answer:?}");
    let bearer = format!("Bearer {token}");
    let with = [("authorization", bearer.as_str())];
    let at_agent = near.modern("/mcp/agents/boss", "tools/list", json!({}), &with).await;
    refused(&at_agent, 401, "at /mcp and nowhere else");
    refused(&near.get("/v1/runs", &with).await, 401, "at /mcp and nowhere else");
    refused(&far.modern("/mcp", "tools/list", json!({}), &with).await, 401, "it is good at");
    // Less of it can be made, and never more again.
    let less = two.far_folder.run(&["token", "attenuate", &token, "--max-access", "read-only"]);
    let wider = two.far_folder.run(&["token", "attenuate", less.out.trim(), "--max-access", "destructive"]);
    let answer = put(&near, wider.out.trim(), "put", &out.join("ok/2")).await;
    assert!(wider.code == 0 && !out.join("ok/2").exists(), "{answer:?}");
    // A stranger's, and one that is over by itself.
    let strange = two.far_folder.run(&["token", "mint", "--client", "dora", "--url", &near.base]).out;
    refused(&put(&near, strange.trim(), "put", &out.join("ok/3")).await, 401, "no key that is known here");
    let short = two.far_folder.run(&["token", "attenuate", &token, "--ttl", "1s"]).out;
    refused(&refused_at_last(&near, short.trim()).await, 401, "it is not good any more");
    // On its way it goes with its message: neither alone, nor another in its place.
    let mut stripped = params.clone();
    stripped.as_object_mut().unwrap().remove("metadata");
    refused(&shown(&far, &grant, "SendMessage", &stripped).await, 403, "goes with");
    let mut swapped = params.clone();
    swapped["metadata"][AUTHORITY]["callback"]["token"] = less.out.trim().into();
    refused(&shown(&far, &grant, "SendMessage", &swapped).await, 403, "goes with");
    assert!(!two.is_there("ok 5-put"));
    let done = shown(&far, &grant, "SendMessage", &params).await.json();
    assert_eq!(state(&done["result"]["task"]), "TASK_STATE_COMPLETED", "{done}");
    assert!(two.is_there("ok 5-put"), "{done}\n{}", said(&far));
    // No file of either side has it in clear.
    for folder in [&two.near_folder, &two.far_folder] {
        let found = holds(folder.path(), &token.as_bytes()[token.len() - 60..]);
        assert_eq!(found, None, "the token stands in a file");
    }
    assert!(!said(&near).contains(&token) && !said(&far).contains(&token));
    // It is good for its own task and no longer: another task's is another one.
    let (_, _, second, _) = caught(&near, &road, "ok 6-put").await;
    let mut listens = near.listen("/mcp", json!({ "toolsListChanged": true }), &with).await;
    listens.until("acknowledged").await;
    let answer = near.post(&format!("/v1/runs/{id}/cancel"), &[ALICE], "").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    refused(&refused_at_last(&near, &token).await, 401, "is over");
    // Whatever listened with it hears no more.
    listens.end().await;
    let answer = put(&near, &token, "put", &out.join("ok/7")).await;
    assert!(answer.status == 401 && !out.join("ok/7").exists(), "{answer:?}");
    let answer = put(&near, &second, "put", &out.join("ok/8")).await;
    assert!(out.join("ok/8").exists(), "{answer:?}");
    // The message again, from whoever kept it: the task is known, and has nothing to come back with.
    let again = shown(&far, &grant, "SendMessage", &params).await.json();
    assert_eq!(again["result"]["task"]["id"], done["result"]["task"]["id"], "{again}");
}

/// A stream ends when the token is over that it was opened with; another goes on.
#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let policy = "version = 1\n[servers.files]\nbuiltin = \"workspace\"\n[policy]\ntools.allow = [\"files__Read\", \"files__Glob\"]\n\
        filesystem = { read = [\"out\"] }\n[clients.alice]\ntoken = \"alice-alice-alice-alice\"\n";
    let folder = Folder::new(policy);
    folder.write("out/a.md", "a");
    let served = Served::start(&folder);
    let mint = |ttl: &str| {
        let minted = folder.run(&["token", "mint", "--client", "alice", "--url", &served.base, "--ttl", ttl]);
        assert_eq!(minted.code, 0, "{minted:?}");
        format!("Bearer {}", minted.out.trim())
    };
    let (short, long) = (mint("2s"), mint("15m"));
    let open = async |token: &str| {
        let wanted = json!({ "toolsListChanged": true });
        let mut stream = served.listen("/mcp", wanted, &[("authorization", token)]).await;
        stream.until("acknowledged").await;
        stream
    };
    let (mut own, mut long) = (open(ALICE.1).await, open(&long).await);
    open(&short).await.end().await;
    // What is taken away is taken from both: a token never holds more than when it was made.
    folder.write("pleach.toml", &policy.replace(", \"files__Glob\"", ""));
    own.until("list_changed").await;
    long.until("list_changed").await;
}
