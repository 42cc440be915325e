//! A tree while it is worked on: its topmost runs driven side by side, commands for it obeyed,
//! and at the end the lease given back.
//!
//! ```text
//!  claimed ─▶ drive the tops ─▶ none moves ─▶ a command came meanwhile? ── yes ─▶ again
//!                 ▲                                │ no
//!                 └── commands in the inbox ◀── release ──▶ nobody's (ended, or waiting)
//! ```
//!
//! A top is a run that has not ended and that no run waits for: the root, and a run somebody
//! outside woke after those above it had ended.

use super::drive::{Stop, live, moving};
use super::tree::{Tree, lock};
use super::{Ended, Host, HostError};
use crate::ports::{Command, Lease};
use crate::run::{RunId, State};
use crate::turn::Stage;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// A tree that is known to be worked on here; not any more when this is dropped, however.
struct Registered(Arc<Host>, Arc<Tree>);

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.0.trees).remove(&self.1.root);
        self.1.cancel.cancel();
        self.1.closed.cancel();
    }
}

impl Host {
    /// Works on a tree until it stands still. The work is the host's, not the caller's: who
    /// stops waiting does not stop it.
    pub(super) async fn run_tree(self: &Arc<Self>, tree: Tree) -> Result<Ended, HostError> {
        let mut tree = tree;
        tree.count(self.counted.clone());
        let tree = Arc::new(tree);
        {
            let mut trees = lock(&self.trees);
            if self.stopped.is_cancelled() {
                return Err(HostError::Suspended);
            }
            trees.insert(tree.root.clone(), tree.clone());
        }
        let registered = Registered(self.clone(), tree.clone());
        let host = self.clone();
        let working = self.tasks.spawn(async move {
            let stood = host.supervise(&tree).await;
            if let Err(why) = &stood {
                tree.gate.lock().await.open = false;
                // Whoever comes next need not wait for the lease to run out; a fenced one has
                // nothing to give back.
                if *why != HostError::Fenced {
                    let _ = host.ports.journal.release(&tree.lease).await;
                }
            }
            drop(registered);
            stood
        });
        working.await.unwrap_or_else(|e| Err(HostError::Journal(format!("the work on the tree broke off: {e}"))))
    }

    async fn supervise(self: &Arc<Self>, tree: &Arc<Tree>) -> Result<Ended, HostError> {
        let mut posts = Some(self.ports.bus.subscribe());
        let mut running = FuturesUnordered::new();
        let mut done: Vec<(RunId, Result<Stop, HostError>)> = Vec::new();
        let (mut busy, mut parked) = (BTreeSet::new(), BTreeSet::new());
        let mut posted = true;
        loop {
            if let Some(why) = tree.broken() {
                return Err(why);
            }
            if std::mem::take(&mut posted) {
                moving(&mut running, &mut done, self.take(tree)).await?;
                parked.clear();
            }
            for (id, stop) in std::mem::take(&mut done) {
                busy.remove(&id);
                if let Stop::Parked = stop? {
                    parked.insert(id);
                }
            }
            for top in moving(&mut running, &mut done, tree.tops()).await {
                if !parked.contains(&top.id) && busy.insert(top.id.clone()) {
                    let (id, above) = (top.id.clone(), tree.cancel.clone());
                    let living = live(self.clone(), tree.clone(), top, above);
                    running.push(async move { (id, living.await) });
                }
            }
            if !done.is_empty() {
                continue;
            }
            if running.is_empty() {
                match self.put_down(tree).await? {
                    true => return Ok(tree.summary().await),
                    false => parked.clear(),
                }
                continue;
            }
            tokio::select! {
                Some(one) = running.next() => done.push(one),
                () = tree.wake.notified() => parked.clear(),
                heard = heard(&mut posts) => match heard {
                    Ok(root) => posted = root == tree.root,
                    Err(RecvError::Lagged(_)) => posted = true,
                    Err(RecvError::Closed) => posts = None,
                },
            }
        }
    }

    /// Gives the tree back; `false` when something is to be done after all.
    async fn put_down(self: &Arc<Self>, tree: &Arc<Tree>) -> Result<bool, HostError> {
        let mut gate = tree.gate.lock().await;
        if std::mem::take(&mut gate.dirty) {
            return Ok(false);
        }
        if cfg!(debug_assertions) {
            tree.assert_replayed(self).await;
        }
        let commands = self.ports.journal.release(&tree.lease).await?;
        if commands.is_empty() {
            gate.open = false;
            return Ok(true);
        }
        self.obey(tree, commands).await;
        Ok(false)
    }
    /// Obeys what was left in the inbox.
    async fn take(self: &Arc<Self>, tree: &Arc<Tree>) -> Result<(), HostError> {
        let _gate = tree.gate.lock().await;
        let commands = self.ports.journal.take(&tree.lease).await.map_err(|e| tree.break_off(e.into()))?;
        self.obey(tree, commands).await;
        Ok(())
    }
    async fn obey(self: &Arc<Self>, tree: &Arc<Tree>, commands: Vec<Command>) {
        for command in commands {
            if let Err(why) = self.apply(tree, &command, super::verbs::Hands::Busy).await {
                tracing::warn!(root = %tree.root, ?command, "a command from another process was not obeyed: {why}");
            }
        }
    }

    /// The tree of a root, while it is worked on here.
    pub(super) fn working(&self, root: &RunId) -> Option<Arc<Tree>> {
        lock(&self.trees).get(root).cloned()
    }
    /// Reads a tree that was just claimed; gives it back when it cannot be read.
    pub(super) async fn load(&self, lease: Lease, cancel: CancellationToken) -> Result<Tree, HostError> {
        let read = async {
            let loaded = self.ports.journal.load(&lease.root).await?;
            let tree = Tree::rebuilt(lease.clone(), loaded, cancel)?;
            tree.goes_on().map(|()| tree)
        };
        let tree = read.await;
        if tree.is_err() {
            let _ = self.ports.journal.release(&lease).await;
        }
        tree
    }
}

async fn heard(posts: &mut Option<tokio::sync::broadcast::Receiver<RunId>>) -> Result<RunId, RecvError> {
    match posts {
        Some(posts) => posts.recv().await,
        None => std::future::pending().await,
    }
}

impl Tree {
    /// The runs that have not ended and that no run waits for.
    async fn tops(&self) -> Vec<Arc<super::run::Run>> {
        let (mut going, mut awaited) = (Vec::new(), BTreeSet::new());
        for run in self.all() {
            let log = run.log.lock().await;
            if log.state.phase().is_end() {
                continue;
            }
            awaited.extend(log.state.background.iter().map(|b| b.run.clone()));
            awaited.extend(log.state.calls.iter().filter_map(|open| match &open.stage {
                Stage::Child(child) => Some(child.clone()),
                _ => None,
            }));
            drop(log);
            going.push(run);
        }
        going.retain(|run| !awaited.contains(run.id.as_str()));
        going
    }
    /// How the root stands, and what the tree waits for when it waits.
    pub(super) async fn summary(&self) -> Ended {
        let Some(root) = self.run(&self.root) else {
            return Ended { run: self.root.clone(), state: State::Failed, text: "there is no such run".into() };
        };
        let ended = self.standing_of(&root).await;
        if ended.state.is_end() {
            return ended;
        }
        let mut waits = Vec::new();
        for run in self.all() {
            let log = run.log.lock().await;
            let questions = log.state.questions();
            waits.extend(questions.map(|q| format!("{} ({}): {}", q.id, run.agent(), q.question)));
        }
        let text = match waits.is_empty() {
            true => "paused; it goes on when it is told to".to_owned(),
            false => waits.join("\n"),
        };
        Ended { state: State::Waiting, text, ..ended }
    }
}
