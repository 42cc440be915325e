//! Tool manifests: what a server says it offers, read without trust.
//!
//! Importing costs a bad tool, never the list: each entry is taken or rejected on its own, with
//! the reason. A tool keeps the server's definition untouched for the relay and adds what
//! policy needs to know: the access class and who said so, the compiled input schema, which
//! arguments are paths and hosts, and a canonical hash.

mod alike;
mod effect;
mod headers;
mod hidden;
mod map;
mod offers;
mod schema;
mod touch;
mod uris;

pub use alike::{looks, near};
pub use headers::ParamHeader;
pub use hidden::{Hidden, first_hidden, hidden_in, visible};
pub use map::{NameMap, OfferMap, Offering, RESERVED};
pub use offers::{Offers, Prompt, Resource, offers};
pub use schema::{Schema, SchemaError};
pub use touch::{RawTouch, RawTouched, guess, of_uri};
pub use uris::Uris;

use crate::action::Effect;
use crate::json::{Json, Object, digest};
use crate::names::Name;
use crate::permission::Access;
use crate::place::Place;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::OnceLock;

/// Tools of one list beyond this are rejected.
pub const MAX_TOOLS: usize = 10_000;

/// Who decided a tool's access class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessFrom {
    /// The operator's word for the tool.
    Operator(Option<Place>),
    /// The server's `default_access`.
    Default(Option<Place>),
    /// Its annotations: believed, or raising the default.
    Annotations,
    /// The built-in server that ships with Pleach.
    Builtin,
    /// Nobody; it counts as destructive.
    Unclassified,
}
impl fmt::Display for AccessFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessFrom::Operator(Some(p)) => write!(f, "by the operator, {p}"),
            AccessFrom::Operator(None) => f.write_str("by the operator"),
            AccessFrom::Default(Some(p)) => write!(f, "by default_access, {p}"),
            AccessFrom::Default(None) => f.write_str("by default_access"),
            AccessFrom::Annotations => f.write_str("by its annotations"),
            AccessFrom::Builtin => f.write_str("built in"),
            AccessFrom::Unclassified => f.write_str("unclassified"),
        }
    }
}

/// How a server's tools are named outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefix {
    /// `server__tool`
    #[default]
    Always,
    /// The bare name where it is unique among all servers, else with prefix.
    Auto,
    /// The bare name; a collision quarantines the tool.
    None,
}

/// The operator's words for one tool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolWords {
    /// `access`
    pub access: Option<(Access, Option<Place>)>,
    /// `path_args`: JSON pointers; complete when present.
    pub path_args: Option<Vec<String>>,
    /// `url_args`: JSON pointers; complete when present.
    pub url_args: Option<Vec<String>>,
    /// `rename`
    pub rename: Option<String>,
    /// `effect`
    pub effect: Option<Effect>,
    /// `verify_with`: the server's own name of the tool.
    pub verify_with: Option<String>,
}

/// What the policy file says about a server's tools.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerWords {
    /// `default_access`
    pub default_access: Option<(Access, Option<Place>)>,
    /// `annotations = "trust"`
    pub trust_annotations: bool,
    /// `prefix`
    pub prefix: Prefix,
    /// `[servers.x.tools.y]` by the server's own tool name.
    pub tools: BTreeMap<String, ToolWords>,
    /// The server ships with Pleach: its own words are the operator's.
    pub builtin: bool,
    /// It is an A2A peer, which may be passed a message as it is.
    pub peer: bool,
    /// SHA-256 of who it is ([`crate::resolve::ServerSpec::identity`]), hexadecimal.
    pub identity: String,
}

/// Beside the arguments of a peer's skill: a message that is passed on as it is. No schema names it,
/// and whoever calls the skill as a tool may not give it.
pub const PASSED: &str = "a2a";

/// An imported tool.
#[derive(Debug, Clone)]
pub struct Tool {
    /// The name outside, as rules and models see it.
    pub name: String,
    /// The server.
    pub server: Name,
    /// The server's own name for it.
    pub upstream: String,
    /// Its access class.
    pub access: Access,
    /// Who decided the class.
    pub access_from: AccessFrom,
    /// What a repetition would do.
    pub effect: Effect,
    /// The tool of the same server, by its own name, that tells whether a lost call happened;
    /// there exactly when the effect is verifiable.
    pub verify_with: Option<String>,
    /// The definition as received.
    pub definition: Object,
    /// SHA-256 of the canonical definition, hexadecimal.
    pub hash: String,
    /// SHA-256 of who its server is, hexadecimal: another command or address is another server,
    /// whatever it says of itself.
    pub identity: String,
    /// Arguments to be mirrored as headers.
    pub headers: Vec<ParamHeader>,
    /// It is a peer's skill.
    peer: bool,
    schema: Schema,
    /// Of `outputSchema`, made when an output is first looked at.
    output: OnceLock<Option<Schema>>,
    touches: touch::Pointers,
}

/// What became of a list.
#[derive(Debug, Default)]
pub struct Imported {
    /// The good ones, in the server's order.
    pub tools: Vec<Tool>,
    /// The others: name as far as it could be read, and the reason.
    pub rejected: Vec<(String, String)>,
    /// Good ones that are less than the policy file says: name and reason.
    pub notes: Vec<(String, String)>,
}

/// Reads the `tools` array of a `tools/list` result.
pub fn import(server: &Name, words: &ServerWords, list: &[Json]) -> Imported {
    let mut imported = Imported::default();
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for name in list.iter().filter_map(|t| t.get("name").and_then(Json::as_str)) {
        *count.entry(name).or_default() += 1;
    }
    let twice: BTreeSet<&str> = count.into_iter().filter(|(_, n)| *n > 1).map(|(name, _)| name).collect();
    for (at, definition) in list.iter().enumerate() {
        let shown = definition.get("name").and_then(Json::as_str).unwrap_or("").to_owned();
        if at >= MAX_TOOLS {
            imported.rejected.push((shown, format!("more than {MAX_TOOLS} tools")));
            continue;
        }
        if twice.contains(shown.as_str()) {
            imported.rejected.push((shown, "listed twice; neither is used".into()));
            continue;
        }
        match Tool::import(server, words, definition) {
            Ok(tool) => imported.tools.push(tool),
            Err(why) => imported.rejected.push((shown, why)),
        }
    }
    imported.notes = effect::check_verifiers(&mut imported.tools);
    imported
}

/// Whether a value fits a JSON Schema: compiled offline and bounded, like a tool's.
///
/// # Errors
/// What does not fit, or what is wrong with the schema.
pub fn fits(schema: &Json, value: &Json) -> Result<(), String> {
    Schema::compile(schema).map_err(|e| format!("the schema is invalid: {e}"))?.check(value)
}

impl Tool {
    fn import(server: &Name, words: &ServerWords, definition: &Json) -> Result<Tool, String> {
        let object = definition.as_object().ok_or("the definition is not an object")?;
        let upstream = object.get("name").and_then(Json::as_str).ok_or("it has no name")?;
        if upstream.is_empty() || upstream.len() > 128 {
            return Err("its name has not 1 to 128 characters".into());
        }
        if let Some(bad) = upstream.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))) {
            return Err(format!("its name holds {bad:?}; letters, digits, `_`, `-` and `.` are accepted"));
        }
        if object.get("description").is_some_and(|d| d.as_str().is_none()) {
            return Err("its description is not a string".into());
        }
        let input = object.get("inputSchema").ok_or("it has no inputSchema")?;
        if input.get("type").and_then(Json::as_str) != Some("object") {
            return Err("its inputSchema is not of type \"object\"".into());
        }
        let schema = Schema::compile(input).map_err(|e| format!("its inputSchema is invalid: {e}"))?;
        let own = words.tools.get(upstream);
        let annotations = object.get("annotations");
        let (access, access_from) = classify(words, own, annotations);
        let effect = effect::classify(words, own, access, annotations);
        let bare = own.and_then(|w| w.rename.as_deref()).unwrap_or(upstream);
        if words.prefix != Prefix::Always && bare.contains("__") {
            return Err("its name holds `__`, which without a prefix would look like another server's tool".into());
        }
        let name = match words.prefix {
            Prefix::Always => format!("{server}__{bare}"),
            Prefix::Auto | Prefix::None => bare.to_owned(),
        };
        Ok(Tool {
            name,
            server: server.clone(),
            upstream: upstream.to_owned(),
            access,
            access_from,
            effect,
            verify_with: own.and_then(|w| w.verify_with.clone()),
            hash: digest(&definition.to_canonical()),
            identity: words.identity.clone(),
            headers: headers::read(input)?,
            peer: words.peer,
            schema,
            output: OnceLock::new(),
            touches: touch::Pointers::new(own, words.builtin, input),
            definition: object.clone(),
        })
    }
    /// Checks arguments against the input schema.
    ///
    /// # Errors
    /// What does not fit, for the caller to correct.
    pub fn check_arguments(&self, arguments: &Json) -> Result<(), String> {
        match arguments {
            Json::Object(given) if self.peer && given.get(PASSED).is_some() => {
                let mut bare = given.clone();
                bare.remove(PASSED);
                self.fits(&Json::Object(bare))
            }
            _ => self.fits(arguments),
        }
    }
    fn fits(&self, arguments: &Json) -> Result<(), String> {
        let outcome = self.schema.check(arguments);
        // Models write null for what they leave out, and servers take it so.
        match (&outcome, arguments) {
            (Err(_), Json::Object(given)) if given.iter().any(|(_, v)| *v == Json::Null) => {
                let required = self.definition.get("inputSchema").and_then(|s| s.get("required"));
                let required = required.and_then(Json::as_array).unwrap_or_default();
                let left_out =
                    |key: &str, value: &Json| *value == Json::Null && !required.iter().any(|r| r.as_str() == Some(key));
                let kept = given.iter().filter(|(k, v)| !left_out(k, v)).map(|(k, v)| (k.to_owned(), v.clone()));
                self.schema.check(&Json::Object(kept.collect())).or(outcome)
            }
            _ => outcome,
        }
    }
    /// What of a result's `structuredContent` is not as `outputSchema` says (MCP, server features:
    /// a client should check). Nothing where either is absent, or the schema is no schema.
    pub fn unlike_declared(&self, result: &Json) -> Option<String> {
        let declared = self.definition.get("outputSchema")?;
        if result.get("isError").and_then(Json::as_bool) == Some(true) {
            return None;
        }
        let Some(content) = result.get("structuredContent") else {
            return Some("structuredContent is missing".into());
        };
        let schema = self.output.get_or_init(|| Schema::compile(declared).ok()).as_ref()?;
        schema.check(content).err()
    }
    /// The paths and hosts among arguments, unresolved.
    pub fn touches(&self, arguments: &Json) -> Vec<RawTouch> {
        let mut found = self.touches.find(arguments);
        if self.peer {
            found.retain(|touch| !is_label(&touch.pointer));
        }
        found
    }
    /// The class its annotations alone amount to, and the word for why; what
    /// `pleach tools --suggest` prints.
    pub fn suggested(&self) -> Access {
        hinted(self.definition.get("annotations")).unwrap_or(Access::Destructive)
    }
    /// The class its annotations claim, when they say anything.
    pub fn hinted(&self) -> Option<Access> {
        hinted(self.definition.get("annotations"))
    }
    /// The definition under the outside name.
    pub fn outside_definition(&self) -> Json {
        let mut definition = self.definition.clone();
        definition.set("name", self.name.as_str());
        Json::Object(definition)
    }
    /// Gives the tool its prefixed name after all (`prefix = "auto"` and a collision).
    pub fn prefixed(mut self) -> Self {
        self.name = format!("{}__{}", self.server, self.name);
        self
    }
}

/// Whether an argument is a mere name in a message that is passed on: what a file part is called, and
/// the extensions a message speaks of. Nobody opens either.
fn is_label(pointer: &str) -> bool {
    let mut parts = pointer.strip_prefix('/').unwrap_or(pointer).split('/');
    if parts.next() != Some(PASSED) || parts.next() != Some("message") {
        return false;
    }
    matches!(
        (parts.next(), parts.next(), parts.next(), parts.next()),
        (Some("extensions"), Some(_), None, None) | (Some("parts"), Some(_), Some("filename"), None)
    )
}

/// What annotations amount to, when they say anything (MCP `ToolAnnotations`).
fn hinted(annotations: Option<&Json>) -> Option<Access> {
    let hint = |key: &str| annotations.and_then(|a| a.get(key)).and_then(Json::as_bool);
    match (hint("readOnlyHint"), hint("destructiveHint")) {
        (Some(true), _) => Some(Access::ReadOnly),
        (_, Some(true)) => Some(Access::Destructive),
        (_, Some(false)) => Some(Access::ReadWrite),
        (Some(false), None) => Some(Access::Destructive),
        (None, None) => None,
    }
}

/// The least class that explicit hints admit, for raising a default.
fn raised(annotations: Option<&Json>) -> Access {
    let hint = |key: &str| annotations.and_then(|a| a.get(key)).and_then(Json::as_bool);
    match (hint("readOnlyHint"), hint("destructiveHint")) {
        (Some(true), _) => Access::ReadOnly,
        (_, Some(true)) => Access::Destructive,
        (Some(false), _) => Access::ReadWrite,
        _ => Access::ReadOnly,
    }
}

fn classify(words: &ServerWords, own: Option<&ToolWords>, annotations: Option<&Json>) -> (Access, AccessFrom) {
    if let Some((access, place)) = own.and_then(|w| w.access.clone()) {
        return (access, AccessFrom::Operator(place));
    }
    if words.builtin {
        return (hinted(annotations).unwrap_or(Access::Destructive), AccessFrom::Builtin);
    }
    if let Some((access, place)) = words.default_access.clone() {
        let floor = raised(annotations);
        return if floor > access { (floor, AccessFrom::Annotations) } else { (access, AccessFrom::Default(place)) };
    }
    match hinted(annotations).filter(|_| words.trust_annotations) {
        Some(access) => (access, AccessFrom::Annotations),
        None => (Access::Destructive, AccessFrom::Unclassified),
    }
}
