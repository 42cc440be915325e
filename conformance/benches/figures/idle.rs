//! What a thousand clients cost that do nothing, each on a connection of its own.

use conformance::pleach::Folder;
use conformance::served::{Served, modern_body};
use serde_json::json;
use std::time::Duration;

const CLIENTS: usize = 1_000;
/// Whoever said nothing for this long is idle.
const IDLE: Duration = Duration::from_secs(6);

#[derive(Clone, Copy)]
enum Kind {
    Asked,
    Session,
    Standing,
    Listening,
}

/// A client and what it holds open.
struct Client {
    _client: reqwest::Client,
    _stream: Option<reqwest::Response>,
}

impl Client {
    async fn start(served: &Served, kind: Kind) -> Self {
        let (client, door) = (Served::client(), format!("{}/mcp", served.base));
        let stream = match kind {
            Kind::Asked => {
                let answer = client.get(format!("{}/healthz", served.base)).send().await.unwrap();
                assert_eq!(answer.text().await.unwrap(), "ok\n");
                None
            }
            Kind::Session | Kind::Standing => {
                let about = json!({ "name": "t", "version": "1" });
                let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": about });
                let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
                let answer = post(&client, &door).body(body.to_string()).send().await.unwrap();
                let session = answer.headers()["mcp-session-id"].clone();
                assert!(answer.text().await.unwrap().contains("serverInfo"));
                let stream = client.get(&door).header("accept", "text/event-stream").header("mcp-session-id", session);
                match kind {
                    Kind::Standing => Some(stream.send().await.unwrap()),
                    _ => None,
                }
            }
            Kind::Listening => {
                let params = json!({ "notifications": { "toolsListChanged": true } });
                let request = post(&client, &door).header("mcp-protocol-version", "2026-07-28");
                let request = request.header("mcp-method", "subscriptions/listen");
                let body = modern_body("subscriptions/listen", params).to_string();
                let mut stream = request.body(body).send().await.unwrap();
                assert!(String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap()).contains("acknowledged"));
                Some(stream)
            }
        };
        assert!(stream.as_ref().is_none_or(|s| s.status() == 200));
        Self { _client: client, _stream: stream }
    }
}

fn post(client: &reqwest::Client, door: &str) -> reqwest::RequestBuilder {
    let request = client.post(door).header("content-type", "application/json");
    request.header("accept", "application/json, text/event-stream")
}

pub(crate) async fn idle() {
    for (name, kind) in [
        ("an idle connection that asked once", Kind::Asked),
        ("an idle legacy client without a stream", Kind::Session),
        ("an idle legacy client with its stream", Kind::Standing),
        ("an idle modern client that listens", Kind::Listening),
    ] {
        let served = Served::start(&Folder::new("version = 1\n"));
        let rss = || -> f64 {
            let status = std::fs::read_to_string(format!("/proc/{}/status", served.pid())).unwrap();
            let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let mut kept = Vec::new();
        for _ in 0..10 {
            kept.push(Client::start(&served, kind).await);
        }
        let before = rss();
        for _ in 0..CLIENTS {
            kept.push(Client::start(&served, kind).await);
        }
        let at_once = (rss() - before) / CLIENTS as f64;
        tokio::time::sleep(IDLE).await;
        println!("{name}: {:.1} KiB (at once {at_once:.1})", (rss() - before) / CLIENTS as f64);
    }
}
