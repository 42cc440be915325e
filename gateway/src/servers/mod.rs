//! The registered servers: their manifests under one name map, and a pool of instances.
//!
//! ```text
//!   first need ──▶ starting ──▶ live ──▶ (idle 5 min, or ended) ──▶ gone
//!                     │ failed                                        │
//!                     └──▶ waiting (0.5 s · 2ⁿ, at most 30 s) ◀───────┘ next need starts anew
//! ```
//!
//! One instance per (server, principal, sandbox): what a process may do is what *one* grant
//! says, never a union. Servers know nothing of each other; one that is dead, mute, slow or
//! lying costs its own calls only.

mod instance;
mod manifest;

use crate::settings::Loaded;
use adapters::mcp::{Attachment, Era};
use manifest::Manifests;
use policies::names::Name;
use policies::resolve::{ServerSpec, Transport};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use subagents::run::Caller;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// An instance unused for this long is ended.
const IDLE: Duration = Duration::from_secs(300);
/// Instances of one server at a time; the one idle longest makes room.
const MAX_INSTANCES: usize = 64;
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// All servers of a policy file.
pub(crate) struct Servers {
    pub(crate) loaded: Arc<Loaded>,
    entries: BTreeMap<Name, Arc<Entry>>,
    pub(crate) manifests: Manifests,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// Which instance: the principal and the sandbox.
type Key = (Arc<str>, Arc<str>);

struct Entry {
    spec: ServerSpec,
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
    era: Mutex<Option<Era>>,
}

#[derive(Default)]
struct Slot {
    state: tokio::sync::Mutex<State>,
    used: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct State {
    live: Option<Arc<Attachment>>,
    failures: u32,
    retry_at: Option<Instant>,
    why: String,
}

impl Servers {
    pub(crate) fn new(loaded: Arc<Loaded>) -> Arc<Self> {
        let entry =
            |spec: &ServerSpec| Arc::new(Entry { spec: spec.clone(), slots: Mutex::default(), era: Mutex::default() });
        let entries: BTreeMap<Name, Arc<Entry>> =
            loaded.policy.servers.iter().map(|(name, spec)| (name.clone(), entry(spec))).collect();
        let servers = Arc::new(Self {
            manifests: Manifests::new(&loaded.policy.servers),
            loaded,
            entries,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let weak = Arc::downgrade(&servers);
        let stop = servers.stop.clone();
        servers.tasks.spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(30));
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = tick.tick() => {}
                }
                let Some(servers) = weak.upgrade() else { return };
                servers.entries.values().for_each(|e| e.end_idle(IDLE));
            }
        });
        servers
    }

    /// The names of all registered servers.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.entries.keys()
    }

    pub(crate) fn spec(&self, name: &Name) -> Option<&ServerSpec> {
        self.entries.get(name).map(|e| &e.spec)
    }

    /// The live instance for a caller, started if need be.
    ///
    /// # Errors
    /// Why there is none, and when it will be tried again.
    pub(crate) async fn instance(self: &Arc<Self>, name: &Name, caller: &Caller) -> Result<Arc<Attachment>, String> {
        let entry = self.entries.get(name).ok_or_else(|| format!("no server is named {name}"))?;
        let slot = entry.slot(caller);
        let mut state = slot.state.lock().await;
        slot.touch();
        if let Some(live) = state.live.as_ref().filter(|a| a.alive()) {
            return Ok(live.clone());
        }
        let ended = state.live.take().is_some();
        if let Some(at) = state.retry_at.filter(|at| *at > Instant::now()) {
            let wait = at.saturating_duration_since(Instant::now()).as_secs_f32();
            return Err(format!("server {name} failed: {}; next try in {wait:.1} s", state.why));
        }
        match self.start(entry, caller).await {
            Ok(attachment) => {
                let attachment = Arc::new(attachment);
                state.live = Some(attachment.clone());
                state.failures = if ended { state.failures } else { 0 };
                state.retry_at = None;
                if ended {
                    self.relist_later(name.clone(), attachment.clone());
                }
                Ok(attachment)
            }
            Err(why) => {
                let wait = MAX_BACKOFF.min(FIRST_BACKOFF.saturating_mul(1 << state.failures.min(10)));
                state.failures += 1;
                state.retry_at = Some(Instant::now() + wait);
                state.why = why.clone();
                tracing::warn!(server = %name, "{why}");
                Err(format!("server {name} failed: {why}"))
            }
        }
    }

    async fn start(self: &Arc<Self>, entry: &Arc<Entry>, caller: &Caller) -> Result<Attachment, String> {
        let known = *lock(&entry.era);
        let events = Arc::new(instance::Events { server: entry.spec.name.clone(), servers: Arc::downgrade(self) });
        let first = instance::start(self, &entry.spec, caller, known, events.clone()).await;
        let connection = match first {
            // A server of the first era may end at the probe it does not know.
            Err(instance::StartError::EndedEarly(_)) if known.is_none() => {
                instance::start(self, &entry.spec, caller, Some(Era::Legacy), events).await
            }
            other => other,
        };
        let connection = connection.map_err(|e| e.to_string())?;
        *lock(&entry.era) = Some(connection.era());
        tracing::info!(server = %entry.spec.name, era = ?connection.era(), principal = %caller.principal, "connected");
        Ok(Attachment::new(connection))
    }

    /// Reads the manifest again in the background.
    pub(crate) fn relist_later(self: &Arc<Self>, name: Name, attachment: Arc<Attachment>) {
        let servers = self.clone();
        self.tasks.spawn(async move {
            let Some(spec) = servers.spec(&name) else { return };
            match attachment.list_tools().await {
                Ok(list) => servers.manifests.set(spec, &list),
                Err(e) => tracing::warn!(server = %name, "tools/list: {e}"),
            }
        });
    }

    /// A server says that its tools changed: any live instance can tell how.
    fn tools_changed(self: &Arc<Self>, name: &Name) {
        let Some(entry) = self.entries.get(name) else { return };
        let slots: Vec<Arc<Slot>> = lock(&entry.slots).values().cloned().collect();
        let live = slots.iter().find_map(|s| s.state.try_lock().ok()?.live.clone().filter(|a| a.alive()));
        if let Some(attachment) = live {
            self.relist_later(name.clone(), attachment);
        }
    }

    /// Ends every instance and waits until they are gone.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        self.entries.values().for_each(|e| e.end_idle(Duration::ZERO));
        self.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(10), self.tasks.wait()).await;
    }
}

impl Entry {
    fn slot(&self, caller: &Caller) -> Arc<Slot> {
        // An HTTP server is no process of ours, so its sandbox distinguishes nothing.
        let sandbox = match self.spec.transport {
            Transport::Http { .. } => Arc::from(""),
            _ => caller.sandbox.clone(),
        };
        let key = (caller.principal.clone(), sandbox);
        let mut slots = lock(&self.slots);
        if slots.len() >= MAX_INSTANCES && !slots.contains_key(&key) {
            let oldest = slots.iter().filter(|(_, s)| Arc::strong_count(s) == 1).min_by_key(|(_, s)| *lock(&s.used));
            if let Some(oldest) = oldest.map(|(k, _)| k.clone()) {
                slots.remove(&oldest);
            }
        }
        slots.entry(key).or_default().clone()
    }
    fn end_idle(&self, idle: Duration) {
        lock(&self.slots).retain(|_, slot| {
            let quiet = lock(&slot.used).is_none_or(|at| at.elapsed() >= idle);
            let busy =
                slot.state.try_lock().map_or(true, |s| s.live.as_ref().is_some_and(|a| Arc::strong_count(a) > 1));
            idle > Duration::ZERO && (!quiet || busy)
        });
    }
}

impl Slot {
    fn touch(&self) {
        *lock(&self.used) = Some(Instant::now());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
