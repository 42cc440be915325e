//! What a run that goes on is held to: the lesser of what it began with and of what its client, its
//! door and its agents allow by now. Rights are worked out anew whenever a run acts; counted limits
//! are when it is driven and before each request to its model.

use super::HostError;
use super::drive::At;
use super::run::Limited;
use super::spawn::budget;
use crate::event::{Budget, Event};
use policies::resolve::Limits;

impl At {
    /// Holds the run, and with it all above it whose budgets it shares, to what is allowed now.
    /// Says whether that changed what its journal says.
    pub(super) async fn hold(&self) -> Result<bool, HostError> {
        let ports = &self.host.ports;
        for above in self.tree.above(&self.run) {
            // Who may do nothing any more needs no limits: it is told so where it acts.
            if let Ok(standing) = self.tree.standing(ports, &above) {
                let now = if above.parent.is_none() { standing.all } else { standing.own };
                self.tree.ledger.hold_to(&above.id, &budget(now, None).unwrap_or_default());
            }
        }
        let Ok(standing) = self.tree.standing(ports, &self.run) else { return Ok(false) };
        // A root has nobody above it in the tree; a fork is bounded by all that bounded its past.
        let own = if self.run.parent.is_none() { standing.all } else { standing.own };
        let (changed, now) = {
            let log = self.run.log.lock().await;
            let now = lesser(log.began, own, standing.all);
            let (turns, calls) = log.state.limits();
            ((turns, calls, log.budget) != now, now)
        };
        self.tree.ledger.hold_to(&self.run.id, &now.2);
        if !changed {
            return Ok(false);
        }
        let budget = (now.2 != Budget::default()).then_some(now.2);
        let event = Event::Limited { max_turns: now.0, max_tool_calls: now.1, budget };
        self.tree.append(&self.host, &self.run, vec![event]).await
    }
}

/// What a run began with, met with its own tables for what it shares with those below it, and with
/// those of all above it for what is counted of it alone.
fn lesser((turns, calls, began): Limited, own: Limits, all: Limits) -> Limited {
    let least = |a: Option<u64>, b: Option<u64>| [a, b].into_iter().flatten().min();
    let now = budget(own, None).unwrap_or_default();
    let budget = Budget {
        usd: least(began.usd, now.usd),
        tokens: least(began.tokens, now.tokens),
        wall_ms: least(began.wall_ms, now.wall_ms),
        ..began
    };
    (turns.min(all.turns), calls.min(all.tool_calls), budget)
}
