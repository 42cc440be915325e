//! `ListTasks` (A2A 1.0, section 3.1.4): the caller's tasks, latest change first, page by page.

use super::fault::Fault;
use super::ops::Asked;
use super::tale::TaskState;
use super::updates;
use adapters::store::TasksFilter;
use policies::json::Json;
use serde_json::{Value, json};

/// Tasks of a page, unless it says otherwise.
const PAGE: u64 = 50;
const MOST: u64 = 100;

pub(super) async fn list(asked: &Asked) -> Result<Value, Fault> {
    // A page of tasks is an overview: what was said is told where it is asked for.
    let history = asked.history()?.or(Some(0));
    let artifacts = asked.params.get("includeArtifacts") == Some(&Value::Bool(true));
    let size = match asked.params.get("pageSize") {
        None | Some(Value::Null) => PAGE,
        Some(size) => {
            let size = size.as_u64().filter(|n| (1..=MOST).contains(n));
            size.ok_or_else(|| Fault::field("pageSize", format!("it is a number from 1 to {MOST}")))?
        }
    };
    let filter = filter(asked)?;
    // A token is good for the filters it came with.
    let purpose = format!("a2a tasks {filter:?}");
    let seal = &asked.door.0.seal;
    let after = match asked.text("pageToken") {
        None => None,
        Some(token) => {
            let opened = seal.open(&purpose, asked.who.principal(), token).map(|json| json.to_serde());
            let read = |at: &Value| Some((at.get("at")?.as_u64()?, at.get("run")?.as_str()?.to_owned()));
            let opened = opened.as_ref().and_then(read);
            let why = "it is none of these filters; begin again without it";
            Some(opened.ok_or_else(|| Fault::field("pageToken", why))?)
        }
    };
    let after = after.as_ref().map(|(at, run)| (*at, run.as_str()));
    let limit = u32::try_from(size).unwrap_or(u32::MAX);
    let mut page = asked.door.0.store.tasks(&filter, after, limit + 1).await?;
    let more = page.tasks.len() > limit as usize;
    page.tasks.truncate(limit as usize);
    let mut next = String::new();
    if let Some((last, at)) = page.tasks.last().filter(|_| more) {
        let last = json!({ "at": at, "run": last.row.run.as_str() });
        next = seal.seal(&purpose, asked.who.principal(), &Json::from(&last));
    }
    let mut tasks = Vec::new();
    for (listed, _) in &page.tasks {
        let tale = updates::read(&asked.door.0.store, &listed.row).await?;
        tasks.push(updates::shown(&asked.door.0.store, &tale, history, artifacts).await?);
    }
    Ok(json!({ "tasks": tasks, "nextPageToken": next, "pageSize": size, "totalSize": page.total }))
}

/// The state and the time that are asked for: `status` and `statusTimestampAfter`.
///
/// # Errors
/// When one of them is none.
pub(super) fn wanted(asked: &Asked) -> Result<(Option<String>, Option<u64>), Fault> {
    if asked.params.get("status").is_some_and(|status| !status.is_string() && !status.is_null()) {
        return Err(Fault::field("status", "it is the name of a state"));
    }
    let state = match asked.text("status") {
        None | Some("TASK_STATE_UNSPECIFIED") => None,
        Some(word) => {
            let known = TaskState::ALL.iter().find(|state| state.as_str() == word);
            let words: Vec<&str> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
            let known = known.ok_or_else(|| Fault::field("status", format!("it is one of: {}", words.join(", "))))?;
            Some(known.as_str().to_owned())
        }
    };
    let after = match asked.text("statusTimestampAfter") {
        None => None,
        Some(text) => {
            let at = text.parse::<jiff::Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
            let why = "it is a time such as 2026-11-20T10:00:00Z";
            Some(at.ok_or_else(|| Fault::field("statusTimestampAfter", why))?)
        }
    };
    Ok((state, after))
}

fn filter(asked: &Asked) -> Result<TasksFilter, Fault> {
    let (state, after) = wanted(asked)?;
    Ok(TasksFilter {
        principal: asked.who.principal().to_owned(),
        agent: asked.agent.to_string(),
        context: asked.text("contextId").map(str::to_owned),
        state,
        after,
    })
}
