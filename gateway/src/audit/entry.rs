//! What a record says, put together field by field. Values of arguments have no way in.

use super::Audit;
use crate::settings::Digests;
use policies::action::{Touch, Touched};
use policies::fs::FileOp;
use policies::json::{Json, Limits, Object, quote};
use policies::place::Place;
use std::borrow::Cow;
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

/// The inside of a record, as it will be written: each call has one, so it is put together as text.
/// No field is said twice.
pub(crate) struct Entry(String);

/// Bytes that hold most of them.
const USUAL: usize = 640;

impl Entry {
    pub(crate) fn new(what: &str) -> Self {
        Self::bare().with("what", what)
    }
    /// Nothing yet, not even what it is about.
    pub(crate) fn bare() -> Self {
        Self(String::with_capacity(USUAL))
    }
    /// Of what is not put on record, or is by whoever uses it.
    pub(crate) fn none() -> Self {
        Self(String::new())
    }
    pub(crate) fn with(mut self, key: &str, value: impl Said) -> Self {
        value.say(self.field(key));
        self
    }
    /// What `rest` says comes next.
    pub(crate) fn and(mut self, rest: &Entry) -> Self {
        if !rest.0.is_empty() {
            self.0.push(',');
            self.0.push_str(&rest.0);
        }
        self
    }
    /// Where the value of a field is to be written.
    fn field(&mut self, key: &str) -> &mut String {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        quote(key, &mut self.0);
        self.0.push(':');
        &mut self.0
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
        for (key, text) in [("principal", &*caller.principal), ("who", &caller.who), ("door", &caller.door)] {
            if key != "door" || !text.is_empty() {
                quote(text, self.field(key));
            }
        }
        if let Some(run) = &caller.run {
            quote(run, self.field("run"));
        }
        let out = self.field("chain");
        out.push('[');
        for (n, who) in caller.authority.chain().iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            quote(who, out);
        }
        out.push(']');
        self
    }
    /// What was decided, by which rule at which place.
    pub(crate) fn decided(self, decision: Decision<'_>) -> Self {
        match decision {
            Decision::Allow(rule) => self.ruled("allow", &rule.text, rule.place.as_ref()),
            Decision::Ask(rule) => self.ruled("ask", &rule.text, rule.place.as_ref()),
            Decision::Deny(denial) => {
                let rule = match &denial.who {
                    Some(who) => format!("{} at {who}", denial.rule),
                    // No table's rule: what follows may quote what was wrong with the wish.
                    None if denial.place.is_none() => before_quote(&denial.rule).to_owned(),
                    None => denial.rule.clone(),
                };
                self.ruled("deny", &rule, denial.place.as_ref())
            }
        }
    }
    fn ruled(self, verdict: &str, rule: &str, place: Option<&Place>) -> Self {
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
    pub(crate) fn touching(self, touches: &[Touch]) -> Self {
        let shown = touches.iter().take(MAX_TOUCHES).map(|touch| match &touch.what {
            Touched::Path(FileOp::Read, path) => format!("read {}", path.display()),
            Touched::Path(FileOp::Write, path) => format!("write {}", path.display()),
            Touched::Host(host, port) => format!("connect {host}:{port}"),
            Touched::Unclear(_) => format!("unclear {}", touch.pointer),
        });
        if touches.is_empty() {
            return self;
        }
        let mut room = MAX_TOUCHED;
        let fits = |text: &String| {
            room = room.saturating_sub(text.len());
            room > 0
        };
        let cut = |text: String| short(&text).into_owned();
        let mut shown: Vec<Json> = shown.map(cut).take_while(fits).map(Json::String).collect();
        if shown.len() < touches.len() {
            shown.push(format!("and {} more", touches.len() - shown.len()).into());
        }
        self.with("touches", shown)
    }
    /// What came of the decision of record `of`.
    pub(crate) fn outcome(of: u64, outcome: &str, ms: u64) -> Self {
        Self::new("outcome").with("of", of).with("outcome", outcome).with("ms", ms)
    }
    pub(super) fn into_body(self) -> String {
        debug_assert!(
            Json::parse(format!("{{{}}}", self.0).as_bytes(), Limits::default()).is_ok(),
            "a field is said twice, or one is no JSON: {}",
            self.0
        );
        self.0
    }
}

/// What a field can say.
pub(crate) trait Said {
    fn say(&self, out: &mut String);
}

impl Said for &str {
    fn say(&self, out: &mut String) {
        quote(&short(self), out);
    }
}
impl Said for String {
    fn say(&self, out: &mut String) {
        self.as_str().say(out);
    }
}
impl Said for u64 {
    fn say(&self, out: &mut String) {
        super::record::digits(*self, out);
    }
}
impl Said for bool {
    fn say(&self, out: &mut String) {
        out.push_str(if *self { "true" } else { "false" });
    }
}
impl Said for Json {
    fn say(&self, out: &mut String) {
        match self {
            Json::String(text) => text.say(out),
            other => other.write(out),
        }
    }
}
impl Said for Object {
    fn say(&self, out: &mut String) {
        self.write(out);
    }
}
impl Said for Vec<Json> {
    fn say(&self, out: &mut String) {
        out.push('[');
        for (n, item) in self.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            item.write(out);
        }
        out.push(']');
    }
}

/// A text of [`MAX_TEXT`] characters at most.
fn short(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT {
        return Cow::Borrowed(text);
    }
    match text.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => Cow::Owned(format!("{}…", &text[..at])),
        None => Cow::Borrowed(text),
    }
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
