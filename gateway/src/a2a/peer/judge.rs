//! Whether a message may leave: as a call of the skill it is for, under the rules of every such call.
//!
//! ```text
//!  one skill ─▶ allow ─▶ leaves
//!           ├─▶ deny ─▶ refused
//!           └─▶ ask ─▶ a row: open until answered ─▶ judged afresh ─▶ leaves, or is refused
//!                        └ nobody within [approvals] wait ─▶ refused, naming the question: the same
//!                          message again, once somebody said yes, leaves
//!  no skill in particular ─▶ under the rules of all; where one asks, it is to be named
//! ```

use super::super::fault::{Fault, Kind};
use super::{Passing, no_peer, skill_of};
use crate::guard::{Asks, Decided, Guard, Put, Wish};
use crate::mcp::framework::approvals;
use policies::action::Call;
use policies::budget::in_words;
use policies::json::Json;
use policies::manifest::Tool;
use policies::permit::{Denial, Permit};
use policies::tools::Mode;
use std::sync::Arc;
use std::time::Duration;
use subagents::host::Approvals;

/// The permit of a message with these arguments; under several tools it leaves as a call of the one
/// that may do most.
pub(super) async fn judged(passing: &Passing, tools: &[Arc<Tool>], arguments: Json) -> Result<Permit<Call>, Fault> {
    if let [only] = tools {
        return alone(passing, &only.name, arguments).await;
    }
    let caller = &passing.asked.who.caller;
    let guard: &Guard = &passing.asked.door.0.guard;
    let mut tools: Vec<&Arc<Tool>> = tools.iter().collect();
    tools.sort_by_key(|tool| tool.access);
    let asks = |tool: &&&Arc<Tool>| caller.authority.grant().tools.mode(&tool.name) == Mode::Ask;
    if let Some(tool) = tools.iter().find(asks) {
        let why = format!(
            "a person is asked about skill {:?} of {}, so name the one it is for in metadata {{\"skillId\": …}}",
            skill_of(tool),
            passing.peer
        );
        return Err(Fault::field("message.metadata", why));
    }
    let mut permit = None;
    for tool in tools {
        permit = Some(permitted(passing, guard.decide(caller, &tool.name, arguments.clone()).await)?);
    }
    permit.ok_or_else(|| no_peer(passing.peer.as_str()))
}

fn permitted(passing: &Passing, decided: Decided) -> Result<Permit<Call>, Fault> {
    match decided {
        Decided::Allowed(permit, _) => Ok(permit),
        Decided::Denied(denial) => Err(Fault::new(Kind::Forbidden, denial.for_model())),
        Decided::Unknown => Err(no_peer(passing.peer.as_str())),
    }
}

async fn alone(passing: &Passing, tool: &str, arguments: Json) -> Result<Permit<Call>, Fault> {
    let (guard, caller) = (&passing.asked.door.0.guard, &passing.asked.who.caller);
    let asks = match guard.decide_or_ask(caller, tool, arguments).await {
        Wish::Decided(decided) => return permitted(passing, decided),
        Wish::Asks(asks) => asks,
    };
    let again = asks.arguments();
    let decided = match Box::pin(put(passing, *asks)).await? {
        Err(denial) => Decided::Denied(denial),
        Ok(put) => guard.answered(caller, tool, again, put).await,
    };
    permitted(passing, decided)
}

/// Asks a person and waits for the answer; why it does not leave, where nobody gave one.
async fn put(passing: &Passing, asks: Asks) -> Result<Result<Put, Denial>, Fault> {
    let asked = &passing.asked;
    let guard = &asked.door.0.guard;
    let put = match guard.put(asks).await {
        Ok(put) => put,
        Err(denial) => return Ok(Err(denial)),
    };
    let policy = asked.door.0.live.now().policy.clone();
    let (limit, why) = match approvals(&policy) {
        Approvals::Park => {
            let wait = policy.approvals.wait;
            (wait, format!("nobody answered within {}", in_words(wait)))
        }
        Approvals::Nobody(_) => (Duration::ZERO, "no client may approve here".to_owned()),
    };
    let id = &put.asked.id;
    tracing::warn!(caller = %asked.who.caller.who, "{} pleach answer {id} allow, or deny", put.asked.text);
    tokio::select! {
        biased;
        () = guard.closed(&put) => Ok(Ok(put)),
        () = asked.gone() => Err(Fault::new(Kind::Unauthenticated, "you are nobody here any more")),
        () = asked.door.0.stop.cancelled() => {
            let why = "pleach is ending; say it again when it serves";
            Err(Fault::new(Kind::Unavailable, why).with("retry-after", "5"))
        }
        () = tokio::time::sleep(limit) => Ok(Err(guard.unanswered(&asked.who.caller, put, &why).await)),
    }
}
