//! A real process, killed in the middle of writing.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const PLACE: &str = "PLEACH_STORE_TEST";

/// The process that is killed: appends for ever, saying each number once it is durable.
#[tokio::test]
#[ignore = "started by the test below"]
async fn victim() {
    let Some(path) = std::env::var_os(PLACE) else { return };
    let store = Store::open(Path::new(&path)).await.unwrap();
    let lease = claim(&store, "r-a").await;
    store.append(vec![first("r-a", "r-a")], &lease).await.unwrap();
    for seq in 2.. {
        store.append(vec![said("r-a", "r-a", seq)], &lease).await.unwrap();
        println!("\nwritten {seq}");
    }
}

#[tokio::test]
async fn what_was_said_to_be_written_survives_a_kill() {
    let place = place();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::crash::victim", "--ignored", "--nocapture"])
        .env(PLACE, &place.path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let mut numbers = lines.map_while(Result::ok).filter_map(|l| l.strip_prefix("written ")?.parse::<u64>().ok());
    let last = numbers.by_ref().take(40).last().unwrap();
    let store = Store::open(&place.path).await.unwrap();
    let held = store.claim(&RunId::known("r-a")).await.unwrap();
    assert_eq!(held, Claimed::Held { by: format!("process {}", victim.id()) }, "it is alive");
    victim.kill().unwrap();
    victim.wait().unwrap();
    let last = numbers.last().unwrap_or(last);

    let lease = claim(&store, "r-a").await;
    assert_eq!(lease.epoch, 2, "taken over at once");
    let seqs: Vec<u64> = store.events(&lease.root).await.unwrap().iter().map(|r| r.seq).collect();
    assert!(last >= 40 && seqs.len() as u64 >= last, "{last} {}", seqs.len());
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "without a gap");
    store.append(vec![said("r-a", "r-a", seqs.len() as u64 + 1)], &lease).await.unwrap();
    store.close().await;
}
