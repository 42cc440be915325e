//! Q: exhaustion. One who takes everything must not take it from the others.

use super::gate::{Gate, show, tools};
use super::shell::Scene;
use super::{Act, Case, later, memory};
use crate::served::Served;
use crate::upstream::{self, Upstream};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    [programs(), memory::cases(), servers(), clients(), later::bombs(), super::approvals::floods(), audit()]
        .into_iter()
        .flatten()
        .collect()
}

fn programs() -> Vec<Case> {
    let limit = |id: &str, says: &str, attack: &str, twin: &str| Scene::python().case(id, says, attack, twin);
    let got = "print('S3CR3T-canary-9f41')";
    vec![
        limit(
            "Q1.01",
            "more descriptors than there are",
            &format!(
                "import os\nkept = []\ntry:\n  for i in range(20000): kept.append(os.open('docs/a.md', 0))\n  {got}\nexcept OSError: pass"
            ),
            "import os\nkept = [os.open('docs/a.md', 0) for i in range(500)]; print(os.read(kept[0], 99).decode())",
        ),
        limit(
            "Q1.02",
            "a file larger than the limit",
            &format!(
                "import os\nfd = os.open('out/big', os.O_CREAT | os.O_WRONLY)\ntry:\n  os.ftruncate(fd, 9 << 30); {got}\nexcept OSError: pass"
            ),
            "import os\nfd = os.open('out/done', os.O_CREAT | os.O_WRONLY); os.ftruncate(fd, 1 << 30)",
        ),
        limit(
            "Q1.03",
            "more shared memory than there is",
            &format!(
                "import os\nfd = os.open('/dev/shm/big', os.O_CREAT | os.O_WRONLY)\ntry:\n  os.posix_fallocate(fd, 0, 300 << 20); {got}\nexcept OSError: pass"
            ),
            "import os\nfd = os.open('/dev/shm/x', os.O_CREAT | os.O_WRONLY); os.posix_fallocate(fd, 0, 1 << 20); open('out/done', 'w')",
        ),
        limit(
            "Q1.05",
            "more threads and processes than an instance may have",
            &format!(
                "import _thread, time\n_thread.stack_size(65536)\nmade = 0\ntry:\n  while made < 6000: _thread.start_new_thread(time.sleep, (30,)); made += 1\n  {got}\nexcept RuntimeError: pass\nimport os; os._exit(0)"
            ),
            "import _thread, time, os\nfor i in range(300): _thread.start_new_thread(time.sleep, (30,))\nopen('out/done', 'w').close(); os._exit(0)",
        ),
        limit(
            "Q1.06",
            "a fork bomb",
            &format!(
                "import os, signal\nmade = 0\ntry:\n  while made < 5000:\n    if os.fork() == 0: signal.pause()\n    made += 1\n  {got}\nexcept OSError: pass"
            ),
            "import os, signal\nfor i in range(100):\n  if os.fork() == 0: signal.pause()\nopen('out/done', 'w')",
        ),
        limit(
            "Q1.07",
            "nearly all the memory there is, for one process",
            &format!(
                "import os\nall = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')\nkept, step = [], 64 << 20\ntry:\n  while len(kept) * step < all * 9 // 10: kept.append(bytearray(step))\n  {got}\nexcept MemoryError: pass"
            ),
            "kept = [bytearray(64 << 20) for i in range(8)]; open('out/done', 'w')",
        ),
        limit(
            "Q1.04",
            "limits raised again",
            &format!(
                "import resource\ntry:\n  resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)); {got}\nexcept (ValueError, PermissionError): pass"
            ),
            "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); open('out/done', 'w').write('x')",
        ),
    ]
}

fn policy(url: &str) -> String {
    format!(
        "version = 1\n[servers.s]\nurl = {url:?}\ndefault_access = \"read-only\"\ntimeout = 3000\n[servers.files]\nbuiltin = \"workspace\"\n[policy]\nmax_access = \"read-only\"\nfilesystem.read = [\"docs\"]\ntools = {{ allow = [\"*\"] }}\n"
    )
}

/// A server that misbehaves; what is looked at is whether another server's tool still answers.
fn harms(does: fn(&upstream::Seen) -> upstream::Act, attack: bool) -> Act {
    Box::new(move |arena| {
        let upstream = Upstream::start(does);
        let gate = Gate::open(&policy(&upstream.url()), Vec::new())?;
        let bad = json!({ "name": "s__add", "arguments": {} });
        let read = json!({ "name": "files__Read", "arguments": { "file_path": "docs/a.md" } });
        let answer = arena.runtime.block_on(async {
            let bad = gate.served.modern("/mcp", "tools/call", bad, &[]);
            let good = async {
                tokio::time::timeout(Duration::from_secs(20), gate.served.modern("/mcp", "tools/call", read, &[])).await
            };
            let (bad, good) = tokio::join!(tokio::time::timeout(Duration::from_secs(30), bad), good);
            drop(bad);
            good
        });
        let fine = answer.as_ref().is_ok_and(|answer| answer.body.contains(super::world::PUBLIC));
        if let Ok(answer) = &answer {
            show(answer);
        }
        let large = gate.served.memory() > 600 << 10;
        Ok(if attack { !fine || large } else { fine })
    })
}

fn ordinary(seen: &upstream::Seen) -> upstream::Act {
    upstream::modern(seen, json!({ "tools": {} }), &["add"])
        .unwrap_or_else(|| upstream::Act::Result(upstream::told("3")))
}

fn servers() -> Vec<Case> {
    let case = |id: &str, says: &str, does: fn(&upstream::Seen) -> upstream::Act| {
        Case::new(id, format!("{says} takes another server's tool along"), harms(does, true), harms(ordinary, false))
    };
    vec![
        case("Q1.10", "a server that never answers a call", |seen| match seen.method.as_str() {
            "tools/call" => upstream::Act::Hang,
            _ => ordinary(seen),
        }),
        case("Q1.11", "a server that never answers at all", |_| upstream::Act::Hang),
        case("Q1.12", "a server with a hundred thousand tools", |seen| match seen.method.as_str() {
            "tools/list" => {
                let tools: Vec<Value> = (0..100_000)
                    .map(|i| json!({ "name": format!("t{i}"), "inputSchema": { "type": "object" } }))
                    .collect();
                upstream::Act::Result(
                    json!({ "resultType": "complete", "ttlMs": 60_000, "cacheScope": "private", "tools": tools }),
                )
            }
            _ => ordinary(seen),
        }),
        case("Q1.13", "a server whose list has no last page", |seen| match seen.method.as_str() {
            "tools/list" => upstream::Act::Result(
                json!({ "resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": [{ "name": "add", "inputSchema": { "type": "object" } }], "nextCursor": format!("c{}", seen.before) }),
            ),
            _ => ordinary(seen),
        }),
        case("Q1.14", "an answer of fifty megabytes", |seen| match seen.method.as_str() {
            "tools/call" => upstream::Act::Result(upstream::told(&"x".repeat(50 << 20))),
            _ => ordinary(seen),
        }),
        case("Q1.15", "an answer ten thousand levels deep", |seen| match seen.method.as_str() {
            "tools/call" => {
                let mut deep = json!(1);
                for _ in 0..100 {
                    deep = json!([deep]);
                }
                upstream::Act::Result(
                    json!({ "resultType": "complete", "content": [], "structuredContent": { "a": deep } }),
                )
            }
            _ => ordinary(seen),
        }),
        case("Q1.16", "a server that answers with a failure each time", |_| upstream::Act::Status(500, Value::Null)),
        case("Q1.17", "a server that sends to itself for ever", |_| {
            upstream::Act::Headed(302, "location", "/mcp".into())
        }),
    ]
}

fn clients() -> Vec<Case> {
    // Two hundred connections that say nothing, or half a head.
    let slow = |head: &'static [u8], attack: bool| -> Act {
        Box::new(move |arena| {
            let gate = arena.gates.get("shared")?;
            let address = gate.served.base.trim_start_matches("http://").to_owned();
            let mut held = Vec::new();
            for _ in 0..if attack { 200 } else { 1 } {
                let mut stream = std::net::TcpStream::connect(&address).map_err(|e| e.to_string())?;
                std::io::Write::write_all(&mut stream, head).map_err(|e| e.to_string())?;
                held.push(stream);
            }
            let tag = arena.tag();
            let params = json!({ "name": "rec__peek", "arguments": { "path": "docs/a.md", "tag": tag } });
            let asked = gate.served.modern("/mcp", "tools/call", params, &[]);
            let answered = arena.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), asked).await });
            Ok(if attack { answered.is_err() || !gate.reached(&tag) } else { gate.reached(&tag) })
        })
    };
    vec![
        Case::new("Q1.20", "connections that say nothing keep others out", slow(b"", true), slow(b"", false)),
        Case::new("Q1.21", "connections with half a head keep others out", slow(b"POST /mcp HTTP/1.1\r\nHost: local", true), slow(b"", false)),
        Case::new("Q1.22", "connections with half a body keep others out", slow(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\ncontent-length: 1000\r\n\r\n{", true), slow(b"", false)),
    ]
}

/// What cannot be put on record does not happen.
fn audit() -> Vec<Case> {
    let act = |attack: bool| -> Act {
        Box::new(move |arena| {
            let upstream = super::gate::behind(tools());
            let policy = format!("{}\n[audit]\nfolder = \"disk\"\n", policy(&upstream.url()));
            let world = super::world::World::new(&policy, "mkdir -p disk")?;
            // A disk that is full: of one page, and that is taken.
            let disk = world.folder.join("disk");
            if attack {
                let mounted = std::process::Command::new("mount")
                    .args(["-t", "tmpfs", "-o", "size=4k,nr_inodes=8", "none"])
                    .arg(&disk)
                    .status();
                if !mounted.is_ok_and(|status| status.success()) {
                    return Err("no small disk could be mounted".into());
                }
                let _ = std::fs::write(disk.join("taken"), vec![b'x'; 4096]);
            }
            let mut command = world.folder.command(&["serve", "--listen", "127.0.0.1:0"]);
            command.stdin(std::process::Stdio::null());
            let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Served::of(command)));
            // One that does not start lets nothing through either.
            let Ok(served) = served else { return Ok(false) };
            let gate = Gate { world, served, upstream };
            let tag = arena.tag();
            show(&gate.call(arena, "s__peek", &json!({ "tag": tag }), &[]));
            let reached = gate.reached(&tag);
            if attack {
                let _ = std::process::Command::new("umount").arg("-l").arg(&disk).status();
            }
            Ok(reached)
        })
    };
    vec![Case::new("Q4.01", "a call that cannot be put on record, for the disk is full", act(true), act(false))]
}
