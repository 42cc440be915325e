//! Q: what an instance may take of a whole machine. A gateway and its servers in a cgroup that holds
//! little memory: one instance takes all of it, in many small processes, so that the gateway is the
//! largest there is.

use super::arena::soon;
use super::gate::{Gate, behind, show, tools};
use super::world::{PUBLIC, World};
use super::{Act, Case};
use crate::served::Served;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "Q1.08",
            "an instance that eats all memory, in many processes, takes others along",
            eats(true),
            eats(false),
        ),
        Case::new("Q1.09", "a program that prints without end takes the gateway's memory", prints(true), prints(false)),
    ]
}

/// Takes memory by the piece, a process each, until it is told that there is no more or has enough.
const EATER: &str = r#"
import json, os, sys, time
def say(message): print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
def eat(count):
    for i in range(count):
        if os.fork() == 0:
            os.close(0); os.close(1)
            kept = bytearray(os.urandom(1 << 20) * 20)
            time.sleep(20); os._exit(0)
        time.sleep(0.02)
for line in sys.stdin:
    asked = json.loads(line)
    method, id = asked.get("method"), asked.get("id")
    if method == "initialize":
        say({"id": id, "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "e", "version": "1"}}})
    elif method == "tools/list":
        say({"id": id, "result": {"tools": [{"name": "eat", "inputSchema": {"type": "object"}}]}})
    elif method == "tools/call":
        eat(asked["params"]["arguments"]["count"])
        say({"id": id, "result": {"content": [{"type": "text", "text": "eaten"}]}})
    elif id is not None:
        say({"id": id, "error": {"code": -32601, "message": "no"}})
"#;

/// A cgroup of its own with a bound on memory, of whichever version has the controller.
struct Group(PathBuf);

impl Group {
    fn of(bytes: u64, name: &str) -> Result<Self, String> {
        let tried = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let mut why = String::new();
        for (root, limit) in tried {
            let folder = Path::new(root).join(name);
            let made =
                std::fs::create_dir(&folder).and_then(|()| std::fs::write(folder.join(limit), bytes.to_string()));
            match made {
                Ok(()) => return Ok(Self(folder)),
                Err(e) => why.push_str(&format!(" {}: {e};", folder.display())),
            }
            let _ = std::fs::remove_dir(&folder);
        }
        Err(format!("no cgroup with a bound on memory can be made here (as root, it can):{why}"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Only once all in it have ended.
        soon(Duration::from_secs(5), || std::fs::remove_dir(&self.0).is_ok());
    }
}

fn eats(attack: bool) -> Act {
    Box::new(move |arena| {
        let policy = "version = 1\n[servers.e]\ncommand = \"python3\"\nargs = [\"e/eater.py\"]\nruntime_paths = [\"e\"]\n\
            default_access = \"read-only\"\ntimeout = 30000\n[servers.files]\nbuiltin = \"workspace\"\n[policy]\n\
            max_access = \"read-only\"\nfilesystem.read = [\"docs\"]\ntools = { allow = [\"*\"] }\n";
        let world = World::new(policy, "")?;
        world.folder.write("e/eater.py", EATER);
        let group = Group::of(640 << 20, &arena.tag())?;
        let plain = world.folder.command(&["serve", "--listen", "127.0.0.1:0"]);
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&group.0);
        command.arg(plain.get_program()).args(plain.get_args()).current_dir(world.folder.path());
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let served = Served::of(command);
        let mut gate = Gate { world, served, upstream: behind(tools()) };
        let read = |gate: &Gate| {
            let call = json!({ "name": "files__Read", "arguments": { "file_path": "docs/a.md" } });
            let asked = gate.served.modern("/mcp", "tools/call", call, &[]);
            let answered = arena.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), asked).await });
            answered.is_ok_and(|answer| answer.body.contains(PUBLIC))
        };
        if !read(&gate) {
            return Err("the other server does not answer to begin with".into());
        }
        // Sixty pieces of twenty MiB are about twice what there is.
        let params = json!({ "name": "e__eat", "arguments": { "count": if attack { 60 } else { 3 } } });
        let body = crate::served::modern_body("tools/call", params).to_string();
        let headers = [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", "e__eat"),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ];
        let eaten = arena.runtime.block_on(gate.served.try_post("/mcp", &headers, body.into_bytes()));
        let dead = gate.served.ended_within(Duration::from_millis(100)).is_some();
        let others = !dead && read(&gate);
        drop(gate);
        Ok(match attack {
            true => !others,
            false => others && eaten.is_ok_and(|answer| answer.body.contains("eaten")),
        })
    })
}

fn prints(attack: bool) -> Act {
    Box::new(move |arena| {
        let policy = "version = 1\n[servers.files]\nbuiltin = \"workspace\"\n[policy]\nmax_access = \"destructive\"\n\
            filesystem.read = [\"docs\"]\ntools = { allow = [\"*\"] }\n";
        let world = World::new(policy, "")?;
        let gate = Gate { served: Served::start(&world.folder), world, upstream: behind(tools()) };
        let before = gate.served.memory();
        let count = if attack { "1G" } else { "1K" };
        let command = format!("yes PUBLIC-canary-27ab | head -c {count}; echo over");
        let arguments = json!({ "command": command, "timeout": 60_000 });
        let answer = gate.call(arena, "files__Bash", &arguments, &[]);
        if !attack {
            show(&answer);
        }
        let grown = gate.served.memory().saturating_sub(before);
        Ok(if attack { grown > 200 << 10 || answer.body.len() > 8 << 20 } else { answer.body.contains(PUBLIC) })
    })
}
