//! Control groups (cgroup v2), where a subtree is delegated to this process: one group for each
//! instance bounds what it takes as a whole and ends it as a whole.
//!
//! ```text
//!  delegated            no process may be in it once it gives controllers on
//!    └ pleach-PID-N     ours; locked for as long as we live
//!        ├ self         we move here first
//!        ├ 1            an instance: pid 1 is made in it (clone3), so it runs nothing outside
//!        └ 2
//! ```
//!
//! A group is killed and removed with its instance. What a pleach leaves that was killed itself is
//! found by its lock, which is free, and taken away by the next that starts.

mod delegated;

use super::layers::limits;
use delegated::Place;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How the groups of a pleach begin.
const OURS: &str = "pleach-";
/// What an instance weighs for the processor; pleach itself has the kernel's usual 100.
const WEIGHT: u32 = 50;
/// How long processes that were left behind may take to be gone.
const PATIENCE: Duration = Duration::from_secs(1);

/// What bounds an instance here, and by which controllers.
pub(super) struct House {
    path: PathBuf,
    controllers: Vec<&'static str>,
    memory: u64,
    next: AtomicU64,
    /// Groups whose last process was still ending when they were to be removed.
    left: Mutex<Vec<PathBuf>>,
    _lock: File,
}

/// The group of one instance. Dropping it ends what is in it.
#[derive(Debug)]
pub(super) struct Group {
    /// Where it is.
    pub(super) path: PathBuf,
    /// What bounds it, in words.
    pub(super) words: String,
}

/// The house of this process, made when it is first asked for: this moves the process.
pub(super) fn house() -> &'static Result<House, String> {
    static HOUSE: OnceLock<Result<House, String>> = OnceLock::new();
    HOUSE.get_or_init(|| House::found(&delegated::place()?))
}

/// A group for an instance; `None` where nothing is delegated. `memory` is less than usual.
///
/// # Errors
/// What the kernel refused though it gave the house.
pub(super) fn make(memory: Option<u64>) -> io::Result<Option<Group>> {
    house().as_ref().ok().map(|house| house.make(memory)).transpose()
}

impl House {
    /// Makes the house below what is delegated, moves this process into it, and has the
    /// controllers given on as far as its groups.
    fn found(place: &Place) -> Result<Self, String> {
        sweep(&place.path);
        let wrong = |path: &Path, e: io::Error| format!("{}: {e}", path.display());
        let (path, lock) = build(&place.path).map_err(|e| wrong(&place.path, e))?;
        let (own, home) = (path.join("self"), place.own.join("cgroup.procs"));
        let moved = fs::create_dir(&own).and_then(|()| write(&own.join("cgroup.procs"), "0"));
        let undo = |why: String| {
            let _ = write(&home, "0");
            let _ = fs::remove_dir(&own).and_then(|()| fs::remove_dir(&path));
            why
        };
        moved.map_err(|e| undo(wrong(&own, e)))?;
        let mut controllers = Vec::new();
        let mut refused = None;
        for name in delegated::WANTED.into_iter().filter(|name| place.offered.contains(name)) {
            let given = [&place.path, &path].into_iter().try_for_each(|folder| {
                let file = folder.join("cgroup.subtree_control");
                write(&file, &format!("+{name}")).map_err(|e| wrong(&file, e))
            });
            match given {
                Ok(()) => controllers.push(name),
                Err(why) => refused = Some(why),
            }
        }
        if controllers.is_empty() {
            return Err(undo(refused.unwrap_or_else(|| "no controller is given on".into())));
        }
        let memory = place.memory.unwrap_or(u64::MAX).min(limits::memory());
        Ok(Self { path, controllers, memory, next: AtomicU64::new(1), left: Mutex::default(), _lock: lock })
    }

    /// Where it is.
    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
    /// Which controllers bound an instance.
    pub(super) fn controllers(&self) -> &[&'static str] {
        &self.controllers
    }
    /// How much memory an instance may have as a whole, where that is bounded.
    pub(super) fn memory(&self) -> Option<u64> {
        self.controllers.contains(&"memory").then_some(self.memory)
    }
    /// The controllers this pleach would use and has not.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        delegated::WANTED.into_iter().filter(|name| !self.controllers.contains(name)).collect()
    }

    fn make(&self, memory: Option<u64>) -> io::Result<Group> {
        self.tidy();
        let path = self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&path)?;
        let group = Group { words: format!("cgroup ({})", self.controllers.join(", ")), path };
        let set = |file: &str, value: u64| write(&group.path.join(file), &value.to_string());
        for controller in &self.controllers {
            match *controller {
                "memory" => {
                    set("memory.max", memory.unwrap_or(self.memory))?;
                    // Whoever is full is ended at once, and does not grind the machine first. The
                    // file is not there where the kernel counts no swap.
                    match set("memory.swap.max", 0) {
                        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                        _ => {}
                    }
                }
                "pids" => set("pids.max", limits::TASKS.into())?,
                _ => set("cpu.weight", WEIGHT.into())?,
            }
        }
        Ok(group)
    }

    /// Removes what could not be removed before.
    fn tidy(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|path| matches!(fs::remove_dir(path), Err(e) if e.kind() == io::ErrorKind::ResourceBusy));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = write(&self.path.join("cgroup.kill"), "1");
        if let Ok(house) = house() {
            house.left.lock().unwrap_or_else(PoisonError::into_inner).push(self.path.clone());
            house.tidy();
        }
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    // Neither made nor cut: it is the kernel's file.
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

/// A group of a name nobody has, locked.
fn build(place: &Path) -> io::Result<(PathBuf, File)> {
    let pid = std::process::id();
    for number in 0.. {
        let path = place.join(format!("{OURS}{pid}-{number}"));
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(e) => return Err(e),
        }
        // Whoever sweeps may have found it before it was locked, and takes it away.
        if let Ok(file) = File::open(&path)
            && super::sys::lock(&file, libc::LOCK_EX | libc::LOCK_NB).is_ok()
            && path.is_dir()
        {
            return Ok((path, file));
        }
    }
    Err(io::Error::other("no name is free"))
}

/// Takes away what a pleach left that is gone. Somebody who still cleans up behind it has a
/// second for it.
pub(super) fn sweep(place: &Path) {
    for path in folders(place).filter(|path| path.file_name().is_some_and(|name| is_ours(&name.to_string_lossy()))) {
        let Ok(file) = File::open(&path) else { continue };
        if super::sys::lock(&file, libc::LOCK_EX | libc::LOCK_NB).is_err() {
            continue;
        }
        if !empty(&path, PATIENCE) {
            let _ = write(&path.join("cgroup.kill"), "1");
            empty(&path, PATIENCE);
        }
        folders(&path).for_each(|inner| drop(fs::remove_dir(inner)));
        let _ = fs::remove_dir(&path);
    }
}

/// Whether a pleach gave the name: somebody's `pleach-api.service` is not ours to end.
fn is_ours(name: &str) -> bool {
    name.strip_prefix(OURS).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
}

fn folders(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// Whether no process is left in a group and beneath it, waited for until then.
fn empty(path: &Path, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    let Ok(mut events) = File::open(path.join("cgroup.events")) else { return true };
    loop {
        let mut text = String::new();
        let read = io::Seek::rewind(&mut events).and_then(|()| events.read_to_string(&mut text));
        if read.is_err() || text.lines().any(|line| line == "populated 0") {
            return true;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let mut polled = libc::pollfd { fd: events.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
        // SAFETY: one entry; the kernel says POLLPRI when the file changes.
        unsafe { libc::poll(&mut polled, 1, left.as_millis() as libc::c_int + 1) };
    }
}
