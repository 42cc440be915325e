//! What a program may try on paths, one system call an act, and what came of it.

use crate::sandbox::sys;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};

/// One thing to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum What {
    Read,
    List,
    ReadAgain,
    Execute,
    ReadLink,
    Stat,
    OpenPath,
    Enter,
    Write,
    ReadWrite,
    Append,
    Cut,
    WriteAgain,
    Create,
    CreateNew,
    Nameless,
    Truncate,
    Unlink,
    RemoveFolder,
    MakeFolder,
    Fifo,
    Device,
    Mode,
    Times,
    Owner,
    Attribute,
    Rename,
    Exchange,
    Link,
    SymbolicLink,
}

impl What {
    pub(super) const ALL: [What; 30] = [
        What::Read,
        What::List,
        What::ReadAgain,
        What::Execute,
        What::ReadLink,
        What::Stat,
        What::OpenPath,
        What::Enter,
        What::Write,
        What::ReadWrite,
        What::Append,
        What::Cut,
        What::WriteAgain,
        What::Create,
        What::CreateNew,
        What::Nameless,
        What::Truncate,
        What::Unlink,
        What::RemoveFolder,
        What::MakeFolder,
        What::Fifo,
        What::Device,
        What::Mode,
        What::Times,
        What::Owner,
        What::Attribute,
        What::Rename,
        What::Exchange,
        What::Link,
        What::SymbolicLink,
    ];
}

/// An act: on one path, or from one to another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Act {
    pub(super) what: What,
    pub(super) one: String,
    pub(super) two: String,
}

/// In the sandbox: each line an act, each answer an error number, 0 for done.
pub(super) fn perform() -> i32 {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { return 1 };
        let Ok(act) = serde_json::from_str::<Act>(&line) else { return 2 };
        let errno = match one(&act) {
            Ok(()) => 0,
            Err(e) => e.raw_os_error().unwrap_or(-1),
        };
        let mut out = io::stdout().lock();
        if writeln!(out, "{errno}").and_then(|()| out.flush()).is_err() {
            return 3;
        }
    }
    0
}

/// A system call of integers and strings that live until it returns.
fn call(number: libc::c_long, arguments: [usize; 5]) -> io::Result<libc::c_long> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the callers pass numbers, and pointers to C strings and plain data that outlive
    // the call.
    sys::check(unsafe { libc::syscall(number, a, b, c, d, e) })
}

const HERE: usize = libc::AT_FDCWD as usize;

fn open(path: &str, flags: i32) -> io::Result<OwnedFd> {
    let path = sys::cstring(path.as_bytes())?;
    let flags = (flags | libc::O_CLOEXEC | libc::O_NONBLOCK) as usize;
    let fd = call(libc::SYS_openat, [HERE, path.as_ptr() as usize, flags, 0o755, 0])?;
    // SAFETY: just opened, and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Opened to be looked at only, then opened again by what `/proc` says of it.
fn again(path: &str, flags: i32) -> io::Result<OwnedFd> {
    let held = open(path, libc::O_PATH)?;
    open(&format!("/proc/self/fd/{}", held.as_raw_fd()), flags)
}

fn written(file: io::Result<OwnedFd>) -> io::Result<()> {
    std::fs::File::from(file?).write_all(b"x")
}

fn read(file: io::Result<OwnedFd>) -> io::Result<()> {
    std::fs::File::from(file?).read(&mut [0; 64]).map(drop)
}

fn one(act: &Act) -> io::Result<()> {
    let (one, two) = (sys::cstring(act.one.as_bytes())?, sys::cstring(act.two.as_bytes())?);
    let (a, b) = (one.as_ptr() as usize, two.as_ptr() as usize);
    let path = act.one.as_str();
    match act.what {
        What::Read => read(open(path, libc::O_RDONLY)),
        What::ReadAgain => read(again(path, libc::O_RDONLY)),
        What::List => {
            let held = open(path, libc::O_RDONLY | libc::O_DIRECTORY)?;
            let mut entries = [0u8; 512];
            let room = entries.as_mut_ptr() as usize;
            call(libc::SYS_getdents64, [held.as_raw_fd() as usize, room, entries.len(), 0, 0]).map(drop)
        }
        What::Execute => Command::new(path).env_clear().stdin(Stdio::null()).stdout(Stdio::null()).status().map(drop),
        What::ReadLink => std::fs::read_link(path).map(drop),
        What::Stat => std::fs::metadata(path).map(drop),
        What::OpenPath => open(path, libc::O_PATH).map(drop),
        What::Enter => std::env::set_current_dir(path).and_then(|()| std::env::set_current_dir("/")),
        What::Write => written(open(path, libc::O_WRONLY)),
        What::WriteAgain => written(again(path, libc::O_WRONLY)),
        What::ReadWrite => written(open(path, libc::O_RDWR)),
        What::Append => written(open(path, libc::O_WRONLY | libc::O_APPEND)),
        What::Cut => written(open(path, libc::O_WRONLY | libc::O_TRUNC)),
        What::Create => written(open(path, libc::O_WRONLY | libc::O_CREAT)),
        What::CreateNew => written(open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL)),
        What::Nameless => written(open(path, libc::O_WRONLY | libc::O_TMPFILE)),
        What::Truncate => call(libc::SYS_truncate, [a, 1, 0, 0, 0]).map(drop),
        What::Unlink => call(libc::SYS_unlinkat, [HERE, a, 0, 0, 0]).map(drop),
        What::RemoveFolder => call(libc::SYS_unlinkat, [HERE, a, libc::AT_REMOVEDIR as usize, 0, 0]).map(drop),
        What::MakeFolder => call(libc::SYS_mkdirat, [HERE, a, 0o755, 0, 0]).map(drop),
        What::Fifo => call(libc::SYS_mknodat, [HERE, a, (libc::S_IFIFO | 0o755) as usize, 0, 0]).map(drop),
        What::Device => {
            let null = libc::makedev(1, 3) as usize;
            call(libc::SYS_mknodat, [HERE, a, (libc::S_IFCHR | 0o755) as usize, null, 0]).map(drop)
        }
        What::Mode => call(libc::SYS_fchmodat, [HERE, a, 0o775, 0, 0]).map(drop),
        What::Times => {
            let times = [libc::timespec { tv_sec: 1, tv_nsec: 0 }; 2];
            call(libc::SYS_utimensat, [HERE, a, times.as_ptr() as usize, 0, 0]).map(drop)
        }
        What::Owner => {
            // SAFETY: these cannot fail.
            let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
            call(libc::SYS_fchownat, [HERE, a, user as usize, group as usize, 0]).map(drop)
        }
        What::Attribute => {
            let (name, value) = (c"user.trial", b"x");
            call(libc::SYS_setxattr, [a, name.as_ptr() as usize, value.as_ptr() as usize, 1, 0]).map(drop)
        }
        What::Rename => call(libc::SYS_renameat2, [HERE, a, HERE, b, 0]).map(drop),
        What::Exchange => call(libc::SYS_renameat2, [HERE, a, HERE, b, libc::RENAME_EXCHANGE as usize]).map(drop),
        What::Link => call(libc::SYS_linkat, [HERE, a, HERE, b, 0]).map(drop),
        What::SymbolicLink => call(libc::SYS_symlinkat, [a, HERE, b, 0, 0]).map(drop),
    }
}
