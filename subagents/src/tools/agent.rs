//! The `Agent` tool (alias `Task`): what a model says to spawn a child.

use crate::ports::ToolSpec;
use policies::grant::Narrowing;
use policies::json::Json;
use policies::names::Name;
use policies::resolve::{AgentSpec, Limits};
use policies::tools::{Glob, Layer, ToolRules};
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
    /// The `policy` of the request, not read yet.
    pub policy: Option<Json>,
    /// The `tools` of the request.
    pub tools: Option<ToolRules>,
    /// The `budget` of the request.
    pub limits: Limits,
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
    let names = || may_start.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join(", ");
    let text = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key} is not a string")),
    };
    if object.get("run_in_background").is_some_and(|v| v.as_bool() != Some(false)) {
        return Err(
            "run_in_background is not in this version; leave it out, children run in parallel within a turn".into()
        );
    }
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
        policy: object.get("policy").filter(|p| !p.is_null()).map(Json::from),
        tools: tools(object.get("tools"))?,
        limits: limits(object.get("budget"))?,
    })
}

impl Wish {
    /// The whole narrowing: the `policy` as read, with `tools` in it.
    ///
    /// # Errors
    /// When both speak about tools.
    pub fn narrowing(&self, policy: Option<Narrowing>) -> Result<Narrowing, String> {
        let mut asks = policy.unwrap_or_default();
        if let Some(tools) = &self.tools {
            if asks.tools.is_some() {
                return Err("tools is short for policy.tools.allow; give one of them".into());
            }
            asks.tools = Some(tools.clone());
        }
        Ok(asks)
    }
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
    let Some(value) = value.filter(|v| !v.is_null()) else { return Ok(Limits::NONE) };
    let object = value.as_object().ok_or("budget is not an object")?;
    let mut limits = Limits::NONE;
    for (key, value) in object {
        let n = value.as_u64().and_then(|n| u32::try_from(n).ok());
        let n = n.ok_or_else(|| format!("budget.{key} is not a count"))?;
        match key.as_str() {
            "turns" => limits.turns = n,
            "tool_calls" => limits.tool_calls = n,
            other => return Err(format!("budget.{other} is not in this version; turns and tool_calls are")),
        }
    }
    Ok(limits)
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
                "run_in_background": { "type": "boolean", "const": false },
                "budget": { "type": "object", "properties": { "turns": count, "tool_calls": count }, "additionalProperties": false },
                "tools": { "type": "array", "items": { "type": "string" }, "description": "Only these tools; can only narrow." },
                "policy": { "type": "object", "description": "A grant table as in the policy file; can only narrow." }
            },
            "required": ["description", "prompt", "subagent_type"],
            "additionalProperties": false
        }),
    }
}
