//! The manifests of all servers under one name map.
//!
//! A manifest is what a server listed last, whichever instance was asked. The maps are rebuilt
//! when one changes; their version tells the doors to look whether *their* view did.
//!
//! ```text
//!   first need ─▶ listing ─▶ known ─(list_changed, restart, ttl over)─▶ listing again, the old one standing
//!                    └─ failed ─▶ tried again in the background (1 s · 2ⁿ, at most 10 s)
//! ```

use super::{Abilities, Entry, Servers};
use adapters::mcp::{Attachment, McpError};
use policies::json::Json;
use policies::manifest::{self, NameMap, OfferMap, Offering, Offers, Prefix, Tool, import};
use policies::names::Name;
use policies::resolve::ServerSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use subagents::run::Caller;
use tokio::sync::watch;

/// How long a list stands that nobody says how long it stands, where the server does not
/// announce changes; and the most any client is told to keep one.
const MAX_TTL: Duration = Duration::from_secs(60);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(10);

/// What is known of one server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    /// `None` until it was listed once.
    pub(crate) tools: Option<Vec<Arc<Tool>>>,
    /// Its prompts and resources.
    pub(crate) offers: Arc<Offers>,
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
    offers: Offers,
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
    offers: RwLock<Arc<OfferMap>>,
    prefixes: BTreeMap<Name, Prefix>,
    version: watch::Sender<u64>,
}

impl Manifests {
    pub(super) fn new(specs: &BTreeMap<Name, ServerSpec>) -> Self {
        let prefixes: BTreeMap<Name, Prefix> = specs.iter().map(|(n, s)| (n.clone(), s.words.prefix)).collect();
        let listings = specs.keys().map(|n| (n.clone(), Listing::default())).collect();
        Self {
            listings: Mutex::new(listings),
            map: RwLock::default(),
            offers: RwLock::default(),
            prefixes,
            version: watch::channel(0).0,
        }
    }
    /// The tools as they are now.
    pub(crate) fn map(&self) -> Arc<NameMap> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// The prompts and resources as they are now.
    pub(crate) fn offers(&self) -> Arc<OfferMap> {
        self.offers.read().unwrap_or_else(PoisonError::into_inner).clone()
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
        let rejected = imported.rejected.iter().chain(&lists.offers.rejected);
        for (what, why) in rejected {
            tracing::warn!(server = %spec.name, "{what:?} is not used: {why}");
        }
        let tools: Vec<Arc<Tool>> = imported.tools.into_iter().map(Arc::new).collect();
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        let hashes = |tools: &[Arc<Tool>]| tools.iter().map(|t| t.hash.clone()).collect::<Vec<_>>();
        let before = listings.remove(&spec.name).unwrap_or_default();
        let same = before.tools.as_deref().map(hashes) == Some(hashes(&tools)) && *before.offers == lists.offers;
        let ttl = lists.ttl.or((!lists.announces).then_some(MAX_TTL));
        let listing = Listing {
            tools: Some(if same { before.tools.unwrap_or_default() } else { tools }),
            offers: Arc::new(lists.offers),
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
            self.version.send_modify(|v| *v += 1);
        }
    }
    fn rebuild(&self, listings: &BTreeMap<Name, Listing>) {
        let auto: BTreeSet<Name> =
            self.prefixes.iter().filter(|(_, p)| **p == Prefix::Auto).map(|(n, _)| n.clone()).collect();
        let all = listings.values().flat_map(|l| l.tools.iter().flatten().cloned()).collect();
        let map = NameMap::build(all, &auto);
        let offerings: Vec<Offering> = listings
            .iter()
            .map(|(server, l)| Offering {
                server: server.clone(),
                prefix: self.prefixes.get(server).copied().unwrap_or_default(),
                offers: l.offers.clone(),
            })
            .collect();
        let offers = OfferMap::build(&offerings);
        for (name, why) in map.refused.iter().chain(&offers.refused) {
            tracing::warn!("the name {name} is not used: {why}");
        }
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
        *self.offers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(offers);
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
        loop {
            let attempt = async {
                let attachment = self.instance(&entry.spec.name, &caller, Abilities::default()).await?;
                lists(&entry.spec.name, &attachment).await.map_err(|e| format!("server {}: {e}", entry.spec.name))
            };
            let listed = tokio::select! {
                listed = attempt => listed,
                () = self.stop.cancelled() => return,
            };
            let success = listed.is_ok();
            match listed {
                Ok(lists) => self.manifests.set(&entry.spec, lists),
                Err(why) => self.manifests.fail(&entry.spec.name, why),
            }
            entry.progress.done.send_modify(|n| *n += 1);
            if success {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
            wait = MAX_RETRY.min(wait * 2);
        }
    }

    /// A server says that a list changed: any live instance can tell how.
    pub(super) fn list_changed(self: &Arc<Self>, name: &Name) {
        if let Some(entry) = self.entries.get(name) {
            self.relist(entry, None);
        }
    }

    /// Reads the lists again in the background; a storm of wishes is one or two readings.
    pub(super) fn relist(self: &Arc<Self>, entry: &Arc<Entry>, attachment: Option<Arc<Attachment>>) {
        if !self.manifests.known(&entry.spec.name) || entry.progress.again.swap(2, Ordering::AcqRel) > 0 {
            return;
        }
        let (servers, entry) = (self.clone(), entry.clone());
        self.tasks.spawn(async move {
            let again = &entry.progress.again;
            loop {
                again.store(1, Ordering::Release);
                if let Some(attachment) = attachment.clone().filter(|a| a.alive()).or_else(|| entry.any_live()) {
                    let listed = tokio::select! {
                        listed = lists(&entry.spec.name, &attachment) => listed,
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
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
}

/// Everything a server lists. Tools are asked of everybody, since not all who have some say so;
/// the rest of those who claim it.
async fn lists(server: &Name, attachment: &Attachment) -> Result<Lists, McpError> {
    let connection = attachment.connection();
    let none = || (Vec::new(), None);
    let get = async |method: &str, key: &str, claimed: bool, needed: bool| {
        if !claimed && !needed {
            return Ok(none());
        }
        match attachment.list_all(method, key).await {
            Err(McpError::Rpc(e)) if e.code() == -32601 && !(claimed && needed) => Ok(none()),
            // One bad list costs itself.
            Err(e) if !needed => {
                tracing::warn!(%server, "{method}: {e}");
                Ok(none())
            }
            other => other,
        }
    };
    let (tools, ttl) = get("tools/list", "tools", connection.can("tools"), true).await?;
    let (prompts, second) = get("prompts/list", "prompts", connection.can("prompts"), false).await?;
    let has = connection.can("resources");
    let (resources, third) = get("resources/list", "resources", has, false).await?;
    let (templates, fourth) = get("resources/templates/list", "resourceTemplates", has, false).await?;
    let about = connection.server();
    let announces = ["tools", "prompts", "resources"].into_iter().all(|kind| {
        let claimed = about.get("capabilities").and_then(|c| c.get(kind));
        claimed.is_none_or(|c| c.get("listChanged").and_then(Json::as_bool) == Some(true))
    });
    Ok(Lists {
        tools,
        offers: manifest::offers(server, &prompts, &resources, &templates),
        instructions: about.get("instructions").and_then(Json::as_str).map(str::to_owned),
        announces,
        ttl: [ttl, second, third, fourth].into_iter().flatten().min(),
    })
}
