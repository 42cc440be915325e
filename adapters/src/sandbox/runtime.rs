//! What a program needs merely to run, found by following it to its end: links, shebangs,
//! `pyvenv.cfg`, pyenv shims, `node_modules`, and the script among its arguments.
//!
//! None of it is authority: these paths are readable and executable by that process alone, and
//! an argument naming one is judged like any other.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A program with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// What to execute, absolute.
    pub program: PathBuf,
    /// Folders and files it reads.
    pub paths: BTreeSet<PathBuf>,
}

/// Why a program cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// Nothing of that name on PATH.
    #[error("{0}: not found on PATH; install it, or write the whole path in `command`")]
    NotFound(String),
    /// There, but no program.
    #[error("{0} is not an executable file")]
    NotExecutable(String),
}

/// Finds `command` and everything it needs. `args` matter for `node server.js`.
///
/// # Errors
/// When there is no such program.
pub fn discover(command: &str, args: &[String], cwd: &Path, path: &str) -> Result<Runtime, RuntimeError> {
    let mut found = Finder { paths: BTreeSet::new(), search: path, cwd, depth: 0 };
    let program = found.which(command)?;
    let program = found.unshim(&program);
    found.follow(&program);
    found.script(&program, args);
    Ok(Runtime { program, paths: found.paths })
}

struct Finder<'a> {
    paths: BTreeSet<PathBuf>,
    search: &'a str,
    cwd: &'a Path,
    depth: u32,
}

impl Finder<'_> {
    fn which(&self, command: &str) -> Result<PathBuf, RuntimeError> {
        if command.contains('/') {
            let path = self.cwd.join(command);
            if !path.exists() {
                return Err(RuntimeError::NotFound(command.to_owned()));
            }
            return if executable(&path) { Ok(path) } else { Err(RuntimeError::NotExecutable(command.to_owned())) };
        }
        self.search
            .split(':')
            .filter(|d| d.starts_with('/'))
            .map(|folder| Path::new(folder).join(command))
            .find(|p| executable(p))
            .ok_or_else(|| RuntimeError::NotFound(command.to_owned()))
    }

    /// A pyenv shim is a script that asks pyenv, which asks its versions; the end of that is a
    /// file that can be named directly.
    fn unshim(&self, program: &Path) -> PathBuf {
        let Some(shims) = program.parent().filter(|p| p.ends_with("shims")) else { return program.to_owned() };
        let (Some(root), Some(name)) = (shims.parent(), program.file_name()) else { return program.to_owned() };
        let local = self.cwd.ancestors().map(|f| f.join(".python-version"));
        let wanted = local.chain([root.join("version")]).find_map(|f| fs::read_to_string(f).ok()).unwrap_or_default();
        let end = wanted
            .split_whitespace()
            .map(|version| root.join("versions").join(version).join("bin").join(name))
            .find(|p| executable(p));
        end.unwrap_or_else(|| program.to_owned())
    }

    /// Adds a file, every link on the way to it, and the install root it belongs to.
    fn follow(&mut self, file: &Path) {
        self.depth += 1;
        if self.depth > 32 {
            return;
        }
        let Ok(real) = file.canonicalize() else { return };
        // Only programs are followed: a link or a pyvenv.cfg that an earlier process wrote could
        // name anything, and must not turn a secret into something to read.
        if !executable(&real) {
            return;
        }
        let mut at = file.to_owned();
        for _ in 0..40 {
            self.roots(&at);
            match fs::read_link(&at) {
                Ok(target) => at = at.parent().unwrap_or(Path::new("/")).join(target),
                Err(_) => break,
            }
        }
        self.roots(&real);
        self.paths.insert(real.clone());
        self.shebang(&real);
    }

    fn roots(&mut self, file: &Path) {
        // The outermost node_modules: packages resolve upwards from within it.
        if let Some(root) = file.ancestors().filter(|p| p.ends_with("node_modules")).last() {
            self.paths.insert(root.to_owned());
            if let Some(package) = root.parent().map(|p| p.join("package.json")).filter(|p| p.exists()) {
                self.paths.insert(package);
            }
        }
        let Some(bin) = file.parent().filter(|p| p.ends_with("bin") || p.ends_with("sbin")) else { return };
        let Some(root) = bin.parent() else { return };
        let venv = root.join("pyvenv.cfg");
        if let Ok(config) = fs::read_to_string(&venv) {
            self.paths.insert(root.to_owned());
            let home = config.lines().find_map(|l| l.split_once('=').filter(|(k, _)| k.trim() == "home"));
            if let Some((_, home)) = home {
                let name = file.file_name().unwrap_or_default();
                let base = Path::new(home.trim());
                for python in [base.join(name), base.join("python3"), base.join("python")] {
                    if python.exists() {
                        self.follow(&python);
                        break;
                    }
                }
            }
            return;
        }
        if is_install_root(root) {
            self.paths.insert(root.to_owned());
            if let Ok(real) = root.canonicalize() {
                self.paths.insert(real);
            }
        }
    }

    fn shebang(&mut self, file: &Path) {
        let mut head = [0u8; 512];
        let Ok(n) = fs::File::open(file).and_then(|mut f| f.read(&mut head)) else { return };
        let Some(line) = head[..n].strip_prefix(b"#!") else { return };
        let line = line.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut words = line.split_whitespace();
        let Some(interpreter) = words.next() else { return };
        if interpreter.ends_with("/env") {
            let name = words.find(|w| !w.starts_with('-') && !w.contains('='));
            if let Some(Ok(path)) = name.map(|n| self.which(n)) {
                let path = self.unshim(&path);
                self.follow(&path);
            }
        } else {
            self.follow(Path::new(interpreter));
        }
    }

    /// `node build/index.js`, `python -m x`, `bash run.sh`: the first argument that is a file is
    /// the program proper, and needs the package around it.
    fn script(&mut self, program: &Path, args: &[String]) {
        let name = program.file_name().and_then(|n| n.to_str()).unwrap_or("");
        let runs_scripts =
            ["node", "python", "bash", "sh", "deno", "bun", "ruby", "perl", "php"].iter().any(|i| name.starts_with(i));
        if !runs_scripts {
            return;
        }
        // The first argument that is no option is the script; after -c, -e or -m there is none.
        let code = |a: &&String| matches!(a.as_str(), "-c" | "-e" | "-m" | "-p" | "--eval" | "--print");
        if args.iter().take_while(|a| a.starts_with('-')).any(|a| code(&a)) {
            return;
        }
        let Some(file) = args.iter().find(|a| !a.starts_with('-')).map(|a| self.cwd.join(a)).filter(|p| p.is_file())
        else {
            return;
        };
        self.roots(&file);
        let Ok(real) = file.canonicalize() else { return };
        self.roots(&real);
        self.paths.insert(real.clone());
        self.shebang(&real);
        let package =
            real.ancestors().skip(1).find(|f| f.join("package.json").exists() || f.join("pyproject.toml").exists());
        match package {
            Some(folder) if !is_home_or_above(folder) => self.paths.insert(folder.to_owned()),
            _ => real.parent().filter(|p| !is_home_or_above(p)).is_some_and(|p| self.paths.insert(p.to_owned())),
        };
    }
}

fn executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// `/opt/tool` with a `bin` and a `lib` is one installation; a home or a system folder is not.
fn is_install_root(root: &Path) -> bool {
    let installed = root.join("lib").is_dir() || root.join("libexec").is_dir() || root.join("share").is_dir();
    installed && !is_home_or_above(root) && !root.ends_with(".local")
}

fn is_home_or_above(path: &Path) -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    path == Path::new("/") || home.is_some_and(|home| home.starts_with(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn script(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn links_shebangs_and_venvs_are_followed_to_their_ends() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let python = root.join("opt/python/bin/python3");
        script(&python, "\x7fELF");
        fs::create_dir_all(root.join("opt/python/lib")).unwrap();
        let venv = root.join("venv");
        fs::create_dir_all(venv.join("bin")).unwrap();
        fs::write(venv.join("pyvenv.cfg"), format!("home = {}\n", root.join("opt/python/bin").display())).unwrap();
        symlink(&python, venv.join("bin/python3")).unwrap();
        script(&venv.join("bin/tool"), &format!("#!{}\n", venv.join("bin/python3").display()));
        fs::create_dir_all(root.join("path")).unwrap();
        symlink(venv.join("bin/tool"), root.join("path/tool")).unwrap();

        let found = discover("tool", &[], &root, root.join("path").to_str().unwrap()).unwrap();
        assert!(found.paths.contains(&venv) && found.paths.contains(&root.join("opt/python")), "{found:?}");
        assert!(!found.paths.contains(&root));
    }

    #[test]
    fn shims_and_node_packages() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        script(&root.join("pyenv/shims/tool"), "#!/usr/bin/env bash\nexec pyenv exec tool\n");
        fs::write(root.join("pyenv/version"), "3.11.7\n").unwrap();
        script(&root.join("pyenv/versions/3.11.7/bin/tool"), "#!/bin/sh\n");
        let found = discover("tool", &[], &root, root.join("pyenv/shims").to_str().unwrap()).unwrap();
        assert_eq!(found.program, root.join("pyenv/versions/3.11.7/bin/tool"));

        script(&root.join("app/node_modules/pkg/cli.js"), "#!/bin/sh\n");
        fs::create_dir_all(root.join("app/node_modules/.bin")).unwrap();
        symlink("../pkg/cli.js", root.join("app/node_modules/.bin/pkg")).unwrap();
        let found = discover("app/node_modules/.bin/pkg", &[], &root, "").unwrap();
        assert!(found.paths.contains(&root.join("app/node_modules")), "{found:?}");
        assert!(matches!(discover("nothing-here", &[], &root, "/usr/bin"), Err(RuntimeError::NotFound(_))));
    }
}
