//! What all servers offer, under the names the outside uses: exact maps, never a name split.

use super::uris::Uris;
use super::{Offers, Prefix, Prompt, Resource, Tool, looks};
use crate::names::Name;
use crate::pins::Held;
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
    /// Tools in quarantine, under the names they would have. They claim no name.
    pub held: BTreeMap<String, Arc<Held>>,
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
        map.refuse_alike();
        map
    }
    /// With what is held back, so that a call of it is told why.
    pub fn with_held(mut self, held: impl IntoIterator<Item = Arc<Held>>, auto: &BTreeSet<Name>) -> Self {
        for held in held {
            let tool = &held.tool;
            let prefixed = auto.contains(&tool.server).then(|| format!("{}__{}", tool.server, tool.name));
            for name in prefixed.into_iter().chain([tool.name.clone()]) {
                if !self.tools.contains_key(&name) {
                    self.held.entry(name).or_insert_with(|| held.clone());
                }
            }
        }
        self
    }
    /// Names that nobody can tell apart belong to nobody.
    fn refuse_alike(&mut self) {
        let own = looks("pleach__");
        let reserved: BTreeSet<String> = RESERVED.iter().flat_map(|name| looks(name)).collect();
        let mut first: BTreeMap<String, String> = BTreeMap::new();
        let mut alike: Vec<(String, String)> = Vec::new();
        for name in self.tools.keys() {
            let forms = looks(name);
            if forms.iter().any(|form| own.iter().any(|own| form.starts_with(own)) || reserved.contains(form)) {
                alike.push((name.clone(), "it looks like a name of Pleach's own tools; rename it".into()));
                continue;
            }
            for form in forms {
                let other = first.entry(form).or_insert_with(|| name.clone());
                if other != name {
                    let why = |other: &str| format!("it looks like {other}; rename one of them");
                    alike.push((name.clone(), why(other)));
                    alike.push((other.clone(), why(name)));
                }
            }
        }
        for (name, why) in alike {
            self.tools.remove(&name);
            self.refused.insert(name, why);
        }
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
        map.refuse_alike();
        map
    }
    /// Prompts that nobody can tell apart belong to nobody.
    fn refuse_alike(&mut self) {
        let mut by_looks: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for name in self.prompts.keys() {
            for form in looks(name) {
                by_looks.entry(form).or_default().insert(name.clone());
            }
        }
        for names in by_looks.into_values().filter(|names| names.len() > 1) {
            for name in &names {
                self.prompts.remove(name);
                let others: Vec<&str> = names.iter().filter(|n| *n != name).map(String::as_str).collect();
                self.refused.insert(name.clone(), format!("it looks like {}", others.join(", ")));
            }
        }
    }
}
