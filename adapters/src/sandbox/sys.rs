//! Raw system calls, each wrapped once.

use std::ffi::CString;
use std::io::{self, Error};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(super) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}
pub(super) fn cstring(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| Error::new(io::ErrorKind::InvalidInput, "NUL in a string"))
}
pub(super) fn cpath(path: &Path) -> io::Result<CString> {
    cstring(path.as_os_str().as_bytes())
}

pub(super) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes flags only; the process has one thread.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// # Safety
/// The caller has one thread, so the child may do anything.
pub(super) unsafe fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: the caller's promise.
    let pid = unsafe { libc::fork() };
    check(pid.into())?;
    Ok(pid)
}

/// A fork whose child begins in a cgroup (`clone3(2)`): it runs nothing outside.
///
/// # Safety
/// As [`fork`].
pub(super) unsafe fn fork_into(group: Option<&std::fs::File>) -> io::Result<libc::pid_t> {
    // libc's constant of this name is cut to 32 bits.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let Some(group) = group else {
        // SAFETY: the caller's promise.
        return unsafe { fork() };
    };
    // SAFETY: plain data. No stack and no shared memory are asked for: the child goes on here in a
    // copy of everything, as after fork; the caller has one thread.
    let pid = unsafe {
        let mut args: libc::clone_args = std::mem::zeroed();
        args.flags = CLONE_INTO_CGROUP;
        args.exit_signal = libc::SIGCHLD as u64;
        args.cgroup = group.as_raw_fd() as u64;
        check(libc::syscall(libc::SYS_clone3, &args, std::mem::size_of_val(&args)))
    };
    match pid {
        Ok(pid) => Ok(pid as libc::pid_t),
        // Containers forbid what they cannot look into: then we go there first ourselves.
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
            join(group)?;
            // SAFETY: the caller's promise.
            unsafe { fork() }
        }
        Err(e) => Err(e),
    }
}

/// Moves this process into a cgroup.
fn join(group: &std::fs::File) -> io::Result<()> {
    let name = cstring(b"cgroup.procs")?;
    // SAFETY: an open folder and a live C string; the result is a new descriptor.
    let file = unsafe {
        let fd = check(libc::openat(group.as_raw_fd(), name.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC).into())?;
        std::fs::File::from_raw_fd(fd as RawFd)
    };
    io::Write::write_all(&mut &file, b"0")
}

/// The beginning of an extended attribute.
pub(super) fn attribute(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let (path, name) = (cpath(path)?, cstring(name.as_bytes())?);
    let mut value = vec![0u8; 16];
    // SAFETY: live C strings, and a buffer of the size that is said.
    let n = check(unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) as libc::c_long
    })?;
    value.truncate(n as usize);
    Ok(value)
}

/// Whose rights this process has.
pub(super) fn user() -> u32 {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() }
}

pub(super) fn mount(source: &str, target: &Path, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let (source, target) = (cstring(source.as_bytes())?, cpath(target)?);
    let (kind, data) = (cstring(kind.as_bytes())?, cstring(data.as_bytes())?);
    // SAFETY: all pointers are live C strings.
    let result = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    check(result.into()).map(drop)
}

/// A detached copy of the mounts at `path`, to be put elsewhere (`open_tree(2)`).
pub(super) fn open_tree(path: &Path) -> io::Result<OwnedFd> {
    const OPEN_TREE_CLONE: libc::c_uint = 1;
    let c = cpath(path)?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the path is a live C string; the result is a new descriptor.
    unsafe {
        let fd = check(libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c.as_ptr(), flags))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}
/// Puts a detached mount at `target` (`move_mount(2)`).
pub(super) fn move_mount(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;
    let (empty, target) = (cstring(b"")?, cpath(target)?);
    // SAFETY: live C strings and an owned descriptor.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    check(result).map(drop)
}

/// Makes a detached mount read-only, and everything mounted beneath it (`mount_setattr(2)`).
/// Flags the kernel locked stay: a remount would have to repeat them.
pub(super) fn make_read_only(tree: &OwnedFd) -> io::Result<()> {
    const MOUNT_ATTR_RDONLY: u64 = 1;
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        userns: u64,
    }
    let attributes = Attributes { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns: 0 };
    let empty = cstring(b"")?;
    // SAFETY: a live C string, an owned descriptor, and a struct of the size that is said.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &attributes,
            std::mem::size_of::<Attributes>(),
        )
    };
    check(result).map(drop)
}

/// Takes the topmost mount at `path` away.
pub(super) fn unmount(path: &Path) -> io::Result<()> {
    let path = cpath(path)?;
    // SAFETY: a live C string.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }.into()).map(drop)
}

/// Locks an open file for as long as it stays open (`flock(2)`).
pub(super) fn lock(file: &impl AsRawFd, how: libc::c_int) -> io::Result<()> {
    // SAFETY: an open descriptor and flags.
    check(unsafe { libc::flock(file.as_raw_fd(), how) }.into()).map(drop)
}

/// Whether the kernel is of this version, or newer.
pub(super) fn kernel_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

pub(super) fn prctl(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used take one integer.
    check(unsafe { libc::prctl(option, value, 0, 0, 0) }.into()).map(drop)
}

/// Whether this process may have huge pages, as far as itself is concerned.
pub(super) fn huge_pages() -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) == 0 }
}

pub(super) fn close_on_exec_from(first: libc::c_uint) {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: marks descriptors only. Kernels before 5.11 lack it; Landlock ABI 3 is newer.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
}

/// Sends one message with one descriptor over a unix socket.
pub(super) fn send_with_fd(socket: RawFd, bytes: &[u8], fd: Option<RawFd>) -> io::Result<()> {
    let mut iov = libc::iovec { iov_base: bytes.as_ptr() as *mut libc::c_void, iov_len: bytes.len() };
    let mut control = [0u64; 4];
    // SAFETY: msghdr is plain data; the pointers live until sendmsg returns; CMSG_* stay within
    // `control`, which is larger than CMSG_SPACE of one descriptor and aligned for cmsghdr.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut iov;
        message.msg_iovlen = 1;
        if let Some(fd) = fd {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(4) as usize;
            let header = libc::CMSG_FIRSTHDR(&message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        }
        check(libc::sendmsg(socket, &message, libc::MSG_NOSIGNAL) as libc::c_long).map(drop)
    }
}

/// Receives one message and the descriptor that may come with it.
pub(super) fn receive_with_fd(socket: RawFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0u64; 4];
    // SAFETY: as in `send_with_fd`; a received descriptor is new and owned by nobody else.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = std::mem::size_of_val(&control);
        let n = check(libc::recvmsg(socket, &mut message, libc::MSG_CMSG_CLOEXEC) as libc::c_long)?;
        let header = libc::CMSG_FIRSTHDR(&message);
        let fd = (!header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS)
            .then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()));
        Ok((n as usize, fd))
    }
}

/// Ends this process as the kernel ends one: nothing is flushed, nobody is told.
pub(crate) fn die() -> ! {
    // SAFETY: takes integers only.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    loop {
        std::thread::park();
    }
}
