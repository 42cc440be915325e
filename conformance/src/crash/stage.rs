//! Where trials are played: a folder with a policy and a store, and the world around it.

use super::double::{Double, Moment};
use super::scene::Scene;
use super::tools::{self, Made};
use super::victim::Victim;
use crate::pleach::Folder;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use tokio::runtime::Handle;

/// Nothing that is to come takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
const SIGKILL: i32 = 9;

/// How a process dies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Death {
    /// By itself, at a point of its own.
    At(String),
    /// By the world, at the n-th such moment.
    By(Moment, u32),
    /// By anybody, after so long.
    After(Duration),
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Killed,
    /// With that code.
    Exit(i32),
}

/// A folder and the world around it.
pub(super) struct Stage {
    pub(super) folder: Folder,
    pub(super) double: Double,
    victim: Arc<Victim>,
    process: bool,
    /// Trees of earlier trials.
    known: BTreeSet<String>,
}

impl Stage {
    pub(super) fn new(scene: Scene, runtime: &Handle) -> Result<Self, String> {
        let victim = Arc::new(Victim::default());
        let double = Double::start(runtime, victim.clone())?;
        let folder = Folder::new(&scene.policy(&double.base));
        std::fs::create_dir(folder.join("out")).map_err(|e| e.to_string())?;
        Ok(Self { folder, double, victim, process: scene == Scene::Process, known: BTreeSet::new() })
    }
    /// A new trial: nothing happened outside yet.
    pub(super) fn begin(&self) -> Result<(), String> {
        self.double.begin();
        match self.process {
            true => std::fs::write(self.folder.join("out/ledger"), "").map_err(|e| e.to_string()),
            false => Ok(()),
        }
    }
    /// What the tools did in this trial.
    pub(super) fn made(&self) -> Vec<Made> {
        match self.process {
            true => tools::read(&self.folder.join("out/ledger")),
            false => self.double.book().made,
        }
    }
    fn command(&self, args: &[&str], death: Option<&Death>, log: Option<&str>) -> Result<Command, String> {
        let mut command = self.folder.command(args);
        command.env_remove("PLEACH_CRASH_AT").env_remove("PLEACH_CRASH_LOG").env("PLEACH_LOG", "warn");
        match death {
            Some(Death::At(point)) => drop(command.env("PLEACH_CRASH_AT", point)),
            Some(Death::By(moment, nth)) => self.double.strike(Some((*moment, *nth))),
            Some(Death::After(_)) | None => {}
        }
        if let Some(log) = log {
            command.env("PLEACH_CRASH_LOG", self.folder.join(log));
        }
        let err = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("err.log"));
        command.stderr(err.map_err(|e| e.to_string())?);
        Ok(command)
    }
    /// Runs a command to its end or its death; hands on the events it prints.
    pub(super) fn play(
        &self,
        args: &[&str],
        death: Option<&Death>,
        log: Option<&str>,
        mut event: impl FnMut(&Value),
    ) -> Result<Ended, String> {
        let mut command = self.command(args, death, log)?;
        let status = self.dying(death, || {
            self.victim.run(&mut command, |line| {
                if let Ok(value) = serde_json::from_str(line) {
                    event(&value);
                }
            })
        })?;
        self.double.strike(None);
        ended(status)
    }
    /// Does something that a killer outside may put an end to.
    fn dying<T>(&self, death: Option<&Death>, doing: impl FnOnce() -> T) -> T {
        let Some(Death::After(wait)) = death else { return doing() };
        let (done, over) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                if over.recv_timeout(*wait) == Err(RecvTimeoutError::Timeout) {
                    self.victim.kill();
                }
            });
            let did = doing();
            drop(done);
            did
        })
    }
    /// Serves until the tree of that root has ended, or the server was killed before.
    pub(super) fn serve(&self, root: &str, death: Option<&Death>) -> Result<Ended, String> {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"], death, None)?;
        let finished = self.dying(death, || -> Result<bool, String> {
            let mut err = self.victim.begin(&mut command)?;
            let Some(base) = listening(&mut err)? else { return Ok(false) };
            // What it says later is not read; it is to have room to say it.
            std::thread::spawn(move || std::io::copy(&mut err, &mut std::io::sink()));
            let mut finished = false;
            follow(&base, root, |event| {
                finished = is_end(event, root);
                finished
            })?;
            Ok(finished)
        });
        // It has done what it was to do, or is dead.
        self.victim.kill();
        let status = self.victim.ended()?;
        self.double.strike(None);
        match finished? {
            true => Ok(Ended::Exit(0)),
            false => ended(status),
        }
    }
    /// The questions that are open in a tree: their ids and kinds.
    pub(super) fn questions(&self, root: &str) -> Result<Vec<(String, String)>, String> {
        let all = self.lines(&["answer", "--json"])?;
        let mine = all.iter().filter(|q| q["root"] == root);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(mine.map(|q| (text(&q["id"]), text(&q["kind"]))).collect())
    }
    /// The tree that is new since last time, if there is one.
    pub(super) fn newcomer(&self) -> Result<Option<String>, String> {
        let rows = self.lines(&["runs", "--json"])?;
        let new: Vec<&str> =
            rows.iter().filter_map(|r| r["root"].as_str()).filter(|r| !self.known.contains(*r)).collect();
        let distinct: BTreeSet<&str> = new.iter().copied().collect();
        match distinct.len() {
            0 => Ok(None),
            1 => Ok(new.first().map(|r| (*r).to_owned())),
            n => Err(format!("one run was started, and there are {n} new trees")),
        }
    }
    pub(super) fn learn(&mut self, root: &str) {
        self.known.insert(root.to_owned());
    }
    /// What a command that only looks prints.
    pub(super) fn lines(&self, args: &[&str]) -> Result<Vec<Value>, String> {
        let ran = self.folder.run(args);
        if ran.code != 0 {
            return Err(format!("pleach {args:?}: {ran:?}"));
        }
        ran.out.lines().map(|l| serde_json::from_str(l).map_err(|e| format!("{e}: {l}"))).collect()
    }
    /// The events of whole trees, read through the HTTP door.
    pub(super) fn events(&self, roots: &[String]) -> Result<Vec<Vec<Value>>, String> {
        let mut command = self.folder.command(&["serve", "--listen", "127.0.0.1:0"]);
        let mut err = self.victim.begin(&mut command)?;
        let base = listening(&mut err)?.ok_or("pleach serve ended")?;
        std::thread::spawn(move || std::io::copy(&mut err, &mut std::io::sink()));
        let read = |root: &String| {
            let mut events = Vec::new();
            follow(&base, root, |event| {
                events.push(event.clone());
                is_end(event, root)
            })?;
            Ok(events)
        };
        let all = roots.iter().map(read).collect();
        self.victim.kill();
        self.victim.ended()?;
        all
    }
    /// What the processes of this trial complained of, for whoever looks into a failure.
    pub(super) fn complaints(&self) -> String {
        let text = self.folder.read("err.log").unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

fn ended(status: ExitStatus) -> Result<Ended, String> {
    match (status.signal(), status.code()) {
        (Some(SIGKILL), _) => Ok(Ended::Killed),
        (None, Some(code)) => Ok(Ended::Exit(code)),
        other => Err(format!("it ended with {other:?}")),
    }
}

fn is_end(event: &Value, root: &str) -> bool {
    event["type"] == "run.finished" && event["run"] == root
}

/// The address it listens on, or nothing when it ended before it did.
fn listening(err: &mut impl BufRead) -> Result<Option<String>, String> {
    let mut line = String::new();
    loop {
        line.clear();
        if err.read_line(&mut line).map_err(|e| e.to_string())? == 0 {
            return Ok(None);
        }
        if let Some(url) = line.split_whitespace().find_map(|w| w.strip_suffix("/mcp")) {
            return Ok(url.strip_prefix("http://").map(str::to_owned));
        }
    }
}

/// Reads the events of a tree from its first to whatever is enough, or until the server is gone.
fn follow(address: &str, root: &str, mut enough: impl FnMut(&Value) -> bool) -> Result<(), String> {
    let Ok(mut stream) = TcpStream::connect(address) else { return Ok(()) };
    stream.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
    let request =
        format!("GET /v1/runs/{root}/events HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n");
    if stream.write_all(request.as_bytes()).is_err() {
        return Ok(());
    }
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(format!("the tree of {root} did not end within {} s", PATIENCE.as_secs()));
            }
            Err(_) => return Ok(()),
        }
        let text = String::from_utf8_lossy(&line);
        if let Some(event) = text.strip_prefix("data: ").and_then(|d| serde_json::from_str::<Value>(d.trim_end()).ok())
            && enough(&event)
        {
            return Ok(());
        }
        if text.starts_with("HTTP/1.1 4") {
            return Err(format!("GET /v1/runs/{root}/events: {text}"));
        }
    }
}
