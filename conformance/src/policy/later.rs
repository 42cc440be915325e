//! I7, I8, I12, Q2: authority that is narrowed, over, or another's, while somebody still works; and
//! trees that grow by themselves.

use super::arena::{Arena, soon};
use super::gate::{Gate, behind, show, tools};
use super::tree::{bash, script, spawn, tell, write};
use super::world::{POLICY, World, leaks};
use super::{Act, Case};
use crate::served::Served;
use crate::upstream::{self, Act as Does, Upstream};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("I4.01", "an agent stops a run that is not below it", strange(true, true), strange(false, true)),
        Case::new(
            "I4.02",
            "an agent tells a run something that is not below it",
            strange(true, false),
            strange(false, false),
        ),
        Case::new(
            "I7.01",
            "a run goes on with what was taken away while it worked",
            narrowed(true, false),
            narrowed(false, false),
        ),
        Case::new("I7.02", "its child does", narrowed(true, true), narrowed(false, true)),
        Case::new("I7.03", "a process goes on with what was taken away while it ran", process(true), process(false)),
        Case::new("I8.01", "what a program left behind works on when its run is over", lingers(true), lingers(false))
            .gap(
                "a program that leaves its session lives as long as its instance, under the same grant",
                "a pid namespace or a cgroup for each call",
            ),
        Case::new(
            "I8.02",
            "a child in the background works on when its parent was cancelled",
            orphan(true),
            orphan(false),
        ),
        Case::new(
            "I12.01",
            "a server's process that serves a client who may more serves one who may less",
            shared(true),
            shared(false),
        ),
    ]
}

/// Trees that grow by themselves.
pub(super) fn bombs() -> Vec<Case> {
    vec![
        Case::new("Q2.01", "an agent that starts itself, for ever", grows(true, 1, 4), grows(false, 1, 4)),
        Case::new(
            "Q2.02",
            "an agent that starts itself eight times, each time",
            grows(true, 8, 51),
            grows(false, 8, 51),
        ),
    ]
}

fn posted(arena: &Arena, gate: &Gate, agent: &str) -> Result<String, String> {
    let begun = gate.post(arena, "/v1/runs", &[], json!({ "agent": agent, "prompt": "go" }).to_string());
    begun.json()["run"].as_str().map(str::to_owned).ok_or_else(|| format!("no run: {begun:?}"))
}
fn state(arena: &Arena, gate: &Gate, run: &str) -> String {
    let answer = gate.get(arena, &format!("/v1/runs/{run}"), &[]);
    show(&answer);
    answer.json()["state"].as_str().unwrap_or("").to_owned()
}
fn ended(arena: &Arena, gate: &Gate, run: &str) -> bool {
    soon(Duration::from_secs(30), || ["completed", "failed", "cancelled"].contains(&state(arena, gate, run).as_str()))
}
fn changed(arena: &Arena, gate: &Gate) -> Result<(), String> {
    let taken = || {
        let page = gate.get(arena, "/metrics", &[]).body;
        page.lines().any(|l| l.strip_prefix("pleach_policy_changes_total").is_some_and(|n| n.trim() != "0"))
    };
    if soon(Duration::from_secs(20), taken) { Ok(()) } else { Err("the policy was not taken".into()) }
}

const KIDS: &str = "\n[servers.rec]\nurl = \"{url}\"\ndefault_access = \"read-only\"\n[agents.lead]\nprompt = \"p\"\nexpose = true\nsubagents = [\"kid\"]\n[agents.kid]\nexpose = true\ndescription = \"k\"\nprompt = \"p\"\n";
/// The same policy without its writable folder, or with one more that may be read.
fn other(policy: &str, attack: bool) -> String {
    match attack {
        true => policy.replace("read_write = [\"out\"]", "read_write = []").replace("\"out/kept\"", "\"docs/x\""),
        false => policy.replace("read = [\"docs\"]", "read = [\"docs\", \"docs_evil\"]"),
    }
}

/// A run waits for a server; another one, or whoever it belongs to, stops it or tells it something.
fn strange(attack: bool, stops: bool) -> Act {
    Box::new(move |arena| {
        let upstream = Upstream::start(move |seen| {
            upstream::modern(seen, json!({ "tools": {} }), &["peek"]).unwrap_or(Does::Hang)
        });
        let mut world = World::new(&format!("{POLICY}{KIDS}").replace("{url}", &upstream.url()), "")?;
        let tag = arena.tag();
        let (tool, input) = match stops {
            true => ("stop_agent", json!({ "run": "{{prompt}}" })),
            false => ("send_message", json!({ "to": "{{prompt}}", "message": tag })),
        };
        world.replies(&script(&vec![("lead", vec![("rec__peek", json!({}))]), ("kid", vec![(tool, input)])])?);
        let gate = Gate { served: Served::start(&world.folder), world, upstream };
        let run = posted(arena, &gate, "lead")?;
        arena.runtime.block_on(gate.upstream.until("tools/call", 1));
        if attack {
            let begun = gate.post(arena, "/v1/runs", &[], json!({ "agent": "kid", "prompt": run }).to_string());
            let other = begun.json()["run"].as_str().map(str::to_owned).ok_or_else(|| format!("no run: {begun:?}"))?;
            if !ended(arena, &gate, &other) {
                return Err("the other run did not end".into());
            }
        } else {
            let (verb, body) = match stops {
                true => ("cancel", json!({})),
                false => ("messages", json!({ "text": tag })),
            };
            show(&gate.post(arena, &format!("/v1/runs/{run}/{verb}"), &[], body.to_string()));
        }
        let happened = || match stops {
            true => state(arena, &gate, &run) == "cancelled",
            false => gate.world.folder.run(&["show", &run, "--json"]).out.contains(&tag),
        };
        Ok(if attack { happened() } else { soon(Duration::from_secs(10), happened) })
    })
}

/// A run, or its child, calls a server that answers when the policy has changed; then it writes.
fn narrowed(attack: bool, by_kid: bool) -> Act {
    Box::new(move |arena| {
        let (answer, held) = tokio::sync::mpsc::unbounded_channel();
        let held = std::sync::Mutex::new(Some(held));
        let upstream = Upstream::start(move |seen| {
            upstream::modern(seen, json!({ "tools": {} }), &["peek"]).unwrap_or_else(|| {
                match held.lock().ok().and_then(|mut held| held.take()) {
                    Some(held) => Does::Held(held),
                    None => Does::Result(upstream::told("done")),
                }
            })
        });
        let policy = format!("{POLICY}{KIDS}").replace("{url}", &upstream.url());
        let mut world = World::new(&policy, "")?;
        let made = if attack { "out/evil" } else { "out/done" };
        let steps = vec![("rec__peek", json!({})), write(made)];
        world.replies(&script(&match by_kid {
            true => vec![("lead", vec![spawn("kid", Value::Null)]), ("kid", steps)],
            false => vec![("lead", steps)],
        })?);
        let gate = Gate { served: Served::start(&world.folder), world, upstream };
        let run = posted(arena, &gate, "lead")?;
        arena.runtime.block_on(gate.upstream.until("tools/call", 1));
        gate.world.folder.write("pleach.toml", &other(&policy, attack));
        changed(arena, &gate)?;
        let _ = answer.send(upstream::told("done"));
        if !ended(arena, &gate, &run) {
            return Err("the run did not end".into());
        }
        Ok(gate.world.folder.join(made).exists())
    })
}

/// A program writes again and again; meanwhile its folder is taken away, or another is given.
fn process(attack: bool) -> Act {
    Box::new(move |arena| {
        let policy = format!("{POLICY}{KIDS}");
        let upstream = behind(tools());
        let policy = policy.replace("{url}", &upstream.url());
        let mut world = World::new(&policy, "")?;
        let script_text =
            "for i in $(seq 600); do echo $i > out/count; sleep 0.05; [ -e out/stop ] && break; done; true";
        world.replies(&script(&vec![("lead", vec![bash(script_text)])])?);
        let gate = Gate { served: Served::start(&world.folder), world, upstream };
        let run = posted(arena, &gate, "lead")?;
        let count = || gate.world.folder.read("out/count").and_then(|n| n.trim().parse::<u32>().ok()).unwrap_or(0);
        if !soon(Duration::from_secs(20), || count() > 2) {
            return Err("the program did not begin".into());
        }
        gate.world.folder.write("pleach.toml", &other(&policy, attack));
        changed(arena, &gate)?;
        // What is over is over a moment after the change.
        soon(Duration::from_secs(2), || false);
        let then = count();
        let goes_on = soon(Duration::from_secs(2), || count() > then);
        gate.world.folder.write("out/stop", "");
        if !attack && !ended(arena, &gate, &run) {
            return Err("the run did not end".into());
        }
        // Of a wider policy nothing is to be stopped: it goes on, or is done with.
        Ok(goes_on)
    })
}

/// A run starts a program that outlives its call, and ends.
fn lingers(attack: bool) -> Act {
    Box::new(move |arena| {
        let mut world = World::new(&format!("{POLICY}\n[agents.lead]\nprompt = \"p\"\n"), "")?;
        let command = match attack {
            true => "setsid -f bash -c 'sleep 3; touch out/evil' > /dev/null 2>&1; true",
            false => "touch out/done",
        };
        world.replies(&script(&vec![("lead", vec![bash(command)])])?);
        let gate = Gate { served: Served::start(&world.folder), world, upstream: behind(tools()) };
        let run = posted(arena, &gate, "lead")?;
        if !ended(arena, &gate, &run) {
            return Err("the run did not end".into());
        }
        let made = |name: &str| gate.world.folder.join(name).exists();
        Ok(if attack { soon(Duration::from_secs(6), || made("out/evil")) } else { made("out/done") })
    })
}

/// A child works in the background; its parent is cancelled, or waits for it.
fn orphan(attack: bool) -> Act {
    Box::new(move |arena| {
        let (answer, held) = tokio::sync::mpsc::unbounded_channel();
        let held = std::sync::Mutex::new(Some(held));
        let upstream = Upstream::start(move |seen| {
            upstream::modern(seen, json!({ "tools": {} }), &["peek"]).unwrap_or_else(|| {
                match held.lock().ok().and_then(|mut held| held.take()) {
                    Some(held) => Does::Held(held),
                    None => Does::Result(upstream::told("done")),
                }
            })
        });
        let mut world = World::new(&format!("{POLICY}{KIDS}").replace("{url}", &upstream.url()), "")?;
        let made = if attack { "out/evil" } else { "out/done" };
        let mut start = spawn("kid", Value::Null);
        start.1["run_in_background"] = true.into();
        world.replies(&script(&vec![("lead", vec![start]), ("kid", vec![("rec__peek", json!({})), write(made)])])?);
        let gate = Gate { served: Served::start(&world.folder), world, upstream };
        let run = posted(arena, &gate, "lead")?;
        arena.runtime.block_on(gate.upstream.until("tools/call", 1));
        if attack {
            let cancelled = gate.post(arena, &format!("/v1/runs/{run}/cancel"), &[], "{}");
            show(&cancelled);
            if cancelled.status >= 300 {
                return Err(format!("it could not be cancelled: {cancelled:?}"));
            }
        }
        let _ = answer.send(upstream::told("done"));
        let written = || gate.world.folder.join(made).exists();
        Ok(if attack { soon(Duration::from_secs(3), written) } else { soon(Duration::from_secs(20), written) })
    })
}

/// Reads what it is told to, in an argument that nobody said was a path.
const READER: &str = r#"
import json, sys
def say(message): print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    method, id = asked.get("method"), asked.get("id")
    if method == "initialize":
        say({"id": id, "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "r", "version": "1"}}})
    elif method == "tools/list":
        say({"id": id, "result": {"tools": [{"name": "get", "inputSchema": {"type": "object"}}]}})
    elif method == "tools/call":
        try: text = open(["docs/team/secret.txt", "docs/sub/b.md"][asked["params"]["arguments"]["which"]]).read()
        except OSError as e: text = str(e)
        say({"id": id, "result": {"content": [{"type": "text", "text": text}]}})
    elif id is not None:
        say({"id": id, "error": {"code": -32601, "message": "no"}})
"#;

fn shared(attack: bool) -> Act {
    Box::new(move |arena| {
        let policy = "version = 1\n[servers.r]\ncommand = \"python3\"\nargs = [\"r/reader.py\"]\nruntime_paths = [\"r\"]\n\
            default_access = \"read-only\"\n[policy]\nmax_access = \"read-only\"\nfilesystem.read = [\"docs\"]\ntools = { allow = [\"*\"] }\n\
            [clients.alice]\ntoken = \"alice-alice-alice-alice\"\n[clients.bob]\ntoken = \"bob-bob-bob-bob-bob-bob\"\n\
            policy = { filesystem = { read = [\"docs/sub\"] } }\n";
        let world = World::new(policy, "")?;
        world.folder.write("r/reader.py", READER);
        let gate = Gate { served: Served::start(&world.folder), world, upstream: behind(tools()) };
        let get = |who: &str, which: u8| {
            let answer = gate.call(arena, "r__get", &json!({ "which": which }), &[("authorization", who)]);
            show(&answer);
            answer.body
        };
        if !leaks(&get(super::gate::ALICE, 0)) {
            return Err("the one who may cannot".into());
        }
        Ok(match attack {
            true => leaks(&get(super::gate::BOB, 0)),
            false => get(super::gate::BOB, 1).contains(super::world::PUBLIC),
        })
    })
}

/// Each run starts so many more; how many there are in the end.
fn grows(attack: bool, each: usize, most: usize) -> Act {
    Box::new(move |_| {
        let agents = "\n[agents.lead]\ndescription = \"l\"\nprompt = \"p\"\nsubagents = [\"lead\"]\n";
        let mut world = World::new(&format!("{POLICY}{agents}"), "")?;
        let starts = |count: usize| -> Vec<Value> {
            (0..count).map(|_| json!({ "name": "Agent", "input": spawn("lead", Value::Null).1 })).collect()
        };
        let replies = match attack {
            true => {
                json!({ "reply": [{ "agent": "lead", "text": "so", "turn": 0, "tool": starts(each) }, { "agent": "lead", "text": "over" }] })
            }
            false => {
                json!({ "reply": [{ "agent": "lead", "when": "^go$", "text": "so", "turn": 0, "tool": starts(1) }, { "agent": "lead", "text": "over" }] })
            }
        };
        world.replies(&toml::to_string(&replies).map_err(|e| e.to_string())?);
        let ran = world.folder.run(&["run", "--agent", "lead", "--json", "go"]);
        tell(&ran, attack);
        let runs = world.folder.run(&["runs", "--json"]).out.lines().count();
        Ok(if attack { runs > most } else { runs == 2 })
    })
}
