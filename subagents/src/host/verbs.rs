//! What can be told to a tree, wherever it is.
//!
//! ```text
//!   worked on here ──────▶ apply, wake its driver
//!   by another process ──▶ post to its inbox, wake it
//!   by nobody ───────────▶ claim, load, apply; then drive on, or give it back
//! ```

use super::run::Run;
use super::tree::{Tree, lock};
use super::{By, Done, Ended, Host, HostError, Then, now};
use crate::approval;
use crate::event::{Event, WaitingFor};
use crate::ports::{Answer, Claimed, Command, Decision, Deed, DeedKind, Question};
use crate::run::{Caller, RunId, State};
use crate::tools;
use crate::turn;
use policies::authority::Authority;
use policies::grant::Grant;
use policies::permit::Rule;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Bytes of messages that may wait for a run.
const MAX_UNHEARD: usize = 1 << 20;
/// Tries at a tree that changes hands all the time.
const TRIES: u32 = 20;

/// Whether somebody in this process works on the tree a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hands {
    Busy,
    Idle,
}

/// Whose run it was, for the record, when there is nobody any more whose authority it has.
fn nobody(principal: &str, run: &RunId) -> Caller {
    let authority = Authority::root(Arc::new(Grant::nothing()), Arc::default(), None);
    let mut caller = Caller::new(principal, &format!("run {run}, whose client is gone"), authority);
    caller.run = Some(run.as_str().into());
    caller
}

fn refused(why: impl Into<String>) -> HostError {
    HostError::Refused(why.into())
}

impl Host {
    /// Does a command, wherever the tree is. Begun, it is done whatever becomes of whoever wants
    /// it: a tree that was claimed must be given back, and a write be seen to its end.
    pub(super) async fn command(
        self: &Arc<Self>,
        root: &RunId,
        command: Command,
        then: Then,
    ) -> Result<Done, HostError> {
        let (host, root) = (self.clone(), root.clone());
        self.through(async move { host.carry_out(&root, command, then).await }).await
    }
    /// Sees work to its end, in a task that `suspend` waits for.
    pub(super) async fn through<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, HostError>> + Send + 'static,
    ) -> Result<T, HostError> {
        let done = self.tasks.spawn(Box::pin(work)).await;
        done.unwrap_or_else(|e| Err(HostError::Journal(e.to_string())))
    }
    async fn carry_out(self: &Arc<Self>, root: &RunId, command: Command, then: Then) -> Result<Done, HostError> {
        for _ in 0..TRIES {
            if let Some(tree) = self.working(root) {
                let mut gate = tree.gate.lock().await;
                if gate.open {
                    self.apply(&tree, &command, Hands::Busy).await?;
                    gate.dirty = true;
                    tree.wake.notify_one();
                    return Ok(Done::Here);
                }
                drop(gate);
                tree.closed.cancelled().await;
                continue;
            }
            match self.ports.journal.claim(root).await? {
                Claimed::Lease(lease) => {
                    let tree = self.load(lease, self.stopped.child_token()).await?;
                    return self.command_idle(tree, &command, then).await;
                }
                Claimed::Held { by } => {
                    if self.ports.journal.post(root, &command).await? {
                        self.ports.bus.wake(root);
                        return Ok(Done::Elsewhere { by });
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(refused("the tree changes hands all the time; try again"))
    }

    /// A command for a tree that was just claimed for it.
    async fn command_idle(self: &Arc<Self>, tree: Tree, command: &Command, then: Then) -> Result<Done, HostError> {
        let tree = Arc::new(tree);
        let applied = self.apply(&tree, command, Hands::Idle).await;
        if applied.is_ok() && then == Then::Drive {
            let tree = Arc::into_inner(tree).ok_or_else(|| refused("the tree is in use; try again"))?;
            return self.run_tree(tree).await.map(Done::Driven);
        }
        loop {
            let more = self.ports.journal.release(&tree.lease).await?;
            if more.is_empty() {
                return applied.map(|()| Done::Stored);
            }
            for command in more {
                if let Err(why) = self.apply(&tree, &command, Hands::Idle).await {
                    tracing::warn!(root = %tree.root, ?command, "a command was not obeyed: {why}");
                }
            }
        }
    }

    /// Does a command to a tree that is ours. One at a time: the caller holds the gate.
    pub(super) async fn apply(
        self: &Arc<Self>,
        tree: &Arc<Tree>,
        command: &Command,
        hands: Hands,
    ) -> Result<(), HostError> {
        let find = |run: &str| tree.run(&RunId::known(run)).ok_or_else(|| refused(format!("there is no run {run}")));
        match command {
            Command::Cancel { run, by } => self.do_cancel(tree, &find(run)?, by, hands).await,
            Command::Answer { question, answer, by, door, message, parts } => {
                let by = By { who: by, door };
                self.do_answer(tree, question, answer, (by, message.as_deref(), parts.as_ref())).await
            }
            Command::Message { run, from, text, message, parts, open } => {
                let run = find(run)?;
                if *open && run.end().await.0.is_end() {
                    return Err(refused(format!("run {} has ended", run.id)));
                }
                self.do_message(tree, &run, (from, message.as_deref(), parts.as_ref()), text).await
            }
            Command::Pause { by } => self.do_pause(tree, by, true).await,
            Command::Unpause { by } => self.do_pause(tree, by, false).await,
        }
    }

    async fn do_cancel(&self, tree: &Tree, run: &Arc<Run>, by: &str, hands: Hands) -> Result<(), HostError> {
        let (phase, _) = run.end().await;
        if phase.is_end() {
            return Err(refused(format!("run {} is {} already", run.id, phase.as_str())));
        }
        if hands == Hands::Busy {
            tree.stop(run, by);
            return Ok(());
        }
        let why = format!("cancelled by {by}");
        tree.end(self, run, State::Cancelled, why, Some(by.to_owned())).await?;
        // Those above that waited for it have something to do now, and their rows say so.
        for above in tree.above(run) {
            if above.log.lock().await.state.is_parked() {
                tree.append(self, &above, vec![Event::Resumed { epoch: tree.lease.epoch }]).await?;
            }
        }
        Ok(())
    }

    async fn do_answer(
        &self,
        tree: &Tree,
        id: &str,
        answer: &Answer,
        (by, message, parts): (By<'_>, Option<&str>, Option<&Value>),
    ) -> Result<(), HostError> {
        for run in tree.all() {
            if let Some(message) = message
                && run.log.lock().await.state.heard.contains(&turn::named(message, id))
            {
                return Ok(());
            }
            let question = run.log.lock().await.state.questions().find(|q| q.id == id).cloned();
            let Some(question) = question else { continue };
            if question.expires.is_some_and(|e| e <= now()) {
                return Err(refused(format!("question {id} has expired; the run goes on without an answer")));
            }
            match (question.kind, answer) {
                // Another input for the call, which is judged as if the model had given it.
                (WaitingFor::Approval, Answer::Input { value, .. }) if !value.is_object() => {
                    let why = "answer allow, deny, or with a JSON object, the whole input the call is to have instead";
                    return Err(refused(format!("question {id} asks for an approval: {why}")));
                }
                (_, Answer::Allow { always: Some(always), .. }) => {
                    let asked = tree.asked(&run, &question, now());
                    let made = approval::rule(&asked, always, by.who, now());
                    made.map_err(|why| refused(format!("question {id}: {why}")))?;
                }
                (WaitingFor::Question, Answer::Input { value, .. }) => {
                    tools::fits(&question.detail, value).map_err(|why| refused(format!("question {id}: {why}")))?;
                }
                _ => {}
            }
            // Where the run's client is gone nobody acts on the answer: it is written down, no more.
            let caller = match tree.standing(&self.ports, &run) {
                Ok(standing) => standing.caller.clone(),
                Err(_) => nobody(&tree.principal, &run.id),
            };
            self.note_answer(&caller, id, answer, by).await?;
            let (id, by, answer) = (id.to_owned(), by.who.to_owned(), answer.clone());
            let event = Event::Answered { id, by, answer, message: message.map(str::to_owned), parts: parts.cloned() };
            tree.append(self, &run, vec![event]).await?;
            tree.wake(&run);
            return Ok(());
        }
        Err(refused(format!("question {id} is not open any more")))
    }

    /// Puts an answer on record, before anything follows from it.
    async fn note_answer(&self, caller: &Caller, id: &str, answer: &Answer, by: By<'_>) -> Result<(), HostError> {
        let word = match answer {
            Answer::Allow { always: None, .. } => "allow",
            Answer::Allow { always: Some(always), .. } => &format!("allow, {}", always.in_words()),
            Answer::Deny { .. } => "deny",
            Answer::Input { .. } => "input",
        };
        let ruled = Rule { text: format!("answered by {}", by.who), place: None };
        let (decision, more) = (Decision::Allow(&ruled), [("answer", word), ("by", by.who), ("through", by.door)]);
        let deed = Deed { kind: DeedKind::Answer, subject: id, decision, more: &more };
        let recorded = self.ports.gate.record(caller, deed).await;
        recorded.map_err(|denial| refused(denial.for_model()))
    }

    /// Answers the question of a client's own call: nobody works on it, and whoever waits looks.
    pub(super) async fn settle(&self, question: &Question, answer: &Answer, by: By<'_>) -> Result<Done, HostError> {
        let Question { id, principal, .. } = question;
        match answer {
            Answer::Input { .. } => {
                let why = "answer allow or deny: a client's own call is made as it is or not at all";
                return Err(refused(format!("question {id} asks for an approval: {why}")));
            }
            Answer::Allow { always: Some(always), .. } => {
                let made = approval::rule(question, always, by.who, now());
                made.map_err(|why| refused(format!("question {id}: {why}")))?;
            }
            _ => {}
        }
        if question.expires.is_some_and(|e| e <= now()) {
            return Err(refused(format!("question {id} has expired; the client can make its call again")));
        }
        let text = |key: &str| question.detail.get(key).and_then(serde_json::Value::as_str);
        let place = text("place").or(text("door")).unwrap_or_default();
        let door = self.ports.gate.door(principal, place);
        let (authority, _) =
            door.ok_or_else(|| refused(format!("the client {principal} is gone, and its call with it")))?;
        let caller = Caller::new(principal, &format!("client {principal}"), authority).through(place);
        self.note_answer(&caller, id, answer, by).await?;
        self.ports.journal.answer(id, by.who, answer).await?;
        Ok(Done::Settled)
    }

    async fn do_message(
        &self,
        tree: &Tree,
        run: &Arc<Run>,
        (from, message, parts): (&str, Option<&str>, Option<&Value>),
        text: &str,
    ) -> Result<(), HostError> {
        if let Some(message) = message
            && run.log.lock().await.state.heard.contains(&turn::named(message, text))
        {
            return Ok(());
        }
        let (phase, by) = run.end().await;
        tools::may_go_on(phase, by.as_deref()).map_err(|why| refused(format!("run {} {why}", run.id)))?;
        if run.log.lock().await.state.unheard().saturating_add(text.len()) > MAX_UNHEARD {
            let why = format!("run {} has not heard {MAX_UNHEARD} bytes of messages yet; wait until it has", run.id);
            return Err(refused(why));
        }
        let (message, parts) = (message.map(str::to_owned), parts.cloned());
        let told = Event::MessageReceived { from: from.to_owned(), text: text.to_owned(), message, parts };
        // The nearest above that still works will want to know what comes of it: the commit, which
        // knows how they stand by then, sees to it.
        let above = tree.above(run).into_iter().map(|above| (above, Vec::new()));
        let parts = std::iter::once((run.clone(), vec![told])).chain(above).collect();
        if phase.is_end() {
            *lock(&run.stop) = None;
            tree.forget_pause().await;
        }
        tree.commit(self, parts).await?;
        tree.wake(run);
        Ok(())
    }

    async fn do_pause(&self, tree: &Tree, by: &str, pause: bool) -> Result<(), HostError> {
        let mut any = false;
        loop {
            let mut runs = Vec::new();
            for run in tree.all() {
                let log = run.log.lock().await;
                if !log.state.phase().is_end() && log.state.paused != pause {
                    drop(log);
                    runs.push(run);
                }
            }
            if runs.is_empty() {
                break;
            }
            // From here on what begins is paused as it begins (or not); what began a moment ago
            // is seen when the log of the run that starts it is free, and the next look takes it.
            tree.paused.store(pause, Ordering::Release);
            let by = || by.to_owned();
            let event = || if pause { Event::Paused { by: by() } } else { Event::Unpaused { by: by() } };
            for run in &runs {
                any |= tree.append(self, run, vec![event()]).await?;
            }
            runs.iter().for_each(|run| tree.wake(run));
        }
        match any {
            true => Ok(()),
            false => {
                let why = if pause { "it has ended, or is paused already" } else { "it is not paused" };
                Err(refused(format!("tree {}: {why}", tree.root)))
            }
        }
    }

    /// The root of a run's tree.
    pub(super) async fn root_of(&self, run: &RunId) -> Result<RunId, HostError> {
        let row = self.ports.journal.row(run).await?;
        row.map(|row| row.root).ok_or_else(|| refused(format!("there is no run {run}; list them with runs")))
    }

    pub(super) async fn resume_tree(
        self: &Arc<Self>,
        root: &RunId,
        cancel: CancellationToken,
    ) -> Result<Ended, HostError> {
        let lease = match self.ports.journal.claim(root).await? {
            Claimed::Lease(lease) => lease,
            Claimed::Held { by } => return Err(HostError::Held { by }),
        };
        let tree = self.load(lease, cancel.child_token()).await?;
        if let Some(run) = tree.run(root) {
            tree.append(self, &run, vec![Event::Resumed { epoch: tree.lease.epoch }]).await?;
        }
        self.run_tree(tree).await
    }
    /// Resumes many, side by side.
    pub(super) async fn resume_each(
        self: &Arc<Self>,
        roots: Vec<RunId>,
        cancel: &CancellationToken,
    ) -> Vec<(RunId, Result<Ended, HostError>)> {
        let each = roots.into_iter().map(|root| async move {
            let (host, of, cancel) = (self.clone(), root.clone(), cancel.clone());
            let ended = self.through(async move { host.resume_tree(&of, cancel).await }).await;
            (root, ended)
        });
        futures_util::future::join_all(each).await
    }
    pub(super) async fn expired(&self) -> Result<Vec<RunId>, HostError> {
        Ok(self.ports.journal.expired_roots(now()).await?)
    }
}

impl Tree {
    /// A pause is over when no run is left that is paused.
    async fn forget_pause(&self) {
        for run in self.all() {
            let log = run.log.lock().await;
            if log.state.paused && !log.state.phase().is_end() {
                return;
            }
        }
        self.paused.store(false, Ordering::Release);
    }
    /// Has a run ended by its driver.
    pub(super) fn stop(&self, run: &Run, by: &str) {
        *lock(&run.stop) = Some(by.to_owned());
        lock(&run.token).cancel();
        self.wake(run);
    }
}
