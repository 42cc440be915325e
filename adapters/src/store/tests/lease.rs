use super::super::owner;
use super::*;
use subagents::ports::{Command, JournalError};

#[tokio::test]
async fn a_tree_has_one_live_owner() {
    let place = place();
    let one = Store::open(&place.path).await.unwrap();
    let two = Store::open(&place.path).await.unwrap();
    let lease = claim(&one, "r-a").await;
    assert_eq!(lease.epoch, 1);
    let held = two.claim(&lease.root).await.unwrap();
    assert_eq!(held, Claimed::Held { by: format!("process {}", std::process::id()) });
    assert_eq!(one.claim(&lease.root).await.unwrap(), held, "once is once, for its owner too");
    one.append(vec![first("r-a", "r-a")], &lease).await.unwrap();
    assert!(two.runs(1).await.unwrap()[0].owned);

    assert_eq!(one.release(&lease).await.unwrap(), []);
    assert!(!two.runs(1).await.unwrap()[0].owned);
    let late = one.append(vec![said("r-a", "r-a", 2)], &lease).await;
    assert_eq!(late, Err(JournalError::Fenced), "what was given back cannot be written to");
    assert_eq!(claim(&two, "r-a").await.epoch, 2);
    assert_eq!(one.release(&lease).await.unwrap(), [], "an old lease gives nothing back");
    assert!(one.runs(1).await.unwrap()[0].owned);
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn a_dead_owner_loses_its_tree_at_once_and_is_fenced() {
    let place = place();
    let dead = dying(&place.path).await;
    let old = claim(&dead, "r-a").await;
    dead.append(vec![first("r-a", "r-a")], &old).await.unwrap();

    let heir = Store::open(&place.path).await.unwrap();
    let new = claim(&heir, "r-a").await;
    assert_eq!(new.epoch, old.epoch + 1);
    assert_eq!(dead.append(vec![said("r-a", "r-a", 2)], &old).await, Err(JournalError::Fenced));
    assert!(dead.writer.held().borrow().is_empty(), "it watches for nothing any more");
    assert_eq!(dead.take(&old).await, Err(JournalError::Fenced));
    heir.append(vec![said("r-a", "r-a", 2)], &new).await.unwrap();
    // The end of the old one takes nothing from the new one.
    dead.close().await;
    heir.append(vec![said("r-a", "r-a", 3)], &new).await.unwrap();
    assert_eq!(heir.events(&new.root).await.unwrap().len(), 3);
    heir.close().await;
}

#[tokio::test]
async fn an_owner_elsewhere_keeps_its_tree_while_it_gives_signs() {
    let place = place();
    let far = Options { owner: "b 1 1 m pid:[1]".into(), lease: Duration::from_millis(600), ..quick() };
    assert_eq!(owner::standing(&far.owner), owner::Standing::Elsewhere);
    let other = open(&place.path, far).await.unwrap();
    let lease = claim(&other, "r-a").await;
    let here = Store::open(&place.path).await.unwrap();
    let until = async || -> i64 {
        sqlx::query_scalar("SELECT lease_until FROM trees WHERE root = 'r-a'").fetch_one(&here.pool).await.unwrap()
    };
    // Until the first lease is over: it is renewed without anything being written.
    let first_ends = until().await;
    let renewed = async {
        while i64::try_from(crate::store::now()).unwrap() <= first_ends || until().await <= first_ends {
            assert!(matches!(here.claim(&lease.root).await.unwrap(), Claimed::Held { .. }));
        }
    };
    tokio::time::timeout(Duration::from_secs(30), renewed).await.expect("it is not renewed");
    assert!(matches!(here.claim(&lease.root).await.unwrap(), Claimed::Held { .. }));
    // Silence: as if its machine had stopped.
    sqlx::query("UPDATE trees SET lease_until = 1").execute(&here.pool).await.unwrap();
    assert_eq!(claim(&here, "r-a").await.epoch, 2);
    assert_eq!(other.append(vec![first("r-a", "r-a")], &lease).await, Err(JournalError::Fenced));
    other.close().await;
    here.close().await;
}

#[tokio::test]
async fn closing_gives_the_trees_back() {
    let place = place();
    let one = Store::open(&place.path).await.unwrap();
    claim(&one, "r-a").await;
    one.close().await;
    let two = Store::open(&place.path).await.unwrap();
    assert_eq!(claim(&two, "r-a").await.epoch, 2);
    two.close().await;
}

#[tokio::test]
async fn a_claim_nobody_waits_for_is_given_back() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let root = RunId::known("r-a");
    {
        let mut claiming = std::pin::pin!(store.claim(&root));
        // Asked for, then forgotten before the answer came.
        assert!(futures_util::poll!(&mut claiming).is_pending());
    }
    let given = async { while !matches!(store.claim(&root).await.unwrap(), Claimed::Lease(_)) {} };
    let given = tokio::time::timeout(Duration::from_secs(30), given).await;
    assert!(given.is_ok(), "it would be held for as long as the process lives");
    store.close().await;
}

#[tokio::test]
async fn unfinished_trees_are_those_somebody_must_work_on() {
    let place = place();
    let store = dying(&place.path).await;
    let mut put = Vec::new();
    for (root, state, waiting, ended) in [
        ("r-works", "acting", None, None),
        ("r-done", "completed", None, Some(5)),
        ("r-asks", "waiting", Some("approval"), None),
        ("r-parent", "waiting", Some("children"), None),
        ("r-orphan", "waiting", Some("children"), None),
        ("r-told", "waiting", Some("question"), None),
    ] {
        let lease = claim(&store, root).await;
        let mut write = first(root, root);
        write.row = RunRow { state: state.into(), waiting: waiting.map(Into::into), ended, ..write.row };
        store.append(vec![write], &lease).await.unwrap();
        put.push(lease);
    }
    let mut child = first("r-parent", "r-child");
    child.row = RunRow { state: "waiting".into(), waiting: Some("question".into()), ..child.row };
    store.append(vec![child], &put[3]).await.unwrap();
    let mut child = first("r-orphan", "r-ended");
    child.row.ended = Some(6);
    store.append(vec![child], &put[4]).await.unwrap();
    sqlx::query("INSERT INTO inbox (root, at, body) VALUES ('r-told', 1, '{}')").execute(&store.pool).await.unwrap();
    let roots = store.unfinished_roots().await.unwrap();
    let roots: Vec<&str> = roots.iter().map(RunId::as_str).collect();
    assert_eq!(roots, ["r-orphan", "r-told", "r-works"]);
    let pause = Command::Pause { by: "me".into() };
    assert!(!store.post(&RunId::known("r-works"), &pause).await.unwrap(), "its owner is dead");
    store.close().await;
}
