//! What `serve` goes on with by itself: trees that a process left in the middle, and those whose
//! questions nobody answered in time. It also puts on record what ended without an answer, and
//! deletes what ended long ago.

use crate::compose::App;
use crate::guard::Guard;
use crate::live::Live;
use adapters::store::Store;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use subagents::host::{Ended, Host, HostError};
use subagents::ports::Journal;
use subagents::run::RunId;
use tokio_util::sync::CancellationToken;

/// Trees gone on with at a time; the others have their turn as these end or wait.
const AT_A_TIME: usize = 64;
/// How often it is looked for trees that another process left, and for questions that expired.
const EVERY: Duration = Duration::from_secs(5);

/// Goes on with what there is, and looks again now and then, until `stop`.
pub(crate) fn start(app: &App, stop: CancellationToken) {
    let (host, store, live, guard) = (app.host.clone(), app.store.clone(), app.live.clone(), app.guard.clone());
    app.servers.tasks.spawn(async move {
        let _ = stop.run_until_cancelled(watch(&host, &store, &live, &guard)).await;
    });
}

async fn watch(host: &Arc<Host>, store: &Store, live: &Live, guard: &Guard) {
    // One that cannot be gone on with is said so once, not every few seconds.
    let mut hopeless: BTreeSet<RunId> = BTreeSet::new();
    // Tasks of their own: they are to move on while it is looked for more in the same store.
    let mut working = tokio::task::JoinSet::new();
    let mut queue = VecDeque::new();
    let mut changes = live.changes();
    loop {
        // Under another policy there may be hope.
        if changes.has_changed().unwrap_or(false) {
            changes.mark_unchanged();
            hopeless.clear();
        }
        if let Err(why) = store.lapse().await {
            tracing::error!("questions that expired cannot be closed: {why}");
        }
        guard.note_ended().await;
        if let Err(why) = store.tidy_questions().await {
            tracing::error!("questions that ended long ago cannot be deleted: {why}");
        }
        if let Err(why) = store.tidy_peers().await {
            tracing::error!("what peers gave out long ago cannot be deleted: {why}");
        }
        match due(store).await {
            Ok(roots) => queue = roots,
            Err(why) => tracing::error!("unfinished runs cannot be looked for: {why}"),
        }
        let next = tokio::time::sleep(EVERY);
        tokio::pin!(next);
        loop {
            while working.len() < AT_A_TIME
                && let Some(root) = queue.pop_front()
            {
                if !hopeless.contains(&root) && !host.works_on(&root) {
                    working.spawn(go_on(host.clone(), root));
                }
            }
            tokio::select! {
                () = &mut next => break,
                Some(went) = working.join_next() => match went {
                    Ok((root, Ok(ended))) => tracing::warn!(run = %root, "resumed; it is {}", ended.state.as_str()),
                    // Somebody else goes on with it, or nobody may now.
                    Ok((_, Err(HostError::Held { .. } | HostError::Suspended | HostError::Fenced))) => {}
                    Ok((root, Err(why))) => {
                        tracing::error!(run = %root, "cannot be resumed: {why}");
                        hopeless.insert(root);
                    }
                    Err(e) => tracing::error!("going on with a run broke off: {e}"),
                },
            }
        }
    }
}

/// The trees somebody must work on, ids only: those that wait for people are not even looked at.
async fn due(store: &dyn Journal) -> Result<VecDeque<RunId>, HostError> {
    let mut roots: VecDeque<RunId> = store.unfinished_roots().await?.into();
    roots.extend(store.expired_roots(now()).await?);
    Ok(roots)
}

async fn go_on(host: Arc<Host>, root: RunId) -> (RunId, Result<Ended, HostError>) {
    // Its own token: the end of this process puts the tree down, it does not cancel it.
    let ended = host.resume(&root, CancellationToken::new()).await;
    (root, ended)
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
