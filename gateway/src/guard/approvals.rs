//! Calls that a person is asked about: the rules that stand, and a client's own call that waits.
//!
//! ```text
//!  ask ─▶ a standing rule? ─ yes ─▶ allow, naming it                  (runs' and clients' calls alike)
//!            │ no
//!            ├ a run's ──▶ the run parks (`subagents::host::act`)
//!            └ a client's ─▶ said before? ─┬ yes ─▶ used up, allow     (once, this very call)
//!                                          ├ no ──▶ deny, for a while
//!                                          └ ─▶ a row: open until answered or expired; the call
//!                                               waits for it, and is denied with its id after that
//! ```
//!
//! The row outlives the call that was denied, and the process; `waiting` says when it is taken back.
//! It is bound to the client, its chain, the
//! tool as it is, the arguments and where they lead: anything else is another question.

use super::waiting::Waits;
use super::{Approve, Decided, Guard};
use crate::audit::{Before, Decision, Entry};
use crate::servers::Enough;
use adapters::store::{Asking, Given, clock};
use policies::action::Call;
use policies::json::{Json, digest};
use policies::permit::{Denial, Question, Rule, Verdict};
use policies::standing::{self, Asker, Standing};
use std::sync::Arc;
use std::time::Duration;
use subagents::approval;
use subagents::ports::{self, Answer, Journal};
use subagents::run::Caller;

/// What became of a wish that a person can be asked about.
pub(crate) enum Wish {
    /// It was decided without one.
    Decided(Decided),
    /// A person decides.
    Asks(Box<Asks>),
}

/// A client's own call that a person decides on.
pub(crate) struct Asks {
    question: Question<Call>,
    digest: String,
    entry: Entry,
    caller: Caller,
}

impl Asks {
    /// The arguments, to make the call again with.
    pub(crate) fn arguments(&self) -> Json {
        self.question.what().arguments.clone()
    }
}

/// A question that a person was put.
pub(crate) struct Put {
    pub(crate) asked: ports::Question,
    /// Why they are asked.
    rule: Rule,
    waits: Waits,
}

impl Guard {
    /// The one place where standing rules are looked at: what is asked about is allowed where a
    /// person said so before.
    pub(super) async fn stands(&self, caller: &Caller, question: Question<Call>) -> Verdict<Call> {
        let Some(book) = &self.book else { return Verdict::Ask(question) };
        let rules = match book.standing(&caller.principal, &question.what().tool.name).await {
            Ok(rules) if rules.is_empty() => return Verdict::Ask(question),
            Ok(rules) => rules,
            Err(why) => {
                tracing::warn!("standing rules cannot be read, so a person is asked: {why}");
                return Verdict::Ask(question);
            }
        };
        let Ok(now) = self.servers.live.current(caller) else { return Verdict::Ask(question) };
        let chain = now.authority.chain();
        let asker = Asker { principal: &caller.principal, run: caller.run.as_deref(), chain: &chain };
        standing::answered(Verdict::Ask(question), asker, &rules)
    }

    /// Judges a client's own call, which can wait for a person.
    pub(crate) async fn decide_or_ask(&self, caller: &Caller, name: &str, arguments: Json) -> Wish {
        let (verdict, entry) = self.judged(caller, name, arguments, Enough::Attempt).await;
        let (question, book) = match (verdict, &self.book) {
            (Some(Verdict::Ask(question)), Some(book)) if self.approve == Approve::Park => (question, book),
            (verdict, _) => return Wish::Decided(self.refusals_noted(self.weighed(verdict), entry).await),
        };
        let now = match self.servers.live.current(caller) {
            Ok(now) => now.into_owned(),
            Err(denial) => return Wish::Decided(self.refusals_noted(Decided::Denied(denial), entry).await),
        };
        let digest = bound_to(&question, &now);
        let decided = match book.spend(&now.principal, &digest).await {
            Ok(Given::Nothing) => return Wish::Asks(Box::new(Asks { question, digest, entry, caller: now })),
            Ok(Given::Yes { question: id, by }) => {
                let permit = question.approve(&format!("approved by {by} ({id})"));
                let rule = permit.rule().clone();
                match self.note_spent(&now, (&id, &by), &permit.what().tool.name, &rule).await {
                    Ok(()) => Decided::Allowed(permit, rule),
                    Err(denial) => Decided::Denied(denial),
                }
            }
            Ok(Given::No { question: id, by, note }) => Decided::Denied(said_no(&id, &by, note, &question.rule)),
            Err(why) => Decided::Denied(question.refuse(&format!("it asks a person, and cannot be kept: {why}"))),
        };
        Wish::Decided(self.refusals_noted(decided, entry).await)
    }

    /// Asks a person, durably; the same call asked about already is that question.
    ///
    /// # Errors
    /// When too much is asked, or it can be neither kept nor put on record.
    pub(crate) async fn put(self: &Arc<Self>, asks: Asks) -> Result<Put, Denial> {
        let Asks { question, digest, entry, caller } = asks;
        let lost =
            |why: String| Denial::plain(format!("it asks a person, and cannot be kept: {why}"), "try again later");
        let Some(book) = &self.book else {
            return Err(self.not_put(entry, lost("there is no store".into())).await);
        };
        let Some(place) = self.waiting.enter(&caller.principal) else {
            let denial = question.refuse("it asks a person, and so many calls of this client wait for one already");
            let fix = "pleach answer, which lists what they wait for";
            return Err(self.not_put(entry, denial.with_fix(fix)).await);
        };
        let limits = self.servers.live.now().policy.approvals;
        let asked = match asked(&question, &caller, limits.expire) {
            Ok(asked) => asked,
            Err(why) => return Err(self.not_put(entry, lost(why)).await),
        };
        // Before it is asked: a caller that goes meanwhile takes it back.
        let waits = Waits::new(self, &asked.id, place);
        let asked = match book.ask(asked.clone(), &digest, limits).await {
            Ok(Asking::Asked) => asked,
            Ok(Asking::Before(before)) => *before,
            Ok(Asking::Full(why)) => {
                waits.leave_it().await;
                let denial = question.refuse(&format!("it asks a person; {why}"));
                return Err(self.not_put(entry, denial.with_fix("pleach answer, which lists them")).await);
            }
            Err(why) => return Err(self.not_put(entry, lost(why.to_string())).await),
        };
        let waits = waits.instead(&asked.id);
        let entry = entry.with("question", asked.id.as_str()).decided(Decision::Ask(&question.rule));
        self.servers.audit.record(entry, Before::Reading).await.map_err(super::ledger::unrecorded)?;
        Ok(Put { asked, rule: question.rule, waits })
    }

    /// Nobody is asked, and the call is denied, which is on record.
    async fn not_put(&self, entry: Entry, denial: Denial) -> Denial {
        let _ = self.servers.audit.record(entry.decided(Decision::Deny(&denial)), Before::Reading).await;
        denial
    }

    /// Waits until somebody answered it, here or in another process, or it expired.
    pub(crate) async fn closed(&self, put: &Put) {
        match &self.book {
            Some(book) => book.closed(&put.asked.id).await,
            None => std::future::pending().await,
        }
    }

    /// The call was taken back: so is what it asked.
    pub(crate) async fn gone(&self, put: Put) {
        put.waits.over().await;
    }

    /// Judges a call again whose question was closed. A no that was given to it holds, whatever was
    /// allowed meanwhile: a rule that stands since, another policy. A yes that it did not need is
    /// void.
    pub(crate) async fn answered(&self, caller: &Caller, name: &str, arguments: Json, put: Put) -> Decided {
        let decided = self.judged_again(caller, name, arguments, &put).await;
        put.waits.over().await;
        decided
    }

    async fn judged_again(&self, caller: &Caller, name: &str, arguments: Json, put: &Put) -> Decided {
        if let Some((by, note)) = self.refused(put).await {
            let denial = said_no(put.asked.id.as_str(), &by, note, &put.rule);
            let entry = Entry::new("call").by(caller).with("tool", name).with("question", put.asked.id.as_str());
            return self.refusals_noted(Decided::Denied(denial), entry).await;
        }
        match self.decide_or_ask(caller, name, arguments).await {
            Wish::Decided(decided) => decided,
            Wish::Asks(_) => {
                let why = "the answer was for another call: one like this took it, or the tool changed meanwhile";
                Decided::Denied(Denial::plain(why, "call again, and a person is asked again"))
            }
        }
    }

    /// Who said no to a question, if somebody did.
    async fn refused(&self, put: &Put) -> Option<(String, Option<String>)> {
        let row = self.book.as_ref()?.question(&put.asked.id).await.ok()??;
        let (by, _) = row.closed?;
        match row.answer? {
            Answer::Deny { note } | Answer::Input { note, .. } => Some((by, note)),
            Answer::Allow { .. } => None,
        }
    }

    /// Nobody answered: the call is denied, the question stays open for whoever comes later.
    pub(crate) async fn unanswered(&self, caller: &Caller, put: Put, why: &str) -> Denial {
        let Put { asked, rule, waits } = put;
        waits.leave_it().await;
        let tool = asked.detail.get("tool").and_then(serde_json::Value::as_str).unwrap_or_default();
        let id = &asked.id;
        let allowed =
            format!("it asks a person, and {why}; a person answers with `pleach answer {id} allow`, then call again");
        let denial = Denial { rule: rule.text, who: None, allowed, place: rule.place, fix: None };
        let entry = Entry::new("call").by(caller).with("tool", tool).with("question", id.as_str());
        let _ = self.servers.audit.record(entry.decided(Decision::Deny(&denial)), Before::Reading).await;
        denial
    }

    /// Takes a standing rule back, which is on record first.
    ///
    /// # Errors
    /// Why it stands still.
    pub(crate) async fn revoke(&self, rule: &Standing, by: &str) -> Result<(), String> {
        let book = self.book.as_ref().ok_or("there is no store")?;
        let said = Rule { text: format!("revoked by {by}"), place: None };
        let entry = Entry::new("revoke").with("principal", rule.principal.as_str()).with("tool", rule.tool.as_str());
        let entry = entry.with("standing", rule.id.as_str()).decided(Decision::Allow(&said));
        self.servers.audit.record(entry, Before::Acting).await.map_err(|e| e.to_string())?;
        match book.revoke(&rule.id, by).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("rule {} does not stand any more", rule.id)),
            Err(why) => Err(why.to_string()),
        }
    }
}

/// What an answer is good for: this client under this chain, the tool and its server as they are now,
/// these arguments and where they lead.
fn bound_to(question: &Question<Call>, caller: &Caller) -> String {
    let Call { tool, arguments, .. } = question.what();
    let chain: Vec<Json> = caller.authority.chain().into_iter().map(Json::from).collect();
    let (name, hash, server) = (tool.name.as_str(), tool.hash.as_str(), tool.identity.as_str());
    let parts = [Json::from(name), hash.into(), server.into(), chain.into(), arguments.clone()];
    digest(&format!("{}{}", Json::from(parts.to_vec()).to_canonical(), approval::shown(question.what())))
}

/// What a caller is told to whom a person said no.
fn said_no(id: &str, by: &str, note: Option<String>, rule: &Rule) -> Denial {
    let note = note.map(|note| format!(": {note}")).unwrap_or_default();
    let allowed = format!("{by} said no ({id}){note}; do without it, or ask for something else");
    Denial { rule: rule.text.clone(), who: None, allowed, place: rule.place.clone(), fix: None }
}

fn asked(question: &Question<Call>, caller: &Caller, expire: Duration) -> Result<ports::Question, String> {
    let mut detail = approval::detail(question);
    detail["door"] = (*caller.door).into();
    // What the door remembers besides is needed to know who asks when it is answered.
    if let Some(origin) = caller.origin.as_ref().filter(|origin| origin.place != caller.door) {
        detail["place"] = (*origin.place).into();
    }
    let asked = clock();
    Ok(ports::Question {
        id: approval::fresh_id()?,
        run: String::new(),
        root: String::new(),
        principal: caller.principal.to_string(),
        kind: "approval".into(),
        text: format!("may {} call {}?", caller.who, question.what().tool.name),
        detail,
        chain: caller.authority.chain().into_iter().map(str::to_owned).collect(),
        asked,
        expires: Some(asked.saturating_add(u64::try_from(expire.as_millis()).unwrap_or(u64::MAX))),
    })
}
