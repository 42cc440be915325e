//! A terminal of its own for `pleach exec`: the program must not hold ours, through which it
//! could type into the shell that started us.

use super::sys;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Both ends of a new terminal.
pub struct Pty {
    /// Our end.
    pub master: OwnedFd,
    /// The program's end.
    pub slave: OwnedFd,
}

/// Opens a terminal with the size of `like`.
///
/// # Errors
/// When the system has none left.
pub fn open(like: BorrowedFd<'_>) -> io::Result<Pty> {
    let (mut master, mut slave) = (-1, -1);
    // SAFETY: openpty writes two descriptors, new and owned here; winsize is plain data.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        libc::ioctl(like.as_raw_fd(), libc::TIOCGWINSZ, &mut size);
        sys::check(libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null_mut(), &size).into())?;
        for fd in [master, slave] {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        Ok(Pty { master: OwnedFd::from_raw_fd(master), slave: OwnedFd::from_raw_fd(slave) })
    }
}

/// Copies the size of one terminal to another.
pub fn resize(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    // SAFETY: winsize is plain data.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        if libc::ioctl(from.as_raw_fd(), libc::TIOCGWINSZ, &mut size) == 0 {
            libc::ioctl(to.as_raw_fd(), libc::TIOCSWINSZ, &size);
        }
    }
}

/// Our terminal in raw mode until dropped.
pub struct Raw(libc::termios);

impl Raw {
    /// Puts standard input into raw mode.
    ///
    /// # Errors
    /// When standard input is no terminal.
    pub fn enter() -> io::Result<Self> {
        // SAFETY: termios is plain data, descriptor 0 is ours.
        unsafe {
            let mut state: libc::termios = std::mem::zeroed();
            sys::check(libc::tcgetattr(0, &mut state).into())?;
            let saved = state;
            libc::cfmakeraw(&mut state);
            sys::check(libc::tcsetattr(0, libc::TCSANOW, &state).into())?;
            Ok(Self(saved))
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: restores what `enter` saved.
        unsafe { libc::tcsetattr(0, libc::TCSANOW, &self.0) };
    }
}
