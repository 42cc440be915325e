//! Session, resource limits and capabilities.

use crate::sandbox::sys;
use std::io;

/// Its own session, so that it reaches no terminal of ours; with `terminal`, standard input
/// becomes its controlling one.
pub(crate) fn session(terminal: bool) -> io::Result<()> {
    // SAFETY: plain system calls on our own process and descriptor 0.
    unsafe {
        sys::check(libc::setsid().into())?;
        if terminal {
            sys::check(libc::ioctl(0, libc::TIOCSCTTY as _, 0).into())?;
        }
        // Signals pid 1 blocks or ignores must be ordinary for the program.
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    Ok(())
}

/// How many processes and threads an instance may have.
pub(crate) const TASKS: u32 = 4_096;

/// What one process may take: a part of what there is, so that whoever takes everything is refused
/// and nobody else is killed for it.
pub(crate) fn memory() -> u64 {
    // SAFETY: sysinfo is plain data.
    let total = unsafe {
        let mut info: libc::sysinfo = std::mem::zeroed();
        match libc::sysinfo(&mut info) {
            0 => info.totalram.saturating_mul(info.mem_unit.into()),
            _ => return libc::RLIM_INFINITY,
        }
    };
    total / 4 * 3
}

/// When memory runs out, an instance's processes go before anything else, its largest first: what many
/// of them take together has no bound of its own, and nobody else must die of it. Whoever comes of this
/// process inherits it and has no power to take it back.
pub(crate) fn first_to_go() -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", "1000")
}

/// Bounds the tasks of the pid namespace this is pid 1 of, where a namespace has a bound of its
/// own (Linux 6.14). The rlimit does not hold for root. Before, the file was the host's.
pub(crate) fn bound_tasks() -> io::Result<()> {
    if !crate::sandbox::sys::kernel_at_least(6, 14) {
        return Err(io::Error::other("it takes Linux 6.14"));
    }
    std::fs::write("/proc/sys/kernel/pid_max", TASKS.to_string())
}

/// No core files, bounded descriptors, files, memory and processes. A hard limit already lower stays.
pub(crate) fn apply() -> io::Result<()> {
    let limits: [(u32, u64); 5] = [
        (libc::RLIMIT_DATA, memory()),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_NOFILE, 8_192),
        (libc::RLIMIT_FSIZE, 8 << 30),
        (libc::RLIMIT_NPROC, TASKS.into()),
    ];
    for (resource, wanted) in limits {
        // SAFETY: rlimit is plain data.
        unsafe {
            let mut limit: libc::rlimit = std::mem::zeroed();
            sys::check(libc::getrlimit(resource as _, &mut limit).into())?;
            let value = wanted.min(limit.rlim_max);
            let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
            sys::check(libc::setrlimit(resource as _, &limit).into())?;
        }
    }
    Ok(())
}

/// Descriptors of a process that serves many: programs that close all they might have take long
/// over more, and what runs without a sandbox inherits this.
const MANY: libc::rlim_t = 1 << 16;

/// As many descriptors for this process as its hard limit allows: the usual soft one, 1,024, is
/// for programs that use `select`. What runs in a sandbox has a limit of its own.
pub(crate) fn raise_descriptors() -> io::Result<()> {
    // SAFETY: rlimit is plain data.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        sys::check(libc::getrlimit(libc::RLIMIT_NOFILE as _, &mut limit).into())?;
        limit.rlim_cur = limit.rlim_max.min(MANY).max(limit.rlim_cur);
        sys::check(libc::setrlimit(libc::RLIMIT_NOFILE as _, &limit).into()).map(drop)
    }
}

/// Every capability gone, from every set, and no way to regain one.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    let _ = sys::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong);
    for capability in 0..64 {
        // Without CAP_SETPCAP there is nothing to drop, because the empty sets below cannot be
        // refilled under no_new_privs; beyond the last one the kernel answers EINVAL.
        let dropped = sys::prctl(libc::PR_CAPBSET_DROP, capability);
        if dropped.is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL)) {
            break;
        }
    }
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let none = [Data { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 takes a header and two data blocks.
    sys::check(unsafe { libc::syscall(libc::SYS_capset, &header, none.as_ptr()) }).map(drop)
}
