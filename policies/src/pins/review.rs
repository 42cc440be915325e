//! What `pleach pin` would do to one server, as a value: shown first, then done.

use super::{Change, Held, PinnedServer, PinnedTool, Why, changes, sift};
use crate::json::Json;
use crate::manifest::{Hidden, Tool, first_hidden};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How a tool stands to the lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// As it was pinned.
    Same,
    /// Not pinned yet.
    New,
    /// Pinned under another name.
    Renamed(String),
    /// Not as it was pinned.
    Changed(Vec<Change>),
    /// Pinned, and not listed now.
    Gone,
}

impl State {
    /// The word in reports.
    pub fn as_str(&self) -> &'static str {
        match self {
            State::Same => "pinned",
            State::New => "new",
            State::Renamed(_) => "renamed",
            State::Changed(_) => "changed",
            State::Gone => "gone",
        }
    }
}

/// One tool of a server, by the server's name for it.
#[derive(Debug, Clone)]
pub struct Item {
    /// The server's own name for it.
    pub upstream: String,
    /// How it stands.
    pub state: State,
    /// Hidden characters of its definition.
    pub hidden: Vec<Hidden>,
    /// The tool, unless it is gone.
    pub tool: Option<Arc<Tool>>,
    /// Whether it will stand in the lock file as it is now.
    pub taken: bool,
}

/// What whoever pins agrees to.
#[derive(Debug, Clone, Default)]
pub struct Take {
    /// What is not as it was pinned (`--update`). What is new is taken by pinning.
    pub changed: bool,
    /// Tools with hidden characters, by their outside name (`--accept`).
    pub accept: BTreeSet<String>,
}

/// All of one server.
#[derive(Debug, Clone)]
pub struct Review {
    /// Its tools, by their own names.
    pub items: Vec<Item>,
    /// How what it says of itself differs.
    pub instructions: Option<Change>,
    /// Whether that is taken.
    pub instructions_taken: bool,
    /// What the lock file will hold of it.
    pub pinned: PinnedServer,
}

impl Review {
    /// Whether something stays held.
    pub fn holds_back(&self) -> bool {
        let held = |item: &Item| !item.taken && item.state != State::Gone;
        self.items.iter().any(held) || (self.instructions.is_some() && !self.instructions_taken)
    }
}

/// Looks at what a server listed against what was pinned of it.
pub fn review(
    before: Option<&PinnedServer>,
    identity: Json,
    said: Option<&str>,
    tools: Vec<Tool>,
    take: &Take,
) -> Review {
    let nothing = PinnedServer { identity: identity.clone(), instructions: None, tools: BTreeMap::new() };
    let known = before.unwrap_or(&nothing);
    let listed: BTreeSet<String> = tools.iter().map(|t| t.upstream.clone()).collect();
    let (same, held) = sift(Some(known), tools);
    let same = same.into_iter().map(|tool| Item {
        upstream: tool.upstream.clone(),
        state: State::Same,
        hidden: Vec::new(),
        tool: Some(Arc::new(tool)),
        taken: true,
    });
    let mut items: Vec<Item> = same.chain(held.into_iter().map(|held| item(held, take))).collect();
    let gone = known.tools.keys().filter(|name| !listed.contains(*name));
    items.extend(gone.map(|name| Item {
        upstream: name.clone(),
        state: State::Gone,
        hidden: Vec::new(),
        tool: None,
        taken: take.changed,
    }));
    items.sort_by(|a, b| a.upstream.cmp(&b.upstream));
    let mut pinned = PinnedServer { identity, instructions: known.instructions.clone(), tools: known.tools.clone() };
    for item in items.iter().filter(|item| item.taken) {
        match (&item.state, &item.tool) {
            (State::Gone, _) => drop(pinned.tools.remove(&item.upstream)),
            (_, Some(tool)) => {
                if let State::Renamed(from) = &item.state {
                    pinned.tools.remove(from);
                }
                pinned.tools.insert(tool.upstream.clone(), PinnedTool::new(Json::Object(tool.definition.clone())));
            }
            _ => {}
        }
    }
    let (instructions, instructions_taken) = words(before, said, take);
    if instructions_taken {
        pinned.instructions = said.map(str::to_owned);
    }
    Review { items, instructions, instructions_taken, pinned }
}

fn item(held: Held, take: &Take) -> Item {
    let state = match held.why {
        Why::Hidden | Why::New => State::New,
        Why::Renamed(from) => State::Renamed(from),
        Why::Changed(changes) => State::Changed(changes),
    };
    // Accepting one tool by name is agreeing to all of it.
    let accepted = take.accept.contains(&held.tool.name);
    let agreed = state == State::New || take.changed;
    let taken = accepted || (agreed && held.hidden.is_empty());
    Item { upstream: held.tool.upstream.clone(), state, hidden: held.hidden, tool: Some(held.tool), taken }
}

/// How what a server says of itself differs, and whether that is agreed to.
fn words(before: Option<&PinnedServer>, said: Option<&str>, take: &Take) -> (Option<Change>, bool) {
    let was = before.and_then(|b| b.instructions.as_deref());
    if was == said {
        return (None, true);
    }
    let text = |text: Option<&str>| text.map_or(Json::Null, Json::from);
    let mut change = changes(&text(was), &text(said));
    let change = change.pop().map(|c| Change {
        pointer: "/instructions".into(),
        before: c.before.filter(|b| *b != Json::Null),
        after: c.after.filter(|a| *a != Json::Null),
    });
    let agreed = before.is_none() || take.changed || said.is_none();
    // Nobody accepts what hides: there is no name to accept it by, and nothing is lost without it.
    (change, agreed && said.is_none_or(|s| first_hidden(s).is_none()))
}
