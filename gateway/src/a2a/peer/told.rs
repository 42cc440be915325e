//! What becomes of a peer's task, as a stream. It ends where the task stands still, and when
//! whoever listens may not use its skill any more.

use super::super::fault::{Fault, Kind};
use super::super::ops::Asked;
use super::super::updates::Next;
use super::broke;
use super::names::Names;
use crate::hosted::Place;
use adapters::a2a::Passage;
use adapters::store::Between;
use policies::manifest::Tool;
use policies::names::Name;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Nothing for so long is said, too.
const BEAT: Duration = Duration::from_secs(15);
/// Updates whoever listens may be behind.
const BEHIND: usize = 64;

/// A task that is followed.
pub(in super::super) struct Told {
    updates: mpsc::Receiver<Result<Value, Fault>>,
    n: u64,
    _place: Place,
}

impl Told {
    pub(super) fn new(
        asked: Asked,
        of: Between,
        (names, tools): (Names, Vec<Arc<Tool>>),
        passage: Passage,
        place: Place,
    ) -> Self {
        let (tell, updates) = mpsc::channel(BEHIND);
        let tasks = asked.door.0.tasks.clone();
        tasks.spawn(async move {
            let following = Following { asked, of, names, tools };
            let mut passage = passage;
            let ended = tokio::select! {
                ended = following.follow(&mut passage, Some(&tell)) => ended,
                () = tell.closed() => return,
            };
            if let Err(fault) = ended {
                let _ = tell.send(Err(fault)).await;
            }
        });
        Self { updates, n: 0, _place: place }
    }
    /// One update, which is all.
    pub(super) fn one(update: Value, place: Place) -> Self {
        let (tell, updates) = mpsc::channel(1);
        // There is room for it.
        let _ = tell.try_send(Ok(update));
        Self { updates, n: 0, _place: place }
    }
    /// What comes next; nothing after the end.
    pub(in super::super) async fn next(&mut self) -> Option<Next> {
        match tokio::time::timeout(BEAT, self.updates.recv()).await {
            Err(_) => Some(Next::Beat),
            Ok(None) => None,
            Ok(Some(Err(fault))) => Some(Next::Broken(fault)),
            Ok(Some(Ok(update))) => {
                self.n += 1;
                Some(Next::Update(self.n, update))
            }
        }
    }
}

/// Who follows a task, and under which skills.
pub(super) struct Following {
    pub(super) asked: Asked,
    pub(super) of: Between,
    pub(super) names: Names,
    pub(super) tools: Vec<Arc<Tool>>,
}

impl Following {
    /// Follows it to where it stands still, and tells whoever listens.
    pub(super) async fn follow(
        &self,
        passage: &mut Passage,
        tell: Option<&mpsc::Sender<Result<Value, Fault>>>,
    ) -> Result<(), Fault> {
        let door = &self.asked.door.0;
        let mut changes = door.live.changes();
        let peer: &Name = &self.tools.first().ok_or_else(|| Fault::failed("a task under no skill"))?.server;
        // What changed between the judgement and here is not told any more.
        self.may()?;
        loop {
            let update = {
                // One and the same all along: dropped halfway, it could lose what it had heard.
                let next = passage.next();
                tokio::pin!(next);
                loop {
                    tokio::select! {
                        update = &mut next => break update,
                        Ok(()) = changes.changed() => self.may()?,
                        () = self.asked.gone() => {
                            return Err(Fault::new(Kind::Unauthenticated, "you are nobody here any more"));
                        }
                        () = door.stop.cancelled() => {
                            let why = "pleach is ending; the task goes on, subscribe to it when it serves";
                            return Err(Fault::new(Kind::Unavailable, why).with("retry-after", "5"));
                        }
                    }
                }
            };
            let update = update.map_err(|e| broke((&self.asked.door, peer), e, &self.names, passage))?;
            let Some(update) = update else { return Ok(()) };
            let update = self.names.outward(update.to_serde());
            if let Some(news) = self.names.news(&update, Some((passage.task(), passage.context()))) {
                door.store.peer_heard(&self.of, news, None).await?;
            }
            if let Some(tell) = tell
                && tell.send(Ok(update)).await.is_err()
            {
                return Ok(());
            }
        }
    }

    /// Whether whoever listens may still use the skills.
    fn may(&self) -> Result<(), Fault> {
        let (guard, caller) = (&self.asked.door.0.guard, &self.asked.who.caller);
        match self.tools.iter().find(|tool| !guard.is_visible(caller, &tool.name)) {
            Some(tool) => Err(Fault::new(Kind::Forbidden, format!("you may not use {} any more", tool.name))),
            None => Ok(()),
        }
    }
}
