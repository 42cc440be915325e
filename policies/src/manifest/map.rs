//! What all servers offer, under the names the outside uses: exact maps, never a name split.

use super::uris::Uris;
use super::{Offers, Prefix, Prompt, Resource, Tool};
use crate::names::Name;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Puts the tools of all servers under their outside names. A name two tools claim belongs to
/// neither, except that `prefix = "auto"` falls back to the prefixed name.
#[derive(Debug, Default)]
pub struct NameMap {
    /// Outside name to tool, in deterministic order.
    pub tools: BTreeMap<String, Arc<Tool>>,
    /// Names refused, with the reason.
    pub refused: BTreeMap<String, String>,
}

impl NameMap {
    /// Builds the map. `auto` lists the servers with `prefix = "auto"`.
    pub fn build(tools: Vec<Arc<Tool>>, auto: &BTreeSet<Name>) -> Self {
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for tool in &tools {
            *count.entry(tool.name.clone()).or_default() += 1;
        }
        let tools: Vec<Arc<Tool>> = tools
            .into_iter()
            .map(|t| {
                let collides = count[&t.name] > 1 && auto.contains(&t.server);
                if collides { Arc::new(Arc::unwrap_or_clone(t).prefixed()) } else { t }
            })
            .collect();
        let mut map = Self::default();
        for tool in tools {
            let name = tool.name.clone();
            if map.refused.contains_key(&name) {
                continue;
            }
            if RESERVED.contains(&name.as_str()) || name.starts_with("pleach__") {
                map.refused
                    .insert(name, format!("the name belongs to Pleach; rename the tool of server {}", tool.server));
                continue;
            }
            if let Some(other) = map.tools.remove(&name) {
                let why = format!(
                    "servers {} and {} both offer it; set prefix = \"always\" or rename one",
                    other.server, tool.server
                );
                map.refused.insert(name, why);
                continue;
            }
            map.tools.insert(name, tool);
        }
        map
    }
}

/// Names of the runtime's own tools, which no server may take.
pub const RESERVED: [&str; 7] =
    ["Agent", "Task", "ask_user", "emit_artifact", "send_message", "stop_agent", "list_agents"];

/// One server's offers with the way it names them.
#[derive(Debug, Clone)]
pub struct Offering {
    /// The server.
    pub server: Name,
    /// `prefix`
    pub prefix: Prefix,
    /// What it offers.
    pub offers: Arc<Offers>,
}

/// Puts prompts, resources and templates of all servers under their outside names. A name two
/// servers claim belongs to neither, except that `prefix = "auto"` falls back to the prefix.
#[derive(Debug, Default)]
pub struct OfferMap {
    /// Outside name to prompt.
    pub prompts: BTreeMap<String, Arc<Prompt>>,
    /// Outside URI to resource.
    pub resources: BTreeMap<String, Arc<Resource>>,
    /// Outside URI template to template.
    pub templates: BTreeMap<String, Arc<Resource>>,
    /// Names refused, with the reason.
    pub refused: BTreeMap<String, String>,
    /// How addresses are spelled outside and read inside.
    pub uris: Uris,
}

impl OfferMap {
    /// Builds the map.
    pub fn build(all: &[Offering]) -> Self {
        let mut map = Self { uris: Uris::build(all), ..Self::default() };
        let mut claims: BTreeMap<&str, usize> = BTreeMap::new();
        for offering in all.iter().filter(|o| o.prefix != Prefix::Always) {
            offering.offers.prompts.iter().for_each(|p| *claims.entry(&p.upstream).or_default() += 1);
        }
        for offering in all {
            for prompt in &offering.offers.prompts {
                let (server, bare) = (&offering.server, &prompt.upstream);
                let unique = claims.get(bare.as_str()).is_none_or(|n| *n == 1) && !bare.contains("__");
                let name = match offering.prefix {
                    Prefix::Auto if unique => bare.clone(),
                    Prefix::None if unique => bare.clone(),
                    Prefix::None => {
                        let why = "several servers offer it; set prefix = \"always\" on one";
                        map.refused.insert(bare.clone(), why.into());
                        continue;
                    }
                    _ => format!("{server}__{bare}"),
                };
                map.prompts.insert(name, prompt.clone());
            }
            for resource in &offering.offers.resources {
                match map.uris.outside(&offering.server, &resource.uri) {
                    Some(uri) if map.uris.looks_prefixed(&offering.server, &uri) => {
                        map.refused.insert(uri, "it looks like another server's address".into());
                    }
                    Some(uri) => drop(map.resources.insert(uri, resource.clone())),
                    None => {
                        let why = "several servers offer it; set prefix = \"always\" on one";
                        map.refused.insert(resource.uri.clone(), why.into());
                    }
                }
            }
            for template in &offering.offers.templates {
                if let Some(uri) = map.uris.outside(&offering.server, &template.uri) {
                    map.templates.insert(uri, template.clone());
                }
            }
        }
        map
    }
}
