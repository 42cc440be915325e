//! From a runner's command line to a package, and from a package to a program on disk.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runner {
    /// npx, bunx, pnpx.
    Npm,
    /// uvx, uv tool run, pipx run.
    Pip,
}

impl Runner {
    pub(super) fn registry(self) -> &'static str {
        match self {
            Runner::Npm => "the npm registry",
            Runner::Pip => "PyPI",
        }
    }
}

/// A package as a runner was asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) runner: Runner,
    /// Name with version, as the installer takes it.
    pub(super) spec: String,
    /// Its name.
    pub(super) name: String,
    /// The program in it.
    program: Option<String>,
    /// How many arguments belonged to the runner.
    pub(super) consumed: usize,
}

/// A package on disk.
pub(super) struct Fetched {
    pub(super) program: PathBuf,
    pub(super) version: String,
}

impl Package {
    /// The package a command line runs; `None` when the command is no runner.
    pub(super) fn behind(command: &str, args: &[String]) -> Result<Option<Self>, String> {
        let name = Path::new(command).file_name().and_then(|n| n.to_str()).unwrap_or("");
        let (runner, skip) = match (name, args.first().map(String::as_str), args.get(1).map(String::as_str)) {
            ("npx" | "bunx" | "pnpx", ..) => (Runner::Npm, 0),
            ("uvx", ..) => (Runner::Pip, 0),
            ("uv", Some("tool"), Some("run")) => (Runner::Pip, 2),
            ("uv", Some("x"), _) | ("pipx", Some("run"), _) => (Runner::Pip, 1),
            ("uv" | "pipx", ..) => {
                return Err(format!("{command} {} runs no package; install it by hand", args.join(" ")));
            }
            _ => return Ok(None),
        };
        let (mut package, mut program) = (None, None);
        let mut at = skip;
        while let Some(arg) = args.get(at) {
            at += 1;
            let (flag, inline) = arg.split_once('=').map_or((arg.as_str(), None), |(f, v)| (f, Some(v.to_owned())));
            match flag {
                // To the Python runners -p is the interpreter.
                "-p" if runner == Runner::Pip && inline.is_none() => at += 1,
                "-p" | "--package" | "--from" | "--spec" => {
                    package = inline.or_else(|| {
                        at += 1;
                        args.get(at - 1).cloned()
                    });
                }
                "--python" | "--with" if inline.is_none() => at += 1,
                "--" => {}
                _ if flag.starts_with('-') => {}
                _ => {
                    program = Some(arg.clone());
                    break;
                }
            }
        }
        let named = program.clone().ok_or_else(|| format!("{command} {}: which package?", args.join(" ")))?;
        let spec = package.clone().unwrap_or_else(|| named.clone());
        let by_name = |c: char| {
            c.is_ascii_alphanumeric()
                || matches!(c, '@' | '/' | '-' | '_' | '.' | '=' | '[' | ']' | '~' | '^' | '<' | '>' | ',')
        };
        if spec.contains("://")
            || spec.contains("git+")
            || spec.starts_with(['.', '/', '-'])
            || !spec.chars().all(by_name)
        {
            return Err(format!("{spec:?} is no package name; fetch it by hand and name its program in command"));
        }
        let name = match runner {
            Runner::Npm => match spec.rfind('@') {
                Some(at) if at > 0 => spec[..at].to_owned(),
                _ => spec.clone(),
            },
            Runner::Pip => spec.split(['@', '=', '<', '>', '~', '[']).next().unwrap_or(&spec).to_owned(),
        };
        let spec = match runner {
            Runner::Npm => spec,
            Runner::Pip => spec.trim_end_matches("@latest").replacen('@', "==", 1),
        };
        let program = match (package, runner) {
            (Some(_), _) => Some(named),
            (None, Runner::Pip) => Some(name.clone()),
            (None, Runner::Npm) => None,
        };
        Ok(Some(Self { runner, spec, name, program, consumed: at }))
    }

    /// Fetches it into a folder of its own.
    pub(super) fn fetch(&self, folder: &Path) -> Result<Fetched, String> {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let folder = folder.canonicalize().map_err(|e| e.to_string())?;
        match self.runner {
            Runner::Npm => self.fetch_npm(&folder),
            Runner::Pip => self.fetch_pip(&folder),
        }
    }

    fn fetch_npm(&self, folder: &Path) -> Result<Fetched, String> {
        let mut npm = Command::new("npm");
        // A package's install scripts would run outside the sandbox.
        npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--save-exact", "--prefix"]);
        finish(npm.arg(folder).arg("--").arg(&self.spec))?;
        let modules = folder.join("node_modules");
        let manifest = modules.join(&self.name).join("package.json");
        let text = std::fs::read_to_string(&manifest).map_err(|e| format!("{}: {e}", manifest.display()))?;
        let json: serde_json::Value =
            serde_json::from_str(&text).map_err(|e| format!("{}: {e}", manifest.display()))?;
        let bare = self.name.rsplit('/').next().unwrap_or(&self.name);
        let program = match (&self.program, &json["bin"]) {
            (Some(program), _) => program.clone(),
            (None, serde_json::Value::Object(bins)) if bins.len() == 1 || !bins.contains_key(bare) => {
                bins.keys().next().cloned().unwrap_or_else(|| bare.to_owned())
            }
            _ => bare.to_owned(),
        };
        let version = json["version"].as_str().unwrap_or("of unknown version").to_owned();
        existing(modules.join(".bin").join(program), version)
    }

    fn fetch_pip(&self, folder: &Path) -> Result<Fetched, String> {
        let python = folder.join("bin/python3");
        if !python.exists() {
            finish(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        }
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--"]);
        finish(pip.arg(&self.spec))?;
        javascript_parts(folder)?;
        let asked = Command::new(&python)
            .args(["-c", "import importlib.metadata,sys; print(importlib.metadata.version(sys.argv[1]))"])
            .arg(&self.name)
            .output();
        let version = asked.ok().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
        let program = self.program.as_deref().unwrap_or(&self.name);
        existing(folder.join("bin").join(program), version)
    }
}

/// Some Python packages bring a JavaScript part and run `npm install` beside themselves when they
/// are first used, which the sandbox does not let them do. It is done here, scripts off.
fn javascript_parts(venv: &Path) -> Result<(), String> {
    let folders = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path());
    let packages = folders(venv.join("lib")).flat_map(|python| folders(python.join("site-packages")));
    for part in
        packages.flat_map(folders).filter(|p| p.join("package.json").is_file() && !p.join("node_modules").exists())
    {
        finish(
            Command::new("npm")
                .args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"])
                .current_dir(&part),
        )?;
    }
    Ok(())
}

fn existing(program: PathBuf, version: String) -> Result<Fetched, String> {
    if program.exists() {
        Ok(Fetched { program, version })
    } else {
        Err(format!("the package has no program {}", program.display()))
    }
}

fn finish(command: &mut Command) -> Result<(), String> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{shown}: {e}; is it installed?"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.trim().lines().rev().take(3).collect();
    Err(format!("{shown} failed: {}", last.into_iter().rev().collect::<Vec<_>>().join(" / ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(line: &str) -> Result<Option<Package>, String> {
        let mut words = line.split(' ').map(str::to_owned);
        let command = words.next().unwrap();
        Package::behind(&command, &words.collect::<Vec<_>>())
    }

    #[test]
    fn runners_and_their_packages() {
        let npm = behind("npx -y @scope/server@1.2 /data").unwrap().unwrap();
        assert_eq!((npm.name.as_str(), npm.spec.as_str(), npm.consumed), ("@scope/server", "@scope/server@1.2", 2));
        let npm = behind("npx --package=@a/b tool --x").unwrap().unwrap();
        assert_eq!((npm.name.as_str(), npm.program.as_deref(), npm.consumed), ("@a/b", Some("tool"), 2));
        let pip = behind("uvx mcp-server-git@2025.1 --repository .").unwrap().unwrap();
        assert_eq!(
            (pip.spec.as_str(), pip.program.as_deref(), pip.consumed),
            ("mcp-server-git==2025.1", Some("mcp-server-git"), 1)
        );
        let pip = behind("uv tool run --from mcp-x mcp-y").unwrap().unwrap();
        assert_eq!((pip.spec.as_str(), pip.program.as_deref(), pip.consumed), ("mcp-x", Some("mcp-y"), 5));
        assert_eq!(behind("mcp-server-git --repository .").unwrap(), None);
        for bad in
            ["npx", "uvx --from git+https://example.com/x y", "npx https://example.com/x.tgz", "npx a;b", "uv sync"]
        {
            assert!(behind(bad).is_err(), "{bad}");
        }
    }
}
