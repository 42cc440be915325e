//! Grant tables: the root `[policy]` and the narrowing ones.

use super::{Limits, Resolver};
use crate::authority::Sources;
use crate::domain::{Domains, Networks};
use crate::file::Node;
use crate::fs::FsGrant;
use crate::grant::{Grant, Names, Narrowing, Profile, SpawnLimits};
use crate::import;
use crate::names::{Name, nearest};
use crate::permission::Access;
use crate::price::Usd;
use crate::tools::{Glob, Layer, ToolRules};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

impl Resolver<'_> {
    pub(super) fn root_grant(&mut self, file: &Node, store: &Path, audit: &Path) -> (Grant, Sources, Limits) {
        // Pleach's own files stay out of every grant, whatever the folders around them are; so do
        // the imported ones, which are policy too, and the files of secrets.
        let with = |suffix: &str| PathBuf::from(format!("{}{suffix}", store.display()));
        let here = self.around.file();
        let own =
            [here.to_owned(), super::lock_of(here), store.to_owned(), with("-wal"), with("-shm"), with("-journal")];
        let own = own.into_iter().chain([audit.to_owned()]);
        let own: Vec<PathBuf> = own.chain(self.import.sources.iter().cloned()).chain(self.secret_files()).collect();
        let nothing = Grant::nothing();
        let (root, mut sources, limits) = match file.get("policy") {
            None => (nothing, Sources::default(), Limits::DEFAULT),
            Some(table) => {
                let (asked, sources, limits) = self.narrowing(table, true, &own);
                (nothing.asked(&asked), sources, limits)
            }
        };
        // Imported rules take away, whatever they say: they are met with what the file grants.
        match import::narrowing(&mut self.import, file, &root, self.around) {
            None => (root, sources, limits),
            Some((rules, places)) => {
                for (key, place) in places.0 {
                    sources.0.entry(key).or_insert(place);
                }
                (root.narrow(&rules), sources, limits)
            }
        }
    }

    /// A narrowing table; absent means none.
    pub(super) fn narrowing_at(&mut self, owner: &Node, key: &str) -> (Narrowing, Sources, Limits) {
        match owner.get(key) {
            Some(table) => self.narrowing(table, false, &[]),
            None => (Narrowing::default(), Sources::default(), Limits::NONE),
        }
    }

    pub(super) fn narrowing(&mut self, table: &Node, root: bool, own: &[PathBuf]) -> (Narrowing, Sources, Limits) {
        let mut sources = Sources::default();
        for (key, place, _) in table.entries() {
            sources.0.insert(key.clone(), place.clone());
        }
        let asked = Narrowing {
            filesystem: table.get("filesystem").map(|n| self.filesystem(n, root, own, &mut sources)),
            domains: table.get("domains").map(|n| self.domains(n)),
            networks: table.get("networks").map(networks),
            max_access: table.text_at("max_access").and_then(Access::from_word),
            tools: table.get("tools").map(|n| ToolRules::of(self.tools(n, &mut sources))),
            models: table.get("models").map(|n| Names::Only(self.model_names(n))),
            agents: None,
            spawn: table.get("spawn").map(|n| spawn(n, root)),
            sandbox: table.get("sandbox").and_then(|n| n.text_at("profile")).and_then(Profile::from_word),
        };
        let absent = if root { Limits::DEFAULT } else { Limits::NONE };
        let limits = table.get("budget").map_or(absent, |budget| limits(budget, absent));
        (asked, sources, limits)
    }

    fn filesystem(&mut self, node: &Node, root: bool, own: &[PathBuf], sources: &mut Sources) -> FsGrant {
        let read = self.paths(node, "read", sources);
        let write = self.paths(node, "read_write", sources);
        let mut deny = self.paths(node, "deny", sources);
        self.create.extend(write.iter().map(|(p, _)| p.clone()).filter(|p| !self.around.exists(p)));
        for (path, _) in &read {
            if !self.around.exists(path)
                && !self.create.iter().any(|made| made.starts_with(path))
                && let Some(place) = sources.place(&format!("filesystem.read:{}", path.display()))
            {
                let (place, message) =
                    (place.clone(), format!("{} does not exist; nothing can be read there yet", path.display()));
                self.warn(&place, message);
            }
        }
        if root {
            deny.extend(own.iter().map(|p| (p.clone(), ())));
        }
        let just = |list: Vec<(PathBuf, ())>| list.into_iter().map(|(p, ())| p);
        FsGrant::new(just(read), just(write), just(deny))
    }

    fn paths(&mut self, node: &Node, key: &str, sources: &mut Sources) -> Vec<(PathBuf, ())> {
        let mut out = Vec::new();
        for item in node.get(key).map(Node::items).unwrap_or_default() {
            let Some(text) = self.expand(item) else { continue };
            match self.around.canonical(&self.absolute(&text)) {
                Ok(path) => {
                    if key != "deny" && self.secret_files().contains(&path) {
                        let message = format!("{} is the file of a secret, which is in no grant", path.display());
                        self.warn(&item.place, message);
                    }
                    sources.0.insert(format!("filesystem.{key}:{}", path.display()), item.place.clone());
                    out.push((path, ()));
                }
                Err(why) => self.error(&item.place, format!("filesystem.{key} {text:?}: {why}")),
            }
        }
        out
    }

    fn domains(&mut self, node: &Node) -> Domains {
        let patterns = node.get("allow").map(Node::items).unwrap_or_default();
        // Each pattern passed the shape's check.
        Domains::parse(patterns.iter().filter_map(Node::text)).unwrap_or_default()
    }

    fn tools(&mut self, node: &Node, sources: &mut Sources) -> Layer {
        let allow = self.globs(node.get("allow"), "allow", sources);
        let ask = self.globs(node.get("ask"), "ask", sources);
        let deny = self.globs(node.get("deny"), "deny", sources);
        if allow.is_empty() && ask.is_empty() && !deny.is_empty() {
            let message =
                "tools names only what is denied, so nothing is allowed; add allow = [\"*\"] to keep the rest";
            self.warn(&node.place, message);
        }
        Layer::new(allow, ask, deny)
    }

    pub(super) fn globs(&mut self, list: Option<&Node>, key: &str, sources: &mut Sources) -> Vec<Glob> {
        let mut out = Vec::new();
        if let Some(list) = list {
            sources.0.entry(format!("tools.{key}")).or_insert_with(|| list.place.clone());
        }
        for item in list.map(Node::items).unwrap_or_default() {
            let Some(Ok(glob)) = item.text().map(Glob::try_from) else { continue };
            self.check_server_of(item, glob.as_str());
            sources.0.insert(format!("tools.{key}:{glob}"), item.place.clone());
            out.push(glob);
        }
        out
    }

    /// `fils__*` with no server `fils` is a typo, and a typo in a deny must not become an allow.
    fn check_server_of(&mut self, item: &Node, pattern: &str) {
        let Some((server, _)) = pattern.split_once("__") else { return };
        // A request has no [servers]; a name nobody has allows nothing there.
        let is_request = self.root.get("version").is_none() && self.root.get("servers").is_none();
        if server.contains('*') || server == "pleach" || is_request {
            return;
        }
        let names = |table: &str| {
            let entries = self.root.get(table).map(Node::entries).unwrap_or_default();
            entries.iter().map(|(k, _, _)| k.as_str())
        };
        let known: Vec<&str> = names("servers").chain(names("peers")).collect();
        if known.contains(&server) {
            return;
        }
        let hint = nearest(server, known.iter().copied()).map(|n| format!("; did you mean \"{n}__…\"?"));
        let hint = hint.unwrap_or_default();
        let peers = self.root.get("peers").map(Node::entries).unwrap_or_default();
        // What is given to another gateway names servers there.
        if peers.iter().any(|(_, _, peer)| peer.get("delegate").and_then(Node::bool) == Some(true)) {
            let message = format!("no server is named {server:?} here, only at a peer if at all{hint}");
            self.warn(&item.place, message);
            return;
        }
        self.error(&item.place, format!("no server is named {server:?}{hint}"));
    }

    fn model_names(&mut self, list: &Node) -> BTreeSet<Name> {
        if self.root.get("version").is_some() {
            return self.names(list, "models", "model");
        }
        list.items().iter().filter_map(|i| Name::try_from(i.text()?).ok()).collect()
    }

    pub(super) fn names(&mut self, list: &Node, table: &str, kind: &str) -> BTreeSet<Name> {
        list.items().iter().filter_map(|item| self.known(Some(item), table, kind)).collect()
    }
}

/// A checked budget table.
pub(super) fn limits(budget: &Node, absent: Limits) -> Limits {
    let count = |key: &str, absent: u32| {
        budget.get(key).and_then(Node::int).map_or(absent, |n| u32::try_from(n).unwrap_or(u32::MAX))
    };
    Limits {
        turns: count("turns", absent.turns),
        tool_calls: count("tool_calls", absent.tool_calls),
        usd: budget.get("usd").and_then(Node::number).and_then(Usd::dollars).unwrap_or(absent.usd),
        tokens: budget.get("tokens").and_then(Node::int).map_or(absent.tokens, i64::unsigned_abs),
        wall: budget.text_at("wall").and_then(|text| crate::budget::duration(text).ok()).or(absent.wall),
    }
}

fn networks(node: &Node) -> Networks {
    let items = node.get("allow").map(Node::items).unwrap_or_default();
    Networks::new(items.iter().filter_map(Node::text).filter_map(|t| t.parse().ok()))
}

/// At the root an absent limit is the default; in a narrowing table it is not asked for less.
fn spawn(node: &Node, root: bool) -> SpawnLimits {
    let absent = if root { SpawnLimits::DEFAULT } else { SpawnLimits::UNNAMED };
    let at = |key: &str, absent: u32| {
        node.get(key).and_then(Node::int).map_or(absent, |n| u32::try_from(n).unwrap_or(u32::MAX))
    };
    SpawnLimits {
        max_depth: at("max_depth", absent.max_depth),
        max_concurrent: at("max_concurrent", absent.max_concurrent),
        max_total: at("max_total", absent.max_total),
    }
}
