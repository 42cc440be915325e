//! The store on a real file.

mod append;
mod approvals;
mod crash;
mod files;
mod inbox;
mod lease;
mod migration;
mod peers;
mod plans;
mod push;
mod questions;
mod rest;

use super::Store;
use super::open::{Options, open};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use subagents::event::{Event, Record};
use subagents::ports::{Claimed, Journal, Lease, RunRow, Write};
use subagents::run::{RunId, State};

/// A folder with a store to be.
struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pleach.db");
    Place { _folder: folder, path }
}

/// Options under which a lock is not waited for long.
fn quick() -> Options {
    Options { busy: Duration::from_millis(200), ..Options::default() }
}

/// The store as a process would have it that is not there any more by now.
async fn dying(path: &Path) -> Store {
    open(path, Options { owner: "another-boot 1 1".into(), ..quick() }).await.unwrap()
}

async fn claim(store: &Store, root: &str) -> Lease {
    match store.claim(&RunId::known(root)).await.unwrap() {
        Claimed::Lease(lease) => lease,
        Claimed::Held { by } => panic!("{root} is held by {by}"),
    }
}

fn row(root: &str, run: &str) -> RunRow {
    let child = root != run;
    RunRow {
        run: RunId::known(run),
        parent: child.then(|| RunId::known(root)),
        root: RunId::known(root),
        depth: u32::from(child),
        agent: "researcher".into(),
        principal: "client ci".into(),
        door: Some("mcp".into()),
        state: State::Thinking.as_str().into(),
        waiting: None,
        turns: 1,
        tool_calls: 2,
        tokens: 3,
        usd: Some(4),
        started: 1_000,
        ended: None,
    }
}

fn started(root: &str, run: &str) -> Event {
    let parent = (root != run).then_some(root);
    serde_json::from_value(json!({
        "type": "run.started", "agent": "researcher", "model": "default", "system": "s", "prompt": "p",
        "parent": parent, "root": root, "depth": 0, "principal": "client ci", "max_turns": 9, "max_tool_calls": 9,
    }))
    .unwrap()
}

fn write(root: &str, run: &str, seq: u64, event: Event) -> Write {
    let record = Record { run: RunId::known(run), seq, at: 1_000 + seq, event };
    Write { record, row: row(root, run), question: None }
}

/// The first event of a run.
fn first(root: &str, run: &str) -> Write {
    write(root, run, 1, started(root, run))
}

fn said(root: &str, run: &str, seq: u64) -> Write {
    write(
        root,
        run,
        seq,
        Event::MessageReceived { from: "somebody".into(), text: "…".into(), message: None, parts: None },
    )
}

/// A word of the store's errors, which must name the file.
fn names(path: &Path, error: &impl ToString, word: &str) {
    let said = error.to_string();
    assert!(said.contains(&path.display().to_string()) && said.contains(word), "{said}");
}
