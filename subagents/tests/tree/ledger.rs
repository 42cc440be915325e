//! Budgets under any schedule: never overspent beyond what a settled request used on top of its
//! reservation, and every node's spending is that of all below it.

use crate::world::*;
use policies::price::Price;
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;
use subagents::event::{Amount, Budget};
use subagents::ledger::{Ledger, Spent};
use subagents::run::{RunId, State};

const FAN: usize = 10;

/// A root, ten children, a hundred grandchildren.
fn id(i: usize) -> RunId {
    RunId::known(&format!("r-{i}"))
}
fn parent(i: usize) -> Option<usize> {
    (i > 0).then(|| (i - 1) / FAN)
}

fn tree(limits: &[Option<u64>]) -> Ledger {
    let ledger = Ledger::default();
    for i in 0..1 + FAN + FAN * FAN {
        let tokens = limits[i % limits.len()];
        let budget = Budget { tokens, usd: tokens.map(|t| t * 3), ..Budget::default() };
        ledger.add(&id(i), parent(i).map(id).as_ref(), &budget, Spent::default());
    }
    ledger
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_schedule_overspends(
        limits in prop::collection::vec(prop::option::of(0u64..400), 3..30),
        steps in prop::collection::vec((0usize..111, 1u64..60, 0u64..90, any::<bool>()), 1..300),
    ) {
        let ledger = tree(&limits);
        let (mut held, mut overshoot, mut sums) = (Vec::new(), 0u64, vec![0u64; 111]);
        let mut settle = |ledger: &Ledger, (i, ask, actual, reservation)| {
            let (ask, actual): (u64, u64) = (ask, actual);
            ledger.settle(reservation, Amount { tokens: actual, usd: Some(actual) });
            overshoot += actual.saturating_sub(ask);
            let mut at = Some(i);
            while let Some(i) = at {
                sums[i] += actual;
                at = parent(i);
            }
        };
        for (i, ask, actual, now) in steps {
            let (tokens, _) = ledger.left(&id(i));
            match ledger.reserve(&id(i), Amount { tokens: ask, usd: Some(ask) }) {
                Ok(reservation) => {
                    prop_assert!(ask <= tokens);
                    held.push((i, ask, actual, reservation));
                }
                Err(short) => prop_assert!(short.asked > short.left && short.left <= short.limit),
            }
            if now && !held.is_empty() {
                settle(&ledger, held.remove(0));
            }
        }
        for one in held {
            settle(&ledger, one);
        }
        for (i, sum) in sums.iter().enumerate() {
            let spent = ledger.spent(&id(i));
            prop_assert_eq!(spent.tokens, *sum, "conserved");
            let limit = limits[i % limits.len()].unwrap_or(u64::MAX);
            prop_assert!(spent.tokens <= limit.saturating_add(overshoot));
        }
    }
}

#[test]
fn threads_that_reserve_at_once_never_pass_a_limit() {
    let ledger = Arc::new(tree(&[Some(1_000)]));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let ledger = ledger.clone();
            scope.spawn(move || {
                for step in 0..200 {
                    let run = id(11 + (thread * 13 + step) % 100);
                    if let Ok(held) = ledger.reserve(&run, Amount { tokens: 7, usd: Some(7) }) {
                        ledger.settle(held, Amount { tokens: 7, usd: Some(7) });
                    }
                }
            });
        }
    });
    let spent = ledger.spent(&id(0)).tokens;
    assert!(spent <= 1_000 && spent > 990, "{spent}");
}

/// 10 tokens read and at most 50 written each time.
fn turns() -> Script {
    let turn = || ("", vec![call("s__pure")]);
    Script::from([("a", vec![turn(), turn(), turn(), ("done", vec![])])])
}

#[test]
fn the_request_that_would_pass_a_limit_is_not_sent() {
    // 15 are used by each turn; before the third 30 are used and 60 may be.
    let world = Arc::new(World::new(policy(TOOLS), turns()));
    let ended = block(async {
        let mut start = world.start("a");
        start.limits.tokens = 80;
        world.host().start(start).await.unwrap()
    });
    assert_eq!(ended.state, State::OverBudget);
    assert!(ended.text.starts_with("budget.tokens of run"), "{}", ended.text);
    assert_eq!(world.events("model.requested").len(), 2);
}

#[test]
fn money_without_a_price_is_refused_with_the_cure() {
    let mut world = World::new(policy(TOOLS), turns());
    world.price = None;
    let world = Arc::new(world);
    let ended = block(async {
        let mut start = world.start("a");
        start.limits.usd = policies::price::Usd(1_000);
        world.host().start(start).await.unwrap()
    });
    assert_eq!(ended.state, State::Failed);
    assert!(ended.text.contains("give the model a price"), "{}", ended.text);
    assert_eq!(world.events("model.requested").len(), 0);
}

#[test]
fn money_is_counted_and_told_of_once_when_most_is_used() {
    let mut world = World::new(policy(TOOLS), turns());
    world.price = Some(Price { input: 1, output: 1, ..Price::FREE });
    let world = Arc::new(world);
    let ended = block(async {
        let mut start = world.start("a");
        start.limits.usd = policies::price::Usd(105);
        start.limits.tool_calls = 3;
        world.host().start(start).await.unwrap()
    });
    assert_eq!((ended.state, ended.text.as_str()), (State::Completed, "done"));
    assert_eq!(world.disk().runs.values().next().unwrap().0.usd, Some(60));
    assert_eq!(world.events("budget.alert").len(), 1, "tool_calls");
}

#[test]
fn a_childs_budget_binds_the_child_and_its_parents_binds_both() {
    let spawn = json!({ "description": "d", "prompt": "p", "subagent_type": "b", "budget": { "tokens": 70 } });
    let script = Script::from([
        ("a", vec![("", vec![("Agent", spawn)]), ("{{last}}", vec![])]),
        ("b", vec![("", vec![call("s__pure")]), ("b done", vec![])]),
    ]);
    let world = Arc::new(World::new(policy(TOOLS), script));
    let ended = block(world.run("a")).unwrap();
    assert!(ended.text.contains("the subagent b is over_budget: budget.tokens"), "{}", ended.text);
}

#[test]
fn time_is_a_budget() {
    let script = Script::from([("a", vec![("", vec![("ask_user", json!({ "question": "?" }))])])]);
    let world = Arc::new(World::new(policy(TOOLS), script));
    let ended = block(async {
        let mut start = world.start("a");
        start.limits.wall = Some(std::time::Duration::ZERO);
        world.host().start(start).await.unwrap()
    });
    assert_eq!(ended.state, State::OverBudget);
    assert!(ended.text.starts_with("budget.wall"), "{}", ended.text);
}
