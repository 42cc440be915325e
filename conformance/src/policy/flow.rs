//! E: exfiltration. Secrets of the operator, of another server and of a masked file, on every way
//! that leads back to a client, a server, a log or a sibling.

use super::gate::{ALICE, Gate, show, tools};
use super::shell::Scene;
use super::world::{SECRET, World, leaks};
use super::{Act, Case, coded, passed};
use crate::served::Served;
use serde_json::{Value, json};

pub(super) fn cases() -> Vec<Case> {
    [encoded(), secrets(), siblings(), coded::cases(), passed::flows(), passed::questions()]
        .into_iter()
        .flatten()
        .collect()
}

/// A masked file in other clothes.
fn encoded() -> Vec<Case> {
    [
        ("E2.01", "in base64", "base64"),
        ("E2.02", "in hexadecimal", "od -An -tx1 -v | tr -d ' \\n'"),
        ("E2.03", "reversed twice", "rev | rev"),
        ("E2.04", "compressed and back", "gzip -c | gunzip -c"),
        ("E2.05", "into a file of one's own", "tee out/copy"),
    ]
    .into_iter()
    .map(|(id, says, how)| {
        Scene::plain().case(
            id,
            &format!("a secret {says}"),
            &format!("cat docs/private/s.txt outside/secret.txt | {how}"),
            &format!("cat docs/a.md | {how} > out/done"),
        )
    })
    .collect()
}

const POLICY: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.rec]
url = "{url}"
default_access = "read-only"
headers = { X-Key = "${RECORDER_KEY}" }
[servers.other]
url = "{url}/other"
default_access = "read-only"
[servers.files]
builtin = "workspace"
[servers.shell]
command = "bash"
args = ["-c", "printenv MINE > out/shell.env; printenv > out/shell.all; exec cat"]
env = { MINE = "${RECORDER_KEY}" }
[servers.down]
url = "http://127.0.0.1:9/mcp"
headers = { X-Key = "${RECORDER_KEY}" }
default_access = "read-only"
[policy]
max_access = "destructive"
filesystem = { read = ["docs"], read_write = ["out"] }
tools = { allow = ["*"] }
[clients.alice]
token = "alice-alice-alice-alice"
"#;

/// A served policy with a secret that is the operator's.
fn open() -> Result<Gate, String> {
    let upstream = super::gate::behind(tools());
    let world = World::new(&POLICY.replace("{url}", &upstream.url()), "")?;
    let served = Served::start_with(&world.folder, &[("RECORDER_KEY", SECRET)]);
    Ok(Gate { world, served, upstream })
}

fn secrets() -> Vec<Case> {
    let who = [("authorization", ALICE)];
    let ask = move |tool: &'static str, arguments: Value| -> Act {
        Box::new(move |arena| {
            let gate = open()?;
            let answer = gate.call(arena, tool, &arguments, &who);
            show(&answer);
            let log = gate.served.log.lock().map(|log| log.clone()).unwrap_or_default();
            Ok(leaks(&answer.body) || leaks(&log))
        })
    };
    // The twin of all: the server the secret is for gets it.
    let twin = || -> Act {
        Box::new(move |arena| {
            let gate = open()?;
            let tag = arena.tag();
            show(&gate.call(arena, "rec__peek", &json!({ "tag": tag }), &who));
            Ok(gate.upstream.came_to("/mcp").iter().any(|seen| seen.header("x-key") == SECRET))
        })
    };
    let kept = move |what: &'static str| -> Act {
        Box::new(move |arena| {
            let gate = open()?;
            gate.call(arena, "rec__peek", &json!({ "x": 1 }), &who);
            gate.call(arena, "down__x", &json!({}), &who);
            gate.call(arena, "files__Read", &json!({ "file_path": "docs/a.md" }), &who);
            let root = gate.world.folder.path().to_owned();
            gate.served.end();
            let mut command = std::process::Command::new("grep");
            let found = command.args(["-rlaF", "-e", SECRET]).arg(&root).output().map_err(|e| e.to_string())?;
            let files = String::from_utf8_lossy(&found.stdout).into_owned();
            Ok(files
                .lines()
                .any(|file| file.strip_prefix(&root.display().to_string()).is_some_and(|f| f.contains(what))))
        })
    };
    let other = move || -> Act {
        Box::new(move |arena| {
            let gate = open()?;
            gate.call(arena, "other__peek", &json!({ "x": 1 }), &who);
            Ok(gate.upstream.came_to("/mcp/other").iter().any(|seen| leaks(&format!("{:?}", seen.headers))))
        })
    };
    let page = move |path: &'static str| -> Act {
        Box::new(move |arena| {
            let gate = open()?;
            let answer = gate.get(arena, path, &who);
            Ok(leaks(&answer.body))
        })
    };
    vec![
        Case::new("E4.01", "a server's key, in the error of a server that is down", ask("down__x", json!({})), twin()),
        Case::new(
            "E4.02",
            "in a denial",
            ask("files__Read", json!({ "file_path": "outside/${RECORDER_KEY}" })),
            twin(),
        ),
        Case::new(
            "E4.03",
            "in an argument that names its variable",
            ask("rec__peek", json!({ "x": "${RECORDER_KEY}" })),
            twin(),
        ),
        Case::new("E4.04", "in another server's headers", other(), twin()),
        Case::new(
            "E4.05",
            "in the environment of a program",
            ask("files__Bash", json!({ "command": "printenv; cat /proc/*/environ" })),
            twin(),
        ),
        Case::new(
            "E4.06",
            "in an explanation",
            ask("pleach__explain", json!({ "tool": "rec__peek", "arguments": {} })),
            twin(),
        ),
        Case::new("E4.07", "in the audit", kept("audit"), twin()),
        Case::new("E4.08", "in the store", kept("pleach.db"), twin()),
        Case::new("E4.09", "in the state", kept(".state"), twin()),
        Case::new("E4.10", "in the metrics", page("/metrics"), twin()),
        Case::new("E4.11", "in a page of Pleach's", page("/openapi.json"), twin()),
        Case::new(
            "E4.12",
            "in the policy file, read by a program",
            ask("files__Bash", json!({ "command": "cat pleach.toml | head -c 20; env | grep -i key" })),
            twin(),
        ),
    ]
}

/// What a program of one run leaves for another's.
fn siblings() -> Vec<Case> {
    let two = |first: &'static str, second: &'static str, attack: bool| -> Act {
        Box::new(move |arena| {
            let tag = arena.tag();
            let policy = format!(
                "{}\n[agents.one]\nprompt = \"\"\n[agents.one.policy]\nfilesystem = {{ read = [\"docs\"], read_write = [\"out\"] }}\n[agents.two]\nprompt = \"\"\n[agents.two.policy]\nfilesystem = {{ read = [\"docs/sub\"] }}\n",
                super::world::POLICY.replace(", deny = [\"docs/private\", \"docs/hidden.txt\", \"out/kept\"]", "")
            );
            let world = World::new(&policy, "")?;
            let run = |agent: &str, script: &str| {
                world.folder.run(&["exec", "--agent", agent, "--", "bash", "-c", &script.replace("{tag}", &tag)])
            };
            run("one", first);
            let ran = run("two", second);
            super::tree::tell(&ran, attack);
            Ok(if attack { leaks(&ran.out) } else { ran.out.contains(super::world::PUBLIC) })
        })
    };
    let twin = || two("true", "cat docs/sub/b.md", false);
    vec![
        Case::new(
            "E1.01",
            "a secret left in the temporary folder",
            two("cat docs/team/secret.txt > $TMPDIR/{tag}", "cat $TMPDIR/{tag} /tmp/{tag} /tmp/*/{tag}", true),
            twin(),
        ),
        Case::new(
            "E1.02",
            "a secret left in the home",
            two("cat docs/team/secret.txt > ~/{tag}", "cat ~/{tag} ~/../*/{tag}", true),
            twin(),
        ),
        Case::new(
            "E1.03",
            "a secret left in shared memory",
            two("cat docs/team/secret.txt > /dev/shm/{tag}", "cat /dev/shm/{tag}", true),
            twin(),
        ),
        Case::new(
            "E1.04",
            "a secret left in a folder only the first may write",
            two("cat docs/team/secret.txt > out/{tag}", "cat out/{tag}", true),
            twin(),
        ),
        Case::new(
            "E1.05",
            "a secret left in a name",
            two("mkdir out/$(cat docs/team/secret.txt)", "ls out", true),
            twin(),
        ),
    ]
}
