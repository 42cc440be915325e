//! The launcher: our own binary, re-executed, before any thread or runtime exists.

use super::init;
use super::layers::{limits, namespaces, protected};
use super::spec::{Report, Spec};
use super::sys;
use policies::grant::Profile;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The launcher's exit code when it could not do its work.
pub(super) const FAILED: i32 = 125;

/// Refused, with the layer and the reason.
pub(super) struct Refusal {
    pub(super) layer: &'static str,
    pub(super) why: String,
}

impl Refusal {
    pub(super) fn new(layer: &'static str, why: impl Into<String>) -> Self {
        Self { layer, why: why.into() }
    }
}

/// Enters the sandbox described on descriptor 3 and runs the program in it. Never returns.
///
/// Pleach tells what it knows as soon as it knows it: the cgroup as an argument, then which
/// namespaces, then the spec. So we are here and they are made before the rest is found out.
pub fn enter() -> ! {
    // SAFETY: descriptor 3 is the launcher's socket, made for us by `launch`; nobody else in
    // this process knows of it.
    let mut socket = unsafe { UnixStream::from_raw_fd(3) };
    let group = std::env::args_os().nth(2).map(PathBuf::from);
    init::catch_signals();
    let mut flags = [0; 4];
    exit(match socket.read_exact(&mut flags).map(|()| libc::c_int::from_le_bytes(flags)) {
        Ok(0) => apart(group.as_deref(), &mut socket),
        Ok(flags) => inside(flags, group.as_deref(), socket),
        // Nothing is to run after all.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => FAILED,
        Err(e) => by_hand(&e.to_string()),
    })
}

fn by_hand(why: &str) -> i32 {
    eprintln!("pleach: {} is an inner command, started by pleach itself: {why}", super::ENTRY);
    FAILED
}

pub(super) fn exit(code: i32) -> ! {
    // SAFETY: ends the process without running anything else.
    unsafe { libc::_exit(code) }
}

/// The spec as it was sent; an error where pleach wanted nothing after all, or is gone.
fn read_text(socket: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut text = vec![0; u32::from_le_bytes(length) as usize];
    socket.read_exact(&mut text)?;
    Ok(text)
}

pub(super) fn report(socket: &mut UnixStream, report: &Report) {
    let mut text = serde_json::to_vec(report).unwrap_or_default();
    text.push(b'\n');
    // If pleach is gone there is nobody to tell; the lifeline ends us.
    let _ = socket.write_all(&text);
}

fn refuse(socket: &mut UnixStream, refusal: Refusal) -> i32 {
    report(socket, &Report::Refused { layer: refusal.layer.into(), why: refusal.why });
    FAILED
}

/// Without namespaces: this process stays what it is and looks after the program.
fn apart(group: Option<&Path>, socket: &mut UnixStream) -> i32 {
    // Not killed with pleach: who is killed ends nobody. The lifeline tells us, and we do.
    let _ = sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
    let Ok(text) = read_text(socket) else { return FAILED };
    let spec = match understand(&text) {
        Ok(spec) => spec,
        Err(e) => return by_hand(&e.to_string()),
    };
    if spec.profile() == Profile::Full {
        return refuse(socket, Refusal::new("namespaces", "the launcher was not told to make any"));
    }
    if let Err(refusal) = first_to_go() {
        return refuse(socket, refusal);
    }
    match open(group) {
        Ok(group) => init::run(&spec, socket, None, group),
        Err(refusal) => refuse(socket, refusal),
    }
}

fn understand(text: &[u8]) -> io::Result<Spec> {
    serde_json::from_slice(text).map_err(io::Error::other)
}

/// When memory runs out, what is started here goes before anything else.
fn first_to_go() -> Result<(), Refusal> {
    limits::first_to_go().map_err(|e| Refusal::new("limits", format!("/proc/self/oom_score_adj: {e}")))
}

/// The instance's cgroup, open, if it has one.
fn open(group: Option<&Path>) -> Result<Option<File>, Refusal> {
    let open = |path: &Path| File::open(path).map_err(|e| Refusal::new("cgroup", format!("{}: {e}", path.display())));
    group.map(open).transpose()
}

/// In namespaces: pid 1 does the rest, and this process waits for it and cleans up after it.
fn inside(flags: libc::c_int, group: Option<&Path>, mut socket: UnixStream) -> i32 {
    // The group is opened as long as its file system is seen as it is.
    let entered = first_to_go().and_then(|()| open(group)).and_then(|group| namespaces::enter(flags).map(|()| group));
    let forked = entered.and_then(|group| {
        let (reader, writer) = init::pipe().map_err(|e| Refusal::new("pipe", e.to_string()))?;
        // SAFETY: this process has one thread.
        let pid = unsafe { sys::fork_into(group.as_ref()) };
        pid.map(|pid| (pid, reader, writer)).map_err(|e| Refusal::new("namespaces", format!("fork: {e}")))
    });
    match forked {
        Err(refusal) => match read_text(&mut socket) {
            Ok(_) => refuse(&mut socket, refusal),
            Err(_) => FAILED,
        },
        Ok((0, reader, writer)) => {
            drop(reader);
            let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
            exit(first(flags, &mut socket, writer))
        }
        Ok((pid, mut reader, writer)) => {
            // Only pid 1 may hold the lifeline, or its EOF would never come.
            drop((socket, writer));
            init::forward_signals_to(pid);
            let mut text = Vec::new();
            let _ = reader.read_to_end(&mut text);
            let code = init::wait_for(pid);
            // Nothing of the instance lives any more, however pleach or pid 1 ended.
            if let Ok(spec) = understand(&text) {
                protected::release(&spec);
            }
            code
        }
    }
}

/// In pid 1: what can be done before the spec is there, then the rest by it. The launcher gets the
/// spec too, to clean up by.
fn first(flags: libc::c_int, socket: &mut UnixStream, mut launcher: File) -> i32 {
    let listener = match flags & libc::CLONE_NEWNET {
        0 => Ok(None),
        _ => namespaces::open_proxy_listener().map(Some),
    };
    let Ok(text) = read_text(socket) else { return FAILED };
    let told = launcher.write_all(&text);
    drop(launcher);
    let spec = match told.and_then(|()| understand(&text)) {
        Ok(spec) => spec,
        Err(e) => return by_hand(&e.to_string()),
    };
    if namespaces::wanted(&spec) != flags {
        return refuse(socket, Refusal::new("namespaces", "the launcher was told to make others"));
    }
    match listener {
        Ok(listener) => init::run(&spec, socket, listener, None),
        Err(refusal) => refuse(socket, refusal),
    }
}
