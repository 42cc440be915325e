//! Pins: what was approved of each server, and what becomes of what is otherwise.
//!
//! A lock file beside the policy file holds, per server, who it is (command, arguments, names of
//! its environment, or its address: as the policy file writes them, so that no secret and no
//! machine stands in it), what it says of itself, and each tool's whole definition with the
//! SHA-256 of its canonical form.
//!
//! ```text
//!                     no lock file ─▶ as it comes (hidden characters are held all the same)
//!   server ── lock ──┬─ not in it, or another command or url ─▶ held: neither started nor dialled
//!                    └─ as pinned ─▶ its tools, each on its own:
//!                         same hash ─▶ used     changed · renamed · new ─▶ quarantined
//!                         (gone, or in another order: no matter)
//! ```
//!
//! Quarantined means not listed and not called; the server's other tools are used. Prompts and
//! resources are not pinned: what a model reads of them is made when they are fetched, and no
//! definition says what that will be. Their hidden characters are refused where they are read.

mod diff;
mod lock;
mod review;

pub use diff::{Change, changes};
pub use review::{Item, Review, State, Take, review};

use crate::file::FileError;
use crate::json::{Json, digest};
use crate::manifest::{Hidden, Tool, first_hidden, hidden_in};
use crate::names::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a lock file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pins {
    /// By server.
    pub servers: BTreeMap<Name, Arc<PinnedServer>>,
}

/// What was approved of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedServer {
    /// Who it is: see [`crate::resolve::ServerSpec::identity`].
    pub identity: Json,
    /// What it said to whoever uses it.
    pub instructions: Option<String>,
    /// By its own name for them.
    pub tools: BTreeMap<String, PinnedTool>,
}

/// A tool that was approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedTool {
    /// Its definition.
    pub definition: Json,
    /// SHA-256 of the canonical definition, hexadecimal.
    pub hash: String,
}

impl PinnedTool {
    /// From a definition.
    pub fn new(definition: Json) -> Self {
        Self { hash: digest(&definition.to_canonical()), definition }
    }
}

impl Pins {
    /// Reads a lock file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(file: &Arc<str>, source: &str) -> Result<Self, FileError> {
        lock::read(file, source)
    }
    /// The lock file's text.
    pub fn write(&self) -> String {
        lock::write(self)
    }
    /// Why a server may not run: it is not in the lock file, or it is another than the one that is.
    pub fn refuses(&self, name: &Name, identity: &Json) -> Option<String> {
        let Some(pinned) = self.servers.get(name) else {
            return Some(format!(
                "it is not in the lock file, so it is neither started nor dialled; `pleach pin {name}` shows it and \
                 approves it"
            ));
        };
        let changes = changes(&pinned.identity, identity);
        let parts: BTreeSet<&str> = changes.iter().map(Change::part).collect();
        let parts = parts.into_iter().collect::<Vec<_>>().join(", ");
        (!changes.is_empty()).then(|| {
            format!(
                "its {parts} changed since it was pinned, so it is neither started nor dialled; `pleach pin {name}` \
                 shows the difference, `pleach pin --update {name}` approves it"
            )
        })
    }
}

/// Why a tool is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It is not pinned, and holds characters nobody sees.
    Hidden,
    /// It is not in the lock file.
    New,
    /// It is a pinned tool that is listed no more, but for the name.
    Renamed(String),
    /// It is not what was pinned.
    Changed(Vec<Change>),
}

/// A tool in quarantine.
#[derive(Debug, Clone)]
pub struct Held {
    /// The tool.
    pub tool: Arc<Tool>,
    /// Why.
    pub why: Why,
    /// Where its definition holds hidden characters.
    pub hidden: Vec<Hidden>,
}

impl Held {
    /// Why, without a word of the server's: a model reads it.
    pub fn reason(&self) -> String {
        let why = match &self.why {
            Why::Hidden => "its definition holds hidden characters".to_owned(),
            Why::New => "it is not in the lock file".to_owned(),
            Why::Renamed(_) => "a pinned tool came back under this name".to_owned(),
            Why::Changed(changes) => format!("its {} changed since it was pinned", parts(changes)),
        };
        let more = !self.hidden.is_empty() && self.why != Why::Hidden;
        let more = if more { ", and its definition holds hidden characters" } else { "" };
        format!("{} is quarantined: {why}{more}", self.tool.name)
    }
    /// What a person does about it.
    pub fn fix(&self) -> String {
        let (name, server) = (&self.tool.name, &self.tool.server);
        let first = self.hidden.first().map(|h| format!("{h}: ")).unwrap_or_default();
        match &self.why {
            _ if !self.hidden.is_empty() => {
                format!("{first}`pleach pin {server}` spells it out, `pleach pin --accept {name}` approves it as it is")
            }
            Why::New | Why::Hidden => format!("`pleach pin {server}` shows and approves it"),
            Why::Renamed(from) => {
                format!("it was {from:?}; `pleach pin --update {server}` approves the new name")
            }
            Why::Changed(_) => {
                format!("`pleach pin {server}` shows the difference, `pleach pin --update {server}` approves it")
            }
        }
    }
}

/// The parts of a definition that changed. Names that a server made up are not repeated.
fn parts(changes: &[Change]) -> String {
    const KNOWN: [&str; 9] =
        ["name", "title", "description", "inputSchema", "outputSchema", "annotations", "execution", "icons", "_meta"];
    let parts: BTreeSet<&str> =
        changes.iter().map(|c| KNOWN.into_iter().find(|k| *k == c.part()).unwrap_or("definition")).collect();
    parts.into_iter().collect::<Vec<_>>().join(", ")
}

/// Tells the tools that are used from those that are not. `None` is no lock file.
pub fn sift(pinned: Option<&PinnedServer>, tools: Vec<Tool>) -> (Vec<Tool>, Vec<Held>) {
    let listed: BTreeSet<String> = tools.iter().map(|t| t.upstream.clone()).collect();
    let (mut used, mut held) = (Vec::with_capacity(tools.len()), Vec::new());
    let gone = pinned.map(|pinned| nameless_of_gone(pinned, &listed)).unwrap_or_default();
    for tool in tools {
        let definition = Json::Object(tool.definition.clone());
        let why = match pinned {
            None => None,
            Some(pinned) => match pinned.tools.get(&tool.upstream) {
                // Whoever pinned it has seen it, hidden characters and all.
                Some(known) if known.hash == tool.hash => {
                    used.push(tool);
                    continue;
                }
                Some(known) => Some(Why::Changed(changes(&known.definition, &definition))),
                None => Some(gone.get(&nameless(&definition)).map_or(Why::New, |from| Why::Renamed(from.clone()))),
            },
        };
        let hidden = hidden_in(&definition);
        match why.or((!hidden.is_empty()).then_some(Why::Hidden)) {
            None => used.push(tool),
            Some(why) => held.push(Held { tool: Arc::new(tool), why, hidden }),
        }
    }
    (used, held)
}

/// Pinned tools that are not listed, by the hash of all but their names.
fn nameless_of_gone(pinned: &PinnedServer, listed: &BTreeSet<String>) -> BTreeMap<String, String> {
    let gone = pinned.tools.iter().filter(|(name, _)| !listed.contains(*name));
    gone.map(|(name, tool)| (nameless(&tool.definition), name.clone())).collect()
}

fn nameless(definition: &Json) -> String {
    let mut definition = definition.clone();
    if let Some(object) = definition.as_object_mut() {
        object.remove("name");
    }
    digest(&definition.to_canonical())
}

/// What a server says to whoever uses it, if it may be repeated; else why not.
///
/// # Errors
/// Why it is withheld.
pub fn instructions(pinned: Option<&PinnedServer>, said: Option<&str>) -> Result<(), &'static str> {
    match (pinned, said) {
        (Some(pinned), Some(said)) if pinned.instructions.as_deref() == Some(said) => Ok(()),
        (_, Some(said)) if first_hidden(said).is_some() => Err("its instructions hold hidden characters"),
        (Some(_), Some(_)) => Err("its instructions are not those that were pinned"),
        _ => Ok(()),
    }
}
