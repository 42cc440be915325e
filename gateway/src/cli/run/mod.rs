//! `pleach run`.

pub(super) mod foreground;
mod view;

use super::Context;
use crate::error::{Failure, Outcome};
use crate::guard::{Approve, CLI, LOCAL};
use foreground::Foreground;
use std::io::{IsTerminal, Read};
use subagents::host::{Approvals, Start};
use subagents::run::RunId;

/// Run an agent: its answer on standard output, the live tree on standard error.
///
/// The prompt is the argument, else the agent's initial_prompt, else what is piped in. Exits 0
/// when the run completed, 1 when it failed, 2 for a wrong policy file or usage, 3 when the run
/// itself was refused, 4 over budget, 5 when it waits for a person: it then says for what, and
/// the command that answers. Ctrl-C cancels it; killed, it goes on with `pleach resume RUN`.
///
/// Example: pleach run --agent coordinator "Compare the two papers."
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The agent; default: default_agent, else the only one.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Answer each `ask` with allow, once; nothing else.
    #[arg(long)]
    yes: bool,
    /// Print every event of every run of the tree on standard output, one JSON object a line.
    #[arg(long)]
    json: bool,
    /// What to ask.
    prompt: Option<String>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = foreground::load(context)?;
    let agent = super::agent_named(&loaded.policy, args.agent.as_deref())?.clone();
    let prompt = match args.prompt.or_else(|| agent.initial_prompt.clone()) {
        Some(prompt) => prompt,
        None => piped().ok_or_else(|| {
            Failure::usage(format!("what should {} do? Give a prompt as argument or on standard input", agent.name))
        })?,
    };
    let approve = if args.yes { Approve::Once } else { Approve::Park };
    let door = loaded.policy.door(None);
    let mut foreground = Foreground::open(context, loaded, approve, args.json).await?;
    let start = Start {
        id: RunId::fresh()?,
        agent: agent.name.clone(),
        prompt,
        principal: LOCAL.into(),
        door,
        place: CLI.into(),
        limits: policies::resolve::Limits::NONE,
        shared: None,
        inbound: None,
        approvals: Approvals::Park,
        cancel: foreground.stop.clone(),
    };
    let host = foreground.app.host.clone();
    let ended = foreground.follow(host.start(start)).await;
    foreground.finish(ended).await
}

fn piped() -> Option<String> {
    let mut input = std::io::stdin();
    if input.is_terminal() {
        return None;
    }
    let mut text = String::new();
    input.read_to_string(&mut text).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
