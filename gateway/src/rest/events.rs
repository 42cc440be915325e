//! `GET /v1/runs/{id}/events`: everything that happens in a run and below it, as server-sent
//! events in the form of `run --json`.
//!
//! What is sent is read from the store, by position in the tree: positions have no gaps and are
//! in the order of the commits, so nothing is lost or told twice wherever a stream is taken up.
//! What the host broadcasts is a hint to read on, and for another process's trees a clock is.
//! Pieces of replies (`model.delta`) are of the moment: they have no id and are not told again.

use super::problem::Problem;
use super::request::{Answered, Call, Place};
use super::{Door, object, runs};
use adapters::store::{Store, StoreError};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use subagents::event::{Event, Record, Seen};
use subagents::host::Host;
use subagents::ports::RunRow;
use subagents::run::RunId;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A silent stream says that it stands.
const BEAT: Duration = Duration::from_secs(15);
/// How often another process's tree is looked at, and one of this process's to be sure.
const LOOK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// Events read at a time.
const BATCH: u32 = 256;

/// `GET /v1/runs/{id}/events`
pub(super) async fn stream(call: Call) -> Answered {
    let row = runs::own(&call).await?;
    let after = after(&call, &row.root).await?;
    let place = call.door.0.watching.enter(&call.who.caller.principal).ok_or_else(|| {
        Problem::too_many("too many streams of yours stand", "close some; one stream tells of a whole tree")
    })?;
    let mut follow = Follow::new(&call.door, &row, after, place).await?;
    while follow.dirty && follow.ready.is_empty() {
        follow.read().await?;
    }
    if follow.ready.is_empty() && follow.finished {
        // Nothing follows, and a browser is not to ask again.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let events = futures_util::stream::unfold(follow, |mut follow| async move {
        let next = follow.next().await?;
        Some((Ok::<_, std::convert::Infallible>(next), follow))
    });
    let (live, identity) = (call.door.0.live.clone(), call.who.identity.clone());
    let events = events.take_until(async move {
        match identity {
            Some(identity) => identity.gone(&live).await,
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

/// A stream that stands.
struct Follow {
    store: Store,
    host: Arc<Host>,
    stop: CancellationToken,
    root: RunId,
    run: RunId,
    /// The last position that was read.
    at: u64,
    /// The runs of the tree, and those that are told of.
    tree: BTreeSet<String>,
    below: BTreeSet<String>,
    /// The last event of each run.
    last: BTreeMap<String, u64>,
    seen: Receiver<Seen>,
    /// What came from the host and is still to be looked at.
    pending: Option<Seen>,
    ready: VecDeque<Bytes>,
    /// There may be more to read.
    dirty: bool,
    /// The run has ended, and nothing of it came since.
    finished: bool,
    over: bool,
    look: Instant,
    beat: Instant,
    _place: Place,
}

impl Follow {
    async fn new(door: &Door, row: &RunRow, at: u64, place: Place) -> Result<Self, StoreError> {
        let (run, root) = (&row.run, &row.root);
        // Before anything is read, so that what happens from now on is heard of.
        let seen = door.0.host.watch();
        let (mut tree, mut below) = (BTreeSet::new(), BTreeSet::new());
        // Parents come before children.
        for listed in door.0.store.tree(root).await? {
            let (id, parent) = (listed.row.run, listed.row.parent);
            if id == *run || parent.is_some_and(|p| below.contains(p.as_str())) {
                below.insert(id.to_string());
            }
            tree.insert(id.to_string());
        }
        Ok(Self {
            store: door.0.store.clone(),
            host: door.0.host.clone(),
            stop: door.0.stop.clone(),
            root: root.clone(),
            run: run.clone(),
            at,
            tree,
            below,
            last: BTreeMap::new(),
            seen,
            pending: None,
            ready: VecDeque::new(),
            dirty: true,
            // Where it has not, what is read says so.
            finished: row.ended.is_some(),
            over: false,
            look: Instant::now(),
            beat: Instant::now() + BEAT,
            _place: place,
        })
    }

    /// Reads on in the store.
    async fn read(&mut self) -> Result<(), StoreError> {
        let batch = self.store.since(&self.root, self.at, BATCH).await?;
        self.dirty = batch.len() == BATCH as usize;
        let look = if self.host.works_on(&self.root) { LOOK.1 } else { LOOK.0 };
        self.look = Instant::now() + look;
        for (n, record) in batch {
            self.at = n;
            self.take(n, &record);
        }
        Ok(())
    }
    fn take(&mut self, n: u64, record: &Record) {
        let run = record.run.to_string();
        if let Event::Started(started) = &record.event
            && started.parent.as_ref().is_some_and(|parent| self.below.contains(parent))
        {
            self.below.insert(run.clone());
        }
        self.tree.insert(run.clone());
        if record.run == self.run {
            self.finished = matches!(record.event, Event::Finished { .. });
        }
        self.last.insert(run.clone(), record.seq);
        if self.below.contains(&run) {
            self.ready.push_back(Bytes::from(format!("id: {n}\ndata: {}\n\n", object::event(record))));
        }
    }

    /// Looks at what the host says: a record is a hint, a piece of a reply is passed on.
    fn hear(&mut self, seen: Seen) {
        let run = seen.run().as_str();
        match &seen {
            Seen::Record(record) => {
                let mine = matches!(&record.event, Event::Started(started) if started.root == self.root.as_str());
                self.dirty |= mine || self.tree.contains(run);
            }
            // One that comes after the event it led to is not told any more.
            Seen::Delta { seq, .. } => {
                if self.below.contains(run) && self.last.get(run).is_none_or(|last| seq >= last) {
                    let delta: Value = seen.to_json();
                    self.ready.push_back(Bytes::from(format!("data: {delta}\n\n")));
                }
            }
        }
    }
    /// What the host said meanwhile, up to the next piece of a reply if something is to be read.
    fn drain(&mut self) {
        loop {
            let Some(seen) = self.pending.take().or_else(|| self.seen.try_recv().ok()) else { return };
            if self.dirty && matches!(seen, Seen::Delta { .. }) {
                self.pending = Some(seen);
                return;
            }
            self.hear(seen);
        }
    }

    /// The next bytes.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                self.beat = Instant::now() + BEAT;
                return Some(ready);
            }
            if self.over {
                return None;
            }
            self.drain();
            if self.dirty {
                if let Err(why) = self.read().await {
                    self.over = true;
                    let problem = Problem::from(why).to_json();
                    return Some(Bytes::from(format!("event: error\ndata: {problem}\n\n")));
                }
                continue;
            }
            if !self.ready.is_empty() {
                continue;
            }
            if self.finished {
                self.over = true;
                continue;
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                seen = self.seen.recv() => match seen {
                    Ok(seen) => self.hear(seen),
                    Err(RecvError::Lagged(_)) => self.dirty = true,
                    Err(RecvError::Closed) => return None,
                },
                () = tokio::time::sleep_until(self.look) => self.dirty = true,
                () = tokio::time::sleep_until(self.beat) => {
                    self.beat = Instant::now() + BEAT;
                    return Some(Bytes::from_static(b": still here\n\n"));
                }
            }
        }
    }
}
