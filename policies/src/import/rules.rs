//! Permission rules on the lattice: one narrowing of the root grant.
//!
//! deny → denied always. ask → asked. allow → what it does not name is asked (`dontAsk`: denied),
//! except that reading in the workspace needs no rule there. No rule adds anything: the result is
//! met with the root grant. A rule that cannot be said as it stands is made narrower, never
//! dropped; the report tells each.

use super::patterns::{Anchors, Covers};
use super::tools::{Known, Means};
use super::{Import, Kind};
use crate::authority::Sources;
use crate::domain::Domains;
use crate::file::Node;
use crate::fs::{FileOp, FsGrant};
use crate::grant::{Grant, Names, Narrowing};
use crate::names::Name;
use crate::permission::Access;
use crate::place::Place;
use crate::resolve::Surroundings;
use crate::tools::{Glob, Layer, Mode, ToolRules};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Which list a rule stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    Allow,
    Ask,
    Deny,
}

/// A rule as written.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) listed: Listed,
    pub(super) place: Place,
    pub(super) text: String,
    pub(super) tool: String,
    pub(super) scope: Option<String>,
    /// What `/` means in it.
    pub(super) project: PathBuf,
}

/// All rules of the imported settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(super) said: Vec<Said>,
    /// An allow list stands here, so what it does not name is asked about.
    pub(super) closed: Option<Place>,
    /// `defaultMode`
    pub(super) mode: Option<(String, Place)>,
    /// `additionalDirectories`
    pub(super) folders: Vec<(PathBuf, Place)>,
}

/// What the imported rules take from the root grant; `None` when there are none.
pub(crate) fn narrowing(
    import: &mut Import,
    policy: &Node,
    root: &Grant,
    around: &dyn Surroundings,
) -> Option<(Narrowing, Sources)> {
    let rules = std::mem::take(&mut import.rules);
    if rules.said.is_empty() && rules.closed.is_none() && rules.mode.is_none() && rules.folders.is_empty() {
        return None;
    }
    let mut work = Work {
        import,
        known: Known::new(policy),
        root,
        around,
        lists: Default::default(),
        deny: BTreeSet::new(),
        read: Vec::new(),
        write: Vec::new(),
        only_edits: false,
        hosts: Vec::new(),
        any_host: false,
        not_hosts: Vec::new(),
        agents: None,
        sources: Sources::default(),
    };
    for said in &rules.said {
        work.rule(said);
    }
    let asked = work.finish(&rules);
    Some((asked, work.sources))
}

struct Work<'a> {
    import: &'a mut Import,
    known: Known<'a>,
    root: &'a Grant,
    around: &'a dyn Surroundings,
    /// allow, ask, deny
    lists: [Vec<Glob>; 3],
    /// Folders and files denied.
    deny: BTreeSet<PathBuf>,
    /// Folders that scoped allow rules name.
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    /// Writing is allowed by folder only.
    only_edits: bool,
    hosts: Vec<String>,
    any_host: bool,
    not_hosts: Vec<Domains>,
    /// Agents that may still be started.
    agents: Option<BTreeSet<Name>>,
    sources: Sources,
}

impl Work<'_> {
    fn note(&mut self, said: &Said, kind: Kind, what: impl Into<String>) {
        let word = match said.listed {
            Listed::Allow => "allow",
            Listed::Ask => "ask",
            Listed::Deny => "deny",
        };
        let what = format!("{word} {}: {}", said.text, what.into());
        self.import.note(&said.place, kind, what);
    }

    fn glob(&mut self, listed: Listed, text: &str, place: &Place) {
        let Ok(glob) = Glob::try_from(text) else {
            return self.import.error(place, format!("{text:?} is no pattern for tools"));
        };
        let key = ["allow", "ask", "deny"][listed as usize];
        self.sources.0.entry(format!("tools.{key}")).or_insert_with(|| place.clone());
        self.sources.0.insert(format!("tools.{key}:{glob}"), place.clone());
        self.lists[listed as usize].push(glob);
    }

    fn rule(&mut self, said: &Said) {
        if let Some(scope) = said.scope.as_deref() {
            match said.tool.as_str() {
                "Read" | "Edit" | "Write" | "Glob" | "Grep" => return self.path(said, scope),
                "WebFetch" => return self.host(said, scope),
                "Agent" | "Task" if !scope.contains(':') => return self.agent(said, scope),
                _ => {}
            }
        } else if said.tool == "WebFetch" {
            self.any_host |= said.listed == Listed::Allow;
        }
        // An allow for a server's tools must name the server; `mcp__*` allows nothing there.
        if said.listed == Listed::Allow && said.tool.split("__").nth(1).is_some_and(|s| s.contains('*')) {
            return self.note(said, Kind::Left, "an allow names its server");
        }
        match self.known.means(&said.tool, true) {
            Err(why) => self.note(said, Kind::Left, format!("{why}; nothing here goes by that name")),
            Ok(Means::Absent(why)) => self.note(said, Kind::Left, format!("there is no such tool here; {why}")),
            Ok(Means::Unserved(why)) => self.note(said, Kind::Left, why),
            // What allows nothing can be left; what forbids or asks must hold.
            Ok(Means::Unsayable(why)) if said.listed == Listed::Allow => self.note(said, Kind::Left, why),
            Ok(Means::Unsayable(why)) => {
                let message = format!("{} cannot be held here: {why}", said.text);
                self.import.error(&said.place, message);
            }
            Ok(Means::Tools(globs)) => self.tools(said, &globs),
            Ok(Means::Runtime(tool)) => self.tools(said, &[tool.to_owned()]),
            Ok(Means::Agent) => {
                if said.listed == Listed::Deny && said.scope.is_none() {
                    self.agents = Some(BTreeSet::new());
                }
                self.tools(said, &["Agent".to_owned(), "Task".to_owned()]);
            }
        }
    }

    /// A rule about whole tools; a scope that cannot be held makes it narrower.
    fn tools(&mut self, said: &Said, globs: &[String]) {
        let listed = match (&said.scope, said.listed) {
            (None, listed) => listed,
            (Some(_), Listed::Allow) => {
                self.note(
                    said,
                    Kind::Narrowed,
                    format!("a scope of {} cannot be held by name, so it is asked about each time", said.tool),
                );
                Listed::Ask
            }
            (Some(_), Listed::Ask) => {
                self.note(said, Kind::Narrowed, format!("all of {} is asked about", said.tool));
                Listed::Ask
            }
            (Some(_), Listed::Deny) => {
                self.note(
                    said,
                    Kind::Narrowed,
                    format!("a scope of {} cannot be held by name, so all of it is denied; folders and domains hold it better", said.tool),
                );
                Listed::Deny
            }
        };
        for glob in globs {
            self.glob(listed, glob, &said.place);
        }
    }

    fn path(&mut self, said: &Said, scope: &str) {
        let around = self.around;
        let anchors = Anchors { around, project: &said.project };
        let edits = matches!(said.tool.as_str(), "Edit" | "Write");
        match said.listed {
            Listed::Ask => {
                let tools: &[&str] = if edits { &["Edit", "Write"] } else { &["Read", "Glob", "Grep"] };
                self.note(
                    said,
                    Kind::Narrowed,
                    format!("a person is not asked by path, so all of {} is asked about", said.tool),
                );
                for glob in self.known.workspace(tools) {
                    self.glob(Listed::Ask, &glob, &said.place);
                }
            }
            Listed::Allow => match anchors.allow(scope) {
                _ if said.tool == "Write" => {
                    self.note(said, Kind::Left, "Claude Code never consults a path of Write; write Edit");
                }
                Ok(path) => {
                    if edits {
                        self.write.push(path);
                        self.only_edits = true;
                        for glob in self.known.workspace(&["Edit", "Write"]) {
                            self.glob(Listed::Allow, &glob, &said.place);
                        }
                    } else {
                        self.read.push(path);
                    }
                    self.sources.0.entry("filesystem".into()).or_insert_with(|| said.place.clone());
                }
                Err(why) => {
                    self.only_edits |= edits;
                    self.note(said, Kind::Left, format!("{why}; it allows nothing here"));
                }
            },
            Listed::Deny => match anchors.deny(scope) {
                Ok(Covers::Exactly(path)) => self.deny_path(said, path, edits),
                Ok(Covers::Found(paths)) => {
                    let count = crate::budget::count(paths.len() as u64, "path");
                    let what = format!(
                        "held for the {count} there now; what gets such a name later is held from the next start on"
                    );
                    self.note(said, Kind::Left, what);
                    for path in paths {
                        self.deny_path(said, path, edits);
                    }
                }
                Err(why) => {
                    let message =
                        format!("deny {}: {why}; name a folder here, or in [policy.filesystem] deny", said.text);
                    self.import.error(&said.place, message);
                }
            },
        }
    }

    fn deny_path(&mut self, said: &Said, path: PathBuf, edits: bool) {
        if edits && !self.root.filesystem.write().iter().any(|w| w.starts_with(&path) || path.starts_with(w)) {
            return self.note(said, Kind::Taken, "nothing is writable there anyway");
        }
        if edits && self.root.filesystem.allows(&path, FileOp::Read) {
            self.note(
                said,
                Kind::Narrowed,
                "a folder is closed to writing by closing it, so nothing is read there either",
            );
        }
        self.sources.0.insert(format!("filesystem.deny:{}", path.display()), said.place.clone());
        self.deny.insert(path);
    }

    fn host(&mut self, said: &Said, scope: &str) {
        let Some(domain) = scope.strip_prefix("domain:").map(str::trim) else {
            return self.note(said, Kind::Left, "a rule of WebFetch names a domain, as domain:example.com");
        };
        let parsed = Domains::parse([domain]);
        match (said.listed, parsed) {
            (Listed::Allow, _) if domain == "*" => self.any_host = true,
            (Listed::Allow, Ok(_)) => {
                self.hosts.push(domain.to_owned());
                self.sources.0.entry("domains".into()).or_insert_with(|| said.place.clone());
            }
            (Listed::Allow, Err(why)) => self.note(said, Kind::Left, format!("{why}; it allows nothing here")),
            (_, Err(_)) if domain == "*" => {
                self.note(said, Kind::Narrowed, "nothing reaches any domain, whatever the tool");
                self.not_hosts.extend(Domains::parse(self.root.domains.patterns().iter().map(String::as_str)));
            }
            (_, Err(why)) => {
                let message = format!("{} cannot be held: {why}; take the domain out of [policy.domains]", said.text);
                self.import.error(&said.place, message);
            }
            (listed, Ok(denied)) => {
                let hit: Vec<String> =
                    self.root.domains.patterns().into_iter().filter(|p| overlaps(p, &denied)).collect();
                match hit.is_empty() {
                    true => self.note(said, Kind::Taken, "the policy file does not reach it anyway"),
                    false => {
                        let asked = if listed == Listed::Ask { "a person is not asked by domain, and " } else { "" };
                        let what = format!(
                            "{asked}domains are only allowed, so {} is taken out, for every tool",
                            hit.join(", ")
                        );
                        self.note(said, Kind::Narrowed, what);
                        self.not_hosts.push(denied);
                        self.sources.0.entry("domains".into()).or_insert_with(|| said.place.clone());
                    }
                }
            }
        }
    }

    fn agent(&mut self, said: &Said, scope: &str) {
        match said.listed {
            Listed::Allow => self.note(said, Kind::Left, "whom an agent may start is said by its own subagents"),
            Listed::Ask => self.tools(said, &["Agent".to_owned(), "Task".to_owned()]),
            Listed::Deny => {
                let all = self.known.agents();
                let left =
                    self.agents.get_or_insert_with(|| all.iter().filter_map(|n| Name::try_from(*n).ok()).collect());
                if !left.remove(scope) {
                    self.note(said, Kind::Taken, "no agent goes by that name here");
                }
                self.sources.0.entry("subagents".into()).or_insert_with(|| said.place.clone());
            }
        }
    }

    fn finish(&mut self, rules: &Rules) -> Narrowing {
        let mode = rules.mode.as_ref().map(|(mode, place)| (mode.as_str(), place));
        Narrowing {
            max_access: self.ceiling(mode),
            tools: self.layer(rules, mode),
            filesystem: self.filesystem(rules),
            domains: self.domains(),
            agents: self.agents.take().map(Names::Only),
            ..Narrowing::default()
        }
    }

    fn ceiling(&mut self, mode: Option<(&str, &Place)>) -> Option<Access> {
        match mode {
            Some(("plan", place)) => {
                self.sources.0.insert("max_access".into(), place.clone());
                Some(Access::ReadOnly)
            }
            Some((mode @ ("acceptEdits" | "bypassPermissions" | "auto"), place)) => {
                let what = format!("defaultMode {mode}: it widens nothing here; the policy file's rules hold");
                self.import.note(place, Kind::Narrowed, what);
                None
            }
            _ => None,
        }
    }

    fn layer(&mut self, rules: &Rules, mode: Option<(&str, &Place)>) -> Option<ToolRules> {
        let word = mode.map_or("default", |(mode, _)| mode);
        let otherwise = match word {
            "dontAsk" => Mode::Deny,
            "bypassPermissions" => Mode::Allow,
            _ if rules.closed.is_some() => Mode::Ask,
            _ => Mode::Allow,
        };
        let [_, ask, deny] = &self.lists;
        if otherwise == Mode::Allow && ask.is_empty() && deny.is_empty() {
            return None;
        }
        let at = rules.closed.clone().or_else(|| mode.map(|(_, place)| place.clone()));
        if let Some(place) = at.filter(|_| otherwise != Mode::Allow) {
            // Claude Code reads without a rule, and edits without one in this mode.
            let free: &[&str] = match word {
                "acceptEdits" => &["Read", "Glob", "Grep", "Edit", "Write"],
                _ => &["Read", "Glob", "Grep"],
            };
            for glob in self.known.workspace(free) {
                self.glob(Listed::Allow, &glob, &place);
            }
            let fate = if otherwise == Mode::Deny { "is denied" } else { "is asked about" };
            self.import.note(
                &place,
                Kind::Narrowed,
                format!("permissions: a tool that no rule names {fate}, besides reading"),
            );
            self.sources.0.insert("tools.ask:*".into(), place);
        }
        let [allow, ask, deny] = std::mem::take(&mut self.lists);
        Some(ToolRules::of(Layer::new(allow, ask, deny).otherwise(otherwise)))
    }

    fn filesystem(&mut self, rules: &Rules) -> Option<FsGrant> {
        for (path, place) in &rules.folders {
            if !self.root.filesystem.allows(path, FileOp::Read) {
                let what = format!(
                    "additionalDirectories {}: the policy file does not grant it; it stays out",
                    path.display()
                );
                self.import.note(place, Kind::Narrowed, what);
            }
        }
        let scoped = !self.read.is_empty() || self.only_edits;
        if !scoped && self.deny.is_empty() {
            return None;
        }
        // Paths cannot be asked about: what a scoped allow leaves to a question is closed here.
        let own = [self.around.folder().to_owned()].into_iter().chain(rules.folders.iter().map(|(p, _)| p.clone()));
        let (read, write) = match (self.read.is_empty(), self.only_edits) {
            (true, false) => (self.root.filesystem.read().clone(), self.root.filesystem.write().clone()),
            (no_reads, only_edits) => {
                let reads = self.root.filesystem.read();
                let read: BTreeSet<PathBuf> =
                    if no_reads { reads.clone() } else { own.chain(self.read.drain(..)).collect() };
                let write =
                    if only_edits { self.write.drain(..).collect() } else { self.root.filesystem.write().clone() };
                (read, write)
            }
        };
        if scoped && let Some(place) = self.sources.0.get("filesystem").or(rules.closed.as_ref()).cloned() {
            let what = "permissions: rules with paths leave the rest to a question, and paths are not asked about here, so the rest is closed";
            self.import.note(&place, Kind::Narrowed, what);
        }
        Some(FsGrant::new(read, write, std::mem::take(&mut self.deny)))
    }

    fn domains(&mut self) -> Option<Domains> {
        let closed = !self.hosts.is_empty() && !self.any_host;
        if !closed && self.not_hosts.is_empty() {
            return None;
        }
        let held = self.root.domains.patterns();
        let mut left = match closed {
            true => Domains::parse(self.hosts.iter().map(String::as_str)).unwrap_or_default().meet(&self.root.domains),
            false => Domains::parse(held.iter().map(String::as_str)).unwrap_or_default(),
        };
        if closed && let Some(place) = self.sources.0.get("domains").cloned() {
            let what =
                "permissions: WebFetch rules name domains, and domains hold every server here, so no other is reached";
            self.import.note(&place, Kind::Narrowed, what);
        }
        for denied in &self.not_hosts {
            let patterns = left.patterns();
            let kept = patterns.iter().filter(|p| !overlaps(p, denied)).map(String::as_str);
            left = Domains::parse(kept).unwrap_or_default();
        }
        Some(left)
    }
}

/// Whether a pattern and a set have a host in common.
fn overlaps(pattern: &str, set: &Domains) -> bool {
    Domains::parse([pattern]).is_ok_and(|p| !p.meet(set).is_empty())
}
