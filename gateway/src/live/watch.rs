//! Watches the policy file and what it names, and takes what changed: see the drawing in
//! [`super`]. `SIGHUP` has it look at once, and say what it found.

use super::look::{Look, alike, contents, look};
use super::take::{Next, Reach, scripts};
use crate::compose::App;
use crate::settings::{self, Digests};
use policies::diff;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_millis(500);
/// How long files must be left alone before they are read.
const SETTLED: Duration = Duration::from_millis(150);
/// The same before what widens is in force.
const SETTLED_WIDER: Duration = Duration::from_secs(1);

/// Watches until `stop`, or until the servers end. `listens` is where the doors are open, if they are: without open doors
/// `SIGHUP` means what it means to every program, the end.
///
/// # Errors
/// When signals cannot be heard.
pub(crate) fn start(app: &App, listens: Option<SocketAddr>, stop: CancellationToken) -> std::io::Result<()> {
    let hangup = listens.map(|_| signal(SignalKind::hangup())).transpose()?;
    let now = app.live.now();
    let watched = now.sources.clone();
    let watcher = Watcher {
        reach: Reach::new(app, listens),
        seen: look(&watched),
        scripts: contents(&scripts(&now.policy)),
        refused: None,
        watched,
    };
    // A command that has done its work ends the servers, and nobody told it to stop.
    let end = app.servers.stop.clone();
    app.servers.tasks.spawn(async move {
        let _ = end.run_until_cancelled(stop.run_until_cancelled(watcher.watch(hangup))).await;
    });
    Ok(())
}

/// What of a look concerns these.
fn part(look: &Look, paths: &BTreeSet<PathBuf>) -> Look {
    look.iter().filter(|(path, _)| paths.contains(*path)).map(|(path, seen)| (path.clone(), seen.clone())).collect()
}

async fn hung_up(hangup: &mut Option<Signal>) {
    if let Some(hangup) = hangup
        && hangup.recv().await.is_some()
    {
        return;
    }
    std::future::pending().await
}

struct Watcher {
    reach: Reach,
    /// What is looked at, and how it looked when it was read last.
    watched: BTreeSet<PathBuf>,
    seen: Look,
    /// What the scripts of models held.
    scripts: [u8; 32],
    /// The content that was refused, so that it is told of once.
    refused: Option<[u8; 32]>,
}

impl Watcher {
    async fn watch(mut self, mut hangup: Option<Signal>) {
        loop {
            let asked = tokio::select! {
                () = tokio::time::sleep(EVERY) => false,
                () = hung_up(&mut hangup) => true,
            };
            let now = self.look().await;
            if !asked && alike(&self.seen, &now) {
                continue;
            }
            let settled = self.settled(now, SETTLED).await;
            self.read(settled, asked).await;
        }
    }

    /// A look at everything, where it holds nobody up: a network mount may hang.
    async fn look(&self) -> Look {
        let watched = self.watched.clone();
        tokio::task::spawn_blocking(move || look(&watched)).await.unwrap_or_default()
    }

    /// Waits until two looks are alike.
    async fn settled(&self, mut before: Look, wait: Duration) -> Look {
        loop {
            tokio::time::sleep(wait).await;
            let now = self.look().await;
            if alike(&before, &now) {
                return now;
            }
            before = now;
        }
    }

    /// Reads what stands there; what was written meanwhile is seen the next time.
    async fn read(&mut self, settled: Look, asked: bool) {
        let (reach, known) = (self.reach.clone(), self.scripts);
        let read = tokio::task::spawn_blocking(move || {
            let settings::Again { mut sources, digests, understood } = settings::again(&reach.live.now());
            let checked = understood.and_then(|loaded| {
                sources.extend(loaded.sources.iter().cloned());
                let scripts = contents(&scripts(&loaded.policy));
                Ok((reach.check(loaded, scripts != known)?, scripts))
            });
            let content = contents(&sources);
            (sources, (content, digests), checked)
        });
        let Ok((sources, content, checked)) = read.await else { return };
        // Of what is watched newly nothing was seen yet; of the rest, what was read.
        let before = std::mem::replace(&mut self.watched, sources);
        let now = self.look().await;
        if !alike(&part(&settled, &self.watched), &part(&now, &before)) {
            // Somebody wrote while it was read: different from anything, it is read again.
            self.seen = Look::new();
            return;
        }
        self.seen = now;
        let (next, scripts) = match checked {
            Ok(checked) => checked,
            Err(why) => return self.refuse(content, &why, asked).await,
        };
        let wider = diff::is_wider(&next.changes);
        if wider && !self.left_alone().await {
            return;
        }
        self.scripts = scripts;
        self.refused = None;
        self.take(next, asked).await;
    }

    /// Whether nobody writes for a while; else it is looked at anew.
    async fn left_alone(&mut self) -> bool {
        tokio::time::sleep(SETTLED_WIDER).await;
        let alone = alike(&self.seen, &self.look().await);
        if !alone {
            // Different from anything: it is read again at the next look.
            self.seen = Look::new();
        }
        alone
    }

    async fn refuse(&mut self, (content, digests): ([u8; 32], Digests), why: &str, asked: bool) {
        let counts = &self.reach.live.counts;
        counts.behind.store(true, Ordering::Relaxed);
        if self.refused.replace(content) == Some(content) && !asked {
            return;
        }
        counts.refused.fetch_add(1, Ordering::Relaxed);
        tracing::error!("the policy file was changed and does not hold; the policy that is in force stays:\n{why}");
        self.reach.refuse(&digests, why, asked).await;
    }

    async fn take(&self, next: Next, asked: bool) {
        let (changes, waits) = (next.changes.clone(), next.waits.join(" and "));
        self.reach.live.counts.behind.store(!waits.is_empty(), Ordering::Relaxed);
        self.reach.take(next, asked).await;
        for change in &changes {
            tracing::warn!("policy: {change}");
        }
        if !waits.is_empty() {
            tracing::warn!("policy: {waits} was changed; that needs a restart and is left as it was");
        }
        match changes.is_empty() {
            false => tracing::warn!("the policy file was changed and is in force ({} differences)", changes.len()),
            true if asked => tracing::warn!("the policy file was read again; nothing differs"),
            true => tracing::info!("the policy file was read again; nothing differs"),
        }
    }
}
