//! Prompts and resources, as each caller's own instances list them. A process works in the home
//! and the sandbox of *one* principal, so what it lists is that principal's: unlike most tools,
//! it is never shown to another.

use super::manifest::{MAX_RETRY, MAX_TTL};
use super::{Abilities, Entry, Servers};
use adapters::mcp::{Attachment, McpError};
use policies::json::Json;
use policies::manifest::{self, OfferMap, Offering, Offers, Prefix};
use policies::names::Name;
use policies::resolve::{ServerSpec, Transport};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use subagents::run::Caller;

/// Viewers remembered; the one that looked least recently makes room.
const MAX_VIEWERS: usize = 256;

/// Whose: a principal and a sandbox.
pub(super) type Viewer = (Arc<str>, Arc<str>);

pub(super) fn viewer(caller: &Caller) -> Viewer {
    (caller.principal.clone(), caller.sandbox.clone())
}

#[derive(Default)]
struct Own {
    listed: BTreeMap<Name, Listed>,
    map: Option<Arc<OfferMap>>,
    looked: Option<Instant>,
}

#[derive(Clone)]
struct Listed {
    offers: Arc<Offers>,
    at: Instant,
    ttl: Option<Duration>,
    announces: bool,
    failed: bool,
}

/// What everybody was shown last.
pub(crate) struct Offered {
    prefixes: RwLock<BTreeMap<Name, Prefix>>,
    viewers: Mutex<HashMap<Viewer, Own>>,
}

fn prefixes(specs: &BTreeMap<Name, ServerSpec>) -> BTreeMap<Name, Prefix> {
    specs.iter().map(|(n, s)| (n.clone(), s.words.prefix)).collect()
}

impl Offered {
    pub(super) fn new(specs: &BTreeMap<Name, ServerSpec>) -> Self {
        Self { prefixes: RwLock::new(prefixes(specs)), viewers: Mutex::default() }
    }
    /// Other servers are registered than before: of those named nothing is known any more.
    pub(super) fn adopt(&self, specs: &BTreeMap<Name, ServerSpec>, forgotten: &[Name]) {
        *self.prefixes.write().unwrap_or_else(PoisonError::into_inner) = prefixes(specs);
        let mut viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        for own in viewers.values_mut() {
            forgotten.iter().for_each(|name| drop(own.listed.remove(name)));
            own.map = None;
        }
    }
    /// What a caller's servers offer, as far as it was listed.
    pub(crate) fn of(&self, caller: &Caller) -> Arc<OfferMap> {
        let mut viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        if viewers.len() >= MAX_VIEWERS && !viewers.contains_key(&viewer(caller)) {
            let oldest = viewers.iter().min_by_key(|(_, own)| own.looked).map(|(who, _)| who.clone());
            oldest.and_then(|who| viewers.remove(&who));
        }
        let own = viewers.entry(viewer(caller)).or_default();
        own.looked = Some(Instant::now());
        own.map.get_or_insert_with(|| Arc::new(self.build(&own.listed))).clone()
    }
    fn build(&self, listed: &BTreeMap<Name, Listed>) -> OfferMap {
        let prefixes = self.prefixes.read().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<Offering> = prefixes
            .iter()
            .map(|(server, prefix)| Offering {
                server: server.clone(),
                prefix: *prefix,
                offers: listed.get(server).map(|l| l.offers.clone()).unwrap_or_default(),
            })
            .collect();
        let map = OfferMap::build(&all);
        for (name, why) in &map.refused {
            tracing::warn!("the name {name} is not used: {why}");
        }
        map
    }
    /// Takes what a server listed for somebody; whether it looks different now.
    fn set(&self, who: &Viewer, server: &Name, listed: Listed) -> bool {
        let mut viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        let own = viewers.entry(who.clone()).or_default();
        let same = own.listed.get(server).is_some_and(|l| *l.offers == *listed.offers);
        own.listed.insert(server.clone(), listed);
        if !same {
            own.map = None;
        }
        !same
    }
    /// Whether a server was listed for somebody, and does not have to be again.
    fn is_fresh(&self, who: &Viewer, server: &Name) -> bool {
        let viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(listed) = viewers.get(who).and_then(|own| own.listed.get(server)) else { return false };
        let kept = if listed.failed { MAX_RETRY } else { listed.ttl.unwrap_or(MAX_TTL) };
        (listed.announces && !listed.failed) || listed.at.elapsed() < kept
    }
    fn is_known(&self, who: &Viewer, server: &Name) -> bool {
        let viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        viewers.get(who).is_some_and(|own| own.listed.contains_key(server))
    }
    /// Who was shown a server's offers.
    fn shown(&self, server: &Name) -> Vec<Viewer> {
        let viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        viewers.iter().filter(|(_, own)| own.listed.contains_key(server)).map(|(who, _)| who.clone()).collect()
    }
}

impl Servers {
    /// Makes sure that the prompts and resources of every server were listed for this caller,
    /// waiting no longer than `patience`; slow ones are listed in the background all the same.
    pub(crate) async fn ensure_offered(self: &Arc<Self>, caller: &Caller, patience: Duration) {
        self.ensure_listed(caller, patience).await;
        let who = viewer(caller);
        let entries = self.entries();
        let missing = entries.values().filter(|e| {
            !e.spec().words.builtin
                && self.manifests.may_offer(&e.name, caller)
                && !self.offered.is_fresh(&who, &e.name)
        });
        let work: Vec<_> = missing
            .filter_map(|entry| {
                let work = self.tasks.spawn(self.clone().offer(entry.clone(), caller.clone()));
                // What is known already is shown while it is looked at again.
                (!self.offered.is_known(&who, &entry.name)).then_some(work)
            })
            .collect();
        let _ = tokio::time::timeout(patience, futures_util::future::join_all(work)).await;
    }

    async fn offer(self: Arc<Self>, entry: Arc<Entry>, caller: Caller) {
        let listed = async {
            let name = &entry.name;
            let attachment = self.instance(name, &caller, Abilities::default()).await.map_err(McpError::Unreachable)?;
            Ok::<_, McpError>(offers(name, &attachment).await)
        };
        let listed = tokio::select! {
            listed = listed => listed,
            () = self.stop.cancelled() => return,
        };
        self.offers_are(&entry, &viewer(&caller), listed);
    }

    /// A server's offers may have changed: they are listed again for whom this instance is.
    pub(super) async fn offers_again(self: &Arc<Self>, entry: &Arc<Entry>, attachment: &Attachment, caller: &Caller) {
        let name = &entry.name;
        if !self.manifests.may_offer(name, caller) {
            return;
        }
        // A server that is no process of ours, and is shown the same for everybody, lists the same.
        let everybody = matches!(entry.spec().transport, Transport::Http { auth: None, .. });
        let who: Vec<Viewer> = match everybody {
            true => self.offered.shown(name),
            false => vec![viewer(caller)].into_iter().filter(|who| self.offered.is_known(who, name)).collect(),
        };
        if who.is_empty() {
            return;
        }
        let (listed, ttl, announces) = offers(name, attachment).await;
        for viewer in who {
            self.offers_are(entry, &viewer, Ok((listed.clone(), ttl, announces)));
        }
    }

    fn offers_are(&self, entry: &Entry, who: &Viewer, listed: Result<(Arc<Offers>, Option<Duration>, bool), McpError>) {
        let at = Instant::now();
        let listed = match listed {
            Ok((offers, ttl, announces)) => Listed { offers, at, ttl, announces, failed: false },
            Err(e) => {
                tracing::warn!(server = %entry.name, "{e}");
                if self.offered.is_known(who, &entry.name) {
                    return;
                }
                Listed { offers: Arc::default(), at, ttl: None, announces: false, failed: true }
            }
        };
        if !entry.is_gone() && self.offered.set(who, &entry.name, listed) {
            self.manifests.changed();
        }
    }
}

/// What a server offers, how long that stands, and whether it says when it changes. One bad list
/// costs itself.
async fn offers(server: &Name, attachment: &Attachment) -> (Arc<Offers>, Option<Duration>, bool) {
    let connection = attachment.connection();
    let list = async |method: &str, key: &str, capability: &str| {
        if !connection.can(capability) {
            return (Vec::new(), None);
        }
        attachment.list_all(method, key).await.unwrap_or_else(|e| {
            tracing::warn!(%server, "{method}: {e}");
            (Vec::new(), None)
        })
    };
    let (prompts, first) = list("prompts/list", "prompts", "prompts").await;
    let (resources, second) = list("resources/list", "resources", "resources").await;
    let (templates, third) = list("resources/templates/list", "resourceTemplates", "resources").await;
    let offers = manifest::offers(server, &prompts, &resources, &templates);
    for (what, why) in &offers.rejected {
        tracing::warn!(%server, "{what:?} is not used: {why}");
    }
    let about = connection.server();
    let announces = ["prompts", "resources"].into_iter().all(|kind| {
        let claimed = about.get("capabilities").and_then(|c| c.get(kind));
        claimed.is_none_or(|c| c.get("listChanged").and_then(Json::as_bool) == Some(true))
    });
    (Arc::new(offers), [first, second, third].into_iter().flatten().min(), announces)
}
