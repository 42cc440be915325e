//! The host over ports that live in memory: what is journalled is what was performed, and
//! replaying it gives the live state.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use async_trait::async_trait;
use policies::action::{Call, Complete, RuntimeCall};
use policies::grant::Narrowing;
use policies::json::Json;
use policies::names::Name;
use policies::permit::{Denial, Permit, Rule, Verdict};
use policies::resolve::{Limits, Policy, Surroundings, resolve};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use subagents::event::{Event, Record, ToolCall, Usage};
use subagents::host::{Host, Start};
use subagents::ports::*;
use subagents::replay::replay;
use subagents::run::{Caller, RunId, State};
use subagents::turn::Message;
use tokio_util::sync::CancellationToken;

struct Nowhere;
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

fn policy(extra: &str) -> Policy {
    let text = format!(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"x\"\n[policy]\nmax_access = \"read-only\"\n{extra}\n[agents.a]\nprompt = \"\"\nsubagents = [\"a\"]\n"
    );
    resolve(&policies::file::read("pleach.toml", &text).unwrap(), &Nowhere).unwrap()
}

/// What the model says at each turn of each run: how many tool calls and how many children.
#[derive(Debug, Clone)]
struct Plan(Vec<(usize, usize)>);

#[async_trait]
impl Model for Plan {
    fn facts(&self) -> ModelFacts {
        ModelFacts { context: u64::MAX, max_output: u64::MAX, price: Some(policies::price::Price::FREE) }
    }
    async fn count(&self, _: &Request<'_>) -> u64 {
        3
    }
    async fn complete(
        &self,
        permit: Permit<Complete>,
        request: Request<'_>,
        _: Delta<'_>,
    ) -> Result<Reply, ModelError> {
        permit.redeem();
        let turn = request.messages.iter().filter(|m| matches!(m, Message::Assistant { .. })).count();
        let (tools, children) = self.0.get(turn).copied().unwrap_or((0, 0));
        let call = |i: usize, name: &str, input| ToolCall { id: format!("{turn}-{i}"), name: name.into(), input };
        let mut calls: Vec<ToolCall> = (0..tools).map(|i| call(i, "s__t", json!({ "n": i }))).collect();
        let spawn = json!({ "description": "d", "prompt": "p", "subagent_type": "a" });
        calls.extend((0..children).map(|i| call(100 + i, "Agent", spawn.clone())));
        let stop = if calls.is_empty() { "end_turn" } else { "tool_use" };
        let usage = Usage { input: 3, output: 1, ..Usage::default() };
        Ok(Reply { text: format!("turn {turn}"), calls, stop: stop.into(), usage, blocks: None, answered_by: None })
    }
}

struct World {
    model: Arc<Plan>,
    records: Mutex<Vec<(Record, RunRow)>>,
    fail_after: usize,
}

impl Models for World {
    fn get(&self, _: &Name) -> Option<Arc<dyn Model>> {
        Some(self.model.clone())
    }
}
#[async_trait]
impl Journal for World {
    async fn append(&self, record: &Record, row: &RunRow) -> Result<(), JournalError> {
        let mut records = self.records.lock().unwrap();
        if records.len() >= self.fail_after {
            return Err(JournalError("the disk is full".into()));
        }
        records.push((record.clone(), row.clone()));
        Ok(())
    }
}
#[async_trait]
impl Gate for World {
    async fn tools(&self, _: &Caller) -> Vec<ToolSpec> {
        Vec::new()
    }
    async fn authorize(&self, _: &Caller, tool: &str, arguments: Json) -> Authorized {
        // No server here: every second call is unknown, the others are denied.
        match arguments.get("n").and_then(Json::as_u64).unwrap_or(0) % 2 {
            0 => Authorized::Denied(Denial::plain(format!("{tool} is not served"), "use another")),
            _ => Authorized::Unknown,
        }
    }
    fn authorize_runtime(&self, caller: &Caller, tool: &'static str) -> Result<(Permit<RuntimeCall>, Rule), Denial> {
        match policies::decide::runtime(&caller.authority, tool) {
            Verdict::Allow(permit, rule) => Ok((permit, rule)),
            Verdict::Ask(question) => Err(question.refuse("nobody")),
            Verdict::Deny(denial) => Err(denial),
        }
    }
    fn narrowing(&self, request: &Json) -> Result<(Narrowing, Limits), String> {
        policies::resolve::request(request, &Nowhere)
    }
}
#[async_trait]
impl Toolbox for World {
    async fn call(&self, _: &Caller, permit: Permit<Call>, _: CancellationToken) -> Result<ToolOutput, String> {
        permit.redeem();
        Ok(ToolOutput { text: "done".into(), error: false })
    }
}

fn run(extra: &str, plan: Plan, fail_after: usize) -> (Result<State, JournalError>, Vec<(Record, RunRow)>) {
    let policy = Arc::new(policy(extra));
    let world = Arc::new(World { model: Arc::new(plan), records: Mutex::default(), fail_after });
    let host = Host::new(policy.clone(), world.clone(), world.clone(), world.clone(), world.clone());
    let start = Start {
        id: RunId::fresh().unwrap(),
        agent: Name::try_from("a").unwrap(),
        prompt: "p".into(),
        principal: "t".into(),
        door: policy.door(None),
        limits: Limits::NONE,
        cancel: CancellationToken::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(host.start(start)).map(|e| e.state);
    let records = world.records.lock().unwrap().clone();
    (ended, records)
}

fn by_run(records: &[(Record, RunRow)]) -> BTreeMap<String, Vec<(Record, RunRow)>> {
    let mut out: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for entry in records {
        out.entry(entry.0.run.to_string()).or_default().push(entry.clone());
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Every run of every tree: numbered without gaps, ended once and last, within its limits,
    /// and its journal folds to what its row says after each event.
    #[test]
    fn replay_equals_live(plan in prop::collection::vec((0usize..4, 0usize..3), 0..4), turns in 1u32..6, total in 1u32..12) {
        let extra = format!("spawn = {{ max_total = {total}, max_depth = 2, max_concurrent = 2 }}\nbudget = {{ turns = {turns}, tool_calls = 5 }}");
        let (ended, records) = run(&extra, Plan(plan), usize::MAX);
        prop_assert!(ended.is_ok());
        let runs = by_run(&records);
        prop_assert!(runs.len() <= total as usize);
        for entries in runs.values() {
            for (i, (record, row)) in entries.iter().enumerate() {
                prop_assert_eq!(record.seq, i as u64 + 1);
                let state = replay(entries[..=i].iter().map(|(r, _)| r));
                prop_assert_eq!(state.phase.as_str(), row.state.as_str());
                prop_assert_eq!((state.turns, state.tool_calls), (row.turns, row.tool_calls));
                prop_assert_eq!(state.usage.input + state.usage.output, row.tokens);
                let last = i + 1 == entries.len();
                prop_assert_eq!(matches!(record.event, Event::Finished { .. }), last);
                prop_assert!(row.turns <= turns && row.tool_calls <= 5 && row.depth <= 2);
                // Journalled and read back, an event is the same.
                let text = serde_json::to_string(&record.event).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Event>(&text).unwrap(), &record.event);
            }
        }
    }

    /// A journal that cannot be written ends the run with the reason, wherever it happens.
    #[test]
    fn a_full_disk_ends_the_run(after in 0usize..20) {
        let (ended, records) = run("", Plan(vec![(2, 1), (1, 1), (3, 0)]), after);
        prop_assert_eq!(ended, Err(JournalError("the disk is full".into())));
        prop_assert_eq!(records.len(), after);
    }
}
