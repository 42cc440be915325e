//! The `Agent` tool (alias `Task`): what a model says to spawn a child.

use crate::ports::{Gate, ToolSpec};
use policies::grant::Narrowing;
use policies::json::Json;
use policies::names::Name;
use policies::resolve::{AgentSpec, Limits, budget_request};
use policies::tools::{Glob, Layer, ToolRules};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The tool's name.
pub const NAME: &str = "Agent";
/// Its older name.
pub const ALIAS: &str = "Task";

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wish {
    /// Three to five words.
    pub description: String,
    /// The task.
    pub prompt: String,
    /// Which agent.
    pub agent: Name,
    /// Which model, if not the agent's own.
    pub model: Option<Name>,
    /// Whether the call is over while the child works.
    pub background: bool,
    /// What narrows the child.
    pub request: Request,
    /// The `budget` of the request.
    pub limits: Limits,
}

/// What a spawn asks for, as it was written: it is read again whenever the authority is worked
/// out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Value>,
}

impl Request {
    /// As it is written down; `None` when nothing is asked for.
    pub fn to_text(&self) -> Option<String> {
        (*self != Self::default()).then(|| serde_json::to_string(self).unwrap_or_default())
    }
    /// As it was written down.
    ///
    /// # Errors
    /// When it is none of ours.
    pub fn from_text(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| format!("request: {e}"))
    }
    /// What it asks for: the `policy` as the gate reads it, with `tools` in it; and its limits.
    ///
    /// # Errors
    /// What is wrong with it, for the model.
    pub fn asks(&self, gate: &dyn Gate) -> Result<(Narrowing, Limits), String> {
        let (mut asks, limits) = match &self.policy {
            Some(policy) => gate.narrowing(&Json::from(policy)).map_err(|e| format!("policy: {e}"))?,
            None => (Narrowing::default(), Limits::NONE),
        };
        if let Some(tools) = tools(self.tools.as_ref())? {
            if asks.tools.is_some() {
                return Err("tools is short for policy.tools.allow; give one of them".into());
            }
            asks.tools = Some(tools);
        }
        Ok((asks, limits))
    }
}

/// Reads the arguments of a call.
///
/// # Errors
/// What is wrong, with what would be right, for the model.
pub fn read(input: &Value, may_start: &[&AgentSpec]) -> Result<Wish, String> {
    let object = input.as_object().ok_or("the input is not an object")?;
    const KNOWN: [&str; 8] =
        ["description", "prompt", "subagent_type", "model", "run_in_background", "budget", "tools", "policy"];
    if let Some(unknown) = object.keys().find(|k| !KNOWN.contains(&k.as_str())) {
        let hint =
            policies::names::nearest(unknown, KNOWN).map(|n| format!("; did you mean {n:?}?")).unwrap_or_default();
        return Err(format!("{unknown:?} is no argument of {NAME}{hint}"));
    }
    let given = |key: &str| object.get(key).filter(|value| !value.is_null()).cloned();
    let names = || may_start.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join(", ");
    let text = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key} is not a string")),
    };
    let background = match object.get("run_in_background") {
        None | Some(Value::Null) => false,
        Some(value) => value.as_bool().ok_or("run_in_background is not true or false")?,
    };
    let prompt = text("prompt")?.filter(|p| !p.trim().is_empty()).ok_or("prompt is missing")?;
    let agent =
        text("subagent_type")?.ok_or_else(|| format!("subagent_type is missing; it may be one of: {}", names()))?;
    let agent = Name::try_from(agent.as_str())
        .map_err(|e| format!("subagent_type {agent:?}: {e}; it may be one of: {}", names()))?;
    let model =
        text("model")?.map(|m| Name::try_from(m.as_str()).map_err(|e| format!("model {m:?}: {e}"))).transpose()?;
    Ok(Wish {
        description: text("description")?.unwrap_or_default(),
        prompt,
        agent,
        model,
        background,
        request: Request { policy: given("policy"), tools: given("tools") },
        limits: limits(object.get("budget"))?,
    })
}

fn tools(value: Option<&Value>) -> Result<Option<ToolRules>, String> {
    let Some(value) = value.filter(|v| !v.is_null()) else { return Ok(None) };
    let items = value.as_array().ok_or("tools is not a list of names")?;
    let globs = items.iter().map(|item| {
        let text = item.as_str().ok_or_else(|| "tools is not a list of names".to_owned())?;
        Glob::try_from(text).map_err(|e| format!("tools: {text:?}: {e}"))
    });
    let globs: Vec<Glob> = globs.collect::<Result<_, _>>()?;
    Ok(Some(ToolRules::of(Layer::new(globs, [], []))))
}

fn limits(value: Option<&Value>) -> Result<Limits, String> {
    match value.filter(|v| !v.is_null()) {
        None => Ok(Limits::NONE),
        Some(budget) => budget_request(&Json::from(budget)),
    }
}

/// The tool as a model is shown it, listing whom it may start.
pub fn spec(may_start: &[&AgentSpec]) -> ToolSpec {
    let mut description = String::from(
        "Starts a subagent for one task and returns its answer. Several calls in one turn run in parallel. \
         The subagent sees nothing but the prompt. Its agents:",
    );
    for agent in may_start {
        description.push_str(&format!("\n- {}: {}", agent.name, agent.description));
    }
    let names: Vec<&str> = may_start.iter().map(|a| a.name.as_str()).collect();
    let count = json!({ "type": "integer", "minimum": 1 });
    ToolSpec {
        name: NAME.to_owned(),
        description,
        input_schema: json!({
            "type": "object",
            "properties": {
                "description": { "type": "string", "description": "The task in three to five words." },
                "prompt": { "type": "string", "description": "The whole task." },
                "subagent_type": { "type": "string", "enum": names },
                "model": { "type": "string", "description": "Another model than the agent's own." },
                "run_in_background": { "type": "boolean", "description": "Go on at once; its answer comes later as a message." },
                "budget": {
                    "type": "object",
                    "description": "What it and all it starts may use at most.",
                    "properties": {
                        "usd": { "type": "number", "exclusiveMinimum": 0 },
                        "tokens": count,
                        "turns": count,
                        "tool_calls": count,
                        "wall": { "type": "string", "description": "Such as 90s, 30m, 2h." }
                    },
                    "additionalProperties": false
                },
                "tools": { "type": "array", "items": { "type": "string" }, "description": "Only these tools; can only narrow." },
                "policy": { "type": "object", "description": "A grant table as in the policy file; can only narrow." }
            },
            "required": ["description", "prompt", "subagent_type"],
            "additionalProperties": false
        }),
    }
}
