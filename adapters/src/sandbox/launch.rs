//! Pleach's side of the launcher.

use super::group::{self, Group};
use super::layers::{Part, namespaces};
use super::spec::{Report, Spec};
use super::{ENTRY, sys};
use policies::grant::Profile;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::process::{Child, Command};

/// How long the launcher may take to answer.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(20);

/// What keeps our allocator from huge pages, if it is `0`. The kernel remembers it for whoever comes after, so the
/// launcher takes it back for the program.
pub(super) const NO_HUGE_PAGES: &str = "MIMALLOC_ALLOW_THP";

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

/// A launcher that waits to be told what to start. Nothing of a program has been started, and
/// dropping it ends it.
#[derive(Debug)]
pub struct Ready {
    child: Child,
    socket: UnixStream,
    group: Option<Group>,
    /// The namespaces it was told to make.
    told: Option<libc::c_int>,
}

/// Starts a launcher before it is known for what; it gets ready meanwhile.
///
/// # Errors
/// The launcher cannot be started.
pub fn prepare(pipes: Pipes) -> Result<Ready, LaunchError> {
    begin(group::make(None), pipes)
}

/// Starts a program under the layers of its spec.
///
/// # Errors
/// A layer that cannot be entered, a grant the kernel cannot hold, a program that cannot be
/// executed. In each case nothing runs.
pub async fn launch(spec: &Spec, pipes: Pipes) -> Result<Instance, LaunchError> {
    let group = if spec.stands(Part::Group) { group::make(spec.memory()) } else { Ok(None) };
    begin(group, pipes)?.launch(spec).await
}

fn begin(group: io::Result<Option<Group>>, pipes: Pipes) -> Result<Ready, LaunchError> {
    let group = group.map_err(|e| LaunchError::Refused { layer: "cgroup".into(), why: e.to_string() })?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("pleach-sandbox").arg(ENTRY).args(group.as_ref().map(|group| &group.path)).current_dir("/");
    // The launcher runs outside the sandbox, so not even the environment is the program's: a
    // loader variable of it would be obeyed here. The program gets its own from the spec. Our
    // allocator would clear two megabytes for the little the launcher needs.
    command.env_clear();
    if sys::huge_pages() {
        command.env(NO_HUGE_PAGES, "0");
    }
    // Dropped, it ends by its lifeline, and cleans up after the program.
    command.stdin(pipes.stdin).stdout(pipes.stdout).stderr(pipes.stderr);
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
    Ok(Ready { child, socket: ours, group, told: None })
}

impl Ready {
    /// Tells the launcher which profile it will be; it makes the namespaces meanwhile. One that is
    /// gone already is heard of when it is to start something.
    pub fn under(&mut self, profile: Profile) {
        self.tell(if profile == Profile::Full { namespaces::ALL } else { 0 });
    }
    fn tell(&mut self, flags: libc::c_int) {
        if self.told.is_none() {
            self.told = Some(flags);
            // Four bytes never fill a socket.
            let _ = self.socket.write_all(&flags.to_le_bytes());
        }
    }
    /// Has the launcher start a program.
    ///
    /// # Errors
    /// As [`launch`]; and a spec of another profile than it was told.
    pub async fn launch(mut self, spec: &Spec) -> Result<Instance, LaunchError> {
        let flags = namespaces::wanted(spec);
        self.tell(flags);
        let Self { child, socket, group, told } = self;
        if told != Some(flags) {
            let why = "the launcher was told another profile".to_owned();
            return Err(LaunchError::Refused { layer: "namespaces".into(), why });
        }
        let text = serde_json::to_vec(spec).map_err(io::Error::other)?;
        let shaken = tokio::time::timeout(LAUNCH_TIMEOUT, handshake(socket, &text)).await;
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
        let (lifeline, report, listener) = shaken.map_err(late)??;
        match report {
            Report::Enforced { mut layers, notes } => {
                layers.extend(group.as_ref().map(|group| group.words.clone()));
                let proxy = listener.map(std::net::TcpListener::from);
                proxy.as_ref().map(|listener| listener.set_nonblocking(true)).transpose()?;
                Ok(Instance { child, layers, notes, proxy, keep: None, lifeline, group })
            }
            Report::Refused { layer, why } => Err(LaunchError::Refused { layer, why }),
            Report::NotStarted { errno, why } => {
                Err(LaunchError::NotStarted { program: spec.program.display().to_string(), errno, why })
            }
        }
    }
}

async fn handshake(socket: UnixStream, spec: &[u8]) -> io::Result<(UnixStream, Report, Option<OwnedFd>)> {
    socket.set_nonblocking(true)?;
    let mut socket = tokio::net::UnixStream::from_std(socket)?;
    socket.write_all(&(spec.len() as u32).to_le_bytes()).await?;
    socket.write_all(spec).await?;
    let mut listener = None;
    let mut text = Vec::new();
    loop {
        let mut buffer = [0u8; 4096];
        let receive = || sys::receive_with_fd(socket.as_raw_fd(), &mut buffer);
        let (n, fd) = socket.async_io(Interest::READABLE, receive).await?;
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
    Ok((socket.into_std()?, report, listener))
}
