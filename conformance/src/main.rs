//! `cargo conformance`: everything there is to pass, in one command. `cargo conformance STEP`
//! runs one step; `cargo conformance crash 2000` (or `--all`) kills so many; `cargo conformance policy P3`
//! attacks in that way only; `cargo conformance a2a`
//! tests the A2A door alone, and `a2a --serve` serves what A2A kits are to be pointed at
//! (`a2a --serve 0.3`: the kit of 0.3).

use conformance::crash::Extent;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// The steps in order: a name, what it shows, what it runs.
type Step = (&'static str, &'static str, fn(&Path) -> Result<(), String>);

const STEPS: [Step; 10] = [
    ("fmt", "the code is formatted", |root| cargo(root, &["fmt", "--all", "--check"], &[])),
    ("build", "it builds", |root| cargo(root, &["build", "--workspace", "--all-targets"], &[])),
    ("clippy", "no lint, warnings denied", |root| {
        cargo(root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])
    }),
    ("doc", "the documentation builds without a warning", |root| {
        cargo(
            root,
            &["doc", "--workspace", "--no-deps", "--document-private-items"],
            &[("RUSTDOCFLAGS", "-D warnings")],
        )
    }),
    ("kits", "third-party servers and clients are installed", kits),
    ("test", "every test passes", |root| {
        let kits = kits_folder(root);
        cargo(root, &["test", "--workspace", "--no-fail-fast"], &[("PLEACH_KITS", &kits.display().to_string())])
    }),
    ("crash", "killed at every edge of its journal, a tree goes on and nothing is done twice", |_| {
        conformance::crash::run(Extent::Each)
    }),
    ("policy", "the attack corpus is stopped, and its benign twins pass", |_| conformance::policy::run(&[])),
    ("mcp", "the official MCP suite passes, through the gateway and against its connector", |root| {
        let kits = kits_folder(root);
        conformance::official::servers(&kits)?;
        conformance::official::clients(&kits)
    }),
    ("quickstart", "the README's first command does the main job", |root| {
        // The binary that was just tested: a build of its own would tell nothing more.
        let exe = std::env::current_exe().map_err(|e| e.to_string())?;
        let pleach = exe.with_file_name("pleach");
        run(Command::new(pleach).args(["run", "--config", "examples/01-quickstart/pleach.toml"]).current_dir(root))
    }),
];

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    match &wanted[..] {
        [word, era, transport] if word == "fixture" => return ended(conformance::fixture::run(era, transport)),
        [word, era, transport, rest @ ..] if word == "mirror" => {
            let address = rest.first().map_or("127.0.0.1:0", String::as_str);
            return ended(conformance::mirror::run(era, transport, address));
        }
        [word, args @ ..] if word == "policy" => return ended(conformance::policy::run(args)),
        [word, file] if word == "ledger" => return ended(conformance::crash::ledger(file)),
        [word, extent] if word == "crash" => {
            let kills = if extent == "--all" { Some(2_000) } else { extent.parse().ok() };
            let Some(kills) = kills else {
                eprintln!("conformance: crash takes --all or a number of kills, not {extent:?}");
                return ExitCode::from(2);
            };
            return ended(conformance::crash::run(Extent::Kills(kills)));
        }
        [word, flag] if word == "a2a" && flag == "--serve" => return ended(conformance::a2a::serve(false)),
        [word, flag, kit] if word == "a2a" && flag == "--serve" && kit == "0.3" => {
            return ended(conformance::a2a::serve(true));
        }
        // What the `test` step runs of it, by itself.
        [word] if word == "a2a" => {
            let kits = kits_folder(&root).display().to_string();
            let args = ["test", "--workspace", "--test", "suite", "a2a"];
            return ended(self::kits(&root).and_then(|()| cargo(&root, &args, &[("PLEACH_KITS", &kits)])));
        }
        [word, url] if word == "drive" => return ended(conformance::official::drive(url)),
        _ => {}
    }
    if let Some(unknown) = wanted.iter().find(|w| !STEPS.iter().any(|(name, ..)| name == w)) {
        let names: Vec<&str> = STEPS.iter().map(|(name, ..)| *name).collect();
        eprintln!("conformance: there is no step {unknown:?}; the steps are {}", names.join(", "));
        return ExitCode::from(2);
    }
    let start = Instant::now();
    let (mut passed, mut failed) = (0, 0);
    for (name, shows, run) in STEPS {
        if !wanted.is_empty() && !wanted.iter().any(|w| w == name) {
            continue;
        }
        println!("== {name}: {shows}");
        let began = Instant::now();
        match run(&root) {
            Ok(()) => {
                passed += 1;
                println!("== {name}: ok, {} s", began.elapsed().as_secs());
            }
            Err(why) => {
                failed += 1;
                println!("== {name}: FAILED: {why}");
            }
        }
    }
    println!("== {passed} steps passed, {failed} failed, {} s", start.elapsed().as_secs());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How a server or client of the suite's ends.
fn ended(outcome: Result<(), impl std::fmt::Display>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("conformance: {e}");
            ExitCode::FAILURE
        }
    }
}

fn cargo(root: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<(), String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    run(command.args(args).current_dir(root).envs(env.iter().copied()))
}

fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}

fn kits_folder(root: &Path) -> PathBuf {
    std::env::var_os("PLEACH_KITS").map_or_else(|| root.join("target/kits"), PathBuf::from)
}

/// Third-party servers and clients, by package name, in a folder of their own.
const NPM: [&str; 5] = [
    "@modelcontextprotocol/server-everything",
    "@modelcontextprotocol/server-filesystem",
    "@modelcontextprotocol/server-memory",
    "@modelcontextprotocol/server-sequential-thinking",
    "@modelcontextprotocol/sdk",
];
/// Servers of the model providers' wire formats that are not our own, each in a folder of its
/// own: what they need is no business of the others.
const MODELS_NPM: &str = "@copilotkit/aimock@1.43.0";
const MODELS_PIP: &str = "llmock==0.2.2";
const PIP: [&str; 5] = ["mcp", "fastmcp", "mcp-server-git", "mcp-server-fetch", "mcp-server-time"];
/// Written for the generation before, which it does not ask for.
const OLD_PIP: [&str; 2] = ["mcp<2", "mcp-server-sqlite"];

fn kits(root: &Path) -> Result<(), String> {
    let folder = kits_folder(root);
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    if !folder.join("node_modules/@modelcontextprotocol/sdk").exists() {
        std::fs::write(folder.join("package.json"), "{\"private\":true}\n").map_err(|e| e.to_string())?;
        run(Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--silent"])
            .args(NPM)
            .current_dir(&folder))?;
    }
    let suite = folder.join("suite");
    if !suite.join("node_modules/@modelcontextprotocol/inspector").exists() {
        std::fs::create_dir_all(&suite).map_err(|e| e.to_string())?;
        std::fs::write(suite.join("package.json"), "{\"private\":true}\n").map_err(|e| e.to_string())?;
        run(Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--silent"])
            .args(conformance::official::PACKAGES)
            .current_dir(&suite))?;
    }
    let venv = folder.join("venv");
    if !venv.join("bin/fastmcp").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check"]).args(PIP))?;
        // What mcp-server-fetch's reader would fetch at its first use, which a sandbox forbids.
        let find = "import readabilipy,pathlib; print(pathlib.Path(readabilipy.__file__).parent / 'javascript')";
        let found = Command::new(venv.join("bin/python")).args(["-c", find]).output().map_err(|e| e.to_string())?;
        let reader = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
        run(Command::new("npm").args(["install", "--no-audit", "--no-fund", "--silent"]).current_dir(reader))?;
    }
    let old = folder.join("sqlite/venv");
    if !old.join("bin/mcp-server-sqlite").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&old))?;
        run(Command::new(old.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check"])
            .args(OLD_PIP))?;
    }
    models(&folder.join("models"))?;
    agents(&folder.join("a2a"))
}

/// Clients and servers of the A2A protocol, of both its generations, each in a folder of its own.
/// An agent framework that calls such servers stands beside the SDK it is written with.
const A2A_NPM: [(&str, [&str; 2]); 2] =
    [("", ["@a2a-js/sdk@1.3.0", "express@5.3.0"]), ("js03", ["@a2a-js/sdk@0.3.14", "express@5.3.0"])];
const A2A_PIP: [(&str, &[&str]); 2] =
    [("venv", &["a2a-sdk[grpc,signing]==1.3.0", "google-adk==2.13.0"]), ("venv03", &["a2a-sdk==0.3.26"])];

fn agents(folder: &Path) -> Result<(), String> {
    for (name, packages) in A2A_NPM {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
        if !folder.join("node_modules/express").exists() {
            std::fs::write(folder.join("package.json"), "{\"private\":true}\n").map_err(|e| e.to_string())?;
            let npm = ["install", "--no-audit", "--no-fund", "--silent"];
            run(Command::new("npm").args(npm).args(packages).current_dir(&folder))?;
        }
    }
    for (venv, packages) in A2A_PIP {
        let venv = folder.join(venv);
        let (done, wanted) = (venv.join("done"), packages.join(" "));
        if std::fs::read_to_string(&done).ok().as_deref() != Some(&*wanted) {
            run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
            let pip = ["install", "--quiet", "--disable-pip-version-check", "httpx"];
            run(Command::new(venv.join("bin/pip")).args(pip).args(packages))?;
            std::fs::write(done, wanted).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

fn models(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
    if !folder.join("node_modules/@copilotkit/aimock").exists() {
        std::fs::write(folder.join("package.json"), "{\"private\":true}\n").map_err(|e| e.to_string())?;
        run(Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--silent", MODELS_NPM])
            .current_dir(folder))?;
    }
    let venv = folder.join("venv");
    if !venv.join("bin/llmock").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let pip = ["install", "--quiet", "--disable-pip-version-check", MODELS_PIP];
        run(Command::new(venv.join("bin/pip")).args(pip))?;
    }
    Ok(())
}
