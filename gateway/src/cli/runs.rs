use super::words::say;
use super::{Context, words};
use crate::error::{Exit, Failure, Outcome};
use crate::settings;
use adapters::store::{Listed, Store};
use policies::price::Usd;
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;
use subagents::run::RunId;

/// List the runs, newest tree first.
///
/// A run that nobody works on any more is marked with `!`; `pleach resume` goes on with it.
///
/// Example: pleach runs --limit 20
#[derive(clap::Args)]
pub(super) struct Args {
    /// How many at most.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Print one JSON object a line: `run`, `parent`, `root`, `depth`, `agent`, `state`, `turns`,
    /// `tool_calls`, `tokens`, `usd` (null: unknown), `started`, `ended`.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = settings::look(&context.config)?;
    let Some(store) = Store::look(&loaded.policy.store).await? else {
        if !args.json {
            say!("no run yet; `pleach run` starts one");
        }
        return Ok(0);
    };
    let mut runs = store.runs(args.limit).await?;
    if args.json {
        for listed in &runs {
            say!("{}", to_json(listed));
        }
        return Ok(0);
    }
    // A tree together, in the order it grew.
    let mut began: HashMap<RunId, u64> = HashMap::new();
    for Listed { row, .. } in &runs {
        began.entry(row.root.clone()).and_modify(|at| *at = row.started.min(*at)).or_insert(row.started);
    }
    runs.sort_by_cached_key(|Listed { row, .. }| {
        (std::cmp::Reverse(began.get(&row.root).copied()), row.root.clone(), row.started, row.depth)
    });
    say!(
        "{:<20} {:<12} {:>5} {:>5} {:>8} {:>9} {:>8}  agent",
        "run",
        "state",
        "turns",
        "calls",
        "tokens",
        "usd",
        "time"
    );
    for listed in &runs {
        let row = &listed.row;
        let time = row.ended.map_or_else(|| "-".to_owned(), |e| words::duration(e.saturating_sub(row.started)));
        say!(
            "{:<20} {:<12} {:>5} {:>5} {:>8} {:>9} {:>8}  {}{}",
            row.run,
            state(listed),
            row.turns,
            row.tool_calls,
            row.tokens,
            cost(row.usd),
            time,
            "  ".repeat(row.depth as usize),
            row.agent
        );
    }
    Ok(0)
}

/// The state, and that nobody works on it any more where that is so. A run that waits needs
/// nobody.
pub(super) fn state(listed: &Listed) -> String {
    if is_left(listed) { format!("{}!", listed.row.state) } else { listed.row.state.clone() }
}

/// Whether somebody should work on a run and nobody does.
pub(super) fn is_left(listed: &Listed) -> bool {
    listed.row.ended.is_none() && !listed.owned && listed.row.state != "waiting"
}

/// What a run cost, for people.
pub(super) fn cost(usd: Option<u64>) -> String {
    usd.map_or_else(|| "?".to_owned(), |nanos| Usd(nanos).to_string())
}

/// The run of an id, or of its last characters.
pub(super) async fn known(store: &Path, part: &str) -> Result<Listed, Failure> {
    let missing = || Failure::new(Exit::Failed, format!("no run is named {part}; `pleach runs` lists them"));
    named(&Store::look(store).await?.ok_or_else(missing)?, part).await
}

/// The same in a store that is open.
pub(super) async fn named(store: &Store, part: &str) -> Result<Listed, Failure> {
    let mut found = store.find(part).await?;
    if let Some(exact) = found.iter().position(|l| l.row.run.as_str() == part) {
        return Ok(found.swap_remove(exact));
    }
    match found.len() {
        0 => Err(Failure::new(Exit::Failed, format!("no run is named {part}; `pleach runs` lists them"))),
        1 => Ok(found.remove(0)),
        _ => {
            let names: Vec<String> = found.iter().map(|l| format!("{} ({})", l.row.run, l.row.agent)).collect();
            Err(Failure::usage(format!("{part} is meant for several runs: {}", names.join(", "))))
        }
    }
}

fn to_json(listed: &Listed) -> serde_json::Value {
    let row = &listed.row;
    json!({
        "run": row.run.as_str(), "parent": row.parent.as_ref().map(|p| p.as_str()), "root": row.root.as_str(),
        "depth": row.depth, "agent": row.agent, "state": row.state, "turns": row.turns,
        "tool_calls": row.tool_calls, "tokens": row.tokens, "usd": row.usd.map(|nanos| Usd(nanos).as_dollars()),
        "started": row.started, "ended": row.ended,
    })
}
