//! Questions about clients' own calls, and standing rules, on a real file.

use super::*;
use crate::store::{Asking, Given, Withdrawn};
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

/// Two calls of the same words that were asked about one after the other, as when an answer came
/// between the look for one and the asking.
#[tokio::test]
async fn a_yes_is_to_the_newest_question() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    assert_eq!(ask(&store, "q-1", "d").await, Asking::Asked);
    store.answer("q-1", "boss", &Answer::YES).await.unwrap();
    assert_eq!(ask(&store, "q-2", "d").await, Asking::Asked);
    assert_eq!(store.spend("ci", "d").await.unwrap(), Given::Nothing, "it is asked again, and that is open");
    store.answer("q-2", "boss", &Answer::Deny { note: None }).await.unwrap();
    let no = Given::No { question: "q-2".into(), by: "boss".into(), note: None };
    assert_eq!(store.spend("ci", "d").await.unwrap(), no);
    // The no is heard no more; the yes before it does not come back.
    sqlx::query("UPDATE questions SET good_until = 1 WHERE id = 'q-2'").execute(&store.pool).await.unwrap();
    assert_eq!(store.spend("ci", "d").await.unwrap(), Given::Nothing);
    // The twin: the newest is good.
    assert_eq!(ask(&store, "q-3", "d").await, Asking::Asked);
    store.answer("q-3", "boss", &Answer::YES).await.unwrap();
    assert!(matches!(store.spend("ci", "d").await.unwrap(), Given::Yes { .. }));
    store.close().await;
}

#[tokio::test]
async fn what_is_taken_back_is_good_for_nothing() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    for (id, digest) in [("q-1", "d1"), ("q-2", "d2"), ("q-3", "d3")] {
        let asked = asked(id, "ci", now(), HOUR);
        assert_eq!(store.ask(asked, digest, ApprovalsSpec::default()).await.unwrap(), Asking::Asked);
    }
    store.answer("q-2", "boss", &Answer::YES).await.unwrap();
    store.answer("q-3", "boss", &Answer::Deny { note: None }).await.unwrap();
    assert_eq!(store.unnoted().await.unwrap(), [], "an answer is on record before it comes here");
    assert_eq!(store.withdraw("q-1").await.unwrap(), Withdrawn::Question);
    assert_eq!(store.withdraw("q-2").await.unwrap(), Withdrawn::Yes);
    for id in ["q-1", "q-2", "q-3", "q-none"] {
        assert_eq!(store.withdraw(id).await.unwrap(), Withdrawn::Nothing, "{id}");
    }
    assert!(store.answer("q-1", "boss", &Answer::YES).await.is_err(), "nobody waits for it");
    for digest in ["d1", "d2"] {
        assert_eq!(store.spend("ci", digest).await.unwrap(), Given::Nothing, "{digest}");
    }
    assert!(matches!(store.spend("ci", "d3").await.unwrap(), Given::No { .. }), "a no is not taken back");
    // What nobody answered is put on record, once.
    let ended = store.unnoted().await.unwrap();
    let told: Vec<(&str, &str)> = ended.iter().map(|e| (e.question.id.as_str(), e.by.as_str())).collect();
    assert_eq!(told, [("q-1", subagents::approval::WITHDRAWN)]);
    store.noted(vec!["q-1".into()]).await.unwrap();
    assert_eq!(store.unnoted().await.unwrap(), []);
    store.close().await;
}

/// However many wait, one statement looks for all of them.
#[tokio::test]
async fn one_look_serves_all_who_wait() {
    const WAIT: u64 = 50;
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let limits = ApprovalsSpec { per_tree: 100, per_client: 100, ..ApprovalsSpec::default() };
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..WAIT {
        let (id, digest) = (format!("q-{n}"), format!("d{n}"));
        store.ask(asked(&id, "ci", now(), HOUR), &digest, limits).await.unwrap();
        let store = store.clone();
        waiting.spawn(async move {
            // Two calls of the same words.
            tokio::join!(store.closed(&id), store.closed(&id));
            id
        });
    }
    let began = std::time::Instant::now();
    // In this process, in another one, and by being taken back.
    store.answer("q-7", "boss", &Answer::YES).await.unwrap();
    assert_eq!(waiting.join_next().await.unwrap().unwrap(), "q-7");
    let other = Store::open(&place.path).await.unwrap();
    other.answer("q-8", "boss", &Answer::YES).await.unwrap();
    assert_eq!(waiting.join_next().await.unwrap().unwrap(), "q-8");
    store.withdraw("q-9").await.unwrap();
    assert_eq!(waiting.join_next().await.unwrap().unwrap(), "q-9");
    let ticks = u64::try_from(began.elapsed().as_millis() / super::super::closing::EVERY.as_millis()).unwrap();
    // One for each that came, at most, one for each answer of this process, and those in between.
    let looks = store.closing.looks();
    assert!(looks <= 2 * WAIT + 2 + ticks + 1, "{looks} looks in {ticks} ticks");
    // Nobody is left: nobody looks.
    waiting.shutdown().await;
    tokio::time::timeout(Duration::from_secs(30), async {
        while store.closing.watches() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is looked as long as somebody waits, and no longer");
    store.close().await;
    other.close().await;
}

#[tokio::test]
async fn what_ended_long_ago_is_deleted_and_its_rule_stands() {
    const MONTH: i64 = 30 * 24 * 3_600_000;
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    for (n, always) in [(1, true), (2, false), (3, false), (4, false)] {
        let (id, digest) = (format!("q-{n}"), format!("d{n}"));
        store.ask(asked(&id, "ci", now(), 3 * HOUR), &digest, ApprovalsSpec::default()).await.unwrap();
        match n {
            4 => assert_eq!(store.withdraw(&id).await.unwrap(), Withdrawn::Question),
            3 => {}
            _ => store.answer(&id, "boss", &if always { self::always(Of::Tool) } else { Answer::YES }).await.unwrap(),
        }
    }
    assert_eq!(store.tidy_questions().await.unwrap(), 0, "nothing is old");
    let back = "UPDATE questions SET asked = asked - ?1, closed_at = closed_at - ?1 WHERE id IN ('q-1', 'q-3', 'q-4')";
    sqlx::query(back).bind(MONTH + 1_000).execute(&store.pool).await.unwrap();
    // What is not on record yet is kept until it is.
    assert_eq!(store.tidy_questions().await.unwrap(), 1);
    store.noted(vec!["q-4".into()]).await.unwrap();
    assert_eq!(store.tidy_questions().await.unwrap(), 1);
    for (id, there) in [("q-1", false), ("q-2", true), ("q-3", true), ("q-4", false)] {
        assert_eq!(store.question(id).await.unwrap().is_some(), there, "{id}");
    }
    assert_eq!(store.standing("ci", "s__put").await.unwrap().len(), 1, "the rule stands");
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

/// A process that is certainly there, or certainly gone, waits for the same question.
#[tokio::test]
async fn a_question_is_taken_back_by_the_last_who_waits() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let gone = crate::store::owner::own().replace(&format!(" {} ", std::process::id()), " 4194305 ");
    let elsewhere = "b 1 1 m pid:[1]";
    for (other, taken) in [(gone.as_str(), Withdrawn::Question), (elsewhere, Withdrawn::Nothing)] {
        let id = format!("q-{}", other.len());
        assert_eq!(ask(&store, &id, &id).await, Asking::Asked);
        let waits = sqlx::query("INSERT INTO question_waits (question, mark) VALUES (?, ?)").bind(&id).bind(other);
        waits.execute(&store.pool).await.unwrap();
        assert_eq!(store.withdraw(&id).await.unwrap(), taken, "{other}");
        // Whoever is still there hears a yes, which is not void either.
        if taken == Withdrawn::Nothing {
            store.answer(&id, "boss", &Answer::YES).await.unwrap();
            assert_eq!(store.withdraw(&id).await.unwrap(), Withdrawn::Nothing);
            assert!(matches!(store.spend("ci", &id).await.unwrap(), Given::Yes { .. }));
        }
    }
    // Nobody here waits any more, and the question stays.
    assert_eq!(ask(&store, "q-1", "d1").await, Asking::Asked);
    store.leave("q-1").await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM question_waits WHERE question = 'q-1'")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    assert_eq!((left, ask(&store, "q-2", "d1").await), (0, Asking::Before(Box::new(asked_again(&store, "q-1").await))));
    store.close().await;
}

async fn asked_again(store: &Store, id: &str) -> Question {
    store.question(id).await.unwrap().unwrap().question
}

/// What an older pleach beside this one answered was put on record by it: it is no end without an answer.
#[tokio::test]
async fn an_older_pleachs_yes_is_no_denial() {
    use subagents::approval::ENDED;
    assert!(crate::store::ends::UNNOTED.contains(ENDED) && crate::store::ends::UNMARKED.contains(ENDED));
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    for (id, by, answer) in [("q-1", "boss", "{\"verdict\":\"allow\"}"), ("q-2", ENDED, "{\"verdict\":\"deny\"}")] {
        assert_eq!(ask(&store, id, id).await, Asking::Asked);
        let close = "UPDATE questions SET closed_by = ?, closed_at = 5, answer = ? WHERE id = ?";
        sqlx::query(close).bind(by).bind(answer).bind(id).execute(&store.pool).await.unwrap();
    }
    let ended: Vec<String> = store.unnoted().await.unwrap().into_iter().map(|ended| ended.question.id).collect();
    assert_eq!(ended, ["q-2"]);
    store.noted(ended).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM questions WHERE noted_at IS NULL")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    assert_eq!(left, 0, "it can be deleted in time");
    store.close().await;
}
