//! Questions about clients' own calls, and standing rules, on a real file.

use super::*;
use crate::store::{Asking, Given};
use policies::resolve::ApprovalsSpec;
use subagents::ports::{Always, Answer, JournalError, Of, Question, QuestionChange, QuestionFilter};

fn asked(id: &str, principal: &str, asked: u64, stands: u64) -> Question {
    let touches = json!([{ "does": "write", "path": "/out/x" }]);
    Question {
        id: id.into(),
        run: String::new(),
        root: String::new(),
        principal: principal.into(),
        kind: "approval".into(),
        text: "May it write?".into(),
        detail: json!({ "tool": "s__put", "arguments": { "path": "x" }, "manifest": "h", "server": "i", "touches": touches }),
        chain: vec!["root policy".into()],
        asked,
        expires: Some(asked + stands),
    }
}
fn few() -> ApprovalsSpec {
    ApprovalsSpec { per_tree: 2, per_client: 3, ..ApprovalsSpec::default() }
}
const HOUR: u64 = 3_600_000;

fn now() -> u64 {
    crate::store::clock()
}
async fn ask(store: &Store, id: &str, digest: &str) -> Asking {
    store.ask(asked(id, "ci", now(), HOUR), digest, few()).await.unwrap()
}
fn always(of: Of) -> Answer {
    Answer::Allow { note: None, always: Some(Always { of, within: None }) }
}

#[tokio::test]
async fn a_yes_is_good_for_one_such_call() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    assert_eq!(ask(&store, "q-1", "d1").await, Asking::Asked);
    assert_eq!(store.spend("ci", "d1").await.unwrap(), Given::Nothing, "nobody has answered");
    store.answer("q-1", "boss", &Answer::YES).await.unwrap();
    // What was said outlives the process.
    store.close().await;
    let store = Store::open(&place.path).await.unwrap();
    for (principal, digest) in [("ci", "d2"), ("other", "d1")] {
        assert_eq!(store.spend(principal, digest).await.unwrap(), Given::Nothing, "{principal} {digest}");
    }
    let yes = Given::Yes { question: "q-1".into(), by: "boss".into() };
    assert_eq!(store.spend("ci", "d1").await.unwrap(), yes);
    assert_eq!(store.spend("ci", "d1").await.unwrap(), Given::Nothing, "it was used up");
    let twice = store.answer("q-1", "boss", &Answer::YES).await;
    assert!(matches!(&twice, Err(JournalError::Failed(why)) if why.contains("not open")), "{twice:?}");
    store.close().await;
}

#[tokio::test]
async fn the_same_call_is_asked_about_once_and_no_flood_is() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    assert_eq!(ask(&store, "q-1", "d1").await, Asking::Asked);
    let again = ask(&store, "q-2", "d1").await;
    assert!(matches!(&again, Asking::Before(q) if q.id == "q-1"), "{again:?}");
    assert_eq!(ask(&store, "q-3", "d3").await, Asking::Asked);
    let third = ask(&store, "q-4", "d4").await;
    assert!(matches!(&third, Asking::Full(why) if why.contains("2 approvals")), "{third:?}");
    // Another client is not concerned, and an answer makes room.
    let other = store.ask(asked("q-5", "other", now(), HOUR), "d4", few()).await.unwrap();
    assert_eq!(other, Asking::Asked);
    store.answer("q-1", "boss", &Answer::Deny { note: Some("no".into()) }).await.unwrap();
    assert_eq!(ask(&store, "q-6", "d4").await, Asking::Asked);
    // A no is heard by the same call, and not used up.
    for _ in 0..2 {
        let no = Given::No { question: "q-1".into(), by: "boss".into(), note: Some("no".into()) };
        assert_eq!(store.spend("ci", "d1").await.unwrap(), no);
    }
    assert_eq!(store.open_approvals("ci", None).await.unwrap(), (2, 2));
    let open = store.open_questions(&QuestionFilter::default()).await.unwrap();
    assert_eq!(open.len(), 3, "{open:?}");
    store.close().await;
}

#[tokio::test]
async fn the_runs_of_a_client_count_with_its_own_calls() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    let mut of_run = asked("q-r", "ci", 1, HOUR);
    (of_run.run, of_run.root) = ("r-a".into(), "r-a".into());
    let mut write = first("r-a", "r-a");
    write.question = Some(QuestionChange::Open(of_run));
    store.append(vec![write], &lease).await.unwrap();
    assert_eq!(store.open_approvals("ci", Some(&lease.root)).await.unwrap(), (1, 1));
    assert_eq!(store.open_approvals("ci", None).await.unwrap(), (1, 0));
    assert_eq!(ask(&store, "q-1", "d1").await, Asking::Asked);
    let limits = ApprovalsSpec { per_tree: 9, per_client: 2, ..ApprovalsSpec::default() };
    let full = store.ask(asked("q-2", "ci", now(), HOUR), "d2", limits).await.unwrap();
    assert!(matches!(&full, Asking::Full(why) if why.contains("this client")), "{full:?}");
    // No tree hangs on the question of a call.
    assert_eq!(store.expired_roots(u64::MAX).await.unwrap(), [lease.root]);
    store.close().await;
}

#[tokio::test]
async fn what_is_late_is_good_for_nothing() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    // It expired a while ago.
    let old = store.ask(asked("q-1", "ci", now() - 2 * HOUR, HOUR), "d1", few()).await.unwrap();
    assert_eq!(old, Asking::Asked);
    let late = store.answer("q-1", "boss", &Answer::YES).await;
    assert!(late.is_err(), "{late:?}");
    store.lapse().await.unwrap();
    let row = store.question("q-1").await.unwrap().unwrap();
    assert_eq!(row.closed.map(|(by, _)| by).as_deref(), Some("nobody in time"));
    // A question that stands a moment gives a yes for a moment: whoever comes later asks again.
    let brief = store.ask(asked("q-2", "ci", now() - 1, 2_000), "d2", few()).await.unwrap();
    assert_eq!(brief, Asking::Asked);
    store.answer("q-2", "boss", &Answer::YES).await.unwrap();
    sqlx::query("UPDATE questions SET good_until = good_until - 2000").execute(&store.pool).await.unwrap();
    assert_eq!(store.spend("ci", "d2").await.unwrap(), Given::Nothing);
    assert_eq!(ask(&store, "q-3", "d2").await, Asking::Asked);
    store.close().await;
}

#[tokio::test]
async fn rules_stand_until_they_are_revoked() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    assert_eq!(ask(&store, "q-1", "d1").await, Asking::Asked);
    store.answer("q-1", "boss", &always(Of::Path)).await.unwrap();
    let rules = store.standing("ci", "s__put").await.unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!((rules[0].id.as_str(), rules[0].by.as_str()), ("a-1", "boss"));
    assert_eq!(rules[0].paths, Some(vec!["/out/x".into()]));
    // The rule says yes from now on: nothing is left that would, once it is revoked.
    assert_eq!(store.spend("ci", "d1").await.unwrap(), Given::Nothing);
    for (principal, tool) in [("other", "s__put"), ("ci", "s__get")] {
        assert_eq!(store.standing(principal, tool).await.unwrap(), [], "{principal} {tool}");
    }
    assert_eq!(store.rules(None, 9).await.unwrap(), rules);
    assert_eq!(store.rules(Some("other"), 9).await.unwrap(), []);
    assert!(store.revoke("a-1", "boss").await.unwrap());
    assert!(!store.revoke("a-1", "boss").await.unwrap(), "once");
    assert_eq!(store.standing("ci", "s__put").await.unwrap(), []);
    store.close().await;
}

#[tokio::test]
async fn a_runs_answer_makes_its_rule_in_the_same_transaction() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    let mut question = asked("q-1", "ci", 1, HOUR);
    (question.run, question.root) = ("r-a".into(), "r-a".into());
    let mut open = first("r-a", "r-a");
    open.question = Some(QuestionChange::Open(question));
    store.append(vec![open], &lease).await.unwrap();
    let close = |answer| QuestionChange::Close { id: "q-1".into(), by: "boss".into(), answer: Some(answer), at: 77 };
    let mut closing = said("r-a", "r-a", 2);
    closing.question = Some(close(always(Of::Run)));
    store.append(vec![closing], &lease).await.unwrap();
    let rules = store.standing("ci", "s__put").await.unwrap();
    assert_eq!(rules.iter().map(|r| r.run.as_deref()).collect::<Vec<_>>(), [Some("r-a")]);
    // One that is refused makes none.
    let mut again = said("r-a", "r-a", 3);
    again.question = Some(close(always(Of::Tool)));
    assert!(store.append(vec![again], &lease).await.is_err());
    assert_eq!(store.rules(None, 9).await.unwrap(), rules);
    store.close().await;
}
