use super::words::say;
use super::{Context, edit};
use crate::error::{Exit, Failure, Outcome};
use crate::settings;
use policies::file::shapes::doc;
use policies::file::{FileErrors, Node, Value as Said};
use policies::import::{Entry, Import, Note};
use serde_json::json;
use std::path::{Path, PathBuf};
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value, value};

/// Take over servers, agents and permission rules of another client.
///
/// Reads .mcp.json, .claude/agents (a folder, or single .md files) and .claude/settings.json, and
/// prints what they mean in the policy file, each line explained, and what was narrowed or could
/// not be carried over. With --write it is put there: a server that stands in the policy file is
/// approved by that. Permission rules are no tables; their file goes into `import`.
///
/// Example: pleach import .mcp.json .claude/agents --write
#[derive(clap::Args)]
pub(super) struct Args {
    /// The files and folders.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Put it into the policy file.
    #[arg(long)]
    write: bool,
    /// Print one JSON object: `toml`, `report` (`file`, `line`, `column`, `kind`, `what`), `written`.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: Args) -> Outcome {
    let shown = context.config.display().to_string();
    let mut document = edit::open(&context.config)?;
    let file = context.config.canonicalize()?;
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    let mut named = Vec::new();
    for path in &args.files {
        let path = path.canonicalize().map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        named.push(beside(&folder, &path));
    }
    // What is copied into the file is not imported beside it.
    drop_imports(&mut document, &folder, &named);
    let import = settings::import(&shown, &document.to_string(), &file, named).map_err(broken)?;
    if !import.errors.is_empty() {
        return Err(broken(FileErrors(import.errors)));
    }
    let mut new = DocumentMut::new();
    put(&mut new, &import, &folder);
    put(&mut document, &import, &folder);
    let policy = settings::understand(&shown, &document.to_string(), &file).map_err(broken)?.policy;
    if args.write {
        edit::save(&context.config, &document)?;
    }
    // A server that is written down waits for nothing.
    let waits = |note: &&Note| !note.what.contains("registered but not approved");
    let mut report: Vec<&Note> = import.notes.iter().filter(waits).collect();
    report.extend(policy.imported.iter().filter(|n| !import.notes.contains(n)));
    if args.json {
        let report: Vec<_> = report.iter().map(|n| note_json(n)).collect();
        say!("{}", json!({ "toml": new.to_string(), "report": report, "written": args.write }));
        return Ok(0);
    }
    say!("{}", new.to_string().trim());
    if !report.is_empty() {
        say!("");
    }
    for note in report {
        say!("{}", note_line(note));
    }
    match args.write {
        true => say!("\n{shown}: written; `pleach check` says what it allows"),
        false => say!("\nnothing was written; --write puts it into {shown}"),
    }
    Ok(0)
}

fn broken(errors: FileErrors) -> Failure {
    Failure { exit: Exit::Usage as u8, message: format!("nothing was written:\n{errors}") }
}

/// One line of a report.
pub(super) fn note_line(note: &Note) -> String {
    let (place, kind) = (&note.place, note.kind.as_str());
    format!("{}:{}:{}: {kind}: {}", place.file, place.line, place.column, note.what)
}

/// The same as an object.
pub(super) fn note_json(note: &Note) -> serde_json::Value {
    json!({
        "file": &*note.place.file,
        "line": note.place.line,
        "column": note.place.column,
        "kind": note.kind.as_str(),
        "what": note.what,
    })
}

/// A path as the policy file would write it.
fn beside(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

fn drop_imports(document: &mut DocumentMut, folder: &Path, named: &[String]) {
    let Some(list) = document.get_mut("import").and_then(Item::as_array_mut) else { return };
    let real = |text: &str| folder.join(text).canonicalize().unwrap_or_else(|_| folder.join(text));
    let named: Vec<PathBuf> = named.iter().map(|n| real(n)).collect();
    list.retain(|item| !item.as_str().is_some_and(|text| named.contains(&real(text))));
    if list.is_empty() {
        document.remove("import");
    }
}

fn put(document: &mut DocumentMut, import: &Import, folder: &Path) {
    if !import.settings.is_empty() {
        let added = import.settings.iter().map(|path| beside(folder, path));
        let before = document.get("import").and_then(Item::as_array).cloned().unwrap_or_default();
        let mut list: Array = before;
        for path in added {
            if !list.iter().any(|v| v.as_str() == Some(&path)) {
                list.push(path);
            }
        }
        // TOML puts what belongs to no table in front of them all.
        document.insert("import", value(list));
        if let Some(mut key) = document.key_mut("import") {
            key.leaf_decor_mut().set_prefix("# Its permission rules, met with the root grant: they only take away.\n");
        }
    }
    for (kind, entries) in [("servers", &import.servers), ("agents", &import.agents)] {
        for (name, place, node) in entries {
            let Some(parent) = edit::table(document, &[kind]) else { continue };
            parent.set_implicit(true);
            let mut table = explained(node, &[kind, "*"]);
            table.decor_mut().set_prefix(format!("\n# Taken over from {place}.\n"));
            parent.insert(name, Item::Table(table));
        }
    }
}

/// A table with a line about each key.
fn explained(node: &Node, at: &[&str]) -> Table {
    let mut table = Table::new();
    for (key, _, said) in node.entries() {
        let path: Vec<&str> = at.iter().copied().chain([key.as_str()]).collect();
        let about = doc(&path).map(|doc| format!("# {doc}\n")).unwrap_or_default();
        if key == "policy" {
            let mut inner = explained(said, &path);
            inner.decor_mut().set_prefix(about);
            table.insert(key, Item::Table(inner));
            continue;
        }
        let Some(plain) = plain(said) else { continue };
        table.insert(key, value(plain));
        if let Some(mut key) = table.key_mut(key) {
            key.leaf_decor_mut().set_prefix(about);
        }
    }
    table
}

/// A value as TOML; what TOML has not is not there either.
fn plain(node: &Node) -> Option<Value> {
    Some(match &node.value {
        Said::Text(text) => Value::from(text.as_str()),
        Said::Int(n) => Value::from(*n),
        Said::Float(n) => Value::from(*n),
        Said::Bool(b) => Value::from(*b),
        Said::Time => return None,
        Said::List(items) => Value::Array(items.iter().filter_map(plain).collect()),
        Said::Table(entries) => Value::InlineTable(inline(entries)),
    })
}

fn inline(entries: &[Entry]) -> InlineTable {
    entries.iter().filter_map(|(key, _, node)| Some((key.clone(), plain(node)?))).collect()
}
