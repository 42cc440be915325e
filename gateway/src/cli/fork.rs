use super::run::foreground;
use super::words::say;
use super::{Context, runs};
use crate::compose;
use crate::error::{Failure, Outcome};
use crate::guard::Approve;

/// Make a new run whose past is another's up to one of its events.
///
/// The event numbers are the `seq` of `pleach show RUN --json`. What was under way there is told
/// to the agent as unknown. Prints the id of the new run, which goes on with `pleach resume`. To
/// rewind is to fork and to cancel the old run.
///
/// Example: pleach resume $(pleach fork x7k2 --at 12)
#[derive(clap::Args)]
pub(super) struct Args {
    /// The run: an id or its last characters.
    run: String,
    /// The last event the new run shares with it.
    #[arg(long, value_name = "N")]
    at: u64,
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = foreground::load(context)?;
    let run = runs::known(&loaded.policy.store, &args.run).await?.row.run;
    let app = compose::app(loaded, Approve::Park).await?;
    let forked = app.host.fork(&run, args.at).await;
    app.shutdown().await;
    let forked = forked.map_err(|why| Failure::new(crate::error::Exit::Failed, why))?;
    say!("{forked}");
    eprintln!("next: pleach resume {}{}", forked.short(), context.suffix());
    Ok(0)
}
