//! One run while its tree is worked on.

use super::authority::Standing;
use super::tree::Tree;
use crate::event::{Budget, Event, Step};
use crate::ports::{RunRow, ToolSpec};
use crate::run::RunId;
use crate::turn::{self, State};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

/// One run.
pub(crate) struct Run {
    pub(crate) id: RunId,
    pub(crate) parent: Option<RunId>,
    /// From the door down to this run; its length is the depth plus one.
    pub(crate) lineage: Vec<Step>,
    pub(crate) started: u64,
    pub(super) log: tokio::sync::Mutex<Log>,
    /// Something happened to it, or below it, that its driver has not seen.
    pub(super) wake: Notify,
    /// Something was written.
    pub(super) written: Notify,
    /// Ends it; a new one each time it is driven.
    pub(super) token: Mutex<CancellationToken>,
    /// Who wants it ended.
    pub(super) stop: Mutex<Option<String>>,
    /// Children that work at a time. The permits are the run's own, held by those that wait for
    /// a child, and given back when it ends or parks: a child that waits for its children holds
    /// one of its parent's and none of its own, so no circle can form.
    pub(super) slots: OnceLock<Semaphore>,
    pub(super) standing: Mutex<Option<Arc<Standing>>>,
    /// What its model is shown: the same bytes as long as the conversation only grows, so that
    /// the provider's cache holds. Another policy shows at once; what else changed shows after a summary, or when the run
    /// is driven again. Whether a call may be made is judged each time in any case.
    pub(super) shown: Mutex<Option<Arc<Vec<ToolSpec>>>>,
}

/// Counted limits as a journal has them: model calls, tool calls, and what is shared with all that
/// a run starts.
pub(super) type Limited = (u32, u32, Budget);

/// A run's own end of the journal.
pub(super) struct Log {
    pub(super) seq: u64,
    pub(super) state: State,
    /// The start of the wall clock, later by the time a person took to answer.
    pub(super) clock: u64,
    /// Since when it stands still.
    stands: Option<u64>,
    pub(super) wall: Option<u64>,
    /// The counted limits it began with.
    pub(super) began: Limited,
    /// The budget it is held to.
    pub(super) budget: Budget,
    /// A write was begun and not seen to its end.
    pub(super) torn: bool,
}

impl Run {
    /// A run that has no events yet.
    pub(super) fn new(id: RunId, parent: Option<RunId>, lineage: Vec<Step>, started: u64) -> Arc<Self> {
        let log = Log::new(started);
        Arc::new(Self {
            id,
            parent,
            lineage,
            started,
            log: tokio::sync::Mutex::new(log),
            wake: Notify::new(),
            written: Notify::new(),
            token: Mutex::new(CancellationToken::new()),
            stop: Mutex::new(None),
            slots: OnceLock::new(),
            standing: Mutex::new(None),
            shown: Mutex::new(None),
        })
    }
    pub(crate) fn depth(&self) -> u32 {
        u32::try_from(self.lineage.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }
    pub(crate) fn agent(&self) -> &str {
        self.lineage.last().map_or("", |step| step.agent.as_str())
    }
    pub(super) fn row(&self, tree: &Tree, state: &State, at: u64) -> RunRow {
        let phase = state.phase();
        RunRow {
            run: self.id.clone(),
            parent: self.parent.clone(),
            root: tree.root.clone(),
            depth: self.depth(),
            agent: self.agent().to_owned(),
            principal: tree.principal.to_string(),
            door: Some(tree.place.to_string()),
            state: phase.as_str().to_owned(),
            waiting: state.waits_for().map(str::to_owned),
            turns: state.turns.saturating_add(state.elsewhere.turns),
            tool_calls: state.tool_calls.saturating_add(state.elsewhere.tool_calls),
            tokens: state.usage.total().saturating_add(state.elsewhere.tokens),
            usd: state.cost.map(|cost| cost.saturating_add(state.elsewhere.usd)),
            started: self.started,
            ended: phase.is_end().then_some(at),
        }
    }
}

impl Log {
    pub(super) fn new(started: u64) -> Self {
        let (began, budget) = Default::default();
        Self { seq: 0, state: State::default(), clock: started, stands: None, wall: None, began, budget, torn: false }
    }
    pub(super) fn apply(&mut self, at: u64, event: &Event) {
        match event {
            Event::Started(started) => {
                self.budget = started.budget.unwrap_or_default();
                self.began = (started.max_turns, started.max_tool_calls, self.budget);
            }
            // Like the state, an ended run takes no notice.
            Event::Limited { budget, .. } if !self.state.phase().is_end() => self.budget = budget.unwrap_or_default(),
            _ => {}
        }
        self.wall = self.budget.wall_ms;
        turn::on(&mut self.state, event);
        let phase = self.state.phase();
        match self.stands {
            None if phase == crate::run::State::Waiting || phase.is_end() => self.stands = Some(at),
            Some(since) if phase != crate::run::State::Waiting && !phase.is_end() => {
                self.stands = None;
                // Nobody answered: a run that only waits for its own time limit is not exempt.
                if !matches!(event, Event::TimedOut { .. }) {
                    self.clock = self.clock.saturating_add(at.saturating_sub(since));
                }
            }
            _ => {}
        }
        self.seq += 1;
    }
    /// When its time is up, milliseconds since 1970 UTC.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.wall.map(|wall| self.clock.saturating_add(wall))
    }
}
