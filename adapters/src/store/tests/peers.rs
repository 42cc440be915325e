use super::super::open::MIGRATIONS;
use super::super::{Between, PeerDoor, PeerFilter, PeerMessage, PeerNews, PeerSaid};
use super::*;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use std::borrow::Cow;

fn between(principal: &str, door: PeerDoor) -> Between {
    Between { principal: principal.into(), peer: "p 1".into(), door }
}
fn message(known: &str, id: &str) -> PeerMessage {
    let begins = Some(("act".into(), "c-ours".into()));
    PeerMessage { known: known.into(), said: "digest".into(), id: id.into(), renewed: None, begins }
}
fn news(id: &str, state: &str) -> PeerNews {
    let (task, context) = (Some("t-1".into()), Some("c-1".into()));
    PeerNews {
        id: id.into(),
        task,
        context,
        state: Some(state.into()),
        status: Some(format!("{{\"state\":\"{state}\"}}")),
    }
}

/// A store of the version before is brought to this one, with what is in it.
#[tokio::test]
async fn a_store_without_peers_is_given_their_tables() {
    let place = place();
    let connect = SqliteConnectOptions::new().filename(&place.path).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(connect).await.unwrap();
    let mut before = sqlx::migrate!("src/store/migrations");
    before.migrations = Cow::Owned(MIGRATIONS.iter().filter(|m| m.version <= 7).cloned().collect());
    assert_eq!(before.migrations.last().unwrap().version, 7);
    before.run(&pool).await.unwrap();
    pool.close().await;
    let store = Store::open(&place.path).await.unwrap();
    let of = between("alice", PeerDoor::A2a);
    assert_eq!(store.peer_say(&of, message("m", "p-1")).await.unwrap(), PeerSaid::Fresh);
    store.peer_heard(&of, news("p-1", "TASK_STATE_WORKING"), None).await.unwrap();
    store.close().await;
    // And one of this version is opened as it is.
    let store = Store::open(&place.path).await.unwrap();
    assert_eq!(store.peer_task(&of, "p-1").await.unwrap().unwrap().task.as_deref(), Some("t-1"));
    store.close().await;
}

/// What one client was given by one way is nobody else's, nor its own by another way.
#[tokio::test]
async fn a_task_of_a_peer_has_one_owner_and_one_way() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let of = between("alice", PeerDoor::A2a);
    store.peer_say(&of, message("m", "p-1")).await.unwrap();
    store.peer_heard(&of, news("p-1", "TASK_STATE_WORKING"), Some("m".into())).await.unwrap();
    for (other, owns) in [
        (between("alice", PeerDoor::A2a), true),
        (between("bob", PeerDoor::A2a), false),
        (between("alice", PeerDoor::Tool), false),
        (Between { peer: "p 2".into(), ..of.clone() }, false),
    ] {
        assert_eq!(store.peer_task(&other, "p-1").await.unwrap().is_some(), owns, "{other:?}");
        assert_eq!(store.peer_task_of(&other, "t-1").await.unwrap().is_some(), owns, "{other:?}");
        assert_eq!(store.peer_context(&other, "c-ours").await.unwrap().is_some(), owns, "{other:?}");
        let (tasks, total) = store.peer_tasks(&other, &PeerFilter::default(), None, 10).await.unwrap();
        assert_eq!((tasks.len(), total), (usize::from(owns), u64::from(owns)), "{other:?}");
        // Nor does what others say change it.
        if !owns {
            store.peer_heard(&other, news("p-1", "TASK_STATE_FAILED"), None).await.unwrap();
        }
    }
    assert_eq!(store.peer_task(&of, "p-1").await.unwrap().unwrap().state, "TASK_STATE_WORKING");
    store.close().await;
}

/// A message is noted before it leaves, and known again by what it says; a task heard of as it was
/// keeps its place, and one that says nothing of its state keeps that.
#[tokio::test]
async fn what_is_said_twice_is_known() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let of = between("alice", PeerDoor::A2a);
    assert_eq!(store.peer_say(&of, message("m", "p-1")).await.unwrap(), PeerSaid::Fresh);
    assert_eq!(store.peer_say(&of, message("m", "p-2")).await.unwrap(), PeerSaid::Before("p-1".into(), false));
    store.peer_heard(&of, news("p-1", "TASK_STATE_WORKING"), Some("m".into())).await.unwrap();
    assert_eq!(store.peer_say(&of, message("m", "p-2")).await.unwrap(), PeerSaid::Before("p-1".into(), true));
    let other = PeerMessage { said: "another".into(), ..message("m", "p-2") };
    assert_eq!(store.peer_say(&of, other).await.unwrap(), PeerSaid::Other);
    let first = store.peer_task(&of, "p-1").await.unwrap().unwrap();
    while super::super::clock() <= first.changed {
        tokio::task::yield_now().await;
    }
    store.peer_heard(&of, news("p-1", "TASK_STATE_WORKING"), None).await.unwrap();
    let silent = PeerNews { state: None, status: None, ..news("p-1", "") };
    store.peer_heard(&of, silent, None).await.unwrap();
    assert_eq!(store.peer_task(&of, "p-1").await.unwrap().unwrap(), first);
    store.peer_heard(&of, news("p-1", "TASK_STATE_COMPLETED"), None).await.unwrap();
    assert!(store.peer_task(&of, "p-1").await.unwrap().unwrap().changed > first.changed);
    // What the peer never answered is no task of a list, and may be taken back.
    assert_eq!(store.peer_say(&of, message("n", "p-3")).await.unwrap(), PeerSaid::Fresh);
    assert_eq!(store.peer_tasks(&of, &PeerFilter::default(), None, 10).await.unwrap().1, 1);
    store.peer_unsaid(&of, "n".into()).await.unwrap();
    assert_eq!(store.peer_say(&of, message("n", "p-4")).await.unwrap(), PeerSaid::Fresh);
    store.close().await;
}

/// What nobody used for long goes, by whichever way it came; what is used stays.
#[tokio::test]
async fn what_peers_gave_out_is_not_kept_for_ever() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let (tool, a2a) = (between("alice", PeerDoor::Tool), between("alice", PeerDoor::A2a));
    for of in [&tool, &a2a] {
        store.peer_say(of, message(&format!("{of:?}"), &format!("{:?}-old", of.door))).await.unwrap();
        store.peer_say(of, message(&format!("{of:?} new"), &format!("{:?}-new", of.door))).await.unwrap();
    }
    assert_eq!(store.tidy_peers().await.unwrap(), 0);
    let past = i64::try_from(super::super::clock()).unwrap() - 31 * 24 * 60 * 60 * 1_000;
    for sql in [
        "UPDATE peer_tasks SET used = ? WHERE id LIKE '%-old'",
        "UPDATE peer_messages SET at = ? WHERE id LIKE '%-old'",
        "UPDATE peer_contexts SET changed = ? WHERE door = 'tool'",
    ] {
        sqlx::query(sql).bind(past).execute(&store.pool).await.unwrap();
    }
    assert_eq!(store.tidy_peers().await.unwrap(), 5, "two tasks, two messages, a conversation");
    for (of, context) in [(&tool, false), (&a2a, true)] {
        assert!(store.peer_task(of, &format!("{:?}-old", of.door)).await.unwrap().is_none());
        assert!(store.peer_task(of, &format!("{:?}-new", of.door)).await.unwrap().is_some());
        assert_eq!(store.peer_context(of, "c-ours").await.unwrap().is_some(), context);
    }
    assert_eq!(store.tidy_peers().await.unwrap(), 0);
    store.close().await;
}
