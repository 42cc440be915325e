//! `GET /v1/runs/{id}/events`: everything that happens in a run and below it, as server-sent
//! events in the form of `run --json`.
//!
//! Pieces of replies (`model.delta`) are of the moment: they have no id and are not told again.

use super::problem::Problem;
use super::request::{Answered, Call};
use super::{Door, object, runs};
use crate::hosted::{Follow, Told};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, StatusCode};
use subagents::run::RunId;

/// `GET /v1/runs/{id}/events`
pub(super) async fn stream(call: Call) -> Answered {
    let row = runs::own(&call).await?;
    let after = after(&call, &row.root).await?;
    let place = call.door.0.watching.enter(&call.who.caller.principal).ok_or_else(|| {
        Problem::too_many("too many streams of yours stand", "close some; one stream tells of a whole tree")
    })?;
    let Door(door) = &call.door;
    let mut follow = Follow::new((&door.host, &door.store), &row, after, door.stop.clone(), Some(place)).await?;
    if follow.prepare().await? {
        // Nothing follows, and a browser is not to ask again.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let events = futures_util::stream::unfold(follow, |mut follow| async move {
        let next = bytes(follow.next().await?);
        Some((Ok::<_, std::convert::Infallible>(next), follow))
    });
    let (live, identity) = (call.door.0.live.clone(), call.who.identity.clone());
    let events = events.take_until(async move {
        match identity {
            Some(identity) => identity.over(&live).await,
            None => std::future::pending().await,
        }
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// The position after which to begin.
async fn after(call: &Call, root: &RunId) -> Result<u64, Problem> {
    let Some(id) = call.header("last-event-id")?.map(str::trim).filter(|id| !id.is_empty()) else { return Ok(0) };
    let unknown = || Problem::unfit(format!("Last-Event-ID {id:?} is no event of this run; leave it out to begin"));
    let after: u64 = id.parse().map_err(|_| unknown())?;
    let known = after == 0 || !call.door.0.store.since(root, after - 1, 1).await?.is_empty();
    if known { Ok(after) } else { Err(unknown()) }
}

fn bytes(told: Told) -> Bytes {
    match told {
        Told::Record(n, record) => Bytes::from(format!("id: {n}\ndata: {}\n\n", object::event(&record))),
        Told::Piece(seen) => Bytes::from(format!("data: {}\n\n", seen.to_json())),
        Told::Broken(why) => Bytes::from(format!("event: error\ndata: {}\n\n", Problem::from(why).to_json())),
        Told::Beat => Bytes::from_static(b": still here\n\n"),
    }
}
