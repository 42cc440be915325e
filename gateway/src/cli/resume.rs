use super::run::foreground::{self, Foreground};
use super::{Context, runs};
use crate::error::Outcome;
use crate::guard::Approve;

/// Go on with a run that nobody works on: its process was killed, or it waited and was answered.
///
/// Nothing that was done is done again: what a tool's `effect` lets be repeated is, with the same
/// key; of the rest the agent is told that the outcome is unknown. It has the policy as it is
/// now. Shows what `run` shows and exits as `run` does.
///
/// Example: pleach resume x7k2
#[derive(clap::Args)]
pub(super) struct Args {
    /// The run, or any of its tree: an id or its last characters.
    run: String,
    /// Answer each `ask` with allow, once; nothing else.
    #[arg(long)]
    yes: bool,
    /// Print every event from now on on standard output, one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = foreground::load(context)?;
    let root = runs::known(&loaded.policy.store, &args.run).await?.row.root;
    let approve = if args.yes { Approve::Once } else { Approve::Park };
    let mut foreground = Foreground::open(context, loaded, approve, args.json).await?;
    foreground.recall(&root).await?;
    let (host, stop) = (foreground.app.host.clone(), foreground.stop.clone());
    let ended = foreground.follow(host.resume(&root, stop)).await;
    foreground.finish(ended).await
}
