//! I: inheritance. What a child asks for beyond its parent, on every way a child comes to be.

use super::gate::{Gate, show, tools};
use super::tree::{Tree, bash, read, script, spawn, tell, write};
use super::world::{POLICY, World};
use super::{Act, Case, approvals, hop, later};
use crate::served::Served;
use serde_json::{Value, json};

/// `lead` may write below `out/lead`, read `docs` but not all of it, and not run programs; its
/// children have no table of their own.
const AGENTS: &str = r#"
[agents.lead]
prompt = "p"
subagents = ["kid", "grand"]
[agents.lead.policy]
max_access = "read-write"
filesystem = { read = ["docs/sub", "docs/a.md"], read_write = ["out/lead"] }
tools = { allow = ["files__*"], deny = ["files__Edit"] }
[agents.kid]
description = "k"
prompt = "p"
subagents = ["grand"]
[agents.grand]
description = "g"
prompt = "p"
[agents.stranger]
description = "s"
prompt = "p"
"#;

pub(super) fn cases() -> Vec<Case> {
    let own = [requests(), descendants(), flags(), limits(), later(), doors()];
    own.into_iter().chain([approvals::given(), approvals::rules(), hop::cases(), later::cases()]).flatten().collect()
}

fn files(kind: &str, path: &str) -> Value {
    json!({ "filesystem": { kind: [path] } })
}

/// What a child asks for, and what it then does.
fn requests() -> Vec<Case> {
    let tree = Tree::of(AGENTS);
    let case =
        |id: &str, says: &str, ask: Value, does: (&'static str, Value), fine: Value, twin: (&'static str, Value)| {
            let steps = |ask: Value, does| vec![("lead", vec![spawn("kid", ask)]), ("kid", vec![does])];
            tree.case(id, says, steps(ask, does), steps(fine, twin))
        };
    let fine = || files("read", "docs/sub");
    let ok = || read("docs/sub/b.md");
    let outside = "outside/secret.txt";
    vec![
        case("I1.01", "a folder outside", files("read", "outside"), read(outside), fine(), ok()),
        case("I1.02", "everything", files("read", "/"), read(outside), fine(), ok()),
        case("I1.03", "everything here", files("read_write", "."), read(outside), fine(), ok()),
        case("I1.04", "a folder its parent lost", files("read", "docs"), read("docs/team/secret.txt"), fine(), ok()),
        case(
            "I1.05",
            "a denied folder by name",
            files("read", "docs/private"),
            read("docs/private/s.txt"),
            fine(),
            ok(),
        ),
        case(
            "I1.06",
            "to write what may be read",
            files("read_write", "docs/sub"),
            write("docs/sub/b.md"),
            files("read_write", "out/lead"),
            write("out/lead/../lead/x"),
        ),
        case(
            "I1.07",
            "nothing, and uses what its parent lost",
            Value::Null,
            read("docs/team/secret.txt"),
            Value::Null,
            ok(),
        ),
        case(
            "I1.08",
            "nothing, and writes beside its parent's folder",
            Value::Null,
            write("out/evil"),
            Value::Null,
            ok(),
        ),
        case(
            "I1.09",
            "a higher ceiling",
            json!({ "max_access": "destructive" }),
            bash("touch out/evil; cat docs/team/secret.txt"),
            json!({ "max_access": "read-only" }),
            ok(),
        ),
        case(
            "I1.10",
            "a tool its parent may not use",
            json!({ "tools": { "allow": ["files__Edit"] } }),
            ("files__Edit", json!({ "file_path": "out/lead/e", "old_string": "a", "new_string": "b" })),
            json!({ "tools": { "allow": ["files__Read"] } }),
            ok(),
        ),
        case(
            "I1.11",
            "no sandbox",
            json!({ "sandbox": { "profile": "off" } }),
            read(outside),
            json!({ "sandbox": { "profile": "full" } }),
            ok(),
        ),
        case(
            "I1.12",
            "a weaker sandbox",
            json!({ "sandbox": { "profile": "no-namespaces" } }),
            read(outside),
            json!({ "sandbox": { "profile": "full" } }),
            ok(),
        ),
        case(
            "I1.13",
            "hosts",
            json!({ "domains": { "allow": ["evil.test"] } }),
            read(outside),
            json!({ "domains": { "allow": [] } }),
            ok(),
        ),
        case(
            "I1.14",
            "networks",
            json!({ "networks": { "allow": ["0.0.0.0/0"] } }),
            read(outside),
            json!({ "networks": { "allow": [] } }),
            ok(),
        ),
        case(
            "I1.15",
            "no denials",
            json!({ "filesystem": { "read": ["docs/sub", "docs/private"], "deny": [] } }),
            read("docs/private/s.txt"),
            fine(),
            ok(),
        ),
        case(
            "I1.16",
            "a folder by a link",
            files("read", "out/../outside"),
            read(outside),
            files("read", "docs/../docs/sub"),
            ok(),
        ),
        case("I1.17", "a key there is none of", json!({ "allow_everything": true }), read(outside), json!({}), ok()),
        case(
            "I1.18",
            "a mode that replaces the policy",
            json!({ "mode": "bypassPermissions" }),
            read(outside),
            json!({}),
            ok(),
        ),
        case(
            "I1.19",
            "a policy that is a list",
            json!([{ "filesystem": { "read": ["/"] } }]),
            read(outside),
            json!({}),
            ok(),
        ),
        case("I1.20", "a policy that is a text", json!("destructive"), read(outside), json!({}), ok()),
    ]
}

/// Further down, and beside.
fn descendants() -> Vec<Case> {
    let tree = Tree::of(AGENTS);
    let two = |ask: Value, again: Value, does: (&'static str, Value)| {
        vec![("lead", vec![spawn("kid", ask)]), ("kid", vec![spawn("grand", again)]), ("grand", vec![does])]
    };
    let narrow = || files("read", "docs/sub");
    let ok = || two(narrow(), Value::Null, read("docs/sub/b.md"));
    let background = |does: (&'static str, Value)| {
        let mut input = spawn("kid", Value::Null);
        input.1["run_in_background"] = true.into();
        vec![("lead", vec![input]), ("kid", vec![does])]
    };
    vec![
        tree.case(
            "I2.01",
            "a grandchild asks for what its parent gave up",
            two(narrow(), files("read_write", "out/lead"), write("out/lead/evil")),
            ok(),
        ),
        tree.case(
            "I2.02",
            "a grandchild asks for what its grandparent lacks",
            two(Value::Null, files("read", "docs"), read("docs/team/secret.txt")),
            ok(),
        ),
        tree.case(
            "I2.03",
            "a grandchild asks for nothing and uses it",
            two(narrow(), Value::Null, read("outside/secret.txt")),
            ok(),
        ),
        tree.case(
            "I2.04",
            "an agent that is not in the list",
            vec![("lead", vec![spawn("stranger", Value::Null)]), ("stranger", vec![write("out/lead/evil")])],
            ok(),
        ),
        tree.case(
            "I2.05",
            "a grandchild that the child may not start",
            vec![
                ("lead", vec![spawn("kid", Value::Null)]),
                ("kid", vec![spawn("stranger", Value::Null)]),
                ("stranger", vec![write("out/lead/evil")]),
            ],
            ok(),
        ),
        tree.case(
            "I2.06",
            "a child that starts its parent",
            vec![
                ("lead", vec![spawn("kid", Value::Null)]),
                ("kid", vec![spawn("lead", Value::Null), write("out/evil")]),
            ],
            ok(),
        ),
        tree.case(
            "I2.07",
            "a child that starts itself",
            vec![
                ("lead", vec![spawn("kid", Value::Null)]),
                ("kid", vec![spawn("kid", Value::Null), read("outside/secret.txt")]),
            ],
            ok(),
        ),
        tree.case(
            "I2.08",
            "an agent there is none of",
            vec![("lead", vec![spawn("nobody", Value::Null), read("outside/secret.txt")])],
            ok(),
        ),
        tree.case(
            "I3.01",
            "a child in the background",
            background(read("docs/team/secret.txt")),
            background(write("out/lead/../../out/lead/done")),
        ),
        tree.case(
            "I3.02",
            "the older name of the tool",
            vec![
                ("lead", vec![("Task", spawn("kid", files("read", "/")).1)]),
                ("kid", vec![read("outside/secret.txt")]),
            ],
            vec![("lead", vec![("Task", spawn("kid", Value::Null).1)]), ("kid", vec![read("docs/sub/b.md")])],
        ),
    ]
}

/// What a model writes beside what there is.
fn flags() -> Vec<Case> {
    let tree = Tree::of(
        "\n[agents.lead]\nprompt = \"p\"\nsubagents = [\"kid\"]\n[agents.kid]\ndescription = \"k\"\nprompt = \"p\"\n",
    );
    let one = |tool: &'static str, input: Value| vec![("lead", vec![(tool, input)])];
    let secret = "cat outside/secret.txt";
    let fine = || one("files__Bash", json!({ "command": "cat docs/a.md" }));
    let with = |key: &str, value: Value| {
        let mut input = json!({ "command": secret });
        input[key] = value;
        one("files__Bash", input)
    };
    let spawned = |key: &str, value: Value| {
        let mut input = spawn("kid", Value::Null);
        input.1[key] = value;
        vec![("lead", vec![input]), ("kid", vec![bash(secret)])]
    };
    vec![
        tree.case(
            "I6.01",
            "the sandbox switched off by an argument",
            with("dangerouslyDisableSandbox", true.into()),
            fine(),
        ),
        tree.case("I6.02", "by another word", with("sandbox", false.into()), fine()),
        tree.case("I6.03", "a working folder", with("cwd", "/".into()), fine()),
        tree.case("I6.04", "an environment", with("env", json!({ "LD_PRELOAD": "/x" })), fine()),
        tree.case("I6.05", "a mode for a child", spawned("permission_mode", "bypassPermissions".into()), fine()),
        tree.case("I6.06", "a working folder for a child", spawned("cwd", "/".into()), fine()),
        tree.case("I6.07", "tools for a child", spawned("tools", json!(["*"])), fine()),
        tree.case(
            "I6.08",
            "a prompt for a child that is a policy",
            spawned("prompt", "[policy]\nmax_access = \"destructive\"\nfilesystem.read = [\"/\"]".into()),
            fine(),
        ),
        tree.case(
            "I6.09",
            "a name with a server of another",
            one("files__Read__x", json!({ "file_path": "outside/secret.txt" })),
            fine(),
        ),
        tree.case(
            "I6.10",
            "an approval by an agent",
            one("pleach__answer", json!({ "id": "q", "answer": "allow" }))
                .into_iter()
                .chain(one("files__Bash", json!({ "command": secret })))
                .take(1)
                .collect(),
            fine(),
        ),
    ]
}

/// Counted limits.
fn limits() -> Vec<Case> {
    let deep = Tree::of(&format!("{AGENTS}\n[agents.lead.policy.spawn]\nmax_depth = 1\n"));
    let calls = Tree::of(&format!("{AGENTS}\n[agents.lead.policy.budget]\ntool_calls = 4\n"));
    let count = Tree::of(&format!("{AGENTS}\n[agents.lead.policy.spawn]\nmax_total = 2\n"));
    let down = |does: (&'static str, Value)| {
        vec![
            ("lead", vec![spawn("kid", Value::Null)]),
            ("kid", vec![spawn("grand", Value::Null)]),
            ("grand", vec![does]),
        ]
    };
    let one = |does: (&'static str, Value)| vec![("lead", vec![spawn("kid", Value::Null)]), ("kid", vec![does])];
    let wider = |budget: Value, does: Vec<(&'static str, Value)>| {
        let mut input = spawn("kid", Value::Null);
        input.1["budget"] = budget;
        vec![("lead", vec![input]), ("kid", does)]
    };
    let many = || {
        vec![
            read("docs/a.md"),
            read("docs/a.md"),
            read("docs/a.md"),
            read("docs/a.md"),
            read("docs/a.md"),
            write("out/lead/evil"),
        ]
    };
    vec![
        deep.case("I1.30", "deeper than the parent may", down(write("out/lead/evil")), one(read("docs/sub/b.md"))),
        calls.case(
            "I11.01",
            "more calls than the parent has",
            one(("files__Read", json!({ "file_path": "docs/a.md" })))
                .into_iter()
                .take(1)
                .chain([("kid", many())])
                .collect(),
            one(read("docs/sub/b.md")),
        ),
        calls.case(
            "I11.02",
            "a child that asks for more calls",
            wider(json!({ "tool_calls": 1000 }), many()),
            wider(json!({ "tool_calls": 2 }), vec![read("docs/sub/b.md")]),
        ),
        count.case(
            "I11.03",
            "more children than the tree may have",
            vec![
                ("lead", vec![spawn("kid", Value::Null), spawn("kid", Value::Null), spawn("grand", Value::Null)]),
                ("kid", vec![read("docs/a.md")]),
                ("grand", vec![write("out/lead/evil")]),
            ],
            one(read("docs/sub/b.md")),
        ),
    ]
}

/// A run that goes on under another policy, or with another's leave.
fn later() -> Vec<Case> {
    let agents = "\n[agents.lead]\nprompt = \"p\"\n";
    let asks = |steps: Vec<(&'static str, Value)>| -> Vec<(&'static str, Value)> {
        let question = ("ask_user", json!({ "question": "Which?", "options": ["on", "off"] }));
        std::iter::once(question).chain(steps).collect()
    };
    // Parked under one policy, gone on with under another.
    let narrowed = move |attack: bool, fork: bool| -> Act {
        Box::new(move |_| {
            let mut world = World::new(&format!("{POLICY}{agents}"), "")?;
            world.replies(&script(&vec![("lead", asks(vec![write(if attack { "out/evil" } else { "out/done" })]))])?);
            let run = |args: &[&str]| {
                let ran = world.folder.run(args);
                tell(&ran, attack);
                ran
            };
            run(&["run", "--agent", "lead", "--json", "go"]);
            if attack {
                let narrow =
                    POLICY.replace("read_write = [\"out\"]", "read_write = []").replace("\"out/kept\"", "\"docs/x\"");
                world.folder.write("pleach.toml", &format!("{narrow}{agents}"));
            }
            let question = world.question()?;
            if fork {
                let id = world.run_id()?;
                run(&["fork", &id, "--at", "3"]);
            }
            run(&["answer", &question, "--input", "\"on\""]);
            let id = world.run_id()?;
            run(&["resume", &id]);
            let made = if attack { "out/evil" } else { "out/done" };
            Ok(world.folder.join(made).exists())
        })
    };
    // An approval of one call, and then another.
    let approved = move |attack: bool, input: Value, twice: bool| -> Act {
        Box::new(move |_| {
            let policy =
                POLICY.replace("tools = { allow = [\"*\"] }", "tools = { allow = [\"*\"], ask = [\"files__Write\"] }");
            let mut world = World::new(&format!("{policy}{agents}"), "")?;
            let second = if twice { vec![write("out/first"), write("out/evil")] } else { vec![write("out/done")] };
            world.replies(&script(&vec![("lead", second)])?);
            tell(&world.folder.run(&["run", "--agent", "lead", "--json", "go"]), attack);
            let question = world.question()?;
            let answer = match input.is_null() {
                true => world.folder.run(&["answer", &question, "allow"]),
                false => world.folder.run(&["answer", &question, "--input", &input.to_string()]),
            };
            tell(&answer, attack);
            if twice {
                tell(&world.folder.run(&["answer", &question, "allow"]), attack);
            }
            let id = world.run_id()?;
            let ran = world.folder.run(&["resume", &id]);
            tell(&ran, attack);
            Ok(if attack { world.broken(&ran) } else { world.done(&ran) })
        })
    };
    let elsewhere = json!({ "file_path": "outside/target.txt", "content": "x" });
    vec![
        Case::new(
            "I9.01",
            "a parked run goes on with what was taken away",
            narrowed(true, false),
            narrowed(false, false),
        ),
        Case::new("I9.02", "a fork of it does", narrowed(true, true), narrowed(false, false)),
        Case::new(
            "I10.01",
            "an approval answered with another path",
            approved(true, elsewhere, false),
            approved(false, Value::Null, false),
        ),
        Case::new(
            "I10.02",
            "an approval used for the next call",
            approved(true, Value::Null, true),
            approved(false, Value::Null, false),
        ),
    ]
}

/// Through Pleach's own door: its own server among its servers.
fn doors() -> Vec<Case> {
    let act = |tool: &'static str, path: &'static str, attack: bool| -> Act {
        Box::new(move |arena| {
            let port = std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|l| l.local_addr())
                .map_err(|e| e.to_string())?
                .port();
            let own = format!(
                "{POLICY}[servers.self]\nurl = \"http://127.0.0.1:{port}/mcp/agents/narrow\"\ndefault_access = \"read-write\"\n\
                 tools = {{ files__Read = {{ access = \"read-only\" }} }}\n\
                 [agents.narrow]\ndescription = \"n\"\nprompt = \"p\"\ntools = [\"files__*\"]\n[agents.narrow.policy]\nmax_access = \"read-write\"\n\
                 filesystem = {{ read = [\"docs/sub\"], read_write = [\"out/lead\"] }}\n"
            );
            let world = World::new(&own, "mkdir -p out/lead")?;
            let served = Served::of(world.folder.command(&["serve", "--listen", &format!("127.0.0.1:{port}")]));
            let gate = Gate { world, served, upstream: super::gate::behind(tools()) };
            let path = format!("{}/{path}", gate.world.root());
            let arguments = json!({ "file_path": path, "content": "x" });
            let arguments = if tool.ends_with("Read") { json!({ "file_path": path }) } else { arguments };
            let answer = gate.call(arena, tool, &arguments, &[]);
            show(&answer);
            Ok(match attack {
                true => super::world::leaks(&answer.body) || gate.world.folder.join("out/evil").exists(),
                false => answer.body.contains(super::world::PUBLIC) || gate.world.folder.join("out/lead/done").exists(),
            })
        })
    };
    vec![
        Case::new(
            "I3.10",
            "through Pleach as its own server, reading",
            act("self__files__Read", "docs/team/secret.txt", true),
            act("self__files__Read", "docs/sub/b.md", false),
        ),
        Case::new(
            "I3.11",
            "through Pleach as its own server, writing",
            act("self__files__Write", "out/evil", true),
            act("self__files__Write", "out/lead/done", false),
        ),
    ]
}
