use super::run::foreground::{self, Foreground};
use super::{Context, runs};
use crate::compose;
use crate::error::Outcome;
use crate::guard::{Approve, LOCAL};
use subagents::host::{Done, Then};

/// Begin nothing new in the tree of a run; what is under way may finish.
///
/// Example: pleach pause x7k2
#[derive(clap::Args)]
pub(super) struct Args {
    /// The run, or any of its tree: an id or its last characters.
    run: String,
}

/// Let the tree of a paused run go on, here unless another process works on it.
///
/// Example: pleach unpause x7k2
#[derive(clap::Args)]
pub(super) struct Unpause {
    /// The run, or any of its tree: an id or its last characters.
    run: String,
    /// Do not go on with it here; `pleach resume` or a `pleach serve` does.
    #[arg(long)]
    no_wait: bool,
    /// Print every event from now on on standard output, one JSON object a line.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = foreground::load(context)?;
    let root = runs::known(&loaded.policy.store, &args.run).await?.row.root;
    let app = compose::app(loaded, Approve::Park).await?;
    let done = app.host.pause(&root, LOCAL).await;
    app.shutdown().await;
    let by = match done? {
        Done::Elsewhere { by } => format!(", as soon as {by} has finished what is under way"),
        _ => String::new(),
    };
    eprintln!("{root} is paused{by}; pleach unpause {}{} lets it go on", root.short(), context.suffix());
    Ok(0)
}

pub(super) async fn unpause(context: &Context, args: Unpause) -> Outcome {
    let loaded = foreground::load(context)?;
    let root = runs::known(&loaded.policy.store, &args.run).await?.row.root;
    let mut foreground = Foreground::open(context, loaded, Approve::Park, args.json).await?;
    foreground.recall(&root).await?;
    let then = if args.no_wait { Then::Leave } else { Then::Drive };
    let host = foreground.app.host.clone();
    let work = host.unpause(&root, LOCAL, then);
    foreground.command(&root, "it is paused no longer", work).await
}
