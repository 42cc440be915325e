//! `[models]`: who answers, what it costs and who answers instead.

use super::{AgentSpec, Policy, Resolver, Secret};
use crate::domain::Host;
use crate::file::Node;
use crate::names::Name;
use crate::place::Place;
use crate::price::{Price, table};
use std::collections::BTreeMap;
use std::path::PathBuf;
use url::Url;

/// What a model of unknown size is taken to hold.
const CONTEXT: u64 = 128_000;
/// What a model of unknown size is taken to write at most.
const MAX_OUTPUT: u64 = 8_192;
/// The API version of provider anthropic, unless the file says another.
const VERSION: &str = "2026-10-21";

/// A model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    /// Its name.
    pub name: Name,
    /// Where it is registered.
    pub place: Place,
    /// Who answers.
    pub provider: Provider,
    /// What it costs, when that is known.
    pub price: Option<Priced>,
    /// Tokens of its window.
    pub context: u64,
    /// Tokens it can write at most.
    pub max_output: u64,
    /// Who answers when it cannot, in this order.
    pub fallback: Vec<Name>,
    /// Who sums up conversations that are too long for it, where another does.
    pub compact_with: Option<Name>,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// A file of replies.
    Scripted {
        /// The file.
        script: PathBuf,
    },
    /// A model somewhere else.
    Remote(RemoteModel),
    /// The model of the MCP client that started the run.
    Sampling {
        /// A name the client may choose by.
        model: Option<String>,
    },
}

/// What stands before the client's own name of the model that answered by sampling.
pub const BY_CLIENT: &str = "client/";

/// What a provider speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    /// The Messages API, in this version.
    Anthropic {
        /// Such as `2026-10-21`.
        version: String,
    },
    /// Chat completions, as OpenAI and many servers speak them.
    OpenAi,
}

/// A model that is reached over the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteModel {
    /// What is spoken there.
    pub wire: Wire,
    /// The provider's name for it.
    pub model: String,
    /// Where, without the path of the API itself.
    pub base_url: Url,
    /// The provider's key; none where a server of one's own wants none.
    pub api_key: Option<Secret>,
    /// How hard it thinks, unless the request says.
    pub effort: Option<String>,
}

/// A price and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priced {
    /// The price.
    pub price: Price,
    /// The day it was read, when that is known.
    pub as_of: Option<String>,
}

impl ModelSpec {
    /// The remote part, where it is one.
    pub fn remote(&self) -> Option<&RemoteModel> {
        match &self.provider {
            Provider::Remote(remote) => Some(remote),
            Provider::Scripted { .. } | Provider::Sampling { .. } => None,
        }
    }
}

impl RemoteModel {
    /// The provider's word in the policy file.
    pub fn provider(&self) -> &'static str {
        match self.wire {
            Wire::Anthropic { .. } => "anthropic",
            Wire::OpenAi => "openai",
        }
    }
}

impl Policy {
    /// The models that may answer for one, itself first: its fallbacks, and theirs.
    pub fn chain(&self, name: &Name) -> Vec<&ModelSpec> {
        let mut out: Vec<&ModelSpec> = Vec::new();
        let mut next: Vec<&Name> = vec![name];
        while let Some(name) = next.pop() {
            let Some(spec) = self.models.get(name) else { continue };
            if out.iter().all(|o| o.name != spec.name) {
                out.push(spec);
                next.extend(spec.fallback.iter().rev());
            }
        }
        out
    }
    /// What a reply of a model cost, where a provider's other model may have answered
    /// (`answered_by`, in the provider's words). `None` is unknown.
    pub fn price(&self, name: &Name, answered_by: Option<&str>) -> Option<Price> {
        let chain = self.chain(name);
        let Some(answered) = answered_by else { return chain.first()?.price.as_ref().map(|p| p.price) };
        let of = |spec: &&&ModelSpec| match spec.remote() {
            Some(remote) => table::same(&remote.model, answered),
            // Whatever a client calls it: what it costs here is what the file says.
            None if matches!(spec.provider, Provider::Sampling { .. }) => {
                answered.starts_with(BY_CLIENT) || spec.name.as_str() == answered
            }
            None => spec.name.as_str() == answered,
        };
        match chain.iter().find(of) {
            Some(spec) => spec.price.as_ref().map(|p| p.price),
            None => table::known(answered).map(|k| k.price),
        }
    }
}

impl Resolver<'_> {
    pub(super) fn models(&mut self, file: &Node) -> BTreeMap<Name, ModelSpec> {
        let mut out = BTreeMap::new();
        for (key, place, node) in file.get("models").map(Node::entries).unwrap_or_default() {
            let Ok(name) = Name::try_from(key.as_str()) else { continue };
            if let Some(spec) = self.model(&name, place, node) {
                out.insert(name, spec);
            }
        }
        out
    }

    fn model(&mut self, name: &Name, place: &Place, node: &Node) -> Option<ModelSpec> {
        let Some(word) = node.text_at("provider") else {
            let message = format!("model {name} needs a provider: anthropic, openai, scripted or sampling");
            self.error(place, message);
            return None;
        };
        let fits: &[&str] = match word {
            "scripted" => &["script"],
            "sampling" => &["model"],
            "anthropic" => &["model", "api_key", "base_url", "effort", "version"],
            _ => &["model", "api_key", "base_url", "effort"],
        };
        let all = ["script", "model", "api_key", "base_url", "effort", "version"];
        for (key, place, _) in node.entries() {
            if all.contains(&key.as_str()) && !fits.contains(&key.as_str()) {
                self.error(place, format!("{key} does not belong to a model with provider {word:?}"));
            }
        }
        let fallback = node.get("fallback").map(Node::items).unwrap_or_default();
        let fallback: Vec<Name> =
            fallback.iter().filter_map(|item| self.known(Some(item), "models", "model")).collect();
        let price = node.get("price").map(|table| self.price(name, table, word == "anthropic"));
        let provider = match word {
            "scripted" => self.script(name, place, node)?,
            "sampling" => Provider::Sampling { model: node.text_at("model").map(str::to_owned) },
            _ => Provider::Remote(self.remote(name, place, node, word)?),
        };
        let known = match &provider {
            Provider::Remote(remote) => table::known(&remote.model),
            Provider::Sampling { .. } => None,
            Provider::Scripted { .. } => {
                Some(table::Known { price: Price::FREE, context: u64::MAX, max_output: u64::MAX })
            }
        };
        let listed = known.map(|k| Priced {
            price: k.price,
            as_of: matches!(provider, Provider::Remote(_)).then(|| table::AS_OF.to_owned()),
        });
        let size = |key: &str| node.get(key).and_then(Node::int).and_then(|n| u64::try_from(n).ok());
        Some(ModelSpec {
            name: name.clone(),
            place: place.clone(),
            price: match price {
                Some(price) => Some(price?),
                None => listed,
            },
            context: size("context").or(known.map(|k| k.context)).unwrap_or(CONTEXT),
            max_output: size("max_output").or(known.map(|k| k.max_output)).unwrap_or(MAX_OUTPUT),
            provider,
            fallback,
            compact_with: node.get("compact_with").and_then(|at| self.known(Some(at), "models", "model")),
        })
    }

    fn script(&mut self, name: &Name, place: &Place, node: &Node) -> Option<Provider> {
        let Some(script) = node.get("script") else {
            self.error(place, format!("model {name} is scripted and needs script = \"replies.toml\""));
            return None;
        };
        let path = self.absolute(script.text().unwrap_or_default());
        if !self.around.exists(&path) {
            self.error(&script.place, format!("{} does not exist", path.display()));
            return None;
        }
        Some(Provider::Scripted { script: path })
    }

    fn remote(&mut self, name: &Name, place: &Place, node: &Node, word: &str) -> Option<RemoteModel> {
        let (wire, own, variable, example) = match word {
            "anthropic" => {
                let version = node.text_at("version").unwrap_or(VERSION).to_owned();
                let wire = Wire::Anthropic { version };
                (wire, "https://api.anthropic.com", "ANTHROPIC_API_KEY", "claude-sonnet-5-5")
            }
            _ => (Wire::OpenAi, "https://api.openai.com/v1", "OPENAI_API_KEY", "the provider's name for it"),
        };
        let model = match node.get("model") {
            Some(at) => self.expand(at),
            None => {
                self.error(place, format!("model {name} needs a model, such as model = {example:?}"));
                None
            }
        };
        let base_url = match node.get("base_url") {
            Some(at) => self.base_url(at, node.get("api_key").is_some()),
            None => Url::parse(own).ok(),
        };
        let api_key = match node.get("api_key") {
            Some(at) => Some(self.api_key(name, at)),
            None if node.get("base_url").is_some() => None,
            None => {
                self.error(place, format!("model {name} needs a key: api_key = \"${{{variable}}}\""));
                Some(None)
            }
        };
        Some(RemoteModel {
            wire,
            model: model?,
            base_url: base_url?,
            api_key: match api_key {
                Some(key) => Some(key?),
                None => None,
            },
            effort: node.text_at("effort").map(str::to_owned),
        })
    }

    fn api_key(&mut self, name: &Name, at: &Node) -> Option<Secret> {
        let key = self.private(at, &format!("model {name}"))?;
        let key = key.expose().trim();
        if key.is_empty() || !key.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
            self.error(&at.place, "api_key is empty, or holds characters that no header can");
            return None;
        }
        Some(Secret::new(key))
    }

    fn base_url(&mut self, at: &Node, has_key: bool) -> Option<Url> {
        let text = self.expand(at)?;
        let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some((url, host)) = url.and_then(|url| Host::of(&url).ok().map(|host| (url, host))) else {
            self.error(&at.place, "base_url is no http(s) address");
            return None;
        };
        if !url.username().is_empty() || url.password().is_some() {
            self.error(&at.place, "base_url holds a user or password; use api_key");
            return None;
        }
        if has_key && url.scheme() == "http" && !host.is_loopback() {
            self.error(&at.place, "api_key would travel in clear text; give an https base_url");
            return None;
        }
        Some(url)
    }

    /// Circles of fallbacks, and costs nobody knows.
    pub(super) fn cross_check_models(&mut self, policy: &Policy) {
        let mut told: Vec<&Name> = Vec::new();
        for spec in policy.models.values() {
            if let Some(circle) = circle(policy, spec)
                && circle.iter().all(|name| !told.contains(name))
            {
                let shown: Vec<&str> = circle.iter().map(|n| n.as_str()).collect();
                let message = format!("models fall back on each other in a circle: {}", shown.join(" > "));
                self.error(&spec.place, message);
                told.extend(circle);
            }
            if let Some(by) = spec.compact_with.as_ref().and_then(|name| policy.models.get(name))
                && matches!(by.provider, Provider::Sampling { .. })
                && !matches!(spec.provider, Provider::Sampling { .. })
            {
                let message = format!(
                    "model {}: compact_with names the model of the MCP client that starts a run, and other runs \
                     have none",
                    spec.name
                );
                self.warn(&spec.place, message);
            }
            if spec.price.is_none()
                && let Some(remote) = spec.remote()
            {
                let message = format!(
                    "model {}: cost unknown, since {:?} is in no price list; give price = {{ input = …, output = … }} \
                     in dollars per million tokens",
                    spec.name, remote.model
                );
                self.warn(&spec.place, message);
            }
        }
        for agent in policy.agents.values() {
            self.cross_check_mind(policy, agent);
        }
    }

    /// What an agent says of its model that does not hold.
    fn cross_check_mind(&mut self, policy: &Policy, agent: &AgentSpec) {
        let Some(model) = policy.models.get(&agent.model) else { return };
        if agent.effort.is_some() && model.remote().is_none() {
            let message = format!("agent {}: model {} is told no effort; only a provider is", agent.name, agent.model);
            self.warn(&agent.place, message);
        }
        let by = agent.compact_with.as_ref().or(model.compact_with.as_ref());
        if let (Some(by), Some(models)) = (by, &agent.policy.policy.models)
            && !models.allows(by.as_str())
        {
            let message = format!(
                "agent {}: models does not name {by}, so its conversations are summed up by {}",
                agent.name, agent.model
            );
            self.warn(&agent.place, message);
        }
    }
}

/// The shortest way from a model back to itself.
fn circle<'a>(policy: &'a Policy, spec: &'a ModelSpec) -> Option<Vec<&'a Name>> {
    let mut ways: Vec<Vec<&Name>> = vec![vec![&spec.name]];
    let mut seen: Vec<&Name> = Vec::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let Some(last) = way.last().and_then(|name| policy.models.get(*name)) else { continue };
            for next in &last.fallback {
                let mut way = way.clone();
                way.push(next);
                if next == &spec.name {
                    return Some(way);
                }
                if !seen.contains(&next) {
                    seen.push(next);
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}
