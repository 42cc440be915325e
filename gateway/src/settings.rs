//! From a path on the command line to a [`Policy`], with the machine around it.

use crate::error::Failure;
use policies::file::FileErrors;
use policies::grant::Narrowing;
use policies::import::Import;
use policies::json::Json;
use policies::place::Place;
use policies::resolve::{Limits, Policy, Surroundings, resolve};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A policy with where it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The policy.
    pub(crate) policy: Arc<Policy>,
    /// The file, canonical.
    pub(crate) path: PathBuf,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Where private homes and the like live; masked in every sandbox.
    pub(crate) state: PathBuf,
    /// Where fetched packages live; readable by the server they are for.
    pub(crate) packages: PathBuf,
}

impl Loaded {
    /// Pleach's own files, which no sandboxed process sees.
    pub(crate) fn own(&self) -> Vec<PathBuf> {
        let store = self.policy.store.display().to_string();
        let audit = self.policy.audit.folder.clone();
        let mut own = vec![self.path.clone(), self.policy.store.clone(), audit, state_root()];
        own.extend(["-wal", "-shm", "-journal"].map(|suffix| PathBuf::from(format!("{store}{suffix}"))));
        own.extend(self.policy.import_sources.iter().cloned());
        own
    }
    /// Reads the `policy` of a spawn request on this machine.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn request(&self, json: &Json) -> Result<(Narrowing, Limits), String> {
        let machine = Machine { folder: self.folder.clone(), file: self.path.clone() };
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

/// Reads, checks and resolves a policy file.
///
/// # Errors
/// Exit 2 with every error of the file.
pub(crate) fn load(path: &Path) -> Result<Loaded, Failure> {
    let shown = path.display().to_string();
    let source = std::fs::read_to_string(path).map_err(|e| {
        let hint = if e.kind() == std::io::ErrorKind::NotFound { "; `pleach init` writes one" } else { "" };
        Failure::usage(format!("{shown}: {e}{hint}"))
    })?;
    let file = path.canonicalize().map_err(|e| Failure::usage(format!("{shown}: {e}")))?;
    let loaded = understand(&shown, &source, &file).map_err(|errors| {
        let n = errors.0.len();
        let count = if n == 1 { "1 error".to_owned() } else { format!("{n} errors") };
        Failure::usage(format!("{errors}\n{shown}: {count}; nothing was started"))
    })?;
    for missing in &loaded.policy.create {
        std::fs::create_dir_all(missing)
            .map_err(|e| Failure::usage(format!("{}: cannot create it: {e}", missing.display())))?;
    }
    Ok(loaded)
}

/// The same without touching the filesystem: for reload and `check`.
pub(crate) fn understand(shown: &str, source: &str, file: &Path) -> Result<Loaded, FileErrors> {
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    let node = policies::file::read(shown, source)?;
    let machine = Machine { folder: folder.clone(), file: file.to_owned() };
    let policy = Arc::new(resolve(&node, &machine)?);
    let own = short_hash(file);
    let (state, packages) = (state_root().join(&own), data_root().join("packages").join(&own));
    Ok(Loaded { policy, path: file.to_owned(), folder, state, packages })
}

/// What files of other tools mean beside a policy file, whose text this is. A path is written as
/// `import` would have it.
///
/// # Errors
/// What is wrong with the policy file; what is wrong with the others stands in the result.
pub(crate) fn import(shown: &str, source: &str, file: &Path, paths: Vec<String>) -> Result<Import, FileErrors> {
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    let node = policies::file::read(shown, source)?;
    let machine = Machine { folder, file: file.to_owned() };
    let at = |path: &String| Place { file: path.as_str().into(), line: 1, column: 1 };
    let paths = paths.into_iter().map(|path| (path.clone(), at(&path))).collect();
    Ok(policies::import::read_paths(&node, paths, &machine))
}

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
        std::fs::read_to_string(path).map_err(|e| e.to_string())
    }
    fn entries(&self, path: &Path) -> Result<Option<Vec<String>>, String> {
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
