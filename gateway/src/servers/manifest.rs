//! The tools of all servers under one name map.
//!
//! A manifest is what a server listed last, whichever instance was asked: a tool's definition
//! is the operator's business before it is the principal's. Only where each principal has
//! credentials of its own does a server know whom it shows what, and each has a list of its own.
//! A principal's map is made anew when a list of it changes; the version tells the doors to look
//! whether *their* view did.
//!
//! ```text
//!   first need ─▶ listing ─▶ known ─(list_changed, restart, ttl over)─▶ listing again, the old one standing
//!                    └─ failed ─▶ tried again in the background (1 s · 2ⁿ, at most 10 s)
//! ```

use super::{Abilities, Entry, Servers, callback};
use adapters::mcp::{Attachment, McpError};
use policies::json::Json;
use policies::manifest::{NameMap, Prefix, Tool, import};
use policies::names::Name;
use policies::pins::{self, Held};
use policies::resolve::{Flow, ServerSpec, Transport};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};
use subagents::run::Caller;
use tokio::sync::watch;

/// How long a list stands that nobody says how long it stands, where the server does not
/// announce changes; and the most any client is told to keep one.
pub(super) const MAX_TTL: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_secs(1);
pub(super) const MAX_RETRY: Duration = Duration::from_secs(10);

/// What is known of one server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    /// `None` until it was listed once.
    pub(crate) tools: Option<Vec<Arc<Tool>>>,
    /// Whether it has prompts or resources.
    offers: bool,
    /// What it says to whoever uses it.
    pub(crate) instructions: Option<String>,
    /// Tools that were refused, with the reason.
    pub(crate) rejected: Vec<(String, String)>,
    /// Tools in quarantine.
    pub(crate) held: Vec<Arc<Held>>,
    /// What it says to whoever uses it, where that is withheld, and why.
    pub(crate) withheld: Option<(String, &'static str)>,
    /// Why it could not be listed, if it could not.
    pub(crate) failed: Option<String>,
    /// When it is to be listed again, if it does not say itself.
    stale_at: Option<Instant>,
    ttl: Option<Duration>,
}

impl Listing {
    /// What it lists, under what is said of the server now.
    fn read_anew(&mut self, spec: &ServerSpec) {
        let Some(tools) = self.tools.take() else { return };
        let held = self.held.drain(..).map(|held| Json::Object(held.tool.definition.clone()));
        let known = tools.iter().map(|tool| Json::Object(tool.definition.clone())).chain(held);
        let imported = import(&spec.name, &spec.words, &known.collect::<Vec<_>>());
        let (used, held) = pins::sift(spec.pinned.as_deref(), imported.tools);
        self.tools = Some(used.into_iter().map(Arc::new).collect());
        self.held = held.into_iter().map(Arc::new).collect();
        self.rejected.extend(imported.rejected);
        let text = self.instructions.take().or_else(|| self.withheld.take().map(|(text, _)| text));
        match (pins::instructions(spec.pinned.as_deref(), text.as_deref()), text) {
            (Ok(()), text) => (self.instructions, self.withheld) = (text, None),
            (Err(why), text) => self.withheld = text.map(|text| (text, why)),
        }
    }
}

/// What a server listed just now.
pub(super) struct Lists {
    tools: Vec<Json>,
    offers: bool,
    instructions: Option<String>,
    announces: bool,
    ttl: Option<Duration>,
}

/// Whose a list is: a principal's, or everybody's, which is the empty one.
pub(super) type Whose = Arc<str>;

/// Where the listing of one server, for one or for everybody, stands.
#[derive(Default)]
pub(super) struct Progress {
    /// 0 nothing, 1 listing again, 2 listing again and once more.
    again: AtomicU8,
    /// It changed while it was listed for the first time.
    missed: AtomicBool,
    attempt: Mutex<Option<Instant>>,
    done: watch::Sender<Attempts>,
}

/// What came of trying to list a server for the first time.
#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    /// How many there were.
    made: u64,
    /// Nothing is tried again by itself.
    over: bool,
}

/// What is enough for whoever waits for a server's first list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enough {
    /// That one attempt has ended, well or not.
    Attempt,
    /// A list, however many attempts it takes.
    List,
}

pub(crate) struct Manifests {
    listings: Mutex<BTreeMap<Name, BTreeMap<Whose, Listing>>>,
    /// By principal; by nobody where all servers show everybody the same. Made when looked at.
    maps: RwLock<HashMap<Whose, Arc<NameMap>>>,
    kinds: RwLock<Kinds>,
    version: watch::Sender<u64>,
}

/// Which servers are special.
struct Kinds {
    /// Those that show each principal a list of its own.
    own: BTreeSet<Name>,
    /// Those that show each task what it brought along for them, and where they are.
    tasks: BTreeMap<Name, url::Url>,
    /// Those with `prefix = "auto"`.
    auto: BTreeSet<Name>,
}

impl Kinds {
    fn of(specs: &BTreeMap<Name, ServerSpec>) -> Self {
        let those = |which: fn(&ServerSpec) -> bool| -> BTreeSet<Name> {
            specs.iter().filter(|(_, spec)| which(spec)).map(|(name, _)| name.clone()).collect()
        };
        let tasks = specs.iter().filter_map(|(name, spec)| Some((name.clone(), callback::address(spec)?.clone())));
        Self {
            own: those(tells_principals_apart),
            tasks: tasks.collect(),
            auto: those(|spec| spec.words.prefix == Prefix::Auto),
        }
    }
}

/// Whether each principal shows a server credentials of its own.
fn tells_principals_apart(spec: &ServerSpec) -> bool {
    match &spec.transport {
        // With its own credentials Pleach is one and the same for everybody.
        Transport::Http { auth: Some(auth), .. } => auth.flow != Flow::ClientCredentials,
        _ => false,
    }
}

impl Manifests {
    pub(super) fn new(specs: &BTreeMap<Name, ServerSpec>) -> Self {
        Self {
            listings: Mutex::new(specs.keys().map(|n| (n.clone(), BTreeMap::new())).collect()),
            maps: RwLock::default(),
            kinds: RwLock::new(Kinds::of(specs)),
            version: watch::channel(0).0,
        }
    }
    /// Whose list of a server a caller is shown.
    pub(super) fn whose(&self, name: &Name, caller: &Caller) -> Whose {
        let kinds = self.kinds();
        match kinds.tasks.get(name) {
            Some(url) => callback::whose(caller, url),
            None if kinds.own.contains(name) => caller.principal.clone(),
            None => Whose::default(),
        }
    }
    /// The tools a caller's servers have, as they are now.
    pub(crate) fn map(&self, caller: &Caller) -> Arc<NameMap> {
        let viewer = self.viewer(caller);
        let made = self.maps.read().unwrap_or_else(PoisonError::into_inner).get(&viewer).cloned();
        made.unwrap_or_else(|| {
            // Held until the map is in its place: no list changes meanwhile.
            let listings = self.lock();
            let shown: Vec<&Listing> =
                listings.iter().filter_map(|(name, all)| all.get(&self.whose(name, caller))).collect();
            let tools = shown.iter().flat_map(|l| l.tools.iter().flatten().cloned()).collect();
            let held = shown.iter().flat_map(|l| l.held.iter().cloned());
            let auto = self.kinds().auto.clone();
            let map = NameMap::build(tools, &auto).with_held(held, &auto);
            for (name, why) in &map.refused {
                tracing::warn!("the name {name} is not used: {why}");
            }
            let map = Arc::new(map);
            self.maps.write().unwrap_or_else(PoisonError::into_inner).insert(viewer, map.clone());
            map
        })
    }
    /// Who shares a map with a caller.
    fn viewer(&self, caller: &Caller) -> Whose {
        let kinds = self.kinds();
        // What a task brought along is good at one address.
        let tasks = kinds.tasks.values().filter_map(|url| callback::came(caller, url));
        match tasks.map(|came| came.id).next() {
            Some(task) => format!("{} {task}", caller.principal).into(),
            None if kinds.own.is_empty() => Whose::default(),
            None => caller.principal.clone(),
        }
    }
    /// Forgets what a server listed for others than these.
    pub(super) fn keep_only(&self, name: &Name, whose: &BTreeSet<Whose>) {
        let mut listings = self.lock();
        let Some(all) = listings.get_mut(name) else { return };
        let before = all.len();
        all.retain(|known, _| whose.contains(known));
        if all.len() < before {
            self.maps.write().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
    fn kinds(&self) -> RwLockReadGuard<'_, Kinds> {
        self.kinds.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Name, BTreeMap<Whose, Listing>>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// What is known of a server, for whom.
    fn look<T>(&self, name: &Name, whose: &Whose, at: impl FnOnce(&Listing) -> T) -> Option<T> {
        self.lock().get(name).and_then(|all| all.get(whose)).map(at)
    }
    /// Whether a server has prompts or resources for a caller, as far as is known.
    pub(super) fn may_offer(&self, name: &Name, caller: &Caller) -> bool {
        self.look(name, &self.whose(name, caller), |l| l.offers).unwrap_or(false)
    }
    /// Something a view may show is different now.
    pub(super) fn changed(&self) {
        self.version.send_modify(|v| *v += 1);
    }
    /// How long a client may keep a list made of all of them.
    pub(crate) fn ttl(&self) -> Duration {
        let listings = self.lock();
        listings.values().flat_map(BTreeMap::values).filter_map(|l| l.ttl).min().unwrap_or(MAX_TTL).min(MAX_TTL)
    }
    /// Changes when a map does.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
    /// What is known of each server, for a caller.
    pub(crate) fn listings(&self, caller: &Caller) -> BTreeMap<Name, Listing> {
        let of = |name: &Name, all: &BTreeMap<Whose, Listing>| all.get(&self.whose(name, caller)).cloned();
        self.lock().iter().map(|(name, all)| (name.clone(), of(name, all).unwrap_or_default())).collect()
    }
    fn known(&self, name: &Name, whose: &Whose) -> bool {
        self.look(name, whose, |l| l.tools.is_some()).unwrap_or(false)
    }
    fn is_stale(&self, name: &Name, whose: &Whose) -> bool {
        self.look(name, whose, |l| l.stale_at.is_some_and(|at| at <= Instant::now())).unwrap_or(false)
    }
    /// Takes what a server listed, for whom.
    fn set(&self, entry: &Entry, whose: &Whose, lists: Lists) {
        let spec = entry.spec();
        let imported = import(&spec.name, &spec.words, &lists.tools);
        for (what, why) in &imported.rejected {
            tracing::warn!(server = %spec.name, "tool {what:?} is not used: {why}");
        }
        for (what, why) in &imported.notes {
            tracing::warn!(server = %spec.name, "tool {what:?}: {why}");
        }
        let (used, held) = pins::sift(spec.pinned.as_deref(), imported.tools);
        for held in &held {
            tracing::warn!(server = %spec.name, "{}. Fix: {}", held.reason(), held.fix());
        }
        let (instructions, withheld) = match pins::instructions(spec.pinned.as_deref(), lists.instructions.as_deref()) {
            Ok(()) => (lists.instructions.clone(), None),
            Err(why) => {
                tracing::warn!(server = %spec.name, "{why}, so they are shown to nobody; `pleach pin {}` shows them", spec.name);
                (None, lists.instructions.clone().map(|text| (text, why)))
            }
        };
        let tools: Vec<Arc<Tool>> = used.into_iter().map(Arc::new).collect();
        let held: Vec<Arc<Held>> = held.into_iter().map(Arc::new).collect();
        let hashes = |tools: &[Arc<Tool>], held: &[Arc<Held>]| {
            let held = held.iter().map(|h| h.tool.hash.clone());
            (tools.iter().map(|t| t.hash.clone()).collect::<Vec<_>>(), held.collect::<Vec<_>>())
        };
        let listed = hashes(&tools, &held);
        let is_listed =
            |known: &&Listing| known.tools.as_deref().is_some_and(|tools| hashes(tools, &known.held) == listed);
        let mut listings = self.lock();
        if entry.is_gone() {
            return;
        }
        if !Arc::ptr_eq(&spec, &entry.spec()) {
            // Other words are said of it than a moment ago.
            drop(listings);
            return self.set(entry, whose, lists);
        }
        let all = listings.entry(spec.name.clone()).or_default();
        let same = all.get(whose).as_ref().is_some_and(is_listed);
        // What several are shown alike is kept once.
        let kept = all.get(whose).filter(is_listed).or_else(|| all.values().find(is_listed));
        let tools = kept.and_then(|l| l.tools.clone()).unwrap_or(tools);
        let ttl = lists.ttl.or((!lists.announces).then_some(MAX_TTL));
        let listing = Listing {
            tools: Some(tools),
            // What it offers beside tools is shown by principal.
            offers: lists.offers && callback::address(&spec).is_none(),
            instructions,
            rejected: imported.rejected,
            held,
            withheld,
            failed: None,
            // One that announces changes is believed; others are looked at again.
            stale_at: (!lists.announces).then(|| Instant::now() + ttl.unwrap_or(MAX_TTL)),
            ttl,
        };
        all.insert(whose.clone(), listing);
        if !same {
            let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
            if self.kinds().own.contains(&spec.name) && !self.kinds().tasks.contains_key(&spec.name) {
                let of = format!("{whose} ");
                maps.retain(|viewer, _| viewer != whose && !viewer.starts_with(&of));
            } else {
                maps.clear();
            }
        }
        drop(listings);
        if !same {
            self.changed();
        }
    }
    /// Other servers are registered than before. Of those forgotten nothing is known any more;
    /// what the others listed is read anew under what is said of them now.
    pub(super) fn adopt(&self, specs: &BTreeMap<Name, ServerSpec>, forgotten: &[Name], reworded: &[Name]) {
        let mut listings = self.lock();
        *self.kinds.write().unwrap_or_else(PoisonError::into_inner) = Kinds::of(specs);
        listings.retain(|name, _| specs.contains_key(name) && !forgotten.contains(name));
        for (name, spec) in specs {
            let all = listings.entry(name.clone()).or_default();
            for listing in all.values_mut().filter(|_| reworded.contains(name)) {
                listing.read_anew(spec);
            }
        }
        self.maps.write().unwrap_or_else(PoisonError::into_inner).clear();
        drop(listings);
        self.changed();
    }
    /// The tool of a server by its own name, as it is now.
    pub(crate) fn tool(&self, server: &Name, upstream: &str, caller: &Caller) -> Option<Arc<Tool>> {
        let named = |listing: &Listing| listing.tools.iter().flatten().find(|t| t.upstream == upstream).cloned();
        self.look(server, &self.whose(server, caller), named).flatten()
    }
    fn fail(&self, name: &Name, whose: &Whose, why: String) {
        self.lock().entry(name.clone()).or_default().entry(whose.clone()).or_default().failed = Some(why);
    }
}

impl Servers {
    /// Makes sure that every server was listed once, waiting no longer than `patience` from the
    /// start of each attempt; slow ones are listed in the background all the same.
    pub(crate) async fn ensure_listed(self: &Arc<Self>, caller: &Caller, patience: Duration) {
        let entries = self.entries();
        let waits = entries.values().map(|entry| self.ensure(entry, caller, patience, Enough::Attempt));
        futures_util::future::join_all(waits).await;
    }
    /// The same for the one server a tool's name points at.
    pub(crate) async fn ensure_listed_for(self: &Arc<Self>, tool: &str, caller: &Caller, enough: Enough) {
        match self.owner(tool) {
            // No longer than a call of that server may take; it is listed all the same.
            Some(entry) => self.ensure(&entry, caller, entry.spec().timeout, enough).await,
            None => self.ensure_listed(caller, Duration::from_secs(5)).await,
        }
    }
    /// The server a tool's name points at.
    pub(super) fn owner(&self, tool: &str) -> Option<Arc<Entry>> {
        let entries = self.entries();
        let mut all = entries.iter();
        all.find(|(n, _)| tool.strip_prefix(n.as_str()).is_some_and(|r| r.starts_with("__"))).map(|e| e.1.clone())
    }
    /// The server a tool's name points at, where it could not be listed for a caller so far, and
    /// why if that is known.
    pub(crate) fn unlisted(&self, tool: &str, caller: &Caller) -> Option<(Name, Option<String>)> {
        let name = self.owner(tool)?.name.clone();
        let whose = self.manifests.whose(&name, caller);
        if self.manifests.known(&name, &whose) {
            return None;
        }
        let why = self.manifests.look(&name, &whose, |l| l.failed.clone()).flatten();
        Some((name, why))
    }
    async fn ensure(self: &Arc<Self>, entry: &Arc<Entry>, caller: &Caller, patience: Duration, enough: Enough) {
        let name = &entry.name;
        if entry.lacks_callback(caller) {
            return;
        }
        let whose = self.manifests.whose(name, caller);
        if self.manifests.known(name, &whose) {
            if self.manifests.is_stale(name, &whose) {
                self.relist(entry, whose, None);
            }
            return;
        }
        let progress = entry.progress(&whose);
        let mut done = progress.done.subscribe();
        // Told between our look and our ear, it would never be heard of.
        if self.manifests.known(name, &whose) {
            return;
        }
        let began = {
            let mut attempt = progress.attempt.lock().unwrap_or_else(PoisonError::into_inner);
            *attempt.get_or_insert_with(|| {
                self.tasks.spawn(self.clone().first_list(entry.clone(), caller.clone()));
                Instant::now()
            })
        };
        // Whoever waits for a list waits from now on: it may have been tried for long.
        let began = if enough == Enough::List { Instant::now() } else { began };
        let listed = async {
            while done.changed().await.is_ok() {
                let over = done.borrow_and_update().over;
                if over || enough == Enough::Attempt || self.manifests.known(name, &whose) {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout_at((began + patience).into(), listed).await;
    }

    /// Lists a server until it was listed once, or nobody serves any more. Whom it refuses for
    /// want of a token is tried once for each wish: a login may come.
    async fn first_list(self: Arc<Self>, entry: Arc<Entry>, caller: Caller) {
        let whose = self.manifests.whose(&entry.name, &caller);
        let progress = entry.progress(&whose);
        let mut wait = FIRST_RETRY;
        let mut over;
        while !entry.is_gone() && !self.manifests.known(&entry.name, &whose) {
            tokio::select! {
                refused = self.list(&entry, &caller) => over = refused,
                () = self.stop.cancelled() => return,
            }
            if over {
                // Before anybody hears of it: who comes next begins anew.
                progress.attempt.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
            let over = over || entry.is_gone();
            progress.done.send_modify(|done| *done = Attempts { made: done.made + 1, over });
            if over || self.manifests.known(&entry.name, &whose) {
                if progress.missed.load(Ordering::Acquire) {
                    self.relist(&entry, whose, None);
                }
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
            wait = MAX_RETRY.min(wait * 2);
        }
        // Gone, or listed by another.
        progress.done.send_modify(|done| *done = Attempts { made: done.made + 1, over: true });
    }

    /// `true` when this caller cannot have it: a token is wanted that there is none of.
    async fn list(self: &Arc<Self>, entry: &Arc<Entry>, caller: &Caller) -> bool {
        let name = &entry.name;
        if self.live.current(caller).is_err() {
            // Who wanted it is gone: whoever comes next begins anew.
            return true;
        }
        let whose = self.manifests.whose(name, caller);
        let listed = match self.instance(name, caller, Abilities::default()).await {
            Ok(attachment) => lists(&attachment).await.map_err(|e| {
                let refused = matches!(e, McpError::Unauthorized(_));
                (format!("server {name}: {e}"), refused)
            }),
            Err(why) => {
                let slot = entry.slot(caller, Abilities::default());
                Err((why, slot.is_ok_and(|slot| slot.refused.load(Ordering::Acquire))))
            }
        };
        match listed {
            Ok(lists) => {
                self.manifests.set(entry, &whose, lists);
                false
            }
            Err((why, refused)) => {
                self.manifests.fail(name, &whose, why);
                // What is listed for one task only is not tried for ever: the next wish tries again.
                refused || callback::address(&entry.spec()).is_some()
            }
        }
    }

    /// Reads the lists again in the background, from `own` or any live instance of whom they
    /// are; a storm of wishes is read at growing intervals.
    pub(super) fn relist(self: &Arc<Self>, entry: &Arc<Entry>, whose: Whose, own: Option<(Arc<Attachment>, Caller)>) {
        let progress = entry.progress(&whose);
        progress.missed.store(true, Ordering::Release);
        if !self.manifests.known(&entry.name, &whose) {
            return;
        }
        progress.missed.store(false, Ordering::Release);
        if progress.again.swap(2, Ordering::AcqRel) > 0 {
            return;
        }
        let (servers, entry) = (self.clone(), entry.clone());
        self.tasks.spawn(async move {
            let again = &progress.again;
            let mut wait = Duration::from_millis(20);
            loop {
                again.store(1, Ordering::Release);
                let own = own.clone().filter(|(a, _)| a.alive()).or_else(|| entry.any_live(&whose));
                if let Some((attachment, caller)) = own {
                    let listed = async {
                        let listed = lists(&attachment).await;
                        servers.offers_again(&entry, &attachment, &caller).await;
                        listed
                    };
                    let listed = tokio::select! {
                        listed = listed => listed,
                        () = servers.stop.cancelled() => return,
                    };
                    match listed {
                        Ok(lists) => servers.manifests.set(&entry, &whose, lists),
                        Err(e) => tracing::warn!(server = %entry.name, "{e}"),
                    }
                }
                if again.compare_exchange(1, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    return;
                }
                tokio::time::sleep(wait).await;
                wait = MAX_RETRY.min(wait * 2);
            }
        });
    }
}

impl Entry {
    /// Whether another server stands in its place, or none.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
    fn progress(&self, whose: &Whose) -> Arc<Progress> {
        let mut all = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(whose.clone()).or_default().clone()
    }
}

/// The tools of a server, asked of everybody, since not all who have some say so; and what is
/// known of the rest.
async fn lists(attachment: &Attachment) -> Result<Lists, McpError> {
    let connection = attachment.connection();
    let (tools, ttl) = match attachment.list_all("tools/list", "tools").await {
        Err(McpError::Rpc(e)) if e.code() == -32601 && !connection.can("tools") => (Vec::new(), None),
        other => other?,
    };
    let about = connection.server();
    let claimed = about.get("capabilities").and_then(|c| c.get("tools"));
    Ok(Lists {
        tools,
        offers: connection.can("prompts") || connection.can("resources"),
        instructions: about.get("instructions").and_then(Json::as_str).map(str::to_owned),
        announces: claimed.is_none_or(|c| c.get("listChanged").and_then(Json::as_bool) == Some(true)),
        ttl,
    })
}
