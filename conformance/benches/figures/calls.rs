//! One call after the other: time, and processor time of whoever stands between.

use crate::doubles::{Double, echo_http};
use crate::{cpu, median, percentile, times};
use conformance::pleach::Folder;
use conformance::served::{Served, modern_body};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// All ways are gone in turn, so that what else the machine does falls on all of them.
const ROUNDS: usize = 10;
const CALLS: u32 = 500;

/// A way to the echo.
struct Way {
    name: &'static str,
    url: String,
    tool: &'static str,
    /// Who stands between.
    pid: Option<u32>,
    times: Vec<Duration>,
    spent: Vec<f64>,
}

impl Way {
    fn new(name: &'static str, url: &str, tool: &'static str, pid: Option<u32>) -> Self {
        Self { name, url: url.to_owned(), tool, pid, times: Vec::new(), spent: Vec::new() }
    }
    fn p(&mut self, p: f64) -> f64 {
        percentile(&mut self.times, p)
    }
    fn cost(&mut self) -> f64 {
        median(&mut self.spent)
    }
}

/// A tool call of the modern era.
pub(crate) async fn one_call(client: &reqwest::Client, url: &str, tool: &str, body: &str) -> usize {
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
    assert_eq!(response.status(), 200);
    response.bytes().await.unwrap().len()
}

pub(crate) fn body(tool: &str, text: &str) -> String {
    modern_body("tools/call", json!({ "name": tool, "arguments": { "text": text } })).to_string()
}

pub(crate) async fn calls() {
    let me = std::env::current_exe().unwrap().display().to_string();
    let url = echo_http();
    let folder = Folder::new(&format!(
        "version = 1\n[servers.stdio]\ncommand = \"{me}\"\nargs = [\"echo\"]\ndefault_access = \"read-only\"\n[servers.http]\nurl = \"{url}\"\ndefault_access = \"read-only\"\n[policy]\ntools = {{ allow = [\"*\"] }}\n"
    ));
    let served = Served::start(&folder);
    let (door, pleach) = (format!("{}/mcp", served.base), Some(served.pid()));
    let doubles = [vec!["front"], vec!["proxy", &url], vec!["pipe"]].map(|args| Double::start(&args));
    let [front, proxy, pipe] = &doubles;
    let mut ways = [
        Way::new("direct to http", &url, "echo", None),
        Way::new("a bare front that answers itself", &front.url, "echo", Some(front.pid())),
        Way::new("through a bare proxy to http", &proxy.url, "echo", Some(proxy.pid())),
        Way::new("through pleach to http", &door, "http__echo", pleach),
        Way::new("through a bare proxy to stdio", &pipe.url, "echo", Some(pipe.pid())),
        Way::new("through pleach to stdio", &door, "stdio__echo", pleach),
    ];
    let client = Served::client();
    for round in 0..=ROUNDS {
        for way in &mut ways {
            let body = body(way.tool, "hello");
            let before = way.pid.map(cpu);
            let mut round_times = Vec::new();
            for _ in 0..CALLS {
                let start = Instant::now();
                one_call(&client, &way.url, way.tool, &body).await;
                round_times.push(start.elapsed());
            }
            // The first is for what is done once.
            if round > 0 {
                way.times.extend(round_times);
                way.spent.extend(way.pid.map(|pid| (cpu(pid) - before.unwrap()) / f64::from(CALLS)));
            }
        }
    }
    let direct = ways[0].p(0.5);
    for way in &mut ways {
        let (p50, p99) = (way.p(0.5), way.p(0.99));
        let cost = way.pid.map_or(String::new(), |_| format!(", {:.0} µs of its CPU a call", way.cost()));
        println!("{}: p50 {p50:.3} ms, p99 {p99:.3} ms, {:.2} x direct{cost}", way.name, p50 / direct);
    }
    let cost: Vec<f64> = ways[1..].iter_mut().map(Way::cost).collect();
    let [front, proxy, http, pipe, stdio] = cost[..] else { unreachable!() };
    println!("CPU of a call to http: {:.0} µs on top of the bare proxy's {proxy:.0}", http - proxy);
    println!(
        "CPU of a call to stdio: {:.0} µs on top of the bare proxy's {pipe:.0}; {:.0} on top of the HTTP half's {front:.0}",
        stdio - pipe,
        stdio - front
    );
    direct_stdio(&me);
}

/// The bare way to the same stdio server, for its ratio.
fn direct_stdio(me: &str) {
    let mut child = Command::new(me).arg("echo").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    let line = body("echo", "hello") + "\n";
    let mut bare = times(5_000, || {
        stdin.write_all(line.as_bytes()).unwrap();
        let mut out = String::new();
        stdout.read_line(&mut out).unwrap();
    });
    println!("direct stdio call: p50 {:.3} ms, p99 {:.3} ms", percentile(&mut bare, 0.5), percentile(&mut bare, 0.99));
    drop(stdin);
    child.wait().unwrap();
}
