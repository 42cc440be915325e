//! A run and its children: let work, waited for, reported.

use super::HostError;
use super::drive::{At, Flow, Stop, live};
use crate::event::{Event, Outcome};
use crate::run::{RunId, State};
use crate::tools::sanitize;
use tokio::sync::Semaphore;

impl At {
    /// Lets a child work, within the number of children that may at a time.
    pub(super) async fn await_child(&self, child: &str, call: Option<String>) -> Result<Flow, HostError> {
        if self.run.log.lock().await.state.is_parked() {
            self.append(vec![Event::Resumed { epoch: self.tree.lease.epoch }]).await?;
        }
        let Some(child) = self.tree.run(&RunId::known(child)) else {
            let text = format!("unknown: the journal has no run {child}; do not assume what it would have said");
            let gone = match call {
                Some(id) => Event::ToolFinished { id, outcome: Outcome::Unknown, text },
                None => Event::ChildFinished { run: child.into(), agent: "gone".into(), state: "failed".into(), text },
            };
            return self.append(vec![gone]).await;
        };
        let Some(_slot) = self.unless_cancelled(self.slots().acquire()).await else { return Ok(Flow::Done) };
        let stop = live(self.host.clone(), self.tree.clone(), child.clone(), self.token.clone()).await?;
        let Stop::Ended(ended) = stop else { return Ok(Flow::Parked) };
        let agent = child.agent().to_owned();
        let text = match ended.state {
            State::Completed => ended.text,
            other => format!("the subagent {agent} is {}: {}", other.as_str(), ended.text),
        };
        let has_form = ended.state == State::Completed && child.log.lock().await.state.schema.is_some();
        let text = match has_form.then(|| sanitize::json(&text)).flatten() {
            Some(json) => json,
            None => sanitize::imitations(&text),
        };
        let (text, kept) = self.bounded(call.as_deref(), text).await?;
        let event = match call {
            Some(id) => {
                let outcome = if ended.state == State::Completed { Outcome::Ok } else { Outcome::Error };
                Event::ToolFinished { id, outcome, text }
            }
            None => {
                let state = ended.state.as_str().to_owned();
                Event::ChildFinished { run: child.id.to_string(), agent, state, text }
            }
        };
        let mut events = Vec::from_iter(kept);
        events.push(event);
        // With the child at hand: one that was told something since is waited for again.
        self.tree.commit(&self.host, vec![(self.run.clone(), events), (child, Vec::new())]).await.map(|_| Flow::Done)
    }
    fn slots(&self) -> &Semaphore {
        self.run.slots.get_or_init(|| {
            let standing = self.tree.standing(&self.host.ports, &self.run).ok();
            let granted = standing.map_or(1, |s| s.caller.authority.grant().spawn.max_concurrent.max(1));
            Semaphore::new((granted as usize).min(Semaphore::MAX_PERMITS))
        })
    }
}
