//! `ListTasks` of a peer: the caller's tasks as the store keeps them. The peer itself cannot tell
//! clients apart, so it is asked about single tasks and never for a list.

use super::super::fault::Fault;
use super::super::list::wanted;
use super::Passing;
use super::names::REPLIED;
use adapters::store::{PeerFilter, PeerTask};
use futures_util::StreamExt;
use policies::json::Json;
use serde_json::{Value, json};

/// Tasks of a page, unless it says otherwise.
const PAGE: u64 = 50;
const MOST: u64 = 100;
/// Tasks the peer is asked about at a time.
const ABREAST: usize = 8;

pub(super) async fn list(passing: &Passing) -> Result<Value, Fault> {
    let asked = &passing.asked;
    let history = asked.history()?.or(Some(0));
    let artifacts = asked.params.get("includeArtifacts") == Some(&Value::Bool(true));
    let size = match asked.params.get("pageSize") {
        None | Some(Value::Null) => PAGE,
        Some(size) => {
            let size = size.as_u64().filter(|n| (1..=MOST).contains(n));
            size.ok_or_else(|| Fault::field("pageSize", format!("it is a number from 1 to {MOST}")))?
        }
    };
    let filter = filter(passing)?;
    let (store, seal) = (&asked.door.0.store, &asked.door.0.seal);
    let purpose = format!("a2a tasks of {} {filter:?}", passing.of.peer);
    let after = match asked.text("pageToken") {
        None => {
            refresh(passing).await?;
            None
        }
        Some(token) => {
            let opened = seal.open(&purpose, asked.who.principal(), token).map(|json| json.to_serde());
            let read = |at: &Value| Some((at.get("at")?.as_u64()?, at.get("id")?.as_str()?.to_owned()));
            let why = "it is none of these filters; begin again without it";
            Some(opened.as_ref().and_then(read).ok_or_else(|| Fault::field("pageToken", why))?)
        }
    };
    let after = after.as_ref().map(|(at, id)| (*at, id.as_str()));
    let limit = u32::try_from(size).unwrap_or(u32::MAX);
    let (mut rows, total) = store.peer_tasks(&passing.of, &filter, after, limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let mut next = String::new();
    if let Some(last) = rows.last().filter(|_| more) {
        next = seal.seal(&purpose, asked.who.principal(), &Json::from(&json!({ "at": last.changed, "id": last.id })));
    }
    let shown: Vec<_> = rows.iter().map(|row| shown(passing, row, history, artifacts)).collect();
    let tasks: Vec<Value> = futures_util::stream::iter(shown).buffered(ABREAST).collect().await;
    Ok(json!({ "tasks": tasks, "nextPageToken": next, "pageSize": size, "totalSize": total }))
}

/// A task, with what else is wanted of it.
async fn shown(passing: &Passing, row: &PeerTask, history: Option<usize>, artifacts: bool) -> Value {
    if !artifacts && history == Some(0) {
        return kept(row);
    }
    let Ok(mut task) = passing.look("GetTask", row, history).await else { return kept(row) };
    if let Some(task) = task.as_object_mut().filter(|_| !artifacts) {
        task.remove("artifacts");
    }
    task
}

/// A task as it was heard of last.
fn kept(row: &PeerTask) -> Value {
    let status = row.status.as_deref().and_then(|text| Json::parse(text.as_bytes(), Default::default()).ok());
    let status = status.map_or_else(|| json!({ "state": row.state }), |status| status.to_serde());
    json!({ "id": row.id, "contextId": row.context, "status": status })
}

/// Asks how those are that had not ended when they were heard of last.
async fn refresh(passing: &Passing) -> Result<(), Fault> {
    let store = &passing.asked.door.0.store;
    let limit = u32::try_from(MOST).unwrap_or(u32::MAX);
    let (rows, _) = store.peer_tasks(&passing.of, &PeerFilter::default(), None, limit).await?;
    let going = rows.iter().filter(|row| !is_over(&row.state));
    let looks: Vec<_> = going.map(|row| passing.look("GetTask", row, Some(0))).collect();
    // One that cannot be asked about is shown as it was heard of.
    let _: Vec<Result<Value, Fault>> = futures_util::stream::iter(looks).buffer_unordered(ABREAST).collect().await;
    Ok(())
}

fn is_over(state: &str) -> bool {
    let over = ["TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED", REPLIED];
    over.contains(&state)
}

fn filter(passing: &Passing) -> Result<PeerFilter, Fault> {
    let asked = &passing.asked;
    let (state, after) = wanted(asked)?;
    Ok(PeerFilter { context: asked.text("contextId").map(str::to_owned), state, after })
}
