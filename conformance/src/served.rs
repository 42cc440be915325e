//! A `pleach serve` of the test's own, and requests to it as bytes.

use crate::pleach::Folder;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

/// Nothing that is to be said takes longer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// A running `pleach serve`, ended when dropped.
pub struct Served {
    child: Child,
    client: reqwest::Client,
    /// `http://127.0.0.1:PORT`
    pub base: String,
    /// What it logged so far, and will.
    pub log: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("what pleach serve said:\n{}", self.log.lock().map(|log| log.clone()).unwrap_or_default());
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: reqwest::header::HeaderMap,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The body as JSON; of a stream, its last event.
    ///
    /// # Panics
    /// When it is neither.
    #[allow(clippy::unwrap_used)]
    pub fn json(&self) -> Value {
        let last = self.body.lines().rev().find_map(|l| l.strip_prefix("data: ")).unwrap_or(&self.body);
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

#[allow(clippy::unwrap_used)]
impl Served {
    /// Serves the folder's policy on a free port, and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(folder: &Folder) -> Self {
        Self::start_with(folder, &[])
    }
    /// The same with more environment.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_with(folder: &Folder, env: &[(&str, &str)]) -> Self {
        let mut command = folder.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.envs(env.iter().copied());
        Self::of(command)
    }
    /// The same with so many descriptors.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_within(folder: &Folder, descriptors: u32) -> Self {
        let plain = folder.command(&["serve", "--listen", "127.0.0.1:0"]);
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")]);
        command.arg(plain.get_program()).args(plain.get_args()).current_dir(folder.path());
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Self::of(command)
    }
    /// The same by a command of the test's own, which ends by becoming `pleach serve`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn of(mut command: std::process::Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = String::new();
        let base = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {seen}")).unwrap();
            if let Some(url) = line.split(' ').find_map(|w| w.strip_suffix("/mcp")) {
                break url.to_owned();
            }
            seen.push_str(&line);
        };
        let log = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, client: Self::client(), base, log }
    }
    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
    /// Waits until it ended by itself, or was killed; `None` when it goes on.
    ///
    /// # Panics
    /// When its state cannot be asked.
    pub fn ended_within(&mut self, limit: std::time::Duration) -> Option<std::process::ExitStatus> {
        let until = std::time::Instant::now() + limit;
        loop {
            match self.child.try_wait().unwrap() {
                None if std::time::Instant::now() < until => std::thread::sleep(std::time::Duration::from_millis(5)),
                ended => return ended,
            }
        }
    }
    /// Its memory in KiB, as the kernel counts it.
    ///
    /// # Panics
    /// When it is not there.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
    /// A client that speaks plain HTTP to it.
    ///
    /// # Panics
    /// When none can be made.
    pub fn client() -> reqwest::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Connections belong to a runtime, and every test has its own.
        reqwest::Client::builder().no_proxy().build().unwrap()
    }
    /// Gets a path.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.client.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.text().await.unwrap() }
    }
    /// Deletes what is at a path.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn delete(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.client.delete(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.text().await.unwrap() }
    }
    /// Gets a path that streams.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn follow(&self, path: &str, headers: &[(&str, &str)]) -> Listening {
        Listening::to(self.client.get(format!("{}{path}", self.base)), headers).await
    }
    /// Posts bytes with headers.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
        self.try_post(path, headers, body).await.unwrap()
    }
    /// The same, of somebody who may be hung up on.
    ///
    /// # Errors
    /// When nobody answers: whoever refuses a body unread may close while it is still being sent.
    pub async fn try_post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.client.post(format!("{}{path}", self.base)).body(body);
        let given = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        if !given("content-type") {
            request = request.header("content-type", "application/json");
        }
        if !given("accept") {
            request = request.header("accept", "application/json, text/event-stream");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.text().await? })
    }
    /// A request of the modern era, with all it must carry.
    pub async fn modern(&self, path: &str, method: &str, params: Value, more: &[(&str, &str)]) -> Answer {
        let key = if method == "resources/read" { "uri" } else { "name" };
        let name = params[key].as_str().unwrap_or("").to_owned();
        let body = modern_body(method, params).to_string();
        let mut headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
        if matches!(method, "tools/call" | "prompts/get" | "resources/read") {
            headers.push(("mcp-name", &name));
        }
        headers.extend(more);
        self.post(path, &headers, body).await
    }
    /// Posts a body whose answer is a stream, read as it comes.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn open(&self, path: &str, headers: &[(&str, &str)], body: String) -> Listening {
        let request = self.client.post(format!("{}{path}", self.base)).body(body);
        Listening::to(request.header("content-type", "application/json"), headers).await
    }
    /// Opens `subscriptions/listen` for these notifications.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn listen(&self, path: &str, notifications: Value, more: &[(&str, &str)]) -> Listening {
        self.begin(path, "subscriptions/listen", json!({ "notifications": notifications }), more).await
    }
    /// Begins a request of the modern era; what is said to it, its answer too, is read as it comes
    /// or not at all.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn begin(&self, path: &str, method: &str, params: Value, more: &[(&str, &str)]) -> Listening {
        let name = params["name"].as_str().unwrap_or("").to_owned();
        let body = modern_body(method, params).to_string();
        let mut headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
        if method == "tools/call" {
            headers.push(("mcp-name", &name));
        }
        headers.extend(more);
        let request = self.client.post(format!("{}{path}", self.base)).body(body);
        let request = request.header("content-type", "application/json");
        Listening::to(request, &headers).await
    }
    /// Opens the standing stream of a legacy session.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn stand(&self, path: &str, session: &str, more: &[(&str, &str)]) -> Listening {
        let own = [("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];
        let request = self.client.get(format!("{}{path}", self.base));
        Listening::to(request, &[&own, more].concat()).await
    }
    /// Asks it to end and waits until it did, as an operator would.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn end(mut self) {
        let asked = std::process::Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(asked.unwrap().success());
        self.child.wait().unwrap();
    }
    /// Opens a legacy session; gives its id.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn initialize(&self, path: &str, more: &[(&str, &str)]) -> String {
        self.initialize_as(path, json!({}), more).await
    }
    /// The same for a client that can be asked something.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn initialize_as(&self, path: &str, capabilities: Value, more: &[(&str, &str)]) -> String {
        let client = json!({ "name": "t", "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": client });
        let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }).to_string();
        let answer = self.post(path, more, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.headers["mcp-session-id"].to_str().unwrap().to_owned()
    }
    /// A request in a legacy session.
    pub async fn legacy(
        &self,
        path: &str,
        session: &str,
        method: &str,
        params: Value,
        more: &[(&str, &str)],
    ) -> Answer {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let mut headers = vec![("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")];
        headers.extend(more);
        self.post(path, &headers, body).await
    }
}

/// A stream that stands, and what it said so far.
pub struct Listening {
    response: reqwest::Response,
    /// Everything it said.
    pub heard: String,
}

#[allow(clippy::unwrap_used)]
impl Listening {
    async fn to(mut request: reqwest::RequestBuilder, headers: &[(&str, &str)]) -> Self {
        request = request.header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Self { response: request.send().await.unwrap(), heard: String::new() }
    }
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }
    /// Reads until these words were said.
    ///
    /// # Panics
    /// When they are not, for half a minute.
    pub async fn until(&mut self, words: &str) {
        while !self.heard.contains(words) {
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            match chunk {
                Ok(Ok(Some(chunk))) => self.heard.push_str(&String::from_utf8_lossy(&chunk)),
                other => panic!("{words:?} was not said ({other:?}): {}", self.heard),
            }
        }
    }
    /// Reads until more was said than `known` bytes.
    ///
    /// # Panics
    /// When nothing is, for half a minute.
    pub async fn until_more(&mut self, known: usize) {
        while self.heard.len() <= known {
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            match chunk {
                Ok(Ok(Some(chunk))) => self.heard.push_str(&String::from_utf8_lossy(&chunk)),
                other => panic!("nothing more was said ({other:?}): {}", self.heard),
            }
        }
    }
    /// Reads until it ends.
    ///
    /// # Panics
    /// When it stands for another half a minute.
    pub async fn end(&mut self) {
        let ended = async {
            while let Ok(Some(chunk)) = self.response.chunk().await {
                self.heard.push_str(&String::from_utf8_lossy(&chunk));
            }
        };
        assert!(tokio::time::timeout(PATIENCE, ended).await.is_ok(), "it still stands: {}", self.heard);
    }
}

/// The body of a modern request.
pub fn modern_body(method: &str, mut params: Value) -> Value {
    let own = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    match params.get_mut("_meta").and_then(Value::as_object_mut) {
        Some(meta) => {
            for (key, value) in own.as_object().cloned().unwrap_or_default() {
                meta.entry(key).or_insert(value);
            }
        }
        None => params["_meta"] = own,
    }
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

/// The text of a tool result.
pub fn text(answer: &Answer) -> String {
    let result = answer.json()["result"].clone();
    result["content"][0]["text"].as_str().unwrap_or_default().to_owned()
}
