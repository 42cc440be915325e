//! What is measured against: the cheapest servers there are, and proxies that read, judge and
//! rewrite nothing. Proxies are processes of their own, so that their processor time is theirs.

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use conformance::served::Served;
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

/// Plays the double that is named, if one is.
pub(crate) fn run(args: &[String]) -> bool {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match args[..] {
        ["echo"] => echo_stdio(),
        ["many"] => many_stdio(),
        ["front"] => runtime().block_on(front()),
        ["proxy", to] => runtime().block_on(proxy(to.to_owned())),
        ["pipe"] => runtime().block_on(pipe()),
        _ => return false,
    }
    true
}

/// A double in a process of its own, and where it listens.
pub(crate) struct Double {
    child: Child,
    pub(crate) url: String,
}

impl Double {
    pub(crate) fn start(args: &[&str]) -> Self {
        let me = std::env::current_exe().unwrap();
        let mut child = Command::new(me).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The cheapest MCP server there is: what is measured is the way to it.
fn answer(line: &[u8]) -> Option<String> {
    let request: serde_json::Value = serde_json::from_slice(line).ok()?;
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
        if let Some(text) = answer(line.unwrap().as_bytes()) {
            writeln!(stdout, "{text}").unwrap();
            stdout.flush().unwrap();
        }
    }
}

/// The same over HTTP, a thread a connection.
pub(crate) fn echo_http() -> String {
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
                    let text = answer(&body).unwrap_or_default();
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
            false => answer(line.as_bytes()),
        };
        if let Some(text) = text {
            writeln!(stdout, "{text}").unwrap();
            stdout.flush().unwrap();
        }
    }
}

/// The HTTP half: axum alone, which answers itself.
async fn front() {
    listen(|_, body| Box::pin(async move { answer(&body).unwrap().into() })).await;
}

/// axum in front, reqwest behind.
async fn proxy(to: String) {
    let client = Served::client();
    listen(move |mut headers, body| {
        headers.remove("host");
        headers.remove("content-length");
        let request = client.post(&to).headers(headers).body(body);
        Box::pin(async move { request.send().await.unwrap().bytes().await.unwrap() })
    })
    .await;
}

/// axum in front, a process's standard streams behind, one call at a time.
async fn pipe() {
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .arg("echo")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let ends = Arc::new(tokio::sync::Mutex::new((stdin, tokio::io::BufReader::new(stdout))));
    listen(move |_, body| {
        let ends = ends.clone();
        Box::pin(async move {
            let mut ends = ends.lock().await;
            ends.0.write_all(&[&body, &b"\n"[..]].concat()).await.unwrap();
            let mut line = String::new();
            ends.1.read_line(&mut line).await.unwrap();
            line.into()
        })
    })
    .await;
    drop(child);
}

type Answering = Pin<Box<dyn Future<Output = Bytes> + Send>>;

/// Says where it listens, and answers.
async fn listen(answer: impl Fn(HeaderMap, Bytes) -> Answering + Clone + Send + Sync + 'static) {
    let pass = async move |request: axum::extract::Request| {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        let body = Body::from(answer(parts.headers, body).await);
        axum::response::Response::builder().header("content-type", "application/json").body(body).unwrap()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}/mcp", listener.local_addr().unwrap());
    axum::serve(listener, axum::Router::new().fallback(axum::routing::post(pass))).await.unwrap();
}
