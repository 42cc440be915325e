//! The place of one instance: who it is for, whether it lives, and what it is watched for.

use super::{Abilities, Servers};
use adapters::mcp::{Attachment, Watched};
use policies::names::Name;
use policies::resolve::Policy;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use subagents::run::Caller;
use tokio_util::sync::CancellationToken;

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// A server that returns is found within this, so it is short; starts are made on demand only.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Which instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) principal: Arc<str>,
    /// The task it is for, where the server takes what came along with one; else empty.
    pub(super) task: Arc<str>,
    pub(super) sandbox: Arc<str>,
    pub(super) abilities: Abilities,
    /// More than one where the server asks questions without saying whose call they are about:
    /// a call that waits for a person's answer holds up no other.
    pub(super) lane: u8,
}

pub(super) struct Slot {
    pub(super) caller: Caller,
    /// Who hears what it says.
    pub(super) who: super::said::Who,
    pub(super) abilities: Abilities,
    pub(super) task: Arc<str>,
    /// It is being brought back.
    pub(super) reviving: AtomicBool,
    /// The last start failed for want of a token.
    pub(super) refused: AtomicBool,
    pub(super) state: tokio::sync::Mutex<Trying>,
    live: Mutex<Option<Arc<Attachment>>>,
    /// The policy it was last found to fit.
    fits: Mutex<Weak<Policy>>,
    /// Its process, and whatever that has open, is to end at once.
    pub(super) end: CancellationToken,
    /// Why nobody is to use it any more.
    over: OnceLock<String>,
    used: Mutex<Instant>,
    /// What is watched, by how many.
    watched: Mutex<BTreeMap<Watched, usize>>,
}

/// How starting went.
#[derive(Default)]
pub(super) struct Trying {
    pub(super) failed: Option<(Instant, String)>,
    failures: u32,
}

impl Trying {
    /// Waits until it may be tried again.
    pub(super) async fn wait_turn(&self) {
        if let Some((at, _)) = &self.failed {
            let wait = MAX_BACKOFF.min(FIRST_BACKOFF.saturating_mul(1 << self.failures.min(10)));
            tokio::time::sleep_until((*at + wait).into()).await;
        }
    }
    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }
    pub(super) fn did_not(&mut self, why: &str) {
        self.failures += 1;
        self.failed = Some((Instant::now(), why.to_owned()));
    }
}

impl Slot {
    pub(super) fn new(caller: Caller, key: &Key, end: CancellationToken) -> Self {
        Self {
            caller,
            who: (key.principal.clone(), key.sandbox.clone()),
            abilities: key.abilities,
            task: key.task.clone(),
            reviving: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            state: tokio::sync::Mutex::default(),
            live: Mutex::default(),
            fits: Mutex::default(),
            end,
            over: OnceLock::new(),
            used: Mutex::new(Instant::now()),
            watched: Mutex::default(),
        }
    }
    pub(super) fn touch(&self) {
        *lock(&self.used) = Instant::now();
    }
    pub(super) fn used(&self) -> Instant {
        *lock(&self.used)
    }
    pub(super) fn live(&self) -> Option<Arc<Attachment>> {
        lock(&self.live).clone().filter(|a| a.alive())
    }
    pub(super) fn set(&self, attachment: Arc<Attachment>) {
        *lock(&self.live) = Some(attachment);
    }
    /// Lets go of an instance that ended; whether there was one.
    pub(super) fn ended(&self) -> bool {
        lock(&self.live).take().is_some()
    }
    pub(super) fn is_over(&self) -> bool {
        self.over.get().is_some()
    }
    /// Why nobody is to use it any more, if so.
    pub(super) fn over(&self) -> Option<&str> {
        self.over.get().map(String::as_str)
    }
    /// Nobody is to use it any more; calls under way keep their instance until they end.
    pub(super) fn let_go(&self, why: &str) {
        let _ = self.over.set(why.to_owned());
        lock(&self.live).take();
    }
    /// The same, and the process ends at once, with all it has open.
    pub(super) fn withdraw(&self, why: &str) {
        let _ = self.over.set(why.to_owned());
        self.end.cancel();
        if let Some(attachment) = lock(&self.live).take() {
            attachment.connection().end();
        }
    }
    pub(super) fn fits(&self, policy: &Arc<Policy>) -> bool {
        lock(&self.fits).as_ptr() == Arc::as_ptr(policy)
    }
    pub(super) fn found_to_fit(&self, policy: &Arc<Policy>) {
        *lock(&self.fits) = Arc::downgrade(policy);
    }
    /// Whether it is in use, was used within `idle`, or is watched.
    pub(super) fn is_needed(&self, idle: Duration) -> bool {
        self.is_busy() || self.used().elapsed() < idle
    }
    /// Whether it is in use, or is watched.
    pub(super) fn is_busy(&self) -> bool {
        let calls = lock(&self.live).as_ref().is_some_and(|a| Arc::strong_count(a) > 1);
        calls || !lock(&self.watched).is_empty() || self.state.try_lock().is_err()
    }
    pub(super) fn watched(&self) -> Vec<Watched> {
        lock(&self.watched).keys().cloned().collect()
    }
}

/// Somebody watches a resource or a task; dropping it ends that.
pub(crate) struct Watch {
    servers: Arc<Servers>,
    slot: Arc<Slot>,
    watched: Watched,
}

impl Servers {
    /// Watches a resource or a task of a caller's instance.
    ///
    /// # Errors
    /// Why it cannot be watched.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        server: &Name,
        caller: &Caller,
        abilities: Abilities,
        watched: Watched,
    ) -> Result<(Watch, policies::json::Json), adapters::mcp::McpError> {
        use adapters::mcp::McpError;
        let entry = self.entry(server).ok_or_else(|| McpError::Unreachable(format!("no server {server}")))?;
        let caller = self.live.current(caller).map_err(|denial| McpError::Unreachable(denial.for_model()))?;
        let slot = entry.slot(&caller, abilities).map_err(McpError::Unreachable)?;
        let attachment = self.live(&entry, &slot).await.map_err(McpError::Unreachable)?;
        // Counted in first: whoever leaves meanwhile is not the last.
        *lock(&slot.watched).entry(watched.clone()).or_default() += 1;
        let watch = Watch { servers: self.clone(), slot, watched };
        let answer = attachment.watch(&watch.watched).await?;
        Ok((watch, answer))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut all = lock(&self.slot.watched);
        let last = match all.get_mut(&self.watched) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            _ => all.remove(&self.watched).is_some(),
        };
        drop(all);
        if let Some(attachment) = self.slot.live().filter(|_| last) {
            let watched = self.watched.clone();
            self.servers.tasks.spawn(async move { attachment.unwatch(&watched).await });
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
