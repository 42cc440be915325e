use super::words::say;
use super::{Context, words};
use crate::error::Outcome;
use crate::settings;
use adapters::store::{Listed, Store};
use serde_json::json;

/// List the runs, newest tree first.
#[derive(clap::Args)]
pub(super) struct Args {
    /// How many at most.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Print one JSON object a line: `run`, `parent`, `root`, `depth`, `agent`, `state`, `turns`,
    /// `tool_calls`, `tokens`, `usd`, `started`, `ended`, `owned`.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = settings::load(&context.config)?;
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
    let began =
        |root: &str, runs: &[Listed]| runs.iter().filter(|l| l.row.root.as_str() == root).map(|l| l.row.started).min();
    let starts: Vec<_> = runs.iter().map(|l| began(l.row.root.as_str(), &runs)).collect();
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by_key(|i| {
        let row = &runs[*i].row;
        (std::cmp::Reverse(starts[*i]), row.root.clone(), row.started, row.depth)
    });
    runs = order.into_iter().map(|i| runs[i].clone()).collect();
    say!("{:<20} {:<12} {:>5} {:>5} {:>8} {:>8}  agent", "run", "state", "turns", "calls", "tokens", "time");
    for listed in &runs {
        let row = &listed.row;
        let time = row.ended.map_or_else(|| "-".to_owned(), |e| words::duration(e.saturating_sub(row.started)));
        say!(
            "{:<20} {:<12} {:>5} {:>5} {:>8} {:>8}  {}{}",
            row.run,
            state(listed),
            row.turns,
            row.tool_calls,
            row.tokens,
            time,
            "  ".repeat(row.depth as usize),
            row.agent
        );
    }
    Ok(0)
}

/// The state, and that nobody works on it any more where that is so.
pub(super) fn state(listed: &Listed) -> String {
    let ended = listed.row.ended.is_some();
    if ended || listed.owned { listed.row.state.clone() } else { format!("{}!", listed.row.state) }
}

fn to_json(listed: &Listed) -> serde_json::Value {
    let row = &listed.row;
    json!({
        "run": row.run.as_str(), "parent": row.parent.as_ref().map(|p| p.as_str()), "root": row.root.as_str(),
        "depth": row.depth, "agent": row.agent, "state": row.state, "turns": row.turns,
        "tool_calls": row.tool_calls, "tokens": row.tokens, "usd": null, "started": row.started, "ended": row.ended,
        "owned": listed.owned && row.ended.is_none(),
    })
}
