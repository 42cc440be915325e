//! `POST /v1/runs`: a root run for a client, once for each of its keys.
//!
//! ```text
//!  key, webhook: noted ─▶ Host::start ─▶ its first event is journalled ─▶ 202
//!     │ known, same request: that run (begun now, if a crash came in between)
//!     └ known, another request: 422
//! ```

use super::problem::{Kind, Problem};
use super::request::{Answered, Call, located};
use super::{Door, object, runs, webhook};
use crate::hosted;
use crate::mcp::framework::approvals;
use adapters::store::{Reservation, Reserved};
use http::StatusCode;
use policies::json::Json;
use policies::names::Name;
use policies::resolve::{Limits, budget_request};
use serde::Deserialize;
use serde_json::Value;
use subagents::host::Start;
use subagents::ports::Journal;
use subagents::run::RunId;
use tokio_util::sync::CancellationToken;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    agent: String,
    prompt: String,
    budget: Option<Value>,
    webhook: Option<webhook::Wanted>,
}

/// `POST /v1/runs`
pub(super) async fn start(call: Call) -> Answered {
    let wanted: Wanted = call.read()?;
    let key = key(&call)?;
    let agent = agent(&call, &wanted.agent).await?;
    if wanted.prompt.trim().is_empty() {
        return Err(Problem::unfit("prompt is empty"));
    }
    let budget = wanted.budget.as_ref().map(|b| budget_request(&Json::from(b))).transpose();
    let budget = budget.map_err(|why| Problem::unfit(format!("budget: {why}")))?;
    let limits = call.who.limits.meet(budget.unwrap_or(Limits::NONE));
    let hook = match wanted.webhook {
        Some(hook) => Some(webhook::registered(&call, hook).await?),
        None => None,
    };
    let run = RunId::fresh().map_err(Problem::failed)?;
    // One after another under one key: the second finds what the first began.
    let _lane = match &key {
        Some((key, _)) => Some(call.door.0.lanes.turn(call.who.principal(), key).await),
        None => None,
    };
    let principal = call.who.principal().to_owned();
    let reservation = Reservation { principal, key, run: run.clone(), webhook: hook, push: None, renewed: None };
    let noted = reservation.key.is_some() || reservation.webhook.is_some();
    let reserved = if noted { call.door.0.store.reserve(reservation).await? } else { Reserved::Fresh };
    let run = match reserved {
        Reserved::Fresh => run,
        Reserved::Before(run) => run,
        Reserved::Other => {
            let detail = "this Idempotency-Key came with another body before";
            return Err(Problem::new(Kind::KeyReused, detail, "use a key of its own for each request"));
        }
    };
    let known = call.door.0.store.row(&run).await?;
    let replayed = known.is_some();
    if known.is_none() {
        let start = Start {
            id: run.clone(),
            agent,
            prompt: wanted.prompt,
            principal: call.who.caller.principal.clone(),
            door: call.who.caller.authority.clone(),
            place: call.who.place(),
            limits,
            shared: None,
            inbound: None,
            approvals: approvals(&call.door.0.live.now().policy),
            cancel: CancellationToken::new(),
        };
        begin(&call, start).await?;
    }
    let row = call.door.0.store.row(&run).await?.ok_or_else(|| Problem::no_run(run.as_str()))?;
    let mut response = located(StatusCode::ACCEPTED, &object::run(&call.door, &call.who, &row).await?);
    if replayed {
        response.headers_mut().insert("idempotency-replayed", http::HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// The agent, if the client may start it; one it may not and one that never was look the same.
async fn agent(call: &Call, name: &str) -> Result<Name, Problem> {
    if let Err(denial) = call.door.0.guard.own(&call.who.caller, subagents::tools::agent::NAME).await {
        return Err(Problem::new(Kind::Forbidden, denial.for_model(), "ask the operator"));
    }
    let policy = &call.door.0.live.now().policy;
    let may = |n: &Name| call.who.may_start.contains(n) && policy.agents.contains_key(n);
    Name::try_from(name).ok().filter(may).ok_or_else(|| {
        let names: Vec<&str> = call.who.may_start.iter().map(Name::as_str).collect();
        let next = match names.is_empty() {
            true => "no agent may be started by you; ask the operator for may_start".to_owned(),
            false => format!("agent is one of: {}", names.join(", ")),
        };
        Problem::new(Kind::Forbidden, format!("agent {name:?} may not be started by you"), next)
    })
}

/// The client's key, and what it is used for, sealed: the body may hold a secret.
fn key(call: &Call) -> Result<Option<(String, String)>, Problem> {
    let Some(key) = call.header("idempotency-key")? else { return Ok(None) };
    if !(1..=255).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return Err(Problem::unfit("Idempotency-Key has not 1 to 255 printable characters"));
    }
    let body: Value = call.read()?;
    let digest = policies::json::digest(&Json::from(&body).to_canonical());
    Ok(Some((key.to_owned(), call.seal("rest key", &digest.into()))))
}

/// Starts it, and returns when its first event is journalled.
async fn begin(call: &Call, start: Start) -> Result<(), Problem> {
    let place = runs::room(call)?;
    let Door(door) = &call.door;
    let begun = hosted::begin((&door.host, &door.tasks), &door.store, start, place).await;
    begun.map_err(|why| Problem::of_host(why, Kind::Conflict))
}
