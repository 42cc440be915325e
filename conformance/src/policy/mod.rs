//! `cargo conformance policy`: somebody tries, family by family, and what really happened decides.
//!
//! ```text
//!   case ─┬─ attack ─▶ pleach ─▶ did it happen?  no: stopped    yes: MISSED, or a listed gap
//!         └─ twin ───▶ pleach ─▶ did it happen?  yes: passed    no: MISSED
//! ```
//!
//! A case is one sentence, one act that must not happen and one of the same shape that must.
//! Whether an act happened is read from what it would leave: a secret among the bytes that came
//! back, a file that is not as it was, a byte at a listener, a name at a resolver, a process
//! alive. Nothing Pleach says of itself counts. A gap that is known is a case like the others,
//! with its reason: when it is stopped after all, the list is wrong and the run fails.
//!
//! It runs in network and mount namespaces of its own (`inside`), in which every address is this
//! machine's and one resolver knows every name: the metadata service, a private network and a
//! stranger on the internet are all here, and what reaches them is seen.

mod approvals;
mod arena;
mod audience;
mod auth;
mod coded;
mod config;
mod domains;
mod exec;
mod flow;
mod gate;
mod hop;
mod inherit;
mod later;
mod manifest;
mod memory;
mod passed;
mod paths;
mod proxy;
mod quota;
mod report;
mod shell;
mod tree;
mod tunnels;
mod wire;
mod world;

use arena::Arena;
use report::{Verdict, judge};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Whether an act left its trace; an error when the bench itself broke.
type Happened = Result<bool, String>;
/// Something somebody does.
type Act = Box<dyn Fn(&Arena) -> Happened + Send + Sync>;

/// What is known not to be stopped, why, and what would.
#[derive(Debug, Clone, Copy)]
struct Gap {
    why: &'static str,
    closes: &'static str,
}

/// One sentence, an act that must not happen, and one of the same shape that must.
struct Case {
    id: String,
    says: String,
    attack: Act,
    twin: Act,
    gap: Option<Gap>,
}

impl Case {
    fn new(id: impl Into<String>, says: impl Into<String>, attack: Act, twin: Act) -> Self {
        Self { id: id.into(), says: says.into(), attack, twin, gap: None }
    }
    fn gap(mut self, why: &'static str, closes: &'static str) -> Self {
        self.gap = Some(Gap { why, closes });
        self
    }
    fn family(&self) -> &str {
        &self.id[..1]
    }
}

/// A letter, a word, and its cases.
type Family = (&'static str, &'static str, fn() -> Vec<Case>);

/// The families, in the order of the reference.
const FAMILIES: [Family; 10] = [
    ("P", "paths", paths::cases),
    ("X", "processes", exec::cases),
    ("D", "domains", domains::cases),
    ("R", "manifests", manifest::cases),
    ("I", "inheritance", inherit::cases),
    ("A", "callers", auth::cases),
    ("J", "wire", wire::cases),
    ("E", "exfiltration", flow::cases),
    ("Q", "exhaustion", quota::cases),
    ("C", "configuration", config::cases),
];

/// Acts side by side: most of them wait.
const WORKERS: usize = 6;

/// Runs the corpus, or the part of it that `args` name: a family (`P`), a group (`P3`), a case
/// (`P3.02`). `--json` prints a line for each case, `--list` only the sentences.
///
/// # Errors
/// How many cases did not hold.
pub fn run(args: &[String]) -> Result<(), String> {
    let Some(folder) = std::env::var_os(arena::INSIDE) else { return enter(args) };
    let played = inside(args);
    // What the namespaces were entered with, and nobody else's.
    let _ = std::fs::remove_dir_all(folder);
    played
}

/// Plays, in namespaces of its own.
fn inside(args: &[String]) -> Result<(), String> {
    let (flags, wanted): (Vec<&str>, Vec<&str>) = args.iter().map(String::as_str).partition(|a| a.starts_with("--"));
    if let Some(flag) = flags.iter().find(|f| !["--json", "--list"].contains(f)) {
        return Err(format!("policy takes --json, --list, families and ids, not {flag}"));
    }
    let is = |case: &Case| wanted.is_empty() || wanted.iter().any(|w| named(&case.id, w));
    let all: Vec<Case> = FAMILIES.iter().flat_map(|(_, _, cases)| cases()).collect();
    unique(&all)?;
    let cases: Vec<Case> = all.into_iter().filter(is).collect();
    if cases.is_empty() {
        return Err(format!("no case is named {}", wanted.join(" ")));
    }
    if flags.contains(&"--list") {
        cases.iter().for_each(|case| println!("{:8} {}", case.id, case.says));
        return Ok(());
    }
    let json = flags.contains(&"--json");
    let began = Instant::now();
    let arena = Arena::open()?;
    let verdicts = play(&cases, &arena, json);
    report::tell(&cases, &verdicts, began.elapsed(), json)
}

/// `P` is a family, `P3` a group, `P3.02` a case.
fn named(id: &str, wanted: &str) -> bool {
    id == wanted || id.split('.').next() == Some(wanted) || &id[..1] == wanted
}

fn unique(cases: &[Case]) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    match cases.iter().find(|case| seen.insert(case.id.clone(), ()).is_some()) {
        Some(twice) => Err(format!("{} stands twice in the corpus", twice.id)),
        None => Ok(()),
    }
}

/// The last families first: theirs are the acts that wait longest.
fn play(cases: &[Case], arena: &Arena, json: bool) -> Vec<Verdict> {
    let next = AtomicUsize::new(0);
    let verdicts: Mutex<Vec<Option<Verdict>>> = Mutex::new(cases.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(at) = cases.len().checked_sub(1 + next.fetch_add(1, Ordering::SeqCst)) {
                    let verdict = judge(&cases[at], arena);
                    report::line(&cases[at], &verdict, json);
                    if let Ok(mut all) = verdicts.lock() {
                        all[at] = Some(verdict);
                    }
                }
            });
        }
    });
    let all = verdicts.into_inner().unwrap_or_default();
    all.into_iter().map(|v| v.unwrap_or_else(Verdict::lost)).collect()
}

/// Goes on in namespaces of its own: nothing here may reach the real network, or leave anything
/// in the real `/etc`.
fn enter(args: &[String]) -> Result<(), String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    // The tests before may have built it anew.
    let exe = exe.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
    let script = "ip link set lo up && ip route add local 0.0.0.0/0 dev lo && ip -6 route add local ::/0 dev lo && \
                  printf 'nameserver 127.0.0.99\\noptions timeout:2 attempts:2\\n' > \"$1/resolv.conf\" && \
                  printf '127.0.0.1 localhost\\n::1 localhost\\n' > \"$1/hosts\" && \
                  mount --bind \"$1/resolv.conf\" /etc/resolv.conf && mount --bind \"$1/hosts\" /etc/hosts && \
                  shift && exec \"$@\"";
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?.keep();
    let mut command = Command::new("unshare");
    if std::fs::metadata("/proc/self").map_err(|e| e.to_string())?.uid() != 0 {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(&folder);
    command.arg(exe).arg("policy").args(args).env(arena::INSIDE, &folder);
    let status = command
        .status()
        .map_err(|e| format!("unshare: {e} (it needs util-linux and iproute2, and root or user namespaces)"))?;
    if status.success() { Ok(()) } else { Err(format!("the corpus ended with {status}")) }
}
