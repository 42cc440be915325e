//! A run that waits for a person is a row; whoever answers goes on with it, in any process.

use crate::world::*;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use subagents::host::{Approvals, Done, Ended, HostError, Then};
use subagents::ports::Answer;
use subagents::run::State;
use tokio_util::sync::CancellationToken;

fn gated() -> Script {
    Script::from([("a", vec![("", vec![call("s__gated"), call("s__once")]), ("{{last}}", vec![])])])
}
/// The question is the grandchild's.
fn deep() -> Script {
    let ask = ("ask_user", json!({ "question": "which?", "options": ["x", "y"] }));
    Script::from([
        ("a", vec![("", vec![agent("b", "p"), agent("c", "p")]), ("{{last}}", vec![])]),
        ("b", vec![("", vec![agent("c", "p")]), ("b: {{last}}", vec![])]),
        ("c", vec![("", vec![ask]), ("c: {{last}}", vec![])]),
    ])
}
fn allow() -> Answer {
    Answer::YES
}
fn input(value: &str) -> Answer {
    Answer::Input { value: Value::from(value), note: None }
}
fn driven(done: Result<Done, HostError>) -> Ended {
    match done.unwrap() {
        Done::Driven(ended) => ended,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_approval_parks_and_another_process_goes_on_with_it() {
    let world = Arc::new(World::new(policy(TOOLS), gated()));
    block(async {
        let ended = world.run("a").await.unwrap();
        assert_eq!(ended.state, State::Waiting);
        assert!(ended.text.contains("may a call s__gated?"), "{}", ended.text);
        assert_eq!((world.made("s__gated"), world.made("s__once")), (0, 1), "the other call was made");
        world.die();
        let next = Arc::new(world.next());
        let host = next.host();
        let question = world.open_question();
        // Resuming changes nothing: it waits still.
        assert_eq!(host.resume(&ended.run, CancellationToken::new()).await.unwrap().state, State::Waiting);
        assert!(host.answer(&question, input("x"), "ann", Then::Drive).await.is_err(), "an approval is yes or no");
        let ended = driven(host.answer(&question, allow(), "ann", Then::Drive).await);
        assert_eq!((ended.state, ended.text.as_str()), (State::Completed, "s__gated done|s__once done"));
        assert_eq!((next.made("s__gated"), next.made("s__once")), (1, 1));
        let again = host.answer(&question, allow(), "bob", Then::Drive).await.unwrap_err();
        assert!(again.to_string().contains("answered by ann already"), "{again}");
    });
}

#[test]
fn an_approval_of_one_thing_is_none_of_another() {
    let world = Arc::new(World::new(policy(TOOLS), gated()));
    block(async {
        world.run("a").await.unwrap();
        let host = world.host();
        let first = world.open_question();
        // The tool's manifest changes between the question and the answer.
        world.manifest.store(1, Ordering::SeqCst);
        let ended = driven(host.answer(&first, allow(), "ann", Then::Drive).await);
        assert_eq!((ended.state, world.made("s__gated")), (State::Waiting, 0));
        let second = world.open_question();
        assert_ne!(first, second);
        let no = Answer::Deny { note: Some("not today".into()) };
        let ended = driven(host.answer(&second, no, "ann", Then::Drive).await);
        assert!(ended.text.contains("denied: ann said no: not today"), "{}", ended.text);
        assert_eq!(world.made("s__gated"), 0);
    });
}

#[test]
fn a_tool_denied_meanwhile_is_denied_whatever_was_approved() {
    let world = Arc::new(World::new(policy(TOOLS), gated()));
    block(async {
        world.run("a").await.unwrap();
        *world.policy.lock().unwrap() = policy("tools = { allow = [\"s__*\"], deny = [\"s__gated\"] }");
        let ended = driven(world.host().answer(&world.open_question(), allow(), "ann", Then::Drive).await);
        assert!(ended.text.starts_with("denied: tools.deny"), "{}", ended.text);
        assert_eq!(world.made("s__gated"), 0);
    });
}

#[test]
fn nobody_to_ask_is_a_denial_with_the_reason() {
    let world = Arc::new(World::new(policy(TOOLS), gated()));
    let mut start = world.start("a");
    start.approvals = Approvals::Nobody("nobody can be reached from here".into());
    let ended = block(world.host().start(start)).unwrap();
    assert!(ended.text.contains("nobody can be reached from here"), "{}", ended.text);
    assert_eq!((ended.state, world.made("s__gated")), (State::Completed, 0));
}

#[test]
fn a_grandchilds_question_parks_the_whole_tree_and_its_answer_wakes_it() {
    let world = Arc::new(World::new(policy(TOOLS), deep()));
    block(async {
        let ended = world.run("a").await.unwrap();
        assert_eq!(ended.state, State::Waiting);
        for (row, ..) in world.disk().runs.values() {
            assert_eq!(row.state, "waiting", "{} of depth {}", row.agent, row.depth);
            assert!(row.waiting.is_some());
        }
        assert!(!world.host().works_on(&ended.run));
        let host = world.host();
        let one = world.open_question();
        let wrong = host.answer(&one, input("z"), "ann", Then::Drive).await.unwrap_err();
        assert!(wrong.to_string().contains("one of: x, y"), "{wrong}");
        // The first answer is only written down, the second goes on with both.
        assert_eq!(host.answer(&one, input("x"), "ann", Then::Leave).await.unwrap(), Done::Stored);
        let next = Arc::new(world.next());
        world.die();
        let ended = driven(next.host().answer(&world.open_question(), input("x"), "ann", Then::Drive).await);
        assert_eq!((ended.state, ended.text.as_str()), (State::Completed, "b: c: x|c: x"));
    });
}

#[test]
fn a_question_that_expires_gets_its_default_and_an_approval_becomes_a_denial() {
    let ask = ("ask_user", json!({ "question": "?", "timeout": "1s", "default": "tea" }));
    let script = Script::from([("a", vec![("", vec![ask]), ("{{last}}", vec![])])]);
    let world = Arc::new(World::new(policy(TOOLS), script));
    block(async {
        assert_eq!(world.run("a").await.unwrap().state, State::Waiting);
        let host = world.host();
        let question = world.open_question();
        assert!(host.expire(CancellationToken::new()).await.unwrap().is_empty(), "not yet");
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        let late = host.answer(&question, input("coffee"), "ann", Then::Drive).await.unwrap_err();
        assert!(late.to_string().contains("expired"), "{late}");
        let mut expired = host.expire(CancellationToken::new()).await.unwrap();
        let ended = expired.remove(0).1.unwrap();
        assert!(ended.text.starts_with("tea\n[nobody answered in time"), "{}", ended.text);
    });
}

#[test]
fn a_client_that_is_gone_takes_its_runs_along() {
    let world = Arc::new(World::new(policy(TOOLS), gated()));
    block(async {
        let parked = world.run("a").await.unwrap();
        // Another policy object: the standing is worked out again.
        let next = Arc::new(world.next());
        *next.client_gone.lock().unwrap() = true;
        let ended = next.host().answer(&world.open_question(), allow(), "ann", Then::Drive).await;
        let ended = driven(ended);
        assert_eq!((ended.run, ended.state), (parked.run, State::Failed));
        assert!(ended.text.contains("may not come in any more"), "{}", ended.text);
        assert_eq!(world.made("s__gated"), 0);
    });
}

#[test]
fn an_agent_its_client_may_no_longer_start_goes_on_no_more() {
    let world = Arc::new(World::new(policy(TOOLS), gated()));
    block(async {
        world.run("a").await.unwrap();
        let next = Arc::new(world.next());
        next.no_longer_started.lock().unwrap().insert("a".into());
        let ended = driven(next.host().answer(&world.open_question(), allow(), "ann", Then::Drive).await);
        assert_eq!(ended.state, State::Failed);
        assert!(ended.text.contains("may not start a any more"), "{}", ended.text);
        assert_eq!(world.made("s__gated"), 0);
    });
}

#[test]
fn a_paused_tree_begins_nothing_until_it_is_told_to() {
    let world = Arc::new(World::new(policy(TOOLS), deep()));
    block(async {
        let ended = world.run("a").await.unwrap();
        let host = world.host();
        assert_eq!(host.pause(&ended.run, "ann").await.unwrap(), Done::Stored);
        assert!(host.pause(&ended.run, "ann").await.is_err(), "it is paused");
        for _ in 0..2 {
            let still = driven(host.answer(&world.open_question(), input("x"), "ann", Then::Drive).await);
            assert_eq!(still.state, State::Waiting);
        }
        let before = world.events("model.requested").len();
        let ended = driven(host.unpause(&ended.run, "ann", Then::Drive).await);
        assert_eq!((ended.state, ended.text.as_str()), (State::Completed, "b: c: x|c: x"));
        assert!(world.events("model.requested").len() > before);
    });
}

#[test]
fn a_parked_tree_is_cancelled_where_it_lies_and_its_questions_with_it() {
    let world = Arc::new(World::new(policy(TOOLS), deep()));
    block(async {
        let parked = world.run("a").await.unwrap();
        let host = world.host();
        assert_eq!(host.cancel(&parked.run, "ann").await.unwrap(), Done::Stored);
        assert!(world.disk().questions.values().all(|q| q.closed.is_some()));
        assert!(world.disk().runs.values().all(|(row, ..)| row.state == "cancelled"));
        let why = host.send(&parked.run, "bob", "go on".into(), Then::Drive).await.unwrap_err();
        assert!(why.to_string().contains("was cancelled by ann"), "{why}");
        assert!(host.cancel(&parked.run, "ann").await.is_err());
    });
}

#[test]
fn a_parent_goes_on_when_the_child_it_waited_for_is_cancelled_where_it_lies() {
    let world = Arc::new(World::new(policy(TOOLS), deep()));
    block(async {
        let parked = world.run("a").await.unwrap();
        let host = world.host();
        let below: Vec<_> =
            world.disk().runs.values().filter(|(r, ..)| r.depth == 1).map(|(r, ..)| r.run.clone()).collect();
        for run in &below {
            host.cancel(run, "ann").await.unwrap();
        }
        let mut resumed = host.resume_all(CancellationToken::new()).await.unwrap();
        assert_eq!(resumed.len(), 1);
        let ended = resumed.remove(0).1.unwrap();
        assert_eq!((ended.run, ended.state), (parked.run, State::Completed));
        assert!(ended.text.contains("the subagent b is cancelled: cancelled by ann"), "{}", ended.text);
    });
}
