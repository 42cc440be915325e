//! `.mcp.json`: its servers as tables of `[servers]`. They stay unapproved: a file that comes
//! with a checkout must not start programs or reach hosts by being there.

use super::{Entry, Import, Kind, entry, table_node, text_node};
use crate::file::{Node, Value};
use crate::place::Place;

/// Keys that mean the same here.
const SAME: [&str; 8] = ["type", "command", "args", "env", "cwd", "url", "headers", "timeout"];

pub(super) fn read(import: &mut Import, files: &[Node], policy: &Node) {
    for file in files {
        let servers = file.get("mcpServers").or_else(|| file.get("servers"));
        for (name, place, node) in servers.map(Node::entries).unwrap_or_default() {
            server(import, name, place, node, policy);
        }
    }
}

fn server(import: &mut Import, name: &str, place: &Place, node: &Node, policy: &Node) {
    if name == "pleach" {
        return import.note(place, Kind::Left, "server pleach: Pleach itself, as its client knows it");
    }
    if let Some(own) = policy.get("servers").and_then(|s| s.key_place(name)) {
        let what = format!("server {name}: the policy file's own table at {own} stands in its place");
        return import.note(place, Kind::Left, what);
    }
    if let Some((_, first, _)) = import.servers.iter().find(|(n, _, _)| n == name) {
        let message = format!("server {name} is imported from {first} already; remove one");
        return import.error(place, message);
    }
    if node.get("disabled").and_then(Node::bool) == Some(true) {
        return import.note(place, Kind::Left, format!("server {name}: it is disabled there"));
    }
    if node.text_at("type") == Some("sse") {
        let what = format!("server {name}: the old HTTP+SSE transport; ask its maker for streamable HTTP");
        return import.note(place, Kind::Left, what);
    }
    let Value::Table(entries) = &node.value else {
        return import.error(&node.place, format!("server {name} is an object"));
    };
    let mut table: Vec<Entry> = Vec::new();
    for (key, place, value) in entries {
        if SAME.contains(&key.as_str()) {
            table.push(entry(key, place, plain(value)));
        } else if !matches!(key.as_str(), "disabled") {
            import.note(place, Kind::Left, format!("server {name}: {key:?} has no counterpart"));
        }
    }
    import.note(place, Kind::Narrowed, format!("server {name}: {}", unapproved(name)));
    import.servers.push(entry(name, place, table_node(&node.place, table)));
}

/// Why an imported server does not run, with the cure.
pub(crate) fn unapproved(name: &str) -> String {
    format!(
        "registered but not approved, so it is not started; `pleach pin {name}` shows what it offers and approves it, \
         `pleach import --write` puts [servers.{name}] into the policy file, which approves it too"
    )
}

/// Numbers and truth values in `args` and `env` are texts to a program.
fn plain(node: &Node) -> Node {
    match &node.value {
        Value::List(items) => super::list_node(&node.place, items.iter().map(texts).collect()),
        Value::Table(entries) => {
            let entries = entries.iter().map(|(k, p, v)| (k.clone(), p.clone(), texts(v)));
            table_node(&node.place, entries.collect())
        }
        _ => node.clone(),
    }
}

fn texts(node: &Node) -> Node {
    match &node.value {
        Value::Int(n) => text_node(&node.place, n.to_string()),
        Value::Float(n) => text_node(&node.place, n.to_string()),
        Value::Bool(b) => text_node(&node.place, b.to_string()),
        _ => node.clone(),
    }
}
