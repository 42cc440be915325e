//! `x-mcp-header`: arguments a server wants mirrored as `Mcp-Param-*` headers (MCP 2026-07-28,
//! transports, SEP-2243). A tool whose annotations break the rules is not used.

use crate::json::{Json, Object};
use std::collections::BTreeSet;

/// One mirrored argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamHeader {
    /// The keys that lead to it.
    pub path: Vec<String>,
    /// The header's name after `Mcp-Param-`.
    pub header: String,
}

impl ParamHeader {
    /// The argument as text, if it is there and not null.
    pub fn value(&self, arguments: &Json) -> Option<String> {
        let found = self.path.iter().try_fold(arguments, |value, key| value.get(key))?;
        match found {
            Json::String(text) => Some(text.clone()),
            Json::Bool(value) => Some(value.to_string()),
            Json::Number(number) => Some(number.lexeme().to_owned()),
            _ => None,
        }
    }
}

/// Reads the annotations of an input schema.
///
/// # Errors
/// The first one that breaks the rules.
pub(super) fn read(schema: &Json) -> Result<Vec<ParamHeader>, String> {
    let Json::Object(root) = schema else { return Ok(Vec::new()) };
    if root.get("x-mcp-header").is_some() {
        return Err("x-mcp-header stands at the root of inputSchema, not at a property".into());
    }
    let mut found = Vec::new();
    walk(root, true, &mut Vec::new(), &mut found)?;
    let mut seen = BTreeSet::new();
    match found.iter().find(|h| !seen.insert(h.header.to_ascii_lowercase())) {
        Some(twice) => Err(format!("x-mcp-header {:?} stands twice", twice.header)),
        None => Ok(found),
    }
}

fn walk(schema: &Object, on_chain: bool, path: &mut Vec<String>, found: &mut Vec<ParamHeader>) -> Result<(), String> {
    for (key, value) in schema.iter() {
        match key {
            "x-mcp-header" if !on_chain => {
                return Err("x-mcp-header stands where only `properties` may lead".into());
            }
            "x-mcp-header" => found.push(annotation(schema, value, path)?),
            // Instance data, not schemas.
            "default" | "const" | "enum" | "examples" => {}
            "properties" | "$defs" | "definitions" | "dependentSchemas" | "patternProperties" => {
                let chained = on_chain && key == "properties";
                for (name, inner) in value.as_object().into_iter().flat_map(Object::iter) {
                    path.push(name.to_owned());
                    if let Json::Object(inner) = inner {
                        walk(inner, chained, path, found)?;
                    }
                    path.pop();
                }
            }
            _ => match value {
                Json::Object(inner) => walk(inner, false, path, found)?,
                Json::Array(items) => {
                    for inner in items.iter().filter_map(Json::as_object) {
                        walk(inner, false, path, found)?;
                    }
                }
                _ => {}
            },
        }
    }
    Ok(())
}

fn annotation(schema: &Object, value: &Json, path: &[String]) -> Result<ParamHeader, String> {
    let shown = path.join(".");
    let header = value.as_str().ok_or_else(|| format!("x-mcp-header of {shown} is not a string"))?;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if header.is_empty() || !header.chars().all(token) {
        return Err(format!("x-mcp-header {header:?} of {shown} is no header name"));
    }
    match schema.get("type").and_then(Json::as_str) {
        Some("string" | "integer" | "boolean") => Ok(ParamHeader { path: path.to_vec(), header: header.to_owned() }),
        _ => Err(format!("x-mcp-header of {shown}: only a string, integer or boolean can be mirrored")),
    }
}
