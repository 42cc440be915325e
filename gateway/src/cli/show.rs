use super::words::say;
use super::{Context, words};
use crate::error::{Exit, Failure, Outcome};
use crate::settings;
use adapters::store::{Listed, Store};
use subagents::event::{Event, Record};
use subagents::ports::{Journal, QuestionFilter};

/// Show a run: its turns, calls, verdicts and the rule that decided each.
///
/// RUN is an id or its last characters.
///
/// Example: pleach show x7k2
#[derive(clap::Args)]
pub(super) struct Args {
    /// The run.
    run: String,
    /// Print its events, one JSON object a line, in the form of `run --json`.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = settings::look(&context.config)?;
    let missing = || Failure::new(Exit::Failed, format!("no run is named {}; `pleach runs` lists them", args.run));
    let store = Store::look(&loaded.policy.store).await?.ok_or_else(missing)?;
    let listed = &super::runs::named(&store, &args.run).await?;
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
    if super::runs::is_left(listed) {
        say!("\nNobody works on it any more: the process that did has ended. All above was written before it did.");
        say!("pleach resume {}{} goes on with it.", listed.row.root.short(), context.suffix());
    }
    let filter = QuestionFilter { root: Some(listed.row.root.clone()), ..QuestionFilter::default() };
    let open = store.open_questions(&filter).await?;
    for question in open.iter().filter(|q| q.run == listed.row.run.as_str()) {
        say!("\n{}", super::answer::in_words(question, &context.suffix()));
    }
    Ok(0)
}

fn header(listed: &Listed, events: &[Record]) {
    let row = &listed.row;
    let parent = row.parent.as_ref().map(|p| format!(", child of {p}")).unwrap_or_default();
    say!("{} {} is {} (depth {}{parent})", row.run, row.agent, super::runs::state(listed), row.depth);
    let cost = super::runs::cost(row.usd);
    say!("{} turns, {} tool calls, {} tokens, {cost}", row.turns, row.tool_calls, row.tokens);
    if let Some(Event::Started(started)) = events.first().map(|r| &r.event) {
        let from = started.forked_from.as_ref().map(|run| format!(", forked from {run}")).unwrap_or_default();
        let (model, principal) = (&started.model, &started.principal);
        say!("model {model}, for {principal}, at most {} turns{from}", started.max_turns);
    }
    say!("");
}

fn line(started: u64, record: &Record) {
    let at = words::duration(record.at.saturating_sub(started));
    let text = match &record.event {
        Event::Started(started) => format!("asked: {}", words::first_line(&started.prompt, 200)),
        Event::ModelRequested { turn, .. } => format!("turn {turn}"),
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
        Event::ToolDispatched { effect, key, attempt, .. } => {
            let again = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
            format!("    sent ({effect}, key {key}{again})")
        }
        Event::ChildStarted { run, background, .. } => {
            let how = if *background { " in the background" } else { "" };
            format!("    started {run}{how}")
        }
        Event::Waiting(w) if w.id.is_empty() => "waits for what it started".to_owned(),
        Event::Waiting(w) => format!("  asks a person: {} ({})", words::first_line(&w.question, 200), w.id),
        Event::Finished { state, text, by } => {
            let by = by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
            format!("{state}{by}: {}", words::first_line(text, 400))
        }
        other => match words::event(other) {
            Some(text) => text,
            None => other.kind().to_owned(),
        },
    };
    say!("{at:>8}  {text}");
}
