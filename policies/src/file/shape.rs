//! A small language to describe what may stand where. It checks a [`Node`] tree and prints
//! itself as JSON Schema.

use super::{FileError, Node, Value};
use crate::names::{Name, nearest};
use serde_json::{Map, Value as Json, json};

/// What may stand somewhere.
pub enum Shape {
    /// A table with known keys.
    Table(&'static [Key]),
    /// A table from names (of the given kind of thing) to values.
    Map(&'static str, &'static Shape),
    /// A table from a server's own tool names to values.
    Tools(&'static Shape),
    /// A table from any string to strings.
    Texts,
    /// A list.
    List(&'static Shape),
    /// A string, or a list of several, with its own check.
    TextOrList(fn(&str) -> Result<(), Flaw>),
    /// A string, with its own check.
    Text(fn(&str) -> Result<(), Flaw>),
    /// One of these words; those in the second list are not served yet.
    Word(&'static [&'static str], &'static [&'static str]),
    /// An integer within bounds.
    Int(i64, i64),
    /// A number from zero up to this one.
    Number(f64),
    /// A table of any form, or a string with its own check.
    TableOr(fn(&str) -> Result<(), Flaw>),
    /// A truth value.
    Bool,
    /// A key of the design whose inner shape does not matter before it is served.
    Anything,
}

/// A key of a table.
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// One line for the schema.
    pub doc: &'static str,
    /// What may stand there.
    pub shape: Shape,
    /// Whether this version serves it.
    pub served: bool,
}

/// What a string check found.
pub enum Flaw {
    /// Wrong, with what would be right.
    Wrong(String),
    /// Of the design, but not served yet.
    NotYet(String),
}

/// Collects everything wrong with `node`. `at` is the dotted path so far.
pub fn check(node: &Node, shape: &Shape, at: &str, errors: &mut Vec<FileError>) {
    let mut wrong = |message: String| errors.push(FileError::new(&node.place, message));
    match (shape, &node.value) {
        (Shape::Table(keys), Value::Table(_)) => table(node, keys, at, errors),
        (Shape::Map(kind, shape), Value::Table(entries)) => {
            for (name, place, value) in entries {
                if let Err(e) = Name::try_from(name.as_str()) {
                    errors.push(FileError::new(place, format!("{name:?} is no name for {kind}: {e}")));
                }
                check(value, shape, &join(at, name), errors);
            }
        }
        (Shape::Tools(shape), Value::Table(entries)) => {
            for (name, _, value) in entries {
                check(value, shape, &join(at, name), errors);
            }
        }
        (Shape::Texts, Value::Table(entries)) => {
            for (name, _, value) in entries {
                if value.text().is_none() {
                    let message = format!("{} is a string, not {}", join(at, name), kind(&value.value));
                    errors.push(FileError::new(&value.place, message));
                }
            }
        }
        (Shape::List(shape), Value::List(items)) => {
            for item in items {
                check(item, shape, at, errors);
            }
        }
        (Shape::TextOrList(test), Value::List(items)) => {
            if items.is_empty() {
                wrong(format!("{at} names none; name one or more"));
            }
            for item in items {
                check(item, &Shape::Text(*test), at, errors);
            }
        }
        (Shape::Text(test) | Shape::TableOr(test) | Shape::TextOrList(test), Value::Text(text)) => match test(text) {
            Ok(()) => {}
            Err(Flaw::Wrong(message)) => wrong(format!("{at}: {message}")),
            Err(Flaw::NotYet(what)) => errors.push(not_yet(node, &format!("{at} = {what}"))),
        },
        (Shape::Word(served, later), Value::Text(word)) => {
            if later.contains(&word.as_str()) {
                errors.push(not_yet(node, &format!("{at} = {word:?}")));
            } else if !served.contains(&word.as_str()) {
                let hint = nearest(word, served.iter().copied()).map(|n| format!("; did you mean {n:?}?"));
                let all = [*served, *later].concat().join(", ");
                wrong(format!("{at} is one of {all}, not {word:?}{}", hint.unwrap_or_default()));
            }
        }
        (Shape::Int(min, max), Value::Int(n)) => {
            if !(min..=max).contains(&n) {
                wrong(format!("{at} lies between {min} and {max}, not at {n}"));
            }
        }
        (Shape::Number(max), Value::Int(_) | Value::Float(_)) => {
            let n = node.number().unwrap_or(f64::NAN);
            if !(0.0..=*max).contains(&n) {
                wrong(format!("{at} lies between 0 and {max}, not at {n}"));
            }
        }
        (Shape::Bool, Value::Bool(_)) | (Shape::TableOr(_), Value::Table(_)) | (Shape::Anything, _) => {}
        (expected, found) => {
            let name = if at.is_empty() { "the file" } else { at };
            wrong(format!("{name} is {}, not {}", expected.kind(), kind(found)));
        }
    }
}

fn table(node: &Node, keys: &[Key], at: &str, errors: &mut Vec<FileError>) {
    for (name, place, value) in node.entries() {
        let Some(key) = keys.iter().find(|k| k.name == name) else {
            let hint = match nearest(name, keys.iter().map(|k| k.name)) {
                Some(near) => format!("; did you mean {near:?}?"),
                None => format!("; known here: {}", keys.iter().map(|k| k.name).collect::<Vec<_>>().join(", ")),
            };
            let where_ = if at.is_empty() { String::new() } else { format!(" in [{at}]") };
            errors.push(FileError::new(place, format!("unknown key {name:?}{where_}{hint}")));
            continue;
        };
        let path = join(at, name);
        if key.served {
            check(value, &key.shape, &path, errors);
        } else {
            let mut error = not_yet(value, &path);
            error.place = place.clone();
            errors.push(error);
        }
    }
}

fn not_yet(node: &Node, what: &str) -> FileError {
    let message = format!("{what} is not in this version of pleach; remove it");
    FileError { place: node.place.clone(), message, not_in_this_version: true }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Text(_) => "a string",
        Value::Int(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Bool(_) => "true or false",
        Value::Time => "a date or time",
        Value::List(_) => "a list",
        Value::Table(_) => "a table",
    }
}

impl Shape {
    fn kind(&self) -> &'static str {
        match self {
            Shape::Table(_) | Shape::Map(..) | Shape::Tools(_) | Shape::Texts => "a table",
            Shape::List(_) => "a list",
            Shape::Text(_) | Shape::Word(..) => "a string",
            Shape::Int(..) => "an integer",
            Shape::Number(_) => "a number",
            Shape::TableOr(_) => "a table or a string",
            Shape::TextOrList(_) => "a string or a list",
            Shape::Bool => "true or false",
            Shape::Anything => "a value",
        }
    }
    /// This shape as JSON Schema.
    pub fn schema(&self) -> Json {
        match self {
            Shape::Table(keys) => {
                let mut properties = Map::new();
                for key in keys.iter() {
                    let mut schema = key.shape.schema();
                    if let Json::Object(object) = &mut schema {
                        let doc =
                            if key.served { key.doc.to_owned() } else { format!("{} (not in this version)", key.doc) };
                        object.insert("description".into(), doc.into());
                        if !key.served {
                            object.insert("not".into(), json!({}));
                        }
                    }
                    properties.insert(key.name.into(), schema);
                }
                json!({ "type": "object", "properties": properties, "additionalProperties": false })
            }
            Shape::Map(_, shape) => json!({
                "type": "object",
                "propertyNames": { "pattern": "^(?!.*__)[A-Za-z0-9_-]{1,48}$" },
                "additionalProperties": shape.schema(),
            }),
            Shape::Tools(shape) => json!({ "type": "object", "additionalProperties": shape.schema() }),
            Shape::Texts => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            Shape::List(shape) => json!({ "type": "array", "items": shape.schema() }),
            Shape::Text(_) => json!({ "type": "string" }),
            Shape::TextOrList(_) => json!({ "type": ["string", "array"], "items": { "type": "string" } }),
            Shape::Word(served, _) => json!({ "type": "string", "enum": served }),
            Shape::Int(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
            Shape::Number(max) => json!({ "type": "number", "minimum": 0, "maximum": max }),
            Shape::TableOr(_) => json!({ "type": ["object", "string"] }),
            Shape::Bool => json!({ "type": "boolean" }),
            Shape::Anything => json!({}),
        }
    }
}
