//! Random schedules, many runs at once, many that wait: with a clock that only moves when
//! everybody waits, so that a deadlock is a timeout and nothing really sleeps.

use crate::world::*;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use subagents::host::InHand;
use subagents::run::State;

const FAN: usize = 10;

fn many(of: &str, n: usize, random: &mut impl FnMut(u64) -> u64) -> Vec<(&'static str, Value)> {
    (0..n).map(|_| if random(4) == 0 { back(of) } else { agent(of, "p") }).collect()
}
fn back(of: &str) -> (&'static str, Value) {
    ("Agent", json!({ "description": "d", "prompt": "p", "subagent_type": of, "run_in_background": true }))
}

/// One tree of depth 3 in which everybody starts ten, over one budget, with everything taking a
/// random time; how many runs there were.
fn race(seed: u64, requests: u64) -> usize {
    let ways = Arc::new(Ways::default());
    ways.seed.store(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, Ordering::SeqCst);
    let mut random = |below| ways.random(below);
    let tokens = 60 + requests * 15;
    let (calls, concurrent) = (1 + random(requests * 2), 1 + random(10));
    let script = Script::from([
        ("a", vec![("", many("b", FAN, &mut random)), ("a", vec![]), ("a", vec![])]),
        ("b", vec![("", many("c", FAN, &mut random)), ("b", vec![]), ("b", vec![])]),
        ("c", vec![("", many("d", FAN, &mut random)), ("c", vec![]), ("c", vec![])]),
        ("d", vec![("", vec![call("s__pure")]), ("d", vec![])]),
    ]);
    let rules = format!("{TOOLS}\nspawn = {{ max_depth = 3, max_total = 10000, max_concurrent = {concurrent} }}");
    let mut world = World::new(policy(&rules), script);
    world.ways = ways.clone();
    world.price = Some(policies::price::Price { input: 2, output: 3, ..policies::price::Price::FREE });
    let world = Arc::new(world);
    let ended = block_paused(async {
        let mut start = world.start("a");
        start.limits.tokens = tokens;
        start.limits.tool_calls = u32::try_from(calls).unwrap();
        start.limits.usd = policies::price::Usd(if seed.is_multiple_of(2) { u64::MAX } else { tokens * 3 });
        let host = world.host();
        let ended = host.start(start).await.unwrap();
        assert_eq!(host.in_hand(), InHand { trees: 0, tasks: 0 });
        ended
    });
    assert!(ended.state.is_end(), "{seed}: {ended:?}");
    let disk = world.disk();
    let spent: u64 = disk.runs.values().map(|(_, _, state)| state.spent().tokens).sum();
    assert!(spent <= tokens, "{seed}: {spent} of {tokens}");
    let money: u64 = disk.runs.values().map(|(row, ..)| row.usd.unwrap()).sum();
    assert!(seed.is_multiple_of(2) || money <= tokens * 3, "{seed}");
    assert!(disk.runs.values().all(|(_, _, state)| state.phase().is_end()), "{seed}: nobody is left");
    disk.runs.len()
}

fn races(seeds: std::ops::Range<u64>) {
    let most = seeds.map(|seed| race(seed, 2 + seed * 7 % 29)).max();
    assert!(most > Some(50), "{most:?}");
}

// A thousand schedules, in two halves, so that two processors share them.
#[test]
fn five_hundred_schedules_of_a_tree_that_races_for_one_budget() {
    races(0..500);
}
#[test]
fn five_hundred_other_schedules() {
    races(500..1_000);
}

#[test]
fn the_whole_tree_of_1111_runs_ends() {
    let ways = Arc::new(Ways::default());
    ways.seed.store(7, Ordering::SeqCst);
    let ten = |of| (0..FAN).map(|_| agent(of, "p")).collect::<Vec<_>>();
    let script = Script::from([
        ("a", vec![("", ten("b")), ("done", vec![])]),
        ("b", vec![("", ten("c")), ("b", vec![])]),
        ("c", vec![("", ten("d")), ("c", vec![])]),
        ("d", vec![("d", vec![])]),
    ]);
    let rules = format!("{TOOLS}\nspawn = {{ max_depth = 3, max_total = 10000, max_concurrent = 10 }}");
    let mut world = World::new(policy(&rules), script);
    world.ways = ways;
    let world = Arc::new(world);
    let ended = block_paused(world.run("a")).unwrap();
    assert_eq!(ended.text, "done");
    assert_eq!(world.disk().runs.len(), 1 + FAN + FAN * FAN + FAN * FAN * FAN);
}

#[test]
fn two_hundred_runs_with_a_thousand_children_all_get_their_turn() {
    let ways = Arc::new(Ways::default());
    ways.seed.store(11, Ordering::SeqCst);
    let five = || (0..5).map(|_| agent("b", "p")).collect::<Vec<_>>();
    let script = Script::from([
        ("a", vec![("", five()), ("done", vec![])]),
        ("b", vec![("", vec![call("s__pure")]), ("b", vec![])]),
    ]);
    let mut world = World::new(policy(&format!("{TOOLS}\nspawn = {{ max_concurrent = 2 }}")), script);
    world.ways = ways;
    let world = Arc::new(world);
    let mut took = block_paused(async {
        let host = world.host();
        let runs = (0..200).map(|_| {
            let (host, start) = (host.clone(), world.start("a"));
            async move {
                let began = tokio::time::Instant::now();
                let ended = host.start(start).await.unwrap();
                assert_eq!((ended.state, ended.text.as_str()), (State::Completed, "done"));
                began.elapsed()
            }
        });
        futures_util::future::join_all(runs).await
    });
    took.sort();
    assert_eq!(world.disk().runs.len(), 1_200);
    // Nobody waits for anybody else's work: the slowest took no more than a few times as long.
    let (first, middle, last) = (took[0], took[100], took[199]);
    assert!(last < first * 4 && last < middle * 2, "{first:?} {middle:?} {last:?}");
    assert!(last < Duration::from_secs(20));
}

#[test]
fn parked_runs_are_rows_and_nothing_else() {
    let ask = ("ask_user", json!({ "question": "?" }));
    let script = Script::from([
        ("a", vec![("", vec![agent("b", "p")]), ("{{last}}", vec![])]),
        ("b", vec![("", vec![ask]), ("{{last}}", vec![])]),
    ]);
    let world = Arc::new(World::new(policy(TOOLS), script));
    block_paused(async {
        let host = world.host();
        let runs = (0..3_000).map(|_| {
            let (host, start) = (host.clone(), world.start("a"));
            async move { host.start(start).await.unwrap().state }
        });
        let states = futures_util::future::join_all(runs).await;
        assert!(states.iter().all(|state| *state == State::Waiting));
        assert_eq!(host.in_hand(), InHand { trees: 0, tasks: 0 });
        // Any of them is woken by itself.
        let question = world.open_question();
        let tea = subagents::ports::Answer::Input { value: Value::from("tea"), note: None };
        host.answer(&question, tea, "ann", subagents::host::Then::Drive).await.unwrap();
        let disk = world.disk();
        assert_eq!(disk.runs.values().filter(|(row, ..)| row.state == "waiting").count(), 5_998);
    });
}
