//! What a driver does next is what the journal so far says is to be done, at every point of
//! every run; and no death at any point of any plan makes anything twice.

use crate::world::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use subagents::event::Event;
use subagents::run::RunId;
use subagents::turn::{self, Effect, State};
use tokio_util::sync::CancellationToken;

/// For each agent and turn: tool calls, children of agent b, of agent c, in the background.
type Plan = Vec<Vec<(usize, usize, usize, bool)>>;

fn script(plan: &Plan) -> Script {
    let tools = ["s__pure", "s__once", "s__idem", "s__veri", "s__none__such"];
    let turns = |of: usize| -> Vec<Turn> {
        let turns = plan[of].iter().enumerate().map(|(t, (calls, b, c, back))| {
            let mut wanted: Vec<_> = (0..*calls).map(|i| call(tools[(i + t) % tools.len()])).collect();
            // Only downwards, so that every tree ends.
            let (b, c) = (if of == 0 { *b } else { 0 }, if of < 2 { *c } else { 0 });
            wanted.extend((0..b).map(|_| agent("b", "p")));
            wanted.extend((0..c).map(|_| if *back { background("c") } else { agent("c", "p") }));
            ("said", wanted)
        });
        turns.collect()
    };
    Script::from([("a", turns(0)), ("b", turns(1)), ("c", turns(2))])
}

/// Whether something in `pending` leads to this event.
fn announced(pending: &[Effect], event: &Event) -> bool {
    let call = |id: &str| {
        pending.iter().any(|effect| match effect {
            Effect::Act(call, _) | Effect::Redo { call, .. } | Effect::Refuse(call, _) => call.id == id,
            Effect::AwaitChild { call, .. } => call.as_deref() == Some(id),
            _ => false,
        })
    };
    match event {
        Event::ModelRequested { turn, .. } => pending.contains(&Effect::Think(*turn)),
        Event::ModelReplied { .. } | Event::BudgetAlert { .. } => pending.iter().any(|e| matches!(e, Effect::Think(_))),
        Event::ToolRequested { id, .. }
        | Event::ToolDecided { id, .. }
        | Event::ToolDispatched { id, .. }
        | Event::ToolFinished { id, .. } => call(id),
        Event::ChildStarted { call: Some(id), .. } => call(id),
        Event::ChildFinished { run, .. } => {
            pending.iter().any(|e| matches!(e, Effect::AwaitChild { run: r, call: None } if r == run))
        }
        Event::Finished { state, .. } => {
            // A limit of the ledger's, or the end of whoever started it, ends a run in the middle.
            pending.iter().any(|e| matches!(e, Effect::Finish(s, _) if s.as_str() == state))
                || state == "over_budget"
                || state == "cancelled"
        }
        _ => true,
    }
}

fn plans() -> impl Strategy<Value = Plan> {
    let turn = (0usize..4, 0usize..2, 0usize..3, any::<bool>());
    prop::collection::vec(prop::collection::vec(turn, 0..3), 3..=3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_follows_is_what_was_pending(plan in plans(), turns in 1u32..6, total in 1u32..12) {
        let limits = format!(
            "{TOOLS}\nspawn = {{ max_total = {total}, max_concurrent = 2 }}\nbudget = {{ turns = {turns}, tool_calls = 5 }}"
        );
        let world = Arc::new(World::new(policy(&limits), script(&plan)));
        let ended = block(world.run("a"));
        prop_assert!(ended.is_ok_and(|e| e.state.is_end()));
        let disk = world.disk();
        prop_assert!(disk.runs.len() <= total as usize);
        let mut states: BTreeMap<RunId, State> = BTreeMap::new();
        for record in &disk.order {
            let state = states.entry(record.run.clone()).or_default();
            let before = turn::pending(state);
            if record.seq > 1 {
                prop_assert!(announced(&before, &record.event), "{:?}\nafter {:?}", record.event, before);
            }
            turn::on(state, &record.event);
            prop_assert!(state.phase().is_end() || !turn::pending(state).is_empty(), "a run that hangs");
        }
        for (row, _, state) in disk.runs.values() {
            prop_assert!(state.phase().is_end() && row.turns <= turns && row.tool_calls <= 5);
        }
    }

    #[test]
    fn no_death_makes_anything_twice(plan in plans(), n in 0usize..60, after in any::<bool>(), again in 0usize..60) {
        let death = if after { Death::After(n) } else { Death::Before(n) };
        let mut world = Arc::new(World::new(policy(TOOLS), script(&plan)).dying(death));
        block(async {
            let _ = world.run("a").await;
            let Some(root) = world.disk().runs.values().next().map(|(row, ..)| row.root.clone()) else { return };
            for death in [Death::Before(again), Death::Never] {
                world.die();
                world = Arc::new(world.next().dying(death));
                let _ = world.host().resume(&root, CancellationToken::new()).await;
            }
        });
        let disk = world.disk();
        for (row, _, state) in disk.runs.values() {
            prop_assert!(state.phase().is_end(), "{} is {}", row.run, row.state);
        }
        let made = world.outside.made.lock().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for (tool, key) in made.iter().filter(|(tool, _)| tool == "s__once" || tool == "s__veri") {
            prop_assert!(seen.insert(key.clone()), "{} was repeated", tool);
        }
    }
}
