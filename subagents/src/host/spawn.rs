//! The `Agent` tool: a child run, through the same function as every other.

use super::authority::{self, wrong};
use super::drive::{At, Flow};
use super::run::Run;
use super::{HostError, now};
use crate::event::{Budget, Event, Outcome, Started, Step, ToolCall};
use crate::ledger::Spent;
use crate::ports::{Decision, Deed, DeedKind};
use crate::run::RunId;
use crate::tools::agent::{self, Wish};
use crate::turn::Asked;
use policies::action::TreeFacts;
use policies::permit::{Denial, Rule};
use policies::price::Usd;
use policies::resolve::Limits;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl At {
    pub(crate) async fn spawn(&self, call: &ToolCall, asked: Option<&Asked>, rule: String) -> Result<Flow, HostError> {
        let standing = match self.tree.standing(&self.host.ports, &self.run) {
            Ok(standing) => standing,
            Err(denial) => return self.denied(call, asked, denial).await,
        };
        let wish = match agent::read(&call.input, &standing.may_start()) {
            Ok(wish) => wish,
            Err(why) => return self.denied(call, asked, wrong(why)).await,
        };
        let (child, started) = match self.child(call, &wish).await {
            Ok(child) => child,
            Err(denial) => {
                let decision = Decision::Deny(&denial);
                let deed = Deed { kind: DeedKind::Spawn, subject: wish.agent.as_str(), decision, more: &[] };
                // It is not begun either way.
                let _ = self.host.ports.gate.record(&standing.caller, deed).await;
                return self.denied(call, asked, denial).await;
            }
        };
        let allowed = Rule { text: format!("subagents of {}; {rule}", standing.caller.who), place: None };
        let more = [("child", child.id.as_str())];
        let decision = Decision::Allow(&allowed);
        let deed = Deed { kind: DeedKind::Spawn, subject: wish.agent.as_str(), decision, more: &more };
        if let Err(denial) = self.host.ports.gate.record(&standing.caller, deed).await {
            return self.denied(call, asked, denial).await;
        }
        // Counted before it is there: the one that would pass the limit is refused.
        let max = standing.caller.authority.grant().spawn.max_total;
        let count = |n: u32| (n < max).then_some(n + 1);
        if self.tree.total.fetch_update(Ordering::AcqRel, Ordering::Acquire, count).is_err() {
            let denial = Denial::plain("spawn.max_total is reached", "do the work in this run");
            return self.denied(call, asked, denial).await;
        }
        let budget = started.budget.unwrap_or_default();
        let mut events = self.opening(call, asked);
        events.push(self.decided(call, "allow", allowed.text, None));
        let (id, run) = (call.id.clone(), child.id.to_string());
        events.push(Event::ChildStarted { call: Some(id.clone()), run: run.clone(), background: wish.background });
        if wish.background {
            let text = serde_json::json!({ "run": run, "status": "running" }).to_string();
            events.push(Event::ToolFinished { id, outcome: Outcome::Ok, text });
        }
        let begun = vec![Event::Started(Box::new(started))];
        self.tree.ledger.add(&child.id, Some(&self.run.id), &budget, Spent::default());
        // From here on it is counted as itself.
        let written = self.tree.commit(&self.host, vec![(self.run.clone(), events), (child, begun)]).await;
        self.tree.total.fetch_sub(1, Ordering::AcqRel);
        written.map(|_| Flow::Done)
    }

    /// The child as its parent's authority and its own definition make it.
    async fn child(&self, call: &ToolCall, wish: &Wish) -> Result<(Arc<Run>, Started), Denial> {
        let ports = &self.host.ports;
        let standing = self.tree.standing(ports, &self.run)?;
        let facts = TreeFacts { depth: self.run.depth(), total: self.tree.total.load(Ordering::Acquire) };
        authority::may_spawn(&standing.caller.authority, wish.agent.clone(), facts)?;
        let request = wish.request.to_text();
        let mut lineage = self.run.lineage.clone();
        lineage.push(Step { agent: wish.agent.to_string(), request: request.clone() });
        let within = self.tree.within(ports, &standing.policy, &lineage)?;
        let all = within.own.meet(wish.limits);
        let own = self.run.log.lock().await.state.limits();
        let model = wish.model.clone().unwrap_or_else(|| within.agent.model.clone());
        let id = RunId::fresh().map_err(|e| wrong(e.to_string()))?;
        let started = Started {
            agent: wish.agent.to_string(),
            model: model.to_string(),
            system: within.agent.prompt.clone(),
            prompt: wish.prompt.clone(),
            parent: Some(self.run.id.to_string()),
            root: self.tree.root.to_string(),
            depth: self.run.depth() + 1,
            principal: self.tree.principal.to_string(),
            max_turns: all.turns.min(own.0),
            max_tool_calls: all.tool_calls.min(own.1),
            call: Some(call.id.clone()),
            background: wish.background,
            request,
            budget: budget(all, Some(wish.limits)),
            door: None,
            inbound: None,
            nobody: None,
            schema: within.agent.output_schema.as_ref().map(|s| s.value().clone()),
            forked_from: None,
            lineage: Vec::new(),
        };
        Ok((Run::new(id, Some(self.run.id.clone()), lineage, now()), started))
    }
}

/// A run's budget: money, tokens and time bound it with all it starts; counted calls do so only
/// where the call that started it asked for it, for a table's numbers are each run's own.
pub(super) fn budget(all: Limits, asked: Option<Limits>) -> Option<Budget> {
    let some = |n: u32| (n != u32::MAX).then_some(n);
    let budget = Budget {
        usd: (all.usd != Usd::MAX).then_some(all.usd.0),
        tokens: (all.tokens != u64::MAX).then_some(all.tokens),
        turns: asked.and_then(|a| some(a.turns)),
        tool_calls: asked.and_then(|a| some(a.tool_calls)),
        wall_ms: all.wall.map(|wall| u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
    };
    (budget != Budget::default()).then_some(budget)
}
