//! The one place where runs change: events of one or several of them, in one transaction.

use super::run::{Log, Run};
use super::tree::Tree;
use super::{Ended, Host, HostError};
use crate::approval;
use crate::event::{Event, Record, Seen, Waiting};
use crate::ports::{Question, QuestionChange, Write};
use crate::run::RunId;
use crate::turn;
use std::sync::Arc;
use std::sync::atomic::Ordering;

type MutexLog<'a> = tokio::sync::MutexGuard<'a, Log>;

impl Tree {
    /// The only place where runs change: the events of one or several, in one transaction. Says
    /// whether they were taken; a run that has ended takes nothing but a message.
    ///
    /// The state takes an event in before the journal has it: nobody sees the state in between,
    /// for its lock is held; and when the journal fails, nothing is ever done with that state.
    pub(crate) async fn commit(&self, host: &Host, parts: Vec<(Arc<Run>, Vec<Event>)>) -> Result<bool, HostError> {
        self.commit_if(host, parts, |_, _| true).await
    }
    /// The same when each run is, at that very moment, in a state that allows it.
    pub(super) async fn commit_if(
        &self,
        host: &Host,
        parts: Vec<(Arc<Run>, Vec<Event>)>,
        allows: impl Fn(&RunId, &turn::State) -> bool,
    ) -> Result<bool, HostError> {
        let mut parts = parts;
        // Always in this order, so that two commits never wait for each other.
        parts.sort_by(|(a, _), (b, _)| (a.depth(), &a.id).cmp(&(b.depth(), &b.id)));
        let runs: Vec<Arc<Run>> = parts.iter().map(|(run, _)| run.clone()).collect();
        let mut logs = Vec::new();
        for run in &runs {
            logs.push(run.log.lock().await);
        }
        if let Some(why) = self.broken() {
            return Err(why);
        }
        let taken = parts.iter().zip(&logs).all(|((_, events), log)| match events.first() {
            None | Some(Event::MessageReceived { .. }) => true,
            Some(_) => !log.state.phase().is_end(),
        });
        if !taken || !runs.iter().zip(&logs).all(|(run, log)| allows(&run.id, &log.state)) {
            return Ok(false);
        }
        self.amend(&mut parts, &logs);
        let at = super::now();
        let mut writes = Vec::new();
        for ((run, events), log) in parts.iter().zip(&mut logs).filter(|((_, events), _)| !events.is_empty()) {
            if std::mem::replace(&mut log.torn, true) {
                return Err(self.break_off(HostError::Journal("a write was given up half-way".into())));
            }
            for event in events {
                log.apply(at, event);
                let record = Record { run: run.id.clone(), seq: log.seq, at, event: event.clone() };
                let question = self.question(run, event, at);
                writes.push(Write { record, row: run.row(self, &log.state, at), question });
            }
        }
        let records: Vec<Record> = writes.iter().map(|w| w.record.clone()).collect();
        if let Err(e) = host.ports.journal.append(writes, &self.lease).await {
            return Err(self.break_off(e.into()));
        }
        for ((run, events), log) in parts.iter().zip(&mut logs) {
            log.torn = false;
            // Not to be seen before it is written, and seen by whoever waits for these logs.
            if matches!(events.first(), Some(Event::Started(_))) && self.run(&run.id).is_none() {
                self.insert(run.clone());
            }
        }
        for record in records {
            let _ = host.seen.send(Seen::Record(record));
        }
        drop(logs);
        for (run, _) in &parts {
            run.written.notify_waiters();
        }
        Ok(true)
    }
    /// What follows from how runs stand at this very moment, which only a commit knows: nobody
    /// else holds all their logs.
    ///
    /// * a run that is reopened is waited for by the nearest above it that is at hand and has
    ///   not ended;
    /// * a child that goes on again when its end is reported is waited for again;
    /// * what begins, or goes on, in a tree that is paused is paused.
    fn amend(&self, parts: &mut [(Arc<Run>, Vec<Event>)], logs: &[MutexLog<'_>]) {
        let ended: Vec<bool> = logs.iter().map(|log| log.state.phase().is_end()).collect();
        let again = |run: String| Event::ChildStarted { call: None, run, background: true };
        for at in 0..parts.len() {
            let reopens = ended[at] && matches!(parts[at].1.first(), Some(Event::MessageReceived { .. }));
            if reopens {
                let run = parts[at].0.id.to_string();
                // They are sorted: the nearest above is the last of those before it.
                if let Some(above) = (0..at).rev().find(|above| !ended[*above]) {
                    parts[above].1.push(again(run));
                }
            }
            let begins = reopens || matches!(parts[at].1.first(), Some(Event::Started(_)));
            if begins && self.paused.load(Ordering::Acquire) {
                parts[at].1.push(Event::Paused { by: "the pause of the tree".into() });
            }
            let reported: Vec<String> = parts[at]
                .1
                .iter()
                .filter_map(|event| match event {
                    Event::ChildFinished { run, .. } => Some(run.clone()),
                    _ => None,
                })
                .filter(|run| parts.iter().zip(&ended).any(|((r, _), ended)| r.id.as_str() == run && !ended))
                .collect();
            parts[at].1.extend(reported.into_iter().map(again));
        }
    }
    /// The events of one run.
    pub(crate) async fn append(&self, host: &Host, run: &Arc<Run>, events: Vec<Event>) -> Result<bool, HostError> {
        self.commit(host, vec![(run.clone(), events)]).await
    }
    /// What a run waits for, as people are asked it.
    pub(super) fn asked(&self, run: &Run, waiting: &Waiting, asked: u64) -> Question {
        Question {
            id: waiting.id.clone(),
            run: run.id.to_string(),
            root: self.root.to_string(),
            principal: self.principal.to_string(),
            kind: waiting.kind.as_str().to_owned(),
            text: waiting.question.clone(),
            detail: waiting.detail.clone(),
            chain: waiting.chain.clone(),
            asked,
            expires: waiting.expires,
        }
    }
    fn question(&self, run: &Run, event: &Event, at: u64) -> Option<QuestionChange> {
        match event {
            Event::Waiting(w) if !w.id.is_empty() => Some(QuestionChange::Open(self.asked(run, w, at))),
            Event::Answered { id, by, answer, .. } => {
                let (id, by) = (id.clone(), by.clone());
                Some(QuestionChange::Close { id, by, answer: Some(answer.clone()), at })
            }
            Event::TimedOut { id } => {
                Some(QuestionChange::Close { id: id.clone(), by: approval::LATE.into(), answer: None, at })
            }
            _ => None,
        }
    }
    /// How a run stands.
    pub(super) async fn standing_of(&self, run: &Run) -> Ended {
        let log = run.log.lock().await;
        let phase = log.state.phase();
        let text = if phase.is_end() { log.state.text.clone() } else { String::new() };
        Ended { run: run.id.clone(), state: phase, text }
    }
}
