//! Writing batches: what came meanwhile is one batch, and a batch is synced once.
//!
//! ```text
//!   fits ──(a write fails)──▶ broken: every record is refused, and counted
//!    ▲                           │ the next record tries again
//!    └──(a write succeeds)───────┘ the first record then says how many were refused, and why
//! ```

use super::log::Log;
use super::record::Head;
use super::{Failed, lock, now};
use policies::json::quote;
use policies::resolve::AuditSpec;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

/// A record on its way. Without a body it only has the log opened.
pub(super) struct Message {
    pub(super) at: u64,
    pub(super) body: Option<String>,
    pub(super) durable: bool,
    /// It happened: when it cannot be written now, it is later.
    pub(super) owed: bool,
    pub(super) done: Option<oneshot::Sender<Result<u64, Failed>>>,
}

impl Message {
    fn is_call(&self) -> bool {
        self.body.as_ref().is_some_and(|body| body.starts_with("\"what\":\"call\""))
    }
    fn answer(self, answer: Result<u64, Failed>) {
        // Whoever waited may have been taken back.
        if let Some(done) = self.done {
            let _ = done.send(answer);
        }
    }
}

/// What everyone may know.
#[derive(Default)]
pub(super) struct Shared {
    head: Mutex<Option<Head>>,
    broken: AtomicBool,
    why: Mutex<Option<(String, Failed)>>,
}

impl Shared {
    pub(super) fn head(&self) -> Option<Head> {
        lock(&self.head).clone()
    }
    /// Why nothing can be put on record now.
    pub(super) fn failed(&self) -> Option<Failed> {
        // Asked at every question of a server: no lock while all is well.
        let broken = self.broken.load(Ordering::Acquire);
        broken.then(|| lock(&self.why).as_ref().map(|(_, failed)| failed.clone())).flatten()
    }
    /// The same for the operator, with the folder.
    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.why).as_ref().map(|(text, _)| text.clone())
    }
}

/// Records that were refused.
struct Gap {
    refused: u64,
    since: u64,
    why: String,
}

pub(super) struct Writer {
    spec: AuditSpec,
    log: Option<Log>,
    /// What comes before anything else: what this process says first, and what it owes.
    owed: Vec<(u64, String)>,
    gap: Option<Gap>,
    dirty: bool,
    shared: std::sync::Arc<Shared>,
}

impl Writer {
    pub(super) fn new(spec: AuditSpec, owed: Vec<(u64, String)>, shared: std::sync::Arc<Shared>) -> Self {
        Self { spec, log: None, owed, gap: None, dirty: false, shared }
    }

    /// Something is written that is not known to be on the disk.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Writes records none of which must be synced, if nothing is in the way: no other process, no
    /// full file, no trouble. Else they are given back.
    pub(super) fn write_quickly(&mut self, batch: Vec<Message>) -> Option<Vec<Message>> {
        let fine = self.gap.is_none() && self.owed.is_empty() && self.log.as_mut().is_some_and(Log::take_hold);
        if !fine {
            return Some(batch);
        }
        self.write(batch);
        None
    }

    /// Syncs what no one waits for.
    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.dirty)
            && let Some(log) = &self.log
            && let Err(e) = log.sync()
        {
            let _ = self.broke(&e, 0);
        }
    }

    pub(super) fn write(&mut self, batch: Vec<Message>) {
        let now = now();
        let told = self.gap.as_ref().map(Gap::body);
        let mut bodies: Vec<(u64, &str)> = told.iter().map(|body| (now, body.as_str())).collect();
        bodies.extend(self.owed.iter().map(|(at, body)| (*at, body.as_str())));
        let before = bodies.len();
        bodies.extend(batch.iter().filter_map(|m| Some((m.at, m.body.as_deref()?))));
        let records = batch.iter().filter(|m| m.body.is_some() && !m.owed).count() as u64;
        let opened = match self.log.take() {
            Some(log) => Ok(log),
            None => Log::open(&self.spec),
        };
        let mut log = match opened {
            Ok(log) => log,
            Err(e) => return self.refuse(batch, &e, records),
        };
        let calls = batch.iter().filter(|m| m.is_call()).count();
        passed(calls, "audit.call.before");
        let (head, seqs) = match log.append(&bodies, now) {
            Ok(appended) => appended,
            Err(e) => {
                self.log = Some(log);
                return self.refuse(batch, &e, records);
            }
        };
        passed(calls, "audit.call.written");
        *lock(&self.shared.head) = Some(head);
        let (durable, plain): (Vec<_>, Vec<_>) =
            numbered(batch, &seqs[before..]).into_iter().partition(|(message, _)| message.durable);
        let answer = |messages: Vec<(Message, u64)>| {
            for (message, seq) in messages {
                message.answer(Ok(seq));
            }
        };
        answer(plain);
        self.dirty |= durable.is_empty();
        if !durable.is_empty() {
            if let Err(e) = log.sync() {
                let refused = durable.iter().filter(|(m, _)| !m.owed).count() as u64;
                return self.refuse(durable.into_iter().map(|(m, _)| m).collect(), &e, refused);
            }
            self.dirty = false;
            passed(durable.iter().filter(|(m, _)| m.is_call()).count(), "audit.call.synced");
        }
        self.log = Some(log);
        self.owed.clear();
        if let Some(gap) = self.gap.take() {
            tracing::warn!("the audit can be written again; {} records were refused meanwhile", gap.refused);
            *lock(&self.shared.why) = None;
            self.shared.broken.store(false, Ordering::Release);
        }
        answer(durable);
    }

    fn refuse(&mut self, batch: Vec<Message>, why: &io::Error, records: u64) {
        let failed = self.broke(why, records);
        for mut message in batch {
            if message.owed {
                self.owed.extend(message.body.take().map(|body| (message.at, body)));
            }
            message.answer(Err(failed.clone()));
        }
    }

    fn broke(&mut self, why: &io::Error, records: u64) -> Failed {
        let cure = match why.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "make room; [audit] keep bounds what it takes from the next start on"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "make it writable, or name another with [audit] folder"
            }
            io::ErrorKind::TimedOut => "end the process that was stopped while it wrote",
            _ => "mend it, or name another with [audit] folder",
        };
        let text = format!(
            "{}: {why}; nothing is let through until it can be written. Fix: {cure}",
            self.spec.folder.display()
        );
        let gap = self.gap.get_or_insert_with(|| {
            tracing::error!("the audit cannot be written: {text}");
            Gap { refused: 0, since: now(), why: why.to_string() }
        });
        gap.refused += records;
        let failed = Failed { why: why.to_string(), fix: cure };
        *lock(&self.shared.why) = Some((text, failed.clone()));
        self.shared.broken.store(true, Ordering::Release);
        failed
    }
}

impl Gap {
    fn body(&self) -> String {
        let mut why = String::new();
        quote(&self.why, &mut why);
        format!("\"what\":\"gap\",\"refused\":{},\"since\":{},\"why\":{why}", self.refused, self.since)
    }
}

/// Tests let the process die here, once for each call.
fn passed(calls: usize, point: &str) {
    (0..calls).for_each(|_| adapters::crash::point(point));
}

/// The messages with the numbers of their records.
fn numbered(batch: Vec<Message>, seqs: &[u64]) -> Vec<(Message, u64)> {
    let mut seqs = seqs.iter().copied();
    batch
        .into_iter()
        .map(|m| {
            let seq = m.body.as_ref().and_then(|_| seqs.next()).unwrap_or(0);
            (m, seq)
        })
        .collect()
}
