//! A client's own call that a person is asked about: it waits, and whoever may answer does.
//!
//! ```text
//!  a row ─▶ the client's person may approve, and can be asked here?
//!             ├─ yes ─▶ elicitation, or `input_required` ─┐
//!             └─ no ──▶ [approvals] wait                  ├─▶ answered ─▶ judged afresh
//!           anybody else who may: CLI, REST ──────────────┤
//!                                                         ├─▶ nobody ─▶ denied, naming the question
//!                                                         └─▶ the call is taken back ─▶ so is it
//! ```
//!
//! The client's person is who answers an elicitation, unless a run makes the call: Pleach may be
//! among its own servers, and nobody sits there. Its model calls tools, and no tool of
//! Pleach's takes an approval of the client's own call.

use super::View;
use super::conversation::QUESTION_LIMIT;
use super::dialogs::Dialog;
use super::framework::questions::{answer_of, can_elicit, form};
use super::framework::{approvals, can_approve};
use crate::guard::{Asks, Put};
use adapters::mcp::{Exchange, Party};
use policies::budget::in_words;
use policies::permit::Denial;
use policies::resolve::Policy;
use std::sync::Arc;
use std::time::Duration;
use subagents::host::Approvals;
use tracing::warn;

/// What came of waiting.
pub(super) enum Came {
    /// It was answered, whatever the answer: the call is judged again.
    Answered(Box<Put>),
    /// It is not made.
    Denied(Denial),
    /// The caller took it back, and the question with it.
    Gone,
}

/// What a client's person made of a question.
enum Said {
    /// Answered.
    Answer,
    /// Put off, for this reason.
    Nothing(String),
}

/// Asks about a call, and waits for the answer as long as it may take here.
pub(super) async fn wait(view: &View, asks: Asks, exchange: &Exchange, of_run: bool) -> Came {
    let put = match view.guard.put(asks).await {
        Ok(put) => put,
        Err(denial) => return Came::Denied(denial),
    };
    let policy = view.guard.servers.live.now().policy.clone();
    let party = exchange.party.as_ref().filter(|p| !of_run && may_answer(view, &policy) && can_elicit(&***p));
    // Whoever has a dialog about it, or put it off, is not asked again: the call waits for others.
    let party = party.and_then(|p| Some((p, view.shared.dialogs.raise(&put.asked.id, &**p, &view.place)?)));
    let (limit, why) = match (&party, approvals(&policy)) {
        (Some(_), _) => (QUESTION_LIMIT, format!("nobody answered within {}", in_words(QUESTION_LIMIT))),
        (None, Approvals::Park) => {
            let wait = policy.approvals.wait;
            (wait, format!("nobody answered within {}", in_words(wait)))
        }
        (None, Approvals::Nobody(_)) => (Duration::ZERO, "no client may approve here".into()),
    };
    let id = &put.asked.id;
    warn!(caller = %view.caller.who, "{} pleach answer {id} allow, or deny", put.asked.text);
    let unanswered = tokio::select! {
        biased;
        () = exchange.cancel.cancelled() => {
            view.guard.gone(put).await;
            return Came::Gone;
        }
        () = view.guard.closed(&put) => return Came::Answered(Box::new(put)),
        said = person(view, &put, party) => match said {
            Said::Answer => return Came::Answered(Box::new(put)),
            Said::Nothing(why) => why,
        },
        () = tokio::time::sleep(limit) => why,
    };
    Came::Denied(view.guard.unanswered(&view.caller, put, &unanswered).await)
}

/// Whether whoever is there may answer for people: no part of somebody may.
fn may_answer(view: &View, policy: &Policy) -> bool {
    view.identity.carried.is_none() && can_approve(policy, &view.caller.principal)
}

/// Asks the client's person, where there is one.
async fn person(view: &View, put: &Put, party: Option<(&Arc<dyn Party>, Dialog)>) -> Said {
    let Some((party, dialog)) = party else { return std::future::pending().await };
    let Ok(said) = party.ask("elicitation/create", form(&put.asked)).await else {
        // It cannot be asked after all; others can.
        tokio::time::sleep(view.guard.servers.live.now().policy.approvals.wait).await;
        return Said::Nothing("nobody answered".into());
    };
    let Some(answer) = answer_of(&put.asked, &said) else {
        dialog.put_off();
        return Said::Nothing("they put it off".into());
    };
    let principal = &view.caller.principal;
    // Minutes may have passed, and another policy be in force.
    if !may_answer(view, &view.guard.servers.live.now().policy) {
        return Said::Nothing("this client may not approve any more".into());
    }
    match view.shared.ground.answer(&put.asked.id, answer, principal).await {
        Ok(()) => Said::Answer,
        Err(why) => Said::Nothing(why),
    }
}
