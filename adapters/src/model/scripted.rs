//! The scripted model: a list of replies, chosen without any memory of its own, so that a
//! restart changes nothing. Of the replies whose `agent`, `when` and `message_id` match, the
//! one that says `turn = t`, else the one at index *t* among those that say no turn, where *t*
//! is the number of assistant messages the run already has.

use globset::{Glob, GlobMatcher};
use policies::names::Name;
use policies::resolve::ModelSpec;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use subagents::event::{ToolCall, Usage};
use subagents::ports::{Delta, ModelError, ModelFacts, ModelFailure, Reply, Request};
use subagents::turn::Message;

/// Tries of one request before an `error` of the script is final; what real clients do.
const TRIES: u32 = 3;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    reply: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    agent: Option<String>,
    when: Option<String>,
    message_id: Option<String>,
    turn: Option<u32>,
    #[serde(default)]
    text: String,
    #[serde(default)]
    tool: Vec<Tool>,
    usage: Option<Tokens>,
    delay: Option<String>,
    error: Option<Failing>,
    chunks: Option<usize>,
    stop: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tool {
    name: String,
    #[serde(default)]
    input: serde_json::Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    #[serde(default)]
    input: u64,
    #[serde(default)]
    output: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failing {
    status: u16,
    #[serde(default = "always")]
    times: u32,
}

fn always() -> u32 {
    u32::MAX
}

/// What is wrong with a script.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct ScriptError {
    file: String,
    line: usize,
    column: usize,
    message: String,
}

struct Entered {
    entry: Entry,
    agent: GlobMatcher,
    when: Option<Regex>,
    message_id: Option<GlobMatcher>,
    delay: Duration,
}

/// A model that says what its file says.
pub struct Scripted {
    file: String,
    entries: Vec<Entered>,
    facts: ModelFacts,
}

impl Scripted {
    /// Reads a script.
    ///
    /// # Errors
    /// What is wrong with it, at its place.
    pub fn load(path: &Path) -> Result<Self, ScriptError> {
        let file = path.display().to_string();
        let error = |line, column, message: String| ScriptError { file: file.clone(), line, column, message };
        let source = std::fs::read_to_string(path).map_err(|e| error(1, 1, e.to_string()))?;
        let parsed: File = toml::from_str(&source).map_err(|e| {
            let before = &source[..e.span().map_or(0, |s| s.start).min(source.len())];
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            error(before.matches('\n').count() + 1, column, e.message().to_owned())
        })?;
        let entries = parsed
            .reply
            .into_iter()
            .enumerate()
            .map(|(i, entry)| enter(entry).map_err(|why| error(1, 1, format!("reply {}: {why}", i + 1))));
        // A script costs nothing and has room for everything, unless the policy file says so.
        let facts = ModelFacts { context: u64::MAX, max_output: u64::MAX, price: Some(policies::price::Price::FREE) };
        Ok(Self { entries: entries.collect::<Result<_, _>>()?, file, facts })
    }

    /// The script of a model of the policy file.
    ///
    /// # Errors
    /// See [`Scripted::load`].
    pub(super) fn of(spec: &ModelSpec, path: &Path) -> Result<Self, ScriptError> {
        let price = spec.price.as_ref().map(|p| p.price);
        let facts = ModelFacts { context: spec.context, max_output: spec.max_output, price };
        Ok(Self { facts, ..Self::load(path)? })
    }

    fn choose(&self, agent: &str, message: &str, (turn, first): (u32, &str)) -> Option<&Entered> {
        let fits = |e: &&Entered| {
            e.agent.is_match(agent)
                && e.when.as_ref().is_none_or(|w| w.is_match(first))
                && e.message_id.as_ref().is_none_or(|m| m.is_match(message))
        };
        let exact = self.entries.iter().filter(fits).find(|e| e.entry.turn == Some(turn));
        exact.or_else(|| self.entries.iter().filter(fits).filter(|e| e.entry.turn.is_none()).nth(turn as usize))
    }
}

fn enter(entry: Entry) -> Result<Entered, String> {
    let glob = |text: &str| Glob::new(text).map(|g| g.compile_matcher()).map_err(|e| e.to_string());
    Ok(Entered {
        agent: glob(entry.agent.as_deref().unwrap_or("*"))?,
        when: entry.when.as_deref().map(Regex::new).transpose().map_err(|e| format!("when: {e}"))?,
        message_id: entry.message_id.as_deref().map(glob).transpose()?,
        delay: entry.delay.as_deref().map(duration).transpose()?.unwrap_or_default(),
        entry,
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("delay {text:?} is no duration; write \"200ms\" or \"2s\"");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?);
    let number: u64 = number.parse().map_err(|_| bad())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(bad()),
    }
}

impl Scripted {
    pub(super) fn facts(&self) -> ModelFacts {
        self.facts.clone()
    }
    /// What the reply it would give says it read.
    pub(super) fn counted(&self, request: &Request<'_>) -> u64 {
        let chosen = self.choose(request.agent, request.message.unwrap_or(""), place(request));
        chosen.and_then(|c| c.entry.usage.as_ref()).map_or(0, |u| u.input)
    }
    /// The reply of the file.
    pub(super) async fn answer(
        &self,
        model: &Name,
        request: &Request<'_>,
        delta: Delta<'_>,
    ) -> Result<Reply, ModelError> {
        let (turn, first) = place(request);
        let Some(chosen) = self.choose(request.agent, request.message.unwrap_or(""), (turn, first)) else {
            let why = format!("{} has no reply for agent {} at turn {turn} (model {model})", self.file, request.agent);
            return Err(ModelError::new(ModelFailure::Refused, why));
        };
        let entry = &chosen.entry;
        tokio::time::sleep(chosen.delay).await;
        if let Some(error) = &entry.error
            && error.times >= TRIES
        {
            let why = format!("the model answers HTTP {} ({} tries)", error.status, TRIES);
            return Err(ModelError::new(ModelFailure::Unavailable, why));
        }
        let fill = |text: &str| fill(text, first, request.messages);
        let text = fill(&entry.text);
        for piece in pieces(&text, entry.chunks.unwrap_or(1)) {
            delta(&piece);
        }
        let calls = entry.tool.iter().enumerate().map(|(i, tool)| ToolCall {
            id: format!("call-{turn}-{i}"),
            name: tool.name.clone(),
            input: filled(&Value::Object(tool.input.clone()), &fill),
        });
        let calls: Vec<ToolCall> = calls.collect();
        let stop =
            entry.stop.clone().unwrap_or_else(|| if calls.is_empty() { "end_turn".into() } else { "tool_use".into() });
        let usage = entry.usage.as_ref();
        let usage =
            usage.map_or_else(Usage::default, |u| Usage { input: u.input, output: u.output, ..Usage::default() });
        Ok(Reply { text, calls, stop, usage, blocks: None, answered_by: None })
    }
}

/// Which reply is wanted: the assistant messages so far, and the first user message.
fn place<'a>(request: &Request<'a>) -> (u32, &'a str) {
    let turn = request.messages.iter().filter(|m| matches!(m, Message::Assistant { .. })).count();
    let first = request.messages.iter().find_map(|m| match m {
        Message::User(text) => Some(text.as_str()),
        _ => None,
    });
    (u32::try_from(turn).unwrap_or(u32::MAX), first.unwrap_or(""))
}

/// `{{prompt}}`, `{{result}}` (the last tool result) and `{{results}}` (all of the last turn).
fn fill(text: &str, prompt: &str, messages: &[Message]) -> String {
    if !text.contains("{{") {
        return text.to_owned();
    }
    let results = messages.iter().rev().find_map(|m| match m {
        Message::Results(results) => Some(results.iter().map(|r| r.text.trim_end().to_owned()).collect::<Vec<_>>()),
        _ => None,
    });
    let results = results.unwrap_or_default();
    // One pass, so that what a result says is never itself taken for a placeholder.
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        out.push_str(&rest[..start]);
        let Some(end) = rest[start..].find("}}") else {
            rest = &rest[start..];
            break;
        };
        match &rest[start + 2..start + end] {
            "prompt" => out.push_str(prompt),
            "result" => out.push_str(results.last().map_or("", String::as_str)),
            "results" => out.push_str(&results.join("\n")),
            other => out.push_str(&format!("{{{{{other}}}}}")),
        }
        rest = &rest[start + end + 2..];
    }
    out.push_str(rest);
    out
}

fn filled(value: &Value, fill: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text)),
        Value::Array(items) => Value::Array(items.iter().map(|v| filled(v, fill)).collect()),
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), filled(v, fill))).collect()),
        other => other.clone(),
    }
}

fn pieces(text: &str, count: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    if chars.is_empty() {
        return Vec::new();
    }
    let size = chars.len().div_ceil(count.max(1)).max(1);
    chars.chunks(size).map(|c| c.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Scripted, ScriptError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.toml");
        std::fs::write(&path, text).unwrap();
        Scripted::load(&path)
    }

    #[test]
    fn replies_are_chosen_by_agent_prompt_and_turn() {
        let script = load(
            "[[reply]]\nagent = \"a*\"\ntext = \"0\"\n[[reply]]\nagent = \"a*\"\ntext = \"1\"\n\
             [[reply]]\nagent = \"b\"\nwhen = \"^x\"\ntext = \"bx\"\n[[reply]]\nagent = \"b\"\nturn = 5\ntext = \"b5\"\n",
        )
        .unwrap();
        let choose = |agent, first, turn| script.choose(agent, "", (turn, first)).map(|e| e.entry.text.as_str());
        assert_eq!(choose("a1", "", 0), Some("0"));
        assert_eq!(choose("a1", "", 1), Some("1"));
        assert_eq!(choose("a1", "", 2), None);
        assert_eq!(choose("b", "xy", 0), Some("bx"));
        assert_eq!(choose("b", "y", 0), None);
        assert_eq!(choose("b", "y", 5), Some("b5"));
        assert!(load("").is_ok());
        assert!(load("[[reply]]\ntxet = 1\n").err().unwrap().to_string().contains(":2:1: unknown field `txet`"));
    }

    #[test]
    fn placeholders_are_filled_once() {
        let result = |text: &str| subagents::turn::ToolResult {
            id: "1".into(),
            name: "t".into(),
            text: text.into(),
            error: false,
        };
        let messages = [Message::User("p".into()), Message::Results(vec![result("{{prompt}}"), result("b")])];
        assert_eq!(fill("{{prompt}}|{{results}}|{{result}}|{{x}}|{{", "p", &messages), "p|{{prompt}}\nb|b|{{x}}|{{");
    }
}
