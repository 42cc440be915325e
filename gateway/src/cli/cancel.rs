use super::run::foreground;
use super::{Context, runs};
use crate::compose;
use crate::error::Outcome;
use crate::guard::{Approve, LOCAL};
use adapters::store::Store;
use std::time::{Duration, Instant};
use subagents::host::Done;
use subagents::ports::Journal;
use subagents::run::RunId;

/// How long another process may take to end a run it was asked to.
const PATIENCE: Duration = Duration::from_secs(20);

/// End a run and everything it started, wherever it runs.
///
/// Example: pleach cancel x7k2
#[derive(clap::Args)]
pub(super) struct Args {
    /// The run: an id or its last characters.
    run: String,
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = foreground::load(context)?;
    let run = runs::known(&loaded.policy.store, &args.run).await?.row.run;
    let app = compose::app(loaded, Approve::Park).await?;
    let done = app.host.cancel(&run, LOCAL).await;
    let state = match &done {
        Ok(_) => ended(&app.store, &run).await,
        Err(_) => None,
    };
    app.shutdown().await;
    match (done?, state) {
        (_, Some(state)) => eprintln!("{run} is {state}"),
        (Done::Elsewhere { by }, None) => eprintln!("{by} was asked to end {run} and has not done so yet"),
        (_, None) => eprintln!("{run} was asked to end"),
    }
    Ok(0)
}

/// The state of a run once it has ended.
async fn ended(store: &Store, run: &RunId) -> Option<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let row = store.row(run).await.ok().flatten()?;
        if row.ended.is_some() {
            return Some(row.state);
        }
        if Instant::now() >= until {
            return None;
        }
        // Another process's doing is seen in the store alone.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
