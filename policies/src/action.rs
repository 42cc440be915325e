//! What somebody wants to do, in the values the decision is taken on.

use crate::domain::Host;
use crate::fs::FileOp;
use crate::json::{Json, Object};
use crate::manifest::Tool;
use crate::names::Name;
use crate::permission::Access;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// A tool call: the tool as imported, the arguments as parsed, and what they touch.
#[derive(Debug)]
pub struct Call {
    /// The tool.
    pub tool: Arc<Tool>,
    /// The arguments. What is judged is what is forwarded.
    pub arguments: Json,
    /// The paths and hosts among them, resolved by whoever can see the filesystem.
    pub touches: Vec<Touch>,
}

/// One path or host among the arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// The JSON pointer of the argument.
    pub pointer: String,
    /// The argument as it was written.
    pub written: String,
    /// What it means.
    pub what: Touched,
}

/// What an argument means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// A path, canonical.
    Path(FileOp, PathBuf),
    /// A host and port.
    Host(Host, u16),
    /// Something that could not be made sense of; denies, with the reason.
    Unclear(String),
}

/// A call of one of the runtime's own tools (`Agent`, …).
#[derive(Debug)]
pub struct RuntimeCall {
    /// The tool's name.
    pub tool: &'static str,
}

/// Something a server is asked besides a tool call: a resource, a prompt, a completion.
#[derive(Debug)]
pub struct Fetch {
    /// The server.
    pub server: Name,
    /// The name the tool rules are asked under: `server__resources/read`,
    /// `server__prompts/NAME`.
    pub rule: String,
    /// The MCP method.
    pub method: &'static str,
    /// Its parameters, in the server's own names. What is judged is what is forwarded.
    pub params: Object,
    /// The paths and hosts among them.
    pub touches: Vec<Touch>,
}

/// Something a server asks of whoever called it: `server__elicitation/create`.
#[derive(Debug)]
pub struct Inquiry {
    /// The name the tool rules are asked under.
    pub rule: String,
}

/// A connection to the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// The canonical host.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// Addresses that may be dialled though [`crate::domain::screen`] would refuse them.
    pub(crate) networks: crate::domain::Networks,
}

impl Connect {
    /// Judges the addresses the host resolved to. Either all may be dialled or none: a name
    /// that mixes public and private answers is refused.
    ///
    /// # Errors
    /// The first address that may not be dialled.
    pub fn judge(&self, addresses: &[IpAddr]) -> Result<Vec<SocketAddr>, String> {
        if addresses.is_empty() {
            return Err(format!("{} has no address", self.host));
        }
        for address in addresses {
            if !self.networks.allows(*address)
                && let Err(screened) = crate::domain::screen(*address)
            {
                return Err(format!("{} resolves to {screened}, and no network rule grants it", self.host));
            }
        }
        Ok(addresses.iter().map(|a| SocketAddr::new(*a, self.port)).collect())
    }
}
impl fmt::Display for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A model call.
#[derive(Debug)]
pub struct Complete {
    /// The model's name in the policy file.
    pub model: Name,
}

/// A spawn: the agent, and where in the tree it would stand.
#[derive(Debug)]
pub struct Spawn {
    /// Which agent.
    pub agent: Name,
    /// How deep the child would lie; the root run lies at 0.
    pub depth: u32,
}

/// What the decision on a spawn needs to know of the tree.
#[derive(Debug, Clone, Copy)]
pub struct TreeFacts {
    /// The depth of the run that asks.
    pub depth: u32,
    /// Runs the tree had so far, the root included.
    pub total: u32,
}

/// What it would mean to make a tool call again when nobody knows whether it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing: it changes nothing.
    Pure,
    /// Nothing, as long as it carries the same key.
    Idempotent,
    /// It must not be repeated unseen, but another tool can tell whether it happened.
    Verifiable,
    /// It must not be repeated.
    Once,
}

impl Effect {
    /// All classes, most harmless first.
    pub const ALL: [Effect; 4] = [Effect::Pure, Effect::Idempotent, Effect::Verifiable, Effect::Once];
    /// The word in the policy file and in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Pure => "pure",
            Effect::Idempotent => "idempotent",
            Effect::Verifiable => "verifiable",
            Effect::Once => "once",
        }
    }
    /// Reads the word.
    pub fn from_word(word: &str) -> Option<Effect> {
        Effect::ALL.into_iter().find(|e| e.as_str() == word)
    }
    /// The class of a tool nobody gave one: reading can be repeated, anything else cannot.
    pub fn of_access(access: Access) -> Effect {
        match access {
            Access::ReadOnly => Effect::Pure,
            Access::ReadWrite | Access::Destructive => Effect::Once,
        }
    }
}
