//! The binary under test, and folders to run it in.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The built `pleach`: `PLEACH_BIN`, else beside the test's own target folder.
///
/// # Panics
/// When it was not built.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PLEACH_BIN") {
        return path.into();
    }
    let exe = std::env::current_exe().unwrap_or_default();
    let folder = exe.ancestors().find(|p| p.join("pleach").is_file());
    match folder {
        Some(folder) => folder.join("pleach"),
        None => panic!("pleach is not built; run `cargo build` first, or set PLEACH_BIN"),
    }
}

/// A temporary folder with a policy file in it.
pub struct Folder {
    dir: tempfile::TempDir,
    root: PathBuf,
}

impl Folder {
    /// A folder with `pleach.toml` and an empty script `replies.toml`.
    ///
    /// # Panics
    /// When the machine has no temporary folder.
    #[allow(clippy::unwrap_used)]
    pub fn new(policy: &str) -> Self {
        Self::within(&std::env::temp_dir(), policy)
    }
    /// The same below another folder.
    ///
    /// # Panics
    /// When nothing can be made there.
    #[allow(clippy::unwrap_used)]
    pub fn within(parent: &Path, policy: &str) -> Self {
        let dir = tempfile::tempdir_in(parent).unwrap();
        let root = dir.path().canonicalize().unwrap();
        let folder = Self { dir, root };
        folder.write("pleach.toml", policy);
        folder.write("replies.toml", "");
        folder.make_visible();
        folder
    }
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.root
    }
    /// A path in it.
    pub fn join(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
    /// Writes a file, folders included.
    ///
    /// # Panics
    /// When it cannot be written.
    #[allow(clippy::unwrap_used)]
    pub fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
    /// Reads a file; `None` when it is not there.
    pub fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }
    /// `pleach ARGS` in this folder, with a private state folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).current_dir(&self.root).env("XDG_STATE_HOME", self.root.join(".state"));
        command.env("XDG_DATA_HOME", self.root.join(".data"));
        command
    }
    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[allow(clippy::unwrap_used)]
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).stdin(std::process::Stdio::null()).output().unwrap())
    }
    /// The folder, kept until dropped.
    pub fn keep(&self) -> &tempfile::TempDir {
        &self.dir
    }
    fn make_visible(&self) {
        use std::os::unix::fs::PermissionsExt;
        let _ = std::fs::set_permissions(&self.root, std::fs::Permissions::from_mode(0o777));
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; −1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// From a finished process.
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}
