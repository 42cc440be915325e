//! A machine that exists only in the test: every path is what it says, files hold their name.

use policies::file::{self, FileErrors};
use policies::resolve::{Policy, SecretFile, Surroundings, resolve};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

pub(crate) struct World {
    pub(crate) variables: BTreeMap<String, String>,
    /// Links: path to target, both absolute.
    pub(crate) links: BTreeMap<PathBuf, PathBuf>,
    /// What stands in files, where it is not their name.
    pub(crate) files: BTreeMap<PathBuf, String>,
}

impl Default for World {
    fn default() -> Self {
        let ci = ("CI_TOKEN".to_owned(), "0123456789abcdef0123".to_owned());
        let schema = r#"{"type":"object","required":["answer"],"properties":{"answer":{"type":"string"}}}"#;
        let files = [
            ("/work/answer.json", schema),
            ("/work/broken.json", "{"),
            ("/work/wrong.json", r#"{"type":"no"}"#),
            ("/work/key", "0123456789abcdef0123-key\n"),
            ("/work/empty", "\n"),
        ];
        let files = files.into_iter().map(|(path, text)| (path.into(), text.to_owned())).collect();
        Self { variables: BTreeMap::from([ci]), links: BTreeMap::new(), files }
    }
}

impl Surroundings for World {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
    fn folder(&self) -> &Path {
        Path::new("/work")
    }
    fn file(&self) -> &Path {
        Path::new("/work/pleach.toml")
    }
    fn home(&self) -> Option<PathBuf> {
        Some("/home/ada".into())
    }
    fn canonical(&self, path: &Path) -> Result<PathBuf, String> {
        let mut out = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir if out.ends_with("missing") => {
                    return Err("`..` after a part that does not exist".into());
                }
                Component::ParentDir => {
                    out.pop();
                }
                Component::CurDir => {}
                other => out.push(other),
            }
            if let Some(target) = self.links.get(&out) {
                out = target.clone();
            }
        }
        Ok(out)
    }
    fn exists(&self, path: &Path) -> bool {
        !path.components().any(|c| c.as_os_str() == "missing")
    }
    fn read_text(&self, path: &Path) -> Result<String, String> {
        Ok(self.files.get(path).cloned().unwrap_or_else(|| path.display().to_string()))
    }
    fn secret_file(&self, path: &Path) -> Result<SecretFile, String> {
        match self.files.get(path) {
            Some(text) => Ok(SecretFile { text: text.clone(), open: None }),
            None => Err("it is not there".into()),
        }
    }
    fn lock(&self) -> Result<Option<String>, String> {
        Ok(self.files.get(Path::new("/work/pleach.lock")).cloned())
    }
    fn entries(&self, path: &Path) -> Result<Option<Vec<String>>, String> {
        let beneath = self.files.keys().filter_map(|file| file.strip_prefix(path).ok());
        let mut names: Vec<String> = beneath
            .filter_map(|rest| rest.components().next())
            .map(|first| first.as_os_str().to_string_lossy().into_owned())
            .collect();
        names.dedup();
        Ok((!names.is_empty() && !self.files.contains_key(path)).then_some(names))
    }
}

pub(crate) fn load(source: &str) -> Result<Policy, FileErrors> {
    file::read("pleach.toml", source).and_then(|node| resolve(&node, &World::default()))
}

/// The same with files beside it.
pub(crate) fn load_with(source: &str, files: &[(&str, &str)]) -> Result<Policy, FileErrors> {
    let mut world = World::default();
    let files = files.iter().map(|(path, text)| (Path::new("/work").join(path), (*text).to_owned()));
    world.files.extend(files);
    file::read("pleach.toml", source).and_then(|node| resolve(&node, &world))
}
