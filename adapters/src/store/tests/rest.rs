use super::*;
use crate::store::{Due, Full, Parent, Reservation, Reserved, RunsFilter, StoreError, Told, Webhook};

fn reservation(key: &str, asked: &str, run: &str) -> Reservation {
    let webhook = Webhook { principal: "ci".into(), url: "https://h.example/x".into(), secret: None };
    Reservation {
        principal: "ci".into(),
        key: Some((key.into(), asked.into())),
        run: RunId::known(run),
        renewed: None,
        webhook: Some(webhook),
        push: None,
    }
}

pub(super) fn finished() -> Event {
    Event::finished(State::Completed, "done")
}
async fn due_in(store: &Store, now: u64) -> Result<Vec<Due>, StoreError> {
    store.due(now, &Full::default(), 10, 10).await
}

#[tokio::test]
async fn a_key_is_one_run_and_survives_a_restart() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    assert_eq!(store.reserve(reservation("k", "a", "r-1")).await.unwrap(), Reserved::Fresh);
    assert_eq!(store.reserve(reservation("k", "a", "r-2")).await.unwrap(), Reserved::Before(RunId::known("r-1")));
    store.close().await;
    let store = Store::open(&place.path).await.unwrap();
    assert_eq!(store.reserve(reservation("k", "b", "r-3")).await.unwrap(), Reserved::Other);
    let other = Reservation { principal: "eve".into(), ..reservation("k", "b", "r-4") };
    assert_eq!(store.reserve(other).await.unwrap(), Reserved::Fresh, "a key is its client's own");
    store.close().await;
}

#[tokio::test]
async fn positions_count_a_tree_without_gaps_in_the_order_of_the_commits() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let (a, b) = (claim(&store, "r-a").await, claim(&store, "r-b").await);
    store.append(vec![first("r-a", "r-a")], &a).await.unwrap();
    store.append(vec![first("r-b", "r-b")], &b).await.unwrap();
    store.append(vec![first("r-a", "r-c"), said("r-a", "r-a", 2)], &a).await.unwrap();
    store.append(vec![said("r-a", "r-c", 2)], &a).await.unwrap();
    let read = store.since(&RunId::known("r-a"), 0, 100).await.unwrap();
    let seen: Vec<(u64, &str, u64)> = read.iter().map(|(n, r)| (*n, r.run.as_str(), r.seq)).collect();
    assert_eq!(seen, [(1, "r-a", 1), (2, "r-c", 1), (3, "r-a", 2), (4, "r-c", 2)]);
    let rest = store.since(&RunId::known("r-a"), 2, 1).await.unwrap();
    assert_eq!(rest.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [3]);
    store.close().await;
}

#[tokio::test]
async fn events_of_an_older_store_have_positions_too() {
    let place = place();
    super::migration::old(&place.path, "another-boot 1 1").await;
    let store = Store::open(&place.path).await.unwrap();
    let root = RunId::known("r-old1");
    let read = store.since(&root, 0, 1_000).await.unwrap();
    let all: usize = store.load(&root).await.unwrap().iter().map(|l| l.records.len()).sum();
    assert_eq!(read.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (1..=all as u64).collect::<Vec<_>>());
    store.close().await;
}

#[tokio::test]
async fn what_a_webhook_is_told_is_written_with_the_event() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    store.reserve(reservation("k", "a", "r-a")).await.unwrap();
    let (a, b) = (claim(&store, "r-a").await, claim(&store, "r-b").await);
    store.append(vec![first("r-a", "r-a"), first("r-a", "r-c"), write("r-a", "r-c", 2, finished())], &a).await.unwrap();
    store.append(vec![first("r-b", "r-b"), write("r-b", "r-b", 2, finished())], &b).await.unwrap();
    assert!(due_in(&store, u64::MAX).await.unwrap().is_empty(), "no child's end, and no run without a webhook");
    store.append(vec![write("r-a", "r-a", 2, finished())], &a).await.unwrap();
    let due = due_in(&store, u64::MAX).await.unwrap();
    assert_eq!((due.len(), due[0].record.event.kind(), due[0].tries), (1, "run.finished", 0));
    assert!(store.take_due(&due[0], 5_000).await.unwrap());
    assert!(!store.take_due(&due[0], 9_000).await.unwrap(), "taken once");
    store.close().await;

    let store = Store::open(&place.path).await.unwrap();
    assert!(due_in(&store, 4_999).await.unwrap().is_empty());
    let due = due_in(&store, 5_000).await.unwrap();
    assert_eq!(due[0].tries, 1, "who took it died; it is due again");
    let later = Told::Later { next: 7_000, why: "HTTP 500".into(), heard: 0 };
    assert!(!store.settle(due[0].id, 4_000, later.clone()).await.unwrap(), "of no try of it");
    assert!(store.settle(due[0].id, 5_000, later).await.unwrap());
    assert_eq!(store.next_due(&Full::default()).await.unwrap(), Some(7_000));
    assert!(store.settle(due[0].id, 7_000, Told::Dead("HTTP 410".into())).await.unwrap());
    let tally = store.told(&RunId::known("r-a")).await.unwrap();
    assert_eq!((tally.pending, tally.delivered, tally.dead, tally.why.as_deref()), (0, 0, 1, Some("HTTP 410")));
    store.close().await;
}

#[tokio::test]
async fn what_a_dead_process_took_is_due_at_once() {
    let place = place();
    let store = dying(&place.path).await;
    store.reserve(reservation("k", "a", "r-a")).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a"), write("r-a", "r-a", 2, finished())], &lease).await.unwrap();
    let due = due_in(&store, u64::MAX).await.unwrap();
    let far = crate::store::clock() + 60_000;
    assert!(store.take_due(&due[0], far).await.unwrap());
    store.close().await;
    let store = Store::open(&place.path).await.unwrap();
    store.reclaim_due().await.unwrap();
    let due = due_in(&store, crate::store::clock()).await.unwrap();
    assert_eq!(due.len(), 1);
    assert!(store.take_due(&due[0], far).await.unwrap());
    store.reclaim_due().await.unwrap();
    assert!(due_in(&store, crate::store::clock()).await.unwrap().is_empty(), "this one lives");
    store.close().await;
}

#[tokio::test]
async fn many_messages_for_one_endpoint_hide_none_for_another() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let ends = |run: usize| match run {
        0..20 => ("ci", format!("https://slow.example:8443/{run}")),
        20 => ("ci", "https://other.example/x?y=https://slow.example:8443/".to_owned()),
        _ => ("eve", "https://slow.example:8443/x".to_owned()),
    };
    for run in 0..22 {
        let (id, (principal, url)) = (format!("r-{run}"), ends(run));
        let webhook = Webhook { principal: principal.into(), url, secret: None };
        let asked = Reservation {
            principal: principal.into(),
            key: None,
            run: RunId::known(&id),
            webhook: Some(webhook),
            push: None,
            renewed: None,
        };
        store.reserve(asked).await.unwrap();
        let lease = claim(&store, &id).await;
        store.append(vec![first(&id, &id), write(&id, &id, 2, finished())], &lease).await.unwrap();
    }
    let count = |due: Vec<Due>| {
        let mut count = std::collections::BTreeMap::new();
        due.into_iter().for_each(|due| *count.entry(due.endpoint).or_insert(0) += 1);
        count.into_iter().collect::<Vec<_>>()
    };
    let (slow, other, eve) =
        ("https://slow.example:8443 ci", "https://other.example ci", "https://slow.example:8443 eve");
    let all = store.due(u64::MAX, &Full::default(), 4, 100).await.unwrap();
    assert_eq!(count(all), [(other.to_owned(), 1), (slow.to_owned(), 4), (eve.to_owned(), 1)]);
    let full = Full { endpoints: vec![slow.into()], clients: Vec::new() };
    let rest = store.due(u64::MAX, &full, 4, 100).await.unwrap();
    assert_eq!(count(rest), [(other.to_owned(), 1), (eve.to_owned(), 1)]);
    let full = Full { endpoints: Vec::new(), clients: vec!["ci".into()] };
    let rest = store.due(u64::MAX, &full, 4, 100).await.unwrap();
    assert_eq!(count(rest), [(eve.to_owned(), 1)]);
    assert!(store.next_due(&full).await.unwrap().is_some());
    let full = Full { endpoints: vec![eve.into()], ..full };
    assert_eq!(store.next_due(&full).await.unwrap(), None);
    store.close().await;
}

#[tokio::test]
async fn runs_come_page_by_page() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    for id in ["r-a", "r-b", "r-c"] {
        let lease = claim(&store, id).await;
        let mut writes = vec![first(id, id)];
        writes.extend((id == "r-a").then(|| first("r-a", "r-d")));
        store.append(writes, &lease).await.unwrap();
    }
    let filter = RunsFilter { principal: "client ci".into(), ..RunsFilter::default() };
    let ids = |listed: Vec<crate::store::Listed>| listed.iter().map(|l| l.row.run.to_string()).collect::<Vec<_>>();
    let page = store.page(&filter, None, 2).await.unwrap();
    let last = page.last().map(|l| (l.row.started, l.row.run.to_string())).unwrap();
    assert_eq!(ids(page), ["r-c", "r-b"]);
    assert_eq!(ids(store.page(&filter, Some((last.0, &last.1)), 2).await.unwrap()), ["r-a"], "all began at once");
    let below = RunsFilter { parent: Parent::Of(RunId::known("r-a")), ..filter.clone() };
    assert_eq!(ids(store.page(&below, None, 9).await.unwrap()), ["r-d"]);
    let none = RunsFilter { state: Some("failed".into()), parent: Parent::Any, ..filter };
    assert!(store.page(&none, None, 9).await.unwrap().is_empty());
    store.close().await;
}
