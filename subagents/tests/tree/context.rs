//! A conversation stays within its model's window, and its beginning stays byte for byte.

use crate::world::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use subagents::event::Event;
use subagents::history::INSTRUCTION;
use subagents::run::{RunId, State};
use subagents::turn::Message;

fn world(ways: Ways, limits: &str) -> Arc<World> {
    let mut world = World::new(policy(&format!("{TOOLS}\n{limits}")), Script::new());
    world.ways = Arc::new(ways);
    Arc::new(world)
}
fn is_summary(messages: &[Message]) -> bool {
    matches!(messages.last(), Some(Message::User(text)) if text == INSTRUCTION)
}
/// Every call has its result, in the next message.
fn whole(messages: &[Message]) {
    for pair in messages.windows(2) {
        let Message::Assistant { calls, .. } = &pair[0] else { continue };
        let Message::Results(results) = &pair[1] else {
            assert!(calls.is_empty());
            continue;
        };
        let ids = |of: Vec<&String>| of.into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(ids(calls.iter().map(|c| &c.id).collect()), ids(results.iter().map(|r| &r.id).collect()));
    }
    assert!(!matches!(messages.get(1), Some(Message::Results(_))), "a result without its call");
}

#[test]
fn a_run_of_500_turns_stays_within_its_window() {
    let ways = Ways { context: 40_000, endless: 500, long: 2_048, ..Ways::default() };
    let world = world(ways, "budget = { turns = 501 }");
    let ended = block(world.run("a")).unwrap();
    assert_eq!((ended.state, ended.text.as_str()), (State::Completed, "done"));
    let disk = world.disk();
    let (row, records, state) = disk.runs.values().next().unwrap();
    assert_eq!((row.turns, world.made("s__pure")), (501, 500));
    assert_eq!(*state, subagents::replay::replay(records.iter()), "replay equals live");
    drop(disk);
    assert!(world.events("model.failed").is_empty(), "no request was too long");
    let (trimmed, compacted) = (world.events("context.trimmed").len(), world.events("context.compacted").len());
    assert!(trimmed > 0 && compacted > 0 && trimmed + compacted < 60, "{trimmed} {compacted}");
    for (_, messages, _) in world.ways.asked.lock().unwrap().iter() {
        assert!(subagents::history::bytes(messages) as u64 / 4 < 40_000);
        assert_eq!(messages[0], Message::User("p".into()), "what was asked stays");
        whole(messages);
    }
}

#[test]
fn a_process_that_dies_anywhere_near_a_summary_goes_on_with_the_same_bytes() {
    let script = || Ways { context: 12_000, endless: 14, long: 4_000, ..Ways::default() };
    let calm = world(script(), "");
    block(calm.run("a")).unwrap();
    let writes = calm.events("context.compacting").len();
    assert!(writes > 0);
    let total = calm.disk().order.len();
    for n in (0..total).step_by(3) {
        let mut one = World::new(policy(TOOLS), Script::new()).dying(Death::Before(n));
        one.ways = Arc::new(script());
        let one = Arc::new(one);
        block(async {
            if one.run("a").await.is_ok() {
                return;
            }
            let Some(root) = one.disk().runs.keys().next().cloned() else { return };
            let next = Arc::new(one.next());
            let ended = next.host().resume(&root, Default::default()).await.unwrap();
            assert_eq!((ended.state, ended.text.as_str()), (State::Completed, "done"), "{n}");
        });
        for (row, records, state) in one.disk().runs.values() {
            assert_eq!(*state, subagents::replay::replay(records.iter()));
            // A summary is no turn, however often one was asked for.
            assert_eq!(row.turns, 15, "{n}");
        }
    }
}

#[test]
fn a_window_that_is_fuller_than_was_counted_is_made_room_in_once() {
    // The model counts a quarter of what it reads.
    let ways = Ways { context: 20_000, endless: 14, long: 8_000, undercount: 8, ..Ways::default() };
    let world = world(ways, "");
    let ended = block(world.run("a")).unwrap();
    assert_eq!((ended.state, ended.text.as_str()), (State::Completed, "done"));
    let (failed, made) = (world.events("model.failed").len(), world.events("context.compacted").len());
    assert!(failed > 0 && made >= 1, "{failed} {made}");
}

#[test]
fn what_does_not_fit_at_all_ends_the_run_in_words() {
    let ways = Ways { context: 300, endless: 3, long: 8_000, ..Ways::default() };
    let world = world(ways, "");
    let ended = block(world.run("a")).unwrap();
    assert_eq!(ended.state, State::Failed);
    assert!(ended.text.contains("does not fit the window of model default"), "{}", ended.text);
}

#[test]
fn a_summary_is_paid_for_like_anything_else() {
    let ways = Ways { context: 12_000, endless: 14, long: 4_000, ..Ways::default() };
    let world = world(ways, "");
    let ended = block(async {
        let mut start = world.start("a");
        start.limits.tokens = 500_000;
        world.host().start(start).await.unwrap()
    });
    assert_eq!(ended.state, State::Completed);
    let disk = world.disk();
    let (row, records, _) = disk.runs.values().next().unwrap();
    let used: u64 = records
        .iter()
        .map(|r| match &r.event {
            Event::ModelReplied { usage, .. } | Event::ContextCompacted { usage, .. } => usage.total(),
            _ => 0,
        })
        .sum();
    assert_eq!(row.tokens, used);
}

#[test]
fn the_model_named_for_it_is_asked_for_summaries_where_the_grant_has_it() {
    let asked = |limits: &str| {
        let mut world = World::new(policy(&format!("{TOOLS}\n{limits}")), Script::new());
        world.ways = Arc::new(Ways { context: 12_000, endless: 14, long: 4_000, ..Ways::default() });
        world.price = Some(policies::price::Price { input: 20, output: 30, ..policies::price::Price::FREE });
        let world = Arc::new(world);
        assert_eq!(block(world.run("a")).unwrap().state, State::Completed);
        let models = world.events("context.compacting").into_iter().map(|e| match e {
            Event::ContextCompacting { model, .. } => model,
            _ => unreachable!(),
        });
        models.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(asked("").into_iter().collect::<Vec<_>>(), ["cheap"]);
    assert_eq!(asked("models = [\"default\"]").into_iter().collect::<Vec<_>>(), ["default"]);
}

#[test]
fn a_changed_list_of_tools_shows_after_a_summary_and_not_before() {
    let ways = Ways { context: 12_000, endless: 20, long: 4_000, ..Ways::default() };
    let world = world(ways, "");
    *world.shown.lock().unwrap() = vec!["s__z", "s__b"];
    let seen = Arc::downgrade(&world);
    *world.at_call.lock().unwrap() = Some(Box::new(move |_| {
        if let Some(world) = seen.upgrade() {
            *world.shown.lock().unwrap() = vec!["s__new"];
        }
    }));
    block(world.run("a")).unwrap();
    let asked = world.ways.asked.lock().unwrap();
    let names: Vec<&Vec<String>> = asked.iter().map(|(_, _, names)| names).collect();
    assert!(names[0].is_sorted() && names[0].contains(&"s__z".to_owned()));
    let summary = asked.iter().position(|(_, messages, _)| is_summary(messages)).unwrap();
    assert!(names[..=summary].iter().all(|n| *n == names[0]), "frozen");
    assert!(names[summary + 1].contains(&"s__new".to_owned()));
    *world.at_call.lock().unwrap() = None;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn two_requests_share_the_longest_prefix_there_can_be(
        context in 9_000u64..40_000, long in 100u64..9_000, turns in 5u32..60, calls in 6u32..60,
    ) {
        let ways = Ways { context, endless: turns, long, ..Ways::default() };
        // With alerts in between: they are told at the end of what was not sent yet.
        let world = world(ways, &format!("budget = {{ turns = 80, tool_calls = {} }}", calls.max(turns)));
        let ended = block(world.run("a")).unwrap();
        prop_assert_eq!(ended.state, State::Completed);
        // Where the journal says that the conversation was made shorter, and nowhere else, a
        // request is no continuation of the one before it.
        let mut shorter = 0;
        let mut last: BTreeMap<RunId, Vec<Message>> = BTreeMap::new();
        for (run, messages, _) in world.ways.asked.lock().unwrap().iter().filter(|(_, m, _)| !is_summary(m)) {
            whole(messages);
            if let Some(before) = last.insert(run.clone(), messages.clone()) {
                let same = messages.len() > before.len() && messages[..before.len()] == before[..];
                shorter += usize::from(!same);
            }
        }
        let events = world.events("context.trimmed").len() + world.events("context.compacted").len();
        prop_assert!(shorter <= events, "{shorter} {events}");
    }
}
