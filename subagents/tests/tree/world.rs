//! Ports that live in memory and count what they did. A disk outlives the processes on it.

use async_trait::async_trait;
use policies::action::{Call, Complete, Effect, RuntimeCall};
use policies::authority::Authority;
use policies::grant::Narrowing;
use policies::json::{Json, digest};
use policies::manifest::{ServerWords, Tool, import};
use policies::names::Name;
use policies::permit::{Permit, Verdict};
use policies::resolve::{Limits, Policy, Surroundings, resolve};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use subagents::event::{Elsewhere, Event, Record, ToolCall, Usage};
use subagents::host::{Approvals, Ended, Host, HostError, Ports, Start};
use subagents::ports::*;
use subagents::run::{Caller, RunId};
use subagents::turn::{self, Message, State};
use tokio_util::sync::CancellationToken;

pub(crate) struct Nowhere;
impl Surroundings for Nowhere {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }
    fn folder(&self) -> &Path {
        Path::new("/w")
    }
    fn file(&self) -> &Path {
        Path::new("/w/pleach.toml")
    }
    fn home(&self) -> Option<PathBuf> {
        None
    }
    fn canonical(&self, path: &Path) -> Result<PathBuf, String> {
        Ok(path.to_owned())
    }
    fn exists(&self, _: &Path) -> bool {
        true
    }
    fn read_text(&self, _: &Path) -> Result<String, String> {
        Ok(String::new())
    }
}

/// A policy with the agents a > b > c and a server s; `extra` stands in `[policy]`.
pub(crate) fn policy(extra: &str) -> Arc<Policy> {
    let text = format!(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"x\"\ncompact_with = \"cheap\"\n\
         [models.cheap]\nprovider = \"scripted\"\nscript = \"y\"\n[servers.s]\nurl = \"https://s.example\"\n\
         [policy]\nmax_access = \"destructive\"\n{extra}\n\
         [agents.a]\nprompt = \"\"\nsubagents = [\"b\", \"c\", \"a\", \"f\", \"d\"]\n[agents.b]\nprompt = \"\"\nsubagents = [\"c\", \"d\"]\n\
         [agents.c]\nprompt = \"\"\nsubagents = [\"d\"]\n[agents.d]\nprompt = \"\"\n\
         [agents.f]\nprompt = \"\"\noutput_schema = {{ type = \"object\", required = [\"n\"], properties = {{ n = {{ type = \"integer\" }} }} }}\n"
    );
    Arc::new(resolve(&policies::file::read("pleach.toml", &text).unwrap(), &Nowhere).unwrap())
}
pub(crate) const TOOLS: &str = "tools = { allow = [\"s__*\"], ask = [\"s__gated\"] }";

/// What survives a process.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) runs: BTreeMap<RunId, (RunRow, Vec<Record>, State)>,
    pub(crate) order: Vec<Record>,
    trees: BTreeMap<RunId, (u64, Option<u32>)>,
    alive: BTreeSet<u32>,
    pub(crate) questions: BTreeMap<String, QuestionRow>,
    blobs: BTreeMap<String, Vec<u8>>,
    inbox: BTreeMap<RunId, Vec<Command>>,
}

/// What happened outside: the tools by the key they were called with.
#[derive(Default)]
pub(crate) struct Outside {
    pub(crate) made: Mutex<Vec<(String, String)>>,
    /// `s__slow` waits for it.
    pub(crate) go: tokio::sync::Notify,
    /// Somebody is in `s__slow`.
    pub(crate) slow: tokio::sync::Notify,
}

/// One turn of a script: what is said, and the calls.
pub(crate) type Turn = (&'static str, Vec<(&'static str, Value)>);
pub(crate) type Script = BTreeMap<&'static str, Vec<Turn>>;

/// When a process dies: at which write, before or after it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    Never,
    Before(usize),
    After(usize),
}

/// What a model was asked: the run, the conversation, the names of the tools.
pub(crate) type Put = (RunId, Vec<Message>, Vec<String>);
/// Looks on at each call of a tool.
pub(crate) type Watch = Box<dyn Fn(&str) + Send>;

/// How the models and the disk behave.
#[derive(Default)]
pub(crate) struct Ways {
    /// Tokens of the window; 0: no window, and every request reads 10.
    pub(crate) context: u64,
    /// So many turns of one call each, whatever the script says.
    pub(crate) endless: u32,
    /// Bytes of what such a call gives.
    pub(crate) long: u64,
    /// What the model takes a token for, when it counts less than it reads.
    pub(crate) undercount: u64,
    /// What was asked: run, conversation, names of the tools.
    pub(crate) asked: Mutex<Vec<Put>>,
    /// Everything takes a random time when this is not 0.
    pub(crate) seed: std::sync::atomic::AtomicU64,
}

impl Ways {
    pub(crate) fn random(&self, below: u64) -> u64 {
        let step = |n: u64| Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        (self.seed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step).unwrap() >> 33) % below
    }
    async fn delay(&self, most: u64) {
        if self.seed.load(Ordering::SeqCst) != 0 {
            tokio::time::sleep(std::time::Duration::from_millis(self.random(most))).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

/// One process with a host in it.
pub(crate) struct World {
    pub(crate) ways: Arc<Ways>,
    /// What the gate shows besides the runtime's tools.
    pub(crate) shown: Mutex<Vec<&'static str>>,
    /// Told to the gate's watcher at each call.
    pub(crate) at_call: Mutex<Option<Watch>>,
    pub(crate) disk: Arc<Mutex<Disk>>,
    pub(crate) outside: Arc<Outside>,
    pub(crate) policy: Mutex<Arc<Policy>>,
    script: Arc<Script>,
    process: u32,
    death: Death,
    writes: AtomicUsize,
    bus: tokio::sync::broadcast::Sender<RunId>,
    pub(crate) price: Option<policies::price::Price>,
    pub(crate) client_gone: Mutex<bool>,
    /// The counted limits of its client.
    pub(crate) limits: Mutex<Limits>,
    /// Agents its client may no longer start.
    pub(crate) no_longer_started: Mutex<BTreeSet<String>>,
    /// What `s__gated` is hashed with: another manifest, another digest.
    pub(crate) manifest: AtomicU32,
}

static PROCESS: AtomicU32 = AtomicU32::new(1);

impl World {
    pub(crate) fn new(policy: Arc<Policy>, script: Script) -> Self {
        Self::on(Arc::default(), Arc::default(), policy, Arc::new(script), tokio::sync::broadcast::channel(64).0)
    }
    fn on(
        disk: Arc<Mutex<Disk>>,
        outside: Arc<Outside>,
        policy: Arc<Policy>,
        script: Arc<Script>,
        bus: tokio::sync::broadcast::Sender<RunId>,
    ) -> Self {
        let process = PROCESS.fetch_add(1, Ordering::SeqCst);
        disk.lock().unwrap().alive.insert(process);
        Self {
            ways: Arc::default(),
            shown: Mutex::default(),
            at_call: Mutex::default(),
            disk,
            outside,
            policy: Mutex::new(policy),
            script,
            process,
            death: Death::Never,
            writes: AtomicUsize::new(0),
            bus,
            price: Some(policies::price::Price { input: 1, output: 1, ..policies::price::Price::FREE }),
            client_gone: Mutex::new(false),
            limits: Mutex::new(Limits::NONE),
            no_longer_started: Mutex::default(),
            manifest: AtomicU32::new(0),
        }
    }
    pub(crate) fn dying(mut self, death: Death) -> Self {
        self.death = death;
        self
    }
    /// Another process on the same disk.
    pub(crate) fn next(&self) -> Self {
        let policy = self.policy.lock().unwrap().clone();
        let next = Self::on(self.disk.clone(), self.outside.clone(), policy, self.script.clone(), self.bus.clone());
        Self { ways: self.ways.clone(), price: self.price, ..next }
    }
    /// The process is gone.
    pub(crate) fn die(&self) {
        self.disk().alive.remove(&self.process);
    }
    /// It was not gone after all.
    pub(crate) fn revive(&self) {
        self.disk().alive.insert(self.process);
    }
    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }
    pub(crate) fn host(self: &Arc<Self>) -> Arc<Host> {
        Host::new(Ports {
            gate: self.clone(),
            toolbox: self.clone(),
            models: self.clone(),
            journal: self.clone(),
            bus: self.clone(),
        })
    }
    pub(crate) fn start(&self, agent: &str) -> Start {
        Start {
            id: RunId::fresh().unwrap(),
            agent: Name::try_from(agent).unwrap(),
            prompt: "p".into(),
            principal: "t".into(),
            door: self.policy.lock().unwrap().door(None),
            place: "here".into(),
            limits: Limits::NONE,
            shared: None,
            inbound: None,
            approvals: Approvals::Park,
            cancel: CancellationToken::new(),
        }
    }
    pub(crate) async fn run(self: &Arc<Self>, agent: &str) -> Result<Ended, HostError> {
        self.host().start(self.start(agent)).await
    }
    /// How often each tool was called.
    pub(crate) fn made(&self, tool: &str) -> usize {
        self.outside.made.lock().unwrap().iter().filter(|(name, _)| name == tool).count()
    }
    pub(crate) fn events(&self, kind: &str) -> Vec<Event> {
        self.disk().order.iter().map(|r| r.event.clone()).filter(|e| e.kind() == kind).collect()
    }
    /// The results of a tool that models read.
    pub(crate) fn results(&self, call: &str) -> Vec<String> {
        let texts = self.events("tool.finished").into_iter();
        texts
            .filter_map(|e| match e {
                Event::ToolFinished { id, text, .. } if id == call => Some(text),
                _ => None,
            })
            .collect()
    }
    pub(crate) fn open_question(&self) -> String {
        let disk = self.disk();
        disk.questions.values().find(|q| q.closed.is_none()).expect("a question is open").question.id.clone()
    }
    fn alive(&self) -> Result<(), JournalError> {
        match self.disk().alive.contains(&self.process) {
            true => Ok(()),
            false => Err(JournalError::Failed("the process is dead".into())),
        }
    }
}

pub(crate) fn tool(name: &str) -> Arc<Tool> {
    let list = json!([{ "name": name, "inputSchema": { "type": "object" } }]);
    let server = Name::try_from("s").unwrap();
    let list = Json::from(&list);
    Arc::new(import(&server, &ServerWords::default(), list.as_array().unwrap()).tools.remove(0))
}

#[async_trait]
impl Gate for World {
    fn policy(&self) -> Arc<Policy> {
        self.policy.lock().unwrap().clone()
    }
    fn door(&self, _: &str, place: &str) -> Option<(Authority, Limits)> {
        assert_eq!(place, "here");
        (!*self.client_gone.lock().unwrap()).then(|| (self.policy().door(None), *self.limits.lock().unwrap()))
    }
    fn may_start(&self, _: &str, _: &str, agent: &Name) -> bool {
        !self.no_longer_started.lock().unwrap().contains(agent.as_str())
    }
    async fn tools(&self, _: &Caller) -> Vec<ToolSpec> {
        let shown = self.shown.lock().unwrap().clone().into_iter();
        let spec = |name: &str| ToolSpec { name: name.into(), description: "d".into(), input_schema: json!({}) };
        shown.map(spec).collect()
    }
    async fn authorize(&self, caller: &Caller, name: &str, arguments: Json) -> Authorized {
        let Some(bare) = name.strip_prefix("s__") else { return Authorized::Unknown };
        let effect = match bare {
            "pure" => Effect::Pure,
            "idem" => Effect::Idempotent,
            "veri" => Effect::Verifiable,
            _ => Effect::Once,
        };
        let facts = Facts { effect, gives: false };
        let text = format!("{name} {} {}", arguments.to_canonical(), self.manifest.load(Ordering::SeqCst));
        match policies::decide::call(&caller.authority, Call { tool: tool(bare), arguments, touches: Vec::new() }) {
            Verdict::Allow(permit, rule) => Authorized::Allowed(permit, rule, facts),
            Verdict::Ask(question) => Authorized::Ask(question, digest(&text), facts),
            Verdict::Deny(denial) => Authorized::Denied(denial),
        }
    }
    fn authorize_runtime(&self, caller: &Caller, tool: &'static str) -> Verdict<RuntimeCall> {
        policies::decide::runtime(&caller.authority, tool)
    }
    fn narrowing(&self, request: &Json) -> Result<(Narrowing, Limits), String> {
        policies::resolve::request(request, &Nowhere)
    }
}

#[async_trait]
impl Toolbox for World {
    async fn call(
        &self,
        _: &Caller,
        permit: Permit<Call>,
        key: &str,
        cancel: CancellationToken,
    ) -> Result<ToolOutput, ToolFailure> {
        let call = permit.redeem();
        assert!(self.alive().is_ok(), "a dead process calls nothing");
        self.outside.made.lock().unwrap().push((call.tool.name.clone(), key.to_owned()));
        if let Some(watch) = &*self.at_call.lock().unwrap() {
            watch(&call.tool.name);
        }
        if self.ways.seed.load(Ordering::SeqCst) != 0 {
            self.ways.delay(40).await;
        }
        if call.tool.name == "s__slow" {
            self.outside.slow.notify_one();
            tokio::select! {
                () = self.outside.go.notified() => {}
                () = cancel.cancelled() => {
                    return Err(ToolFailure { why: "cancelled".into(), outcome: WhatHappened::Unknown });
                }
            }
        }
        let long = call.arguments.get("long").and_then(Json::as_u64).unwrap_or(0);
        let text = if long > 0 { "ab".repeat(long as usize / 2) } else { format!("{} done", call.tool.name) };
        Ok(ToolOutput { text, error: false, used: Elsewhere::default() })
    }
    async fn verify(&self, _: &Caller, _: &ToolCall, key: &str, _: CancellationToken) -> Verified {
        match self.outside.made.lock().unwrap().iter().any(|(_, made)| made == key) {
            true => Verified::Happened("it had happened".into()),
            false => Verified::DidNot,
        }
    }
}

impl Models for World {
    fn get(&self, name: &Name) -> Option<Arc<dyn Model>> {
        // The other one costs a tenth.
        let price = |p: policies::price::Price| policies::price::Price { input: p.input / 10, ..p };
        let price = if name.as_str() == "cheap" { self.price.map(price) } else { self.price };
        Some(Arc::new(Actor { script: self.script.clone(), price, ways: self.ways.clone() }))
    }
}

pub(crate) struct Actor {
    pub(crate) script: Arc<Script>,
    pub(crate) price: Option<policies::price::Price>,
    pub(crate) ways: Arc<Ways>,
}

impl Actor {
    /// What the window is really measured with.
    fn tokens(request: &Request<'_>) -> u64 {
        let tools: usize = request.tools.iter().map(|t| t.description.len() + t.input_schema.to_string().len()).sum();
        (subagents::history::bytes(request.messages) + tools + request.system.len()) as u64 / 4 + 1
    }
    fn endless(&self, request: &Request<'_>) -> Reply {
        let said = request.messages.iter().rev().find_map(|m| match m {
            Message::Assistant { calls, .. } => calls.first().map(|c| c.id.clone()),
            _ => None,
        });
        let turn = said.map_or(0, |id| id.split('-').next().unwrap().parse::<u32>().unwrap() + 1);
        let input = json!({ "long": self.ways.long });
        let call = ToolCall { id: format!("{turn}-0"), name: "s__pure".into(), input };
        let calls = if turn < self.ways.endless { vec![call] } else { Vec::new() };
        let usage = Usage { input: Self::tokens(request), output: 20, ..Usage::default() };
        let text = if calls.is_empty() { "done".into() } else { format!("turn {turn}") };
        Reply { text, calls, stop: "end_turn".into(), usage, blocks: None, answered_by: None }
    }
}

#[async_trait]
impl Model for Actor {
    fn facts(&self) -> ModelFacts {
        match self.ways.context {
            0 => ModelFacts { context: 1 << 20, max_output: 50, price: self.price },
            context => ModelFacts { context, max_output: 4_000, price: self.price },
        }
    }
    async fn count(&self, request: &Request<'_>) -> u64 {
        match (self.ways.context, self.ways.undercount) {
            (0, _) => 10,
            (_, 0) => Self::tokens(request),
            (_, by) => Self::tokens(request) / by,
        }
    }
    async fn complete(
        &self,
        permit: Permit<Complete>,
        request: Request<'_>,
        _: Delta<'_>,
    ) -> Result<Reply, ModelError> {
        permit.redeem();
        // A provider answers later than at once, so that siblings interleave.
        self.ways.delay(100).await;
        let names = request.tools.iter().map(|t| t.name.clone()).collect();
        self.ways.asked.lock().unwrap().push((request.run.clone(), request.messages.to_vec(), names));
        if self.ways.context > 0 && Self::tokens(&request) + 20 > self.ways.context {
            return Err(ModelError::new(ModelFailure::TooLong, "prompt is too long"));
        }
        if matches!(request.messages.last(), Some(Message::User(text)) if text == subagents::history::INSTRUCTION) {
            assert!(request.schema.is_none(), "a summary is in words");
            let text = format!("a summary of {} messages", request.messages.len() - 1);
            let usage = Usage { input: Self::tokens(&request), output: 30, ..Usage::default() };
            return Ok(Reply { text, calls: vec![], stop: "end_turn".into(), usage, blocks: None, answered_by: None });
        }
        if self.ways.endless > 0 {
            return Ok(self.endless(&request));
        }
        let turn = request.messages.iter().filter(|m| matches!(m, Message::Assistant { .. })).count();
        let turns = self.script.get(request.agent).map(Vec::as_slice).unwrap_or_default();
        let (text, calls) = turns.get(turn).cloned().unwrap_or(("{{last}}", Vec::new()));
        let last = match request.messages.last() {
            Some(Message::User(text)) => text.clone(),
            Some(Message::Results(results)) => results.iter().map(|r| r.text.clone()).collect::<Vec<_>>().join("|"),
            _ => String::new(),
        };
        let child = last.split("r-").nth(1).map(|rest| format!("r-{}", &rest[..16.min(rest.len())]));
        let calls = calls.into_iter().enumerate().map(|(i, (name, input))| {
            let input = input.to_string().replace("{{child}}", child.as_deref().unwrap_or("none"));
            let blob = last.split("the whole is ").nth(1).map(|rest| &rest[..64.min(rest.len())]);
            let input = input.replace("{{blob}}", blob.unwrap_or("none"));
            ToolCall { id: format!("{turn}-{i}"), name: name.into(), input: serde_json::from_str(&input).unwrap() }
        });
        let usage = Usage { input: 10, output: 5, ..Usage::default() };
        let text = text.replace("{{last}}", &last);
        let stop = "end_turn".to_owned();
        Ok(Reply { text, calls: calls.collect(), stop, usage, blocks: None, answered_by: None })
    }
}

#[async_trait]
impl Journal for World {
    async fn append(&self, writes: Vec<Write>, lease: &Lease) -> Result<(), JournalError> {
        self.alive()?;
        let n = self.writes.fetch_add(1, Ordering::SeqCst);
        if self.death == Death::Before(n) {
            self.die();
            return Err(JournalError::Failed("died before the write".into()));
        }
        {
            let mut disk = self.disk();
            if disk.trees.get(&lease.root).is_none_or(|(epoch, _)| *epoch != lease.epoch) {
                return Err(JournalError::Fenced);
            }
            for write in writes {
                let entry = disk.runs.entry(write.record.run.clone());
                let entry = entry.or_insert_with(|| (write.row.clone(), Vec::new(), State::default()));
                entry.1.push(write.record.clone());
                turn::on(&mut entry.2, &write.record.event);
                // What is written is what replaying it gives, at every single write.
                assert_eq!(write.record.seq, entry.1.len() as u64, "no gaps");
                assert_eq!(write.row.state, entry.2.phase().as_str());
                assert_eq!((write.row.turns, write.row.tool_calls), (entry.2.turns, entry.2.tool_calls));
                assert_eq!((write.row.tokens, write.row.usd), (entry.2.usage.total(), entry.2.cost));
                let text = serde_json::to_string(&write.record.event).unwrap();
                assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), write.record.event);
                entry.0 = write.row;
                disk.order.push(write.record);
                match write.question {
                    Some(QuestionChange::Open(question)) => {
                        let row = QuestionRow { question: question.clone(), closed: None, answer: None };
                        assert!(disk.questions.insert(question.id, row).is_none());
                    }
                    Some(QuestionChange::Close { id, by, answer, at }) => {
                        let row = disk.questions.get_mut(&id).expect("only what was asked is answered");
                        assert!(row.closed.is_none(), "nothing is answered twice");
                        (row.closed, row.answer) = (Some((by, at)), answer);
                    }
                    None => {}
                }
            }
        }
        // Others get a word in between, as with a real disk.
        self.ways.delay(4).await;
        if self.death == Death::After(n) {
            self.die();
            return Err(JournalError::Failed("died after the write".into()));
        }
        Ok(())
    }
    async fn claim(&self, root: &RunId) -> Result<Claimed, JournalError> {
        self.alive()?;
        let mut disk = self.disk();
        let alive = disk.alive.clone();
        let tree = disk.trees.entry(root.clone()).or_insert((0, None));
        if let Some(owner) = tree.1.filter(|owner| alive.contains(owner)) {
            return Ok(Claimed::Held { by: format!("process {owner}") });
        }
        *tree = (tree.0 + 1, Some(self.process));
        Ok(Claimed::Lease(Lease { root: root.clone(), epoch: tree.0 }))
    }
    async fn release(&self, lease: &Lease) -> Result<Vec<Command>, JournalError> {
        self.alive()?;
        let mut disk = self.disk();
        let commands = disk.inbox.remove(&lease.root).unwrap_or_default();
        if commands.is_empty()
            && let Some(tree) = disk.trees.get_mut(&lease.root).filter(|tree| tree.0 == lease.epoch)
        {
            tree.1 = None;
        }
        Ok(commands)
    }
    async fn load(&self, root: &RunId) -> Result<Vec<Loaded>, JournalError> {
        self.alive()?;
        let disk = self.disk();
        let runs = disk.runs.values().filter(|(row, ..)| row.root == *root);
        let mut loaded: Vec<Loaded> =
            runs.map(|(row, records, _)| Loaded { row: row.clone(), records: records.clone() }).collect();
        loaded.sort_by_key(|l| l.row.depth);
        Ok(loaded)
    }
    async fn row(&self, run: &RunId) -> Result<Option<RunRow>, JournalError> {
        Ok(self.disk().runs.get(run).map(|(row, ..)| row.clone()))
    }
    async fn unfinished_roots(&self) -> Result<Vec<RunId>, JournalError> {
        let disk = self.disk();
        let going = disk.runs.values().filter(|(row, ..)| row.ended.is_none() && row.state != "waiting");
        Ok(going.map(|(row, ..)| row.root.clone()).collect::<BTreeSet<_>>().into_iter().collect())
    }
    async fn put_blob(&self, bytes: Vec<u8>) -> Result<String, JournalError> {
        let name = digest(&String::from_utf8_lossy(&bytes));
        self.disk().blobs.insert(name.clone(), bytes);
        Ok(name)
    }
    async fn get_blob(&self, name: &str, offset: u64, limit: u64) -> Result<Option<(Vec<u8>, u64)>, JournalError> {
        let disk = self.disk();
        let part = |bytes: &Vec<u8>| bytes.iter().skip(offset as usize).take(limit as usize).copied().collect();
        Ok(disk.blobs.get(name).map(|bytes| (part(bytes), bytes.len() as u64)))
    }
    async fn question(&self, id: &str) -> Result<Option<QuestionRow>, JournalError> {
        Ok(self.disk().questions.get(id).cloned())
    }
    async fn expired_roots(&self, at: u64) -> Result<Vec<RunId>, JournalError> {
        let disk = self.disk();
        let open = disk.questions.values().filter(|q| q.closed.is_none()).map(|q| &q.question);
        let over: BTreeSet<RunId> =
            open.filter(|q| q.expires.is_some_and(|e| e <= at)).map(|q| RunId::known(&q.root)).collect();
        Ok(over.into_iter().collect())
    }
    async fn open_questions(&self, filter: &QuestionFilter) -> Result<Vec<Question>, JournalError> {
        let disk = self.disk();
        let open = disk.questions.values().filter(|q| q.closed.is_none()).map(|q| &q.question);
        let of = |q: &&Question| filter.root.as_ref().is_none_or(|root| q.root == root.as_str());
        Ok(open.filter(of).cloned().collect())
    }
    async fn post(&self, root: &RunId, command: &Command) -> Result<bool, JournalError> {
        let mut disk = self.disk();
        let owned = disk.trees.get(root).and_then(|t| t.1).is_some_and(|owner| disk.alive.contains(&owner));
        if owned {
            disk.inbox.entry(root.clone()).or_default().push(command.clone());
        }
        Ok(owned)
    }
    async fn take(&self, lease: &Lease) -> Result<Vec<Command>, JournalError> {
        Ok(self.disk().inbox.remove(&lease.root).unwrap_or_default())
    }
}

impl Bus for World {
    fn wake(&self, root: &RunId) {
        let _ = self.bus.send(root.clone());
    }
    fn subscribe(&self) -> tokio::sync::broadcast::Receiver<RunId> {
        self.bus.subscribe()
    }
}

pub(crate) fn agent(name: &str, prompt: &str) -> (&'static str, Value) {
    ("Agent", json!({ "description": "d", "prompt": prompt, "subagent_type": name }))
}
pub(crate) fn background(name: &str) -> (&'static str, Value) {
    ("Agent", json!({ "description": "d", "prompt": "p", "subagent_type": name, "run_in_background": true }))
}
pub(crate) fn call(name: &'static str) -> (&'static str, Value) {
    (name, json!({}))
}
/// The same where time passes only when nobody has anything to do: nothing really sleeps.
pub(crate) fn block_paused<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(std::time::Duration::from_secs(100_000), work).await.expect("a deadlock")
    })
}
pub(crate) fn block<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(20), work).await.expect("no hang") })
}
