//! `[agents]` and `[clients]`.

use super::{Limits, OutputSchema, Proof, Resolver};
use crate::authority::{AgentPolicy, Sources};
use crate::file::Node;
use crate::grant::{Names, Narrowing};
use crate::names::Name;
use crate::place::Place;
use crate::tools::{Layer, ToolRules};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An agent's definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSpec {
    /// Its name.
    pub name: Name,
    /// Where it is defined.
    pub place: Place,
    /// What it is for.
    pub description: String,
    /// Its system prompt.
    pub prompt: String,
    /// What it is asked without an argument.
    pub initial_prompt: Option<String>,
    /// The model it uses.
    pub model: Name,
    /// How hard that thinks, where it is another way than the model's own.
    pub effort: Option<String>,
    /// Who sums up its conversations, where it is another than its model says.
    pub compact_with: Option<Name>,
    /// Whom it may start.
    pub subagents: BTreeSet<Name>,
    /// The form of its answer, where it must have one.
    pub output_schema: Option<OutputSchema>,
    /// What its card offers; empty: itself.
    pub skills: Vec<SkillSpec>,
    /// Whether clients see it; the default agent always is.
    pub expose: bool,
    /// Its counted limits.
    pub limits: Limits,
    /// The counted limits of each of its children.
    pub subagent_limits: Limits,
    /// The policy side.
    pub policy: AgentPolicy,
}

/// One thing an agent does, for its card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkillSpec {
    /// What it is called.
    pub id: String,
    /// The same for people.
    pub name: String,
    /// What it does.
    pub description: String,
    /// Words it is found by.
    pub tags: Vec<String>,
    /// What could be asked.
    pub examples: Vec<String>,
}

/// A client that may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSpec {
    /// Its name.
    pub name: Name,
    /// What names it.
    pub proof: Proof,
    /// Whether it may answer approvals and questions of people.
    pub can_approve: bool,
    /// Agents it may start; `None`: those exposed.
    pub may_start: Option<BTreeSet<Name>>,
    /// Its table.
    pub policy: Arc<Narrowing>,
    /// Where its rules stand.
    pub sources: Arc<Sources>,
    /// Its counted limits.
    pub limits: Limits,
}

impl Resolver<'_> {
    pub(super) fn agents(&mut self, file: &Node) -> BTreeMap<Name, AgentSpec> {
        let mut out = BTreeMap::new();
        let default = file.get("gateway").and_then(|g| g.text_at("default_agent"));
        let tables = file.get("agents").map(Node::entries).unwrap_or_default();
        for (key, place, node) in tables {
            let Ok(name) = Name::try_from(key.as_str()) else { continue };
            let is_default = default == Some(key.as_str()) || (default.is_none() && tables.len() == 1);
            if let Some(agent) = self.agent(&name, place, node, is_default) {
                out.insert(name, agent);
            }
        }
        out
    }

    fn agent(&mut self, name: &Name, place: &Place, node: &Node, is_default: bool) -> Option<AgentSpec> {
        let (mut policy, mut sources, limits) = self.narrowing_at(node, "policy");
        if let Some(short) = node.get("tools") {
            if policy.tools.is_some() {
                let message = "tools is short for policy.tools.allow; give one of them";
                self.error(node.key_place("tools").unwrap_or(place), message);
            }
            policy.tools = Some(ToolRules::of(Layer::new(self.globs(Some(short), "allow", &mut sources), [], [])));
            sources.0.insert("tools".into(), short.place.clone());
        }
        let subagents = match node.get("subagents") {
            Some(list) => {
                sources.0.insert("subagents".into(), list.place.clone());
                self.names(list, "agents", "agent")
            }
            None => BTreeSet::new(),
        };
        policy.agents = Some(Names::Only(subagents.clone()));
        let (over, over_sources, subagent_limits) = self.narrowing_at(node, "subagent_policy");
        let subagent_policy = node.get("subagent_policy").map(|_| Arc::new(over));
        let model = self.agent_model(name, place, node)?;
        let prompt = self.prompt(name, place, node)?;
        let output_schema = self.output_schema(node);
        let skills = self.skills(name, node);
        Some(AgentSpec {
            name: name.clone(),
            place: place.clone(),
            description: node.text_at("description").unwrap_or_default().to_owned(),
            prompt,
            initial_prompt: node.text_at("initial_prompt").map(str::to_owned),
            model,
            effort: node.text_at("effort").map(str::to_owned),
            compact_with: node.get("compact_with").and_then(|at| self.known(Some(at), "models", "model")),
            subagents,
            output_schema,
            skills,
            expose: node.get("expose").and_then(Node::bool).unwrap_or(is_default),
            limits,
            subagent_limits,
            policy: AgentPolicy {
                who: format!("agent {name}").into(),
                policy: Arc::new(policy),
                subagent_policy,
                sources: Arc::new(sources),
                subagent_sources: Arc::new(over_sources),
            },
        })
    }

    fn skills(&mut self, agent: &Name, node: &Node) -> Vec<SkillSpec> {
        let mut out: Vec<SkillSpec> = Vec::new();
        for item in node.get("skills").map(Node::items).unwrap_or_default() {
            let (Some(id), Some(description)) = (item.text_at("id"), item.text_at("description")) else {
                self.error(&item.place, format!("a skill of agent {agent} needs id and description"));
                continue;
            };
            if out.iter().any(|other| other.id == id) {
                self.error(&item.place, format!("agent {agent} has two skills of the id {id:?}"));
                continue;
            }
            let texts = |key: &str| -> Vec<String> {
                let items = item.get(key).map(Node::items).unwrap_or_default();
                items.iter().filter_map(Node::text).map(str::to_owned).collect()
            };
            out.push(SkillSpec {
                id: id.to_owned(),
                name: item.text_at("name").unwrap_or(id).to_owned(),
                description: description.to_owned(),
                tags: texts("tags"),
                examples: texts("examples"),
            });
        }
        out
    }

    fn agent_model(&mut self, name: &Name, place: &Place, node: &Node) -> Option<Name> {
        if node.get("model").is_some() {
            return self.known(node.get("model"), "models", "model");
        }
        if self.root.get("models").and_then(|m| m.get("default")).is_none() {
            let message = format!("agent {name} names no model and [models.default] is not defined");
            self.error(place, message);
            return None;
        }
        Name::try_from("default").ok()
    }

    fn prompt(&mut self, name: &Name, place: &Place, node: &Node) -> Option<String> {
        match (node.get("prompt"), node.get("prompt_file")) {
            (Some(_), Some(file)) => {
                self.error(&file.place, "give prompt or prompt_file, not both");
                None
            }
            (Some(prompt), None) => prompt.text().map(str::to_owned),
            (None, Some(file)) => {
                let path = self.absolute(file.text()?);
                match self.around.read_text(&path) {
                    Ok(text) => Some(text),
                    Err(why) => {
                        self.error(&file.place, format!("prompt_file {}: {why}", path.display()));
                        None
                    }
                }
            }
            (None, None) => {
                self.warn(place, format!("agent {name} has no prompt; its model is told nothing but the task"));
                Some(String::new())
            }
        }
    }

    pub(super) fn clients(&mut self, file: &Node) -> Option<BTreeMap<Name, ClientSpec>> {
        let table = file.get("clients")?;
        let mut out: BTreeMap<Name, ClientSpec> = BTreeMap::new();
        for (key, place, node) in table.entries() {
            let Ok(name) = Name::try_from(key.as_str()) else { continue };
            if key == "local" {
                self.error(place, "the name \"local\" is the command line's own; choose another");
                continue;
            }
            let Some(proof) = self.proof(&name, place, node, &out) else { continue };
            let may_start = node.get("may_start").map(|list| self.names(list, "agents", "agent"));
            let (policy, sources, limits) = self.narrowing_at(node, "policy");
            let spec = ClientSpec {
                name: name.clone(),
                proof,
                can_approve: node.get("can_approve").and_then(Node::bool).unwrap_or(false),
                may_start,
                policy: Arc::new(policy),
                sources: Arc::new(sources),
                limits,
            };
            out.insert(name, spec);
        }
        Some(out)
    }
}
