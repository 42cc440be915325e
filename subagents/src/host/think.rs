//! Asking the model: permitted, reserved, written down, asked, settled.

use super::HostError;
use super::drive::{At, Flow};
use crate::event::{Amount, Event, Seen, ToolCall};
use crate::ledger::{Reservation, is_nearly};
use crate::ports::{Model, ModelError, ModelFacts, Reply, Request, ToolSpec};
use crate::run::State;
use crate::tools;
use crate::turn::Message;
use policies::action::Complete;
use policies::decide;
use policies::names::Name;
use policies::permit::{Permit, Verdict};
use policies::price::Tokens;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Tokens one reply may have.
const MAX_OUTPUT: u64 = 32_000;
/// With less room than this for its answer a model is not asked.
const LEAST_OUTPUT: u64 = 1_024;

/// Why the model is not asked, and how the run ends for it.
type NotAsked = (State, String);

impl At {
    pub(super) async fn think(&self, turn: u32) -> Result<Flow, HostError> {
        match self.unless_cancelled(self.prepare()).await {
            None => Ok(Flow::Done),
            Some(Err((state, why))) => Ok(Flow::End(state, why)),
            Some(Ok((model, permit, tools))) => {
                self.alert().await?;
                self.ask(turn, &*model, permit, &tools).await
            }
        }
    }
    async fn prepare(&self) -> Result<(Arc<dyn Model>, Permit<Complete>, Vec<ToolSpec>), NotAsked> {
        let fail = |why: String| (State::Failed, why);
        let standing = self.tree.standing(&self.host.ports, &self.run).map_err(|d| fail(d.for_model()))?;
        let name = self.run.log.lock().await.state.model.clone();
        let name = Name::try_from(name.as_str()).map_err(|e| fail(format!("model {name:?}: {e}")))?;
        let permit = match decide::complete(&standing.caller.authority, name.clone()) {
            Verdict::Allow(permit, _) => permit,
            Verdict::Ask(question) => return Err(fail(question.refuse("a model call cannot wait").for_model())),
            Verdict::Deny(denial) => return Err(fail(denial.for_model())),
        };
        let model = self.host.ports.models.get(&name).ok_or_else(|| fail(format!("no model is named {name}")))?;
        let tools = standing.tools.get_or_init(async || {
            let mut shown = self.host.ports.gate.tools(&standing.caller).await;
            shown.extend(tools::shown(self, &standing));
            shown
        });
        Ok((model, permit, tools.await.clone()))
    }

    /// Says once of each budget that most of it is used.
    async fn alert(&self) -> Result<(), HostError> {
        let mut nearly = self.tree.ledger.nearly_used(&self.run.id);
        let log = self.run.log.lock().await;
        let (turns, calls) = (log.state.turns.into(), log.state.tool_calls.into());
        let (max_turns, max_calls) = log.state.limits();
        for (what, used, limit) in [("turns", turns, max_turns), ("tool_calls", calls, max_calls)] {
            if limit != u32::MAX && is_nearly(used, limit.into()) {
                nearly.push((what, used, limit.into()));
            }
        }
        nearly.retain(|(what, ..)| !log.state.alerts.contains(*what));
        drop(log);
        let events = nearly.into_iter();
        let events: Vec<Event> =
            events.map(|(what, used, limit)| Event::BudgetAlert { what: what.to_owned(), used, limit }).collect();
        if !events.is_empty() {
            self.append(events).await?;
        }
        Ok(())
    }

    async fn ask(
        &self,
        turn: u32,
        model: &dyn Model,
        permit: Permit<Complete>,
        tools: &[ToolSpec],
    ) -> Result<Flow, HostError> {
        let (agent, system, messages) = {
            let state = &self.run.log.lock().await.state;
            (state.agent.clone(), state.system.clone(), state.messages.clone())
        };
        let facts = model.facts();
        let request = |messages, max_output| Request {
            agent: &agent,
            system: &system,
            messages,
            tools,
            max_output,
            effort: None,
            schema: None,
            run: &self.run.id,
        };
        let most = MAX_OUTPUT.min(facts.max_output);
        let Some(read) = self.unless_cancelled(model.count(&request(&messages, most))).await else {
            return Ok(Flow::Done);
        };
        let (held, amount, max_output) = match self.reserve(&facts, read, most) {
            Ok(held) => held,
            Err((state, why)) => return Ok(Flow::End(state, why)),
        };
        match self.tree.append(&self.host, &self.run, vec![Event::ModelRequested { turn, reserved: amount }]).await {
            Ok(true) => {}
            Ok(false) => {
                self.tree.ledger.forget(held);
                return Ok(Flow::Done);
            }
            Err(e) => return Err(e),
        }
        let seq = self.run.log.lock().await.seq;
        let delta = |text: &str| {
            let piece = Seen::Delta { run: self.run.id.clone(), seq, at: super::now(), text: text.to_owned() };
            let _ = self.host.seen.send(piece);
        };
        let asked = self.unless_cancelled(model.complete(permit, request(&messages, max_output), &delta)).await;
        // Given back before the answer is written, so that the conversation need not be copied.
        drop::<Arc<Vec<Message>>>(messages);
        self.told(asked, held, amount, &facts, turn).await
    }

    /// Writes down what the model said, or why it said nothing.
    async fn told(
        &self,
        asked: Option<Result<Reply, ModelError>>,
        held: Reservation,
        reserved: Amount,
        facts: &ModelFacts,
        turn: u32,
    ) -> Result<Flow, HostError> {
        let cost = |tokens: Tokens| facts.price.as_ref().map(|p| p.cost(&tokens).0);
        match asked {
            // Nobody knows what was used: all that was reserved counts.
            None => {
                self.tree.ledger.settle(held, reserved);
                Ok(Flow::Done)
            }
            Some(Ok(reply)) => {
                let cost = cost(reply.usage.tokens());
                self.tree.ledger.settle(held, Amount { tokens: reply.usage.total(), usd: cost });
                let event = Event::ModelReplied {
                    text: reply.text,
                    calls: unique(reply.calls),
                    stop: reply.stop,
                    usage: reply.usage,
                    cost,
                    blocks: reply.blocks,
                    answered_by: reply.answered_by,
                };
                self.append(vec![event]).await
            }
            Some(Err(e)) => {
                let cost = cost(e.usage.tokens());
                self.tree.ledger.settle(held, Amount { tokens: e.usage.total(), usd: cost });
                let why = format!("agent {}, turn {turn}: {e}", self.run.agent());
                self.append(vec![Event::ModelFailed { why: why.clone(), usage: e.usage, cost }]).await?;
                Ok(Flow::End(State::Failed, why))
            }
        }
    }

    /// Makes room for a request that reads this much, lowering what it may write to what is left.
    fn reserve(&self, facts: &ModelFacts, read: u64, most: u64) -> Result<(Reservation, Amount, u64), NotAsked> {
        let ledger = &self.tree.ledger;
        let price = facts.price.as_ref();
        if let (None, Some(whose)) = (price, ledger.usd_limited(&self.run.id)) {
            let why = format!(
                "run {whose} has a budget in usd, and what the model of {} costs is unknown; give the model a price",
                self.run.agent()
            );
            return Err((State::Failed, why));
        }
        let (tokens, usd) = ledger.left(&self.run.id);
        let cost = |output: u64| price.map(|p| dearest(p, read, output));
        let mut output = most.min(tokens.saturating_sub(read));
        // The price of a token written is linear but for one step, so halving finds what fits.
        while output >= LEAST_OUTPUT.min(most) && cost(output).unwrap_or(0) > usd {
            output /= 2;
        }
        let output = if output < LEAST_OUTPUT.min(most) { most } else { output };
        let amount = Amount { tokens: read.saturating_add(output), usd: cost(output) };
        match ledger.reserve(&self.run.id, amount) {
            Ok(held) => Ok((held, amount, output)),
            Err(short) => Err((State::OverBudget, short.to_string())),
        }
    }
}

/// What a request costs at most: whatever it reads may have to be written to the cache.
fn dearest(price: &policies::price::Price, read: u64, output: u64) -> u64 {
    let tokens = [
        Tokens { input: read, output, ..Tokens::default() },
        Tokens { cache_write: read, output, ..Tokens::default() },
        Tokens { cache_write_long: read, output, ..Tokens::default() },
    ];
    tokens.iter().map(|t| price.cost(t).0).max().unwrap_or(0)
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
