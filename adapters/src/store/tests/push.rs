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
    let made = Event::ArtifactEmitted {
        name: format!("a{seq}"),
        media_type: "text/plain".into(),
        text: Some("x".into()),
        blob: None,
        url: None,
        encoding: None,
        more: false,
    };
    write("r-a", "r-a", seq, made)
}
async fn due(store: &Store) -> Vec<Due> {
    store.due(clock() + 1_000_000_000, &Full::default(), 10, 100).await.unwrap()
}
fn seqs(due: &[Due]) -> Vec<(&str, u64)> {
    due.iter().map(|due| (due.config.as_deref().unwrap_or("-"), due.record.seq)).collect()
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
    assert!(store.take_due(&now[0], clock() + 60_000).await.unwrap());
    store.settle(now[0].id, Told::Later(clock() + 5_000, "HTTP 500".into())).await.unwrap();
    assert_eq!(seqs(&due(&store).await), [("d", 7), ("c", 3)], "the same once more");
    for (told, next) in [(Told::Delivered, 4), (Told::Dead("HTTP 410".into()), 5), (Told::Nothing, 6)] {
        let now = due(&store).await;
        let own = now.iter().find(|due| due.config.as_deref() == Some("c")).unwrap();
        store.settle(own.id, told).await.unwrap();
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
