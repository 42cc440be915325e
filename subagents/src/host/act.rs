//! Tool calls: judged, asked about, written down as about to leave, made, written down as made.
//!
//! ```text
//!  Act ─▶ Gate ─┬─ denied, unknown ─────────────────────────────▶ finished(denied)
//!               ├─ ask ─▶ waiting … answered ─▶ Act (judged afresh; the approval is good for
//!               │                                    the same digest only; an input given instead
//!               │                                    is approved by being given, and judged too)
//!               └─ allowed ─▶ dispatched ─▶ Toolbox::call ──────▶ finished(ok | error | unknown)
//!  Redo (dispatched, no outcome, the process is gone)
//!       pure, idempotent ─▶ judged afresh ─▶ dispatched again, same key
//!       verifiable ─▶ Toolbox::verify ─┬─ happened ─▶ finished(ok)
//!                                      └─ did not ─▶ as idempotent      else as once
//!       once ─▶ finished(unknown): never repeated
//! ```

use super::authority::Standing;
use super::drive::{At, Flow};
use super::{Approvals, HostError};
use crate::approval;
use crate::event::{Elsewhere, Event, Outcome, ToolCall, Waiting, WaitingFor};
use crate::ledger::Given;
use crate::ports::{
    Answer, Authorized, Decision, Deed, DeedKind, Facts, ToolFailure, ToolOutput, Verified, WhatHappened,
};
use crate::run::Caller;
use crate::tools;
use crate::turn::Asked;
use policies::action::{Call, Effect};
use policies::json::{Json, digest};
use policies::permit::{Denial, Permit, Rule};
use policies::resolve::Limits;
use serde_json::Value;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Attempts at one call that can be repeated; one that fells its process again and again is not
/// made for ever.
const MAX_ATTEMPTS: u32 = 3;

/// What a person's word makes of a question of the guard.
pub(crate) enum Word {
    /// Asked about exactly this, a person said yes.
    Yes(String),
    /// A person said no, or nobody said anything in time.
    No(Denial),
    /// A person gave this input in the place of what they were asked about.
    Given(String),
    /// Nobody was asked about this yet.
    Unasked,
}

/// Who gave the call its input, if a person did.
fn given(asked: Option<&Asked>) -> Option<String> {
    let asked = asked.filter(|a| a.question.kind == WaitingFor::Approval)?;
    matches!(asked.answer, Some(Answer::Input { .. })).then(|| format!("input given by {}", asked.by))
}

/// What was said about this, if anything was.
pub(crate) fn word(asked: Option<&Asked>, digest: &str) -> Word {
    if let Some(by) = given(asked) {
        return Word::Given(by);
    }
    let Some(asked) = asked.filter(|a| a.question.digest.as_deref() == Some(digest)) else { return Word::Unasked };
    let with = |note: &Option<String>| note.as_ref().map(|n| format!(": {n}")).unwrap_or_default();
    let no = |why: String| Word::No(Denial::plain(why, "do without it, or ask for something else"));
    match &asked.answer {
        Some(Answer::Allow { .. }) => Word::Yes(format!("approved by {} ({})", asked.by, asked.question.id)),
        Some(Answer::Deny { note }) => no(format!("{} said no{}", asked.by, with(note))),
        Some(Answer::Input { note, .. }) => no(format!("{} neither allowed nor denied it{}", asked.by, with(note))),
        None => no("a person was asked and did not answer in time".into()),
    }
}

impl At {
    pub(super) async fn act(&self, call: &ToolCall, asked: Option<&Asked>) -> Result<Flow, HostError> {
        if let Some(tool) = tools::find(&call.name) {
            return tools::perform(self, tool, call, asked).await;
        }
        let standing = match self.tree.standing(&self.host.ports, &self.run) {
            Ok(standing) => standing,
            Err(denial) => return self.denied(call, asked, denial).await,
        };
        let judged = self.host.ports.gate.authorize(&standing.caller, &call.name, Json::from(&call.input));
        let Some(judged) = self.unless_cancelled(judged).await else { return Ok(Flow::Done) };
        let (permit, rule, facts) = match judged {
            Authorized::Unknown => return self.unknown_tool(call, asked).await,
            Authorized::Denied(denial) => return self.denied(call, asked, denial).await,
            Authorized::Allowed(permit, rule, facts) => match asked.map(|a| word(asked, digest_of(a))) {
                // Whoever was asked and said no is heard, even if nobody needs asking any more.
                Some(Word::No(denial)) => return self.denied_on_record(call, asked, denial).await,
                Some(Word::Given(by)) => (permit, format!("{rule}; {by}"), facts),
                _ => (permit, rule.to_string(), facts),
            },
            Authorized::Ask(question, digest, facts) => match word(asked, &digest) {
                Word::Yes(by) => {
                    if let Err(denial) = self.spent(&standing.caller, call, asked, &question.rule).await {
                        return self.denied(call, asked, denial).await;
                    }
                    let rule = format!("{}; {by}", question.rule);
                    (question.approve(&by), rule, facts)
                }
                Word::No(denial) => return self.denied_on_record(call, asked, denial).await,
                Word::Given(by) if self.same_tool(&standing, call, asked).await => {
                    if let Err(denial) = self.spent(&standing.caller, call, asked, &question.rule).await {
                        return self.denied(call, asked, denial).await;
                    }
                    let rule = format!("{}; {by}", question.rule);
                    (question.approve(&by), rule, facts)
                }
                Word::Given(_) | Word::Unasked => {
                    let (rule, detail) = (question.rule.to_string(), approval::detail(&question));
                    return self.ask_approval(call, asked, rule, (digest, detail)).await;
                }
            },
        };
        if let Err(short) = self.tree.ledger.call(&self.run.id) {
            let denial = Denial::plain(short.to_string(), "answer with what you have");
            return self.denied(call, asked, denial).await;
        }
        let mut events = self.opening(call, asked);
        events.push(self.decided(call, "allow", rule, None));
        self.dispatch(call, permit, facts, 1, events).await
    }

    /// Whether a call that a person gave its input is of the tool they were asked about, as it was
    /// then: what they were asked about would be asked about in the same words now.
    async fn same_tool(&self, standing: &Standing, call: &ToolCall, asked: Option<&Asked>) -> bool {
        let Some(asked) = asked else { return false };
        let before = asked.question.detail.get("arguments").map(Json::from).unwrap_or(Json::Null);
        let judged = self.host.ports.gate.authorize(&standing.caller, &call.name, before);
        let judged = self.unless_cancelled(judged).await;
        matches!(judged, Some(Authorized::Ask(_, digest, _)) if digest == digest_of(asked))
    }

    /// What a run of this one's making could spend.
    async fn rest(&self, standing: &Standing) -> Limits {
        let left = self.tree.ledger.rest(&self.run.id).meet(standing.agent.subagent_limits);
        let until = self.run.log.lock().await.deadline();
        let wall = until.map(|until| Duration::from_millis(until.saturating_sub(super::now())));
        left.meet(Limits { wall, ..Limits::NONE })
    }

    /// What is given along to a task elsewhere: its part of what is left, held back here until the task
    /// is over. The calls of one turn that go to the same place have a part each, and one stays for
    /// whoever else of the tree goes on meanwhile.
    async fn give(&self, call: &ToolCall, standing: &Standing, caller: &mut Caller) -> Result<(Given, u32), Denial> {
        let place = |name: &str| name.split("__").next().unwrap_or(name).to_owned();
        let there = place(&call.name);
        let alike = self.run.log.lock().await.state.open_calls().filter(|open| place(&open.call.name) == there).count();
        let parts = u64::try_from(alike.max(1)).unwrap_or(u64::MAX).saturating_add(1);
        let max = caller.authority.grant().spawn.max_total;
        let mut runs = 0;
        let counted = self.tree.total.fetch_update(Ordering::AcqRel, Ordering::Acquire, |total| {
            let left = max.saturating_sub(total);
            // Whatever is done there is a run.
            runs = u32::try_from(u64::from(left) / parts).unwrap_or(u32::MAX).max(1);
            (left > 0).then(|| total.saturating_add(runs))
        });
        if counted.is_err() {
            return Err(Denial::plain("spawn.max_total is reached", "do the work in this run"));
        }
        let most = standing.agent.subagent_limits;
        let (limits, given) = self.tree.ledger.give(&self.run.id, parts, most);
        caller.rest = limits.meet(Limits { wall: caller.rest.wall, ..Limits::NONE });
        caller.runs = Some(runs);
        Ok((given, runs))
    }

    /// Takes it back, but for what was used of it. That is written down with the call's end: a call that
    /// is made again after a crash tells of the same task.
    /// Of one of which nobody knows what became, all counts.
    fn take_back(
        &self,
        call: &ToolCall,
        (given, runs): (Given, u32),
        made: &Result<ToolOutput, ToolFailure>,
    ) -> Option<Event> {
        let used = match made {
            Ok(output) => {
                let used = output.used;
                Elsewhere { runs: used.runs.min(runs), ..self.tree.ledger.take_back(given, used) }
            }
            Err(ToolFailure { outcome: WhatHappened::Failed, .. }) => {
                self.tree.ledger.take_back(given, Elsewhere::default())
            }
            Err(ToolFailure { outcome: WhatHappened::Unknown, .. }) => {
                Elsewhere { runs, ..self.tree.ledger.lost(given) }
            }
        };
        self.tree.total.fetch_sub(runs - used.runs, Ordering::AcqRel);
        (used != Elsewhere::default()).then(|| Event::TaskCounted { id: call.id.clone(), used })
    }

    /// Writes down that the call leaves, and lets it leave.
    async fn dispatch(
        &self,
        call: &ToolCall,
        permit: Permit<Call>,
        facts: Facts,
        attempt: u32,
        mut events: Vec<Event>,
    ) -> Result<Flow, HostError> {
        let (key, effect) = (self.key(call).await, facts.effect);
        let (id, effect_word) = (call.id.clone(), effect.as_str().to_owned());
        events.push(Event::ToolDispatched { id, effect: effect_word, key: key.clone(), attempt });
        if !self.tree.append(&self.host, &self.run, events).await? {
            return Ok(Flow::Done);
        }
        let standing = match self.tree.standing(&self.host.ports, &self.run) {
            Ok(standing) => standing,
            Err(denial) => return self.done(call, Outcome::Denied, denial.for_model()).await,
        };
        let cancel = self.token.child_token();
        let mut caller = Caller { rest: self.rest(&standing).await, ..standing.caller.clone() };
        let given = match facts.gives {
            true => match self.give(call, &standing, &mut caller).await {
                Ok(given) => Some(given),
                Err(denial) => return self.done(call, Outcome::Denied, denial.for_model()).await,
            },
            false => None,
        };
        let made = self.host.ports.toolbox.call(&caller, permit, &key, cancel.clone()).await;
        let counted = given.and_then(|given| self.take_back(call, given, &made));
        match made {
            Ok(output) => {
                let outcome = if output.error { Outcome::Error } else { Outcome::Ok };
                self.done_with(call, outcome, output.text, counted).await
            }
            Err(ToolFailure { why, outcome: WhatHappened::Failed }) => {
                self.done_with(call, Outcome::Error, why, counted).await
            }
            Err(ToolFailure { why, outcome: WhatHappened::Unknown }) => match effect {
                Effect::Pure | Effect::Idempotent => {
                    let text = format!("{why}; it may be called again");
                    self.done_with(call, Outcome::Error, text, counted).await
                }
                Effect::Verifiable => {
                    let (outcome, text) = match self.host.ports.toolbox.verify(&caller, call, &key, cancel).await {
                        Verified::Happened(text) => (Outcome::Ok, text),
                        Verified::DidNot => (Outcome::Error, format!("{why}; it did not happen")),
                        Verified::Unknown => (Outcome::Unknown, unknown(call, &why)),
                    };
                    self.done_with(call, outcome, text, counted).await
                }
                Effect::Once => self.done_with(call, Outcome::Unknown, unknown(call, &why), counted).await,
            },
        }
    }

    /// A call that had left when its process died.
    pub(super) async fn redo(
        &self,
        call: &ToolCall,
        asked: Option<&Asked>,
        effect: &str,
        key: &str,
        attempt: u32,
    ) -> Result<Flow, HostError> {
        let died = "the process that made the call died before its result was written down";
        // A class this version does not know is one that must not be repeated.
        let effect = Effect::from_word(effect).unwrap_or(Effect::Once);
        let Ok(standing) = self.tree.standing(&self.host.ports, &self.run) else {
            return self.done(call, Outcome::Unknown, unknown(call, died)).await;
        };
        if effect == Effect::Verifiable {
            let caller = Caller { rest: self.rest(&standing).await, ..standing.caller.clone() };
            let look = self.host.ports.toolbox.verify(&caller, call, key, self.token.child_token());
            let Some(found) = self.unless_cancelled(look).await else { return Ok(Flow::Done) };
            match found {
                Verified::Happened(text) => return self.done(call, Outcome::Ok, text).await,
                Verified::Unknown => return self.done(call, Outcome::Unknown, unknown(call, died)).await,
                Verified::DidNot => {}
            }
        }
        if effect == Effect::Once || attempt >= MAX_ATTEMPTS {
            return self.done(call, Outcome::Unknown, unknown(call, died)).await;
        }
        let judged = self.host.ports.gate.authorize(&standing.caller, &call.name, Json::from(&call.input));
        let Some(judged) = self.unless_cancelled(judged).await else { return Ok(Flow::Done) };
        let (permit, facts) = match judged {
            Authorized::Allowed(permit, _, facts) => (permit, facts),
            // The approval was for this call, and it is still this call.
            Authorized::Ask(question, digest, facts) if matches!(word(asked, &digest), Word::Yes(_)) => {
                (question.approve("approved before the process that made the call died"), facts)
            }
            Authorized::Ask(question, digest, facts)
                if matches!(word(asked, &digest), Word::Given(_)) && self.same_tool(&standing, call, asked).await =>
            {
                (question.approve("changed and approved before the process that made the call died"), facts)
            }
            _ => {
                let why = format!("{died}, and it may not be made again under the policy as it is now");
                return self.done(call, Outcome::Unknown, unknown(call, &why)).await;
            }
        };
        // The operator may have learnt since that it must not be repeated.
        if facts.effect == Effect::Once {
            return self.done(call, Outcome::Unknown, unknown(call, died)).await;
        }
        self.dispatch(call, permit, Facts { effect, ..facts }, attempt + 1, Vec::new()).await
    }

    pub(super) async fn refuse(&self, call: &ToolCall, why: String) -> Result<Flow, HostError> {
        let mut events = self.opening(call, None);
        events.push(self.decided(call, "deny", "budget.tool_calls".into(), None));
        events.push(Event::ToolFinished { id: call.id.clone(), outcome: Outcome::Denied, text: why });
        self.append(events).await
    }

    pub(crate) async fn unknown_tool(&self, call: &ToolCall, asked: Option<&Asked>) -> Result<Flow, HostError> {
        let text =
            format!("there is no tool named {} for this agent; do not assume what it would have said", call.name);
        let mut events = self.opening(call, asked);
        events.push(self.decided(call, "deny", format!("no tool is named {}", call.name), None));
        events.push(Event::ToolFinished { id: call.id.clone(), outcome: Outcome::Denied, text });
        self.append(events).await
    }

    pub(crate) async fn denied(
        &self,
        call: &ToolCall,
        asked: Option<&Asked>,
        denial: Denial,
    ) -> Result<Flow, HostError> {
        let place = denial.place.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
        let who = denial.who.as_ref().map(|w| format!(" at {w}")).unwrap_or_default();
        let rule = format!("{}{who}{place}", denial.rule);
        let mut events = self.opening(call, asked);
        events.push(self.decided(call, "deny", rule, denial.fix.clone()));
        events.push(Event::ToolFinished { id: call.id.clone(), outcome: Outcome::Denied, text: denial.for_model() });
        self.append(events).await
    }

    /// Puts on record that what a person said is used up by this call.
    ///
    /// # Errors
    /// When it cannot be: then the call is not made.
    pub(crate) async fn spent(
        &self,
        caller: &Caller,
        call: &ToolCall,
        asked: Option<&Asked>,
        rule: &Rule,
    ) -> Result<(), Denial> {
        let Some(asked) = asked else { return Ok(()) };
        let more = [("tool", call.name.as_str()), ("by", asked.by.as_str())];
        let (kind, subject, decision) = (DeedKind::Spend, asked.question.id.as_str(), Decision::Allow(rule));
        self.host.ports.gate.record(caller, Deed { kind, subject, decision, more: &more }).await
    }

    /// Denied by what a person said, or because none can be asked: the record has only the question
    /// so far.
    pub(crate) async fn denied_on_record(
        &self,
        call: &ToolCall,
        asked: Option<&Asked>,
        denial: Denial,
    ) -> Result<Flow, HostError> {
        if let Ok(standing) = self.tree.standing(&self.host.ports, &self.run) {
            let more: Vec<_> = asked.map(|a| ("question", a.question.id.as_str())).into_iter().collect();
            let decision = Decision::Deny(&denial);
            let deed = Deed { kind: DeedKind::Call, subject: &call.name, decision, more: &more };
            // It does not happen either way.
            let _ = self.host.ports.gate.record(&standing.caller, deed).await;
        }
        self.denied(call, asked, denial).await
    }

    /// Asks a person whether the call may be made; where nobody can be asked it may not.
    pub(crate) async fn ask_approval(
        &self,
        call: &ToolCall,
        asked: Option<&Asked>,
        rule: String,
        (digest, detail): (String, Value),
    ) -> Result<Flow, HostError> {
        if let Approvals::Nobody(why) = &self.tree.approvals {
            let denial = Denial::plain(rule, format!("it asks a person, and {why}"));
            let fix = "answer where a person can be reached, or move the tool from ask to allow";
            return self.denied_on_record(call, asked, denial.with_fix(fix)).await;
        }
        // One at a time in a tree, so that as many are open as may be and no more.
        let _alone = self.tree.asking.lock().await;
        if let Err(why) = self.may_ask(&digest).await? {
            return self.denied_on_record(call, asked, Denial::plain(rule, why)).await;
        }
        let policy = self.host.ports.gate.policy();
        let expire = u64::try_from(policy.approvals.expire.as_millis()).unwrap_or(u64::MAX);
        let waiting = Waiting {
            id: super::question_id().map_err(HostError::Refused)?,
            call: Some(call.id.clone()),
            kind: WaitingFor::Approval,
            question: format!("may {} call {}?", self.run.agent(), call.name),
            expires: Some(super::now().saturating_add(expire)),
            chain: self.chain(),
            digest: Some(digest),
            detail,
            default: None,
        };
        let mut events = self.opening(call, asked);
        events.push(self.decided(call, "ask", rule, None));
        events.push(Event::Waiting(Box::new(waiting)));
        self.append(events).await
    }

    /// Whether one more approval may be open: who asks for the same twice, or for much at once,
    /// buries whoever answers.
    async fn may_ask(&self, digest: &str) -> Result<Result<(), String>, HostError> {
        let same = self.run.log.lock().await.state.questions().find(|q| q.digest.as_deref() == Some(digest)).cloned();
        if let Some(same) = same {
            let why = format!("a person is asked about this very call already ({}); wait for that answer", same.id);
            return Ok(Err(why));
        }
        let (principal, root) = (&self.tree.principal, &self.tree.root);
        let open = self.host.ports.journal.open_approvals(principal, Some(root)).await;
        let (all, own) = open.map_err(|e| self.tree.break_off(e.into()))?;
        let limits = self.host.ports.gate.policy().approvals;
        Ok(approval::room(&limits, (all, own), "this tree of runs"))
    }

    pub(crate) async fn done(&self, call: &ToolCall, outcome: Outcome, text: String) -> Result<Flow, HostError> {
        self.done_with(call, outcome, text, None).await
    }
    async fn done_with(
        &self,
        call: &ToolCall,
        outcome: Outcome,
        text: String,
        counted: Option<Event>,
    ) -> Result<Flow, HostError> {
        let (text, kept) = self.bounded(Some(&call.id), text).await?;
        let mut events: Vec<Event> = counted.into_iter().chain(kept).collect();
        events.push(Event::ToolFinished { id: call.id.clone(), outcome, text });
        self.append(events).await
    }
    /// The first event of a call, unless it was written when a person was asked; written again
    /// when the person gave it another input.
    pub(crate) fn opening(&self, call: &ToolCall, asked: Option<&Asked>) -> Vec<Event> {
        if asked.is_some() && given(asked).is_none() {
            return Vec::new();
        }
        let (id, name) = (call.id.clone(), call.name.clone());
        vec![Event::ToolRequested { id, name, input: call.input.clone() }]
    }
    pub(crate) fn decided(&self, call: &ToolCall, verdict: &str, rule: String, fix: Option<String>) -> Event {
        Event::ToolDecided { id: call.id.clone(), verdict: verdict.to_owned(), rule, chain: self.chain(), fix }
    }
    /// Who is who, from the root policy to the run.
    pub(crate) fn chain(&self) -> Vec<String> {
        let standing = self.tree.standing(&self.host.ports, &self.run);
        standing.map(|s| s.caller.authority.chain().into_iter().map(str::to_owned).collect()).unwrap_or_default()
    }
    /// The same whenever this call is made, and of no other: from what is written down, never
    /// from where the loop happens to be.
    async fn key(&self, call: &ToolCall) -> String {
        let turn = self.run.log.lock().await.state.turns.to_string();
        let arguments = Json::from(&call.input).to_canonical();
        let parts = [self.tree.root.as_str(), self.run.id.as_str(), &turn, &call.id, &arguments];
        // Lengths, so that no two lists of parts read the same.
        let text: String = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
        let mut key = digest(&text);
        key.truncate(32);
        key
    }
}

fn digest_of(asked: &Asked) -> &str {
    asked.question.digest.as_deref().unwrap_or_default()
}

/// What the model is told of a call that may have happened.
fn unknown(call: &ToolCall, why: &str) -> String {
    let mut sent = call.input.to_string();
    if let Some((at, _)) = sent.char_indices().nth(500) {
        sent.truncate(at);
        sent.push('…');
    }
    format!(
        "unknown: {why}. What was sent: {} {sent}. It may have happened or not, and it was not repeated. \
         Assume neither: find out first, or say that it is unknown",
        call.name
    )
}
