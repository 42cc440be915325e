//! Tasks as they stand, and as they change.

use super::Door;
use super::fault::{Fault, Kind};
use super::parts;
use super::tale::{Artifact, Change, Piece, Tale};
use crate::hosted::{Follow, Place, Told};
use adapters::a2a::AUTHORITY;
use adapters::store::{Store, StoreError};
use serde_json::{Value, json};
use std::collections::VecDeque;
use subagents::ports::{Journal, RunRow};
use subagents::run::RunId;

/// Events read at a time.
const BATCH: u32 = 512;
/// Of an artifact in one update, bytes.
const CHUNK: usize = 64 << 10;
/// Of an artifact in a task that is got, bytes: what is larger is streamed only.
const WHOLE: u64 = 4 << 20;

/// Reads a task up to where it stands.
pub(super) async fn read(store: &Store, row: &RunRow) -> Result<Tale, StoreError> {
    let mut tale = Tale::new(row);
    loop {
        let batch = store.since(&row.run, tale.n, BATCH).await?;
        let more = batch.len() == BATCH as usize;
        for (n, record) in batch {
            tale.take(n, &record);
        }
        if !more {
            return Ok(tale);
        }
    }
}

/// A task as it is shown.
pub(super) async fn shown(store: &Store, tale: &Tale, history: Option<usize>, artifacts: bool) -> Result<Value, Fault> {
    let mut task = tale.task(history);
    task["metadata"] = metadata(store, tale).await?;
    if artifacts && !tale.artifacts.is_empty() {
        let mut all = Vec::new();
        for artifact in &tale.artifacts {
            let mut parts = Vec::new();
            for piece in &artifact.pieces {
                parts.extend(pieces(store, artifact, piece, WHOLE).await?);
            }
            all.push(named(artifact, parts));
        }
        task["artifacts"] = all.into();
    }
    Ok(task)
}

/// What is said beside a task. What one used that began with a grant is said at its end, for whoever
/// gave the grant; a task that pauses is not counted twice that way.
async fn metadata(store: &Store, tale: &Tale) -> Result<Value, StoreError> {
    let mut metadata = tale.metadata();
    if tale.granted && tale.state.is_terminal() {
        metadata[AUTHORITY] = json!({ "used": store.used(&RunId::known(&tale.id)).await? });
    }
    Ok(metadata)
}

fn named(artifact: &Artifact, parts: Vec<Value>) -> Value {
    json!({ "artifactId": artifact.id, "name": artifact.name, "parts": parts })
}

/// When a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// When it is the client's turn: the task has ended, or asks.
    Turn,
    /// When the task has ended.
    End,
}

/// A task that is watched.
pub(super) struct Updates {
    store: Store,
    pub(super) tale: Tale,
    follow: Follow,
    until: Until,
    /// A question that is answered already, though its process has not heard of it yet.
    answered: Option<String>,
    ready: VecDeque<Value>,
    over: bool,
}

/// A task that is watched, here or elsewhere.
pub(super) enum Many {
    Own(Box<Updates>),
    Peer(Box<super::peer::Told>),
}

impl Many {
    /// What comes next; nothing after the end.
    pub(super) async fn next(&mut self) -> Option<Next> {
        match self {
            Many::Own(updates) => updates.next().await,
            Many::Peer(told) => told.next().await,
        }
    }
}

/// What a stream tells.
pub(super) enum Next {
    /// A `StreamResponse`, and the generation it is of.
    Update(u64, Value),
    /// Nothing for a while.
    Beat,
    /// It cannot go on; the last.
    Broken(Fault),
}

impl Updates {
    /// From how the task stands now; `answered` is a question that does not count any more.
    pub(super) async fn new(
        door: &Door,
        row: &RunRow,
        (until, answered): (Until, Option<String>),
        place: Option<Place>,
    ) -> Result<Self, StoreError> {
        let Door(door) = door;
        let tale = read(&door.store, row).await?;
        let follow = Follow::new((&door.host, &door.store), row, tale.n, door.stop.clone(), place).await?;
        let store = door.store.clone();
        Ok(Self { store, tale, follow, until, answered, ready: VecDeque::new(), over: false })
    }
    /// The task itself comes first.
    pub(super) async fn with_snapshot(mut self, history: Option<usize>) -> Result<Self, Fault> {
        let task = shown(&self.store, &self.tale, history, true).await?;
        self.ready.push_back(json!({ "task": task }));
        self.tale.forget();
        Ok(self)
    }
    /// Whether nothing more is to be waited for.
    fn is_settled(&self) -> bool {
        let asks = || self.tale.open.iter().any(|open| self.answered.as_ref() != Some(&open.id));
        self.tale.state.is_terminal() || self.until == Until::Turn && self.tale.state.is_interrupted() && asks()
    }
    /// What comes next; nothing after the end.
    pub(super) async fn next(&mut self) -> Option<Next> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(Next::Update(self.tale.n, ready));
            }
            if self.over || self.is_settled() {
                return None;
            }
            match self.follow.next().await? {
                Told::Record(n, record) => {
                    for change in self.tale.take(n, &record) {
                        if let Err(fault) = self.ready(change).await {
                            self.over = true;
                            return Some(Next::Broken(fault));
                        }
                    }
                }
                Told::Piece(_) => {}
                Told::Beat => return Some(Next::Beat),
                Told::Broken(why) => {
                    self.over = true;
                    return Some(Next::Broken(why.into()));
                }
            }
        }
    }
    /// Waits until it is the client's turn, or the end, and gives the task as it is then.
    pub(super) async fn settled(&mut self, history: Option<usize>) -> Result<Value, Fault> {
        while let Some(next) = self.next().await {
            if let Next::Broken(fault) = next {
                return Err(fault);
            }
        }
        if !self.is_settled() {
            let why = "pleach is ending; the task goes on when it serves";
            return Err(Fault::new(Kind::Unavailable, why).with("retry-after", "5"));
        }
        shown(&self.store, &self.tale, history, true).await
    }

    async fn ready(&mut self, change: Change) -> Result<(), Fault> {
        self.ready.extend(told(&self.store, &self.tale, &change).await?);
        Ok(())
    }
}

/// A change as `StreamResponse`s.
pub(super) async fn told(store: &Store, tale: &Tale, change: &Change) -> Result<Vec<Value>, Fault> {
    let (task, context) = (&tale.id, &tale.context);
    match change {
        Change::Status => {
            let metadata = metadata(store, tale).await?;
            let update = json!({
                "taskId": task, "contextId": context, "status": tale.status(), "metadata": metadata,
            });
            Ok(vec![json!({ "statusUpdate": update })])
        }
        Change::Artifact(artifact, append) => {
            let mut chunks = Vec::new();
            for piece in &artifact.pieces {
                chunks.extend(pieces(store, artifact, piece, u64::MAX).await?);
            }
            let last = chunks.len().saturating_sub(1);
            let updates = chunks.into_iter().enumerate().map(|(i, part)| {
                let update = json!({
                    "taskId": task, "contextId": context, "artifact": named(artifact, vec![part]),
                    "append": *append || i > 0, "lastChunk": i == last && !artifact.more,
                });
                json!({ "artifactUpdate": update })
            });
            Ok(updates.collect())
        }
    }
}

/// A piece of an artifact as parts, none larger than [`CHUNK`] unless it is one value; of what is
/// kept at most `most` bytes.
async fn pieces(store: &Store, artifact: &Artifact, piece: &Piece, most: u64) -> Result<Vec<Value>, Fault> {
    let (name, kind) = (&artifact.name, &artifact.media_type);
    let text = match piece {
        Piece::Url(url) => return Ok(vec![parts::link(url, name, kind)]),
        Piece::Base64(text) => return Ok(vec![parts::raw(text, name, kind)]),
        Piece::Base64Blob(blob) => {
            let (text, size) = kept(store, blob, most).await?;
            if size > most {
                let why = format!("[{size} bytes in all; stream the task to have them]");
                return Ok(vec![parts::content(&why, "text/plain")]);
            }
            return Ok(vec![parts::raw(&text, name, kind)]);
        }
        Piece::Text(text) => text.clone(),
        Piece::Blob(blob) => {
            let (mut text, size) = kept(store, blob, most).await?;
            if size > most {
                text.push_str(&format!("\n[{size} bytes in all; stream the task to have them]"));
            }
            text
        }
    };
    if text.len() <= CHUNK || kind == "application/json" {
        return Ok(vec![parts::content(&text, kind)]);
    }
    let mut rest = text.as_str();
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rest.floor_char_boundary(CHUNK));
        chunks.push(parts::content(chunk, kind));
        rest = after;
    }
    Ok(chunks)
}

async fn kept(store: &Store, blob: &str, most: u64) -> Result<(String, u64), Fault> {
    let (bytes, size) = store.get_blob(blob, 0, most).await?.unwrap_or_default();
    Ok((String::from_utf8_lossy(&bytes).into_owned(), size))
}
