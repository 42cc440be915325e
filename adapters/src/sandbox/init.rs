//! Pid 1 of an instance: builds the view, starts the program, reaps, forwards signals, and
//! ends with everything when the lifeline is cut.

use super::enter::{FAILED, Refusal, exit, report};
use super::launch::NO_HUGE_PAGES;
use super::layers::{Part, landlock, limits, mounts, seccomp};
use super::spec::{Report, Spec};
use super::sys;
use policies::grant::Profile;
use std::fs::File;
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};

static FORWARD_TO: AtomicI32 = AtomicI32::new(0);
/// A signal that came before there was anybody to pass it to.
static EARLY: AtomicI32 = AtomicI32::new(0);

/// Signals a person or supervisor sends, passed on to the program.
const FORWARDED: [libc::c_int; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

extern "C" fn forward(signal: libc::c_int) {
    let pid = FORWARD_TO.load(Ordering::SeqCst);
    if pid > 0 {
        // SAFETY: kill is async-signal-safe.
        unsafe { libc::kill(pid, signal) };
    } else {
        EARLY.store(signal, Ordering::SeqCst);
    }
}

/// From now on the signals are caught; the first that comes early is kept.
pub(super) fn catch_signals() {
    for signal in FORWARDED {
        // SAFETY: installs a handler that only calls kill.
        unsafe { libc::signal(signal, forward as *const () as libc::sighandler_t) };
    }
}

/// Passes caught signals on to `pid`, the early one first.
pub(super) fn forward_signals_to(pid: libc::pid_t) {
    FORWARD_TO.store(pid, Ordering::SeqCst);
    let early = EARLY.swap(0, Ordering::SeqCst);
    if early != 0 {
        // SAFETY: plain kill of our child.
        unsafe { libc::kill(pid, early) };
    }
}

/// The exit code a shell would show for a wait status.
fn code_of(status: libc::c_int) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

pub(super) fn wait_for(pid: libc::pid_t) -> i32 {
    loop {
        let mut status = 0;
        // SAFETY: status is ours to write.
        let done = unsafe { libc::waitpid(pid, &mut status, 0) };
        if done == pid {
            return code_of(status);
        }
        if done < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return FAILED;
        }
    }
}

/// Runs the instance and returns the program's exit code. The proxy's listener is there already;
/// the program begins in `group`, where this process is not in it itself.
pub(super) fn run(spec: &Spec, socket: &mut UnixStream, listener: Option<TcpListener>, group: Option<File>) -> i32 {
    match start(spec, socket, listener, group) {
        Ok(pid) => {
            forward_signals_to(pid);
            reap(pid, spec.stands(Part::Lifeline).then_some(&*socket))
        }
        Err(Ending::Refused(refusal)) => {
            report(socket, &Report::Refused { layer: refusal.layer.into(), why: refusal.why });
            FAILED
        }
        Err(Ending::NotStarted(error)) => {
            let errno = error.raw_os_error().unwrap_or(0);
            report(socket, &Report::NotStarted { errno, why: error.to_string() });
            FAILED
        }
    }
}

enum Ending {
    Refused(Refusal),
    NotStarted(io::Error),
}
impl From<Refusal> for Ending {
    fn from(refusal: Refusal) -> Self {
        Ending::Refused(refusal)
    }
}

fn start(
    spec: &Spec,
    socket: &mut UnixStream,
    listener: Option<TcpListener>,
    group: Option<File>,
) -> Result<libc::pid_t, Ending> {
    let profile = spec.profile();
    let mut layers = Vec::new();
    let mut notes = Vec::new();
    let _ = sys::prctl(libc::PR_SET_DUMPABLE, 0);
    if profile == Profile::Full {
        mounts::build(spec, &mut notes)?;
        layers.push("namespaces (user, mount, pid, ipc, uts, network)".to_owned());
    } else {
        mounts::check_without(spec)?;
    }
    let ruleset = match profile {
        Profile::Off => None,
        _ if !spec.stands(Part::Landlock) => None,
        _ => {
            let (ruleset, abi) = landlock::compile(spec)?;
            layers.push(format!("landlock (abi {abi})"));
            Some(ruleset)
        }
    };
    let filter = match profile {
        Profile::Off => None,
        _ if !spec.stands(Part::Seccomp) => None,
        other => {
            layers.push("seccomp".to_owned());
            Some(seccomp::compile(other == Profile::Full)?)
        }
    };
    layers.push("rlimits, no capabilities, no new privileges, closed descriptors, clean environment".to_owned());

    let (reader, writer) = pipe().map_err(|e| Refusal::new("pipe", e.to_string()))?;
    // SAFETY: this process has one thread.
    let pid = unsafe { sys::fork_into(group.as_ref()) }.map_err(|e| Refusal::new("fork", e.to_string()))?;
    if pid == 0 {
        let failed = program(spec, ruleset, filter, socket.as_raw_fd());
        let _ = io::Write::write_all(&mut &writer, &failed.encode());
        exit(FAILED);
    }
    drop(writer);
    limits::drop_capabilities().map_err(|e| Refusal::new("capabilities", e.to_string()))?;
    // The pipe closes by itself when the program was executed.
    let mut failure = Vec::new();
    let _ = (&reader).read_to_end(&mut failure);
    if let Some(failed) = Failed::decode(&failure) {
        wait_for(pid);
        return Err(match failed {
            Failed::Layer(layer, why) => Refusal { layer, why }.into(),
            Failed::Exec(errno) => Ending::NotStarted(io::Error::from_raw_os_error(errno)),
        });
    }
    let mut text = serde_json::to_vec(&Report::Enforced { layers, notes }).unwrap_or_default();
    text.push(b'\n');
    let fd = listener.as_ref().map(AsRawFd::as_raw_fd);
    let _ = sys::send_with_fd(socket.as_raw_fd(), &text, fd);
    Ok(pid)
}

pub(super) fn pipe() -> io::Result<(File, File)> {
    let mut fds: [RawFd; 2] = [0; 2];
    // SAFETY: fds has room for two; both results are new and owned here.
    unsafe {
        sys::check(libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC).into())?;
        Ok((File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1])))
    }
}

/// What went wrong between fork and exec, as it crosses the pipe.
enum Failed {
    Layer(&'static str, String),
    Exec(i32),
}

impl Failed {
    const LAYERS: [&'static str; 6] = ["session", "limits", "capabilities", "landlock", "seccomp", "cwd"];
    fn encode(&self) -> Vec<u8> {
        match self {
            Failed::Exec(errno) => [b"E", errno.to_le_bytes().as_slice()].concat(),
            Failed::Layer(layer, why) => {
                let index = Self::LAYERS.iter().position(|l| l == layer).unwrap_or(0);
                [&[b'L', index as u8], why.as_bytes()].concat()
            }
        }
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'E', errno @ ..] => Some(Failed::Exec(i32::from_le_bytes(errno.try_into().unwrap_or([0; 4])))),
            [b'L', index, why @ ..] => {
                let layer = Self::LAYERS.get(*index as usize).copied().unwrap_or("launcher");
                Some(Failed::Layer(layer, String::from_utf8_lossy(why).into_owned()))
            }
            _ => None,
        }
    }
}

/// In the program's process: the last layers, then the program itself.
fn program(
    spec: &Spec,
    ruleset: Option<landlock::Compiled>,
    filter: Option<seccomp::Filters>,
    socket: RawFd,
) -> Failed {
    let layer = |name: &'static str| move |e: io::Error| Failed::Layer(name, e.to_string());
    let steps = || -> Result<(), Failed> {
        limits::session(spec.terminal).map_err(layer("session"))?;
        if spec.stands(Part::Limits) {
            limits::apply().map_err(layer("limits"))?;
        }
        if spec.stands(Part::Capabilities) {
            limits::drop_capabilities().map_err(layer("capabilities"))?;
        }
        if spec.stands(Part::Descriptors) {
            sys::close_on_exec_from(3);
        }
        // SAFETY: the lifeline belongs to pid 1; the program must not keep it open.
        unsafe { libc::close(socket) };
        if spec.profile() != Profile::Full {
            // No pid 1 takes it along when the launcher is killed.
            let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
        }
        if std::env::var_os(NO_HUGE_PAGES).is_some() {
            let _ = sys::prctl(libc::PR_SET_THP_DISABLE, 0);
        }
        std::env::set_current_dir(&spec.cwd)
            .map_err(|e| Failed::Layer("cwd", format!("{}: {e}", spec.cwd.display())))?;
        if let Some(ruleset) = ruleset {
            landlock::restrict(ruleset).map_err(|e| Failed::Layer("landlock", e))?;
        }
        if let Some(filter) = filter {
            seccomp::restrict(&filter).map_err(|e| Failed::Layer("seccomp", e))?;
        }
        Ok(())
    };
    match steps() {
        Ok(()) => Failed::Exec(execute(spec).raw_os_error().unwrap_or(0)),
        Err(failed) => failed,
    }
}

fn execute(spec: &Spec) -> io::Error {
    let go = || -> io::Result<()> {
        let path = sys::cpath(&spec.program)?;
        let name = spec.arg0.clone().unwrap_or_else(|| spec.program.display().to_string());
        let args: Vec<_> = std::iter::once(name.as_str())
            .chain(spec.args.iter().map(String::as_str))
            .map(|a| sys::cstring(a.as_bytes()))
            .collect::<Result<_, _>>()?;
        let env: Vec<_> =
            spec.env.iter().map(|(k, v)| sys::cstring(format!("{k}={v}").as_bytes())).collect::<Result<_, _>>()?;
        let pointers = |list: &[std::ffi::CString]| -> Vec<*const libc::c_char> {
            list.iter().map(|c| c.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
        };
        let (argv, envp) = (pointers(&args), pointers(&env));
        // SAFETY: NUL-terminated arrays of live C strings.
        unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        Err(io::Error::last_os_error())
    };
    go().err().unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Reaps until the program ends or the lifeline is cut; either way everything ends with us.
fn reap(program: libc::pid_t, lifeline: Option<&UnixStream>) -> i32 {
    // SAFETY: the mask is ours; a signalfd is a new descriptor.
    let signals = unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut mask);
        libc::sigaddset(&mut mask, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &mask, std::ptr::null_mut());
        libc::signalfd(-1, &mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    loop {
        let mut ended = None;
        loop {
            let mut status = 0;
            // SAFETY: status is ours to write.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
            if pid == program {
                ended = Some(code_of(status));
            }
            if pid <= 0 {
                break;
            }
        }
        if let Some(code) = ended {
            end_stragglers();
            return code;
        }
        let mut polled = [
            // A negative descriptor is passed over.
            libc::pollfd { fd: lifeline.map_or(-1, AsRawFd::as_raw_fd), events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: signals, events: libc::POLLIN, revents: 0 },
        ];
        // SAFETY: an array of two.
        unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) };
        if polled[0].revents != 0 {
            // Pleach writes nothing after the spec, so readiness means it is gone.
            end_stragglers();
            // SAFETY: plain kill of our child.
            unsafe { libc::kill(program, libc::SIGKILL) };
            return 128 + libc::SIGKILL;
        }
        if polled[1].revents != 0 {
            let mut drained = [0u8; 512];
            // SAFETY: reads into our buffer.
            unsafe { libc::read(signals, drained.as_mut_ptr().cast(), drained.len()) };
        }
    }
}

/// In a pid namespace the kernel kills what is left when we exit. Without one, we are the
/// subreaper: kill our children until there are none.
fn end_stragglers() {
    // SAFETY: getpid cannot fail.
    if unsafe { libc::getpid() } == 1 {
        return;
    }
    for _ in 0..64 {
        let own = std::process::id();
        let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        let pids: Vec<libc::pid_t> = children.split_whitespace().filter_map(|p| p.parse().ok()).collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            // SAFETY: our own children.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// Whether a path is there, without following a last link.
pub(super) fn there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
