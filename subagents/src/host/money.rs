//! What a request may use: reserved before it leaves, and said when most of it is used.

use super::HostError;
use super::drive::At;
use super::think::NotAsked;
use crate::event::{Amount, Event};
use crate::ledger::{Reservation, is_nearly};
use crate::ports::ModelFacts;
use crate::run::State;
use policies::price::Tokens;

/// With less room than this for its answer a model is not asked.
pub(super) const LEAST_OUTPUT: u64 = 1_024;

impl At {
    /// Says once of each budget that most of it is used.
    pub(super) async fn alert(&self) -> Result<(), HostError> {
        let mut nearly = self.tree.ledger.nearly_used(&self.run.id);
        let log = self.run.log.lock().await;
        let (turns, calls) = log.state.counted();
        let (max_turns, max_calls) = log.state.limits();
        for (what, used, limit) in [("turns", u64::from(turns), max_turns), ("tool_calls", u64::from(calls), max_calls)]
        {
            if limit != u32::MAX && is_nearly(used, limit.into()) {
                nearly.push((what, used, limit.into()));
            }
        }
        // Said once, of the limit that leaves least.
        nearly.sort_by_key(|(_, used, limit)| limit.saturating_sub(*used));
        let mut said = std::collections::BTreeSet::new();
        nearly.retain(|(what, ..)| !log.state.alerts.contains(*what) && said.insert(*what));
        drop(log);
        let events = nearly.into_iter();
        let events: Vec<Event> =
            events.map(|(what, used, limit)| Event::BudgetAlert { what: what.to_owned(), used, limit }).collect();
        if !events.is_empty() {
            self.append(events).await?;
        }
        Ok(())
    }

    /// Makes room for a request that reads this much, lowering what it may write to what is left.
    pub(super) fn reserve(
        &self,
        facts: &ModelFacts,
        read: u64,
        most: u64,
        aside: bool,
    ) -> Result<(Reservation, Amount, u64), NotAsked> {
        let ledger = &self.tree.ledger;
        let price = facts.price.as_ref();
        if let (None, Some(whose)) = (price, ledger.usd_limited(&self.run.id)) {
            let why = format!(
                "run {whose} has a budget in usd, and what the model of {} costs is unknown; give the model a price",
                self.run.agent()
            );
            return Err((State::Failed, why));
        }
        let (tokens, usd) = ledger.left(&self.run.id);
        let cost = |output: u64| price.map(|p| dearest(p, read, output));
        let mut output = most.min(tokens.saturating_sub(read));
        // The price of a token written is linear but for one step, so halving finds what fits.
        while output >= LEAST_OUTPUT.min(most) && cost(output).unwrap_or(0) > usd {
            output /= 2;
        }
        let output = if output < LEAST_OUTPUT.min(most) { most } else { output };
        let amount = Amount { tokens: read.saturating_add(output), usd: cost(output) };
        let held = match aside {
            true => ledger.reserve_aside(&self.run.id, amount),
            false => ledger.reserve(&self.run.id, amount),
        };
        match held {
            Ok(held) => Ok((held, amount, output)),
            Err(short) => Err((State::OverBudget, short.to_string())),
        }
    }
}

/// What a request costs at most: whatever it reads may have to be written to the cache.
fn dearest(price: &policies::price::Price, read: u64, output: u64) -> u64 {
    let tokens = [
        Tokens { input: read, output, ..Tokens::default() },
        Tokens { cache_write: read, output, ..Tokens::default() },
        Tokens { cache_write_long: read, output, ..Tokens::default() },
    ];
    tokens.iter().map(|t| price.cost(t).0).max().unwrap_or(0)
}
