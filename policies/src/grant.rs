//! The lattice. A [`Grant`] is a product of independent components, each with a decidable order
//! and a closed intersection; [`Grant::meet`] and [`Grant::within`] work component by component.
//!
//! A [`Narrowing`] is what a table of the policy file or a spawn request asks for: the
//! components it names. Applied to a grant it can only take away.

use crate::domain::{Domains, Networks};
use crate::fs::FsGrant;
use crate::names::Name;
use crate::permission::Access;
use crate::tools::ToolRules;
use std::collections::BTreeSet;
use std::fmt;

/// Everything, or only those named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// No restriction.
    All,
    /// Only these.
    Only(BTreeSet<Name>),
}

impl Names {
    /// Whether `name` is in the set.
    pub fn allows(&self, name: &str) -> bool {
        match self {
            Names::All => true,
            Names::Only(set) => set.contains(name),
        }
    }
    /// The intersection.
    pub fn meet(&self, other: &Self) -> Self {
        match (self, other) {
            (Names::All, x) | (x, Names::All) => x.clone(),
            (Names::Only(a), Names::Only(b)) => Names::Only(a.intersection(b).cloned().collect()),
        }
    }
    /// Whether all of these are there.
    pub fn within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Names::All) => true,
            (Names::All, Names::Only(_)) => false,
            (Names::Only(a), Names::Only(b)) => a.is_subset(b),
        }
    }
}

/// Limits of the tree beneath a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpawnLimits {
    /// How deep a run may lie; the root run lies at 0.
    pub max_depth: u32,
    /// Children of one run alive at a time.
    pub max_concurrent: u32,
    /// Runs of one tree over its whole life.
    pub max_total: u32,
}

impl SpawnLimits {
    /// What an absent `[policy.spawn]` means.
    pub const DEFAULT: Self = Self { max_depth: 3, max_concurrent: 8, max_total: 50 };
    /// No limit named, for tables that name only some.
    pub const UNNAMED: Self = Self { max_depth: u32::MAX, max_concurrent: u32::MAX, max_total: u32::MAX };
    /// The lesser of each.
    pub fn meet(self, other: Self) -> Self {
        Self {
            max_depth: self.max_depth.min(other.max_depth),
            max_concurrent: self.max_concurrent.min(other.max_concurrent),
            max_total: self.max_total.min(other.max_total),
        }
    }
    /// Whether no limit here is above the other's.
    pub fn within(self, other: Self) -> bool {
        self.meet(other) == self
    }
}

/// A layer the kernel enforces. A grant lists those it *requires*; a child requires at least
/// what its parent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// User, mount, pid, ipc, uts and network namespaces.
    Namespaces,
    /// Landlock, at least ABI 3.
    Landlock,
    /// The system call filter.
    Seccomp,
}

/// A named set of required layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// No kernel layer at all; the gateway's own checks remain.
    Off,
    /// Landlock and seccomp, for hosts that forbid user namespaces.
    NoNamespaces,
    /// Every layer.
    Full,
}

impl Profile {
    /// All profiles, weakest first.
    pub const ALL: [Profile; 3] = [Profile::Off, Profile::NoNamespaces, Profile::Full];
    /// The word in the policy file.
    pub fn as_str(self) -> &'static str {
        match self {
            Profile::Off => "off",
            Profile::NoNamespaces => "no-namespaces",
            Profile::Full => "full",
        }
    }
    /// Reads the word.
    pub fn from_word(word: &str) -> Option<Profile> {
        Profile::ALL.into_iter().find(|p| p.as_str() == word)
    }
    /// The layers it requires. The sets are nested, so their union is the stronger profile.
    pub fn layers(self) -> &'static [Layer] {
        match self {
            Profile::Off => &[],
            Profile::NoNamespaces => &[Layer::Landlock, Layer::Seccomp],
            Profile::Full => &[Layer::Namespaces, Layer::Landlock, Layer::Seccomp],
        }
    }
    /// What is lost against `full`, for people.
    pub fn loses(self) -> &'static [&'static str] {
        match self {
            Profile::Full => &[],
            Profile::NoNamespaces => &[
                "servers share the host's process table and could be seen by, though not signalled from, each other",
                "filesystem.deny beneath a granted folder cannot be held and is refused at start",
                "protected names (.git/hooks, .mcp.json, .claude and their like) inside a writable folder can be written",
                "no network at all: domain rules need the network namespace, so sandboxed processes reach nothing",
                "a server that double-forks may outlive pleach when pleach is killed",
            ],
            Profile::Off => &[
                "files: a server process reads and writes whatever the user running pleach may",
                "network: a server process connects anywhere",
                "processes: a server can signal and trace the user's other processes",
            ],
        }
    }
}
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Files.
    pub filesystem: FsGrant,
    /// Hosts by name.
    pub domains: Domains,
    /// Literal addresses, and private ranges a name may resolve into.
    pub networks: Networks,
    /// The ceiling on access classes.
    pub max_access: Access,
    /// Tools by name.
    pub tools: ToolRules,
    /// Models by name.
    pub models: Names,
    /// Agents that may be started.
    pub agents: Names,
    /// The tree's limits.
    pub spawn: SpawnLimits,
    /// The layers required beneath.
    pub sandbox: Profile,
}

/// A component of a grant, to name in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// `filesystem`
    Filesystem,
    /// `domains`
    Domains,
    /// `networks`
    Networks,
    /// `max_access`
    MaxAccess,
    /// `tools`
    Tools,
    /// `models`
    Models,
    /// `subagents`
    Agents,
    /// `spawn`
    Spawn,
    /// `sandbox`
    Sandbox,
}

impl Component {
    /// The key in the policy file.
    pub fn as_str(self) -> &'static str {
        match self {
            Component::Filesystem => "filesystem",
            Component::Domains => "domains",
            Component::Networks => "networks",
            Component::MaxAccess => "max_access",
            Component::Tools => "tools",
            Component::Models => "models",
            Component::Agents => "subagents",
            Component::Spawn => "spawn",
            Component::Sandbox => "sandbox",
        }
    }
}
impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Grant {
    /// The root grant of a file without a `[policy]` table: nothing.
    pub fn nothing() -> Self {
        Self {
            filesystem: FsGrant::default(),
            domains: Domains::default(),
            networks: Networks::default(),
            max_access: Access::ReadOnly,
            tools: ToolRules::of(crate::tools::Layer::new([], [], [])),
            models: Names::All,
            agents: Names::All,
            spawn: SpawnLimits::DEFAULT,
            sandbox: Profile::Full,
        }
    }
    /// The greatest grant within both.
    pub fn meet(&self, other: &Self) -> Self {
        Self {
            filesystem: self.filesystem.meet(&other.filesystem),
            domains: self.domains.meet(&other.domains),
            networks: self.networks.meet(&other.networks),
            max_access: self.max_access.min(other.max_access),
            tools: self.tools.meet(&other.tools),
            models: self.models.meet(&other.models),
            agents: self.agents.meet(&other.agents),
            spawn: self.spawn.meet(other.spawn),
            sandbox: self.sandbox.max(other.sandbox),
        }
    }
    /// The components in which this grant exceeds `other`; none means within.
    pub fn exceeds(&self, other: &Self) -> Vec<Component> {
        let within = [
            (Component::Filesystem, self.filesystem.within(&other.filesystem)),
            (Component::Domains, self.domains.within(&other.domains)),
            (Component::Networks, self.networks.within(&other.networks)),
            (Component::MaxAccess, self.max_access <= other.max_access),
            (Component::Tools, self.tools.within(&other.tools)),
            (Component::Models, self.models.within(&other.models)),
            (Component::Agents, self.agents.within(&other.agents)),
            (Component::Spawn, self.spawn.within(other.spawn)),
            (Component::Sandbox, self.sandbox >= other.sandbox),
        ];
        within.into_iter().filter(|(_, ok)| !ok).map(|(component, _)| component).collect()
    }
    /// Whether everything granted here is granted there.
    pub fn within(&self, other: &Self) -> bool {
        self.exceeds(other).is_empty()
    }
    /// This grant with the components `narrowing` names replaced by what it names, before any
    /// meet: what the narrowing *asks for* from somebody who holds this grant.
    pub fn asked(&self, narrowing: &Narrowing) -> Grant {
        let mut asked = self.clone();
        let n = narrowing.clone();
        asked.filesystem = n.filesystem.unwrap_or(asked.filesystem);
        asked.domains = n.domains.unwrap_or(asked.domains);
        asked.networks = n.networks.unwrap_or(asked.networks);
        asked.max_access = n.max_access.unwrap_or(asked.max_access);
        asked.tools = n.tools.unwrap_or(asked.tools);
        asked.models = n.models.unwrap_or(asked.models);
        asked.agents = n.agents.unwrap_or(asked.agents);
        // A limit a table does not name is inherited, like a component it does not name.
        let named = n.spawn.unwrap_or(SpawnLimits::UNNAMED);
        let inherit = |named: u32, own: u32| if named == u32::MAX { own } else { named };
        asked.spawn = SpawnLimits {
            max_depth: inherit(named.max_depth, asked.spawn.max_depth),
            max_concurrent: inherit(named.max_concurrent, asked.spawn.max_concurrent),
            max_total: inherit(named.max_total, asked.spawn.max_total),
        };
        asked.sandbox = n.sandbox.unwrap_or(asked.sandbox);
        asked
    }
    /// This grant met with a narrowing; absent components are inherited unchanged.
    pub fn narrow(&self, narrowing: &Narrowing) -> Grant {
        self.meet(&self.asked(narrowing))
    }
}

/// The components a table or a spawn request names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Narrowing {
    /// Files, if named.
    pub filesystem: Option<FsGrant>,
    /// Domains, if named.
    pub domains: Option<Domains>,
    /// Networks, if named.
    pub networks: Option<Networks>,
    /// The ceiling, if named.
    pub max_access: Option<Access>,
    /// Tools, if named.
    pub tools: Option<ToolRules>,
    /// Models, if named.
    pub models: Option<Names>,
    /// Agents, if named.
    pub agents: Option<Names>,
    /// Spawn limits, if named.
    pub spawn: Option<SpawnLimits>,
    /// The sandbox profile, if named.
    pub sandbox: Option<Profile>,
}

impl Narrowing {
    /// This narrowing with the components present in `over` replaced by those: the *D* of the
    /// second equation.
    pub fn replaced_by(&self, over: &Narrowing) -> Narrowing {
        let (mine, over) = (self.clone(), over.clone());
        Narrowing {
            filesystem: over.filesystem.or(mine.filesystem),
            domains: over.domains.or(mine.domains),
            networks: over.networks.or(mine.networks),
            max_access: over.max_access.or(mine.max_access),
            tools: over.tools.or(mine.tools),
            models: over.models.or(mine.models),
            agents: over.agents.or(mine.agents),
            spawn: over.spawn.or(mine.spawn),
            sandbox: over.sandbox.or(mine.sandbox),
        }
    }
}
