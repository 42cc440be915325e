//! Whoever goes on is held to what its client may use by now, and never to more than it began with.

use crate::world::*;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use subagents::event::Event;
use subagents::host::{Done, Ended, HostError, Then};
use subagents::ports::Answer;
use subagents::run::State;
use tokio_util::sync::CancellationToken;

/// Asks, calls a tool, answers.
fn asks() -> Script {
    let ask = ("ask_user", json!({ "question": "?" }));
    Script::from([("a", vec![("", vec![ask]), ("", vec![call("s__pure")]), ("done", vec![])])])
}
fn yes() -> Answer {
    Answer::Input { value: Value::from("x"), note: None }
}
fn driven(done: Result<Done, HostError>) -> Ended {
    match done.unwrap() {
        Done::Driven(ended) => ended,
        other => panic!("{other:?}"),
    }
}
/// Parks a run, changes what its client may use, and answers.
async fn answered(world: &Arc<World>, narrow: impl FnOnce(&World)) -> Ended {
    assert_eq!(world.run("a").await.unwrap().state, State::Waiting);
    world.die();
    let next = Arc::new(world.next());
    narrow(&next);
    driven(next.host().answer(&world.open_question(), yes(), "ann", Then::Drive).await)
}

#[test]
fn without_a_change_nothing_is_said_of_limits() {
    let world = Arc::new(World::new(policy(TOOLS), asks()));
    let ended = block(answered(&world, |_| {}));
    assert_eq!((ended.state, ended.text.as_str()), (State::Completed, "done"));
    assert_eq!(world.events("run.limited"), []);
}

#[test]
fn an_answered_run_has_the_turns_its_client_has_by_now() {
    let world = Arc::new(World::new(policy(TOOLS), asks()));
    let ended = block(answered(&world, |next| next.limits.lock().unwrap().turns = 2));
    assert_eq!(ended.state, State::OverBudget, "{}", ended.text);
    assert!(ended.text.contains("budget.turns is reached: 2 of 2"), "{}", ended.text);
    assert_eq!(world.events("model.requested").len(), 2);
    let said = Event::Limited { max_turns: 2, max_tool_calls: u32::MAX, budget: None };
    assert_eq!(world.events("run.limited"), [said], "once, and by its journal");
}

/// What is made narrower, and how.
type Narrow = (&'static str, fn(&World));

#[test]
fn tokens_money_and_time_are_narrowed_too() {
    let narrow: [Narrow; 3] = [
        ("budget.tokens", |next| next.limits.lock().unwrap().tokens = 70),
        ("budget.usd", |next| next.limits.lock().unwrap().usd = policies::price::Usd(70)),
        ("budget.wall", |next| next.limits.lock().unwrap().wall = Some(Duration::ZERO)),
    ];
    for (what, narrow) in narrow {
        let world = Arc::new(World::new(policy(TOOLS), asks()));
        let ended = block(answered(&world, narrow));
        assert_eq!(ended.state, State::OverBudget, "{what}: {}", ended.text);
        assert!(ended.text.contains(what), "{what}: {}", ended.text);
        assert_eq!(world.events("model.requested").len(), 1, "{what}: nothing more was asked");
    }
}

#[test]
fn a_table_of_the_policy_counts_like_the_clients() {
    let world = Arc::new(World::new(policy(TOOLS), asks()));
    let tight = policy(&format!("{TOOLS}\nbudget = {{ turns = 1 }}"));
    let ended = block(answered(&world, |next| *next.policy.lock().unwrap() = tight));
    assert!(ended.text.contains("budget.turns is reached: 1 of 1"), "{}", ended.text);
}

#[test]
fn a_child_is_held_by_what_its_root_may_use_by_now() {
    let ask = ("ask_user", json!({ "question": "?" }));
    let script = Script::from([
        ("a", vec![("", vec![agent("b", "p")]), ("{{last}}", vec![])]),
        ("b", vec![("", vec![ask]), ("b done", vec![])]),
    ]);
    let world = Arc::new(World::new(policy(TOOLS), script));
    let ended = block(answered(&world, |next| next.limits.lock().unwrap().tokens = 80));
    assert_eq!(ended.state, State::OverBudget, "{}", ended.text);
    let ends = world.events("run.finished");
    let of_the_root =
        |event: &Event| matches!(event, Event::Finished { text, .. } if text.contains(ended.run.as_str()));
    assert!(ends.iter().all(of_the_root), "both for want of the root's tokens: {ends:?}");
}

#[test]
fn a_follow_up_has_what_is_allowed_by_now_and_never_more_than_at_first() {
    let each = || vec![call("s__pure")];
    let turns =
        vec![("", each()), ("one", vec![]), ("", each()), ("two", vec![]), ("", each()), ("", each()), ("no", vec![])];
    let world = Arc::new(World::new(policy(TOOLS), Script::from([("a", turns)])));
    block(async {
        let host = world.host();
        let mut start = world.start("a");
        start.limits.turns = 2;
        let run = start.id.clone();
        assert_eq!(host.start(start).await.unwrap().text, "one");
        let told = async |word: &str| driven(host.send(&run, "ann", word.into(), Then::Drive).await);
        world.limits.lock().unwrap().turns = 1;
        let short = told("more").await;
        assert!(short.text.contains("budget.turns is reached: 1 of 1"), "{short:?}");
        // Wide again, it has what it began with: two, and not three.
        world.limits.lock().unwrap().turns = 50;
        assert_eq!(told("again").await.text, "two");
        let ended = told("and more").await;
        assert!(ended.text.contains("budget.turns is reached: 2 of 2"), "{ended:?}");
        let turns: Vec<u32> = world
            .events("run.limited")
            .iter()
            .filter_map(|e| match e {
                Event::Limited { max_turns, .. } => Some(*max_turns),
                _ => None,
            })
            .collect();
        assert_eq!(turns, [1, 2]);
    });
}

#[test]
fn a_run_that_works_is_held_when_the_policy_narrows() {
    let script = Script::from([("a", vec![("", vec![call("s__slow")]), ("done", vec![])])]);
    let world = Arc::new(World::new(policy(TOOLS), script));
    block(async {
        let (host, start) = (world.host(), world.start("a"));
        let running = tokio::spawn(async move { host.start(start).await });
        world.outside.slow.notified().await;
        *world.policy.lock().unwrap() = policy(&format!("{TOOLS}\nbudget = {{ turns = 1 }}"));
        world.outside.go.notify_one();
        let ended = running.await.unwrap().unwrap();
        assert!(ended.text.contains("budget.turns is reached: 1 of 1"), "{ended:?}");
    });
}

#[test]
fn a_fork_is_held_like_the_run_it_comes_from() {
    let world = Arc::new(World::new(policy(TOOLS), asks()));
    block(async {
        let ended = world.run("a").await.unwrap();
        let host = world.host();
        let fork = host.fork(&ended.run, 1).await.unwrap();
        world.limits.lock().unwrap().turns = 1;
        assert_eq!(host.resume(&fork, CancellationToken::new()).await.unwrap().state, State::Waiting);
        let question =
            world.disk().questions.values().find(|q| q.question.run == fork.as_str()).unwrap().question.id.clone();
        let ended = driven(host.answer(&question, yes(), "ann", Then::Drive).await);
        assert!(ended.text.contains("budget.turns is reached: 1 of 1"), "{ended:?}");
    });
}
