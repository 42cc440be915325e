//! Answers in the record. What a person says is put there before anything follows from it
//! (`Gate::record`); what ends by itself, or is used or taken back, here.

use super::Guard;
use crate::audit::{Before, Decision, Entry};
use adapters::store::Withdrawn;
use policies::json::Json;
use policies::permit::{Denial, Rule};
use subagents::approval::{self, ENDED, LATE, WITHDRAWN};
use subagents::ports::{Journal, Question};
use subagents::run::Caller;

impl Guard {
    /// Takes a question of a client's own call back, or the yes that the call did not use.
    pub(super) async fn withdraw(&self, id: &str) {
        let Some(book) = &self.book else { return };
        match book.withdraw(id).await {
            Ok(Withdrawn::Nothing) => {}
            Ok(Withdrawn::Question) => self.note_ended().await,
            Ok(Withdrawn::Yes) => {
                let Ok(Some(row)) = book.question(id).await else { return };
                let by = row.closed.map(|(by, _)| by).unwrap_or_default();
                let entry = of(&row.question).with("answer", "yes, not used").with("by", by);
                let why = Denial::plain("the call went another way, and the yes is good for nothing", "");
                let _ = self.servers.audit.record(entry.decided(Decision::Deny(&why)), Before::Reading).await;
            }
            Err(why) => tracing::error!("question {id} cannot be taken back: {why}"),
        }
    }

    /// Puts on record what ended without an answer: nobody answered in time, whoever asked took it
    /// back, its run is over.
    pub(crate) async fn note_ended(&self) {
        let Some(book) = &self.book else { return };
        // One at a time, so that each is put there once.
        let _alone = self.noting.lock().await;
        loop {
            let ended = match book.unnoted().await {
                Ok(ended) if ended.is_empty() => return,
                Ok(ended) => ended,
                Err(why) => return tracing::error!("questions that ended cannot be looked for: {why}"),
            };
            let mut noted = Vec::new();
            for one in ended {
                let word = match one.by.as_str() {
                    LATE => "expired",
                    WITHDRAWN => "withdrawn",
                    ENDED => "its run ended",
                    _ => "closed",
                };
                let entry = of(&one.question).with("answer", word).with("by", one.by.as_str()).with("closed", one.at);
                let why = Denial::plain(approval::over(&one.by), "");
                let recorded = self.servers.audit.record(entry.decided(Decision::Deny(&why)), Before::Reading).await;
                if recorded.is_err() {
                    return;
                }
                noted.push(one.question.id);
            }
            if let Err(why) = book.noted(noted).await {
                return tracing::error!("what is on record cannot be noted: {why}");
            }
        }
    }

    /// Puts on record that somebody was not let answer.
    pub(crate) async fn refuse_answer(&self, caller: &Caller, question: &str, why: &Denial) {
        let entry = Entry::new("answer").by(caller).with("question", question).with("answer", "refused");
        let _ = self.servers.audit.record(entry.decided(Decision::Deny(why)), Before::Reading).await;
    }

    /// Puts on record that a yes is used up by a call.
    ///
    /// # Errors
    /// When it cannot be: then the call is not made.
    pub(super) async fn note_spent(
        &self,
        caller: &Caller,
        (question, by): (&str, &str),
        tool: &str,
        rule: &Rule,
    ) -> Result<(), Denial> {
        let entry = Entry::new("spend").by(caller).with("question", question).with("tool", tool).with("by", by);
        let recorded = self.servers.audit.record(entry.decided(Decision::Allow(rule)), Before::Acting).await;
        recorded.map(drop).map_err(super::ledger::unrecorded)
    }
}

/// The record of a question, whoever's it is by now.
fn of(question: &Question) -> Entry {
    let text = |key: &str| question.detail.get(key).and_then(serde_json::Value::as_str);
    let mut entry = Entry::new("answer").with("principal", question.principal.as_str());
    for (key, value) in [("door", text("door")), ("tool", text("tool"))] {
        if let Some(value) = value {
            entry = entry.with(key, value);
        }
    }
    if !question.run.is_empty() {
        entry = entry.with("run", question.run.as_str());
    }
    let chain: Vec<Json> = question.chain.iter().map(|who| who.as_str().into()).collect();
    entry.with("chain", chain).with("question", question.id.as_str())
}
