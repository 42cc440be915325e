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
        Some("many") => many_stdio(),
        Some("proxy") => bare_proxy(&std::env::args().nth(2).unwrap()),
        _ => {
            println!("binary: {:.1} MB", std::fs::metadata(binary()).unwrap().len() as f64 / 1e6);
            starts();
            ready();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(relayed());
            runtime.block_on(loads());
            runtime.block_on(lists());
            runtime.block_on(idle());
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

/// What the same libraries cost when nothing is read, judged or rewritten: axum in front, reqwest
/// behind. Says where it listens.
fn bare_proxy(to: &str) {
    use axum::body::Body;
    let (to, client) = (to.to_owned(), reqwest::Client::builder().no_proxy().build().unwrap());
    let pass = async move |request: axum::extract::Request| {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        let mut headers = parts.headers;
        headers.remove("host");
        headers.remove("content-length");
        let answer = client.post(&to).headers(headers).body(body).send().await.unwrap();
        let kind = answer.headers()["content-type"].clone();
        axum::response::Response::builder()
            .header("content-type", kind)
            .body(Body::from(answer.bytes().await.unwrap()))
            .unwrap()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("http://{}/mcp", listener.local_addr().unwrap());
        axum::serve(listener, axum::Router::new().fallback(axum::routing::post(pass))).await.unwrap();
    });
}

/// A server of five hundred tools.
fn many_stdio() {
    let (stdin, mut stdout) = (std::io::stdin(), std::io::stdout().lock());
    let schema =
        json!({ "type": "object", "properties": { "a": { "type": "string", "description": "x".repeat(80) } } });
    let tool = |i: u32| json!({ "name": format!("tool{i}"), "description": "y".repeat(120), "inputSchema": schema });
    let tools: Vec<_> = (0..500).map(tool).collect();
    for line in stdin.lock().lines() {
        let line = line.unwrap();
        let text = match line.contains("tools/list") {
            true => {
                let id = serde_json::from_str::<serde_json::Value>(&line).unwrap()["id"].clone();
                let result =
                    json!({ "resultType": "complete", "ttlMs": 60000, "cacheScope": "private", "tools": tools });
                Some(json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string())
            }
            false => answer(&line),
        };
        if let Some(text) = text {
            writeln!(stdout, "{text}").unwrap();
            stdout.flush().unwrap();
        }
    }
}

/// A client of its own connection that calls a tool.
async fn one_call(client: &reqwest::Client, url: &str, tool: &str, body: &str) -> usize {
    let response = client
        .post(url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", tool)
        .body(body.to_owned())
        .send()
        .await
        .unwrap();
    response.bytes().await.unwrap().len()
}

/// Calls over some connections at once: calls a second, and the 99th percentile in ms.
async fn load(url: &str, tool: &str, connections: usize, calls: usize, payload: usize) -> (f64, f64) {
    let text = "x".repeat(payload);
    let body = modern_body("tools/call", json!({ "name": tool, "arguments": { "text": text } })).to_string();
    let start = Instant::now();
    let work = (0..connections).map(|_| {
        let (client, url, tool, body) = (Served::client(), url.to_owned(), tool.to_owned(), body.clone());
        async move {
            let mut times = Vec::new();
            for _ in 0..calls.div_ceil(connections) {
                let start = Instant::now();
                assert!(one_call(&client, &url, &tool, &body).await > payload);
                times.push(start.elapsed());
            }
            times
        }
    });
    let mut times: Vec<Duration> = futures_util::future::join_all(work).await.concat();
    (times.len() as f64 / start.elapsed().as_secs_f64(), percentile(&mut times, 0.99))
}

/// Throughput and tail through Pleach and direct, in the same run.
async fn loads() {
    let url = echo_http();
    let folder = Folder::new(&format!(
        "version = 1\n[servers.http]\nurl = \"{url}\"\ndefault_access = \"read-only\"\n[policy]\ntools = {{ allow = [\"*\"] }}\n"
    ));
    let served = Served::start(&folder);
    let door = format!("{}/mcp", served.base);
    load(&door, "http__echo", 16, 500, 5).await;
    for (payload, calls) in [(5, 4_000), (1 << 20, 100)] {
        for connections in [1, 16, 64, 256] {
            let calls = calls.max(connections);
            let (direct, direct_tail) = load(&url, "echo", connections, calls, payload).await;
            let (through, tail) = load(&door, "http__echo", connections, calls, payload).await;
            println!(
                "{payload} bytes over {connections} connections: {through:.0} calls/s ({:.2} x direct {direct:.0}), p99 {tail:.1} ms (direct {direct_tail:.1})",
                through / direct
            );
        }
    }
}

/// The list of ten servers with five hundred tools each.
async fn lists() {
    let me = std::env::current_exe().unwrap().display().to_string();
    let server =
        |i: u32| format!("[servers.s{i}]\ncommand = \"{me}\"\nargs = [\"many\"]\ndefault_access = \"read-only\"\n");
    let servers: String = (0..10).map(server).collect();
    let folder = Folder::new(&format!("version = 1\n{servers}[policy]\ntools = {{ allow = [\"*\"] }}\n"));
    let served = Served::start(&folder);
    let mut times = Vec::new();
    for _ in 0..50 {
        let (start, mut cursor, mut count) = (Instant::now(), None::<serde_json::Value>, 0);
        loop {
            let params = cursor.take().map_or(json!({}), |c| json!({ "cursor": c }));
            let page = served.modern("/mcp", "tools/list", params, &[]).await.json()["result"].clone();
            count += page["tools"].as_array().unwrap().len();
            match &page["nextCursor"] {
                serde_json::Value::Null => break,
                next => cursor = Some(next.clone()),
            }
        }
        assert_eq!(count, 5_000);
        times.push(start.elapsed());
    }
    let first = times.remove(0).as_secs_f64() * 1e3;
    println!(
        "5,000 tools of ten servers: first {first:.0} ms (with their start), then p50 {:.1} ms",
        percentile(&mut times, 0.5)
    );
}

/// What a thousand legacy clients cost that do nothing but listen.
async fn idle() {
    let folder = Folder::new("version = 1\n");
    let served = Served::start(&folder);
    let rss = || -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", served.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let mut kept = Vec::new();
    for round in 0..1_010 {
        if round == 10 {
            kept.push((None, rss()));
        }
        let session = served.initialize("/mcp", &[]).await;
        let request = Served::client().get(format!("{}/mcp", served.base)).header("accept", "text/event-stream");
        let stream = request.header("mcp-session-id", session).send().await.unwrap();
        assert_eq!(stream.status(), 200);
        kept.push((Some(stream), 0.0));
    }
    let before = kept[10].1;
    println!("an idle client with its stream: {:.1} KiB", (rss() - before) / 1_000.0);
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

/// Processor time of a process so far, in microseconds, as the scheduler counts it: ticks miss
/// what sleeps and wakes in between.
fn cpu(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e3
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
    let mut proxy = Command::new(&me).args(["proxy", &url]).stdout(Stdio::piped()).spawn().unwrap();
    let mut bare = String::new();
    BufReader::new(proxy.stdout.take().unwrap()).read_line(&mut bare).unwrap();
    let (http, stdio, pid) = ("http__echo", "stdio__echo", served.pid());
    let ways = [
        ("through a bare proxy of the same libraries", bare.trim(), "echo", proxy.id()),
        ("relayed to http", &door, http, pid),
        ("relayed to stdio", &door, stdio, pid),
    ];
    for (name, url, tool, pid) in ways {
        for _ in 0..200 {
            post(url, tool).await;
        }
        let before = cpu(pid);
        let mut relayed = Vec::new();
        for _ in 0..CALLS {
            let start = Instant::now();
            post(url, tool).await;
            relayed.push(start.elapsed());
        }
        let spent = (cpu(pid) - before) / f64::from(CALLS);
        let (p50, p99) = (percentile(&mut relayed, 0.5), percentile(&mut relayed, 0.99));
        println!(
            "{name}: p50 {p50:.3} ms, p99 {p99:.3} ms, {spent:.0} µs of its CPU a call, {:.2} × direct",
            p50 / percentile(&mut direct, 0.5)
        );
    }
    proxy.kill().unwrap();
    proxy.wait().unwrap();
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
