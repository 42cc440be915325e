use super::words::say;
use super::{Context, words};
use crate::error::{Exit, Failure, Outcome};
use crate::settings;
use adapters::store::{Listed, Store};
use subagents::event::{Event, Record};

/// Show a run: its turns, calls, verdicts and the rule that decided each.
///
/// RUN is an id or its last characters.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The run.
    run: String,
    /// Print its events, one JSON object a line, in the form of `run --json`.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = settings::load(&context.config)?;
    let missing = || Failure::new(Exit::Failed, format!("no run is named {}; `pleach runs` lists them", args.run));
    let store = Store::look(&loaded.policy.store).await?.ok_or_else(missing)?;
    let found = store.find(&args.run).await?;
    let listed = match found.as_slice() {
        [] => return Err(missing()),
        [one] => one,
        several => {
            let names: Vec<String> = several.iter().map(|l| format!("{} ({})", l.row.run, l.row.agent)).collect();
            return Err(Failure::usage(format!("{} is meant for several runs: {}", args.run, names.join(", "))));
        }
    };
    let events = store.events(&listed.row.run).await?;
    if args.json {
        for record in &events {
            say!("{}", record.to_json());
        }
        return Ok(0);
    }
    header(listed, &events);
    for record in &events {
        line(listed.row.started, record);
    }
    if listed.row.ended.is_none() && !listed.owned {
        say!("\nNobody works on it any more: the process that did has ended. All above was written before it did.");
    }
    Ok(0)
}

fn header(listed: &Listed, events: &[Record]) {
    let row = &listed.row;
    let parent = row.parent.as_ref().map(|p| format!(", child of {p}")).unwrap_or_default();
    say!("{} {} is {} (depth {}{parent})", row.run, row.agent, super::runs::state(listed), row.depth);
    say!("{} turns, {} tool calls, {} tokens", row.turns, row.tool_calls, row.tokens);
    if let Some(Event::Started { model, principal, max_turns, .. }) = events.first().map(|r| &r.event) {
        say!("model {model}, for {principal}, at most {max_turns} turns");
    }
    say!("");
}

fn line(started: u64, record: &Record) {
    let at = words::duration(record.at.saturating_sub(started));
    let text = match &record.event {
        Event::Started { prompt, .. } => format!("asked: {}", words::first_line(prompt, 200)),
        Event::ModelRequested { turn } => format!("turn {turn}"),
        Event::ModelReplied { text, calls, usage, .. } => {
            format!(
                "  says: {} [{} calls, {}+{} tokens]",
                words::first_line(text, 160),
                calls.len(),
                usage.input,
                usage.output
            )
        }
        Event::ToolRequested { name, input, .. } => format!("  wants {}", words::call(name, input)),
        Event::ToolDecided { verdict, rule, chain, fix, .. } => {
            let fix = fix.as_ref().map(|f| format!("\n{:>20} to allow it: {f}", "")).unwrap_or_default();
            format!("    {verdict}: {rule}\n{:>20} chain: {}{fix}", "", chain.join(" > "))
        }
        Event::ToolFinished { outcome, text, .. } => format!("    {outcome:?}: {}", words::first_line(text, 160)),
        Event::Waiting { reason } => format!("waits: {reason}"),
        Event::Finished { state, text } => format!("{state}: {}", words::first_line(text, 400)),
    };
    say!("{at:>8}  {text}");
}
