//! The lock file as text: JSON whose order depends on nothing but what it holds, with every
//! hidden character spelled out, so that a reviewer reads in a diff what a model would.

use super::{PinnedServer, PinnedTool, Pins};
use crate::file::FileError;
use crate::json::{Json, Limits, Object};
use crate::manifest::first_hidden;
use crate::names::Name;
use crate::place::Place;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

const VERSION: u64 = 1;
/// What a lock file may be.
const LIMITS: Limits = Limits { bytes: 64 << 20, depth: 140 };

/// Reads one.
pub(super) fn read(file: &Arc<str>, source: &str) -> Result<Pins, FileError> {
    let at = |offset: usize, why: String| {
        let cure = "restore it from version control, or remove it and run `pleach pin`";
        FileError::new(&Place::of(file, source, offset), format!("{why}; {cure}"))
    };
    let json = Json::parse(source.as_bytes(), LIMITS).map_err(|e| at(e.offset, format!("no lock file: {}", e.kind)))?;
    let reader = Reader { source, at: &at };
    reader.pins(&json)
}

struct Reader<'a> {
    source: &'a str,
    at: &'a dyn Fn(usize, String) -> FileError,
}

impl Reader<'_> {
    /// An error where a text stands for the first time.
    fn error(&self, near: &str, why: impl Into<String>) -> FileError {
        (self.at)(self.source.find(near).unwrap_or(0), why.into())
    }
    fn object<'a>(&self, json: Option<&'a Json>, near: &str, keys: &[&str]) -> Result<&'a Object, FileError> {
        let Some(Json::Object(object)) = json else { return Err(self.error(near, format!("{near} is no object"))) };
        match object.iter().find(|(key, _)| !keys.is_empty() && !keys.contains(key)) {
            Some((key, _)) => Err(self.error(&format!("\"{key}\""), format!("the key {key:?} is not known here"))),
            None => Ok(object),
        }
    }

    fn pins(&self, json: &Json) -> Result<Pins, FileError> {
        let root = self.object(Some(json), "", &["version", "servers"])?;
        if root.get("version").and_then(Json::as_u64) != Some(VERSION) {
            return Err(self.error("\"version\"", format!("this version reads lock files of version {VERSION}")));
        }
        let mut pins = Pins::default();
        for (key, server) in self.object(root.get("servers"), "\"servers\"", &[])?.iter() {
            let near = format!("\"{key}\"");
            let name = Name::try_from(key).map_err(|e| self.error(&near, format!("server {key:?}: {e}")))?;
            pins.servers.insert(name, Arc::new(self.server(server, &near)?));
        }
        Ok(pins)
    }

    fn server(&self, json: &Json, near: &str) -> Result<PinnedServer, FileError> {
        let server = self.object(Some(json), near, &["identity", "instructions", "tools"])?;
        let identity = self.object(server.get("identity"), near, &[])?.clone();
        let instructions = match server.get("instructions") {
            None => None,
            Some(Json::String(text)) => Some(text.clone()),
            Some(_) => return Err(self.error(near, "instructions is no text")),
        };
        let mut tools = BTreeMap::new();
        for (name, tool) in self.object(server.get("tools"), near, &[])?.iter() {
            let near = format!("\"{name}\"");
            let tool = self.object(Some(tool), &near, &["sha256", "definition"])?;
            let definition = self.object(tool.get("definition"), &near, &[])?.clone();
            let hash = tool.get("sha256").and_then(Json::as_str).unwrap_or("");
            let pinned = PinnedTool::new(definition.into());
            if pinned.hash != hash || pinned.definition.get("name").and_then(Json::as_str) != Some(name) {
                let why = format!("the sha256 of tool {name:?} does not fit its definition: one of them was edited");
                return Err(self.error(if hash.is_empty() { &near } else { hash }, why));
            }
            tools.insert(name.to_owned(), pinned);
        }
        Ok(PinnedServer { identity: identity.into(), instructions, tools })
    }
}

/// Writes one.
pub(super) fn write(pins: &Pins) -> String {
    let mut servers = Object::new();
    for (name, server) in &pins.servers {
        let mut tools = Object::new();
        for (name, tool) in &server.tools {
            let hash = Json::String(tool.hash.clone());
            tools.set(name.as_str(), Json::object([("sha256", hash), ("definition", sorted(&tool.definition))]));
        }
        let mut out = Object::new();
        out.set("identity", sorted(&server.identity));
        if let Some(text) = &server.instructions {
            out.set("instructions", text.as_str());
        }
        out.set("tools", tools);
        servers.set(name.as_str(), out);
    }
    let root = Json::object([("version", VERSION.into()), ("servers", servers.into())]);
    let mut text = String::new();
    pretty(&root, 0, &mut text);
    text.push('\n');
    text
}

fn sorted(json: &Json) -> Json {
    match json {
        Json::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            Json::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), sorted(value))).collect())
        }
        Json::Array(items) => items.iter().map(sorted).collect::<Vec<_>>().into(),
        other => other.clone(),
    }
}

fn pretty(json: &Json, depth: usize, out: &mut String) {
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    match json {
        Json::Object(object) if !object.is_empty() => {
            out.push('{');
            for (i, (key, value)) in object.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                line(out, depth + 1);
                quote(key, out);
                out.push_str(": ");
                pretty(value, depth + 1, out);
            }
            line(out, depth);
            out.push('}');
        }
        Json::Array(items) if items.iter().any(|i| matches!(i, Json::Object(_) | Json::Array(_))) => {
            out.push('[');
            for (i, value) in items.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                line(out, depth + 1);
                pretty(value, depth + 1, out);
            }
            line(out, depth);
            out.push(']');
        }
        Json::Array(items) => {
            out.push('[');
            for (i, value) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                pretty(value, depth, out);
            }
            out.push(']');
        }
        Json::String(text) => quote(text, out),
        other => other.write(out),
    }
}

/// A string in which nothing stays hidden.
fn quote(text: &str, out: &mut String) {
    let mut quoted = String::new();
    crate::json::quote(text, &mut quoted);
    if first_hidden(text).is_none() {
        out.push_str(&quoted);
        return;
    }
    for c in quoted.chars() {
        if c.is_ascii() && !c.is_ascii_control() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
}
