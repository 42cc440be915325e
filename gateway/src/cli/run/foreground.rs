//! A tree worked on while somebody looks: `run`, `resume`, `answer` and `unpause` show the same
//! and end with the same codes.

use super::view::View;
use crate::cli::{Context, answer, serve};
use crate::compose::{self, App};
use crate::error::{Failure, Outcome};
use crate::guard::{Approve, LOCAL};
use crate::settings::{self, Loaded};
use std::io::Write;
use std::sync::Arc;
use subagents::event::{Record, Seen};
use subagents::host::{Done, Ended, HostError};
use subagents::ports::{Journal, QuestionFilter};
use subagents::run::{RunId, State};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// The policy of a command.
pub(in crate::cli) fn load(context: &Context) -> Result<Arc<Loaded>, Failure> {
    settings::load(&context.config).map(Arc::new)
}

/// A host whose events are shown.
pub(in crate::cli) struct Foreground {
    pub(in crate::cli) app: App,
    /// Cancelled by SIGINT and SIGTERM.
    pub(in crate::cli) stop: CancellationToken,
    view: View,
    seen: broadcast::Receiver<Seen>,
    json: bool,
    config: String,
}

impl Foreground {
    pub(in crate::cli) async fn open(
        context: &Context,
        loaded: Arc<Loaded>,
        approve: Approve,
        json: bool,
    ) -> Result<Self, Failure> {
        let app = compose::app(loaded, approve).await?;
        let stop = CancellationToken::new();
        serve::on_signal(stop.clone())?;
        crate::live::watch::start(&app, None, stop.clone())?;
        let (seen, config) = (app.host.watch(), context.suffix());
        Ok(Self { view: View::new(json, config.clone()), app, stop, seen, json, config })
    }

    /// Learns what happened in a tree so far, without showing it again.
    pub(in crate::cli) async fn recall(&mut self, root: &RunId) -> Result<(), Failure> {
        let mut records: Vec<Record> = Vec::new();
        for listed in self.app.store.tree(root).await? {
            records.extend(self.app.store.events(&listed.row.run).await?);
        }
        records.sort_by_key(|record| record.at);
        self.view.recall(&records);
        Ok(())
    }

    /// Shows what happens while something is done.
    pub(in crate::cli) async fn follow<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                event = self.seen.recv() => match event {
                    Ok(event) => self.view.show(&event),
                    Err(RecvError::Lagged(n)) => eprintln!("({n} events were too fast to show; the journal has them)"),
                    Err(RecvError::Closed) => {}
                },
                done = &mut work => return done,
            }
        }
    }

    /// The same for a command that may drive the tree of `root` on: a signal cancels that tree.
    pub(in crate::cli) async fn command(
        mut self,
        root: &RunId,
        what: &str,
        work: impl Future<Output = Result<Done, HostError>>,
    ) -> Outcome {
        let (host, stop) = (self.app.host.clone(), self.stop.clone());
        let stopping = async {
            stop.cancelled().await;
            let _ = host.cancel(root, LOCAL).await;
            std::future::pending::<()>().await;
        };
        let work = async {
            tokio::select! {
                done = work => done,
                () = stopping => Err(HostError::Suspended),
            }
        };
        let done = self.follow(work).await;
        let config = self.config.clone();
        match done {
            Ok(Done::Driven(ended)) => self.finish(Ok(ended)).await,
            Ok(Done::Elsewhere { by }) => {
                self.app.shutdown().await;
                eprintln!("{what}; {by} works on the run. pleach show {}{config} tells how far it is", root.short());
                Ok(0)
            }
            Ok(Done::Here | Done::Stored | Done::Settled) => {
                self.app.shutdown().await;
                eprintln!("{what}; pleach resume {}{config} goes on with it, and so does a pleach serve", root.short());
                Ok(0)
            }
            Err(why) => {
                self.app.shutdown().await;
                Err(why.into())
            }
        }
    }

    /// Says how a run stands, and ends.
    pub(in crate::cli) async fn finish(mut self, ended: Result<Ended, HostError>) -> Outcome {
        while let Ok(event) = self.seen.try_recv() {
            self.view.show(&event);
        }
        let mut questions = Vec::new();
        if let Ok(Ended { run, state: State::Waiting, .. }) = &ended {
            let filter = QuestionFilter { root: Some(run.clone()), ..QuestionFilter::default() };
            questions = self.app.store.open_questions(&filter).await.unwrap_or_default();
        }
        self.app.shutdown().await;
        let ended = ended?;
        if !self.json {
            self.view.summary(&ended);
        }
        match ended.state {
            State::Completed if !self.json => {
                let _ = writeln!(std::io::stdout(), "{}", ended.text);
            }
            State::Waiting if questions.is_empty() => {
                let (run, config) = (ended.run.short(), &self.config);
                eprintln!("pleach: the run waits: {}\n  pleach unpause {run}{config}", ended.text);
            }
            State::Waiting => {
                eprintln!("pleach: the run waits for a person:");
                questions.iter().for_each(|question| eprintln!("{}", answer::in_words(question, &self.config)));
            }
            state if !self.json => eprintln!("pleach: the run is {}: {}", state.as_str(), ended.text),
            _ => {}
        }
        Ok(exit(ended.state))
    }
}

/// The exit code of a run's state.
fn exit(state: State) -> u8 {
    match state {
        State::Completed => 0,
        State::Rejected => 3,
        State::OverBudget => 4,
        State::Waiting => 5,
        _ => 1,
    }
}

/// For `--json`: one line on standard output.
pub(super) fn print_json(event: &Seen) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", event.to_json());
}
