//! The official MCP conformance suite, run through Pleach.
//!
//! * [`servers`]: suite ─▶ Pleach ─▶ fixture, for both eras of suite and fixture and both
//!   transports of the fixture. Within an era every scenario passes; across, every one the pair
//!   can express: the others are listed with the reason, and a scored one that passes is an error.
//! * [`clients`]: Pleach ─▶ the suite's own servers, driven by [`drive`].

mod authorized;
mod driver;
mod report;

pub use driver::drive;

use crate::pleach::Folder;
use crate::served::Served;
use report::{Report, Wanted};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The suite, what runs it, and clients that need as much, by package name.
pub const PACKAGES: [&str; 4] = [
    "@modelcontextprotocol/conformance@0.2.0-alpha.12",
    "@modelcontextprotocol/client",
    "@modelcontextprotocol/inspector@2.12.0",
    "node@22",
];

const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

/// Why a scenario cannot pass from a modern client to a legacy server.
const ACROSS: [(&str, &str); 2] = [
    (
        "input-required-result-basic-elicitation",
        "asks for the literal key \"user_name\"; a legacy server's question has no key, so Pleach makes one",
    ),
    ("tasks-", "a legacy server has no tasks extension"),
];

/// Runs every server scenario; `kits` is where the suite is installed.
///
/// # Errors
/// Which scenarios did not end as they should.
pub fn servers(kits: &Path) -> Result<(), String> {
    let mut wrong = Vec::new();
    for suite in [LEGACY, MODERN] {
        for (era, spoken) in [("legacy", LEGACY), ("modern", MODERN)] {
            for transport in ["http", "stdio"] {
                let shown = format!("suite {suite} ─▶ pleach ─▶ {era} fixture over {transport}");
                let report = one(kits, suite, era, transport).map_err(|e| format!("{shown}: {e}"))?;
                let excused = |name: &str| {
                    let across = suite == MODERN && spoken == LEGACY;
                    ACROSS.iter().filter(|_| across).find(|(known, _)| name.starts_with(known)).map(|(_, why)| *why)
                };
                println!("{shown}: {}", report.summary());
                wrong.extend(report.judge(excused).into_iter().map(|w| format!("{shown}: {w}")));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("\n  {}", wrong.join("\n  "))) }
}

fn one(kits: &Path, suite: &str, era: &str, transport: &str) -> Result<Report, String> {
    let own = binary();
    let fixture = if transport == "http" { Some(Fixture::start(&own, era)?) } else { None };
    let reached = match &fixture {
        Some(fixture) => format!("url = {:?}", fixture.url),
        None => format!("command = {:?}\nargs = [\"fixture\", {era:?}, \"stdio\"]", own.display().to_string()),
    };
    let folder = Folder::new(&policy(&reached));
    let served = Served::start(&folder);
    let url = format!("{}/mcp", served.base);
    let mut command = suite_command(kits);
    command.args(["server", "--url", &url, "--requirements", suite, "-o"]).arg(folder.join("out"));
    Report::run(&mut command, suite, Wanted::Servers)
}

/// What the suite needs: fixed names, and the files and hosts its arguments name.
fn policy(reached: &str) -> String {
    format!(
        "version = 1\n[servers.fixture]\n{reached}\nprefix = \"none\"\ndefault_access = \"read-only\"\n\
         [policy]\nmax_access = \"read-write\"\ntools.allow = [\"*\"]\nfilesystem.read = [\".\"]\n\
         domains.allow = [\"json-schema.org\"]\n"
    )
}

/// Extensions of the suite that are not served: SEP-990, RFC 9449, and workload identities.
const UNSERVED: [&str; 3] = ["auth/enterprise-managed-authorization", "auth/dpop", "auth/wif-jwt-bearer"];

/// Runs the client scenarios.
///
/// # Errors
/// Which scenarios did not pass.
pub fn clients(kits: &Path) -> Result<(), String> {
    let own = binary();
    let driver = format!("{} drive", own.display());
    let mut wrong = Vec::new();
    for suite in [LEGACY, MODERN] {
        let out = tempfile::tempdir().map_err(|e| e.to_string())?;
        let mut command = suite_command(kits);
        command.args(["client", "--command", &driver, "--requirements", suite, "-o"]).arg(out.path());
        command.env("PLEACH_BIN", crate::pleach::binary());
        let report = Report::run(&mut command, suite, Wanted::Clients)?;
        let shown = format!("pleach ─▶ suite {suite}");
        println!("{shown}: {}", report.summary());
        let excused = |name: &str| {
            UNSERVED.iter().any(|known| name.starts_with(known)).then_some("an extension that is not served")
        };
        wrong.extend(report.judge(excused).into_iter().map(|w| format!("{shown}: {w}")));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("\n  {}", wrong.join("\n  "))) }
}

fn suite_command(kits: &Path) -> Command {
    let modules = kits.join("suite/node_modules");
    let mut command = Command::new(modules.join(".bin/node"));
    command.arg(modules.join("@modelcontextprotocol/conformance/dist/index.js"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(modules.join(".bin")).chain(std::env::split_paths(&path)));
    command.env("PATH", path.unwrap_or_default());
    command
}

/// A fixture over HTTP, ended when dropped.
pub struct Fixture {
    child: Child,
    /// Where it is reached.
    pub url: String,
}

impl Fixture {
    /// Starts `EXE fixture ERA http`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(exe: &Path, era: &str) -> Result<Self, String> {
        let mut child = Command::new(exe)
            .args(["fixture", era, "http"])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", exe.display()))?;
        let mut url = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut url).map_err(|e| e.to_string())?;
        }
        Ok(Self { child, url: url.trim().to_owned() })
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The conformance binary beside a test, which serves the fixtures.
pub fn binary() -> PathBuf {
    crate::pleach::binary().with_file_name("conformance")
}
