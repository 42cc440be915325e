use super::*;
use std::os::unix::fs::PermissionsExt;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_files_are_their_owners_alone() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a")], &lease).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let file = PathBuf::from(format!("{}{suffix}", place.path.display()));
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    store.close().await;
}

/// The lock of a store this process had just made was let go with another descriptor of it; then
/// any program that looked at the file took its log away.
#[tokio::test]
async fn a_store_just_made_is_locked_against_others() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a")], &lease).await.unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&place.path).unwrap());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let (own, file) = (format!(" {} ", std::process::id()), format!(":{inode} "));
    assert!(locks.lines().any(|l| l.contains("POSIX") && l.contains(&own) && l.contains(&file)), "{locks}");
    store.close().await;
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing_half_written() {
    let place = place();
    let store = open(&place.path, Options { pages: Some(90), ..quick() }).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a")], &lease).await.unwrap();
    let large = Event::MessageReceived { from: "x".into(), text: "y".repeat(400_000), message: None, parts: None };
    let full = store.append(vec![said("r-a", "r-a", 2), write("r-a", "r-a", 3, large)], &lease).await.unwrap_err();
    names(&place.path, &full, "the disk is full");
    assert_eq!(store.events(&lease.root).await.unwrap().len(), 1, "not the small one either");
    store.append(vec![said("r-a", "r-a", 2)], &lease).await.unwrap();
    assert_eq!(store.events(&lease.root).await.unwrap().len(), 2);
    store.close().await;
}

#[tokio::test]
async fn a_locked_file_is_said_and_leaves_nothing_half_written() {
    let place = place();
    let store = open(&place.path, quick()).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a")], &lease).await.unwrap();
    let mut other = store.pool.acquire().await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut *other).await.unwrap();
    let locked = store.append(vec![said("r-a", "r-a", 2)], &lease).await.unwrap_err();
    names(&place.path, &locked, "another process keeps it locked");
    assert_eq!(store.events(&lease.root).await.unwrap().len(), 1, "what is there can still be read");
    sqlx::query("ROLLBACK").execute(&mut *other).await.unwrap();
    drop(other);
    store.append(vec![said("r-a", "r-a", 2)], &lease).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn an_older_store_that_cannot_grow_is_said_and_stays_as_it_was() {
    let place = place();
    super::migration::old(&place.path, "another-boot 1 1").await;
    let full = open(&place.path, Options { pages: Some(1), ..quick() }).await.err();
    names(&place.path, &full.unwrap(), "the disk is full");
    let store = Store::look(&place.path).await.unwrap().unwrap();
    assert_eq!(store.runs(10).await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_is_no_store_is_said() {
    let place = place();
    assert!(Store::look(&place.path).await.unwrap().is_none());
    std::fs::write(&place.path, "not a database, but long enough to be looked at as one".repeat(40)).unwrap();
    for error in [Store::open(&place.path).await.err().unwrap(), Store::look(&place.path).await.err().unwrap()] {
        names(&place.path, &error, "no store of pleach");
    }
    let nowhere = place.path.with_file_name("missing").join("pleach.db");
    names(&nowhere, &Store::open(&nowhere).await.err().unwrap(), "does its folder exist");
}

#[tokio::test]
async fn many_may_open_a_new_store_at_once() {
    let place = place();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let path = place.path.clone();
        tasks.spawn(async move {
            let store = Store::open(&path).await.unwrap();
            let root = format!("r-{n}");
            let lease = claim(&store, &root).await;
            store.append(vec![first(&root, &root)], &lease).await.unwrap();
            store.close().await;
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let store = Store::look(&place.path).await.unwrap().unwrap();
    assert_eq!(store.runs(100).await.unwrap().len(), 8);
}
