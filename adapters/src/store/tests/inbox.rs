use super::*;
use std::time::Instant;
use subagents::ports::{Answer, Bus, Command};

fn message(n: u32) -> Command {
    Command::Message {
        run: "r-a".into(),
        from: "me".into(),
        text: n.to_string(),
        message: None,
        parts: None,
        open: false,
    }
}

#[tokio::test]
async fn an_owner_learns_of_commands_another_handle_left() {
    let place = place();
    let owner = Store::open(&place.path).await.unwrap();
    let other = Store::open(&place.path).await.unwrap();
    let root = RunId::known("r-a");
    assert!(!other.post(&root, &message(0)).await.unwrap(), "nobody is there to take it");

    let mut hints = owner.subscribe();
    let lease = claim(&owner, "r-a").await;
    let quiet = claim(&owner, "r-quiet").await;
    let answer = Command::Answer {
        question: "q-1".into(),
        answer: Answer::Input { value: json!({"a": [1]}), note: Some("n".into()) },
        by: "me".into(),
        door: "cli".into(),
        message: None,
        parts: None,
    };
    let start = Instant::now();
    for command in [message(1), answer.clone(), message(2)] {
        assert!(other.post(&root, &command).await.unwrap());
    }
    let hint = tokio::time::timeout(Duration::from_secs(5), hints.recv()).await.unwrap().unwrap();
    assert_eq!(hint, root);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(owner.take(&lease).await.unwrap(), [message(1), answer, message(2)]);
    assert_eq!(owner.take(&lease).await.unwrap(), []);
    // Hints come while commands wait, and stop when they are taken: each look tells of all that wait, and
    // one that began after the first word of the other tells of that alone.
    let about = Command::Message {
        run: "r-quiet".into(),
        from: "me".into(),
        text: "x".into(),
        message: None,
        parts: None,
        open: false,
    };
    assert!(other.post(&quiet.root, &about).await.unwrap());
    let mut told = 0;
    while told < 3 {
        let hint = tokio::time::timeout(Duration::from_secs(5), hints.recv()).await.unwrap().unwrap();
        told += usize::from(hint == quiet.root);
        assert!(told == 0 || hint == quiet.root, "nothing of {hint:?} waits any more");
    }
    owner.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_hint_that_was_missed_comes_again() {
    let place = place();
    let owner = Store::open(&place.path).await.unwrap();
    let other = Store::open(&place.path).await.unwrap();
    let mut early = owner.subscribe();
    let lease = claim(&owner, "r-a").await;
    assert!(other.post(&lease.root, &message(1)).await.unwrap());
    let told = tokio::time::timeout(Duration::from_secs(5), early.recv()).await.unwrap().unwrap();
    assert_eq!(told, lease.root);
    let mut late = owner.subscribe();
    let hint = tokio::time::timeout(Duration::from_secs(5), late.recv()).await.unwrap().unwrap();
    assert_eq!(hint, lease.root);
    owner.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_tree_is_not_given_back_over_commands() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    assert!(store.post(&lease.root, &message(1)).await.unwrap());
    assert_eq!(store.release(&lease).await.unwrap(), [message(1)]);
    store.append(vec![first("r-a", "r-a")], &lease).await.unwrap();
    assert_eq!(store.release(&lease).await.unwrap(), []);
    assert!(!store.post(&lease.root, &message(2)).await.unwrap());
    store.close().await;
}

#[tokio::test]
async fn a_wake_is_heard_at_home() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let mut hints = store.subscribe();
    store.wake(&RunId::known("r-a"));
    assert_eq!(hints.recv().await.unwrap().as_str(), "r-a");
    store.close().await;
}
