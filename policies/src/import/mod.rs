//! `import = [".mcp.json", ".claude/agents", ".claude/settings.json"]`: what other tools'
//! configurations mean here.
//!
//! Servers and agents become tables of the same form as the policy file's own, at their own
//! places, and go through the same checks; permission rules become one narrowing of the root
//! grant. So nothing imported can widen anything. Whatever is not taken over as it stands is
//! told in a [`Note`] or is an error: nothing is skipped in silence.

mod agents;
mod json;
mod patterns;
mod rules;
mod servers;
mod settings;
mod tools;
mod yaml;

pub use agents::{FIELDS, Outcome};
pub(crate) use rules::{Rules, narrowing};
pub(crate) use servers::unapproved;

use crate::file::{FileError, Node, Value};
use crate::place::Place;
use crate::resolve::Surroundings;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How deep folders of agents are searched.
const MAX_DEPTH: usize = 8;

/// What became of one thing in an imported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It means the same here.
    Taken,
    /// It means less here.
    Narrowed,
    /// It has no counterpart, or not the whole of one.
    Left,
}

impl Kind {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Taken => "taken over",
            Kind::Narrowed => "narrowed",
            Kind::Left => "not carried over",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Where it stands.
    pub place: Place,
    /// What became of it.
    pub kind: Kind,
    /// In words.
    pub what: String,
}

/// A named table and where it stands.
pub type Entry = (String, Place, Node);

/// What the imported files say, in the form of the policy file.
#[derive(Debug, Default)]
pub struct Import {
    /// Tables for `[servers]`.
    pub servers: Vec<Entry>,
    /// Tables for `[agents]`.
    pub agents: Vec<Entry>,
    /// The report.
    pub notes: Vec<Note>,
    /// Everything wrong.
    pub errors: Vec<FileError>,
    /// The files of permission rules among them; they have no tables, and are served as they stand.
    pub settings: Vec<PathBuf>,
    /// The files and folders, which no agent may touch: they are policy.
    pub sources: Vec<PathBuf>,
    pub(crate) rules: Rules,
}

impl Import {
    pub(super) fn note(&mut self, place: &Place, kind: Kind, what: impl Into<String>) {
        self.notes.push(Note { place: place.clone(), kind, what: what.into() });
    }
    pub(super) fn error(&mut self, place: &Place, message: impl Into<String>) {
        self.errors.push(FileError::new(place, message));
    }
    /// The policy file with the imported tables among its own.
    pub fn merged(&self, file: &Node) -> Node {
        let mut root = file.clone();
        let Value::Table(entries) = &mut root.value else { return root };
        for (key, more) in [("servers", &self.servers), ("agents", &self.agents)] {
            if more.is_empty() {
                continue;
            }
            if !entries.iter().any(|(k, _, _)| k == key) {
                let place = more[0].1.clone();
                entries.push((key.to_owned(), place.clone(), Node { place, value: Value::Table(Vec::new()) }));
            }
            let table = entries.iter_mut().find(|(k, _, _)| k == key).map(|(_, _, node)| &mut node.value);
            if let Some(Value::Table(own)) = table {
                own.extend(more.iter().cloned());
            }
        }
        root
    }
}

/// A file or folder to import: how it is written, where that stands, and the path.
struct Named {
    shown: String,
    place: Place,
    path: PathBuf,
}

/// Reads what `import` names. What is wrong stands in the result.
pub fn read(file: &Node, around: &dyn Surroundings) -> Import {
    let named = file.get("import").map(Node::items).unwrap_or_default();
    let named = named.iter().filter_map(|item| Some((item.text()?.to_owned(), item.place.clone()))).collect();
    read_paths(file, named, around)
}

/// The same for paths that stand elsewhere, such as on the command line.
pub fn read_paths(file: &Node, paths: Vec<(String, Place)>, around: &dyn Surroundings) -> Import {
    let mut import = Import::default();
    let beside = Path::new(&*file.place.file).parent().unwrap_or(Path::new("")).to_owned();
    let mut texts = Texts::default();
    for (text, place) in paths {
        let path = match (text.strip_prefix("~/"), around.home()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => around.folder().join(&text),
        };
        let shown = if path.is_absolute() && text.starts_with(['/', '~']) {
            text.clone()
        } else {
            beside.join(text.trim_start_matches("./")).display().to_string()
        };
        match around.canonical(&path) {
            Ok(real) => import.sources.push(real),
            Err(why) => {
                import.error(&place, format!("import {text:?}: {why}"));
                continue;
            }
        }
        open(&mut import, &mut texts, &Named { shown, place, path }, around, 0);
    }
    servers::read(&mut import, &texts.servers, file);
    let merged = import.merged(file);
    agents::read(&mut import, &texts.agents, &merged);
    let merged = import.merged(file);
    settings::read(&mut import, &texts.settings, &merged, around);
    import
}

/// What stands in the files, by what they are.
#[derive(Default)]
struct Texts {
    servers: Vec<Node>,
    agents: Vec<(Arc<str>, String)>,
    /// With the folder that `/` means in them.
    settings: Vec<(Node, PathBuf)>,
}

fn open(import: &mut Import, texts: &mut Texts, named: &Named, around: &dyn Surroundings, depth: usize) {
    match around.entries(&named.path) {
        Ok(Some(names)) => folder(import, texts, named, &names, around, depth),
        Ok(None) => match around.read_text(&named.path) {
            Ok(text) => single(import, texts, named, text),
            Err(why) => import.error(&named.place, format!("import {:?}: {why}", named.shown)),
        },
        Err(why) => import.error(&named.place, format!("import {:?}: {why}", named.shown)),
    }
}

fn folder(
    import: &mut Import,
    texts: &mut Texts,
    named: &Named,
    names: &[String],
    around: &dyn Surroundings,
    depth: usize,
) {
    if depth > MAX_DEPTH {
        let message = format!("import {:?} lies more than {MAX_DEPTH} folders deep", named.shown);
        return import.error(&named.place, message);
    }
    // The folder `.claude` holds more than agents; the rest of it is not ours to read.
    let whole = depth == 0 && named.path.file_name().is_some_and(|n| n == ".claude");
    let mut any = false;
    for name in names {
        let wanted = match whole {
            true => matches!(name.as_str(), "agents" | "settings.json" | "settings.local.json"),
            false => true,
        };
        let inner = Named {
            shown: format!("{}/{name}", named.shown.trim_end_matches('/')),
            place: named.place.clone(),
            path: named.path.join(name),
        };
        let is_folder = matches!(around.entries(&inner.path), Ok(Some(_)));
        if wanted && (is_folder || whole || name.ends_with(".md")) {
            any = true;
            open(import, texts, &inner, around, depth + 1);
        } else if !whole {
            let place = Place { file: inner.shown.into(), line: 1, column: 1 };
            import.note(&place, Kind::Left, "an agent's file ends in .md");
        }
    }
    if !any && depth == 0 {
        import.error(&named.place, format!("import {:?}: no agent stands in it", named.shown));
    }
}

fn single(import: &mut Import, texts: &mut Texts, named: &Named, text: String) {
    let shown: Arc<str> = named.shown.as_str().into();
    let name = named.path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    if name.ends_with(".md") {
        texts.agents.push((shown, text));
        return;
    }
    if !name.ends_with(".json") {
        let message = format!(
            "import {:?}: takes .mcp.json, an agent's .md or a folder of them, and .claude/settings.json",
            named.shown
        );
        return import.error(&named.place, message);
    }
    let node = match json::read(&shown, &text) {
        Ok(node) => node,
        Err(error) => return import.errors.push(error),
    };
    if node.get("mcpServers").is_some() || node.get("servers").is_some() {
        texts.servers.push(node);
    } else if name.starts_with("settings") || node.get("permissions").is_some() {
        import.settings.push(named.path.clone());
        texts.settings.push((node, project(&named.path)));
    } else {
        let place = node.place.clone();
        import.error(&place, "neither mcpServers nor permissions stands in it");
    }
}

/// The folder that holds `.claude`, else the file's own.
fn project(path: &Path) -> PathBuf {
    let own = path.parent().unwrap_or(Path::new("/"));
    match own.file_name() {
        Some(name) if name == ".claude" => own.parent().unwrap_or(own).to_owned(),
        _ => own.to_owned(),
    }
}

fn text_node(place: &Place, text: impl Into<String>) -> Node {
    Node { place: place.clone(), value: Value::Text(text.into()) }
}

fn list_node(place: &Place, items: Vec<Node>) -> Node {
    Node { place: place.clone(), value: Value::List(items) }
}

fn table_node(place: &Place, entries: Vec<Entry>) -> Node {
    Node { place: place.clone(), value: Value::Table(entries) }
}

fn entry(key: &str, place: &Place, node: Node) -> Entry {
    (key.to_owned(), place.clone(), node)
}
