//! What a record says, put together field by field. Values of arguments have no way in.

use super::Audit;
use crate::settings::Digests;
use policies::action::{Touch, Touched};
use policies::fs::FileOp;
use policies::json::{Json, Object};
use policies::place::Place;
use std::path::Path;
pub(crate) use subagents::ports::Decision;
use subagents::run::Caller;

/// How deep the form of arguments is shown, how many entries of each object, and of all together:
/// a record is far shorter than [`super::log::MAX_LINE`], whatever somebody asks for.
const DEPTH: usize = 4;
const WIDTH: usize = 40;
const ENTRIES: usize = 200;
/// A name or a rule has at most so many characters.
const MAX_TEXT: usize = 2_000;
const MAX_TOUCHES: usize = 100;
/// Bytes of all that is touched together.
const MAX_TOUCHED: usize = 64 << 10;

/// The inside of a record.
pub(crate) struct Entry(Object);

impl Entry {
    pub(crate) fn new(what: &str) -> Self {
        let mut object = Object::new();
        object.set("what", what);
        Self(object)
    }
    pub(crate) fn with(mut self, key: &str, value: impl Into<Json>) -> Self {
        let value = match value.into() {
            Json::String(text) => Json::String(cut(text)),
            other => other,
        };
        self.0.set(key, value);
        self
    }
    /// The policy a process goes by: its file, and what else it was read from.
    pub(crate) fn policy(file: &Path, digests: &Digests) -> Self {
        let mut others = Object::new();
        for (path, sha256) in digests.iter().filter(|(path, _)| *path != file).take(MAX_TOUCHES) {
            others.set(path.display().to_string(), sha256.as_str());
        }
        let entry = Self::new("policy").with("file", file.display().to_string());
        let entry = entry.with("sha256", digests.get(file).map_or("", String::as_str));
        if others.is_empty() { entry } else { entry.with("others", others) }
    }
    /// Who wants it, through which door, under which chain.
    pub(crate) fn by(mut self, caller: &Caller) -> Self {
        let chain: Vec<Json> = caller.authority.chain().into_iter().map(Json::from).collect();
        self.0.set("principal", &*caller.principal);
        self.0.set("who", &*caller.who);
        if !caller.door.is_empty() {
            self.0.set("door", &*caller.door);
        }
        if let Some(run) = &caller.run {
            self.0.set("run", &**run);
        }
        self.0.set("chain", chain);
        self
    }
    /// What was decided, by which rule at which place.
    pub(crate) fn decided(self, decision: Decision<'_>) -> Self {
        match decision {
            Decision::Allow(rule) => self.ruled("allow", rule.text.clone(), rule.place.as_ref()),
            Decision::Ask(rule) => self.ruled("ask", rule.text.clone(), rule.place.as_ref()),
            Decision::Deny(denial) => {
                let rule = match &denial.who {
                    Some(who) => format!("{} at {who}", denial.rule),
                    // No table's rule: what follows may quote what was wrong with the wish.
                    None if denial.place.is_none() => before_quote(&denial.rule).to_owned(),
                    None => denial.rule.clone(),
                };
                self.ruled("deny", rule, denial.place.as_ref())
            }
        }
    }
    fn ruled(self, verdict: &str, rule: String, place: Option<&Place>) -> Self {
        let entry = self.with("verdict", verdict).with("rule", rule);
        match place {
            Some(place) => entry.with("place", place.to_string()),
            None => entry,
        }
    }
    /// The arguments as a digest and their form.
    pub(crate) fn arguments(self, audit: &Audit, arguments: &Json) -> Self {
        self.shaped(&audit.digest(arguments), arguments)
    }
    pub(super) fn shaped(self, digest: &str, arguments: &Json) -> Self {
        let mut left = ENTRIES;
        self.with("arguments", digest).with("form", form(arguments, DEPTH, &mut left))
    }
    /// The paths and hosts that are touched; of an address its host and port only.
    pub(crate) fn touching(mut self, touches: &[Touch]) -> Self {
        let shown = touches.iter().take(MAX_TOUCHES).map(|touch| match &touch.what {
            Touched::Path(FileOp::Read, path) => format!("read {}", path.display()),
            Touched::Path(FileOp::Write, path) => format!("write {}", path.display()),
            Touched::Host(host, port) => format!("connect {host}:{port}"),
            Touched::Unclear(_) => format!("unclear {}", touch.pointer),
        });
        let mut room = MAX_TOUCHED;
        let fits = |text: &String| {
            room = room.saturating_sub(text.len());
            room > 0
        };
        let mut shown: Vec<Json> = shown.map(cut).take_while(fits).map(Json::String).collect();
        if shown.len() < touches.len() {
            shown.push(format!("and {} more", touches.len() - shown.len()).into());
        }
        if !shown.is_empty() {
            self.0.set("touches", shown);
        }
        self
    }
    /// What came of the decision of record `of`.
    pub(crate) fn outcome(of: u64, outcome: &str, ms: u64) -> Self {
        Self::new("outcome").with("of", of).with("outcome", outcome).with("ms", ms)
    }
    pub(super) fn into_body(self) -> String {
        let mut text = String::new();
        self.0.write(&mut text);
        text[1..text.len() - 1].to_owned()
    }
}

fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(at);
        text.push('…');
    }
    text
}

fn before_quote(rule: &str) -> &str {
    let end = [": ", " (", "\"", "'"].iter().filter_map(|mark| rule.find(mark)).min();
    end.map_or(rule, |end| rule[..end].trim_end())
}

/// The names and kinds of values, and no value.
fn form(value: &Json, depth: usize, left: &mut usize) -> Json {
    match value {
        Json::Null => "null".into(),
        Json::Bool(_) => "boolean".into(),
        Json::Number(_) => "number".into(),
        Json::String(_) => "string".into(),
        Json::Array(items) if depth == 0 || items.is_empty() => format!("array of {}", items.len()).into(),
        Json::Array(items) => vec![form(&items[0], depth - 1, left), format!("{} in all", items.len()).into()].into(),
        Json::Object(entries) if depth == 0 || entries.is_empty() => format!("object of {}", entries.len()).into(),
        Json::Object(entries) => {
            let mut out = Object::new();
            for (key, value) in entries.iter().take(WIDTH) {
                let Some(fewer) = left.checked_sub(1) else { break };
                *left = fewer;
                out.set(cut_key(key), form(value, depth - 1, left));
            }
            let rest = entries.len() - out.len();
            if rest > 0 {
                out.set("…", format!("{rest} more"));
            }
            out.into()
        }
    }
}

/// A long key is data, not a name.
fn cut_key(key: &str) -> String {
    match key.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &key[..at]),
        None => key.to_owned(),
    }
}
