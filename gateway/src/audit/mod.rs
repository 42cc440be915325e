//! The record of decisions: hash-chained, append-only, written before what was decided happens.
//!
//! ```text
//!  guard, egress, host ──▶ Entry ──▶ desk ──▶ writer
//!        ▲                                      │ lock · catch up · append · unlock      (log)
//!        │                                      │ sync, if one of the batch must be on the disk
//!        └── number of the record, or Failed ◀──┘
//!
//!  FOLDER/000001.ndjson ─chain─▶ 000002.ndjson ─chain─▶ …      one chain for all processes
//!  FOLDER/lock                                                 held for one append
//! ```
//!
//! What reads is let through when its record is written, what writes, spawns or connects when it
//! is on the disk; many records share one sync. Where the record cannot be written nothing is let
//! through, and each new wish tries again, so that a full disk is over when there is room. What
//! became of a call is noted within moments after it, by the number of its record; a call without
//! such a note was under way when its process died, or had ended in the moment before.
//!
//! A record holds who, what, the verdict, the rule with its place, the paths and hosts that are
//! touched, and of the arguments a keyed digest and their form: no values. The chain is of plain
//! SHA-256: whoever can write the folder can write another chain, which is found by comparing a
//! head that was noted elsewhere (`pleach audit head`).

mod desk;
mod entry;
mod log;
mod record;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub(crate) use entry::{Decision, Entry};
pub(crate) use log::make;
pub(crate) use record::{Head, Record};
pub(crate) use verify::{Noted, Report, verify, walk};

use crate::settings::Loaded;
use desk::Desk;
use policies::json::{Json, Limits, Object};
use ring::hmac;
use std::borrow::Cow;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;
use writer::{Message, Shared};

/// A decision could not be put on record, so it does not count.
#[derive(Debug, Clone, thiserror::Error)]
#[error("denied: this cannot be put on record ({why}), and nothing happens that is not. Fix: {fix}")]
pub(crate) struct Failed {
    /// What hinders it; no path of this machine.
    why: String,
    fix: &'static str,
}

impl Failed {
    fn ended() -> Self {
        Self { why: "the audit has ended with its process".into(), fix: "start pleach again" }
    }
}

/// When a record must be where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// Written: it survives the end of the process.
    Reading,
    /// On the disk: it survives the end of the machine.
    Acting,
}

/// The record, as everyone uses it. The last one dropped writes what is left.
#[derive(Clone)]
pub(crate) struct Audit(Arc<Inner>);

struct Inner {
    desk: Arc<Desk>,
    thread: Mutex<Option<JoinHandle<()>>>,
    key: hmac::Key,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.desk.close();
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

impl Audit {
    /// Opens the record of a policy file. A folder that cannot be written is no error here: it
    /// may become writable, and nothing is let through until it is.
    pub(crate) fn open(loaded: &Loaded) -> Self {
        let (key, lasting) = match key(&loaded.state.join("audit.key")) {
            Ok(key) => (key, true),
            Err(e) => {
                tracing::warn!(
                    "{}: {e}; digests of arguments can be compared within this process only",
                    loaded.state.display()
                );
                (throwaway(), false)
            }
        };
        let mut opened = Entry::new("opened").with("pid", u64::from(std::process::id()));
        opened = opened.with("version", env!("CARGO_PKG_VERSION")).with("lasting_key", lasting);
        let policy = Entry::policy(&loaded.path, &loaded.digests);
        let greeting = vec![(now(), opened.into_body()), (now(), policy.into_body())];
        // There before the first sandbox, which masks it; why it is not is told by who writes to it.
        let _ = log::make(&loaded.policy.audit.folder);
        let shared = Arc::new(Shared::default());
        let writer = writer::Writer::new(loaded.policy.audit.clone(), greeting, shared.clone());
        let desk = Arc::new(Desk::new(writer, shared));
        let at_the_desk = desk.clone();
        // Blocking by nature: it waits for disks and for other processes.
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || at_the_desk.run());
        if let Err(e) = &thread {
            tracing::error!("the audit's thread cannot be started: {e}");
            desk.abandon();
        }
        let thread = Mutex::new(thread.ok());
        let audit = Self(Arc::new(Inner { desk, thread, key: hmac::Key::new(hmac::HMAC_SHA256, &key) }));
        let _ = audit.0.desk.leave(Message { at: now(), body: None, durable: false, owed: false, done: None });
        audit
    }

    /// Puts something on record, and returns when it is there; gives its number.
    ///
    /// # Errors
    /// When it cannot be: then it must not happen.
    pub(crate) async fn record(&self, entry: Entry, before: Before) -> Result<u64, Failed> {
        let (done, wait) = oneshot::channel();
        let (body, durable) = (Some(body(entry)), before == Before::Acting);
        self.0.desk.hand_in(Message { at: now(), body, durable, owed: false, done: Some(done) })?;
        wait.await.unwrap_or_else(|_| Err(Failed::ended()))
    }

    /// Puts something on record that happens in any case. Where it cannot be, it is owed: it comes
    /// before whatever is put there next.
    pub(crate) async fn owe(&self, entry: Entry) {
        let (done, wait) = oneshot::channel();
        let message = Message { at: now(), body: Some(body(entry)), durable: true, owed: true, done: Some(done) };
        if self.0.desk.hand_in(message).is_ok() {
            let _ = wait.await;
        }
    }

    /// Puts something on record without waiting for it: what came of a decision.
    pub(crate) fn note(&self, entry: Entry) {
        let body = Some(body(entry));
        let _ = self.0.desk.leave(Message { at: now(), body, durable: false, owed: false, done: None });
    }

    /// The same for something that is decided at once: it must not happen while the record is
    /// known not to hold.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn noted(&self, entry: Entry) -> Result<(), Failed> {
        self.note(entry);
        self.0.desk.shared().failed().map_or(Ok(()), Err)
    }

    /// The last record that is known to be written.
    pub(crate) fn head(&self) -> Option<Head> {
        self.0.desk.shared().head()
    }
    /// Why nothing can be put on record, while nothing can.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.0.desk.shared().trouble()
    }
    /// A digest that tells equal values from different ones, and nothing else to who has no key.
    pub(crate) fn digest(&self, value: &Json) -> String {
        let tag = hmac::sign(&self.0.key, value.to_canonical().as_bytes());
        record::hex(&tag.as_ref()[..16])
    }

    /// Writes what is left and ends; gives the last record.
    pub(crate) async fn close(&self) -> Option<Head> {
        self.note(Entry::new("closed").with("pid", u64::from(std::process::id())));
        self.0.desk.close();
        let thread = lock(&self.0.thread).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        self.head()
    }
}

/// What is written of an entry: whatever its texts came from, no value of a secret.
fn body(entry: Entry) -> String {
    let body = entry.into_body();
    let Cow::Owned(without) = adapters::hidden::in_text(&body) else { return body };
    let read = |body: &str| Json::parse(format!("{{{body}}}").as_bytes(), Limits::default());
    if read(&without).is_ok() {
        return without;
    }
    // What was taken out began in the middle of an escape, or was a number: field by field, then.
    let mut json = read(&body).unwrap_or_else(|_| Json::Object(Object::new()));
    adapters::hidden::in_json(&mut json);
    let text = json.to_text();
    text[1..text.len() - 1].to_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The key of the digests, made when it is first needed. It lies apart from the record, so that
/// whoever is given the one has not the other.
fn key(path: &Path) -> io::Result<[u8; 32]> {
    match std::fs::read(path) {
        Ok(bytes) => bytes.try_into().map_err(|_| io::Error::other("it is no key; move it away")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let key = throwaway();
            let folder = path.parent().unwrap_or(Path::new("/"));
            std::fs::create_dir_all(folder)?;
            // Whole or not at all, and the first one wins: another process may do the same now.
            let draft = folder.join(format!("audit.key.{}", std::process::id()));
            let options = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft);
            options?.write_all(&key)?;
            let linked = std::fs::hard_link(&draft, path);
            let _ = std::fs::remove_file(&draft);
            match linked {
                Ok(()) => Ok(key),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self::key(path),
                Err(e) => Err(e),
            }
        }
        Err(e) => Err(e),
    }
}

fn throwaway() -> [u8; 32] {
    let mut key = [0u8; 32];
    // Without randomness the digests are guessable and still digests.
    let _ = getrandom::fill(&mut key);
    key
}
