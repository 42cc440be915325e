//! The policy file as text: parsed once, every value with its place, checked against its
//! [`shape`]. All errors are found in one pass, each at file:line:column with what is wrong and
//! the nearest right name.
//!
//! There is deliberately no serde structure here: serde stops at the first error and knows no
//! "not in this version". One description, [`shapes::FILE`], is the check, the JSON Schema
//! (`pleach schema`) and the list of keys. What leaves is a [`Node`] tree that
//! [`crate::resolve`] gives meaning to.

pub mod shape;
pub mod shapes;

use crate::place::Place;
use std::fmt;
use std::sync::Arc;
use toml::de::{DeTable, DeValue};

/// One thing wrong with a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    /// Where.
    pub place: Place,
    /// What, and what would be right.
    pub message: String,
    /// Whether the key is one of the design that this version does not serve yet.
    pub not_in_this_version: bool,
}

impl FileError {
    /// An error at a place.
    pub fn new(place: &Place, message: impl Into<String>) -> Self {
        Self { place: place.clone(), message: message.into(), not_in_this_version: false }
    }
}
impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { file, line, column } = &self.place;
        write!(f, "{file}:{line}:{column}: {}", self.message)
    }
}

/// All that is wrong, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileErrors(pub Vec<FileError>);

impl fmt::Display for FileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}
impl std::error::Error for FileErrors {}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where the value starts.
    pub place: Place,
    /// The value.
    pub value: Value,
}

/// The values a policy file can hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A date or time; no key takes one.
    Time,
    /// An array.
    List(Vec<Node>),
    /// A table: key, the key's place, value.
    Table(Vec<(String, Place, Node)>),
}

impl Node {
    /// The value under `key` of a table.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(k, _, _)| k == key).map(|(_, _, node)| node)
    }
    /// The place of `key` itself.
    pub fn key_place(&self, key: &str) -> Option<&Place> {
        self.entries().iter().find(|(k, _, _)| k == key).map(|(_, place, _)| place)
    }
    /// The entries of a table; none for anything else.
    pub fn entries(&self) -> &[(String, Place, Node)] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }
    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }
    /// The string, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
    /// The integer, if it is one.
    pub fn int(&self) -> Option<i64> {
        match self.value {
            Value::Int(n) => Some(n),
            _ => None,
        }
    }
    /// The number, if it is one.
    #[expect(clippy::cast_precision_loss, reason = "amounts, whose bounds are far below where it would show")]
    pub fn number(&self) -> Option<f64> {
        match self.value {
            Value::Int(n) => Some(n as f64),
            Value::Float(n) => Some(n),
            _ => None,
        }
    }
    /// The truth value, if it is one.
    pub fn bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(b) => Some(b),
            _ => None,
        }
    }
    /// The string under `key`.
    pub fn text_at(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Node::text)
    }
}

/// Reads and checks a policy file.
///
/// # Errors
/// Everything wrong with it. A syntax error hides the rest of its own table only.
pub fn read(file: &str, source: &str) -> Result<Node, FileErrors> {
    let file: Arc<str> = file.into();
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let (table, syntax) = DeTable::parse_recoverable(source);
    if !syntax.is_empty() {
        let errors = syntax.iter().map(|e| {
            let offset = e.span().map_or(0, |s| s.start);
            FileError::new(&Place::of(&file, source, offset), format!("not TOML: {}", e.message()))
        });
        return Err(FileErrors(errors.collect()));
    }
    let span = table.span();
    let root = node(&file, source, &DeValue::Table(table.into_inner()), span.start);
    let mut errors = Vec::new();
    shape::check(&root, &shapes::FILE, "", &mut errors);
    errors.sort_by(|a, b| a.place.cmp(&b.place));
    if errors.is_empty() { Ok(root) } else { Err(FileErrors(errors)) }
}

fn node(file: &Arc<str>, source: &str, value: &DeValue<'_>, offset: usize) -> Node {
    let place = Place::of(file, source, offset);
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Value::Int(n),
            Err(_) => Value::Float(f64::INFINITY),
        },
        DeValue::Float(n) => Value::Float(n.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(_) => Value::Time,
        DeValue::Array(items) => {
            Value::List(items.iter().map(|i| node(file, source, i.get_ref(), i.span().start)).collect())
        }
        DeValue::Table(table) => {
            let mut entries: Vec<_> = table
                .iter()
                .map(|(key, v)| {
                    let key_place = Place::of(file, source, key.span().start);
                    (key.get_ref().to_string(), key_place, node(file, source, v.get_ref(), v.span().start))
                })
                .collect();
            entries.sort_by(|a, b| a.1.cmp(&b.1));
            Value::Table(entries)
        }
    };
    Node { place, value }
}

/// A grant table that arrives as JSON: the `policy` of a spawn request. Checked like the file's.
///
/// # Errors
/// Everything wrong with it.
pub fn read_request(json: &crate::json::Json) -> Result<Node, FileErrors> {
    of_request(json, &shapes::GRANT, "policy")
}

/// A budget table that arrives as JSON: the `budget` of a spawn request.
///
/// # Errors
/// Everything wrong with it.
pub fn read_budget(json: &crate::json::Json) -> Result<Node, FileErrors> {
    of_request(json, &shapes::BUDGET, "budget")
}

fn of_request(json: &crate::json::Json, shape: &shape::Shape, at: &str) -> Result<Node, FileErrors> {
    let place = Place { file: "request".into(), line: 1, column: 1 };
    let root = from_json(json, &place);
    let mut errors = Vec::new();
    shape::check(&root, shape, at, &mut errors);
    if errors.is_empty() { Ok(root) } else { Err(FileErrors(errors)) }
}

fn from_json(json: &crate::json::Json, place: &Place) -> Node {
    use crate::json::Json;
    let value = match json {
        Json::Null => Value::Time,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => match n.lexeme().parse::<i64>() {
            Ok(n) => Value::Int(n),
            Err(_) => Value::Float(n.lexeme().parse().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(|i| from_json(i, place)).collect()),
        Json::Object(object) => {
            Value::Table(object.iter().map(|(k, v)| (k.to_owned(), place.clone(), from_json(v, place))).collect())
        }
    };
    Node { place: place.clone(), value }
}
