//! Both formats against a server written here, over real connections, with time that stands
//! still: what waits, waits in no time.

mod anthropic;
mod double;
mod openai;
mod weather;

use double::{Answer, Double, Seen};
use policies::decide;
use policies::names::Name;
use policies::permit::Verdict;
use policies::resolve::{Policy, Surroundings};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use subagents::event::ToolCall;
use subagents::ports::{Lender, Model, ModelError, Reply, Request, Sampler, ToolSpec};
use subagents::run::RunId;
use subagents::turn::{Message, ToolResult};

const KEY: &str = "sk-very-secret-0123456789";

/// The machine of a policy file that needs nothing of it.
struct Nowhere;

impl Surroundings for Nowhere {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "KEY").then(|| KEY.to_owned())
    }
    fn folder(&self) -> &Path {
        Path::new("/")
    }
    fn file(&self) -> &Path {
        Path::new("/pleach.toml")
    }
    fn home(&self) -> Option<PathBuf> {
        None
    }
    fn canonical(&self, path: &Path) -> Result<PathBuf, String> {
        Ok(path.to_owned())
    }
    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
    fn read_text(&self, path: &Path) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|e| e.to_string())
    }
}

/// No client is there.
struct Nobody;

#[async_trait::async_trait]
impl Sampler for Nobody {
    async fn client(&self, _: &RunId) -> Result<Arc<dyn Lender>, String> {
        Err("no client is there".into())
    }
}

/// The models of a policy file.
struct World {
    policy: Policy,
    models: BTreeMap<Name, Arc<dyn Model>>,
    told: Mutex<String>,
}

fn name(text: &str) -> Name {
    Name::try_from(text).unwrap()
}

impl World {
    fn new(models: &str) -> Self {
        let node = policies::file::read("pleach.toml", &format!("version = 1\n{models}")).unwrap();
        let policy = policies::resolve::resolve(&node, &Nowhere).unwrap();
        let models = super::build(&policy, &(Arc::new(Nobody) as Arc<dyn Sampler>)).unwrap();
        Self { policy, models, told: Mutex::default() }
    }
    /// One model `m` at a server, with more keys.
    fn of(provider: &str, model: &str, at: &Double, more: &str) -> Self {
        Self::new(&entry("m", provider, model, at, more))
    }
    async fn ask(&self, request: Request<'_>) -> Result<Reply, ModelError> {
        let Verdict::Allow(permit, _) = decide::complete(&self.policy.door(None), name("m")) else { panic!("denied") };
        self.told.lock().unwrap().clear();
        let delta = |text: &str| self.told.lock().unwrap().push_str(text);
        self.models[&name("m")].complete(permit, request, &delta).await
    }
    fn told(&self) -> String {
        self.told.lock().unwrap().clone()
    }
    /// Asks "hello" and nothing else.
    async fn hello(&self) -> Result<Reply, ModelError> {
        let (messages, run) = ([Message::User("hello".into())], RunId::known("r-1"));
        self.ask(request(&messages, &[], &run)).await
    }
}

fn entry(name: &str, provider: &str, model: &str, at: &Double, more: &str) -> String {
    let base = if provider == "openai" { "/v1" } else { "" };
    format!(
        "[models.{name}]\nprovider = \"{provider}\"\nmodel = \"{model}\"\napi_key = \"${{KEY}}\"\nbase_url = \"{}{base}\"\n{more}\n",
        at.url()
    )
}

fn request<'a>(messages: &'a [Message], tools: &'a [ToolSpec], run: &'a RunId) -> Request<'a> {
    Request {
        agent: "a",
        message: None,
        system: "Be brief.",
        messages,
        tools,
        max_output: 32_000,
        effort: None,
        schema: None,
        run,
        root: run,
    }
}

fn tool(name: &str) -> ToolSpec {
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    ToolSpec { name: name.into(), description: "d".into(), input_schema: schema }
}

fn result(id: &str, text: &str, error: bool) -> ToolResult {
    ToolResult { id: id.into(), name: "t".into(), text: text.into(), error }
}

fn assistant(reply: &Reply) -> Message {
    Message::Assistant { text: reply.text.clone(), calls: reply.calls.clone(), blocks: reply.blocks.clone() }
}

fn call(id: &str, name: &str, input: Value) -> ToolCall {
    ToolCall { id: id.into(), name: name.into(), input }
}
