//! The sandbox: what a grant means to the kernel.
//!
//! ```text
//!  pleach (tokio)                     launcher (our binary, no threads)
//!  prepare ── socketpair ────────────▶ enter
//!  under ── which namespaces ──────────▶├ unshare user, mount, pid, ipc, uts, net
//!    │                                   ├ fork ─▶ init (pid 1 of the instance, in its cgroup)
//!    │                                   │          ├ proxy listener on lo
//!  launch ── Spec (JSON) ───────────────┼─────────▶├ mounts
//!    │◀─ Report + listener descriptor ───┼──────────┤
//!    │                                   │          ├ fork ─▶ program
//!    │                                   │          │          rlimits, capabilities, Landlock,
//!    │                                   │          │          seccomp, exec
//!    │  socket closed = lifeline cut     │          └ reaps, forwards signals, dies on EOF
//!    └ waits for ◀── exit code ──────────┘
//! ```
//!
//! Who may enter: [`launch()`] is called by whoever holds a grant's [`Spec`]; `enter` is called
//! by `main` before any thread exists. This is the only room with `unsafe`: raw system calls,
//! each with the reason it is sound.
//!
//! The socket is the lifeline: the launcher's end is read by pid 1 alone, pleach's end is
//! close-on-exec and lives in the [`Instance`]. However pleach ends, the kernel closes it, pid 1
//! sees EOF and exits, and with pid 1 the kernel kills everything in its namespace.
#![allow(unsafe_code)]

mod enter;
mod group;
mod init;
mod launch;
mod layers;
pub mod probe;
pub mod pty;
pub mod runtime;
mod spec;
mod sys;
#[cfg(test)]
mod trials;

pub use enter::enter;
pub use launch::{Instance, LaunchError, Pipes, Ready, launch, prepare};
pub use spec::{Report, Spec};
pub(crate) use sys::die;

/// The first argument that makes our binary the launcher.
pub const ENTRY: &str = "__sandbox";

/// Where the proxy listens inside the instance's own network namespace.
pub const PROXY_PORT: u16 = 3128;

/// As many descriptors for this process as its hard limit allows, within reason.
///
/// # Errors
/// When the kernel refuses; then it has what it had.
pub fn raise_descriptors() -> std::io::Result<()> {
    layers::limits::raise_descriptors()
}

/// Makes what bounds each instance as a whole, where cgroups are delegated to this process; this
/// moves the process. Whoever has children of its own calls it before: they would be in the way.
/// Gives what is used, in words.
///
/// # Errors
/// Why nothing is; instances run all the same.
pub fn divide() -> Result<String, &'static str> {
    group::house().as_ref().map(|house| house.controllers().join(", ")).map_err(String::as_str)
}

/// Sends a signal to the launcher of an instance, which passes it on to the program.
pub fn signal(pid: u32, number: i32) {
    // SAFETY: kill takes two numbers; the pid is of a child we still hold.
    unsafe { libc::kill(pid as libc::pid_t, number) };
}

/// Sends a signal to a process group we made.
pub fn signal_group(group: u32, number: i32) {
    // SAFETY: as above, for a group whose leader is our child.
    unsafe { libc::kill(-(group as libc::pid_t), number) };
}
