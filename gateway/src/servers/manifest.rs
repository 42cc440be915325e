//! The tools of all servers under one name map.
//!
//! A manifest is what a server listed last, whichever instance was asked: a tool's definition
//! is the operator's business before it is the principal's. The map is rebuilt when one
//! changes; its version tells the doors to look whether *their* view did.
//!
//! ```text
//!   first need ─▶ listing ─▶ known ─(list_changed, restart, ttl over)─▶ listing again, the old one standing
//!                    └─ failed ─▶ tried again in the background (1 s · 2ⁿ, at most 10 s)
//! ```

use super::{Abilities, Entry, Servers};
use adapters::mcp::{Attachment, McpError};
use policies::json::Json;
use policies::manifest::{NameMap, Prefix, Tool, import};
use policies::names::Name;
use policies::resolve::{ServerSpec, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
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
    /// Why it could not be listed, if it could not.
    pub(crate) failed: Option<String>,
    /// When it is to be listed again, if it does not say itself.
    stale_at: Option<Instant>,
    ttl: Option<Duration>,
}

/// What a server listed just now.
pub(super) struct Lists {
    tools: Vec<Json>,
    offers: bool,
    instructions: Option<String>,
    announces: bool,
    ttl: Option<Duration>,
}

/// Where the listing of one server stands.
#[derive(Default)]
pub(super) struct Progress {
    /// 0 nothing, 1 listing again, 2 listing again and once more.
    again: AtomicU8,
    attempt: Mutex<Option<Instant>>,
    done: watch::Sender<u64>,
}

pub(crate) struct Manifests {
    listings: Mutex<BTreeMap<Name, Listing>>,
    map: RwLock<Arc<NameMap>>,
    auto: BTreeSet<Name>,
    version: watch::Sender<u64>,
}

impl Manifests {
    pub(super) fn new(specs: &BTreeMap<Name, ServerSpec>) -> Self {
        let auto = specs.iter().filter(|(_, s)| s.words.prefix == Prefix::Auto).map(|(n, _)| n.clone()).collect();
        let listings = specs.keys().map(|n| (n.clone(), Listing::default())).collect();
        Self { listings: Mutex::new(listings), map: RwLock::default(), auto, version: watch::channel(0).0 }
    }
    /// The tools as they are now.
    pub(crate) fn map(&self) -> Arc<NameMap> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Whether a server has prompts or resources, as far as is known.
    pub(super) fn may_offer(&self, name: &Name) -> bool {
        let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.get(name).is_some_and(|l| l.offers)
    }
    /// Something a view may show is different now.
    pub(super) fn changed(&self) {
        self.version.send_modify(|v| *v += 1);
    }
    /// How long a client may keep a list made of all of them.
    pub(crate) fn ttl(&self) -> Duration {
        let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.values().filter_map(|l| l.ttl).min().unwrap_or(MAX_TTL).min(MAX_TTL)
    }
    /// Changes when the map does.
    pub(crate) fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
    /// What is known of each server.
    pub(crate) fn listings(&self) -> BTreeMap<Name, Listing> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn known(&self, name: &Name) -> bool {
        let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.get(name).is_some_and(|l| l.tools.is_some())
    }
    fn is_stale(&self, name: &Name) -> bool {
        let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.get(name).and_then(|l| l.stale_at).is_some_and(|at| at <= Instant::now())
    }
    /// Takes what a server listed.
    fn set(&self, spec: &ServerSpec, lists: Lists) {
        let imported = import(&spec.name, &spec.words, &lists.tools);
        for (what, why) in &imported.rejected {
            tracing::warn!(server = %spec.name, "tool {what:?} is not used: {why}");
        }
        for (what, why) in &imported.notes {
            tracing::warn!(server = %spec.name, "tool {what:?}: {why}");
        }
        let tools: Vec<Arc<Tool>> = imported.tools.into_iter().map(Arc::new).collect();
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        let hashes = |tools: &[Arc<Tool>]| tools.iter().map(|t| t.hash.clone()).collect::<Vec<_>>();
        let before = listings.remove(&spec.name).unwrap_or_default();
        let same = before.tools.as_deref().map(hashes) == Some(hashes(&tools));
        let ttl = lists.ttl.or((!lists.announces).then_some(MAX_TTL));
        let listing = Listing {
            tools: Some(if same { before.tools.unwrap_or_default() } else { tools }),
            offers: lists.offers,
            instructions: lists.instructions,
            rejected: imported.rejected,
            failed: None,
            // One that announces changes is believed; others are looked at again.
            stale_at: (!lists.announces).then(|| Instant::now() + ttl.unwrap_or(MAX_TTL)),
            ttl,
        };
        listings.insert(spec.name.clone(), listing);
        if !same {
            self.rebuild(&listings);
        }
        drop(listings);
        if !same {
            self.changed();
        }
    }
    fn rebuild(&self, listings: &BTreeMap<Name, Listing>) {
        let all = listings.values().flat_map(|l| l.tools.iter().flatten().cloned()).collect();
        let map = NameMap::build(all, &self.auto);
        for (name, why) in &map.refused {
            tracing::warn!("the name {name} is not used: {why}");
        }
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
    }
    fn fail(&self, name: &Name, why: String) {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listing) = listings.get_mut(name) {
            listing.failed = Some(why);
        }
    }
}

impl Servers {
    /// Makes sure that every server was listed once, waiting no longer than `patience` from the
    /// start of each attempt; slow ones are listed in the background all the same.
    pub(crate) async fn ensure_listed(self: &Arc<Self>, caller: &Caller, patience: Duration) {
        let waits = self.entries.values().map(|entry| self.ensure(entry, caller, patience));
        futures_util::future::join_all(waits).await;
    }
    /// The same for the one server a tool's name points at.
    pub(crate) async fn ensure_listed_for(self: &Arc<Self>, tool: &str, caller: &Caller) {
        let owner = self.entries.iter().find(|(n, _)| {
            let rest = tool.strip_prefix(n.as_str());
            rest.is_some_and(|r| r.starts_with("__"))
        });
        match owner {
            // No longer than a call of that server may take; it is listed all the same.
            Some((_, entry)) => self.ensure(entry, caller, entry.spec.timeout).await,
            None => self.ensure_listed(caller, Duration::from_secs(5)).await,
        }
    }
    async fn ensure(self: &Arc<Self>, entry: &Arc<Entry>, caller: &Caller, patience: Duration) {
        let name = &entry.spec.name;
        if self.manifests.known(name) {
            if self.manifests.is_stale(name) {
                self.relist(entry, None);
            }
            return;
        }
        let mut done = entry.progress.done.subscribe();
        // Where everybody has tokens of their own, another may be let in who was not the first.
        if *done.borrow() > 0 && matches!(entry.spec.transport, Transport::Http { auth: Some(_), .. }) {
            let _ = tokio::time::timeout(patience, self.list(entry, caller)).await;
            return;
        }
        let began = {
            let mut attempt = entry.progress.attempt.lock().unwrap_or_else(PoisonError::into_inner);
            *attempt.get_or_insert_with(|| {
                self.tasks.spawn(self.clone().first_list(entry.clone(), caller.clone()));
                Instant::now()
            })
        };
        let _ = tokio::time::timeout_at((began + patience).into(), done.changed()).await;
    }

    /// Lists a server until it was listed once, or nobody serves any more.
    async fn first_list(self: Arc<Self>, entry: Arc<Entry>, caller: Caller) {
        let mut wait = FIRST_RETRY;
        while !self.manifests.known(&entry.spec.name) {
            tokio::select! {
                () = self.list(&entry, &caller) => {}
                () = self.stop.cancelled() => return,
            }
            entry.progress.done.send_modify(|n| *n += 1);
            if self.manifests.known(&entry.spec.name) {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
            wait = MAX_RETRY.min(wait * 2);
        }
    }

    async fn list(self: &Arc<Self>, entry: &Arc<Entry>, caller: &Caller) {
        let name = &entry.spec.name;
        let listed = match self.instance(name, caller, Abilities::default()).await {
            Ok(attachment) => lists(&attachment).await.map_err(|e| format!("server {name}: {e}")),
            Err(why) => Err(why),
        };
        match listed {
            Ok(lists) => self.manifests.set(&entry.spec, lists),
            Err(why) => self.manifests.fail(name, why),
        }
    }

    /// Reads the lists again in the background, from `own` or any live instance; a storm of
    /// wishes is read at growing intervals.
    pub(super) fn relist(self: &Arc<Self>, entry: &Arc<Entry>, own: Option<(Arc<Attachment>, Caller)>) {
        if !self.manifests.known(&entry.spec.name) || entry.progress.again.swap(2, Ordering::AcqRel) > 0 {
            return;
        }
        let (servers, entry) = (self.clone(), entry.clone());
        self.tasks.spawn(async move {
            let again = &entry.progress.again;
            let mut wait = Duration::from_millis(20);
            loop {
                again.store(1, Ordering::Release);
                let own = own.clone().filter(|(a, _)| a.alive()).or_else(|| entry.any_live());
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
                        Ok(lists) => servers.manifests.set(&entry.spec, lists),
                        Err(e) => tracing::warn!(server = %entry.spec.name, "{e}"),
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
