//! The registered servers: their manifests under one name map, and a pool of instances.
//!
//! ```text
//!   first need ──▶ starting ──▶ live ──▶ (idle 5 min, or ended) ──▶ gone
//!                     │ failed                                        │
//!                     └──▶ waiting (50 ms · 2ⁿ, at most 1 s) ◀────────┘ next need starts anew
//! ```
//!
//! One instance per (server, principal, sandbox, what the caller can be asked): what a process
//! may do is what *one* grant says, never a union, and what it may ask is what *these* callers
//! can answer. When the policy changes ([`Servers::adopt`]), what still fits goes on as it is.
//! Servers know nothing of each other; one that is dead, mute, slow or lying costs
//! its own calls only.

mod abilities;
mod adopt;
mod callback;
mod instance;
mod manifest;
mod offered;
mod said;
mod slot;

use crate::audit::Audit;
use crate::live::Live;
use crate::oauth::Vault;
use adapters::mcp::{Attachment, Era, Topic};
use adapters::store::Store;
use manifest::{Manifests, Progress, Whose};
use policies::names::Name;
use policies::resolve::{ServerSpec, Transport};
use slot::{Key, Slot};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};
use subagents::run::Caller;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use abilities::Abilities;
pub(crate) use callback::CALLBACK;
pub(crate) use instance::target;
pub(crate) use manifest::Enough;
pub(crate) use said::{Level, Said, What};
pub(crate) use slot::Watch;

/// An instance unused for this long is ended.
const IDLE: Duration = Duration::from_secs(300);
/// How long servers may take to hear that we leave.
const LEAVING: Duration = Duration::from_secs(3);
/// Instances under one key, where a server's questions need a call to be alone.
const MAX_LANES: u8 = 8;
/// Instances of one server at a time; the one idle longest makes room.
const MAX_INSTANCES: usize = 64;
/// Of these one client may have so many that are processes, and that are none, whoever came with which
/// part of what it holds: whoever holds a token can make ever new parts of it.
const MAX_PROCESSES: usize = 32;
const MAX_CONNECTIONS: usize = 1_024;

/// All servers of the policy file.
pub(crate) struct Servers {
    pub(crate) live: Arc<Live>,
    entries: RwLock<Arc<BTreeMap<Name, Arc<Entry>>>>,
    pub(crate) manifests: Manifests,
    pub(crate) offered: offered::Offered,
    said: said::Board,
    /// Tokens towards servers.
    vault: Arc<Vault>,
    /// Where what peers gave out is kept, if it is.
    kept: OnceLock<Store>,
    /// The record of decisions.
    pub(crate) audit: Audit,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

struct Entry {
    name: Name,
    spec: RwLock<Arc<ServerSpec>>,
    /// The policy names no such server any more, or another in its place.
    gone: AtomicBool,
    stop: CancellationToken,
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
    era: Mutex<Option<Era>>,
    /// It was seen to ask without saying whose call it is about.
    asks: AtomicBool,
    /// By whose list it is.
    progress: Mutex<HashMap<Whose, Arc<Progress>>>,
}

impl Servers {
    pub(crate) fn new(live: Arc<Live>) -> Arc<Self> {
        let loaded = live.now();
        let stop = CancellationToken::new();
        let entry = |(name, spec): (&Name, &ServerSpec)| (name.clone(), Entry::new(spec, &stop));
        let entries: BTreeMap<Name, Arc<Entry>> = loaded.policy.servers.iter().map(entry).collect();
        let servers = Arc::new(Self {
            manifests: Manifests::new(&loaded.policy.servers),
            offered: offered::Offered::new(&loaded.policy.servers),
            vault: Vault::new(loaded.state.clone()),
            audit: Audit::open(&loaded),
            live,
            kept: OnceLock::new(),
            entries: RwLock::new(Arc::new(entries)),
            said: said::Board::default(),
            tasks: TaskTracker::new(),
            stop,
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
                servers.entries().values().for_each(|e| e.end_idle(IDLE));
                servers.forget_tasks();
            }
        });
        servers
    }

    /// What peers give out is kept there from now on.
    pub(crate) fn keep(&self, store: Store) {
        let _ = self.kept.set(store);
    }
    /// What the policy says of a server.
    pub(crate) fn spec(&self, name: &Name) -> Option<Arc<ServerSpec>> {
        self.entry(name).map(|e| e.spec())
    }
    fn entries(&self) -> Arc<BTreeMap<Name, Arc<Entry>>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn entry(&self, name: &Name) -> Option<Arc<Entry>> {
        self.entries().get(name).cloned()
    }

    /// The server a tool's name points at, where it may not be started, and why.
    pub(crate) fn unapproved(&self, tool: &str) -> Option<(Name, String)> {
        let (server, _) = tool.split_once("__")?;
        let spec = self.entries().get(server)?.spec();
        Some((spec.name.clone(), spec.unapproved.clone()?))
    }

    /// The live instance for a caller, started if need be.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn instance(
        self: &Arc<Self>,
        name: &Name,
        caller: &Caller,
        abilities: Abilities,
    ) -> Result<Arc<Attachment>, String> {
        let entry = self.entry(name).ok_or_else(|| format!("no server is named {name}"))?;
        let caller = self.live.current(caller).map_err(|denial| denial.for_model())?;
        let slot = entry.slot(&caller, abilities)?;
        self.live(&entry, &slot).await
    }

    /// The instance of a slot. That it is there already costs the caller no room for the rest.
    async fn live(self: &Arc<Self>, entry: &Arc<Entry>, slot: &Arc<Slot>) -> Result<Arc<Attachment>, String> {
        slot.touch();
        self.fits(entry, slot)?;
        match slot.live() {
            Some(live) => Ok(live),
            None => Box::pin(self.started(entry, slot)).await,
        }
    }

    /// The same, started if nobody did.
    async fn started(self: &Arc<Self>, entry: &Arc<Entry>, slot: &Arc<Slot>) -> Result<Arc<Attachment>, String> {
        let arrived = Instant::now();
        let name = &entry.name;
        let mut state = slot.state.lock().await;
        if let Some(live) = slot.live() {
            return Ok(live);
        }
        self.fits(entry, slot)?;
        // Who came while it was being tried shares the outcome of that try.
        if let Some((at, why)) = &state.failed
            && *at > arrived
        {
            return Err(format!("server {name} failed: {why}"));
        }
        state.wait_turn().await;
        let again = slot.ended();
        match self.start(entry, slot).await {
            Ok(attachment) => {
                let attachment = Arc::new(attachment);
                slot.set(attachment.clone());
                // The policy may have changed while it started. Looked at after it is in its
                // place: whoever changes the policy later finds it there.
                self.fits(entry, slot)?;
                state.worked();
                drop(state);
                if again {
                    self.look_again(entry, slot, attachment.clone());
                }
                Ok(attachment)
            }
            Err(why) => {
                state.did_not(&why);
                tracing::warn!(server = %name, "{why}");
                Err(format!("server {name} failed: {why}"))
            }
        }
    }

    async fn start(self: &Arc<Self>, entry: &Arc<Entry>, slot: &Arc<Slot>) -> Result<Attachment, String> {
        let (known, spec) = (*lock(&entry.era), entry.spec());
        let asks = entry.asks.load(Ordering::Relaxed);
        let events = || -> Arc<dyn adapters::mcp::Events> {
            Arc::new(instance::Events::new(entry.name.clone(), slot, Arc::downgrade(self)))
        };
        let first = instance::start(self, &spec, slot, (known, asks), events()).await;
        let connection = match (first, known) {
            // A server of the first era may end at the probe it does not know.
            (Err(instance::StartError::EndedEarly(_)), None) => {
                instance::start(self, &spec, slot, (Some(Era::Legacy), asks), events()).await
            }
            // It was replaced by one that speaks otherwise.
            (Err(instance::StartError::Failed(_)), Some(_)) => {
                *lock(&entry.era) = None;
                instance::start(self, &spec, slot, (None, asks), events()).await
            }
            (other, _) => other,
        };
        slot.refused.store(matches!(connection, Err(instance::StartError::Refused(_))), Ordering::Release);
        let connection = connection.map_err(|e| e.to_string())?;
        *lock(&entry.era) = Some(connection.era());
        tracing::info!(server = %entry.name, era = ?connection.era(), principal = %slot.caller.principal, "connected");
        if let Some(level) = self.said.level(&slot.caller)
            && connection.era() == Era::Legacy
            && connection.can("logging")
        {
            drop(said::set_level(&connection, level).await);
        }
        Ok(Attachment::new(connection))
    }

    /// After a restart, or a while of deafness: the lists and the watched resources may have
    /// changed.
    fn look_again(self: &Arc<Self>, entry: &Arc<Entry>, slot: &Arc<Slot>, attachment: Arc<Attachment>) {
        let whose = self.manifests.whose(&entry.name, &slot.caller);
        self.relist(entry, whose, Some((attachment.clone(), slot.caller.clone())));
        let watched = slot.watched();
        if watched.is_empty() {
            return;
        }
        let (servers, slot, name) = (self.clone(), slot.clone(), entry.name.clone());
        self.tasks.spawn(async move {
            for watched in watched {
                match (attachment.watch(&watched).await, watched.topic()) {
                    (Ok(_), Topic::Resource(uri)) => servers.said.updated(&name, &slot.who, uri),
                    // Whoever follows a task asks for it too: being told is a courtesy.
                    (Ok(_), Topic::Task(_)) => {}
                    (Err(e), _) => tracing::warn!(server = %name, "{:?} is no longer watched: {e}", watched.topic()),
                }
            }
        });
    }

    /// Brings back an instance that somebody watches resources of, as soon as it can be.
    fn revive(self: &Arc<Self>, name: &Name, slot: Arc<Slot>) {
        let Some(entry) = self.entry(name) else { return };
        if slot.watched().is_empty() || slot.reviving.swap(true, Ordering::AcqRel) {
            return;
        }
        let servers = self.clone();
        self.tasks.spawn(async move {
            while !servers.stop.is_cancelled() && !slot.is_over() && !slot.watched().is_empty() && slot.live().is_none()
            {
                tokio::select! {
                    () = servers.stop.cancelled() => {}
                    _ = servers.live(&entry, &slot) => {}
                }
            }
            slot.reviving.store(false, Ordering::Release);
        });
    }

    /// Ends every instance and waits until they are gone.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        let entries = self.entries();
        let live: Vec<Arc<Attachment>> = entries.values().flat_map(|e| e.all_live()).collect();
        let closing = futures_util::future::join_all(live.iter().map(|a| a.connection().close()));
        let _ = tokio::time::timeout(LEAVING, closing).await;
        drop(live);
        entries.values().for_each(|e| e.end_idle(Duration::ZERO));
        self.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(10), self.tasks.wait()).await;
        self.audit.close().await;
    }
}

impl Entry {
    fn new(spec: &ServerSpec, stop: &CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            name: spec.name.clone(),
            spec: RwLock::new(Arc::new(spec.clone())),
            gone: AtomicBool::new(false),
            stop: stop.clone(),
            slots: Mutex::default(),
            era: Mutex::default(),
            asks: AtomicBool::new(false),
            progress: Mutex::default(),
        })
    }
    fn spec(&self) -> Arc<ServerSpec> {
        self.spec.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// The place of a caller's instance.
    ///
    /// # Errors
    /// When its client has too many already, and all of them are in use.
    fn slot(&self, caller: &Caller, abilities: Abilities) -> Result<Arc<Slot>, String> {
        let mut key = Key {
            principal: caller.principal.clone(),
            task: self.task(caller),
            // An HTTP server is no process of ours, so its sandbox distinguishes nothing.
            sandbox: match self.spec().transport {
                Transport::Http { .. } | Transport::Peer(_) => Arc::from(""),
                _ => caller.sandbox.clone(),
            },
            // A modern server is told with each request.
            abilities: if *lock(&self.era) == Some(Era::Modern) { Abilities::default() } else { abilities },
            lane: 0,
        };
        let mut slots = lock(&self.slots);
        if key.abilities != Abilities::default() {
            let free = |lane: u8| {
                let live = slots.get(&Key { lane, ..key.clone() }).and_then(|s| s.live());
                if live.as_ref().is_some_and(|live| live.connection().asks()) {
                    self.asks.store(true, Ordering::Relaxed);
                }
                live.is_none_or(|live| !live.occupied())
            };
            key.lane = (0..MAX_LANES).find(|lane| free(*lane)).unwrap_or(0);
        }
        if !slots.contains_key(&key) {
            let most = if self.spec().transport.is_process() { MAX_PROCESSES } else { MAX_CONNECTIONS };
            let own = slots.keys().filter(|known| known.principal == key.principal).count();
            if own >= most && !make_room(&mut slots, |known| known.principal == key.principal) {
                return Err(format!(
                    "client {} has {own} instances of server {} in use, which is the most; wait for a call to end",
                    key.principal, self.name
                ));
            }
            if slots.len() >= MAX_INSTANCES {
                make_room(&mut slots, |_| true);
            }
        }
        let new = || Arc::new(Slot::new(caller.clone(), &key, self.stop.child_token()));
        Ok(slots.entry(key.clone()).or_insert_with(new).clone())
    }
    fn all_live(&self) -> Vec<Arc<Attachment>> {
        lock(&self.slots).values().filter_map(|s| s.live()).collect()
    }
    fn end_idle(&self, idle: Duration) {
        lock(&self.slots).retain(|_, slot| idle > Duration::ZERO && slot.is_needed(idle));
    }
    /// Any live instance; of a principal, where one is named.
    fn any_live(&self, whose: &Whose) -> Option<(Arc<Attachment>, Caller)> {
        let slots = lock(&self.slots);
        let mut own = slots.values().filter(|s| match s.task.is_empty() {
            true => whose.is_empty() || *s.caller.principal == **whose,
            false => s.task == *whose,
        });
        own.find_map(|s| Some((s.live()?, s.caller.clone())))
    }
}

/// Ends the instance that was idle longest of those meant; whether there was one.
fn make_room(slots: &mut HashMap<Key, Arc<Slot>>, of: impl Fn(&Key) -> bool) -> bool {
    let idle = slots.iter().filter(|(key, slot)| of(key) && Arc::strong_count(slot) == 1 && !slot.is_busy());
    let oldest = idle.min_by_key(|(_, slot)| slot.used()).map(|(key, _)| key.clone());
    oldest.is_some_and(|oldest| slots.remove(&oldest).is_some())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
