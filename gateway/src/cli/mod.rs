//! The command line: one file a command. The doc comments are the help texts, in which `[table]`
//! is a table of the policy file and no link.
#![allow(rustdoc::broken_intra_doc_links)]

mod allow;
mod answer;
mod approvals;
mod audit;
mod cancel;
mod check;
mod client;
mod clients;
mod connect;
mod diff;
mod doctor;
mod edit;
mod exec;
mod explain;
mod fork;
mod import;
mod init;
mod install;
mod login;
mod pause;
mod pin;
mod resume;
mod run;
mod runs;
mod schema;
mod serve;
mod show;
mod token;
mod tools;
mod words;

use crate::error::{Failure, Outcome};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// A gateway between agents and the world: MCP servers behind one guarded endpoint, and a tree
/// of agents in which a child can never do what its parent may not give.
#[derive(Parser)]
#[command(name = "pleach", version, max_term_width = 100, after_help = BEGIN)]
struct Cli {
    /// The policy file.
    #[arg(long, short, global = true, default_value = "pleach.toml", value_name = "FILE")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

const BEGIN: &str = "Begin with:
  pleach init                    a policy file from the client's configuration in this folder
  pleach check                   what it allows, in sentences
  pleach run \"What is here?\"    an agent of it, with every verdict and the rule behind it
  pleach serve                   its servers and agents, for any MCP client

`pleach COMMAND --help` says the rest, with an example.";

#[derive(Subcommand)]
enum Command {
    Init(init::Args),
    Import(import::Args),
    Install(install::Args),
    Login(login::Args),
    Pin(pin::Args),
    Connect(connect::Args),
    Client(client::Args),
    Token(token::Args),
    Check(check::Args),
    Diff(diff::Args),
    Schema(schema::Args),
    Run(run::Args),
    Runs(runs::Args),
    Show(show::Args),
    Resume(resume::Args),
    Answer(answer::Args),
    Approvals(approvals::Args),
    Cancel(cancel::Args),
    Pause(pause::Args),
    Unpause(pause::Unpause),
    Fork(fork::Args),
    Serve(serve::Args),
    Tools(tools::Args),
    Allow(allow::Args),
    Explain(explain::Args),
    Exec(exec::Args),
    Audit(audit::Args),
    Doctor(doctor::Args),
}

/// What every command gets.
pub(crate) struct Context {
    /// The policy file as named.
    pub(crate) config: PathBuf,
}

impl Context {
    /// What a command that is shown needs to find the same policy file.
    fn suffix(&self) -> String {
        let config = self.config.display().to_string();
        if config == "pleach.toml" { String::new() } else { format!(" --config {config}") }
    }
}

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    crate::telemetry::start(if matches!(cli.command, Command::Serve(_)) { "warn" } else { "error" });
    let context = Context { config: cli.config };
    let outcome = match cli.command {
        Command::Init(args) => init::run(&context, args),
        Command::Import(args) => import::run(&context, args),
        Command::Install(args) => block_on(install::run(&context, args)),
        Command::Login(args) => block_on(login::run(&context, args)),
        Command::Pin(args) => block_on(pin::run(&context, args)),
        Command::Connect(args) => connect::run(&context, args),
        Command::Client(args) => client::run(&context, args),
        Command::Token(args) => token::run(&context, args),
        Command::Allow(args) => block_on(allow::run(&context, args)),
        Command::Check(args) => check::run(&context, args),
        Command::Diff(args) => diff::run(&context, args),
        Command::Schema(args) => schema::run(args),
        Command::Run(args) => block_on(run::run(&context, args)),
        Command::Runs(args) => block_on(runs::run(&context, args)),
        Command::Show(args) => block_on(show::run(&context, args)),
        Command::Resume(args) => block_on(resume::run(&context, args)),
        Command::Answer(args) => block_on(answer::run(&context, args)),
        Command::Approvals(args) => block_on(approvals::run(&context, args)),
        Command::Cancel(args) => block_on(cancel::run(&context, args)),
        Command::Pause(args) => block_on(pause::run(&context, args)),
        Command::Unpause(args) => block_on(pause::unpause(&context, args)),
        Command::Fork(args) => block_on(fork::run(&context, args)),
        Command::Serve(args) => block_on(serve::run(&context, args)),
        Command::Tools(args) => block_on(tools::run(&context, args)),
        Command::Explain(args) => block_on(explain::run(&context, args)),
        Command::Audit(args) => audit::run(&context, args),
        Command::Exec(args) => block_on(exec::run(&context, args)),
        Command::Doctor(args) => block_on(doctor::run(args)),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(Failure { exit, message }) => {
            eprintln!("pleach: {message}");
            ExitCode::from(exit)
        }
    }
}

/// Runs a command that needs the runtime.
fn block_on(future: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(future);
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}

/// The agent a flag names, or the default one.
fn agent_named<'a>(
    policy: &'a policies::resolve::Policy,
    name: Option<&str>,
) -> Result<&'a policies::resolve::AgentSpec, Failure> {
    let all = || policy.agents.keys().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
    match name {
        Some(name) => policy.agents.get(name).ok_or_else(|| {
            let near = policies::names::nearest(name, policy.agents.keys().map(|n| n.as_str()));
            let hint = near.map(|n| format!("; did you mean {n:?}?")).unwrap_or_default();
            Failure::usage(format!("no agent is named {name:?}{hint} The file defines: {}", all()))
        }),
        None => policy.default_agent().ok_or_else(|| {
            let message = match policy.agents.len() {
                0 => "the file defines no agent; add [agents.NAME]".to_owned(),
                _ => format!("which agent? Name one with --agent, or set [gateway] default_agent: {}", all()),
            };
            Failure::usage(message)
        }),
    }
}
