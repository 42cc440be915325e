//! Sessions of legacy HTTP clients. An id is a name, not a proof: it is bound to the principal
//! that made it, and a stranger's looks like one that never was.

use super::conversation::Conversation;
use super::outbox::Outbox;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A session nobody used for this long is forgotten.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// Sessions at a time; the one idle longest makes room.
const MAX_SESSIONS: usize = 10_000;
/// The same for one principal.
const MAX_OWN: usize = 5_000;

/// One session.
pub(super) struct Session {
    principal: Arc<str>,
    /// Who and where, in full.
    place: Arc<str>,
    used: Mutex<Instant>,
    pub(super) conversation: Arc<Conversation>,
    /// Requests in flight, by the text of their id.
    calls: Mutex<HashMap<String, CancellationToken>>,
    /// Streams that can be taken up again, by their number.
    streams: Mutex<HashMap<u64, Arc<Outbox>>>,
    next: AtomicU64,
    /// The standing stream: there is one, and a new one takes its place.
    standing: Mutex<CancellationToken>,
    /// Ends with the session.
    pub(super) end: CancellationToken,
}

#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

impl Sessions {
    pub(super) fn open(&self, principal: &Arc<str>, place: &Arc<str>, conversation: Conversation) -> String {
        let id = random_id();
        let session = Arc::new(Session {
            principal: principal.clone(),
            place: place.clone(),
            used: Mutex::new(Instant::now()),
            conversation: Arc::new(conversation),
            calls: Mutex::default(),
            streams: Mutex::default(),
            next: AtomicU64::new(1),
            standing: Mutex::default(),
            end: CancellationToken::new(),
        });
        let mut all = lock(&self.0);
        all.retain(|_, s| {
            let kept = lock(&s.used).elapsed() < IDLE;
            if !kept {
                s.end.cancel();
            }
            kept
        });
        // What can no longer be taken up goes, and whoever has too many loses their own first.
        all.values().for_each(|s| lock(&s.streams).retain(|_, stream| !stream.is_over()));
        let own = all.values().filter(|s| s.principal == *principal).count();
        if all.len() >= MAX_SESSIONS || own >= MAX_OWN {
            let candidates = all.iter().filter(|(_, s)| own < MAX_OWN || s.principal == *principal);
            let oldest = candidates.min_by_key(|(_, s)| *lock(&s.used)).map(|(id, _)| id.clone());
            if let Some(session) = oldest.and_then(|id| all.remove(&id)) {
                session.end.cancel();
            }
        }
        all.insert(id.clone(), session);
        id
    }
    /// The session, if it is of whoever is at this place.
    pub(super) fn get(&self, id: &str, place: &str) -> Option<Arc<Session>> {
        let session = lock(&self.0).get(id).cloned()?;
        (*session.place == *place).then(|| {
            *lock(&session.used) = Instant::now();
            session
        })
    }
    pub(super) fn close(&self, id: &str) {
        if let Some(session) = lock(&self.0).remove(id) {
            session.end.cancel();
        }
    }
}

impl Session {
    /// A standing stream begins, and ends the one before; gives what ends it.
    pub(super) fn stand(&self) -> CancellationToken {
        let new = self.end.child_token();
        std::mem::replace(&mut *lock(&self.standing), new.clone()).cancel();
        new
    }
    /// A stream for a request; those nobody can want any more go.
    pub(super) fn stream(&self) -> Arc<Outbox> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let outbox = Arc::new(Outbox::new(number));
        let mut streams = lock(&self.streams);
        streams.retain(|_, s| !s.is_over());
        streams.insert(number, outbox.clone());
        outbox
    }
    /// A stream that was answered whole needs no second reading.
    pub(super) fn forget(&self, stream: &Arc<Outbox>) {
        lock(&self.streams).retain(|_, other| !Arc::ptr_eq(other, stream));
    }
    pub(super) fn resume(&self, number: u64) -> Option<Arc<Outbox>> {
        lock(&self.streams).get(&number).cloned()
    }
    /// A call begins; `notifications/cancelled` can end it.
    pub(super) fn begin(&self, id: &str) -> CancellationToken {
        let token = self.end.child_token();
        lock(&self.calls).insert(id.to_owned(), token.clone());
        token
    }
    pub(super) fn finish(&self, id: &str) {
        lock(&self.calls).remove(id);
    }
    pub(super) fn cancel(&self, id: &str) {
        if let Some(token) = lock(&self.calls).get(id) {
            token.cancel();
        }
    }
}

/// 256 random bits, hexadecimal.
pub(super) fn random_id() -> String {
    let mut bytes = [0u8; 32];
    // Without randomness from the system there is no safe id; ending is the honest answer.
    if getrandom::fill(&mut bytes).is_err() {
        std::process::abort();
    }
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
