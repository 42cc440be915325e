//! Appends to the journal a second, on a real file, each durable when it is told of: one after
//! another, and many runs at once, whose appends share transactions.
//! `cargo bench -p adapters --bench journal [FOLDER]`
#![allow(clippy::unwrap_used, clippy::expect_used)]

use adapters::store::Store;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use subagents::event::{Event, Record};
use subagents::ports::{Claimed, Journal, Lease, RunRow, Write};
use subagents::run::{RunId, State};

/// So long each is measured.
const TIME: Duration = Duration::from_secs(5);

fn main() {
    // Cargo's own argument begins with a dash.
    let given = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).map(PathBuf::from);
    let folder = tempfile::tempdir_in(given.unwrap_or_else(std::env::temp_dir)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for runs in [1_u32, 8, 64, 512, 1_000] {
            let store = Store::open(&folder.path().join(format!("{runs}.db"))).await.unwrap();
            let (count, spent) = appends(&store, runs).await;
            let rate = f64::from(count) / spent.as_secs_f64();
            println!("{runs} runs at once, one event an append: {rate:.0} appends/s");
            store.close().await;
        }
    });
}

/// Every run writes its next event as soon as its last one is durable.
async fn appends(store: &Store, runs: u32) -> (u32, Duration) {
    let mut leases = Vec::new();
    for n in 0..runs {
        let root = RunId::known(&format!("r-{n:016}"));
        match store.claim(&root).await.unwrap() {
            Claimed::Lease(lease) => leases.push(lease),
            Claimed::Held { by } => panic!("{by}"),
        }
    }
    let (start, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
    for lease in leases {
        let store = store.clone();
        tasks.spawn(async move {
            let mut seq = 0;
            while start.elapsed() < TIME {
                seq += 1;
                store.append(vec![write(&lease, seq)], &lease).await.unwrap();
            }
            u32::try_from(seq).unwrap()
        });
    }
    let count = tasks.join_all().await.into_iter().sum();
    (count, start.elapsed())
}

/// What a turn of a run writes: its row, and an event of some hundred bytes.
fn write(lease: &Lease, seq: u64) -> Write {
    let row = RunRow {
        run: lease.root.clone(),
        parent: None,
        root: lease.root.clone(),
        depth: 0,
        agent: "researcher".into(),
        principal: "ci".into(),
        door: Some("rest".into()),
        state: State::Thinking.as_str().into(),
        waiting: None,
        turns: 1,
        tool_calls: 2,
        tokens: seq,
        usd: Some(4),
        started: 1_000,
        ended: None,
    };
    let event =
        Event::MessageReceived { from: "somebody".into(), text: "word ".repeat(60), message: None, parts: None };
    Write { record: Record { run: lease.root.clone(), seq, at: 1_000 + seq, event }, row, question: None }
}
