use super::*;
use subagents::ports::JournalError;

#[tokio::test]
async fn what_was_appended_is_read_back_by_another() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a")], &lease).await.unwrap();
    // A child begins in one transaction with what its parent says of it.
    let mut child = first("r-a", "r-b");
    child.row.started = 2_000;
    let parent = Event::ChildStarted { call: Some("c".into()), run: "r-b".into(), background: false };
    store.append(vec![child, write("r-a", "r-a", 2, parent)], &lease).await.unwrap();
    store.close().await;

    let store = Store::look(&place.path).await.unwrap().unwrap();
    let tree = store.load(&lease.root).await.unwrap();
    let shape: Vec<(&str, usize)> = tree.iter().map(|l| (l.row.run.as_str(), l.records.len())).collect();
    assert_eq!(shape, [("r-a", 2), ("r-b", 1)], "parents before children");
    assert_eq!(tree[0].row, row("r-a", "r-a"), "every column comes back");
    assert_eq!(tree[0].records[1].seq, 2);
    assert_eq!(store.events(&tree[0].row.run).await.unwrap(), tree[0].records);
    assert_eq!(store.runs_of("client ci", 10).await.unwrap().len(), 2);
    assert_eq!(store.runs_of("client other", 10).await.unwrap(), []);
    assert_eq!(store.run_of("client ci", "r-b").await.unwrap().unwrap().row.usd, Some(4));
    assert_eq!(store.run_of("client other", "r-b").await.unwrap(), None);
    assert_eq!(store.find("b").await.unwrap().len(), 1);
    assert_eq!(store.tree(&lease.root).await.unwrap().len(), 2);
    assert_eq!(store.row(&RunId::known("r-none")).await.unwrap(), None);
    assert!(store.load(&RunId::known("r-none")).await.unwrap().is_empty());
    let refused = store.append(vec![said("r-a", "r-a", 3)], &lease).await.unwrap_err();
    names(&place.path, &refused, "opened to look at");
}

#[tokio::test]
async fn a_row_says_what_the_last_event_left() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a")], &lease).await.unwrap();
    let mut waits = said("r-a", "r-a", 2);
    waits.row = RunRow {
        state: "waiting".into(),
        waiting: Some("approval".into()),
        usd: None,
        tokens: u64::MAX,
        ended: Some(9_000),
        ..waits.row
    };
    let expected = RunRow { tokens: i64::MAX.unsigned_abs(), ..waits.row.clone() };
    store.append(vec![waits], &lease).await.unwrap();
    assert_eq!(store.row(&lease.root).await.unwrap(), Some(expected));
    // A message wakes it again.
    store.append(vec![said("r-a", "r-a", 3)], &lease).await.unwrap();
    assert_eq!(store.row(&lease.root).await.unwrap(), Some(row("r-a", "r-a")));
    store.close().await;
}

#[tokio::test]
async fn a_bad_entry_fails_alone_and_whole() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let mut leases = Vec::new();
    for root in ["r-a", "r-b", "r-c"] {
        let lease = claim(&store, root).await;
        store.append(vec![first(root, root)], &lease).await.unwrap();
        leases.push(lease);
    }
    let fenced = Lease { epoch: leases[1].epoch + 1, ..leases[1].clone() };
    // One batch: the queue is filled before the writer gets to run.
    let (good, old, twice, other, last) = tokio::join!(
        store.append(vec![said("r-a", "r-a", 2)], &leases[0]),
        store.append(vec![said("r-b", "r-b", 2)], &fenced),
        store.append(vec![said("r-c", "r-c", 2), said("r-c", "r-c", 1)], &leases[2]),
        store.append(vec![said("r-a", "r-a", 9)], &leases[1]),
        store.append(vec![said("r-a", "r-a", 3)], &leases[0]),
    );
    assert_eq!((good, last), (Ok(()), Ok(())), "neighbours lose nothing");
    assert_eq!(old, Err(JournalError::Fenced));
    assert!(matches!(&twice, Err(JournalError::Failed(why)) if why.contains("UNIQUE")), "{twice:?}");
    assert!(matches!(&other, Err(JournalError::Failed(why)) if why.contains("not for the tree r-b")), "{other:?}");
    let seqs = |run: &'static str| {
        let store = &store;
        async move { store.events(&RunId::known(run)).await.unwrap().iter().map(|r| r.seq).collect::<Vec<_>>() }
    };
    assert_eq!(seqs("r-a").await, [1, 2, 3]);
    assert_eq!(seqs("r-b").await, [1]);
    assert_eq!(seqs("r-c").await, [1], "nothing of it was written");
    store.close().await;
}

#[tokio::test]
async fn a_thousand_at_once_are_all_written() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let mut leases = Vec::new();
    for tree in 0..10 {
        leases.push(claim(&store, &format!("r-{tree}")).await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..1_000 {
        let (store, lease) = (store.clone(), leases[n % 10].clone());
        tasks.spawn(async move {
            let write = first(lease.root.as_str(), &format!("r-x-{n}"));
            store.append(vec![write], &lease).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    store.close().await;
    let store = Store::look(&place.path).await.unwrap().unwrap();
    assert_eq!(store.runs(5_000).await.unwrap().len(), 1_000);
    assert_eq!(store.load(&leases[3].root).await.unwrap().len(), 100);
}

#[tokio::test]
async fn what_was_asked_for_before_the_end_is_written_before_the_end() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    let (written, ()) = tokio::join!(store.append(vec![first("r-a", "r-a")], &lease), store.close());
    written.unwrap();
    let gone = store.append(vec![said("r-a", "r-a", 2)], &lease).await.unwrap_err();
    names(&place.path, &gone, "it is closed");
}
