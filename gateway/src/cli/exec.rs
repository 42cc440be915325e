use super::Context;
use crate::audit::{Audit, Before, Entry};
use crate::egress::{self, Owner};
use crate::error::{Exit, Failure, Outcome};
use crate::guard::{CLI, LOCAL};
use crate::settings::{self, Loaded};
use adapters::sandbox::{LaunchError, Pipes, Ready, Spec, prepare, pty, runtime};
use policies::authority::{Authority, RunAuthority};
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use subagents::run::Caller;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Run a command in the sandbox of an agent's grant.
///
/// The command sees what the agent's own tools would: granted files, granted domains through the
/// proxy, nothing else. Standard output is the command's alone; the exit code is the command's,
/// 128+n when signal n ended it, 125 when pleach failed, 126 when the command cannot be executed,
/// 127 when it does not exist.
///
/// Example: pleach exec --agent researcher -- cat docs/papers/a.md
#[derive(clap::Args)]
pub(super) struct Args {
    /// The agent whose grant applies; default: the default agent.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

struct Fixed {
    caller: Caller,
    audit: Audit,
}

impl Owner for Fixed {
    fn name(&self) -> String {
        self.caller.who.to_string()
    }
    fn authority(&self) -> Option<Authority> {
        Some(self.caller.authority.clone())
    }
    fn audit(&self) -> &Audit {
        &self.audit
    }
    fn entry(&self, what: &str) -> Entry {
        Entry::new(what).by(&self.caller)
    }
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    // The launcher gets ready while the policy is read. Where nothing is to run, it is dropped.
    let streams = Streams::open().map_err(failed)?;
    let mut ready = prepare(streams.pipes().map_err(failed)?);
    let own = |f: Failure| if f.exit == Exit::Usage as u8 { f } else { Failure::new(Exit::ExecFailed, f.message) };
    let loaded = settings::load(&context.config).map_err(own)?;
    let agent = super::agent_named(&loaded.policy, args.agent.as_deref())?;
    let authority = RunAuthority::spawn(&loaded.policy.door(None), &agent.policy, None)
        .map_err(|_| Failure::new(Exit::ExecFailed, "the agent's grant cannot be computed"))?
        .use_;
    if let Ok(ready) = &mut ready {
        ready.under(authority.grant().sandbox);
    }
    let name = format!("exec as {}", agent.name);
    let audit = Audit::open(&loaded);
    egress::keep_from(loaded.policy.gateway.listen);
    let spec = spec(&loaded, &authority, &args.command, agent.name.as_str())?;
    let caller = Caller::new(LOCAL, &name, authority).through(CLI);
    let profile = format!("{:?}", caller.authority.grant().sandbox);
    let entry = Entry::new("process").by(&caller).with("program", spec.program.display().to_string());
    let entry = entry.with("sandbox", profile).with("verdict", "allow");
    if let Err(refused) = audit.record(entry, Before::Acting).await {
        let trouble = audit.trouble().map(|t| format!("\n{t}")).unwrap_or_default();
        return Err(Failure::new(Exit::ExecFailed, format!("{refused}{trouble}")));
    }
    let ended = execute(spec, (streams, ready), Arc::new(Fixed { caller, audit: audit.clone() })).await;
    audit.close().await;
    ended
}

fn spec(loaded: &Loaded, authority: &Authority, command: &[String], agent: &str) -> Result<Spec, Failure> {
    let cwd = std::env::current_dir().map_err(|e| Failure::new(Exit::ExecFailed, e))?;
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
    let found = runtime::discover(&command[0], &command[1..], &cwd, &path).map_err(|e| match e {
        runtime::RuntimeError::NotFound(_) => Failure::new(Exit::ExecMissing, e),
        runtime::RuntimeError::NotExecutable(_) => Failure::new(Exit::ExecDenied, e),
    })?;
    let home = loaded.home("exec", agent).map_err(|e| Failure::new(Exit::ExecFailed, e))?;
    let mut spec = Spec::new(found, command[1..].to_vec(), cwd, home);
    spec.arg0 = Some(command[0].clone());
    spec.grant(authority.grant(), &loaded.own());
    spec.standard_env(crate::settings::environment());
    Ok(spec)
}

fn failed(error: std::io::Error) -> Failure {
    Failure::new(Exit::ExecFailed, error)
}

/// What the command's standard streams are: ours, or a terminal of its own where ours is one.
struct Streams(Option<pty::Pty>);

impl Streams {
    fn open() -> std::io::Result<Self> {
        let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        terminal.then(|| pty::open(std::io::stdin().as_fd())).transpose().map(Self)
    }
    fn pipes(&self) -> std::io::Result<Pipes> {
        let Some(pty) = &self.0 else { return Ok(Pipes::inherited()) };
        let end = || pty.slave.try_clone().map(std::process::Stdio::from);
        Ok(Pipes { stdin: end()?, stdout: end()?, stderr: end()? })
    }
}

type Prepared = (Streams, Result<Ready, LaunchError>);

async fn execute(mut spec: Spec, (streams, ready): Prepared, owner: Arc<dyn Owner>) -> Outcome {
    spec.terminal = streams.0.is_some();
    // Before the command runs: whoever hears from it may signal us at once.
    let (mut term, mut int) =
        (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?);
    let started = match ready {
        Ok(ready) => ready.launch(&spec).await,
        Err(e) => Err(e),
    };
    let mut instance = started.map_err(|e| match e {
        LaunchError::NotStarted { errno, .. } if errno == libc::ENOENT => Failure::new(Exit::ExecMissing, e),
        LaunchError::NotStarted { .. } => Failure::new(Exit::ExecDenied, e),
        other => Failure::new(Exit::ExecFailed, other),
    })?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    if let Some(listener) = instance.proxy.take() {
        egress::serve(listener, owner, &tasks, stop.clone()).map_err(failed)?;
    }
    let relay = streams.0.map(|pty| {
        drop(pty.slave);
        Terminal::start(pty.master)
    });
    let status = loop {
        tokio::select! {
            status = instance.child.wait() => break status.map_err(failed)?,
            _ = term.recv() => forward(&instance, libc::SIGTERM),
            _ = int.recv() => forward(&instance, libc::SIGINT),
        }
    };
    if let Some(relay) = relay {
        relay.finish();
    }
    stop.cancel();
    tasks.close();
    // What became of its connections is on record when they end, which they do at once.
    let _ = tokio::time::timeout(Duration::from_secs(2), tasks.wait()).await;
    Ok(u8::try_from(status.code().unwrap_or(i32::from(Exit::ExecFailed as u8))).unwrap_or(Exit::ExecFailed as u8))
}

fn forward(instance: &adapters::sandbox::Instance, number: i32) {
    if let Some(pid) = instance.child.id() {
        adapters::sandbox::signal(pid, number);
    }
}

/// Relays between our terminal and the command's own.
struct Terminal {
    _raw: Option<pty::Raw>,
    output: std::thread::JoinHandle<()>,
}

impl Terminal {
    fn start(master: std::os::fd::OwnedFd) -> Self {
        let raw = pty::Raw::enter().ok();
        let (reader, writer) = (master.try_clone(), master.try_clone());
        // Blocking threads: they end with the process or with the terminal.
        if let Ok(writer) = writer {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::fs::File::from(writer));
            });
        }
        tokio::spawn(async move {
            let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
            while changed.recv().await.is_some() {
                pty::resize(std::io::stdin().as_fd(), master.as_fd());
            }
        });
        let output = std::thread::spawn(move || {
            if let Ok(reader) = reader {
                // EIO is how a terminal says that its other end is closed.
                show(std::fs::File::from(reader));
            }
        });
        Self { _raw: raw, output }
    }
    fn finish(self) {
        let _ = self.output.join();
    }
}

/// Shows what the terminal says as it says it: a prompt has no newline to wait for.
fn show(mut terminal: std::fs::File) {
    use std::io::{Read, Write};
    let mut buffer = [0u8; 4096];
    let mut out = std::io::stdout();
    while let Ok(n) = terminal.read(&mut buffer) {
        if n == 0 || out.write_all(&buffer[..n]).is_err() || out.flush().is_err() {
            return;
        }
    }
}
