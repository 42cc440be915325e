use super::*;
use subagents::ports::{Answer, JournalError, Question, QuestionChange, QuestionFilter, QuestionRow};

fn question(id: &str, root: &str, asked: u64, expires: Option<u64>) -> Question {
    Question {
        id: id.into(),
        run: root.into(),
        root: root.into(),
        principal: format!("client {root}"),
        kind: "approval".into(),
        text: "May it write?".into(),
        detail: json!({ "tool": "files__Write", "input": { "path": "a" } }),
        chain: vec!["client".into(), root.into()],
        asked,
        expires,
    }
}
fn with(mut write: Write, change: QuestionChange) -> Write {
    write.question = Some(change);
    write
}
fn close(id: &str, answer: Option<Answer>) -> QuestionChange {
    QuestionChange::Close { id: id.into(), by: "ada".into(), answer, at: 77 }
}

#[tokio::test]
async fn questions_open_and_close_with_their_events() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let (a, b) = (claim(&store, "r-a").await, claim(&store, "r-b").await);
    let (one, two) = (question("q-1", "r-a", 20, Some(50)), question("q-2", "r-b", 10, None));
    let open = |w: Write, q: &Question| with(w, QuestionChange::Open(q.clone()));
    store.append(vec![open(first("r-a", "r-a"), &one)], &a).await.unwrap();
    store.append(vec![open(first("r-b", "r-b"), &two)], &b).await.unwrap();

    let ids = |filter: QuestionFilter| {
        let store = &store;
        async move { store.open_questions(&filter).await.unwrap().into_iter().map(|q| q.id).collect::<Vec<_>>() }
    };
    let all = QuestionFilter::default;
    assert_eq!(ids(all()).await, ["q-2", "q-1"], "oldest first");
    assert_eq!(ids(QuestionFilter { principal: Some("client r-a".into()), ..all() }).await, ["q-1"]);
    assert_eq!(ids(QuestionFilter { root: Some(b.root.clone()), ..all() }).await, ["q-2"]);
    assert_eq!(ids(QuestionFilter { limit: Some(1), ..all() }).await, ["q-2"]);
    assert_eq!(ids(QuestionFilter { after: Some((10, "q-2".into())), ..all() }).await, ["q-1"]);
    assert_eq!(ids(QuestionFilter { after: Some((20, "q-1".into())), ..all() }).await, [""; 0]);
    assert_eq!(store.questions_named("-1", 9).await.unwrap().len(), 1);
    assert_eq!(store.expired_roots(49).await.unwrap(), []);
    assert_eq!(store.expired_roots(50).await.unwrap(), std::slice::from_ref(&a.root));

    let yes = Answer::Allow { note: Some("once".into()), always: None };
    store.append(vec![with(said("r-a", "r-a", 2), close("q-1", Some(yes.clone())))], &a).await.unwrap();
    let closed = Some(("ada".to_owned(), 77));
    let expected = QuestionRow { question: one, closed, answer: Some(yes) };
    assert_eq!(store.question("q-1").await.unwrap(), Some(expected));
    assert_eq!(ids(all()).await, ["q-2"]);

    // A second answer is refused, and its event with it.
    let no = with(said("r-a", "r-a", 3), close("q-1", Some(Answer::Deny { note: None })));
    let refused = store.append(vec![no], &a).await.unwrap_err();
    assert!(matches!(&refused, JournalError::Failed(why) if why.contains("q-1 is not open any more")), "{refused}");
    assert_eq!(store.events(&a.root).await.unwrap().len(), 2);
    // The end of a run closes what is open and leaves alone what is not.
    let over = vec![with(said("r-a", "r-a", 3), close("q-1", None))];
    store.append(over, &a).await.unwrap();
    assert!(store.question("q-1").await.unwrap().unwrap().answer.is_some());
    store.append(vec![with(said("r-b", "r-b", 2), close("q-2", None))], &b).await.unwrap();
    let row = store.question("q-2").await.unwrap().unwrap();
    assert_eq!((row.closed, row.answer), (Some(("ada".into(), 77)), None));
    assert_eq!(store.question("q-3").await.unwrap(), None);
    store.close().await;
}

#[tokio::test]
async fn a_question_may_open_and_close_in_one_append() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    let yes = close("q-1", Some(Answer::YES));
    let open = with(first("r-a", "r-a"), QuestionChange::Open(question("q-1", "r-a", 1, None)));
    store.append(vec![open, with(said("r-a", "r-a", 2), yes.clone())], &lease).await.unwrap();
    let twice = vec![with(said("r-a", "r-a", 3), yes)];
    assert!(store.append(twice, &lease).await.is_err());
    store.close().await;
}

#[tokio::test]
async fn blobs_are_named_by_what_they_hold_and_read_by_range() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let name = store.put_blob(bytes.clone()).await.unwrap();
    assert_eq!(store.put_blob(bytes.clone()).await.unwrap(), name, "twice is once");
    let read = |offset, limit| {
        let (store, name) = (&store, &name);
        async move { store.get_blob(name, offset, limit).await.unwrap().unwrap() }
    };
    assert_eq!(read(0, u64::MAX).await, (bytes.clone(), 300_000));
    assert_eq!(read(1_000, 10).await, (bytes[1_000..1_010].to_vec(), 300_000));
    assert_eq!(read(299_999, 10).await, (bytes[299_999..].to_vec(), 300_000));
    assert_eq!(read(300_000, 10).await, (Vec::new(), 300_000));
    assert_eq!(read(u64::MAX, u64::MAX).await, (Vec::new(), 300_000));
    assert_eq!(read(5, 0).await, (Vec::new(), 300_000));
    assert_eq!(store.get_blob("00", 0, 1).await.unwrap(), None);
    let empty = store.put_blob(Vec::new()).await.unwrap();
    assert_eq!(empty, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(store.get_blob(&empty, 0, 9).await.unwrap(), Some((Vec::new(), 0)));
    store.close().await;
}
