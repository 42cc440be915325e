//! Pleach's side of the launcher.

use super::group::{self, Group};
use super::layers::Part;
use super::spec::{Report, Spec};
use super::{ENTRY, sys};
use policies::grant::Profile;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// How long the launcher may take to answer.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(20);

/// Why nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A layer of the profile, or the grant itself, cannot be held here.
    #[error("the sandbox refused: {layer}: {why}")]
    Refused {
        /// Which layer.
        layer: String,
        /// Why, and the cure.
        why: String,
    },
    /// The program could not be executed.
    #[error("{program} could not be started: {why}")]
    NotStarted {
        /// The program.
        program: String,
        /// The system's error number.
        errno: i32,
        /// In words.
        why: String,
    },
    /// The launcher itself failed.
    #[error("the launcher failed: {0}")]
    Launcher(#[from] io::Error),
}

/// What the program's standard streams are.
pub struct Pipes {
    /// Standard input.
    pub stdin: Stdio,
    /// Standard output.
    pub stdout: Stdio,
    /// Standard error.
    pub stderr: Stdio,
}

impl Pipes {
    /// All three piped to us.
    pub fn piped() -> Self {
        Self { stdin: Stdio::piped(), stdout: Stdio::piped(), stderr: Stdio::piped() }
    }
    /// All three ours.
    pub fn inherited() -> Self {
        Self { stdin: Stdio::inherit(), stdout: Stdio::inherit(), stderr: Stdio::inherit() }
    }
}

/// A sandboxed process tree. Dropping it ends the tree.
#[derive(Debug)]
pub struct Instance {
    /// The launcher, whose exit code is the program's.
    pub child: Child,
    /// The layers that hold it.
    pub layers: Vec<String>,
    /// What a layer could not do.
    pub notes: Vec<String>,
    /// The proxy's listener inside the instance's network namespace.
    pub proxy: Option<std::net::TcpListener>,
    /// Whatever shall last as long as the instance and no longer.
    pub keep: Option<Box<dyn std::any::Any + Send>>,
    lifeline: UnixStream,
    pub(super) group: Option<Group>,
}

impl Instance {
    /// Ends the whole tree at once, and waits until it is gone.
    pub async fn kill(&mut self) {
        let _ = self.lifeline.shutdown(std::net::Shutdown::Both);
        if tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await.is_err() {
            self.group = None;
            let _ = self.child.start_kill();
            let _ = self.child.wait().await;
        }
    }
}

/// Starts a program under the layers of its spec.
///
/// # Errors
/// A layer that cannot be entered, a grant the kernel cannot hold, a program that cannot be
/// executed. In each case nothing runs.
pub async fn launch(spec: &Spec, pipes: Pipes) -> Result<Instance, LaunchError> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut spec = spec.clone();
    // Before there is a child: making the first group takes that this process has none.
    let (wanted, memory) = (spec.stands(Part::Group), spec.memory());
    let made = move || if wanted { group::make(memory) } else { Ok(None) };
    let group = tokio::task::spawn_blocking(made).await.map_err(io::Error::other)?;
    let group = group.map_err(|e| LaunchError::Refused { layer: "cgroup".into(), why: e.to_string() })?;
    spec.group = group.as_ref().map(|group| (group.path.clone(), group.words.clone()));
    let mut command = Command::new("/proc/self/exe");
    command.arg0("pleach-sandbox").arg(ENTRY).env_clear().current_dir("/");
    // The launcher runs outside the sandbox, so not even the environment is the program's: a
    // loader variable of it would be obeyed here. The program gets its own from the spec.
    command.stdin(pipes.stdin).stdout(pipes.stdout).stderr(pipes.stderr);
    // Dropped, it ends by its lifeline, and the launcher cleans up after it.
    command.kill_on_drop(spec.profile() != Profile::Full);
    let socket = theirs.as_raw_fd();
    // SAFETY: between fork and exec only async-signal-safe calls: dup2 and fcntl.
    unsafe {
        command.pre_exec(move || {
            if socket == 3 {
                sys::check(libc::fcntl(3, libc::F_SETFD, 0).into())?;
            } else {
                sys::check(libc::dup2(socket, 3).into())?;
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    drop(theirs);
    let text = serde_json::to_vec(&spec).map_err(io::Error::other)?;
    let handshake = tokio::task::spawn_blocking(move || handshake(ours, &text));
    let (lifeline, report, listener) = handshake.await.map_err(io::Error::other)??;
    match report {
        Report::Enforced { layers, notes } => {
            let proxy = match listener {
                Some(fd) if spec.profile() == Profile::Full => {
                    let listener = std::net::TcpListener::from(fd);
                    listener.set_nonblocking(true)?;
                    Some(listener)
                }
                _ => None,
            };
            Ok(Instance { child, layers, notes, proxy, keep: None, lifeline, group })
        }
        Report::Refused { layer, why } => Err(LaunchError::Refused { layer, why }),
        Report::NotStarted { errno, why } => {
            Err(LaunchError::NotStarted { program: spec.program.display().to_string(), errno, why })
        }
    }
}

fn handshake(mut socket: UnixStream, spec: &[u8]) -> io::Result<(UnixStream, Report, Option<OwnedFd>)> {
    socket.set_read_timeout(Some(LAUNCH_TIMEOUT))?;
    socket.set_write_timeout(Some(LAUNCH_TIMEOUT))?;
    socket.write_all(&(spec.len() as u32).to_le_bytes())?;
    socket.write_all(spec)?;
    let mut listener = None;
    let mut text = Vec::new();
    loop {
        let mut buffer = [0u8; 4096];
        let (n, fd) = sys::receive_with_fd(socket.as_raw_fd(), &mut buffer)?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without a report"));
        }
        listener = fd.or(listener);
        text.extend_from_slice(&buffer[..n]);
        if text.ends_with(b"\n") {
            break;
        }
    }
    let report = serde_json::from_slice(&text).map_err(io::Error::other)?;
    socket.set_read_timeout(None)?;
    Ok((socket, report, listener))
}
