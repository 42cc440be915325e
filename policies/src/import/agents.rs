//! `.claude/agents/*.md`: an agent a file. Every field of the frontmatter is in [`FIELDS`].

use super::tools::{Known, Means, Word, split};
use super::{Entry, Import, Kind, entry, list_node, table_node, text_node, yaml};
use crate::file::shapes::EFFORTS;
use crate::file::{Node, Value};
use crate::names::{Name, nearest};
use crate::place::Place;
use std::sync::Arc;

/// What becomes of a field of the frontmatter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It holds here.
    Served,
    /// It changes nothing that is allowed; the report says that it was left.
    Told,
    /// Leaving it would change what the agent is; an error with the cure.
    Refused,
}

/// Every field, in the order of Claude Code's documentation.
pub const FIELDS: [(&str, Outcome); 16] = [
    ("name", Outcome::Served),
    ("description", Outcome::Served),
    ("tools", Outcome::Served),
    ("disallowedTools", Outcome::Served),
    ("model", Outcome::Served),
    ("permissionMode", Outcome::Served),
    ("maxTurns", Outcome::Served),
    ("skills", Outcome::Refused),
    ("mcpServers", Outcome::Served),
    ("hooks", Outcome::Refused),
    ("memory", Outcome::Told),
    ("background", Outcome::Told),
    ("effort", Outcome::Served),
    ("isolation", Outcome::Refused),
    ("color", Outcome::Told),
    ("initialPrompt", Outcome::Served),
];

struct File {
    name: String,
    place: Place,
    front: yaml::Front,
}

pub(super) fn read(import: &mut Import, texts: &[(Arc<str>, String)], policy: &Node) {
    let files: Vec<File> = texts.iter().filter_map(|(shown, text)| named(import, shown, text)).collect();
    let mut known: Vec<(&str, &Place)> = Vec::new();
    let own = policy.get("agents");
    let mut all: Vec<&str> = Known::new(policy).agents();
    for file in &files {
        let first = known.iter().find(|(name, _)| *name == file.name).map(|(_, place)| *place);
        if let Some(first) = own.and_then(|a| a.key_place(&file.name)).or(first) {
            let message = format!("agent {} is defined at {first} already; rename or remove one of them", file.name);
            import.error(&file.place, message);
            continue;
        }
        known.push((&file.name, &file.place));
        all.push(&file.name);
    }
    for file in files.iter().filter(|f| known.iter().any(|(_, place)| *place == &f.place)) {
        let mut reader = Reader { import, known: Known::new(policy), all: &all, file, parts: Parts::default() };
        let table = reader.table();
        import.agents.push(entry(&file.name, &file.place, table));
    }
}

/// Reads a file as far as its name.
fn named(import: &mut Import, shown: &Arc<str>, text: &str) -> Option<File> {
    let front = match yaml::read(shown, text) {
        Ok(front) => front,
        Err(error) => {
            import.errors.push(error);
            return None;
        }
    };
    let found = front.node.get("name").map(|node| (node.text().map(str::to_owned), node.place.clone()));
    match found {
        None => {
            import.error(&front.node.place, "name is missing; write `name: …` into the frontmatter");
            None
        }
        Some((None, place)) => {
            import.error(&place, "name is a string");
            None
        }
        Some((Some(name), place)) => match Name::try_from(name.as_str()) {
            Ok(_) => Some(File { name, place, front }),
            Err(why) => {
                import.error(&place, format!("{name:?} is no name for an agent: {why}"));
                None
            }
        },
    }
}

/// What the fields amount to.
#[derive(Default)]
struct Parts {
    agent: Vec<Entry>,
    /// `policy.tools`
    allow: Option<Vec<Node>>,
    ask: Vec<Node>,
    deny: Vec<Node>,
    subagents: Vec<(String, Place)>,
    not_agents: Vec<String>,
    no_agents: bool,
    policy: Vec<Entry>,
}

struct Reader<'a> {
    import: &'a mut Import,
    known: Known<'a>,
    all: &'a [&'a str],
    file: &'a File,
    parts: Parts,
}

impl Reader<'_> {
    fn note(&mut self, place: &Place, kind: Kind, what: impl Into<String>) {
        let what = format!("agent {}: {}", self.file.name, what.into());
        self.import.note(place, kind, what);
    }
    fn error(&mut self, place: &Place, message: impl Into<String>) {
        let message = format!("agent {}: {}", self.file.name, message.into());
        self.import.error(place, message);
    }

    /// The agent as a table of the policy file.
    fn table(&mut self) -> Node {
        let front = &self.file.front;
        if front.node.get("description").is_none() {
            self.error(
                &front.node.place,
                "description is missing; write what it is for, so that others know when to start it",
            );
        }
        for (key, place, node) in front.node.entries() {
            self.field(key, place, node);
        }
        if !front.body.is_empty() {
            let prompt = text_node(&front.body_place, front.body.clone());
            self.parts.agent.push(entry("prompt", &front.body_place, prompt));
        }
        self.finish()
    }

    fn field(&mut self, key: &str, place: &Place, node: &Node) {
        match key {
            "name" => {}
            "description" => self.text("description", place, node),
            "initialPrompt" => self.text("initial_prompt", place, node),
            "tools" => self.tools(place, node),
            "disallowedTools" => self.disallowed(node),
            "model" => self.model(place, node),
            "permissionMode" => self.mode(place, node),
            "maxTurns" => match node.int() {
                Some(turns) if turns > 0 => {
                    let turns = entry("turns", place, Node { place: node.place.clone(), value: Value::Int(turns) });
                    self.parts.policy.push(entry("budget", place, table_node(&node.place, vec![turns])));
                }
                _ => self.error(&node.place, "maxTurns is a whole number above 0"),
            },
            "mcpServers" => self.servers(node),
            "skills" => self.error(place, "skills are not in this version; put what they say into the prompt below"),
            "hooks" => self.error(
                place,
                "hooks are not run here, and one that guards would be missed; say it in tools, disallowedTools or the \
                 policy file, then remove the field",
            ),
            "isolation" => self.error(
                place,
                "isolation is not in this version, and the agent would work in place; hold it to folders in the policy \
                 file, then remove the field",
            ),
            "memory" => self.note(place, Kind::Left, "memory: a run keeps nothing beyond its journal"),
            "background" => match node.bool() {
                Some(false) => {}
                Some(true) => {
                    self.note(place, Kind::Left, "background: whoever starts it says so, with run_in_background");
                }
                None => self.error(&node.place, "background is true or false"),
            },
            "effort" => match node.text() {
                Some(word) if EFFORTS.contains(&word) => {
                    self.parts.agent.push(entry("effort", place, text_node(&node.place, word)));
                }
                _ => self.error(&node.place, format!("effort is one of {}", EFFORTS.join(", "))),
            },
            "color" => self.note(place, Kind::Left, "color: nothing here is coloured by agent"),
            other => {
                let hint = nearest(other, FIELDS.iter().map(|(name, _)| *name));
                let hint = match hint {
                    Some(near) => format!("; did you mean {near:?}?"),
                    None => "; remove it, or put it into the text below".to_owned(),
                };
                self.error(place, format!("unknown field {other:?}{hint}"));
            }
        }
    }

    fn text(&mut self, key: &str, place: &Place, node: &Node) {
        match node.text().map(str::trim) {
            Some(text) if !text.is_empty() => {
                self.parts.agent.push(entry(key, place, text_node(&node.place, text)));
            }
            Some(_) => self.error(&node.place, "it is empty"),
            None => self.error(&node.place, "it is a text; put it in quotes"),
        }
    }

    /// The words of a comma string or a list, each with its place.
    fn words(&mut self, node: &Node) -> Vec<(String, Place)> {
        let of = |node: &Node| -> Vec<(String, Place)> {
            let text = node.text().unwrap_or_default();
            // Within one line the column is right; quotes shift it by one, which is near enough.
            let at = |offset: usize| Place {
                column: node.place.column + text[..offset].chars().count(),
                ..node.place.clone()
            };
            split(text).into_iter().map(|(offset, word)| (word.to_owned(), at(offset))).collect()
        };
        match &node.value {
            Value::Text(_) => of(node),
            Value::List(items) if items.iter().all(|i| i.text().is_some()) => items.iter().flat_map(of).collect(),
            _ => {
                self.error(&node.place, "a list of names: `Read, Grep`, or [Read, Grep]");
                Vec::new()
            }
        }
    }

    fn tools(&mut self, place: &Place, node: &Node) {
        let (mut allow, mut usable, mut dropped) = (Vec::new(), false, Vec::new());
        for (text, at) in self.words(node) {
            let word = match Word::parse(&text) {
                Ok(word) => word,
                Err(why) => {
                    self.error(&at, why);
                    continue;
                }
            };
            match self.known.means(word.tool, false) {
                Ok(Means::Agent) => {
                    usable = true;
                    self.startable(word.scope, &at);
                }
                Ok(Means::Tools(globs)) => {
                    usable = true;
                    let nodes = globs.into_iter().map(|glob| text_node(&at, glob));
                    match word.scope {
                        None => allow.extend(nodes),
                        Some(_) => {
                            self.parts.ask.extend(nodes);
                            let what = format!(
                                "{text}: a scope of {} cannot be held by name, so a person is asked each time",
                                word.tool
                            );
                            self.note(&at, Kind::Narrowed, what);
                        }
                    }
                }
                Ok(Means::Runtime(_)) => usable = true,
                Ok(Means::Absent(why)) => {
                    dropped.push(text.clone());
                    self.note(&at, Kind::Left, format!("{text}: there is no such tool here; {why}"));
                }
                Ok(Means::Unserved(why) | Means::Unsayable(why)) | Err(why) => {
                    usable = true;
                    self.error(&at, why);
                }
            }
        }
        if !usable && !dropped.is_empty() {
            let message = format!("none of its tools exists here: {}", dropped.join(", "));
            self.error(place, message);
        }
        self.parts.allow = Some(allow);
    }

    /// `Agent`, `Agent(worker, researcher)`: whom it may start, at every depth.
    fn startable(&mut self, scope: Option<&str>, at: &Place) {
        let names: Vec<String> = match scope {
            None => self.all.iter().map(|n| (*n).to_owned()).collect(),
            Some(list) => split(list).into_iter().map(|(_, n)| n.to_owned()).collect(),
        };
        self.parts.subagents.extend(names.into_iter().map(|n| (n, at.clone())));
    }

    fn disallowed(&mut self, node: &Node) {
        for (text, at) in self.words(node) {
            let word = match Word::parse(&text) {
                Ok(word) => word,
                Err(why) => {
                    self.error(&at, why);
                    continue;
                }
            };
            match self.known.means(word.tool, false) {
                Ok(Means::Agent) => match word.scope {
                    None => self.parts.no_agents = true,
                    Some(list) => self.parts.not_agents.extend(split(list).into_iter().map(|(_, n)| n.to_owned())),
                },
                Ok(Means::Tools(globs)) => {
                    self.parts.deny.extend(globs.into_iter().map(|glob| text_node(&at, glob)));
                    if word.scope.is_some() {
                        let what =
                            format!("{text}: a scope of {} cannot be held by name, so all of it is denied", word.tool);
                        self.note(&at, Kind::Narrowed, what);
                    }
                }
                Ok(Means::Runtime(tool)) => self.parts.deny.push(text_node(&at, tool)),
                Ok(Means::Absent(_) | Means::Unserved(_)) => {
                    self.note(&at, Kind::Left, format!("{text}: there is no such tool here to deny"));
                }
                Ok(Means::Unsayable(why)) | Err(why) => self.error(&at, why),
            }
        }
    }

    fn model(&mut self, place: &Place, node: &Node) {
        let Some(name) = node.text() else { return self.error(&node.place, "model is a name") };
        if name == "inherit" {
            let what = "model: inherit is [models.default] here, whatever its parent uses";
            return self.note(place, Kind::Left, what);
        }
        let models = self.known.models();
        // By the name it has here, else by the provider's name for it.
        let found = models.iter().find(|(key, _)| *key == name);
        let found = found.or_else(|| models.iter().find(|(_, model)| model.text_at("model") == Some(name)));
        match found {
            Some((key, _)) => self.parts.agent.push(entry("model", place, text_node(&node.place, *key))),
            None => {
                let key = if Name::try_from(name).is_ok() { name } else { "NAME" };
                let message = format!(
                    "no model is named {name:?}; add [models.{key}] to the policy file, or write `model: inherit`"
                );
                self.error(&node.place, message);
            }
        }
    }

    fn mode(&mut self, place: &Place, node: &Node) {
        match node.text() {
            Some("default" | "manual") => {}
            Some("plan") => {
                self.parts.policy.push(entry("max_access", place, text_node(&node.place, "read-only")));
            }
            Some(mode @ ("acceptEdits" | "bypassPermissions" | "auto")) => {
                self.note(
                    place,
                    Kind::Narrowed,
                    format!("permissionMode: {mode} widens nothing here; the policy file's rules hold"),
                );
            }
            Some("dontAsk") => {
                let what =
                    "permissionMode: dontAsk; what the policy file asks about is asked, and denied when nobody answers";
                self.note(place, Kind::Left, what);
            }
            _ => {
                let message = "permissionMode is one of default, acceptEdits, plan, dontAsk, bypassPermissions, auto";
                self.error(&node.place, message);
            }
        }
    }

    /// Names only: they must be registered, and add nothing to what `tools` allows.
    fn servers(&mut self, node: &Node) {
        let inline = "a server is defined in .mcp.json or the policy file, not here; name it instead";
        let items = match &node.value {
            Value::Table(entries) => {
                if let Some((_, place, _)) = entries.first() {
                    self.error(place, inline);
                }
                return;
            }
            Value::Text(_) => std::slice::from_ref(node),
            _ => node.items(),
        };
        for item in items {
            match item.text() {
                None => self.error(&item.place, inline),
                Some(text) => {
                    for (_, name) in split(text) {
                        if self.known.server(name).is_none() {
                            let hint =
                                nearest(name, self.known.server_names()).map(|n| format!("; did you mean {n:?}?"));
                            self.error(&item.place, format!("no server is named {name:?}{}", hint.unwrap_or_default()));
                        }
                    }
                }
            }
        }
    }

    fn finish(&mut self) -> Node {
        let parts = std::mem::take(&mut self.parts);
        let place = &self.file.front.node.place;
        let mut agent = parts.agent;
        let rules = parts.allow.is_some() || !parts.deny.is_empty() || !parts.ask.is_empty();
        let mut policy = parts.policy;
        if rules {
            // Without `tools` it has all that its parent gives, but for what is denied.
            let allow = parts.allow.unwrap_or_else(|| vec![text_node(place, "*")]);
            let lists = [("allow", allow), ("ask", parts.ask), ("deny", parts.deny)];
            let front = &self.file.front.node;
            let at = front.key_place("tools").or_else(|| front.key_place("disallowedTools")).unwrap_or(place);
            let lists = lists.into_iter().filter(|(key, list)| *key == "allow" || !list.is_empty());
            let tools = lists.map(|(key, list)| entry(key, at, list_node(at, list))).collect();
            policy.push(entry("tools", at, table_node(at, tools)));
        }
        let mut subagents: Vec<Node> = Vec::new();
        for (name, at) in &parts.subagents {
            let denied = parts.no_agents || parts.not_agents.contains(name);
            if !denied && !subagents.iter().any(|n| n.text() == Some(name)) {
                subagents.push(text_node(at, name.as_str()));
            }
        }
        if !subagents.is_empty() {
            let at = subagents[0].place.clone();
            if rules {
                // There a child may hold tools its parent has not; here no child is wider than its parent.
                self.note(&at, Kind::Narrowed, "whom it starts gets no tool that it has not itself");
            }
            agent.push(entry("subagents", &at, list_node(&at, subagents)));
        } else if self.file.front.node.get("tools").is_none() && !parts.no_agents {
            self.note(place, Kind::Narrowed, "it names no tools and so starts nobody; `tools` with Agent(…) says whom");
        }
        if !policy.is_empty() {
            agent.push(entry("policy", place, table_node(place, policy)));
        }
        table_node(place, agent)
    }
}
