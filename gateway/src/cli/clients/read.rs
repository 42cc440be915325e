//! What the configurations of Claude Code, Claude Desktop, Cursor, VS Code and their relatives
//! say: `mcpServers` or `servers`, under several spellings of the same things.

use super::jsonc;
use serde_json::{Map, Value};
use std::path::Path;

/// A server as a client knows it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Foreign {
    /// Its name there.
    pub(in crate::cli) name: String,
    /// How it is reached.
    pub(in crate::cli) origin: Origin,
    /// `env`, with variables as `${VAR}`.
    pub(in crate::cli) env: Vec<(String, String)>,
    /// Its working folder.
    pub(in crate::cli) cwd: Option<String>,
    /// Milliseconds.
    pub(in crate::cli) timeout: Option<u64>,
    /// Folders its own sandbox lets it write, and hosts it may reach (VS Code).
    pub(in crate::cli) write: Vec<String>,
    /// See `write`.
    pub(in crate::cli) domains: Vec<String>,
    /// What could not be taken over, for the person.
    pub(in crate::cli) notes: Vec<String>,
}

/// How a foreign server is reached.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) enum Origin {
    /// A program.
    Command(String, Vec<String>),
    /// An address.
    Url(String, Vec<(String, String)>),
    /// Something this version cannot serve.
    Unserved(String),
}

/// Reads the servers of a configuration, in its order.
///
/// # Errors
/// What is wrong with it.
pub(in crate::cli) fn read(path: &Path) -> Result<Vec<Foreign>, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| format!("{shown}: {e}"))?;
    let json = jsonc::parse(&text).map_err(|e| format!("{shown}: {e}"))?;
    // VS Code's user settings keep the same table one level down.
    let inner = json.get("mcp").filter(|m| m.get("servers").is_some()).unwrap_or(&json);
    let servers = inner.get("mcpServers").or_else(|| inner.get("servers")).and_then(Value::as_object);
    let servers = servers.ok_or_else(|| format!("{shown}: neither mcpServers nor servers stands in it"))?;
    Ok(servers.iter().map(|(name, entry)| server(name, entry)).collect())
}

fn server(name: &str, entry: &Value) -> Foreign {
    let empty = Map::new();
    let object = entry.as_object().unwrap_or(&empty);
    let mut notes = Vec::new();
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    let kind = text("type").or_else(|| text("transport")).or_else(|| text("transportType")).unwrap_or("");
    let url = text("url").or_else(|| text("httpUrl")).or_else(|| text("serverUrl"));
    let disabled = object.get("disabled").and_then(Value::as_bool) == Some(true);
    let origin = match (text("command"), url) {
        _ if disabled => Origin::Unserved("it is disabled there".into()),
        (Some(command), _) => {
            let args = object.get("args").and_then(Value::as_array);
            let args = args.into_iter().flatten().map(|a| a.as_str().map_or_else(|| a.to_string(), str::to_owned));
            Origin::Command(variables(command, &mut notes), args.map(|a| variables(&a, &mut notes)).collect())
        }
        (None, Some(_)) if kind == "sse" => {
            Origin::Unserved("the old HTTP+SSE transport; ask its maker for streamable HTTP".into())
        }
        (None, Some(url)) => Origin::Url(variables(url, &mut notes), pairs(object.get("headers"), &mut notes)),
        (None, None) => Origin::Unserved("an entry with neither command nor url".into()),
    };
    const KNOWN: [&str; 16] = [
        "type",
        "transport",
        "transportType",
        "command",
        "args",
        "env",
        "cwd",
        "url",
        "httpUrl",
        "serverUrl",
        "headers",
        "timeout",
        "sandbox",
        "sandboxEnabled",
        "disabled",
        "alwaysLoad",
    ];
    for key in object.keys().filter(|k| !KNOWN.contains(&k.as_str())) {
        notes.push(format!("its key {key:?} has no counterpart and was left out"));
    }
    let sandbox = |path: &str| -> Vec<String> {
        let list = entry.pointer(path).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|v| v.as_str().map(|t| variables(t, &mut Vec::new()))).collect()
    };
    Foreign {
        name: name.to_owned(),
        origin,
        env: pairs(object.get("env"), &mut notes),
        cwd: text("cwd").map(str::to_owned),
        timeout: object.get("timeout").and_then(Value::as_u64),
        write: sandbox("/sandbox/filesystem/allowWrite"),
        domains: sandbox("/sandbox/network/allowedDomains"),
        notes,
    }
}

fn pairs(table: Option<&Value>, notes: &mut Vec<String>) -> Vec<(String, String)> {
    let entries = table.and_then(Value::as_object).into_iter().flatten();
    entries
        .map(|(k, v)| {
            let text = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
            (k.clone(), variables(&text, notes))
        })
        .collect()
}

/// `${env:X}` and `${X}` become `${X}`; editors' own variables become what they mean here.
fn variables(text: &str, notes: &mut Vec<String>) -> String {
    let text = text.replace("${workspaceFolder}", ".").replace("${userHome}", "${HOME}").replace("${env:", "${");
    if text.contains("${input:") {
        notes.push(format!("{text:?} asks the editor's user; set a variable and write ${{VAR}} instead"));
        return text.replace("${input:", "${");
    }
    text
}
