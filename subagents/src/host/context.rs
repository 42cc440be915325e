//! Room in the window, before the model is asked: what [`crate::history`] finds is written down.
//!
//! ```text
//!  count ─▶ within the threshold? ── yes ─▶ ask
//!             │ no
//!             ├─ lines for old results are enough ─▶ context.trimmed ─▶ ask
//!             └─ else a summary: permitted, reserved, context.compacting, asked,
//!                                                     context.compacted ─▶ ask
//! ```
//!
//! A summary is asked of the model that `compact_with` of the agent or of its model names, where
//! the run's grant has it, else of the run's own model. It is no turn of the run's, but its tokens
//! and its money are counted like any others.

use super::HostError;
use super::drive::{At, Flow};
use super::money::LEAST_OUTPUT;
use super::think::Mind;
use crate::event::{Event, Replaced};
use crate::history::{self, LARGE, LAST_TURNS};
use crate::ports::{Decision, Request};
use crate::run::State;
use crate::turn::Message;
use std::sync::Arc;

/// Tokens of a summary.
const SUMMARY: u64 = 4_096;
/// How much of each long text a summary is made of, where the whole is too much.
const CLIPS: [Option<usize>; 3] = [None, Some(2_048), Some(256)];

/// Whether there is room.
pub(super) enum Room {
    /// For a request that reads this many tokens.
    For(u64),
    /// There is none, or the run ends.
    Not(Flow),
}

/// What became of a summary.
enum Shorter {
    Yes,
    /// There is nothing to make one of, or it was not made, for this reason.
    No(String),
    Stop(Flow),
}

impl At {
    /// Sees to it that the next request fits; `forced` when the model itself said that it does
    /// not, whatever was counted.
    pub(super) async fn room(&self, mind: &mut Mind, forced: bool) -> Result<Room, HostError> {
        let most = history::threshold(mind.facts.context, mind.most());
        let Some(mut read) = self.count(mind).await else { return Ok(Room::Not(Flow::Done)) };
        if read <= most && !forced {
            return Ok(Room::For(read));
        }
        if !forced && self.trim_is_enough(read, most).await {
            self.trim(mind, LAST_TURNS, LARGE).await?;
            let Some(now) = self.count(mind).await else { return Ok(Room::Not(Flow::Done)) };
            read = now;
            if read <= most {
                return Ok(Room::For(read));
            }
        }
        let mut why = String::new();
        let mut shorter = false;
        for turns in [LAST_TURNS, 1] {
            match self.compact(mind, turns).await? {
                Shorter::Stop(flow) => return Ok(Room::Not(flow)),
                Shorter::No(reason) => why = reason,
                Shorter::Yes => {
                    shorter = true;
                    let Some(now) = self.count(mind).await else { return Ok(Room::Not(Flow::Done)) };
                    read = now;
                }
            }
            if shorter && (forced || read <= most) {
                return Ok(Room::For(read));
            }
        }
        // What is left is large by itself: everything but what was asked becomes lines.
        shorter |= self.trim(mind, 0, LARGE).await?;
        let Some(read) = self.count(mind).await else { return Ok(Room::Not(Flow::Done)) };
        let fits = read.saturating_add(LEAST_OUTPUT.min(mind.most())) <= mind.facts.context.max(1);
        if fits && (shorter || !forced) {
            return Ok(Room::For(read));
        }
        let why = format!("the conversation does not fit the window of model {}, and {why}", mind.name);
        Ok(Room::Not(Flow::End(State::Failed, why)))
    }

    async fn messages(&self) -> Arc<Vec<Message>> {
        self.run.log.lock().await.state.messages.clone()
    }
    /// Tokens the next request reads; `None` when the run ends.
    async fn count(&self, mind: &Mind) -> Option<u64> {
        let messages = self.messages().await;
        self.counted(mind, &mind.request(self, &messages, mind.most())).await
    }
    /// Tokens of a request. Where a provider counts them it is told all of it, so that is on record
    /// first; where it cannot be, nobody is told, and whoever asks the model next gives the reason.
    async fn counted(&self, mind: &Mind, request: &Request<'_>) -> Option<u64> {
        if mind.model.counts_outside() {
            let Ok(permit) = self.permit(&mind.name).await else { return Some(0) };
            let decision = Decision::Allow(permit.rule());
            if self.asked_on_record(&mind.name, decision, &[("for", "count")]).await.is_err() {
                return Some(0);
            }
        }
        self.unless_cancelled(mind.model.count(request)).await
    }
    /// Whether lines in the place of old results would make so much room that the next threshold
    /// is far: each time the provider reads everything anew.
    async fn trim_is_enough(&self, read: u64, most: u64) -> bool {
        let messages = self.messages().await;
        let Some(before) = history::boundary(&messages, LAST_TURNS) else { return false };
        let large = history::large(&messages, before, LARGE);
        let saved: usize = large.iter().map(|l| l.of.text.len() - LARGE / 5).sum();
        let all = history::bytes(&messages).max(1) as u128;
        let left = u128::from(read) * all.saturating_sub(saved as u128) / all;
        left <= u128::from(most / 4 * 3)
    }
    /// Puts the large results before the last turns away; whether there were any.
    async fn trim(&self, mind: &Mind, turns: usize, least: usize) -> Result<bool, HostError> {
        let messages = self.messages().await;
        let before = match turns {
            0 => Some(messages.len()),
            turns => history::boundary(&messages, turns),
        };
        let Some(before) = before else { return Ok(false) };
        let readable = mind.tools.iter().any(|tool| tool.name == "read_result");
        let (mut events, mut replaced) = (Vec::new(), Vec::new());
        for large in history::large(&messages, before, least) {
            let blob = match readable {
                true => Some(self.keep(large.of.text.clone().into_bytes()).await?),
                false => None,
            };
            let text = history::line(large.of, blob.as_deref());
            let at = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            replaced.push(Replaced { message: at(large.message), result: at(large.result), text });
            let bytes = large.of.text.len() as u64;
            events.extend(blob.map(|blob| Event::ResultKept { call: Some(large.of.id.clone()), blob, bytes }));
        }
        if replaced.is_empty() {
            return Ok(false);
        }
        events.push(Event::ContextTrimmed { through: u32::try_from(before).unwrap_or(u32::MAX), replaced });
        drop(messages);
        self.append(events).await?;
        Ok(true)
    }

    /// Makes one message of all but the first and the last turns.
    async fn compact(&self, mind: &mut Mind, turns: usize) -> Result<Shorter, HostError> {
        let messages = self.messages().await;
        // One message for one message makes nothing shorter.
        let Some(through) = history::boundary(&messages, turns).filter(|through| *through > 2) else {
            return Ok(Shorter::No("there is nothing to make a summary of".into()));
        };
        let asked = self.summariser(mind).await;
        let (asked, output) = (asked.as_ref().unwrap_or(mind), SUMMARY);
        let output = output.min(asked.facts.max_output);
        let mut fitting = None;
        for clip in CLIPS {
            let question = history::question(&messages[..through], clip);
            let request = asked.request(self, &question, output);
            let Some(read) = self.counted(asked, &request).await else {
                return Ok(Shorter::Stop(Flow::Done));
            };
            if read.saturating_add(output) <= asked.facts.context.max(1) {
                fitting = Some((question, read));
                break;
            }
        }
        drop(messages);
        let Some((question, read)) = fitting else {
            return Ok(Shorter::No("what is to be summed up does not fit either".into()));
        };
        match self.sum_up(asked, &question, read, output, through).await? {
            Shorter::Yes => {}
            other => return Ok(other),
        }
        // The conversation begins anew, and what changed in the tools meanwhile with it.
        self.forget_shown();
        match self.shown().await {
            Ok(shown) => mind.tools = shown,
            Err((state, why)) => return Ok(Shorter::Stop(Flow::End(state, why))),
        }
        Ok(Shorter::Yes)
    }

    async fn sum_up(
        &self,
        asked: &Mind,
        question: &[Message],
        read: u64,
        output: u64,
        through: usize,
    ) -> Result<Shorter, HostError> {
        let end = |(state, why)| Ok(Shorter::Stop(Flow::End(state, why)));
        let permit = match self.permit(&asked.name).await {
            Ok(permit) => permit,
            Err(not) => return end(not),
        };
        let (held, reserved, output) = match self.reserve(&asked.facts, read, output, true) {
            Ok(held) => held,
            Err(not) => return end(not),
        };
        let intent = Event::ContextCompacting { model: asked.name.to_string(), reserved };
        if !self.tree.append(&self.host, &self.run, vec![intent]).await? {
            self.tree.ledger.forget(held);
            return Ok(Shorter::Stop(Flow::Done));
        }
        // A summary is in words, whatever form the run's answer must have.
        let request = Request { schema: None, ..asked.request(self, question, output) };
        let said = self.exchange(asked, permit, request, &|_: &str| {}, held, reserved).await;
        let (why, usage, cost) = match said {
            None => return Ok(Shorter::Stop(Flow::Done)),
            Some((Ok(reply), cost)) if !reply.text.trim().is_empty() => {
                let through = u32::try_from(through).unwrap_or(u32::MAX);
                let event = Event::ContextCompacted { through, summary: reply.text, usage: reply.usage, cost };
                self.append(vec![event]).await?;
                return Ok(Shorter::Yes);
            }
            Some((Ok(reply), cost)) => ("the model gave no summary".to_owned(), reply.usage, cost),
            Some((Err(e), cost)) => (format!("no summary could be made: {e}"), e.usage, cost),
        };
        self.append(vec![Event::ModelFailed { why: why.clone(), usage, cost }]).await?;
        Ok(Shorter::No(why))
    }

    /// The model that is asked for summaries when it is not the run's own.
    async fn summariser(&self, own: &Mind) -> Option<Mind> {
        let name = own.compact_with.clone().filter(|name| *name != own.name)?;
        self.permit(&name).await.map(drop).ok()?;
        let model = self.host.ports.models.get(&name)?;
        Some(Mind {
            name,
            facts: model.facts(),
            model,
            agent: own.agent.clone(),
            inbound: own.inbound.clone(),
            system: own.system.clone(),
            tools: own.tools.clone(),
            schema: None,
            // The agent's is said of its own model.
            effort: None,
            compact_with: None,
        })
    }
}
