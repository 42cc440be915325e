//! The figures of the closing note, measured on the built binary and against a direct
//! connection in the same run: `cargo bench -p conformance`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use conformance::pleach::{Folder, binary};
use conformance::served::{Served, modern_body};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CALLS: u32 = 5_000;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("echo") => echo_stdio(),
        _ => {
            println!("binary: {:.1} MB", std::fs::metadata(binary()).unwrap().len() as f64 / 1e6);
            starts();
            ready();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(relayed());
        }
    }
}

/// The cheapest MCP server there is: what is measured is the way to it.
fn answer(line: &str) -> Option<String> {
    let request: serde_json::Value = serde_json::from_str(line).ok()?;
    let id = request.get("id")?;
    let result = match request["method"].as_str()? {
        "server/discover" => {
            json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } })
        }
        "tools/list" => json!({ "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
            "tools": [{ "name": "echo", "inputSchema": { "type": "object" } }] }),
        "tools/call" => {
            json!({ "resultType": "complete", "content": [{ "type": "text", "text": request["params"]["arguments"]["text"] }] })
        }
        _ => json!({}),
    };
    Some(json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string())
}

fn echo_stdio() {
    let (stdin, mut stdout) = (std::io::stdin(), std::io::stdout().lock());
    for line in stdin.lock().lines() {
        if let Some(text) = answer(&line.unwrap()) {
            writeln!(stdout, "{text}").unwrap();
            stdout.flush().unwrap();
        }
    }
}

fn echo_http() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let mut length = 0;
                    loop {
                        let mut line = String::new();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = n.trim().parse().unwrap();
                        }
                        if line == "\r\n" {
                            break;
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let text = answer(std::str::from_utf8(&body).unwrap()).unwrap_or_default();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                        text.len()
                    );
                    stream.write_all((head + &text).as_bytes()).unwrap();
                }
            });
        }
    });
    url
}

fn percentile(times: &mut [Duration], p: f64) -> f64 {
    times.sort();
    times[((times.len() - 1) as f64 * p) as usize].as_secs_f64() * 1e3
}

fn times(n: u32, mut work: impl FnMut()) -> Vec<Duration> {
    (0..n)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect()
}

/// The sandbox's own cost: `pleach exec -- true` against plain `true` and against a pleach that
/// does everything but the sandbox (`off`).
fn starts() {
    let policy = |profile: &str| {
        format!(
            "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy.sandbox]\nprofile = \"{profile}\"\n[agents.a]\nprompt = \"\"\n"
        )
    };
    let (full, off) = (Folder::new(&policy("full")), Folder::new(&policy("off")));
    let run = |folder: &Folder| assert!(folder.command(&["exec", "--", "true"]).status().unwrap().success());
    let mut bare = times(200, || assert!(Command::new("true").status().unwrap().success()));
    let mut with = times(200, || run(&full));
    let mut without = times(200, || run(&off));
    for (name, times) in
        [("bare `true`", &mut bare), ("exec, profile off", &mut without), ("exec, profile full", &mut with)]
    {
        println!("start {name}: p50 {:.2} ms, p99 {:.2} ms", percentile(times, 0.5), percentile(times, 0.99));
    }
    println!("sandboxed over unsandboxed: p50 +{:.2} ms", percentile(&mut with, 0.5) - percentile(&mut without, 0.5));
}

/// From the start of `pleach serve` with ten servers to the line that says it listens.
fn ready() {
    let servers: String = (0..10).map(|i| format!("[servers.s{i}]\ncommand = \"sleep\"\nargs = [\"60\"]\n")).collect();
    let folder = Folder::new(&format!("version = 1\n{servers}"));
    let mut all = times(30, || drop(Served::start(&folder)));
    println!(
        "serve with ten lazy servers to listening: p50 {:.1} ms, p99 {:.1} ms",
        percentile(&mut all, 0.5),
        percentile(&mut all, 0.99)
    );
}

/// Processor time of a process so far, in microseconds.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    // USER_HZ is 100 on every Linux there is.
    ticks * 10_000.0
}

async fn relayed() {
    let me = std::env::current_exe().unwrap().display().to_string();
    let url = echo_http();
    let folder = Folder::new(&format!(
        "version = 1\n[servers.stdio]\ncommand = \"{me}\"\nargs = [\"echo\"]\ndefault_access = \"read-only\"\n[servers.http]\nurl = \"{url}\"\ndefault_access = \"read-only\"\n[policy]\ntools = {{ allow = [\"*\"] }}\n"
    ));
    let served = Served::start(&folder);
    let client = Served::client();
    let post = async |url: &str, tool: &str| {
        let body = modern_body("tools/call", json!({ "name": tool, "arguments": { "text": "hello" } })).to_string();
        let response = client
            .post(url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool)
            .body(body)
            .send()
            .await
            .unwrap();
        assert!(response.text().await.unwrap().contains("hello"));
    };
    let door = format!("{}/mcp", served.base);
    let mut direct = Vec::new();
    for _ in 0..CALLS {
        let start = Instant::now();
        post(&url, "echo").await;
        direct.push(start.elapsed());
    }
    println!(
        "direct HTTP call: p50 {:.3} ms, p99 {:.3} ms",
        percentile(&mut direct, 0.5),
        percentile(&mut direct, 0.99)
    );
    for server in ["http", "stdio"] {
        let tool = format!("{server}__echo");
        for _ in 0..200 {
            post(&door, &tool).await;
        }
        let before = cpu(served.pid());
        let mut relayed = Vec::new();
        for _ in 0..CALLS {
            let start = Instant::now();
            post(&door, &tool).await;
            relayed.push(start.elapsed());
        }
        let spent = (cpu(served.pid()) - before) / f64::from(CALLS);
        let (p50, p99) = (percentile(&mut relayed, 0.5), percentile(&mut relayed, 0.99));
        println!(
            "relayed to {server}: p50 {p50:.3} ms, p99 {p99:.3} ms, {spent:.0} µs of pleach's CPU a call, {:.2} × direct",
            p50 / percentile(&mut direct, 0.5)
        );
    }
    // The bare way to the same stdio server, for its ratio.
    let mut child = Command::new(&me).arg("echo").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let line =
        modern_body("tools/call", json!({ "name": "echo", "arguments": { "text": "hello" } })).to_string() + "\n";
    let mut bare = times(CALLS, || {
        stdin.write_all(line.as_bytes()).unwrap();
        let mut out = String::new();
        stdout.read_line(&mut out).unwrap();
    });
    println!("direct stdio call: p50 {:.3} ms, p99 {:.3} ms", percentile(&mut bare, 0.5), percentile(&mut bare, 0.99));
    drop(stdin);
    child.wait().unwrap();
}
