//! A folder as a careful person would grant it, with secrets around and inside, and what an act
//! changed of it.

use crate::pleach::{Folder, Ran};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// What must never come back or leave.
pub(super) const SECRET: &str = "S3CR3T-canary-9f41";
/// What may.
pub(super) const PUBLIC: &str = "PUBLIC-canary-27ab";

/// The policy of the world: one granted folder to read, one to write, denies inside both.
pub(super) const POLICY: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.files]
builtin = "workspace"
[policy]
max_access = "destructive"
filesystem = { read = ["docs"], read_write = ["out"], deny = ["docs/private", "docs/hidden.txt", "out/kept"] }
tools = { allow = ["*"] }
"#;

/// A world: what lies where.
pub(super) struct World {
    pub(super) folder: Folder,
    before: BTreeMap<String, String>,
}

impl World {
    /// Builds it with a policy and prepares it by a script of the attacker's earlier life.
    pub(super) fn new(policy: &str, setup: &str) -> Result<Self, String> {
        // Not below /tmp, which is a private one for every sandbox: it would stop much by itself.
        let folder = Folder::within(Path::new("/var/tmp"), policy);
        for (path, text) in [
            ("docs/a.md", PUBLIC),
            ("docs/sub/b.md", PUBLIC),
            ("docs/private/s.txt", SECRET),
            ("docs/hidden.txt", SECRET),
            ("docs_evil/s.txt", SECRET),
            ("docs/team/secret.txt", SECRET),
            ("outside/secret.txt", SECRET),
            ("out/lead/own.txt", PUBLIC),
            ("outside/target.txt", "as it was"),
            ("out/kept/k.txt", SECRET),
            ("out/mine.txt", PUBLIC),
            ("repo/.git/config", "[core]\n"),
        ] {
            folder.write(path, text);
        }
        if !setup.is_empty() {
            let mut command = std::process::Command::new("bash");
            let ran = Ran::of(command.args(["-ec", setup]).current_dir(folder.path()).output().map_err(text)?);
            if ran.code != 0 {
                return Err(format!("the world could not be prepared: {ran:?}"));
            }
        }
        let mut world = Self { folder, before: BTreeMap::new() };
        world.before = world.now();
        Ok(world)
    }
    /// A path in it.
    pub(super) fn root(&self) -> String {
        self.folder.path().display().to_string()
    }
    /// Whether a secret came back, lies where the attacker reads, or anything outside changed.
    pub(super) fn broken(&self, ran: &Ran) -> bool {
        let said = [&ran.out, &ran.err].into_iter().any(|text| leaks(text));
        let made = |name: &str| self.folder.join(name).symlink_metadata().is_ok();
        said || made("out/evil")
            || made("out/lead/evil")
            || self.stolen(&self.folder.join("out"))
            || self.now() != self.before
    }
    /// How everything outside is.
    pub(super) fn state(&self) -> BTreeMap<String, String> {
        self.now()
    }
    /// What is not as it was, for a person.
    pub(super) fn changes(&self) -> Vec<String> {
        let now = self.now();
        let keys: std::collections::BTreeSet<&String> = now.keys().chain(self.before.keys()).collect();
        keys.into_iter().filter(|k| now.get(*k) != self.before.get(*k)).cloned().collect()
    }
    /// Whether the benign act left its trace.
    pub(super) fn done(&self, ran: &Ran) -> bool {
        let made = |name: &str| self.folder.join(name).symlink_metadata().is_ok();
        ran.out.contains(PUBLIC) || made("out/done") || made("out/lead/done") || made("out/lead/x")
    }
    /// What the scripted models say; part of the world as it was.
    pub(super) fn replies(&mut self, script: &str) {
        self.folder.write("replies.toml", script);
        self.before = self.now();
    }
    /// The question that waits.
    pub(super) fn question(&self) -> Result<String, String> {
        let listed = self.folder.run(&["answer", "--json"]).out;
        let words = listed.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        words
            .into_iter()
            .find(|w| w.starts_with("q-"))
            .map(str::to_owned)
            .ok_or_else(|| format!("no question: {listed}"))
    }
    /// The root run that was started first.
    pub(super) fn run_id(&self) -> Result<String, String> {
        let listed = self.folder.run(&["runs", "--json"]).out;
        let rows = listed.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let last = rows.filter_map(|row| row["run"].as_str().map(str::to_owned)).next_back();
        last.ok_or_else(|| format!("no run: {listed}"))
    }
    fn stolen(&self, folder: &Path) -> bool {
        let Ok(entries) = folder.read_dir() else { return false };
        entries.flatten().any(|entry| {
            let path = entry.path();
            let Ok(metadata) = path.symlink_metadata() else { return false };
            match () {
                () if path.ends_with("out/kept") => false,
                () if metadata.is_dir() => self.stolen(&path),
                // What was linked before by somebody else is not what the act brought here.
                () if metadata.is_file() && !path.ends_with("linked.txt") => {
                    std::fs::read(&path).is_ok_and(|bytes| leaks(&String::from_utf8_lossy(&bytes)))
                }
                () => false,
            }
        })
    }
    /// Everything but what the act may write: kind, mode, owner, time of change, content.
    fn now(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        self.look(self.folder.path(), &mut all);
        all
    }
    fn look(&self, folder: &Path, all: &mut BTreeMap<String, String>) {
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(self.folder.path()).unwrap_or(&path).display().to_string();
            let free = name.starts_with("out/") && !name.starts_with("out/kept");
            if free
                || name.starts_with(".state")
                || name.starts_with(".data")
                || name.starts_with("pleach.db")
                || name.starts_with("audit")
                || name.starts_with("pleach.audit")
            {
                continue;
            }
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let mode = metadata.permissions().mode();
            let what = if metadata.is_symlink() {
                format!("-> {:?}", std::fs::read_link(&path).ok())
            } else if metadata.is_file() {
                let content = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
                format!(
                    "{mode:o} {}:{} {}.{} {content}",
                    metadata.uid(),
                    metadata.gid(),
                    metadata.mtime(),
                    metadata.mtime_nsec()
                )
            } else {
                format!("{mode:o} {}:{}", metadata.uid(), metadata.gid())
            };
            let is_dir = metadata.is_dir();
            all.insert(name, what);
            if is_dir {
                self.look(&path, all);
            }
        }
    }
}

/// Whether the secret stands in a text, as it is or as somebody would hide it.
pub(super) fn leaks(text: &str) -> bool {
    let hex: String = SECRET.bytes().map(|b| format!("{b:02x}")).collect();
    // The first bytes of it in base64: `S3CR3T-ca`.
    text.contains(SECRET) || text.contains(&hex) || text.contains("UzNDUjNULWNh")
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}
