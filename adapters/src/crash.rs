//! Moments at which a test lets this process die: named, counted, and by a real SIGKILL. The
//! journal and the dispatch of effects pass them; `cargo conformance crash` says at which one.
//!
//! | variable | what it does |
//! |---|---|
//! | `PLEACH_CRASH_AT=tool.finished.before/3` | the process ends when it passes that point the third time |
//! | `PLEACH_CRASH_LOG=FILE` | every point that is passed leaves a line `NAME/N` there |
//!
//! Points: `EVENT.before` and `.after` of each kind of event (asked to be written; written, and
//! whoever asked not told yet), `tree.claim`, `tree.release`, `inbox.post`, `inbox.take` and `blob`
//! likewise; `commit.within` (all statements done, nothing committed) and `commit.after`;
//! `tool.call.before`, `.sent` (the bytes are with the server's process) and `.after` (answered,
//! not written down), `model.ask.before` and `.after`; `audit.call.before`, `.written` and, where
//! it waits for the disk, `.synced`: the record of a call, before it leaves or is refused.
//!
//! A release binary has none of this: without debug assertions nothing is ever watched.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};
use subagents::ports::Write as Written;

/// Passes a point.
pub fn point(name: &str) {
    if let Some(plan) = plan() {
        plan.pass(name);
    }
}

/// Passes the point of bytes that are with a server's process now, if they are a call of a tool.
pub(crate) fn sent(line: &str) {
    if let Some(plan) = plan().filter(|_| line.contains("\"tools/call\"")) {
        plan.pass("tool.call.sent");
    }
}

/// The kinds of events that are to be written together.
pub(crate) struct Kinds(Vec<&'static str>);

impl Kinds {
    /// Nothing, where nobody watches.
    pub(crate) fn of(writes: &[Written]) -> Self {
        let mut kinds = Vec::new();
        if plan().is_some() {
            kinds.extend(writes.iter().map(|write| write.record.event.kind()));
            kinds.dedup();
        }
        Self(kinds)
    }
    /// Passes the point of each, at one of its sides.
    pub(crate) fn pass(&self, of: &str) {
        self.0.iter().for_each(|kind| point(&format!("{kind}.{of}")));
    }
}

struct Plan {
    at: Option<String>,
    log: Option<File>,
    passed: Mutex<HashMap<String, u32>>,
}

fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    if !cfg!(debug_assertions) {
        return None;
    }
    let read = || {
        let at = std::env::var("PLEACH_CRASH_AT").ok();
        let log = std::env::var_os("PLEACH_CRASH_LOG");
        let log = log.and_then(|path| OpenOptions::new().create(true).append(true).open(path).ok());
        (at.is_some() || log.is_some()).then(|| Plan { at, log, passed: Mutex::default() })
    };
    PLAN.get_or_init(read).as_ref()
}

impl Plan {
    fn pass(&self, name: &str) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = passed.entry(name.to_owned()).or_insert(0_u32);
        *count += 1;
        let place = format!("{name}/{count}");
        if let Some(mut log) = self.log.as_ref() {
            let _ = log.write_all(format!("{place}\n").as_bytes());
        }
        if self.at.as_ref() == Some(&place) {
            // With the lock held: nobody passes another point meanwhile.
            crate::sandbox::die();
        }
    }
}
