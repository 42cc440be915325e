//! Budgets: what a run and everything it starts may use, reserved before it is used.
//!
//! ```text
//!   reserve(run, ask)     every node from the run to the root has room?  ── no ─▶ Short (whose, of what)
//!        │ yes: reserved there, in one step
//!        ▼
//!   settle(reservation, actual)    reserved −= ask, spent += actual, at the same nodes
//! ```
//!
//! Laws: at every node spent + reserved is within the limit, but for what a settled request
//! used beyond its reservation; a node's spending is the sum of its own and its children's; one
//! lock, held for no await, so nothing can wait for itself.

use crate::event::{Amount, Budget};
use crate::run::RunId;
use policies::price::Usd;
use policies::resolve::Limits;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Billionths of a dollar, as far as known.
    pub usd: u64,
    /// Tokens.
    pub tokens: u64,
    /// Model calls.
    pub turns: u64,
    /// Tool calls.
    pub tool_calls: u64,
}

impl Spent {
    fn add(&mut self, other: Spent) {
        self.usd = self.usd.saturating_add(other.usd);
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.turns = self.turns.saturating_add(other.turns);
        self.tool_calls = self.tool_calls.saturating_add(other.tool_calls);
    }
    fn take(&mut self, other: Spent) {
        self.usd = self.usd.saturating_sub(other.usd);
        self.tokens = self.tokens.saturating_sub(other.tokens);
        self.turns = self.turns.saturating_sub(other.turns);
        self.tool_calls = self.tool_calls.saturating_sub(other.tool_calls);
    }
    fn parts(&self) -> [(&'static str, u64); 4] {
        [("usd", self.usd), ("tokens", self.tokens), ("turns", self.turns), ("tool_calls", self.tool_calls)]
    }
}

impl From<Amount> for Spent {
    fn from(amount: Amount) -> Self {
        Spent { usd: amount.usd.unwrap_or(0), tokens: amount.tokens, ..Spent::default() }
    }
}

/// A limit that would be passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// `usd`, `tokens`, `turns` or `tool_calls`.
    pub what: &'static str,
    /// Whose limit it is.
    pub whose: RunId,
    /// The limit.
    pub limit: u64,
    /// What is left of it.
    pub left: u64,
    /// What was asked.
    pub asked: u64,
}

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let left = crate::turn::left(self.what, self.limit.saturating_sub(self.left), self.limit);
        write!(f, "budget.{} of run {} is reached: {left} left", self.what, self.whose)
    }
}

/// Room that was made for one request. It must be settled.
#[derive(Debug)]
#[must_use = "a reservation that is not settled is never free again"]
pub struct Reservation {
    run: RunId,
    amount: Spent,
}

#[derive(Debug, Default)]
struct Node {
    parent: Option<RunId>,
    /// What it began with, and what it is held to.
    began: [Option<u64>; 4],
    limits: [Option<u64>; 4],
    spent: Spent,
    reserved: Spent,
}

impl Node {
    fn left(&self, at: usize) -> u64 {
        let used = |s: &Spent| s.parts()[at].1;
        let used = used(&self.spent).saturating_add(used(&self.reserved));
        self.limits[at].map_or(u64::MAX, |limit| limit.saturating_sub(used))
    }
}

/// The budgets of one tree.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<BTreeMap<RunId, Node>>);

impl Ledger {
    /// A run with its budget and what it has spent itself so far, which counts for its ancestors
    /// as well; those are there already.
    pub fn add(&self, run: &RunId, parent: Option<&RunId>, budget: &Budget, spent: Spent) {
        let limits = limits(budget);
        let node = Node { parent: parent.cloned(), began: limits, limits, ..Node::default() };
        let mut nodes = self.lock();
        nodes.insert(run.clone(), node);
        upwards(&mut nodes, run, |node| node.spent.add(spent));
    }
    /// Holds a run to what it may use now, or to what it began with where that is less.
    pub fn hold_to(&self, run: &RunId, now: &Budget) {
        if let Some(node) = self.lock().get_mut(run) {
            for ((limit, began), now) in node.limits.iter_mut().zip(node.began).zip(limits(now)) {
                *limit = [began, now].into_iter().flatten().min();
            }
        }
    }
    /// Makes room for a request to the model.
    ///
    /// # Errors
    /// Whose limit would be passed.
    pub fn reserve(&self, run: &RunId, ask: Amount) -> Result<Reservation, Short> {
        self.hold(run, Spent { turns: 1, ..ask.into() })
    }
    /// Makes room for a request that is no turn of the run's: one for a summary.
    ///
    /// # Errors
    /// Whose limit would be passed.
    pub fn reserve_aside(&self, run: &RunId, ask: Amount) -> Result<Reservation, Short> {
        self.hold(run, ask.into())
    }
    /// Counts a tool call.
    ///
    /// # Errors
    /// Whose limit would be passed.
    pub fn call(&self, run: &RunId) -> Result<(), Short> {
        let call = Spent { tool_calls: 1, ..Spent::default() };
        let held = self.hold(run, call)?;
        self.release(held, call);
        Ok(())
    }
    /// The request is over and used this much.
    pub fn settle(&self, reservation: Reservation, actual: Amount) {
        let actual = Spent { turns: reservation.amount.turns, ..actual.into() };
        self.release(reservation, actual);
    }
    /// The request was never made.
    pub fn forget(&self, reservation: Reservation) {
        self.release(reservation, Spent::default());
    }
    /// Tokens and money that a request of this run could still reserve.
    pub fn left(&self, run: &RunId) -> (u64, u64) {
        let (mut tokens, mut usd) = (u64::MAX, u64::MAX);
        upwards(&mut self.lock(), run, |node| {
            (usd, tokens) = (usd.min(node.left(0)), tokens.min(node.left(1)));
        });
        (tokens, usd)
    }
    /// What is left of every limit from this run up: what may still be given of it.
    pub fn rest(&self, run: &RunId) -> Limits {
        let mut least = [u64::MAX; 4];
        upwards(&mut self.lock(), run, |node| {
            for (at, least) in least.iter_mut().enumerate() {
                *least = (*least).min(node.left(at));
            }
        });
        let [usd, tokens, turns, tool_calls] = least;
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Limits { usd: Usd(usd), tokens, turns: small(turns), tool_calls: small(tool_calls), wall: None }
    }
    /// The narrowest limits from this run up: what bounds it, whoever set it.
    pub fn bounds(&self, run: &RunId) -> Budget {
        let mut least = [None::<u64>; 4];
        upwards(&mut self.lock(), run, |node| {
            for (least, limit) in least.iter_mut().zip(node.limits) {
                *least = least.map_or(limit, |l| Some(limit.map_or(l, |limit| l.min(limit))));
            }
        });
        let small = |n: Option<u64>| n.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let [usd, tokens, turns, tool_calls] = least;
        Budget { usd, tokens, turns: small(turns), tool_calls: small(tool_calls), wall_ms: None }
    }
    /// The nearest run, from this one up, whose money is limited.
    pub fn usd_limited(&self, run: &RunId) -> Option<RunId> {
        let nodes = self.lock();
        let mut at = Some(run.clone());
        while let Some(id) = at {
            let node = nodes.get(&id)?;
            if node.limits[0].is_some() {
                return Some(id);
            }
            at = node.parent.clone();
        }
        None
    }
    /// What a run and all it started have used.
    pub fn spent(&self, run: &RunId) -> Spent {
        self.lock().get(run).map(|node| node.spent).unwrap_or_default()
    }
    /// The budgets of a run itself of which four fifths are used: what, used, limit.
    pub fn nearly_used(&self, run: &RunId) -> Vec<(&'static str, u64, u64)> {
        let nodes = self.lock();
        let Some(node) = nodes.get(run) else { return Vec::new() };
        let parts = node.spent.parts().into_iter().zip(node.limits);
        let parts = parts.filter_map(|((what, used), limit)| limit.map(|limit| (what, used, limit)));
        parts.filter(|(_, used, limit)| is_nearly(*used, *limit)).collect()
    }

    fn hold(&self, run: &RunId, ask: Spent) -> Result<Reservation, Short> {
        let mut nodes = self.lock();
        let mut at = Some(run.clone());
        while let Some(id) = at {
            let Some(node) = nodes.get(&id) else { break };
            for (i, (what, asked)) in ask.parts().into_iter().enumerate() {
                let left = node.left(i);
                if asked > left {
                    let limit = node.limits[i].unwrap_or(u64::MAX);
                    return Err(Short { what, whose: id, limit, left, asked });
                }
            }
            at = node.parent.clone();
        }
        upwards(&mut nodes, run, |node| node.reserved.add(ask));
        Ok(Reservation { run: run.clone(), amount: ask })
    }
    fn release(&self, reservation: Reservation, actual: Spent) {
        upwards(&mut self.lock(), &reservation.run, |node| {
            node.reserved.take(reservation.amount);
            node.spent.add(actual);
        });
    }
    fn lock(&self) -> MutexGuard<'_, BTreeMap<RunId, Node>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether four fifths are used.
pub(crate) fn is_nearly(used: u64, limit: u64) -> bool {
    limit > 0 && u128::from(used) * 5 >= u128::from(limit) * 4
}

fn limits(budget: &Budget) -> [Option<u64>; 4] {
    [budget.usd, budget.tokens, budget.turns.map(u64::from), budget.tool_calls.map(u64::from)]
}

/// Does something at every node from a run to its root.
fn upwards(nodes: &mut BTreeMap<RunId, Node>, run: &RunId, mut each: impl FnMut(&mut Node)) {
    let mut at = Some(run.clone());
    while let Some(node) = at.and_then(|id| nodes.get_mut(&id)) {
        each(node);
        at = node.parent.clone();
    }
}
