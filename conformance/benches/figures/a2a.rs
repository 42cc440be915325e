//! A2A: a message to an agent here and to a peer behind us, against the same said to the peer itself;
//! and a thousand tasks that are followed at once.

use crate::{cpu, median, percentile};
use conformance::pleach::Folder;
use conformance::served::Served;
use conformance::upstream::{Act, Upstream};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const ROUNDS: usize = 6;
const MESSAGES: usize = 200;
const STREAMS: usize = 1_000;

/// A peer that has done everything at once.
fn peer() -> Upstream {
    Upstream::of(|base| {
        let base = base.to_owned();
        move |seen| {
            if seen.path == "/card.json" {
                return Act::Status(
                    200,
                    json!({
                        "name": "echo", "version": "1", "description": "d", "capabilities": { "streaming": false },
                        "supportedInterfaces": [{ "url": format!("{base}/a2a"), "protocolBinding": "JSONRPC", "protocolVersion": "1.0" }],
                        "skills": [{ "id": "echo", "name": "echo", "description": "d", "tags": [] }],
                    }),
                );
            }
            let id = format!("t-{}", seen.body["params"]["message"]["messageId"].as_str().unwrap_or_default());
            let done = json!({ "id": id, "contextId": "c", "status": { "state": "TASK_STATE_COMPLETED" },
                "artifacts": [{ "artifactId": "a", "parts": [{ "text": "hello" }] }] });
            Act::Result(if seen.method == "GetTask" { done } else { json!({ "task": done }) })
        }
    })
}

struct Way {
    name: &'static str,
    url: String,
    pid: Option<u32>,
    times: Vec<Duration>,
    spent: Vec<f64>,
}

async fn said(client: &reqwest::Client, url: &str, method: &str, id: &str) -> reqwest::Response {
    let message = json!({ "messageId": id, "role": "ROLE_USER", "parts": [{ "text": "hello" }] });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": { "message": message } });
    let request = client.post(url).header("content-type", "application/json").header("a2a-version", "1.0");
    let response = request.body(body.to_string()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    response
}

pub(crate) async fn a2a() {
    let peer = peer();
    let card = format!("{}/card.json", peer.base);
    let folder = Folder::new(&format!(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[agents.quick]\nprompt = \"p\"\n\
         expose = true\n[agents.slow]\nprompt = \"p\"\nexpose = true\n[peers.p]\ncard = {card:?}\nexpose = true\n\
         default_access = \"read-only\"\n[policy]\ntools = {{ allow = [\"*\"] }}\n"
    ));
    let reply = "[[reply]]\nagent = \"quick\"\ntext = \"hello\"\n[[reply]]\nagent = \"slow\"\ntext = \"hello\"\ndelay = \"20s\"\n";
    folder.write("replies.toml", reply);
    let served = Served::start(&folder);
    let client = Served::client();
    let way = |name, url: String, pid| Way { name, url, pid, times: Vec::new(), spent: Vec::new() };
    let mut ways = [
        way("the peer itself", format!("{}/a2a", peer.base), None),
        way("a scripted agent here", format!("{}/a2a/quick", served.base), Some(served.pid())),
        way("the peer through /a2a/p", format!("{}/a2a/p", served.base), Some(served.pid())),
    ];
    for round in 0..=ROUNDS {
        for way in &mut ways {
            let before = way.pid.map(cpu);
            for n in 0..MESSAGES {
                let begun = Instant::now();
                let answer: Value =
                    said(&client, &way.url, "SendMessage", &format!("m-{round}-{n}")).await.json().await.unwrap();
                assert_eq!(answer["result"]["task"]["status"]["state"], "TASK_STATE_COMPLETED", "{answer}");
                // The first round warms up.
                if round > 0 {
                    way.times.push(begun.elapsed());
                }
            }
            if let (Some(pid), Some(before), true) = (way.pid, before, round > 0) {
                way.spent.push((cpu(pid) - before) / MESSAGES as f64);
            }
        }
    }
    let direct = percentile(&mut ways[0].times, 0.5);
    for way in &mut ways {
        let (p50, p99) = (percentile(&mut way.times, 0.5), percentile(&mut way.times, 0.99));
        let cost = if way.spent.is_empty() {
            String::new()
        } else {
            format!(", {:.0} µs of its CPU", median(&mut way.spent))
        };
        println!("message/send to {}: p50 {p50:.2} ms, p99 {p99:.2} ms, {:.1} x direct{cost}", way.name, p50 / direct);
    }
    streams(&served).await;
}

/// Each is begun, told that it works, and heard to its end.
async fn streams(served: &Served) {
    let (client, url, before) = (Served::client(), format!("{}/a2a/slow", served.base), served.memory());
    let begun = Instant::now();
    let mut open = Vec::new();
    for n in 0..STREAMS {
        let mut stream = said(&client, &url, "SendStreamingMessage", &format!("s-{n}")).await;
        assert!(stream.chunk().await.unwrap().is_some());
        open.push(tokio::spawn(async move {
            let mut heard = String::new();
            while let Some(chunk) = stream.chunk().await.unwrap() {
                heard.push_str(&String::from_utf8_lossy(&chunk));
            }
            assert!(heard.contains("TASK_STATE_COMPLETED"), "{heard}");
        }));
    }
    let (took, after) = (begun.elapsed(), served.memory());
    for stream in open {
        stream.await.unwrap();
    }
    println!(
        "{STREAMS} tasks streamed at once: begun in {:.1} s ({:.1} ms each), {:.1} KiB each, all heard to their end in {:.1} s",
        took.as_secs_f64(),
        took.as_secs_f64() * 1e3 / STREAMS as f64,
        after.saturating_sub(before) as f64 / STREAMS as f64,
        begun.elapsed().as_secs_f64()
    );
}
