use super::rest::finished;
use super::*;
use crate::store::{Due, Full, Kept, MOST_CONFIGS, PushConfig, Told, clock};

fn config(root: &str, id: &str) -> PushConfig {
    PushConfig {
        root: RunId::known(root),
        id: id.into(),
        principal: "ci".into(),
        version: "1.0".into(),
        url: "https://h.example/x".into(),
        proof: "sealed".into(),
        scheme: None,
    }
}
fn artifact(seq: u64) -> Write {
    write("r-a", "r-a", seq, artifact_event())
}
fn artifact_event() -> Event {
    Event::ArtifactEmitted {
        name: "a".into(),
        media_type: "text/plain".into(),
        text: Some("x".into()),
        blob: None,
        url: None,
        encoding: None,
        more: false,
    }
}
async fn due(store: &Store) -> Vec<Due> {
    store.due(clock() + 1_000_000_000, &Full::default(), 10, 100).await.unwrap()
}
fn seqs(due: &[Due]) -> Vec<(&str, u64)> {
    due.iter().map(|due| (due.config.as_deref().unwrap_or("-"), due.record.seq)).collect()
}

/// How a try went that was begun and ended now.
async fn tried(store: &Store, due: &Due, told: Told) {
    let until = clock() + 60_000;
    assert!(store.take_due(due, until).await.unwrap());
    assert!(store.settle(due.id, until, told).await.unwrap());
}
fn later(heard: u32) -> Told {
    Told::Later { next: clock() + 5_000, why: "HTTP 500".into(), heard }
}

/// Of each config one after another, whatever becomes of the one before; configs apart.
#[tokio::test]
async fn a_config_is_told_in_order() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a"), artifact(2)], &lease).await.unwrap();
    assert!(due(&store).await.is_empty() && !store.has_pushes().await.unwrap(), "nobody asked");
    assert_eq!(store.keep_push(config("r-a", "c")).await.unwrap(), Kept::Kept);
    store.append(vec![artifact(3), artifact(4), said("r-a", "r-a", 5), artifact(6)], &lease).await.unwrap();
    store.keep_push(config("r-a", "d")).await.unwrap();
    store.append(vec![artifact(7)], &lease).await.unwrap();
    let now = due(&store).await;
    assert_eq!(seqs(&now), [("c", 3), ("d", 7)], "only the first of each");
    tried(&store, &now[0], later(0)).await;
    assert_eq!(seqs(&due(&store).await), [("d", 7), ("c", 3)], "the same once more");
    for (told, next) in [(Told::Delivered, 4), (Told::Dead("HTTP 422".into()), 5), (Told::Nothing, 6)] {
        let now = due(&store).await;
        let own = now.iter().find(|due| due.config.as_deref() == Some("c")).unwrap();
        tried(&store, own, told).await;
        let now = due(&store).await;
        assert!(seqs(&now).contains(&("c", next)) && now.len() == 2, "{:?}", seqs(&now));
    }
    // It is over with what is forgotten, and nothing else.
    store.forget_push(&RunId::known("r-a"), "c").await.unwrap();
    store.append(vec![artifact(8)], &lease).await.unwrap();
    assert_eq!(seqs(&due(&store).await), [("d", 7)]);
    store.close().await;
    let store = Store::open(&place.path).await.unwrap();
    assert_eq!(store.pushes(&RunId::known("r-a")).await.unwrap(), [config("r-a", "d")]);
    assert_eq!(seqs(&due(&store).await), [("d", 7)], "over a restart");
    store.close().await;
}

#[tokio::test]
async fn a_config_goes_where_it_was_last_said_and_a_tree_has_so_many() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a")], &lease).await.unwrap();
    store.keep_push(config("r-a", "c")).await.unwrap();
    store.append(vec![artifact(2)], &lease).await.unwrap();
    assert_eq!(due(&store).await[0].endpoint, "https://h.example ci");
    let moved = PushConfig { url: "https://other.example:8443/y?z".into(), ..config("r-a", "c") };
    store.keep_push(moved.clone()).await.unwrap();
    assert_eq!(due(&store).await[0].endpoint, "https://other.example:8443 ci");
    assert_eq!(store.pushes(&RunId::known("r-a")).await.unwrap(), [moved]);
    for n in 1..MOST_CONFIGS {
        assert_eq!(store.keep_push(config("r-a", &format!("n{n}"))).await.unwrap(), Kept::Kept);
    }
    assert_eq!(store.keep_push(config("r-a", "more")).await.unwrap(), Kept::Full);
    assert_eq!(store.keep_push(config("r-a", "c")).await.unwrap(), Kept::Kept, "in its own place");
    assert_eq!(store.keep_push(config("r-b", "more")).await.unwrap(), Kept::Kept, "another tree");
    store.close().await;
}

/// What a receiver heard of a message is not told it again, until it is another receiver.
#[tokio::test]
async fn letters_that_were_heard_stay_heard() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a")], &lease).await.unwrap();
    store.keep_push(config("r-a", "c")).await.unwrap();
    store.append(vec![artifact(2), artifact(3)], &lease).await.unwrap();
    let heard = async || due(&store).await[0].heard;
    assert_eq!(heard().await, 0);
    tried(&store, &due(&store).await[0], later(2)).await;
    assert_eq!(heard().await, 2);
    // Said once more as it was, it is the same one.
    store.keep_push(config("r-a", "c")).await.unwrap();
    assert_eq!(heard().await, 2);
    store.keep_push(PushConfig { url: "https://other.example/".into(), ..config("r-a", "c") }).await.unwrap();
    assert_eq!(heard().await, 0);
    tried(&store, &due(&store).await[0], Told::Delivered).await;
    assert_eq!(heard().await, 0, "the next begins at its first");
    store.close().await;
}

/// A receiver that is gone costs its config one schedule of tries, whatever waits behind it; so does
/// one that takes nothing. What others are told goes on.
#[tokio::test]
async fn a_config_ends_with_all_that_waits_for_it() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a")], &lease).await.unwrap();
    let why = async |id: i64| -> (String, Option<String>) {
        let row = sqlx::query_as("SELECT state, why FROM outbox WHERE id = ?").bind(id);
        row.fetch_one(&store.pool).await.unwrap()
    };
    let mut seq = 2;
    for (name, told) in
        [("gone", vec![Told::Ended("HTTP 410".into())]), ("never", vec![Told::Dead("HTTP 413".into()); 3])]
    {
        store.keep_push(config("r-a", name)).await.unwrap();
        store.keep_push(config("r-a", "other")).await.unwrap();
        store.append((seq..seq + 5).map(artifact).collect(), &lease).await.unwrap();
        seq += 5;
        let of = async |name: &str| due(&store).await.into_iter().find(|due| due.config.as_deref() == Some(name));
        for told in told {
            tried(&store, &of(name).await.unwrap(), told).await;
        }
        assert!(of(name).await.is_none(), "{name}: nothing waits any more");
        let names: Vec<String> = store.pushes(&RunId::known("r-a")).await.unwrap().into_iter().map(|c| c.id).collect();
        assert_eq!(names, ["other"], "{name}");
        let last: i64 = sqlx::query_scalar("SELECT max(id) FROM outbox WHERE config = ?")
            .bind(name)
            .fetch_one(&store.pool)
            .await
            .unwrap();
        let (state, told) = why(last).await;
        assert!(state == "dead" && told.clone().unwrap().starts_with("its config ended: "), "{name}: {told:?}");
        // Nothing is noted for it from then on, and the other one has missed nothing.
        store.append(vec![artifact(seq)], &lease).await.unwrap();
        seq += 1;
        assert!(of(name).await.is_none());
        for _ in 0..6 {
            tried(&store, &of("other").await.unwrap(), Told::Delivered).await;
        }
        assert!(of("other").await.is_none());
    }
    // Given up now and then it stands.
    store.append((seq..seq + 7).map(artifact).collect(), &lease).await.unwrap();
    for n in 0..7 {
        let told = if n % 3 == 2 { Told::Delivered } else { Told::Dead("HTTP 413".into()) };
        tried(&store, &due(&store).await[0], told).await;
    }
    assert_eq!(store.pushes(&RunId::known("r-a")).await.unwrap().len(), 1);
    store.close().await;
}

/// With a tree that ended go the configs of it and their secrets, a day later, when all is told.
#[tokio::test]
async fn what_has_nothing_to_tell_any_more_is_swept() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    for root in ["r-a", "r-b", "r-c", "r-d"] {
        let lease = claim(&store, root).await;
        store.append(vec![first(root, root)], &lease).await.unwrap();
        store.keep_push(config(root, "c")).await.unwrap();
        if root == "r-b" {
            store.append(vec![write(root, root, 2, artifact_event())], &lease).await.unwrap();
        }
    }
    store.keep_push(config("r-none", "c")).await.unwrap();
    assert_eq!(store.sweep_pushes().await.unwrap(), 0);
    let past = i64::try_from(clock()).unwrap() - 25 * 60 * 60 * 1_000;
    let set = async |sql: &'static str| {
        sqlx::query(sql).bind(past).execute(&store.pool).await.unwrap();
    };
    set("UPDATE push_configs SET at = ?").await;
    set("UPDATE runs SET ended = ? WHERE run IN ('r-a', 'r-b')").await;
    set("UPDATE runs SET ended = ? + 7200000 WHERE run = 'r-c'").await;
    // r-a has ended, and what never began never will; r-b has something to tell, r-c ended lately, r-d goes on.
    assert_eq!(store.sweep_pushes().await.unwrap(), 2);
    for (root, left) in [("r-a", 0), ("r-none", 0), ("r-b", 1), ("r-c", 1), ("r-d", 1)] {
        assert_eq!(store.pushes(&RunId::known(root)).await.unwrap().len(), left, "{root}");
    }
    tried(&store, &due(&store).await[0], Told::Delivered).await;
    assert_eq!(store.sweep_pushes().await.unwrap(), 1);
    store.close().await;
}

/// A try of the old address says nothing of the new one: neither that it heard, nor that it wants no
/// more, nor how often it was tried.
#[tokio::test]
async fn a_try_is_of_the_address_it_went_to() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a")], &lease).await.unwrap();
    store.keep_push(config("r-a", "c")).await.unwrap();
    store.append(vec![artifact(2), artifact(3)], &lease).await.unwrap();
    let until = clock() + 60_000;
    let mut port = 1_000;
    let mut moves = async || {
        port += 1;
        let url = format!("https://h.example:{port}/x");
        store.keep_push(PushConfig { url, ..config("r-a", "c") }).await.unwrap();
    };
    let ready = async || {
        let now = store.due(clock(), &Full::default(), 10, 100).await.unwrap();
        now.into_iter().map(|due| (due.record.seq, due.tries, due.heard)).collect::<Vec<_>>()
    };
    for told in
        [Told::Ended("HTTP 410".into()), Told::Delivered, Told::Nothing, Told::Dead("HTTP 422".into()), later(2)]
    {
        let old = due(&store).await.remove(0);
        assert!(store.take_due(&old, until).await.unwrap());
        assert!(ready().await.is_empty(), "it is under way");
        moves().await;
        assert!(!store.settle(old.id, until, told.clone()).await.unwrap(), "{told:?}");
        assert_eq!(ready().await, [(2, 0, 0)], "{told:?}: the new address is told from the first, at once");
        assert_eq!(store.pushes(&RunId::known("r-a")).await.unwrap().len(), 1, "{told:?}");
    }
    // Other credentials at the same address have heard what was heard.
    tried(&store, &due(&store).await[0], later(1)).await;
    assert!(ready().await.is_empty());
    let last = store.pushes(&RunId::known("r-a")).await.unwrap().remove(0);
    store.keep_push(last.clone()).await.unwrap();
    assert!(ready().await.is_empty(), "said once more as it was, it waits as it did");
    store.keep_push(PushConfig { proof: "other".into(), ..last }).await.unwrap();
    assert_eq!(ready().await, [(2, 0, 1)]);
    // And a try that was not interfered with counts.
    tried(&store, &due(&store).await[0], Told::Ended("HTTP 410".into())).await;
    assert!(store.pushes(&RunId::known("r-a")).await.unwrap().is_empty());
    store.close().await;
}

/// Of a config that comes when its tree has ended, one delivery is tried all the same: of the end.
#[tokio::test]
async fn whoever_asks_after_the_end_is_told_of_the_end() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a"), artifact(2)], &lease).await.unwrap();
    store.keep_push(config("r-a", "early")).await.unwrap();
    assert!(due(&store).await.is_empty(), "it has not ended");
    store.append(vec![write("r-a", "r-a", 3, finished())], &lease).await.unwrap();
    let all = due(&store).await;
    assert_eq!(seqs(&all), [("early", 3)]);
    store.keep_push(config("r-a", "early")).await.unwrap();
    assert_eq!(seqs(&due(&store).await), [("early", 3)], "it waits to be told already");
    tried(&store, &all[0], Told::Delivered).await;
    store.keep_push(config("r-a", "late")).await.unwrap();
    assert_eq!(seqs(&due(&store).await), [("late", 3)]);
    tried(&store, &due(&store).await[0], Told::Delivered).await;
    assert!(due(&store).await.is_empty());
    store.keep_push(config("r-a", "late")).await.unwrap();
    assert_eq!(seqs(&due(&store).await), [("late", 3)], "asked once more, told once more");
    store.close().await;
}
