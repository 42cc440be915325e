//! System calls that only trials make, from inside and from outside.

use crate::sandbox::sys::{check, cstring};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// Takes the seal from the outermost mount: `mount_setattr(2)` by path, for a descriptor of it
/// would have to be opened.
pub(super) fn unseal() -> io::Result<()> {
    let attributes: [u64; 4] = [0, 1, 0, 0];
    let root = cstring(b"/")?;
    // SAFETY: a live C string, and a struct of the size that is said.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            root.as_ptr(),
            0,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    check(result).map(drop)
}

/// The first bytes of a System V segment.
pub(super) fn shared_segment(key: i32) -> io::Result<Vec<u8>> {
    // SAFETY: what is attached is as long as it was asked for, and read only.
    unsafe {
        let id = check(libc::shmget(key, SEGMENT, 0).into())? as i32;
        let at = libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY);
        if at as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(std::slice::from_raw_parts(at.cast::<u8>(), SEGMENT).to_vec())
    }
}
const SEGMENT: usize = 64;

/// A System V segment with these bytes, until dropped.
pub(super) struct Segment(i32);

impl Segment {
    pub(super) fn new(key: i32, bytes: &[u8]) -> io::Result<Self> {
        // SAFETY: the segment is larger than what is copied.
        unsafe {
            let id = check(libc::shmget(key, SEGMENT, libc::IPC_CREAT | libc::IPC_EXCL | 0o600).into())? as i32;
            let at = libc::shmat(id, std::ptr::null(), 0);
            if at as isize == -1 {
                return Err(io::Error::last_os_error());
            }
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at.cast(), bytes.len().min(SEGMENT));
            libc::shmdt(at);
            Ok(Self(id))
        }
    }
}
impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: marks our own segment for removal.
        unsafe { libc::shmctl(self.0, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

/// What an open descriptor gives from its start.
pub(super) fn read_at(fd: RawFd) -> io::Result<Vec<u8>> {
    let mut room = vec![0u8; 256];
    // SAFETY: reads into our buffer.
    let n = check(unsafe { libc::pread(fd, room.as_mut_ptr().cast(), room.len(), 0) } as libc::c_long)?;
    room.truncate(n as usize);
    Ok(room)
}

/// A descriptor that whoever is executed inherits.
pub(super) fn leak(file: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: clears a flag of an open descriptor.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) }.into()).map(drop)
}
