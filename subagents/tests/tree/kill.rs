//! A process dies at each of its writes, before and after it is on disk; another goes on.

use crate::world::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use subagents::event::Event;
use subagents::host::{Ended, HostError};
use subagents::run::State;
use tokio_util::sync::CancellationToken;

fn four_classes() -> Script {
    let calls = vec![call("s__pure"), call("s__idem"), call("s__veri"), call("s__once")];
    Script::from([("a", vec![("", calls.clone()), ("", calls), ("done", vec![])])])
}

/// Two children at once, one of which has a child; and one in the background.
fn three_levels() -> Script {
    Script::from([
        ("a", vec![("", vec![agent("b", "x"), agent("c", "y"), background("c")]), ("done", vec![]), ("done", vec![])]),
        ("b", vec![("", vec![agent("c", "z"), call("s__once")]), ("b done", vec![])]),
        ("c", vec![("", vec![call("s__once"), call("s__idem")]), ("c done", vec![])]),
    ])
}

/// Runs with that death, and goes on with another process when it came.
fn survive(script: Script, death: Death) -> (Arc<World>, Result<Ended, HostError>, bool) {
    let world = Arc::new(World::new(policy(TOOLS), script).dying(death));
    block(async {
        let first = world.run("a").await;
        let root = world.disk().runs.values().find(|(row, ..)| row.depth == 0).map(|(row, ..)| row.root.clone());
        match (first, root) {
            (Ok(ended), _) => (world, Ok(ended), false),
            // It died before anything was written: there is nothing to go on with.
            (Err(e), None) => (world, Err(e), true),
            (Err(_), Some(root)) => {
                let next = Arc::new(world.next());
                let ended = next.host().resume(&root, CancellationToken::new()).await;
                (next, ended, true)
            }
        }
    })
}

fn check(world: &World, what: &str) {
    let mut keys: BTreeMap<String, usize> = BTreeMap::new();
    for (tool, key) in world.outside.made.lock().unwrap().iter() {
        *keys.entry(format!("{tool} {key}")).or_default() += 1;
        if tool == "s__once" || tool == "s__veri" {
            assert_eq!(keys[&format!("{tool} {key}")], 1, "{what}: {tool} was repeated");
        }
    }
    let disk = world.disk();
    for (row, records, state) in disk.runs.values() {
        assert!(state.phase().is_end(), "{what}: {} is {}", row.run, row.state);
        assert_eq!(state.open_calls().count(), 0, "{what}: every call has an outcome");
        let ends = records.iter().filter(|r| matches!(r.event, Event::Finished { .. })).count();
        assert_eq!(ends, 1, "{what}: ended once");
        assert_eq!(*state, subagents::replay::replay(records.iter()), "{what}");
    }
}

fn matrix(script: fn() -> Script) {
    let (calm, ended, _) = survive(script(), Death::Never);
    let ended = ended.unwrap();
    assert_eq!((ended.state, ended.text.as_str()), (State::Completed, "done"));
    check(&calm, "calm");
    let runs = calm.disk().runs.len();
    for n in 0.. {
        let mut died = false;
        for death in [Death::Before(n), Death::After(n)] {
            let (world, ended, fell) = survive(script(), death);
            died |= fell;
            if world.disk().runs.is_empty() {
                continue;
            }
            let ended = ended.unwrap_or_else(|e| panic!("{death:?}: {e}"));
            assert_eq!((ended.state, ended.text.as_str()), (State::Completed, "done"), "{death:?}");
            check(&world, &format!("{death:?}"));
            assert_eq!(world.disk().runs.len(), runs, "{death:?}: as many runs as undisturbed");
        }
        if !died {
            assert!(n > 10, "the matrix has {n} rows");
            return;
        }
    }
}

#[test]
fn one_run_with_tools_of_all_classes_survives_every_death() {
    matrix(four_classes);
}

#[test]
fn a_tree_of_three_levels_survives_every_death() {
    matrix(three_levels);
}

#[test]
fn an_unknown_outcome_is_told_and_nothing_is_made_twice() {
    let script = || Script::from([("a", vec![("", vec![call("s__once")]), ("{{last}}", vec![])])]);
    // started, requested, replied, dispatched: the process dies when the result is to be written.
    let (world, ended, died) = survive(script(), Death::Before(4));
    assert!(died);
    let text = ended.unwrap().text;
    assert!(text.starts_with("unknown:") && text.contains("s__once"), "{text}");
    assert_eq!(world.made("s__once"), 1);
    let (world, ended, _) = survive(script(), Death::After(3));
    assert!(ended.unwrap().text.starts_with("unknown:"));
    assert_eq!(world.made("s__once"), 0, "not sent, and nobody can know");
}

#[test]
fn a_call_that_can_be_repeated_is_with_the_same_key() {
    let script = |name| Script::from([("a", vec![("", vec![(name, json!({"x": 1}))]), ("{{last}}", vec![])])]);
    let (world, ended, _) = survive(script("s__idem"), Death::Before(4));
    assert_eq!(ended.unwrap().text, "s__idem done");
    let made = world.outside.made.lock().unwrap().clone();
    assert!(made.len() == 2 && made[0] == made[1], "{made:?}");
    let (world, ended, _) = survive(script("s__veri"), Death::Before(4));
    assert_eq!((ended.unwrap().text.as_str(), world.made("s__veri")), ("it had happened", 1));
    let (world, ended, _) = survive(script("s__veri"), Death::After(3));
    assert_eq!((ended.unwrap().text.as_str(), world.made("s__veri")), ("s__veri done", 1));
}

#[test]
fn a_request_whose_answer_was_lost_is_counted_as_spent() {
    let script = Script::from([("a", vec![("done", vec![])])]);
    let (world, ended, _) = survive(script, Death::Before(2));
    assert_eq!(ended.unwrap().text, "done");
    let disk = world.disk();
    let (row, _, state) = disk.runs.values().next().unwrap();
    assert_eq!((row.turns, row.tokens), (1, 15));
    // 10 read and at most 50 written were reserved for the one that was lost.
    assert_eq!(state.spent().tokens, 15 + 60);
}

#[test]
fn a_fenced_host_stops_and_writes_nothing_more() {
    let script = Script::from([("a", vec![("", vec![("ask_user", json!({"question": "?"}))])])]);
    let world = Arc::new(World::new(policy(TOOLS), script));
    block(async {
        let host = world.host();
        let mut start = world.start("a");
        start.id = subagents::run::RunId::known("r-fence");
        let root = start.id.clone();
        // Taken over by another process, which thinks the first one dead, at the first write.
        let mut seen = host.watch();
        let running = tokio::spawn({
            let host = host.clone();
            async move { host.start(start).await }
        });
        seen.recv().await.unwrap();
        let other = Arc::new(world.next());
        world.die();
        let claimed = subagents::ports::Journal::claim(&*other, &root).await.unwrap();
        assert!(matches!(claimed, subagents::ports::Claimed::Lease(l) if l.epoch == 2));
        world.revive();
        let written = world.disk().order.len();
        assert_eq!(running.await.unwrap(), Err(HostError::Fenced));
        assert_eq!(world.disk().order.len(), written);
    });
}
