//! What happens between two writes, and follows nowhere from one of them alone.

use crate::world::*;
use serde_json::json;
use std::sync::Arc;
use subagents::event::Event;
use subagents::host::{Done, Ended, Host, HostError, Then};
use subagents::ports::Answer;
use subagents::run::{RunId, State};
use tokio_util::sync::CancellationToken;

fn driven(done: Result<Done, HostError>) -> Ended {
    match done.unwrap() {
        Done::Driven(ended) => ended,
        other => panic!("{other:?}"),
    }
}
fn runs(world: &World, agent: &str) -> Vec<RunId> {
    let disk = world.disk();
    disk.runs.values().filter(|(row, ..)| row.agent == agent).map(|(row, ..)| row.run.clone()).collect()
}
/// Until something is so; with a clock that only moves when everybody waits.
async fn until(mut what: impl FnMut() -> bool) {
    while !what() {
        tokio::time::sleep(std::time::Duration::from_micros(300)).await;
    }
}
/// A world in which everything takes a random time.
fn random(script: Script, seed: u64) -> Arc<World> {
    let mut world = World::new(policy(TOOLS), script);
    world.ways = Arc::new(Ways::default());
    world.ways.seed.store(seed * 2 + 1, std::sync::atomic::Ordering::SeqCst);
    world.ways.random(2);
    Arc::new(world)
}
/// A root run in the background of the test, and its host.
fn begun(world: &Arc<World>, agent: &str) -> (Arc<Host>, tokio::task::JoinHandle<Result<Ended, HostError>>) {
    let (host, start) = (world.host(), world.start(agent));
    let of = host.clone();
    (host, tokio::spawn(async move { of.start(start).await }))
}

#[test]
fn a_follow_up_has_its_turns_anew_and_the_trees_budget_as_it_is() {
    let turn = || ("", vec![call("s__pure")]);
    let said = vec![turn(), turn(), turn(), turn(), ("done", vec![]), turn(), turn(), turn()];
    let world = Arc::new(World::new(
        policy(&format!("{TOOLS}\nbudget = {{ turns = 3, tool_calls = 3 }}")),
        Script::from([("a", said)]),
    ));
    block(async {
        let mut start = world.start("a");
        // 15 are used by each turn, and 60 reserved for it.
        start.limits.tokens = 150;
        let host = world.host();
        let ended = host.start(start).await.unwrap();
        assert_eq!((ended.state, world.made("s__pure")), (State::OverBudget, 3));
        assert!(ended.text.contains("3 of 3 model calls"), "{}", ended.text);
        let ended = driven(host.send(&ended.run, "ann", "go on".into(), Then::Drive).await);
        assert_eq!((ended.state, ended.text.as_str(), world.made("s__pure")), (State::Completed, "done", 4));
        assert_eq!(world.disk().runs[&ended.run].0.turns, 5, "the row counts them all");
        // What the tree may use is not anew.
        let ended = driven(host.send(&ended.run, "ann", "and more".into(), Then::Drive).await);
        assert_eq!(ended.state, State::OverBudget);
        assert!(ended.text.starts_with("budget.tokens"), "{}", ended.text);
    });
}

/// The pause comes at any time of a tree that starts many children in the background.
#[test]
fn a_pause_reaches_a_child_whose_start_is_being_written() {
    let script = || {
        Script::from([
            ("a", vec![("", (0..6).map(|_| background("b")).collect()), ("{{last}}", vec![]), ("done", vec![])]),
            ("b", vec![("", vec![background("c")]), ("{{last}}", vec![]), ("b done", vec![])]),
            ("c", vec![("", vec![call("s__pure")]), ("c done", vec![])]),
        ])
    };
    let mut met = 0;
    for seed in 0..300 {
        let world = random(script(), seed);
        block_paused(async {
            let (host, running) = begun(&world, "a");
            until(|| !runs(&world, "a").is_empty()).await;
            let wait = world.ways.random(150_000);
            tokio::time::sleep(std::time::Duration::from_micros(wait)).await;
            let root = runs(&world, "a").remove(0);
            if host.pause(&root, "ann").await.is_err() {
                return;
            }
            let ended = running.await.unwrap().unwrap();
            if ended.state.is_end() {
                return;
            }
            // It stands still: whatever has not ended is paused.
            let paused = |world: &World| {
                let disk = world.disk();
                disk.runs.values().filter(|(_, _, s)| !s.phase().is_end()).all(|(_, _, s)| s.paused)
            };
            assert!(paused(&world), "{seed}");
            let by = |e: &Event| matches!(e, Event::Paused { by } if by == "the pause of the tree");
            met += world.events("run.paused").iter().filter(|e| by(e)).count();
            assert_eq!(ended.state, State::Waiting, "{seed}");
            let ended = driven(host.unpause(&root, "ann", Then::Drive).await);
            assert_eq!(ended.state, State::Completed, "{seed}");
            assert_eq!(world.made("s__pure"), 6, "{seed}");
        });
    }
    assert!(met > 0, "the gap was met");
}

/// Somebody sends a message to a child in the background at every moment around its end: each
/// answer it gives is reported to its parent.
#[test]
fn a_second_answer_is_never_lost_between_the_end_and_its_report() {
    // The parent writes all the time, so that whoever wants its log stands in line.
    let busy = || ("", (0..30).map(|_| call("s__pure")).collect());
    let script = || {
        Script::from([
            (
                "a",
                vec![
                    ("", vec![background("b")]),
                    busy(),
                    busy(),
                    ("{{last}}", vec![]),
                    ("{{last}}", vec![]),
                    ("{{last}}", vec![]),
                ],
            ),
            ("b", vec![("first", vec![]), ("second", vec![]), ("third", vec![])]),
        ])
    };
    let mut reopened = 0;
    for seed in 0..150 {
        let world = random(script(), seed);
        block_paused(async {
            let (host, running) = begun(&world, "a");
            until(|| !runs(&world, "b").is_empty()).await;
            let child = runs(&world, "b").remove(0);
            let wait = world.ways.random(130_000);
            tokio::time::sleep(std::time::Duration::from_micros(wait)).await;
            let sent = host.send(&child, "ann", "and?".into(), Then::Drive).await;
            running.await.unwrap().unwrap();
            if sent.is_err() {
                return;
            }
            let disk = world.disk();
            let of = |run: &RunId| disk.runs[run].1.clone();
            let ends = of(&child).iter().filter(|r| matches!(r.event, Event::Finished { .. })).count();
            let parent = disk.runs.values().find(|(row, ..)| row.agent == "a").unwrap();
            let told = parent.1.iter().filter(|r| matches!(r.event, Event::ChildFinished { .. })).count();
            // One that was told after its parent's end answers for itself.
            let order = &disk.order;
            let at = |f: &dyn Fn(&Event) -> bool, run: &RunId| order.iter().position(|r| r.run == *run && f(&r.event));
            let over = at(&|e| matches!(e, Event::Finished { .. }), &parent.0.run).unwrap();
            let message = at(&|e| matches!(e, Event::MessageReceived { .. }), &child).unwrap();
            if message < over {
                let log: Vec<_> =
                    order.iter().map(|r| format!("{} {:?}", disk.runs[&r.run].0.agent, r.event)).collect();
                assert_eq!(ends, told, "{seed}\n{}", log.join("\n"));
                reopened += usize::from(ends > 1);
            }
            assert!(disk.runs.values().all(|(_, _, s)| s.phase().is_end()));
        });
    }
    assert!(reopened > 0, "the gap was met");
}

#[test]
fn a_childs_result_beyond_64_kib_is_shown_by_its_ends_and_read_by_its_handle() {
    let long: &'static str = Box::leak(format!("{}END", "x".repeat(100_000)).into_boxed_str());
    let read = ("read_result", json!({ "blob": "{{blob}}", "offset": 99_998, "limit": 100 }));
    let script = |first| {
        Script::from([
            ("a", vec![("", vec![first]), ("", vec![read.clone()]), ("{{last}}", vec![])]),
            ("b", vec![(long, vec![])]),
        ])
    };
    let world = Arc::new(World::new(policy(TOOLS), script(agent("b", "p"))));
    assert_eq!(block(world.run("a")).unwrap().text, "[bytes 99998 to 100003 of 100003]\nxxEND");
    // A report from the background is as short.
    let world = Arc::new(World::new(
        policy(TOOLS),
        Script::from([
            ("a", vec![("", vec![background("b")]), ("-", vec![]), ("{{last}}", vec![])]),
            ("b", vec![(long, vec![])]),
        ]),
    ));
    let ended = block(world.run("a")).unwrap();
    assert!(ended.text.len() < 20_000 && ended.text.ends_with("END"), "{}", ended.text.len());
    assert_eq!(world.events("result.kept").len(), 1);
}

#[test]
fn a_tree_is_limited_at_every_depth_and_after_a_crash() {
    let everywhere = || {
        let two = vec![agent("a", "p"), agent("a", "p"), background("a")];
        Script::from([("a", vec![("", two.clone()), ("", two), ("end", vec![]), ("end", vec![]), ("end", vec![])])])
    };
    for (depth, total) in [(1u32, 100usize), (2, 100), (3, 9), (5, 7)] {
        let rules = format!("{TOOLS}\nspawn = {{ max_depth = {depth}, max_total = {total}, max_concurrent = 2 }}");
        for n in [usize::MAX, 3, 11, 17, 23, 31] {
            let world = Arc::new(World::new(policy(&rules), everywhere()).dying(Death::After(n)));
            block(async {
                let _ = world.run("a").await;
                let root = world.disk().runs.values().find(|(row, ..)| row.depth == 0).unwrap().0.run.clone();
                if !world.disk().runs[&root].2.phase().is_end() {
                    let ended = Arc::new(world.next()).host().resume(&root, CancellationToken::new()).await.unwrap();
                    assert_eq!(ended.state, State::Completed);
                }
            });
            let disk = world.disk();
            assert!(disk.runs.len() <= total && disk.runs.values().all(|(row, ..)| row.depth <= depth));
            let deepest = disk.runs.values().map(|(row, ..)| row.depth).max();
            assert!(total < 100 || deepest == Some(depth), "as deep as it may be, and no deeper");
        }
    }
}

/// What each run of agent d was told, by its place in the tree.
fn told(world: &World, agent: &str) -> Vec<String> {
    let disk = world.disk();
    let of = disk.order.iter().filter(|r| disk.runs[&r.run].0.agent == agent);
    of.filter_map(|r| match &r.event {
        Event::ToolFinished { text, .. } => Some(text.clone()),
        _ => None,
    })
    .collect()
}

#[test]
fn the_same_denial_at_depth_3_in_the_background_and_after_a_crash() {
    let rules = "tools = { allow = [\"s__*\"], deny = [\"s__once\", \"ask_user\"] }\nspawn = { max_depth = 3 }";
    let calls = vec![call("s__once"), ("ask_user", json!({ "question": "?" })), call("emit_artifact")];
    let script = || {
        Script::from([
            ("a", vec![("", vec![agent("b", "p")]), ("done", vec![]), ("done", vec![])]),
            ("b", vec![("", vec![agent("c", "p"), background("c")]), ("b", vec![]), ("b", vec![])]),
            ("c", vec![("", vec![agent("d", "p")]), ("c", vec![])]),
            ("d", vec![("", calls.clone()), ("d", vec![])]),
        ])
    };
    let root = Arc::new(World::new(policy(rules), script()));
    block(root.run("d")).unwrap();
    let plain: Vec<String> = told(&root, "d");
    assert_eq!(plain.len(), 3);
    // A root d is told by the root policy; deeper ones by the same rule, whoever stands between.
    let kind = |text: &str| text.split(" at ").next().unwrap_or_default().to_owned();
    for n in 0..60 {
        let world = Arc::new(World::new(policy(rules), script()).dying(Death::After(n)));
        let done = block(async {
            let done = world.run("a").await.is_ok();
            let root = world.disk().runs.values().find(|(row, ..)| row.depth == 0).unwrap().0.run.clone();
            if !done {
                let ended = Arc::new(world.next()).host().resume(&root, CancellationToken::new()).await.unwrap();
                assert_eq!(ended.state, State::Completed);
            }
            done
        });
        let deep = told(&world, "d");
        assert_eq!(deep.len(), 6, "{n}");
        for text in &deep {
            assert!(plain.iter().any(|p| kind(p) == kind(text)), "{n}: {text}\n{plain:#?}");
        }
        assert_eq!((world.made("s__once"), runs(&world, "d").len()), (0, 2));
        if done {
            break;
        }
    }
}

#[test]
fn the_next_action_of_a_live_run_is_judged_by_the_policy_as_it_is_then() {
    let script = Script::from([
        ("a", vec![("", vec![call("s__once")]), ("", vec![agent("b", "p")]), ("{{last}}", vec![])]),
        (
            "b",
            vec![
                ("", vec![call("s__slow")]),
                ("", vec![call("s__once")]),
                ("", vec![call("s__pure")]),
                ("{{last}}", vec![]),
            ],
        ),
    ]);
    let world = Arc::new(World::new(policy(TOOLS), script));
    block(async {
        let (host, running) = begun(&world, "a");
        world.outside.slow.notified().await;
        assert_eq!(world.made("s__once"), 1);
        *world.policy.lock().unwrap() =
            policy("tools = { allow = [\"s__*\"], deny = [\"s__once\"], ask = [\"s__pure\"] }");
        world.outside.go.notify_one();
        let ended = running.await.unwrap().unwrap();
        assert_eq!((ended.state, world.made("s__once"), world.made("s__pure")), (State::Waiting, 1, 0));
        // And back again, while it waits: what was asked about needs nobody's word any more.
        *world.policy.lock().unwrap() = policy(TOOLS);
        let allow = Answer::YES;
        let ended = driven(host.answer(&world.open_question(), allow, "ann", Then::Drive).await);
        assert_eq!((ended.state, ended.text.as_str()), (State::Completed, "s__pure done"));
    });
    assert!(told(&world, "b")[1].starts_with("denied: tools.deny \"s__once\""));
}

#[test]
fn an_agent_that_is_gone_from_the_policy_starts_nobody_and_is_asked_nothing() {
    let script = Script::from([
        ("a", vec![("", vec![call("s__slow")]), ("", vec![agent("b", "p")]), ("{{last}}", vec![])]),
        ("b", vec![("never", vec![])]),
    ]);
    let world = Arc::new(World::new(policy(TOOLS), script));
    block(async {
        let (_, running) = begun(&world, "a");
        world.outside.slow.notified().await;
        *world.policy.lock().unwrap() = policy(&format!("{TOOLS}\nspawn = {{ max_depth = 0 }}"));
        world.outside.go.notify_one();
        let ended = running.await.unwrap().unwrap();
        assert_eq!(ended.state, State::Completed);
        assert!(ended.text.contains("max_depth"), "{}", ended.text);
        assert!(runs(&world, "b").is_empty());
    });
}
