//! What the doors share behind which runs are (REST, A2A): who asks, beginning a run and going on
//! with one, following it, and how much each client has under way.
//!
//! ```text
//!  Who ─▶ begin ─▶ Host::start, in a task of its own ─▶ its first event is journalled
//!      └▶ go_on ─▶ Host::resume, where nobody works on the tree
//!      └▶ Follow: the store's events by position, woken by the host's
//! ```

mod crowd;
mod follow;
mod lanes;
mod who;

pub(crate) use crowd::{Crowd, Place};
pub(crate) use follow::{Follow, Told};
pub(crate) use lanes::Lanes;
pub(crate) use who::Who;

use adapters::store::Store;
use std::sync::Arc;
use subagents::host::{Host, HostError, Start};
use subagents::ports::Journal;
use subagents::run::RunId;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Starts a root run, and returns when its first event is journalled. Whoever asked may be gone by
/// then: the run goes on.
///
/// # Errors
/// Why it did not begin.
pub(crate) async fn begin(
    (host, tasks): (&Arc<Host>, &TaskTracker),
    store: &Store,
    start: Start,
    place: Place,
) -> Result<(), HostError> {
    let (id, worked_on) = (start.id.clone(), host.clone());
    let mut seen = host.watch();
    let (tell, mut told) = oneshot::channel();
    tasks.spawn(async move {
        let ended = worked_on.start(start).await;
        drop(place);
        if let Err(why) = &ended
            && *why != HostError::Suspended
        {
            tracing::warn!("a run broke off: {why}");
        }
        let _ = tell.send(ended.map(drop));
    });
    loop {
        tokio::select! {
            ended = &mut told => return ended.unwrap_or(Err(HostError::Suspended)),
            seen = seen.recv() => match seen {
                Ok(seen) if *seen.run() == id => return Ok(()),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) if store.row(&id).await?.is_some() => return Ok(()),
                // Its own end still tells.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            },
        }
    }
}

/// Goes on with a tree that nobody works on. Its own token: the end of this process puts it down,
/// and does not cancel it.
pub(crate) fn go_on((host, tasks): (&Arc<Host>, &TaskTracker), root: &RunId, place: Option<Place>) {
    let (host, root) = (host.clone(), root.clone());
    tasks.spawn(async move {
        match host.resume(&root, CancellationToken::new()).await {
            // Somebody else was faster.
            Ok(_) | Err(HostError::Held { .. } | HostError::Suspended | HostError::Fenced) => {}
            Err(why) => tracing::warn!(run = %root, "cannot be gone on with: {why}"),
        }
        drop(place);
    });
}
