//! The policy file while it is written: broken, half written, swapped, gone for a moment; and who
//! may come in by it.

use crate::live::{call, change, eventually, in_force, metric, taken};
use crate::rest::{ALICE, BOB, BOSS};
use conformance::pleach::Folder;
use conformance::served::Served;
use serde_json::json;
use std::os::unix::fs::symlink;
use std::time::Duration;

const HEAD: &str = "version = 1\n[servers.files]\nbuiltin = \"workspace\"\n[policy]\nmax_access = \"destructive\"\n\
    filesystem = { read = [\"docs\"], read_write = [\"out\"] }\n";
const CLIENTS: &str = "[clients.alice]\ntoken = \"alice-alice-alice-alice\"\n\
    [clients.bob]\ntoken = \"bob-bob-bob-bob-bob-bob\"\n[clients.boss]\ntoken = \"boss-boss-boss-boss-boss\"\n";

fn policy(tools: &str) -> String {
    format!("{HEAD}tools = {{ {tools} }}\n{CLIENTS}")
}
const ALL: &str = "allow = [\"files__*\"]";
const NO_WRITE: &str = "allow = [\"files__*\"], deny = [\"files__Write\"]";

fn folder() -> Folder {
    let folder = Folder::new(&policy(ALL));
    folder.write("docs/a.md", "hello");
    std::fs::create_dir_all(folder.join("out")).unwrap();
    folder
}

async fn writes(folder: &Folder, served: &Served, name: &str) -> bool {
    let path = folder.join(&format!("out/{name}"));
    call(served, ALICE, "files__Write", json!({ "file_path": path, "content": "x" })).await;
    path.exists()
}

#[tokio::test]
async fn a_broken_file_keeps_the_old_policy_and_is_told_of_once() {
    let folder = folder();
    let served = Served::start(&folder);
    folder.write("pleach.toml", &policy(NO_WRITE).replace("max_access", "max_acces"));
    let behind = || async { metric(&served, "pleach_policy_behind").await };
    while behind().await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(writes(&folder, &served, "one").await, "the old one is in force");
    assert_eq!(served.get("/readyz", &[]).await.status, 200);
    // The same again is not told of again.
    folder.write("pleach.toml", &policy(NO_WRITE).replace("max_access", "max_acces"));
    std::fs::remove_file(folder.join("pleach.toml")).unwrap();
    let refused = || async { metric(&served, "pleach_policy_refused_total").await };
    while refused().await < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(writes(&folder, &served, "two").await, "a file that is gone changes nothing");
    change(&folder, &served, &policy(NO_WRITE)).await;
    assert!(!writes(&folder, &served, "three").await);
    assert_eq!(behind().await, 0);
    let log = || served.log.lock().unwrap().clone();
    eventually("what changed, in words", || log().contains("client alice may no longer call files__Write")).await;
    let log = log();
    assert_eq!(log.matches("does not hold").count(), 2, "broken once, gone once: {log}");
    assert!(log.contains("pleach.toml:5"), "{log}");
}

/// A file that lacks its last tables holds by chance, and would let everybody in.
#[tokio::test]
async fn a_storm_of_half_written_files_lets_nobody_in() {
    let folder = folder();
    let served = Served::start(&folder);
    let path = folder.join("pleach.toml");
    let writer = std::thread::spawn(move || {
        for n in 0..60 {
            let whole = format!("{}# {n}\n", policy(if n == 59 { NO_WRITE } else { ALL }));
            std::fs::write(&path, &whole[..whole.find("[clients.alice]").unwrap()]).unwrap();
            // Now and then the writer is slow: longer than a file takes to be read.
            std::thread::sleep(Duration::from_millis(if n % 20 == 10 { 700 } else { 10 }));
            std::fs::write(&path, &whole).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let mut asked = 0;
    while !writer.is_finished() {
        let answer = served.modern("/mcp", "tools/list", json!({}), &[]).await;
        assert_eq!(answer.status, 401, "{answer:?}");
        asked += 1;
    }
    writer.join().unwrap();
    assert!(asked > 20);
    let denied = async {
        while served.modern("/mcp", "tools/list", json!({}), &[ALICE]).await.body.contains("files__Write") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), denied).await.is_ok(), "the last one is in force");
    assert!(!writes(&folder, &served, "one").await);
}

/// As a ConfigMap is mounted: the file is a link through a link to a folder, which is swapped.
#[tokio::test]
async fn a_swapped_link_is_a_change() {
    let folder = folder();
    let absolute = |text: &str| {
        let root = folder.path().display();
        let store = format!("{text}[store]\nurl = \"sqlite:{root}/kept.db\"\n");
        store.replace("\"docs\"", &format!("\"{root}/docs\"")).replace("\"out\"", &format!("\"{root}/out\""))
    };
    std::fs::remove_file(folder.join("pleach.toml")).unwrap();
    folder.write("..one/pleach.toml", &absolute(&policy(ALL)));
    folder.write("..two/pleach.toml", &absolute(&policy(NO_WRITE)));
    symlink("..one", folder.join("..data")).unwrap();
    symlink("..data/pleach.toml", folder.join("pleach.toml")).unwrap();
    let served = Served::start(&folder);
    assert!(writes(&folder, &served, "one").await);
    let before = taken(&served).await;
    symlink("..two", folder.join("..next")).unwrap();
    std::fs::rename(folder.join("..next"), folder.join("..data")).unwrap();
    std::fs::remove_dir_all(folder.join("..one")).unwrap();
    in_force(&served, before).await;
    assert!(!writes(&folder, &served, "two").await);
    assert!(
        call(&served, ALICE, "files__Read", json!({ "file_path": folder.join("docs/a.md") })).await.contains("hello")
    );
}

/// Whoever may write the link could name another policy.
#[tokio::test]
async fn a_link_that_agents_may_write_is_not_followed() {
    let folder = folder();
    std::fs::remove_file(folder.join("pleach.toml")).unwrap();
    let open = |tools: &str| {
        let root = folder.path().display();
        policy(tools).replace("\"docs\"", &format!("\"{root}/docs\"")).replace("\"out\"", &format!("\"{root}/out\""))
    };
    folder.write("kept/one.toml", &open(NO_WRITE));
    folder.write("kept/two.toml", &open(ALL));
    symlink(folder.join("kept/one.toml"), folder.join("out/pleach.toml")).unwrap();
    symlink("out/pleach.toml", folder.join("pleach.toml")).unwrap();
    let served = Served::start(&folder);
    std::fs::remove_file(folder.join("out/pleach.toml")).unwrap();
    symlink(folder.join("kept/two.toml"), folder.join("out/pleach.toml")).unwrap();
    while metric(&served, "pleach_policy_refused_total").await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!writes(&folder, &served, "one").await);
    eventually("the reason", || served.log.lock().unwrap().contains("where agents may write")).await;
}

#[tokio::test]
async fn a_client_that_is_gone_or_has_another_token_is_out() {
    let folder = folder();
    let served = Served::start(&folder);
    let wanted = json!({ "toolsListChanged": true });
    let mut streams = Vec::new();
    for who in [ALICE, BOB, BOSS] {
        let mut stream = served.listen("/mcp", wanted.clone(), &[who]).await;
        stream.until("acknowledged").await;
        streams.push(stream);
    }
    let session = served.initialize("/mcp", &[BOB]).await;
    let standing = served.stand("/mcp", &session, &[BOB]).await;
    let rotated = policy(ALL)
        .replace("[clients.bob]\ntoken = \"bob-bob-bob-bob-bob-bob\"\n", "")
        .replace("boss-boss-boss-boss-boss", "boss-has-another-token-now");
    change(&folder, &served, &rotated).await;
    for (who, status) in [(ALICE, 200), (BOB, 401), (BOSS, 401)] {
        assert_eq!(served.modern("/mcp", "tools/list", json!({}), &[who]).await.status, status, "{who:?}");
        let rest = served.get("/v1/runs", &[who]).await.status;
        assert_eq!(rest, status, "{who:?}");
    }
    let new = ("authorization", "Bearer boss-has-another-token-now");
    assert_eq!(served.modern("/mcp", "tools/list", json!({}), &[new]).await.status, 200);
    assert_eq!(served.legacy("/mcp", &session, "tools/list", json!({}), &[BOB]).await.status, 401);
    let mut standing = standing;
    standing.end().await;
    let [mut alice, mut bob, mut boss] = <[_; 3]>::try_from(streams).unwrap_or_else(|_| unreachable!());
    bob.end().await;
    boss.end().await;
    // Hers stands, and tells.
    let narrowed = rotated.replace(ALL, NO_WRITE);
    change(&folder, &served, &narrowed).await;
    alice.until("notifications/tools/list_changed").await;
    // And back in.
    change(&folder, &served, &policy(ALL)).await;
    assert_eq!(served.modern("/mcp", "tools/list", json!({}), &[BOB]).await.status, 200);
}

#[tokio::test]
async fn what_needs_a_restart_is_said_and_left() {
    let folder = folder();
    let served = Served::start(&folder);
    let port = "[gateway]\nlisten = \"127.0.0.1:1\"\n[store]\nurl = \"sqlite:other.db\"\n";
    change(&folder, &served, &(policy(NO_WRITE) + port)).await;
    assert!(!writes(&folder, &served, "one").await, "the rest of it is in force");
    assert!(!folder.join("other.db").exists());
    let said =
        || served.log.lock().unwrap().contains("[gateway] listen and [store] url was changed; that needs a restart");
    eventually("the word of it", said).await;
    // SIGHUP has it read again, whether it changed or not.
    let before = taken(&served).await;
    let hung_up = std::process::Command::new("kill").args(["-HUP", &served.pid().to_string()]).status().unwrap();
    assert!(hung_up.success());
    in_force(&served, before).await;
    assert_eq!(served.get("/readyz", &[]).await.status, 200);
}
