//! Who may do what, and who said so: a grant together with the chain of tables it came from.
//!
//! The two equations of the design live here and nowhere else. For a run *c* spawned by *p* as
//! agent *A* with a request *r*:
//!
//! ```text
//! use(c)      = delegate(p) ⊓ policy(A) ⊓ r
//! delegate(c) = delegate(p) ⊓ r ⊓ D      D = policy(A) with the components of subagent_policy
//!                                            in place of its own; without that table,
//!                                            delegate(c) = use(c)
//! root run:     delegate(p) = root grant ⊓ client
//! ```
//!
//! Every path that creates or continues a run goes through [`Authority::root`] and
//! [`RunAuthority::spawn`]. An [`Authority`] cannot be built from a bare grant.

use crate::grant::{Component, Grant, Narrowing};
use crate::place::Place;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where the rules of one table stand, by key: a component (`tools`), a list entry
/// (`tools.allow:files__*`) or a scalar (`max_access`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources(pub BTreeMap<String, Place>);

impl Sources {
    /// The place of `key`, else of its component.
    pub fn place(&self, key: &str) -> Option<&Place> {
        let component = key.split(['.', ':']).next().unwrap_or(key);
        self.0.get(key).or_else(|| self.0.get(component))
    }
}

/// One table in a chain: an ancestor's, the agent's own, or a spawn request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Who speaks: `root policy`, `client ci`, `agent researcher`, `request of coordinator`.
    pub who: Arc<str>,
    /// What the table asks for.
    pub asks: Arc<Narrowing>,
    /// Where its rules stand.
    pub sources: Arc<Sources>,
}

impl Link {
    /// A link without places, for requests.
    pub fn request(who: &str, asks: Narrowing) -> Self {
        Self { who: format!("request of {who}").into(), asks: Arc::new(asks), sources: Arc::default() }
    }
}

/// A grant with its chain. The grant is the meet of the chain, always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    base: Arc<Grant>,
    root: Arc<Sources>,
    links: Vec<Link>,
    grant: Arc<Grant>,
}

impl Authority {
    /// The authority of a door: the root grant, met with the client's table if there is one.
    pub fn root(grant: Arc<Grant>, sources: Arc<Sources>, client: Option<Link>) -> Self {
        let mut authority = Self { base: grant.clone(), root: sources, links: Vec::new(), grant };
        if let Some(link) = client {
            authority = authority.narrowed(link);
        }
        authority
    }
    /// This authority met with one more table. It only ever takes away.
    pub fn narrowed(&self, link: Link) -> Self {
        let grant = Arc::new(self.grant.narrow(&link.asks));
        let mut links = self.links.clone();
        links.push(link);
        Self { base: self.base.clone(), root: self.root.clone(), links, grant }
    }
    /// The grant.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }
    /// The first ancestor, from the root down, whose own table refuses, as judged by `allows`
    /// on what that table leaves of the grant above it; with where its rules stand.
    pub(crate) fn refuser(&self, allows: impl Fn(&Grant) -> bool) -> Ancestor<'_> {
        if !allows(&self.base) {
            return Ancestor { who: "root policy", sources: &self.root, asked: Cow::Borrowed(&self.base) };
        }
        let mut grant = (*self.base).clone();
        for link in &self.links {
            let asked = grant.asked(&link.asks);
            if !allows(&asked) {
                return Ancestor { who: &link.who, sources: &link.sources, asked: Cow::Owned(asked) };
            }
            grant = grant.meet(&asked);
        }
        // allows(p ⊓ q) is allows(p) && allows(q), so a refusal always has a refuser; this is
        // the honest answer if that law were ever broken.
        Ancestor { who: "the whole chain", sources: &self.root, asked: Cow::Owned(grant) }
    }
    /// The table nearest the leaf that names tools at all.
    pub(crate) fn last_with_tools(&self) -> Ancestor<'_> {
        match self.links.iter().rev().find(|l| l.asks.tools.is_some()) {
            Some(link) => {
                let asked = Cow::Owned(self.base.asked(&link.asks));
                Ancestor { who: &link.who, sources: &link.sources, asked }
            }
            None => Ancestor { who: "root policy", sources: &self.root, asked: Cow::Borrowed(&self.base) },
        }
    }
    /// The names of the chain, root first.
    pub fn chain(&self) -> Vec<&str> {
        std::iter::once("root policy").chain(self.links.iter().map(|l| &*l.who)).collect()
    }
}

/// Who refused: part of every denial.
pub(crate) struct Ancestor<'a> {
    pub(crate) who: &'a str,
    pub(crate) sources: &'a Sources,
    /// What that table alone leaves.
    pub(crate) asked: Cow<'a, Grant>,
}

/// What a run may do, and what it may give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAuthority {
    /// What the run itself may do.
    pub use_: Authority,
    /// The ceiling of what its children may be given.
    pub delegate: Authority,
}

/// The policy side of an agent's definition, as the equations need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPolicy {
    /// `agent NAME`
    pub who: Arc<str>,
    /// `[agents.NAME.policy]`
    pub policy: Arc<Narrowing>,
    /// `[agents.NAME.subagent_policy]`
    pub subagent_policy: Option<Arc<Narrowing>>,
    /// Where both stand.
    pub sources: Arc<Sources>,
    /// Where the second stands.
    pub subagent_sources: Arc<Sources>,
}

/// A spawn request asks for more than its parent may give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooWide {
    /// The components asked too widely.
    pub components: Vec<Component>,
}

impl RunAuthority {
    /// The authority of a run of `agent`, spawned under `parent` (the parent's `delegate`) with
    /// `request`. At a root run the parent is the door's authority and the request is empty.
    ///
    /// # Errors
    /// When the request itself is not within what the parent may give. A *file table* that asks
    /// for too much is met in silence here; `check` warns about it.
    pub fn spawn(parent: &Authority, agent: &AgentPolicy, request: Option<Link>) -> Result<Self, TooWide> {
        if let Some(link) = &request {
            let components = parent.grant.asked(&link.asks).exceeds(&parent.grant);
            if !components.is_empty() {
                return Err(TooWide { components });
            }
        }
        let link = |asks: Arc<Narrowing>, sources: &Arc<Sources>| Link {
            who: agent.who.clone(),
            asks,
            sources: sources.clone(),
        };
        let own = parent.narrowed(link(agent.policy.clone(), &agent.sources));
        let use_ = match &request {
            Some(r) => own.narrowed(r.clone()),
            None => own,
        };
        let delegate = match &agent.subagent_policy {
            None => use_.clone(),
            Some(over) => {
                let below = match request {
                    Some(r) => parent.narrowed(r),
                    None => parent.clone(),
                };
                let d = Arc::new(agent.policy.replaced_by(over));
                let mut sources = (*agent.sources).clone();
                let component = |key: &str| key.split(['.', ':']).next().unwrap_or(key).to_owned();
                let replaced: BTreeSet<String> = agent.subagent_sources.0.keys().map(|k| component(k)).collect();
                sources.0.retain(|key, _| !replaced.contains(&component(key)));
                sources.0.extend(agent.subagent_sources.0.clone());
                below.narrowed(Link { who: agent.who.clone(), asks: d, sources: Arc::new(sources) })
            }
        };
        Ok(Self { use_, delegate })
    }
}
