//! What the runtime's tools may use of the host.

pub(crate) use super::act::{Word, word};
pub(crate) use super::authority::Standing;
pub(crate) use super::drive::{At, Flow};
pub(crate) use super::{now, question_id};

use super::run::Run;
use super::tree::lock;
use super::{Approvals, HostError};
use crate::event::Event;
use crate::ledger::Short;
use crate::ports::Gate;
use crate::run::{RunId, State};
use policies::permit::Denial;
use std::sync::Arc;

impl At {
    /// The run's standing, as of now.
    pub(crate) fn standing(&self) -> Result<Arc<Standing>, Denial> {
        self.tree.standing(&self.host.ports, &self.run)
    }
    pub(crate) fn gate(&self) -> &dyn Gate {
        &*self.host.ports.gate
    }
    pub(crate) fn approvals(&self) -> &Approvals {
        &self.tree.approvals
    }
    /// Counts a tool call against every budget above.
    pub(crate) fn count_call(&self) -> Result<(), Short> {
        self.tree.ledger.call(&self.run.id)
    }
    /// A run below this one; nobody has power over any other.
    pub(crate) fn descendant(&self, id: &RunId) -> Result<Arc<Run>, String> {
        let run = self.tree.run(id).filter(|run| self.tree.above(run).iter().any(|above| above.id == self.run.id));
        run.ok_or_else(|| format!("{id} is no subagent of yours; list_agents shows those that are"))
    }
    /// Ends a run below this one, and returns when it has ended.
    pub(crate) async fn stop(&self, run: &Arc<Run>) {
        self.tree.stop(run, &format!("run {}", self.run.id));
        loop {
            let written = run.written.notified();
            if run.seen().await.0.is_end() || self.tree.broken().is_some() {
                return;
            }
            written.await;
        }
    }
    /// Tells a run below this one something, in one transaction with this run's own events.
    pub(crate) async fn tell(
        &self,
        to: &Arc<Run>,
        from: String,
        text: String,
        own: Vec<Event>,
    ) -> Result<Flow, HostError> {
        *lock(&to.stop) = None;
        let told = vec![Event::MessageReceived { from, text, message: None, parts: None }];
        self.tree.commit(&self.host, vec![(self.run.clone(), own), (to.clone(), told)]).await?;
        self.tree.wake(to);
        Ok(Flow::Done)
    }
    /// Whether a run of this tree was given that handle.
    pub(crate) async fn was_given(&self, blob: &str) -> bool {
        // Its own first: most handles are read by who was shown them.
        let others = self.tree.all().into_iter().filter(|run| run.id != self.run.id);
        for run in std::iter::once(self.run.clone()).chain(others) {
            if run.log.lock().await.state.kept.contains(blob) {
                return true;
            }
        }
        false
    }
    /// A part of what was kept.
    pub(crate) async fn blob(&self, name: &str, offset: u64, limit: u64) -> Result<Option<(Vec<u8>, u64)>, HostError> {
        let read = self.host.ports.journal.get_blob(name, offset, limit).await;
        read.map_err(|e| self.tree.break_off(e.into()))
    }
}

impl Run {
    /// Its state as others see it, and its turns.
    pub(crate) async fn seen(&self) -> (State, u32) {
        let log = self.log.lock().await;
        (log.state.phase(), log.state.turns)
    }
    /// Its state as others see it, and who ended it.
    pub(crate) async fn end(&self) -> (State, Option<String>) {
        let log = self.log.lock().await;
        (log.state.phase(), log.state.ended_by.clone())
    }
}
