//! The beginnings of trees: a new root run, and one forked from another's past.

use super::run::Run;
use super::spawn::budget;
use super::tree::Tree;
use super::{Approvals, Ended, Host, HostError, Start, now};
use crate::event::{Event, Outcome, Started, Step};
use crate::ledger::Spent;
use crate::ports::{Claimed, Decision, Deed, DeedKind, Lease};
use crate::run::{Caller, RunId, State};
use crate::turn;
use policies::permit::Rule;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

impl Host {
    pub(super) async fn begin(self: &Arc<Self>, start: Start) -> Result<Ended, HostError> {
        if self.stopped.is_cancelled() {
            return Err(HostError::Suspended);
        }
        let lease = self.claim_new(&start.id).await?;
        let Start { id, agent, prompt, principal, door, place, limits, shared, inbound, approvals, cancel } = start;
        let mut tree = Tree::new(lease, principal, place, approvals, cancel.child_token());
        let policy = self.ports.gate.policy();
        // What the door says of itself holds, whatever whoever starts a run through it says.
        let own = self.ports.gate.door(&tree.principal, &tree.place).map_or(limits, |(_, own)| own.meet(limits));
        tree.set_door(policy.clone(), (door, own));
        tree.inbound = inbound.is_some();
        let lineage = vec![Step { agent: agent.to_string(), request: None }];
        let within = tree.within(&self.ports, &policy, &lineage);
        let run = Run::new(id.clone(), None, lineage, now());
        tree.insert(run.clone());
        let within = match within {
            Ok(within) => {
                let who = format!("run {id} ({agent})");
                let authority = within.authority.use_.clone();
                let mut caller = Caller::new(&tree.principal, &who, authority).through(&tree.place);
                caller.run = Some(id.as_str().into());
                let ruled = Rule { text: "a root run".into(), place: Some(within.agent.place.clone()) };
                let decision = Decision::Allow(&ruled);
                let deed = Deed { kind: DeedKind::Spawn, subject: agent.as_str(), decision, more: &[] };
                self.ports.gate.record(&caller, deed).await.map(|()| within)
            }
            Err(denial) => Err(denial),
        };
        let within = match within {
            Ok(within) => within,
            Err(denial) => {
                let why = denial.rule.strip_prefix("Agent: ").unwrap_or(&denial.rule).to_owned();
                tree.append(self, &run, vec![Event::finished(State::Rejected, why.clone())]).await?;
                self.ports.journal.release(&tree.lease).await?;
                return Ok(Ended { run: id, state: State::Rejected, text: why });
            }
        };
        let limits = within.own;
        let started = Started {
            agent: agent.to_string(),
            model: within.agent.model.to_string(),
            system: within.agent.prompt.clone(),
            prompt,
            parent: None,
            root: id.to_string(),
            depth: 0,
            principal: tree.principal.to_string(),
            max_turns: limits.turns,
            max_tool_calls: limits.tool_calls,
            call: None,
            background: false,
            request: None,
            budget: budget(limits, shared),
            door: Some(tree.place.to_string()),
            inbound,
            nobody: nobody(&tree.approvals),
            schema: within.agent.output_schema.as_ref().map(|s| s.value().clone()),
            forked_from: None,
            lineage: Vec::new(),
        };
        tree.ledger.add(&id, None, &started.budget.unwrap_or_default(), Spent::default());
        tree.append(self, &run, vec![Event::Started(Box::new(started))]).await?;
        drop(run);
        self.run_tree(tree).await
    }
    async fn claim_new(&self, id: &RunId) -> Result<Lease, HostError> {
        match self.ports.journal.claim(id).await? {
            Claimed::Lease(lease) => Ok(lease),
            Claimed::Held { by } => Err(HostError::Held { by }),
        }
    }

    /// A new root whose past is another run's. Its authority is bounded by all that bounded the
    /// other's, ancestors included, and so are its depth and its money.
    pub(super) async fn fork_of(self: &Arc<Self>, run: &RunId, at: u64) -> Result<RunId, HostError> {
        let refused = |why: String| HostError::Refused(why);
        let root = self.root_of(run).await?;
        let loaded = self.ports.journal.load(&root).await?;
        let records = loaded.iter().find(|l| l.row.run == *run).map(|l| l.records.clone()).unwrap_or_default();
        let last = records.len() as u64;
        if at == 0 || at > last {
            return Err(refused(format!("run {run} has the events 1 to {last}; fork it at one of them")));
        }
        // To look at only: nothing is ever written under this lease.
        let looking = Lease { root, epoch: 0 };
        let old = Tree::rebuilt(looking, loaded, CancellationToken::new())?;
        old.goes_on()?;
        let origin = old.run(run).ok_or_else(|| refused(format!("run {run} never began; start a new one")))?;
        let id = RunId::fresh().map_err(|e| refused(e.to_string()))?;
        let keep = usize::try_from(at).unwrap_or(usize::MAX);
        let past = records.into_iter().take(keep).map(|record| record.event);
        let mut events: Vec<Event> = past.filter(|event| !matches!(event, Event::Finished { .. })).collect();
        let Some(Event::Started(started)) = events.first_mut() else {
            return Err(refused(format!("run {run} never began; start a new one")));
        };
        let mut bounds = old.ledger.bounds(run);
        for bound in std::iter::once(origin.clone()).chain(old.above(&origin)) {
            let wall = bound.log.lock().await.wall;
            bounds.wall_ms = [bounds.wall_ms, wall].into_iter().flatten().min();
        }
        started.budget = Some(bounds).filter(|b| *b != Default::default());
        started.parent = None;
        started.root = id.to_string();
        started.call = None;
        started.background = false;
        started.door = Some(old.place.to_string());
        started.nobody = nobody(&old.approvals);
        started.inbound = None;
        started.forked_from = Some(run.to_string());
        started.lineage = origin.lineage[..origin.lineage.len() - 1].to_vec();
        settled(&mut events);
        asked_anew(&mut events, &id);
        let lease = self.claim_new(&id).await?;
        let tree = Tree::new(
            lease,
            old.principal.clone(),
            old.place.clone(),
            old.approvals.clone(),
            self.stopped.child_token(),
        );
        let fork = Run::new(id.clone(), None, origin.lineage.clone(), now());
        tree.insert(fork.clone());
        let written = tree.append(self, &fork, events).await;
        let released = self.ports.journal.release(&tree.lease).await;
        written?;
        released?;
        Ok(id)
    }
}

/// What was under way in the past is no business of the fork's.
fn settled(events: &mut Vec<Event>) {
    let mut state = turn::State::default();
    events.iter().for_each(|event| turn::on(&mut state, event));
    let calls = state.open_calls().map(|open| Event::ToolFinished {
        id: open.call.id.clone(),
        outcome: Outcome::Unknown,
        text: "unknown: the conversation was forked here; what the call gave is the other run's".into(),
    });
    let children = state.background.iter().map(|child| Event::ChildFinished {
        run: child.run.clone(),
        agent: "subagent".into(),
        state: "unknown".into(),
        text: "the conversation was forked here; the subagent stays with the other run".into(),
    });
    let mut more: Vec<Event> = calls.chain(children).collect();
    if state.paused {
        more.push(Event::Unpaused { by: "the fork".into() });
    }
    events.extend(more);
}

/// Questions of the past keep their places and get names of their own: a name is one question's.
fn asked_anew(events: &mut [Event], fork: &RunId) {
    let of = |id: &mut String| id.push_str(&format!("-{}", fork.short()));
    for event in events {
        match event {
            Event::Waiting(waiting) => of(&mut waiting.id),
            Event::Answered { id, .. } | Event::TimedOut { id, .. } => of(id),
            _ => {}
        }
    }
}

fn nobody(approvals: &Approvals) -> Option<String> {
    match approvals {
        Approvals::Park => None,
        Approvals::Nobody(why) => Some(why.to_string()),
    }
}
