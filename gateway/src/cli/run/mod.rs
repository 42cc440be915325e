//! `pleach run`.

mod view;

use super::Context;
use crate::compose;
use crate::error::{Failure, Outcome};
use crate::guard::Approve;
use crate::settings;
use std::io::{IsTerminal, Read, Write};
use std::sync::Arc;
use subagents::event::Seen;
use subagents::host::Start;
use subagents::run::{RunId, State};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Run an agent: its answer on standard output, the live tree on standard error.
///
/// The prompt is the argument, else the agent's initial_prompt, else what is piped in. Exits 0
/// when the run completed, 1 when it failed, 2 for a wrong policy file or usage, 3 when the run
/// itself was refused, 4 over budget, 5 when it waits for a person.
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
    let loaded = Arc::new(settings::load(&context.config)?);
    let agent = super::agent_named(&loaded.policy, args.agent.as_deref())?.clone();
    let prompt = match args.prompt.or_else(|| agent.initial_prompt.clone()) {
        Some(prompt) => prompt,
        None => piped().ok_or_else(|| {
            Failure::usage(format!("what should {} do? Give a prompt as argument or on standard input", agent.name))
        })?,
    };
    let approve = if args.yes { Approve::Once } else { Approve::Nobody };
    let app = compose::app(loaded.clone(), approve).await?;
    let cancel = CancellationToken::new();
    super::serve::on_signal(cancel.clone())?;
    let mut seen = app.host.watch();
    let start = Start {
        id: RunId::fresh()?,
        agent: agent.name.clone(),
        prompt,
        principal: "local".into(),
        door: loaded.policy.door(None),
        limits: policies::resolve::Limits::NONE,
        cancel,
    };
    let mut view = view::View::new(args.json, context.config.display().to_string());
    let running = app.host.start(start);
    tokio::pin!(running);
    let ended = loop {
        tokio::select! {
            biased;
            event = seen.recv() => match event {
                Ok(event) => view.show(&event),
                Err(RecvError::Lagged(n)) => eprintln!("({n} events were too fast to show; the journal has them)"),
                Err(RecvError::Closed) => {}
            },
            ended = &mut running => break ended,
        }
    };
    while let Ok(event) = seen.try_recv() {
        view.show(&event);
    }
    app.shutdown().await;
    let ended = ended?;
    if !args.json {
        view.summary(&ended);
        if ended.state == State::Completed {
            let mut out = std::io::stdout();
            let _ = writeln!(out, "{}", ended.text);
        } else {
            eprintln!("pleach: the run is {}: {}", ended.state.as_str(), ended.text);
        }
    }
    Ok(match ended.state {
        State::Completed => 0,
        State::Rejected => 3,
        State::OverBudget => 4,
        State::Waiting => 5,
        _ => 1,
    })
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

/// For `--json`: one line on standard output.
fn print_json(event: &Seen) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", event.to_json());
}
