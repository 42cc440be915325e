//! Asking the model: permitted, reserved, written down, asked, settled.

use super::HostError;
use super::context::Room;
use super::drive::{At, Flow};
use super::tree::lock;
use crate::event::{Amount, Event, Seen, ToolCall, Usage};
use crate::ledger::Reservation;
use crate::ports::{
    Decision, Deed, DeedKind, Delta, Model, ModelError, ModelFacts, ModelFailure, Reply, Request, ToolSpec,
};
use crate::run::State;
use crate::tools;
use crate::turn::Message;
use policies::action::Complete;
use policies::decide;
use policies::names::Name;
use policies::permit::{Denial, Permit, Verdict};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Tokens one reply may have.
const MAX_OUTPUT: u64 = 32_000;

/// Why the model is not asked, and how the run ends for it.
pub(super) type NotAsked = (State, String);

/// Who is asked, and what every request of the run begins with.
pub(super) struct Mind {
    pub(super) name: Name,
    pub(super) model: Arc<dyn Model>,
    pub(super) facts: ModelFacts,
    pub(super) agent: String,
    /// The client's name for the message the run began with.
    pub(super) inbound: Option<String>,
    pub(super) system: String,
    pub(super) tools: Arc<Vec<ToolSpec>>,
    pub(super) schema: Option<Arc<serde_json::Value>>,
    /// How hard it thinks, where its agent says so.
    pub(super) effort: Option<String>,
    /// Who sums the conversation up, where the file says so.
    pub(super) compact_with: Option<Name>,
}

impl Mind {
    /// Tokens a reply may have.
    pub(super) fn most(&self) -> u64 {
        MAX_OUTPUT.min(self.facts.max_output)
    }
    /// A request of the run's.
    pub(super) fn request<'a>(&'a self, at: &'a At, messages: &'a [Message], max_output: u64) -> Request<'a> {
        Request {
            agent: &self.agent,
            message: self.inbound.as_deref(),
            system: &self.system,
            messages,
            tools: &self.tools,
            max_output,
            effort: self.effort.as_deref(),
            schema: self.schema.as_deref(),
            run: &at.run.id,
            root: &at.tree.root,
        }
    }
}

/// What became of a request.
enum Said {
    Done(Flow),
    /// The conversation is longer than the window, whatever was counted.
    TooLong(String),
}

fn failed(why: String) -> NotAsked {
    (State::Failed, why)
}

impl At {
    pub(super) async fn think(&self, turn: u32) -> Result<Flow, HostError> {
        if self.hold().await? {
            // There may be no turn left.
            return Ok(Flow::Done);
        }
        let mut mind = match self.unless_cancelled(self.prepare()).await {
            None => return Ok(Flow::Done),
            Some(Err((state, why))) => return Ok(Flow::End(state, why)),
            Some(Ok(mind)) => mind,
        };
        self.alert().await?;
        let read = match self.room(&mut mind, false).await? {
            Room::For(read) => read,
            Room::Not(flow) => return Ok(flow),
        };
        let why = match self.ask(turn, &mind, read).await? {
            Said::Done(flow) => return Ok(flow),
            Said::TooLong(why) => why,
        };
        // Once more with a shorter conversation, if the run has a turn left.
        let turn = {
            let state = &self.run.log.lock().await.state;
            match state.counted().0 < state.limits().0 {
                true => state.turns,
                false => return Ok(Flow::Done),
            }
        };
        let read = match self.room(&mut mind, true).await? {
            Room::For(read) => read,
            Room::Not(Flow::End(state, more)) => return Ok(Flow::End(state, format!("{why}; {more}"))),
            Room::Not(flow) => return Ok(flow),
        };
        match self.ask(turn, &mind, read).await? {
            Said::Done(flow) => Ok(flow),
            Said::TooLong(why) => Ok(Flow::End(State::Failed, why)),
        }
    }
    async fn prepare(&self) -> Result<Mind, NotAsked> {
        let (agent, system, name, schema, inbound) = {
            let state = &self.run.log.lock().await.state;
            (
                state.agent.clone(),
                state.system.clone(),
                state.model.clone(),
                state.schema.clone(),
                state.inbound.clone(),
            )
        };
        let name = Name::try_from(name.as_str()).map_err(|e| failed(format!("model {name:?}: {e}")))?;
        // Refused before anything is looked up for it; the request itself is permitted below.
        self.permit(&name).await.map(drop)?;
        let model = self.host.ports.models.get(&name).ok_or_else(|| failed(format!("no model is named {name}")))?;
        let tools = self.shown().await?;
        let standing = self.tree.standing(&self.host.ports, &self.run).map_err(|d| failed(d.for_model()))?;
        // Said of the agent's own model: another that was asked for thinks as its own key says.
        let effort = standing.agent.effort.clone().filter(|_| standing.agent.model == name);
        let by_model = standing.policy.models.get(&name).and_then(|spec| spec.compact_with.clone());
        let compact_with = standing.agent.compact_with.clone().or(by_model);
        Ok(Mind { facts: model.facts(), name, model, agent, inbound, system, tools, schema, effort, compact_with })
    }
    /// The permission to ask a model once.
    pub(super) async fn permit(&self, name: &Name) -> Result<Permit<Complete>, NotAsked> {
        let standing = self.tree.standing(&self.host.ports, &self.run).map_err(|d| failed(d.for_model()))?;
        match decide::complete(&standing.caller.authority, name.clone()) {
            Verdict::Allow(permit, _) => Ok(permit),
            Verdict::Ask(question) => Err(failed(question.refuse("a model call cannot wait").for_model())),
            Verdict::Deny(denial) => {
                // It is not asked either way.
                let _ = self.asked_on_record(name, Decision::Deny(&denial), &[]).await;
                Err(failed(denial.for_model()))
            }
        }
    }
    pub(super) async fn asked_on_record(
        &self,
        model: &Name,
        decision: Decision<'_>,
        more: &[(&'static str, &str)],
    ) -> Result<(), Denial> {
        let standing = self.tree.standing(&self.host.ports, &self.run)?;
        let deed = Deed { kind: DeedKind::Model, subject: model.as_str(), decision, more };
        self.host.ports.gate.record(&standing.caller, deed).await
    }
    /// The tools the model is shown, sorted; the same ones until [`At::forget_shown`].
    pub(super) async fn shown(&self) -> Result<Arc<Vec<ToolSpec>>, NotAsked> {
        if let Some(shown) = lock(&self.run.shown).clone() {
            return Ok(shown);
        }
        let standing = self.tree.standing(&self.host.ports, &self.run).map_err(|d| failed(d.for_model()))?;
        let mut shown = self.host.ports.gate.tools(&standing.caller).await;
        shown.extend(tools::shown(self, &standing));
        shown.sort_by(|a, b| a.name.cmp(&b.name));
        let shown = Arc::new(shown);
        *lock(&self.run.shown) = Some(shown.clone());
        Ok(shown)
    }
    pub(super) fn forget_shown(&self) {
        *lock(&self.run.shown) = None;
    }

    async fn ask(&self, turn: u32, mind: &Mind, read: u64) -> Result<Said, HostError> {
        let permit = match self.permit(&mind.name).await {
            Ok(permit) => permit,
            Err((state, why)) => return Ok(Said::Done(Flow::End(state, why))),
        };
        let (held, amount, max_output) = match self.reserve(&mind.facts, read, mind.most(), false) {
            Ok(held) => held,
            Err((state, why)) => return Ok(Said::Done(Flow::End(state, why))),
        };
        let intent = Event::ModelRequested { turn, reserved: amount };
        if !self.tree.append(&self.host, &self.run, vec![intent]).await? {
            self.tree.ledger.forget(held);
            return Ok(Said::Done(Flow::Done));
        }
        let (seq, messages) = {
            let log = self.run.log.lock().await;
            (log.seq, log.state.messages.clone())
        };
        let delta = |text: &str| {
            let piece = Seen::Delta { run: self.run.id.clone(), seq, at: super::now(), text: text.to_owned() };
            let _ = self.host.seen.send(piece);
        };
        let request = mind.request(self, &messages, max_output);
        let asked = self.exchange(mind, permit, request, &delta, held, amount).await;
        // Given back before the answer is written, so that the conversation need not be copied.
        drop::<Arc<Vec<Message>>>(messages);
        self.told(asked, turn).await
    }

    /// Asks, and settles what was reserved. `None` when the run ended meanwhile.
    pub(super) async fn exchange(
        &self,
        mind: &Mind,
        permit: Permit<Complete>,
        request: Request<'_>,
        delta: Delta<'_>,
        held: Reservation,
        reserved: Amount,
    ) -> Option<(Result<Reply, ModelError>, Option<u64>)> {
        if let Err(denial) = self.asked_on_record(&mind.name, Decision::Allow(permit.rule()), &[]).await {
            self.tree.ledger.settle(held, Amount { tokens: 0, usd: Some(0) });
            return Some((Err(ModelError::new(ModelFailure::Unavailable, denial.for_model())), Some(0)));
        }
        let asked = self.unless_cancelled(mind.model.complete(permit, request, delta)).await;
        let (usage, answered_by) = match &asked {
            // Nobody knows what was used: all that was reserved counts.
            None => {
                self.tree.ledger.settle(held, reserved);
                return None;
            }
            Some(Ok(reply)) => (reply.usage, reply.answered_by.as_deref()),
            Some(Err(e)) => (e.usage, None),
        };
        let cost = self.cost(mind, &usage, answered_by);
        self.tree.ledger.settle(held, Amount { tokens: usage.total(), usd: cost });
        asked.map(|asked| (asked, cost))
    }
    /// What it cost, by the price of whoever answered.
    fn cost(&self, mind: &Mind, usage: &Usage, answered_by: Option<&str>) -> Option<u64> {
        let price = match answered_by {
            None => mind.facts.price,
            Some(_) => self.host.ports.gate.policy().price(&mind.name, answered_by),
        };
        price.map(|price| price.cost(&usage.tokens()).0)
    }

    /// Writes down what the model said, or why it said nothing.
    async fn told(
        &self,
        asked: Option<(Result<Reply, ModelError>, Option<u64>)>,
        turn: u32,
    ) -> Result<Said, HostError> {
        let (usage, kind, e, cost) = match asked {
            None => return Ok(Said::Done(Flow::Done)),
            // It broke off where its window ended: what it said so far is no answer.
            Some((Ok(reply), cost)) if reply.stop == "context" && reply.calls.is_empty() => {
                (reply.usage, ModelFailure::TooLong, "the model's window was full before it had answered".into(), cost)
            }
            Some((Ok(reply), cost)) => {
                let event = Event::ModelReplied {
                    text: reply.text,
                    calls: unique(reply.calls),
                    stop: reply.stop,
                    usage: reply.usage,
                    cost,
                    blocks: reply.blocks,
                    answered_by: reply.answered_by,
                };
                return self.append(vec![event]).await.map(Said::Done);
            }
            Some((Err(e), cost)) => (e.usage, e.kind, e.to_string(), cost),
        };
        let why = format!("agent {}, turn {turn}: {e}", self.run.agent());
        self.append(vec![Event::ModelFailed { why: why.clone(), usage, cost }]).await?;
        Ok(match kind {
            ModelFailure::TooLong => Said::TooLong(why),
            _ => Said::Done(Flow::End(State::Failed, why)),
        })
    }
}

/// Two calls of one turn need two ids, whatever the model wrote.
fn unique(mut calls: Vec<ToolCall>) -> Vec<ToolCall> {
    let mut seen = BTreeSet::new();
    for (i, call) in calls.iter_mut().enumerate() {
        if !seen.insert(call.id.clone()) {
            call.id = format!("{}#{i}", call.id);
            seen.insert(call.id.clone());
        }
    }
    calls
}
