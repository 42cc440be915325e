//! The launcher: our own binary, re-executed, before any thread or runtime exists.

use super::init;
use super::layers::{limits, namespaces, protected};
use super::spec::{Report, Spec};
use super::sys;
use policies::grant::Profile;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixStream;

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
pub fn enter() -> ! {
    // SAFETY: descriptor 3 is the launcher's socket, made for us by `launch`; nobody else in
    // this process knows of it.
    let mut socket = unsafe { UnixStream::from_raw_fd(3) };
    let code = match read_spec(&mut socket) {
        Ok(spec) => run(&spec, &mut socket),
        Err(e) => {
            eprintln!("pleach: {} is an inner command, started by pleach itself: {e}", super::ENTRY);
            FAILED
        }
    };
    exit(code)
}

pub(super) fn exit(code: i32) -> ! {
    // SAFETY: ends the process without running anything else.
    unsafe { libc::_exit(code) }
}

fn read_spec(socket: &mut UnixStream) -> std::io::Result<Spec> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let mut text = vec![0; u32::from_le_bytes(length) as usize];
    socket.read_exact(&mut text)?;
    serde_json::from_slice(&text).map_err(std::io::Error::other)
}

pub(super) fn report(socket: &mut UnixStream, report: &Report) {
    let mut text = serde_json::to_vec(report).unwrap_or_default();
    text.push(b'\n');
    // If pleach is gone there is nobody to tell; the lifeline ends us.
    let _ = socket.write_all(&text);
}

fn run(spec: &Spec, socket: &mut UnixStream) -> i32 {
    init::catch_signals();
    if let Err(e) = limits::first_to_go() {
        report(socket, &Report::Refused { layer: "limits".into(), why: format!("/proc/self/oom_score_adj: {e}") });
        return FAILED;
    }
    if spec.profile() != Profile::Full {
        // The second layer under the lifeline: it follows the thread that forked us.
        let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
        let _ = sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        return init::run(spec, socket);
    }
    if let Err(refusal) = namespaces::enter(spec) {
        report(socket, &Report::Refused { layer: refusal.layer.into(), why: refusal.why });
        return FAILED;
    }
    // SAFETY: this process has one thread.
    match unsafe { sys::fork() } {
        Err(e) => {
            report(socket, &Report::Refused { layer: "namespaces".into(), why: format!("fork: {e}") });
            FAILED
        }
        Ok(0) => {
            let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
            exit(init::run(spec, socket))
        }
        Ok(pid) => {
            // Only pid 1 may hold the lifeline, or its EOF would never come.
            // SAFETY: the descriptor is not used again in this process.
            unsafe { libc::close(3) };
            init::forward_signals_to(pid);
            let code = init::wait_for(pid);
            // Nothing of the instance lives any more, however pleach or pid 1 ended.
            protected::release(spec);
            code
        }
    }
}
