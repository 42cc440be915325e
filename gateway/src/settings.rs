//! From a path on the command line to a [`Policy`], with the machine around it.

use crate::error::Failure;
use crate::fetched;
use policies::file::FileErrors;
use policies::grant::Narrowing;
use policies::import::Import;
use policies::json::{Json, digest};
use policies::place::Place;
use policies::resolve::{Limits, Policy, Provider, SecretFile, Surroundings, lock_of, resolve};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A policy with where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// The policy.
    pub(crate) policy: Arc<Policy>,
    /// The file as it was named, absolute.
    pub(crate) named: PathBuf,
    /// The file, canonical.
    pub(crate) path: PathBuf,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Where private homes and the like live; masked in every sandbox.
    pub(crate) state: PathBuf,
    /// Where fetched packages live; readable by the server they are for.
    pub(crate) packages: PathBuf,
    /// Everything it was read from, and what was looked for in vain.
    pub(crate) sources: BTreeSet<PathBuf>,
    /// The SHA-256 of every text it was read from, for the record.
    pub(crate) digests: Digests,
}

/// Texts by their file, as SHA-256.
pub(crate) type Digests = BTreeMap<PathBuf, String>;

impl Loaded {
    /// Pleach's own files, which no sandboxed process sees.
    pub(crate) fn own(&self) -> Vec<PathBuf> {
        let store = self.policy.store.display().to_string();
        let mut own = self.sources();
        own.extend([self.policy.store.clone(), self.policy.audit.folder.clone(), state_root()]);
        own.extend(self.policy.secret_files());
        own.extend(["-wal", "-shm", "-journal"].map(|suffix| PathBuf::from(format!("{store}{suffix}"))));
        own
    }
    /// The files the policy was read from, lock file included, there or not: a change of one is a
    /// change of the policy.
    pub(crate) fn sources(&self) -> Vec<PathBuf> {
        let mut sources = vec![self.path.clone(), lock_of(&self.path)];
        sources.extend(self.policy.import_sources.iter().cloned());
        sources
    }
    /// Reads the `policy` of a spawn request on this machine.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn request(&self, json: &Json) -> Result<(Narrowing, Limits), String> {
        let machine = Machine::new(self.folder.clone(), self.path.clone());
        policies::resolve::request(json, &machine)
    }
    /// The private home of a server's processes for one principal, made if missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn home(&self, server: &str, principal: &str) -> std::io::Result<PathBuf> {
        let home = self.state.join("homes").join(server).join(principal);
        std::fs::create_dir_all(&home)?;
        home.canonicalize()
    }
}

/// Reads, checks and resolves a policy file, its secrets included.
///
/// # Errors
/// Exit 2 with every error of the file.
pub(crate) fn load(path: &Path) -> Result<Loaded, Failure> {
    load_with(path, true)
}

/// The same for who only looks: no command of a secret is run, and their values are not there.
///
/// # Errors
/// Exit 2 with every error of the file.
pub(crate) fn look(path: &Path) -> Result<Loaded, Failure> {
    load_with(path, false)
}

fn load_with(path: &Path, fetches: bool) -> Result<Loaded, Failure> {
    let shown = path.display().to_string();
    let source = std::fs::read_to_string(path).map_err(|e| {
        let hint = if e.kind() == std::io::ErrorKind::NotFound { "; `pleach init` writes one" } else { "" };
        Failure::usage(format!("{shown}: {e}{hint}"))
    })?;
    let file = path.canonicalize().map_err(|e| Failure::usage(format!("{shown}: {e}")))?;
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    let machine = Machine { fetches, ..Machine::new(folder, file) };
    let mut loaded = understand_on(&shown, &source, &machine).map_err(|errors| {
        let n = errors.0.len();
        let count = if n == 1 { "1 error".to_owned() } else { format!("{n} errors") };
        Failure::usage(format!("{errors}\n{shown}: {count}; nothing was started"))
    })?;
    loaded.named = std::path::absolute(path).map_err(|e| Failure::usage(format!("{shown}: {e}")))?;
    loaded.sources.insert(loaded.named.clone());
    create(&loaded.policy).map_err(Failure::usage)?;
    Ok(loaded)
}

/// Makes the folders that agents may write and that are missing.
pub(crate) fn create(policy: &Policy) -> Result<(), String> {
    policy.create.iter().try_for_each(|missing| {
        std::fs::create_dir_all(missing).map_err(|e| format!("{}: cannot create it: {e}", missing.display()))
    })
}

/// A policy file that was read again.
pub(crate) struct Again {
    /// What was read, and what was looked for in vain.
    pub(crate) sources: BTreeSet<PathBuf>,
    /// The texts.
    pub(crate) digests: Digests,
    /// The policy, or why it is none.
    pub(crate) understood: Result<Loaded, String>,
}

/// Reads the file again that `before` was read from, and says what it was read from now, whether
/// it holds or not. What belongs to the process and not to the policy stays as it was.
pub(crate) fn again(before: &Loaded) -> Again {
    let (named, shown) = (&before.named, &*before.policy.file);
    let (mut sources, mut digests) = (BTreeSet::from([named.clone()]), Digests::new());
    let failed = |e: std::io::Error| format!("{shown}: {e}");
    let read = std::fs::read_to_string(named).and_then(|source| Ok((source, named.canonicalize()?)));
    let understood = read.map_err(failed).and_then(|(source, file)| {
        let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
        let machine = Machine { fetches: true, ..Machine::new(folder, file.clone()) };
        digests.insert(file, digest(&source));
        let understood = understand_on(shown, &source, &machine).map_err(|errors| errors.to_string());
        sources.extend(machine.read.into_inner());
        digests.extend(machine.texts.into_inner());
        understood
    });
    let understood = understood.map(|loaded| Loaded {
        named: named.clone(),
        state: before.state.clone(),
        packages: before.packages.clone(),
        sources: &loaded.sources | &sources,
        ..loaded
    });
    Again { sources, digests, understood }
}

/// The same without changing anything in the filesystem and without running anything: for `check`
/// and `diff`, which are shown files of others.
pub(crate) fn understand(shown: &str, source: &str, file: &Path) -> Result<Loaded, FileErrors> {
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    understand_on(shown, source, &Machine::new(folder, file.to_owned()))
}

fn understand_on(shown: &str, source: &str, machine: &Machine) -> Result<Loaded, FileErrors> {
    let node = policies::file::read(shown, source)?;
    let policy = Arc::new(resolve(&node, machine)?);
    adapters::hidden::hide(&policy.hidden);
    let own = short_hash(&machine.file);
    let (state, packages) = (state_root().join(&own), data_root().join("packages").join(&own));
    let mut sources = machine.read.borrow().clone();
    sources.extend(policy.models.values().filter_map(|model| match &model.provider {
        Provider::Scripted { script } => Some(script.clone()),
        _ => None,
    }));
    let (path, folder) = (machine.file.clone(), machine.folder.clone());
    let mut digests = machine.texts.borrow().clone();
    digests.insert(path.clone(), digest(source));
    Ok(Loaded { policy, named: path.clone(), path, folder, state, packages, sources, digests })
}

/// What files of other tools mean beside a policy file, whose text this is. A path is written as
/// `import` would have it.
///
/// # Errors
/// What is wrong with the policy file; what is wrong with the others stands in the result.
pub(crate) fn import(shown: &str, source: &str, file: &Path, paths: Vec<String>) -> Result<Import, FileErrors> {
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    let node = policies::file::read(shown, source)?;
    let machine = Machine::new(folder, file.to_owned());
    let at = |path: &String| Place { file: path.as_str().into(), line: 1, column: 1 };
    let paths = paths.into_iter().map(|path| (path.clone(), at(&path))).collect();
    Ok(policies::import::read_paths(&node, paths, &machine))
}

/// Beside a fetched package: its name and version.
pub(crate) const PACKAGE: &str = "pleach-package";

/// `$XDG_STATE_HOME/pleach`, else `~/.local/state/pleach`.
pub(crate) fn state_root() -> PathBuf {
    let xdg = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let base = xdg.or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".local/state")));
    base.unwrap_or_else(std::env::temp_dir).join("pleach")
}

/// `$XDG_DATA_HOME/pleach`, else `~/.local/share/pleach`.
fn data_root() -> PathBuf {
    let xdg = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let base = xdg.or_else(|| std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".local/share")));
    base.unwrap_or_else(std::env::temp_dir).join("pleach")
}

fn short_hash(path: &Path) -> String {
    // Only to give each policy file its own folder; FNV-1a is stable across versions.
    let hash = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

struct Machine {
    folder: PathBuf,
    file: PathBuf,
    /// Whether commands of secrets are run.
    fetches: bool,
    /// What was read.
    read: RefCell<BTreeSet<PathBuf>>,
    /// What stood there.
    texts: RefCell<Digests>,
}

impl Machine {
    fn new(folder: PathBuf, file: PathBuf) -> Self {
        Self { folder, file, fetches: false, read: RefCell::default(), texts: RefCell::default() }
    }
    fn text(&self, path: &Path) -> std::io::Result<String> {
        self.read.borrow_mut().insert(path.to_owned());
        let text = std::fs::read_to_string(path)?;
        self.texts.borrow_mut().insert(path.to_owned(), digest(&text));
        Ok(text)
    }
}

impl Surroundings for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
    fn folder(&self) -> &Path {
        &self.folder
    }
    fn file(&self) -> &Path {
        &self.file
    }
    fn home(&self) -> Option<PathBuf> {
        std::env::var_os("HOME").map(PathBuf::from)
    }
    fn canonical(&self, path: &Path) -> Result<PathBuf, String> {
        adapters::paths::canonical(path)
    }
    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
    fn read_text(&self, path: &Path) -> Result<String, String> {
        self.text(path).map_err(|e| e.to_string())
    }
    fn secret_file(&self, path: &Path) -> Result<SecretFile, String> {
        // Watched like the rest of the policy; but no digest of it is kept, which would tell a
        // short value to who can guess.
        self.read.borrow_mut().insert(path.to_owned());
        fetched::file(path)
    }
    fn secret_command(&self, command: &[String]) -> Result<Option<String>, String> {
        match self.fetches {
            true => fetched::command(command).map(Some),
            false => Ok(None),
        }
    }
    fn lock(&self) -> Result<Option<String>, String> {
        match self.text(&lock_of(&self.file)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.to_string()),
        }
    }
    fn package(&self, command: &str) -> Option<String> {
        // Only of what `install` fetched: the folder of a server's own package.
        let root = data_root().join("packages").join(short_hash(&self.file));
        let server = Path::new(command).strip_prefix(&root).ok()?.components().next()?;
        let said = std::fs::read_to_string(root.join(server).join(PACKAGE)).ok()?;
        Some(said.trim().to_owned())
    }
    fn entries(&self, path: &Path) -> Result<Option<Vec<String>>, String> {
        self.read.borrow_mut().insert(path.to_owned());
        // What a link leads to is not part of this folder, and could lead in a circle.
        let kind = match std::fs::symlink_metadata(path) {
            Ok(kind) => kind,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.to_string()),
        };
        if !kind.is_dir() {
            return Ok(None);
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|e| e.to_string())? {
            let name = entry.map_err(|e| e.to_string())?.file_name();
            names.push(name.into_string().map_err(|name| format!("{} is no text", name.display()))?);
        }
        names.sort();
        Ok(Some(names))
    }
}

/// Our environment as far as it is text.
pub(crate) fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
}
