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

use crate::event::{Amount, Budget, Elsewhere};
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
    pub(crate) fn add(&mut self, other: Spent) {
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
    fn least(self, other: Spent) -> Spent {
        Spent {
            usd: self.usd.min(other.usd),
            tokens: self.tokens.min(other.tokens),
            turns: self.turns.min(other.turns),
            tool_calls: self.tool_calls.min(other.tool_calls),
        }
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

impl From<Elsewhere> for Spent {
    fn from(used: Elsewhere) -> Self {
        let Elsewhere { usd, tokens, turns, tool_calls, .. } = used;
        Spent { usd, tokens, turns: turns.into(), tool_calls: tool_calls.into() }
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

/// What was given along to a task elsewhere, held back here meanwhile. It must be taken back.
#[derive(Debug)]
#[must_use = "what is given and not taken back is never free again"]
pub struct Given {
    held: Reservation,
    /// No more than this is believed to be used.
    most: Spent,
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
    /// Gives a task elsewhere its part of what is left of every limit from this run up, and no more
    /// than `most`: one of so many parts, for others of the tree go on meanwhile.
    pub fn give(&self, run: &RunId, parts: u64, most: Limits) -> (Limits, Given) {
        let mut nodes = self.lock();
        let least = least(&mut nodes, run);
        let part = |left: u64| if left == u64::MAX { left } else { left / parts.max(1) };
        let [usd, tokens, turns, tool_calls] = least.map(part);
        let limits = limited(usd, tokens, turns, tool_calls).meet(most);
        let count = |n: u32| if n == u32::MAX { u64::MAX } else { n.into() };
        let (turns, tool_calls) = (count(limits.turns), count(limits.tool_calls));
        let most = Spent { usd: limits.usd.0, tokens: limits.tokens, turns, tool_calls };
        // What nobody limits needs no room.
        let room = |n: u64| if n == u64::MAX { 0 } else { n };
        let amount = Spent {
            usd: room(most.usd),
            tokens: room(most.tokens),
            turns: room(most.turns),
            tool_calls: room(most.tool_calls),
        };
        upwards(&mut nodes, run, |node| node.reserved.add(amount));
        (limits, Given { held: Reservation { run: run.clone(), amount }, most })
    }
    /// The task elsewhere is over and says that it used this much; what counts of that is said here.
    pub fn take_back(&self, given: Given, used: Elsewhere) -> Elsewhere {
        let counted = Spent::from(used).least(given.most);
        self.release(given.held, counted);
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let Spent { usd, tokens, turns, tool_calls } = counted;
        Elsewhere { usd, tokens, turns: small(turns), tool_calls: small(tool_calls), runs: used.runs }
    }
    /// Nobody knows what became of the task elsewhere: all that was held back for it counts.
    pub fn lost(&self, given: Given) -> Elsewhere {
        let amount = given.held.amount;
        self.release(given.held, amount);
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let Spent { usd, tokens, turns, tool_calls } = amount;
        Elsewhere { usd, tokens, turns: small(turns), tool_calls: small(tool_calls), runs: 0 }
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
        let [usd, tokens, turns, tool_calls] = least(&mut self.lock(), run);
        limited(usd, tokens, turns, tool_calls)
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

/// What is left of each limit from a run up.
fn least(nodes: &mut BTreeMap<RunId, Node>, run: &RunId) -> [u64; 4] {
    let mut least = [u64::MAX; 4];
    upwards(nodes, run, |node| {
        for (at, least) in least.iter_mut().enumerate() {
            *least = (*least).min(node.left(at));
        }
    });
    least
}

fn limited(usd: u64, tokens: u64, turns: u64, tool_calls: u64) -> Limits {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Limits { usd: Usd(usd), tokens, turns: small(turns), tool_calls: small(tool_calls), wall: None }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(tokens: u64) -> Budget {
        Budget { tokens: Some(tokens), ..Budget::default() }
    }

    #[test]
    fn what_is_given_is_held_back_and_no_more_of_it_is_believed() {
        let (root, child) = (RunId::known("r-1"), RunId::known("r-2"));
        let ledger = Ledger::default();
        ledger.add(&root, None, &budget(1_000), Spent::default());
        ledger.add(&child, Some(&root), &Budget { turns: Some(8), ..Budget::default() }, Spent::default());
        let (limits, first) = ledger.give(&child, 2, Limits::NONE);
        assert_eq!((limits.tokens, limits.turns, limits.usd), (500, 4, Usd::MAX));
        // Whoever comes next has a part of the rest, and so has whoever asks a model.
        let (limits, second) = ledger.give(&root, 2, Limits { tokens: 100, ..Limits::NONE });
        assert_eq!((limits.tokens, limits.turns), (100, u32::MAX));
        assert_eq!(ledger.left(&child).0, 400);
        // It says more than it was given; of what nobody limits, it is believed.
        let used = Elsewhere { usd: 7, tokens: u64::MAX, turns: 9, tool_calls: 3, runs: 2 };
        let counted = ledger.take_back(first, used);
        assert_eq!(counted, Elsewhere { usd: 7, tokens: 500, turns: 4, tool_calls: 3, runs: 2 });
        // The other used nothing, or says so.
        assert_eq!(ledger.take_back(second, Elsewhere::default()), Elsewhere::default());
        assert_eq!(ledger.left(&root), (500, u64::MAX));
        assert_eq!(ledger.rest(&child).turns, 4);
        let spent = Spent { usd: 7, tokens: 500, turns: 4, tool_calls: 3 };
        assert_eq!((ledger.spent(&child), ledger.spent(&root)), (spent, spent));
        // Nobody knows what became of a third: all that was held back for it counts.
        let (limits, third) = ledger.give(&child, 2, Limits::NONE);
        assert_eq!((limits.tokens, limits.turns), (250, 2));
        let lost = ledger.lost(third);
        assert_eq!(lost, Elsewhere { usd: 0, tokens: 250, turns: 2, tool_calls: 0, runs: 0 });
        assert_eq!((ledger.left(&root).0, ledger.rest(&child).turns), (250, 2));
    }
}
