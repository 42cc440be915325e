//! How a run ends: by its own word, or because somebody or something ends it.

use super::drive::{At, Stop, Work};
use super::run::Run;
use super::tree::{Tree, lock};
use super::{Ended, Host, HostError};
use crate::approval;
use crate::event::Event;
use crate::ports::Answer;
use crate::run::State;
use crate::turn::{self, Effect};
use futures_util::stream::StreamExt;
use std::sync::Arc;
use std::time::Duration;

/// How long what is under way may take to end once it was told to.
const PATIENCE: Duration = Duration::from_secs(10);

impl At {
    /// Ends the run by its own word, unless that is not its last any more: somebody may have told
    /// it something, or woken a child it is to wait for, since it was looked at.
    pub(super) async fn finish(&self, state: State, text: String) -> Result<Option<Stop>, HostError> {
        if state != State::Completed {
            let by = self.stopped_by();
            self.tree.end_below(&self.host, &self.run, by).await?;
        }
        let last = [Effect::Finish(state, text.clone())];
        let events = vec![Event::finished(state, text.clone())];
        let parts = vec![(self.run.clone(), events)];
        let written = self.tree.commit_if(&self.host, parts, |_, now| turn::pending(now) == last).await?;
        if !written {
            return Ok(None);
        }
        self.token.cancel();
        Ok(Some(Stop::Ended(Ended { run: self.run.id.clone(), state, text })))
    }

    /// Ends the run: first what it has in hand and below it, then itself.
    pub(super) async fn close(&self, mut work: Work, state: State, text: String) -> Result<Stop, HostError> {
        self.token.cancel();
        let ending = async {
            while let Some((_, flow)) = work.running.next().await {
                flow?;
            }
            Ok::<(), HostError>(())
        };
        if let Ok(ended) = tokio::time::timeout(PATIENCE, ending).await {
            ended?;
        }
        drop(work);
        if let Some(why) = self.tree.broken() {
            return Err(why);
        }
        // What was written is what is told, even if the run is reopened at this very moment.
        let ended = Ended { run: self.run.id.clone(), state, text: text.clone() };
        Ok(Stop::Ended(match self.tree.end(&self.host, &self.run, state, text, self.stopped_by()).await? {
            true => ended,
            false => self.tree.standing_of(&self.run).await,
        }))
    }
    /// Who stopped this run, or one above it.
    fn stopped_by(&self) -> Option<String> {
        let own = lock(&self.run.stop).clone();
        own.or_else(|| self.tree.above(&self.run).iter().find_map(|above| lock(&above.stop).clone()))
    }
}

impl Tree {
    /// Ends a run in the journal, and before it whatever below it has not ended: nobody works
    /// on any of them any more.
    pub(super) async fn end(
        &self,
        host: &Host,
        run: &Arc<Run>,
        state: State,
        text: String,
        by: Option<String>,
    ) -> Result<bool, HostError> {
        self.end_below(host, run, by.clone()).await?;
        self.end_one(host, run, state, text, by).await
    }
    async fn end_below(&self, host: &Host, run: &Arc<Run>, by: Option<String>) -> Result<(), HostError> {
        for below in self.below(&run.id).into_iter().rev() {
            let why = "the run that started it has ended".to_owned();
            self.end_one(host, &below, State::Cancelled, why, by.clone()).await?;
        }
        Ok(())
    }
    async fn end_one(
        &self,
        host: &Host,
        run: &Arc<Run>,
        state: State,
        text: String,
        by: Option<String>,
    ) -> Result<bool, HostError> {
        let mut events: Vec<Event> = {
            let log = run.log.lock().await;
            if log.state.phase().is_end() {
                return Ok(false);
            }
            // A question nobody needs an answer to any more is closed.
            let open = log.state.questions().map(|q| Event::Answered {
                id: q.id.clone(),
                by: approval::ENDED.into(),
                answer: Answer::Deny { note: None },
                message: None,
                parts: None,
            });
            open.collect()
        };
        events.push(Event::Finished { state: state.as_str().to_owned(), text, by });
        self.append(host, run, events).await
    }
}
