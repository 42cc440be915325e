//! Tool rules: `allow`, `ask` and `deny` patterns over tool names.
//!
//! One table of the policy file is a [`Layer`]. In a layer deny beats ask beats allow, and a
//! name nothing matches is denied. A [`ToolRules`] is a *set* of layers that must all agree:
//! the verdict is the least of theirs. So `meet` is the union of the sets, and globs, which
//! are not closed under intersection as text, need not be.

mod glob;
mod order;

pub use glob::{Glob, GlobError};

use glob::Matcher;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the rules say about a tool. The order is the lattice's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Refused.
    Deny,
    /// Needs a person.
    Ask,
    /// Granted.
    Allow,
}

/// The rules of one table.
#[derive(Debug, Clone)]
pub struct Layer {
    lists: [BTreeSet<Glob>; 3],
    /// About a server's tool that no pattern matches.
    otherwise: Mode,
    matchers: [Matcher; 3],
}

impl Layer {
    /// A layer from its three lists.
    pub fn new(
        allow: impl IntoIterator<Item = Glob>,
        ask: impl IntoIterator<Item = Glob>,
        deny: impl IntoIterator<Item = Glob>,
    ) -> Self {
        let lists: [BTreeSet<Glob>; 3] =
            [deny.into_iter().collect(), ask.into_iter().collect(), allow.into_iter().collect()];
        let matchers = [Matcher::new(&lists[0]), Matcher::new(&lists[1]), Matcher::new(&lists[2])];
        Self { lists, otherwise: Mode::Deny, matchers }
    }
    /// The same with another word about a server's tool that nothing matches: imported rules may
    /// leave the rest to a person, or to the policy file.
    pub fn otherwise(self, otherwise: Mode) -> Self {
        Self { otherwise, ..self }
    }
    /// What is said about a server's tool that nothing matches.
    pub fn rest(&self) -> Mode {
        self.otherwise
    }
    /// The patterns of one list.
    pub fn list(&self, mode: Mode) -> &BTreeSet<Glob> {
        &self.lists[mode as usize]
    }
    /// What this layer alone says about a server's tool.
    pub fn mode(&self, tool: &str) -> Mode {
        self.explicit(tool).unwrap_or(self.otherwise)
    }
    /// What it says about a tool of the runtime (`Agent`, `ask_user`): these need no allow.
    pub fn runtime_mode(&self, tool: &str) -> Mode {
        self.explicit(tool).unwrap_or(Mode::Allow)
    }
    /// The rule that decides about `tool`, if one matches.
    pub fn rule(&self, tool: &str) -> Option<(Mode, String)> {
        let found = |mode: Mode| self.matchers[mode as usize].find(tool).map(|pattern| (mode, pattern));
        let rest = || (self.otherwise != Mode::Deny).then(|| (self.otherwise, "*".to_owned()));
        [Mode::Deny, Mode::Ask, Mode::Allow].into_iter().find_map(found).or_else(rest)
    }
    fn explicit(&self, tool: &str) -> Option<Mode> {
        [Mode::Deny, Mode::Ask, Mode::Allow].into_iter().find(|m| self.matchers[*m as usize].matches(tool))
    }
}

// The matchers are derived from the lists, so they take no part in identity.
impl PartialEq for Layer {
    fn eq(&self, other: &Self) -> bool {
        (&self.lists, self.otherwise) == (&other.lists, other.otherwise)
    }
}
impl Eq for Layer {}
impl PartialOrd for Layer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Layer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.lists, self.otherwise).cmp(&(&other.lists, other.otherwise))
    }
}

/// Layers that must all agree. No layer at all allows everything (the top).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolRules(BTreeSet<Arc<Layer>>);

impl ToolRules {
    /// The rules of a single layer.
    pub fn of(layer: Layer) -> Self {
        Self(BTreeSet::from([Arc::new(layer)]))
    }
    /// What all layers together say about a server's tool.
    pub fn mode(&self, tool: &str) -> Mode {
        self.0.iter().map(|layer| layer.mode(tool)).min().unwrap_or(Mode::Allow)
    }
    /// What they say about a tool of the runtime.
    pub fn runtime_mode(&self, tool: &str) -> Mode {
        self.0.iter().map(|layer| layer.runtime_mode(tool)).min().unwrap_or(Mode::Allow)
    }
    /// The rules under which a tool passes only if it passes both.
    pub fn meet(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }
    /// Whether, for every possible name, these rules say no more than `other`'s. Decided on the
    /// patterns, not on the tools known today. Patterns too entangled to decide count as not
    /// within.
    pub fn within(&self, other: &Self) -> bool {
        self.0.is_superset(&other.0) || order::within(self, other)
    }
    /// Whether some name that begins with `start` could pass every layer, going by the patterns'
    /// beginnings alone.
    pub fn may_cover(&self, start: &str) -> bool {
        let could = |glob: &Glob| {
            let literal = glob.as_str().split('*').next().unwrap_or("");
            literal.starts_with(start) || (start.starts_with(literal) && glob.as_str().contains('*'))
        };
        let names = |layer: &Layer| [Mode::Ask, Mode::Allow].into_iter().any(|mode| layer.list(mode).iter().any(could));
        self.0.iter().all(|layer| layer.otherwise != Mode::Deny || names(layer))
    }
    /// The layers.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.0.iter().map(Arc::as_ref)
    }
}
