//! What two policies differ in: who got wider, who narrower, and where it stands.
//!
//! Effective grants are compared, not texts: the root's, every caller's at the door, and for
//! every agent what it may do and what it may give, as the two equations say. Servers, models and
//! the door are compared by what they mean for whoever uses them. What cannot be compared (another
//! command, another address) counts as both wider and narrower.

mod doors;
mod grants;
mod servers;

use crate::place::Place;
use crate::resolve::Policy;
use std::fmt;
use std::path::Path;

/// Which way something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// More may happen than before.
    Wider,
    /// Something else may happen: more in one respect, less in another.
    Other,
    /// Less may happen than before.
    Narrower,
    /// Neither.
    Neutral,
}

impl Way {
    /// From whether there is something new, and something that is no more.
    fn of(gained: bool, lost: bool) -> Option<Way> {
        match (gained, lost) {
            (true, true) => Some(Way::Other),
            (true, false) => Some(Way::Wider),
            (false, true) => Some(Way::Narrower),
            (false, false) => None,
        }
    }
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Way::Wider => "wider",
            Way::Other => "wider and narrower",
            Way::Narrower => "narrower",
            Way::Neutral => "changed",
        }
    }
    /// Whether more may happen than before in any respect.
    pub fn is_wider(self) -> bool {
        matches!(self, Way::Wider | Way::Other)
    }
}

/// One thing that is different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which way.
    pub way: Way,
    /// Who or what: `client ci`, `agent researcher`, `server git`.
    pub who: String,
    /// The component or key: `filesystem`, `command`; `itself` for what is new or gone.
    pub what: String,
    /// A sentence, without its subject.
    pub says: String,
    /// Where it stood.
    pub before: Option<Place>,
    /// Where it stands.
    pub after: Option<Place>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.way.as_str(), self.who, self.says)?;
        match (&self.before, &self.after) {
            (_, Some(at)) => write!(f, " ({at})"),
            (Some(at), None) => write!(f, " (was {at})"),
            (None, None) => Ok(()),
        }
    }
}

/// Whether anybody got wider.
pub fn is_wider(changes: &[Change]) -> bool {
    changes.iter().any(|c| c.way.is_wider())
}

/// Everything that differs, wider first. Paths are shown relative to `folder`.
pub fn diff(old: &Policy, new: &Policy, folder: &Path) -> Vec<Change> {
    let mut all = Vec::new();
    grants::root(old, new, folder, &mut all);
    doors::callers(old, new, folder, &mut all);
    grants::agents(old, new, folder, &mut all);
    servers::servers(old, new, folder, &mut all);
    doors::models(old, new, &mut all);
    doors::gateway(old, new, &mut all);
    all.sort_by_key(|c| c.way);
    all
}

/// Where something stood and stands.
type Places = (Option<Place>, Option<Place>);

/// Collects the changes of one subject.
struct About<'a> {
    who: String,
    out: &'a mut Vec<Change>,
}

impl About<'_> {
    fn note(&mut self, way: Way, what: &str, says: String, (before, after): Places) {
        self.out.push(Change { way, who: self.who.clone(), what: what.to_owned(), says, before, after });
    }
}
