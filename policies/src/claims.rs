//! A grant written down, so that it can travel: in a token to another gateway, and in what a door
//! remembers of whoever came with one. Reading is strict: an unknown word is no grant.
//!
//! What is read is a [`Narrowing`], because whoever reads it meets it with what it allows itself.
//! Written by [`write()`] it names every component, so nothing is inherited that was not said.

use crate::domain::{Domains, Networks};
use crate::fs::FsGrant;
use crate::grant::{Grant, Names, Narrowing, Profile, SpawnLimits};
use crate::names::Name;
use crate::permission::Access;
use crate::price::Usd;
use crate::resolve::Limits;
use crate::tools::{Glob, Layer, Mode, ToolRules};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest written grant that is read, bytes.
pub const MAX: usize = 8 * 1024;

/// A grant of nothing.
pub const NOTHING: &str = r#"{"filesystem":{},"domains":[],"networks":[],"max_access":"read-only","tools":[{}],"models":[],"agents":[],"spawn":{"max_depth":0,"max_concurrent":0,"max_total":0},"sandbox":"full"}"#;

/// Why a grant cannot be written, or a text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsError {
    /// A path that no text can hold.
    #[error("{0:?} is not UTF-8, so no grant that names it can travel")]
    Path(PathBuf),
    /// More than [`MAX`].
    #[error("a grant of {0} bytes is too long to travel; name fewer paths, domains and tools")]
    Length(usize),
    /// Not in this form.
    #[error("not a grant: {0}")]
    Form(String),
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filesystem: Option<Files>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domains: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    networks: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_access: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tools: Option<Vec<Rules>>,
    /// No list: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    models: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agents: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spawn: Option<Spawn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sandbox: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    budget: Option<Counted>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    read: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    read_write: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allow: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ask: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deny: Vec<String>,
    /// About what nothing matches; absent: deny.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    otherwise: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spawn {
    #[serde(default = "most", skip_serializing_if = "is_most")]
    max_depth: u32,
    #[serde(default = "most", skip_serializing_if = "is_most")]
    max_concurrent: u32,
    #[serde(default = "most", skip_serializing_if = "is_most")]
    max_total: u32,
}

fn most() -> u32 {
    u32::MAX
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's shape")]
fn is_most(limit: &u32) -> bool {
    *limit == u32::MAX
}

/// Absent: no limit.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counted {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    turns: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_calls: Option<u32>,
    /// Billionths of a dollar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usd: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wall: Option<u64>,
}

/// A grant and its counted limits, as text: JSON on one line.
///
/// # Errors
/// What cannot be said, with what to change.
pub fn write(grant: &Grant, limits: &Limits) -> Result<String, ClaimsError> {
    let paths = |set: &BTreeSet<PathBuf>| set.iter().map(|path| text_of(path)).collect::<Result<Vec<_>, _>>();
    let files = &grant.filesystem;
    let written = Written {
        filesystem: Some(Files {
            read: paths(files.read())?,
            read_write: paths(files.write())?,
            deny: paths(files.deny())?,
        }),
        domains: Some(grant.domains.patterns()),
        networks: Some(grant.networks.blocks().iter().map(ToString::to_string).collect()),
        max_access: Some(grant.max_access.as_str().to_owned()),
        tools: Some(grant.tools.layers().map(rules).collect()),
        models: listed(&grant.models),
        agents: listed(&grant.agents),
        spawn: Some(Spawn {
            max_depth: grant.spawn.max_depth,
            max_concurrent: grant.spawn.max_concurrent,
            max_total: grant.spawn.max_total,
        }),
        sandbox: Some(grant.sandbox.as_str().to_owned()),
        budget: counted(limits),
    };
    let text = serde_json::to_string(&written).map_err(|e| ClaimsError::Form(e.to_string()))?;
    if text.len() > MAX { Err(ClaimsError::Length(text.len())) } else { Ok(text) }
}

/// What [`write()`] wrote, or a person: what it names, and its counted limits.
///
/// # Errors
/// What is no grant. Whatever is not understood is refused as a whole.
pub fn read(text: &str) -> Result<(Narrowing, Limits), ClaimsError> {
    if text.len() > MAX {
        return Err(ClaimsError::Length(text.len()));
    }
    // A list of what it would hold is read as well, unless it is looked at.
    if !text.trim_start().starts_with('{') {
        return Err(ClaimsError::Form("it is no JSON object".into()));
    }
    let written: Written = serde_json::from_str(text).map_err(|e| ClaimsError::Form(e.to_string()))?;
    let limits = written.budget.map_or(Limits::NONE, |budget| Limits {
        turns: budget.turns.unwrap_or(Limits::NONE.turns),
        tool_calls: budget.tool_calls.unwrap_or(Limits::NONE.tool_calls),
        usd: budget.usd.map_or(Limits::NONE.usd, Usd),
        tokens: budget.tokens.unwrap_or(Limits::NONE.tokens),
        wall: budget.wall.map(Duration::from_millis),
    });
    let asks = Narrowing {
        filesystem: written.filesystem.map(files).transpose()?,
        domains: written
            .domains
            .map(|list| Domains::parse(list.iter().map(String::as_str)).map_err(form))
            .transpose()?,
        networks: written.networks.map(networks).transpose()?,
        max_access: written
            .max_access
            .map(|word| Access::from_word(&word).ok_or_else(|| unknown(&word)))
            .transpose()?,
        tools: written.tools.map(tools).transpose()?,
        models: written.models.map(names).transpose()?,
        agents: written.agents.map(names).transpose()?,
        spawn: written.spawn.map(|s| SpawnLimits {
            max_depth: s.max_depth,
            max_concurrent: s.max_concurrent,
            max_total: s.max_total,
        }),
        sandbox: written.sandbox.map(|word| Profile::from_word(&word).ok_or_else(|| unknown(&word))).transpose()?,
    };
    Ok((asks, limits))
}

fn form(e: impl std::fmt::Display) -> ClaimsError {
    ClaimsError::Form(e.to_string())
}
fn unknown(word: &str) -> ClaimsError {
    ClaimsError::Form(format!("{word:?} is unknown here"))
}

fn text_of(path: &Path) -> Result<String, ClaimsError> {
    path.to_str().map(str::to_owned).ok_or_else(|| ClaimsError::Path(path.to_owned()))
}

fn listed(names: &Names) -> Option<Vec<String>> {
    match names {
        Names::All => None,
        Names::Only(set) => Some(set.iter().map(ToString::to_string).collect()),
    }
}

fn names(list: Vec<String>) -> Result<Names, ClaimsError> {
    list.iter().map(|name| Name::try_from(name.as_str()).map_err(form)).collect::<Result<_, _>>().map(Names::Only)
}

const WORDS: [(Mode, &str); 3] = [(Mode::Deny, "deny"), (Mode::Ask, "ask"), (Mode::Allow, "allow")];

fn rules(layer: &Layer) -> Rules {
    let list = |mode| layer.list(mode).iter().map(ToString::to_string).collect();
    let rest = layer.rest();
    let word = WORDS.iter().find(|(mode, _)| *mode == rest && rest != Mode::Deny);
    Rules {
        allow: list(Mode::Allow),
        ask: list(Mode::Ask),
        deny: list(Mode::Deny),
        otherwise: word.map(|(_, word)| (*word).to_owned()),
    }
}

fn tools(layers: Vec<Rules>) -> Result<ToolRules, ClaimsError> {
    let globs = |list: Vec<String>| -> Result<Vec<Glob>, ClaimsError> {
        list.iter().map(|text| Glob::try_from(text.as_str()).map_err(form)).collect()
    };
    layers.into_iter().try_fold(ToolRules::default(), |all, layer| {
        let rest = match layer.otherwise {
            None => Mode::Deny,
            Some(word) => WORDS.iter().find(|(_, known)| *known == word).ok_or_else(|| unknown(&word))?.0,
        };
        let layer = Layer::new(globs(layer.allow)?, globs(layer.ask)?, globs(layer.deny)?).otherwise(rest);
        Ok(all.meet(&ToolRules::of(layer)))
    })
}

fn networks(list: Vec<String>) -> Result<Networks, ClaimsError> {
    let nets = list.iter().map(|net| net.parse().map_err(|_| unknown(net)));
    nets.collect::<Result<Vec<_>, _>>().map(Networks::new)
}

/// Paths as another machine wrote them: absolute and without `..`, so that a prefix means what it
/// meant there. What they lead to here is looked at where they are used.
fn files(files: Files) -> Result<FsGrant, ClaimsError> {
    let paths = |list: Vec<String>| -> Result<Vec<PathBuf>, ClaimsError> {
        list.into_iter()
            .map(|text| if is_canonical(&text) { Ok(PathBuf::from(text)) } else { Err(unknown(&text)) })
            .collect()
    };
    Ok(FsGrant::new(paths(files.read)?, paths(files.read_write)?, paths(files.deny)?))
}

fn is_canonical(text: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain))
}

fn counted(limits: &Limits) -> Option<Counted> {
    let budget = Counted {
        turns: (limits.turns != Limits::NONE.turns).then_some(limits.turns),
        tool_calls: (limits.tool_calls != Limits::NONE.tool_calls).then_some(limits.tool_calls),
        usd: (limits.usd != Limits::NONE.usd).then_some(limits.usd.0),
        tokens: (limits.tokens != Limits::NONE.tokens).then_some(limits.tokens),
        wall: limits.wall.map(|wall| u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
    };
    (*limits != Limits::NONE).then_some(budget)
}
