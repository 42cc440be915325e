//! The manifests of all servers under one name map.
//!
//! A manifest is what a server listed last, whichever instance was asked. The map is rebuilt
//! when one changes; its version tells the doors to look whether *their* view did.

use super::Servers;
use policies::json::Json;
use policies::manifest::{NameMap, Prefix, Tool, import};
use policies::names::Name;
use policies::resolve::ServerSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use subagents::run::Caller;
use tokio::sync::watch;

/// What is known of one server's tools.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    /// `None` until it was listed once.
    pub(crate) tools: Option<Vec<Arc<Tool>>>,
    /// Tools that were refused, with the reason.
    pub(crate) rejected: Vec<(String, String)>,
    /// Why it could not be listed, if it could not.
    pub(crate) failed: Option<String>,
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
    /// The map as it is now.
    pub(crate) fn map(&self) -> Arc<NameMap> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).clone()
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
    /// Takes what a server listed.
    pub(super) fn set(&self, spec: &ServerSpec, list: &[Json]) {
        let imported = import(&spec.name, &spec.words, list);
        for (tool, why) in &imported.rejected {
            tracing::warn!(server = %spec.name, "tool {tool:?} is not used: {why}");
        }
        let tools: Vec<Arc<Tool>> = imported.tools.into_iter().map(Arc::new).collect();
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        let hashes = |tools: &[Arc<Tool>]| tools.iter().map(|t| t.hash.clone()).collect::<BTreeSet<_>>();
        let before = listings.get(&spec.name).and_then(|l| l.tools.as_deref().map(hashes));
        if before.as_ref() == Some(&hashes(&tools)) {
            return;
        }
        let listing = Listing { tools: Some(tools), rejected: imported.rejected, failed: None };
        listings.insert(spec.name.clone(), listing);
        let all = listings.values().flat_map(|l| l.tools.iter().flatten().cloned()).collect();
        let map = NameMap::build(all, &self.auto);
        for (tool, why) in &map.refused {
            tracing::warn!("tool name {tool} is not used: {why}");
        }
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
        drop(listings);
        self.version.send_modify(|v| *v += 1);
    }
    fn fail(&self, name: &Name, why: String) {
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listing) = listings.get_mut(name) {
            listing.failed = Some(why);
        }
    }
}

impl Servers {
    /// Makes sure that every server was listed once, waiting no longer than `patience` for the
    /// slow ones; they are listed in the background all the same.
    pub(crate) async fn ensure_listed(self: &Arc<Self>, caller: &Caller, patience: Duration) {
        let missing: Vec<Name> = self.names().filter(|n| !self.manifests.known(n)).cloned().collect();
        let work: Vec<_> =
            missing.into_iter().map(|name| self.tasks.spawn(self.clone().list(name, caller.clone()))).collect();
        let _ = tokio::time::timeout(patience, futures_util::future::join_all(work)).await;
    }
    /// The same for the one server a tool's name points at.
    pub(crate) async fn ensure_listed_for(self: &Arc<Self>, tool: &str, caller: &Caller) {
        let owner = self.names().find(|n| tool.strip_prefix(n.as_str()).is_some_and(|r| r.starts_with("__"))).cloned();
        match owner {
            Some(name) if !self.manifests.known(&name) => {
                // No longer than a call of that server may take; it is listed all the same.
                let limit = self.spec(&name).map_or(Duration::from_secs(60), |s| s.timeout);
                let _ = tokio::time::timeout(limit, self.tasks.spawn(self.clone().list(name, caller.clone()))).await;
            }
            Some(_) => {}
            None => self.ensure_listed(caller, Duration::from_secs(5)).await,
        }
    }
    async fn list(self: Arc<Self>, name: Name, caller: Caller) {
        let listed = async {
            let attachment = self.instance(&name, &caller).await?;
            attachment.list_tools().await.map_err(|e| format!("server {name}: tools/list: {e}"))
        };
        let listed = tokio::select! {
            listed = listed => listed,
            () = self.stop.cancelled() => return,
        };
        match (listed, self.spec(&name)) {
            (Ok(list), Some(spec)) => self.manifests.set(spec, &list),
            (Err(why), _) => self.manifests.fail(&name, why),
            (Ok(_), None) => {}
        }
    }
}
