//! `[secrets]`: values that come from elsewhere and go to the one they are for.
//!
//! `${secret:NAME}` stands where a value is sent and seen by nobody else: a server's `env` and
//! `headers`, `api_key`, `client_secret`, a client's `token`. Everywhere else it is an error. A
//! value is fetched when it is first referred to, and never where nothing refers to it.

use super::{Resolver, Secret};
use crate::file::Node;
use crate::fs::FileOp;
use crate::names::{Name, nearest};
use crate::place::Place;
use crate::secrets::SHORTEST;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// What a file holds.
    File {
        /// As the file says, absolute.
        named: PathBuf,
        /// Links followed.
        path: PathBuf,
    },
    /// What a program prints.
    Command(Vec<String>),
    /// A variable of Pleach's own environment.
    Variable(String),
}

impl Source {
    /// The file, as named and with links followed.
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            Source::File { named, path } => vec![named.clone(), path.clone()],
            _ => Vec::new(),
        }
    }
}

/// A secret of the file; its value is where it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSpec {
    /// Its name.
    pub name: Name,
    /// Where it is defined.
    pub place: Place,
    /// Where it comes from.
    pub source: Source,
    /// Whom it is for: `server search`.
    pub given_to: BTreeSet<String>,
}

/// What a secret's file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// Its text.
    pub text: String,
    /// Its mode, where others than its owner may read or write it.
    pub open: Option<u32>,
}

/// A secret while the file is resolved: its value once it was fetched, `None` where that failed.
pub(super) struct Known {
    spec: SecretSpec,
    value: Option<Option<String>>,
}

/// What stands in the place of a value that is not fetched here. No process that serves sees it.
fn unfetched(name: &Name) -> String {
    format!("<secret-{name}-is-not-fetched-here>")
}

impl Resolver<'_> {
    pub(super) fn read_secrets(&mut self, file: &Node) {
        for (key, place, node) in file.get("secrets").map(Node::entries).unwrap_or_default() {
            let Ok(name) = Name::try_from(key.as_str()) else { continue };
            if let Some(source) = self.source(&name, place, node) {
                let spec = SecretSpec { name: name.clone(), place: place.clone(), source, given_to: BTreeSet::new() };
                self.secrets.insert(name, Known { spec, value: None });
            }
        }
    }

    fn source(&mut self, name: &Name, place: &Place, node: &Node) -> Option<Source> {
        let given: Vec<&str> = ["file", "command", "env"].into_iter().filter(|k| node.get(k).is_some()).collect();
        let [only] = given.as_slice() else {
            let message = match given.as_slice() {
                [] => format!("secret {name} needs one of file, command or env"),
                several => format!("secret {name} has {}; it can have only one", several.join(" and ")),
            };
            self.error(place, message);
            return None;
        };
        let at = node.get(only)?;
        match *only {
            "file" => {
                let text = self.expand(at)?;
                let named = self.absolute(&text);
                match self.around.canonical(&named) {
                    Ok(path) => Some(Source::File { named, path }),
                    Err(why) => {
                        self.error(&at.place, format!("secret {name}: {text:?}: {why}"));
                        None
                    }
                }
            }
            "command" => {
                let words: Option<Vec<String>> = at.items().iter().map(|word| self.expand(word)).collect();
                let mut words = words?;
                // Against the file's folder like every path, not against whoever runs it: it is run
                // in `/`, where nobody leaves anything for it to find.
                for (at, word) in words.iter_mut().enumerate() {
                    let path = word.contains('/') || word.starts_with('~');
                    let absolute = self.absolute(word);
                    if path && (at == 0 || self.around.exists(&absolute)) {
                        *word = absolute.display().to_string();
                    }
                }
                if words.first().is_none_or(|program| program.is_empty()) {
                    self.error(&at.place, format!("secret {name}: command names no program"));
                    return None;
                }
                Some(Source::Command(words))
            }
            _ => Some(Source::Variable(at.text()?.to_owned())),
        }
    }

    /// Files of secrets, as named and with links followed: they are in no grant.
    pub(super) fn secret_files(&self) -> Vec<PathBuf> {
        self.secrets.values().flat_map(|known| known.spec.source.files()).collect()
    }

    /// A text with variables and secrets put in, for whoever `whose` names and nobody else.
    pub(super) fn private(&mut self, node: &Node, whose: &str) -> Option<Secret> {
        self.put_in(node, Some(whose)).map(Secret::new)
    }

    /// The value of `${secret:NAME}`.
    pub(super) fn secret(&mut self, node: &Node, name: &str, whose: Option<&str>) -> Option<String> {
        let Some(whose) = whose else {
            let message = format!(
                "${{secret:{name}}} stands where others read it; a secret is given by env, headers, api_key, \
                 client_secret or token"
            );
            self.error(&node.place, message);
            return None;
        };
        if node.place.file != self.root.place.file {
            let message =
                format!("${{secret:{name}}} in an imported file; a secret is given by the policy file itself");
            self.error(&node.place, message);
            return None;
        }
        let Some(known) = Name::try_from(name).ok().filter(|name| self.secrets.contains_key(name)) else {
            self.no_such_secret(node, name);
            return None;
        };
        if self.secrets.get(&known)?.value.is_none() {
            let spec = self.secrets.get(&known)?.spec.clone();
            let value = self.fetched(&spec);
            self.secrets.get_mut(&known)?.value = Some(value);
        }
        let secret = self.secrets.get_mut(&known)?;
        secret.spec.given_to.insert(whose.to_owned());
        secret.value.clone().flatten()
    }

    fn no_such_secret(&mut self, node: &Node, name: &str) {
        // It may be there and broken, which was said already.
        let defined: Vec<String> = self
            .root
            .get("secrets")
            .map(|t| t.entries().iter().map(|(key, _, _)| key.clone()).collect())
            .unwrap_or_default();
        if defined.iter().any(|key| key == name) {
            return;
        }
        let hint = match nearest(name, defined.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("define [secrets.{}] with file, command or env", name.split(":-").next().unwrap_or(name)),
        };
        let message = match name.contains(":-") {
            true => format!("${{secret:{name}}}: a secret has no default; define it"),
            false => format!("no secret is named {name:?}; {hint}"),
        };
        self.error(&node.place, message);
    }

    /// The value, from where it is. Nothing of what was read is in an error.
    fn fetched(&mut self, spec: &SecretSpec) -> Option<String> {
        let (name, place) = (&spec.name, &spec.place);
        let (from, read) = match &spec.source {
            Source::File { named, .. } => {
                let shown = named.display().to_string();
                let read = self.around.secret_file(named).map(|file| {
                    if let Some(mode) = file.open {
                        let message = format!(
                            "secret {name}: {shown} can be read or changed by others (mode {mode:03o}); run chmod 600 {shown}"
                        );
                        self.warn(place, message);
                    }
                    Some(file.text)
                });
                (shown, read)
            }
            Source::Command(words) => {
                let shown = words.first().cloned().unwrap_or_default();
                if let Some(word) = self.writable_word(words) {
                    let message = format!(
                        "secret {name}: {word} can be written under [policy] filesystem, and its command runs \
                         outside every sandbox; keep it elsewhere"
                    );
                    self.error(place, message);
                    return None;
                }
                let read = self.around.secret_command(words);
                (shown, read)
            }
            Source::Variable(variable) => {
                let read = self.around.variable(variable).ok_or_else(|| format!("it is not set; export {variable}"));
                (format!("the variable {variable}"), read.map(Some))
            }
        };
        let text = match read {
            Ok(Some(text)) => text,
            Ok(None) => return Some(unfetched(name)),
            Err(why) => {
                self.error(place, format!("secret {name}: {from}: {why}"));
                return None;
            }
        };
        let value = text.trim_end_matches(['\n', '\r']);
        if value.trim().is_empty() || value.contains('\0') {
            let what = if value.contains('\0') { "holds a NUL, which no value can" } else { "is empty" };
            self.error(place, format!("secret {name}: {from}: what it gives {what}"));
            return None;
        }
        if value.len() < SHORTEST {
            let message = format!(
                "secret {name} is shorter than {SHORTEST} characters and could not be told from other text, so it is \
                 not taken out of logs and answers"
            );
            self.warn(place, message);
        }
        self.hidden.hide(name, value);
        Some(value.to_owned())
    }

    /// A word of a command that somebody in a sandbox could write.
    fn writable_word(&self, words: &[String]) -> Option<String> {
        let root = self.granted.as_ref()?;
        let writable = |word: &&String| {
            let path = self.absolute(word);
            let path = self.around.canonical(&path).unwrap_or(path);
            // A bare word is mostly no path; where such a file is there, it may be meant.
            (word.contains('/') || self.around.exists(&path)) && root.allows(&path, FileOp::Write)
        };
        words.iter().find(writable).cloned().or_else(|| self.writable_program(words.first()?))
    }

    /// Where a program without a path is found, and every folder that is searched before: whoever
    /// may write there says what is run.
    fn writable_program(&self, program: &str) -> Option<String> {
        let root = self.granted.as_ref()?;
        if program.contains('/') {
            return None;
        }
        let path = self.around.variable("PATH").unwrap_or_default();
        for folder in path.split(':') {
            let candidate = self.absolute(folder).join(program);
            let real = self.around.canonical(&candidate).unwrap_or_else(|_| candidate.clone());
            if root.allows(&real, FileOp::Write) || root.allows(&candidate, FileOp::Write) {
                return Some(candidate.display().to_string());
            }
            if self.around.exists(&candidate) {
                return None;
            }
        }
        None
    }

    /// What the policy keeps of the secrets; those that nobody is given are told of.
    pub(super) fn known_secrets(&mut self) -> BTreeMap<Name, SecretSpec> {
        let secrets: BTreeMap<Name, SecretSpec> =
            std::mem::take(&mut self.secrets).into_iter().map(|(name, known)| (name, known.spec)).collect();
        for spec in secrets.values().filter(|spec| spec.given_to.is_empty()) {
            let message =
                format!("secret {} is given to nobody; write ${{secret:{}}} where it belongs", spec.name, spec.name);
            self.warn(&spec.place, message);
        }
        secrets
    }
}
