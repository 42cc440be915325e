//! Runs as they are, and what can be told to them.

use super::problem::{Kind, Problem};
use super::request::{Answered, Call, json, located};
use super::{Door, object};
use crate::hosted::{self, Place};
use crate::mcp::framework::SEND;
use adapters::store::{Parent, RunsFilter};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json as value};
use subagents::host::{Done, Then};
use subagents::ports::{Journal, RunRow};
use subagents::run::{RunId, State};

/// `GET /v1/runs`
pub(super) async fn list(call: Call) -> Answered {
    let filter = filter(&call)?;
    // A cursor is good for the filters it came with.
    let purpose = format!("rest runs {filter:?}");
    let after = call.cursor(&purpose)?;
    let after = after.as_ref().and_then(|a| Some((a.get("at")?.as_u64()?, a.get("run")?.as_str()?)));
    let limit = call.limit()?;
    let mut runs = call.door.0.store.page(&filter, after, limit.saturating_add(1)).await?;
    let more = runs.len() > limit as usize;
    runs.truncate(limit as usize);
    let mut page = value!({ "runs": runs.iter().map(|l| object::row(&l.row)).collect::<Vec<Value>>() });
    if let Some(last) = runs.last().filter(|_| more) {
        let last = value!({ "at": last.row.started, "run": last.row.run.as_str() });
        page["next_cursor"] = call.seal(&purpose, &last).into();
    }
    Ok(json(StatusCode::OK, &page))
}

fn filter(call: &Call) -> Result<RunsFilter, Problem> {
    let state = call.query("state");
    if let Some(state) = state.filter(|s| State::from_word(s).is_none()) {
        let words: Vec<&str> = State::ALL.iter().map(|s| s.as_str()).collect();
        return Err(Problem::unfit(format!("state {state:?} is none; the states are: {}", words.join(", "))));
    }
    let parent = match call.query("parent") {
        None => Parent::None,
        Some("any") => Parent::Any,
        Some(run) => Parent::Of(RunId::known(run)),
    };
    Ok(RunsFilter {
        principal: call.who.principal().to_owned(),
        state: state.map(str::to_owned),
        agent: call.query("agent").map(str::to_owned),
        parent,
    })
}

/// A run of whoever asks.
pub(super) async fn own(call: &Call) -> Result<RunRow, Problem> {
    let found = call.door.0.store.run_of(call.who.principal(), &call.id).await?;
    found.map(|listed| listed.row).ok_or_else(|| Problem::no_run(&call.id))
}

/// `GET /v1/runs/{id}`
pub(super) async fn get(call: Call) -> Answered {
    let row = own(&call).await?;
    Ok(json(StatusCode::OK, &object::run(&call.door, &call.who, &row).await?))
}

/// A run as it is after something was told to it.
async fn after(call: &Call, status: StatusCode) -> Answered {
    let row = own(call).await?;
    Ok(json(status, &object::run(&call.door, &call.who, &row).await?))
}

/// `POST /v1/runs/{id}/cancel`
pub(super) async fn cancel(call: Call) -> Answered {
    let row = own(&call).await?;
    let done = call.door.0.host.cancel(&row.run, call.who.principal()).await;
    let done = done.map_err(|e| Problem::of_host(e, Kind::Conflict))?;
    // Whoever waited for a child that is cancelled where it lies has something to do now.
    if done == Done::Stored && row.run != row.root {
        call.door.go_on(&row.root, call.door.0.working.enter(&call.who.caller.principal));
    }
    after(&call, StatusCode::ACCEPTED).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    text: String,
}

/// `POST /v1/runs/{id}/messages`
pub(super) async fn message(call: Call) -> Answered {
    let row = own(&call).await?;
    // The same rule as for saying it through the MCP door.
    if let Err(denial) = call.door.0.guard.own(&call.who.caller, SEND).await {
        return Err(Problem::new(Kind::Forbidden, denial.for_model(), "ask the operator"));
    }
    let Message { text } = call.read()?;
    if text.trim().is_empty() {
        return Err(Problem::unfit("text is empty"));
    }
    let place = room(&call)?;
    let done = call.door.0.host.send(&row.run, call.who.principal(), text, Then::Leave).await;
    if done.map_err(|e| Problem::of_host(e, Kind::Conflict))? == Done::Stored {
        call.door.go_on(&row.root, Some(place));
    }
    after(&call, StatusCode::ACCEPTED).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fork {
    at: u64,
}

/// `POST /v1/runs/{id}/fork`
pub(super) async fn fork(call: Call) -> Answered {
    let row = own(&call).await?;
    let Fork { at } = call.read()?;
    // What a person holds or ended is not gone on with under another name.
    let held = row.waiting.as_deref() == Some("pause");
    if held || row.state == State::Cancelled.as_str() {
        let why = if held { "it is paused" } else { "it was cancelled" };
        let next = "ask whoever did that; on the command line `pleach fork` may";
        return Err(Problem::new(Kind::Conflict, format!("run {}: {why}", row.run), next));
    }
    let place = room(&call)?;
    let fork = call.door.0.host.fork(&row.run, at).await.map_err(|e| Problem::of_host(e, Kind::Unfit))?;
    let row = call.door.0.store.row(&fork).await?.ok_or_else(|| Problem::no_run(fork.as_str()))?;
    call.door.go_on(&fork, Some(place));
    Ok(located(StatusCode::CREATED, &object::run(&call.door, &call.who, &row).await?))
}

/// Room for one more run of this client that is worked on.
pub(super) fn room(call: &Call) -> Result<Place, Problem> {
    call.door.0.working.enter(&call.who.caller.principal).ok_or_else(|| {
        let next = "wait until some have ended, or cancel them";
        Problem::too_many("too many runs of yours are under way", next)
    })
}

impl Door {
    /// Goes on with a tree that nobody works on.
    pub(super) fn go_on(&self, root: &RunId, place: Option<Place>) {
        hosted::go_on((&self.0.host, &self.0.tasks), root, place);
    }
}
