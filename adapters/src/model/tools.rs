//! Tools as providers take them. They know fewer names and fewer schemas than MCP does, and
//! refuse a whole request for one tool they dislike.

use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use subagents::ports::ToolSpec;

/// The longest name all providers take.
const MAX_NAME: usize = 64;

fn plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn cleaned(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' }).collect()
}

/// The name a provider is told. The same for a tool always, so that caches hold and a
/// conversation of yesterday still fits.
pub(super) fn wire_name(name: &str) -> Cow<'_, str> {
    if plain(name) && name.len() <= MAX_NAME {
        return Cow::Borrowed(name);
    }
    let hash = digest(&SHA256, name.as_bytes());
    let hash: String = hash.as_ref().iter().take(4).map(|b| format!("{b:02x}")).collect();
    let mut short = cleaned(name);
    short.truncate(MAX_NAME - 9);
    Cow::Owned(format!("{short}_{hash}"))
}

/// The tool a provider means.
pub(super) fn own_name(tools: &[ToolSpec], wire: &str) -> String {
    let found = tools.iter().find(|t| wire_name(&t.name) == wire);
    found.map_or_else(|| wire.to_owned(), |t| t.name.clone())
}

/// An id of a call as every provider takes it.
pub(super) fn wire_id(id: &str) -> Cow<'_, str> {
    match plain(id) {
        true => Cow::Borrowed(id),
        false => Cow::Owned(cleaned(id)),
    }
}

/// The schema a provider is told: that of an object, without alternatives at its top, which
/// they refuse. The guard holds calls to the whole of it all the same.
pub(super) fn schema(schema: &Value) -> Value {
    let mut schema = match schema {
        Value::Object(schema) => schema.clone(),
        _ => Map::new(),
    };
    for word in ["oneOf", "anyOf", "allOf"] {
        schema.remove(word);
    }
    schema.insert("type".into(), json!("object"));
    Value::Object(schema)
}

/// Gives calls ids that are there, that providers take and that no two of them share. `taken`
/// says of what came before whether an id is in it.
pub(super) fn settle_id(id: &str, place: usize, turn: usize, taken: &dyn Fn(&str) -> bool) -> String {
    let id = match id.is_empty() {
        true => format!("call_{turn}_{place}"),
        false => wire_id(id).into_owned(),
    };
    if taken(&id) { format!("{id}_{turn}_{place}") } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_fit_and_come_back() {
        assert_eq!(wire_name("files__Read"), "files__Read");
        let long = "x".repeat(80);
        let odd: Vec<ToolSpec> = ["a.b/c", "a_b.c", long.as_str(), "größe"]
            .into_iter()
            .map(|name| ToolSpec { name: name.into(), description: String::new(), input_schema: json!({}) })
            .collect();
        for tool in &odd {
            let wire = wire_name(&tool.name);
            assert!(plain(&wire) && wire.len() <= MAX_NAME, "{wire}");
            assert_eq!(own_name(&odd, &wire), tool.name);
        }
        assert_eq!(own_name(&odd, "never_seen"), "never_seen");
    }

    #[test]
    fn schemas_are_of_objects() {
        let given = json!({ "properties": { "a": { "anyOf": [] } }, "anyOf": [{ "required": ["a"] }] });
        assert_eq!(schema(&given), json!({ "type": "object", "properties": { "a": { "anyOf": [] } } }));
        assert_eq!(schema(&json!(true)), json!({ "type": "object" }));
    }
}
