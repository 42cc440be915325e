//! The figures of trees, measured on the built binary over REST: `cargo bench -p conformance --bench
//! tree`. What it costs to wait, how quickly who waits is woken, and what many trees at once do to
//! each other. `PARKED` and `STARTED` in the environment make it smaller.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use conformance::parked;
use conformance::pleach::Folder;
use conformance::served::Served;
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const POLICY: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[policy.spawn]
max_concurrent = 8
[agents.asker]
description = "Asks a person which colour it is to be, and says it."
prompt = "You are a careful assistant. Ask the person which colour they want before you do anything, and then say it."
[agents.lead]
description = "Splits the work."
prompt = "You split work."
subagents = ["worker"]
[agents.worker]
description = "Does the work."
prompt = "You work."
CLIENTS
"#;

const REPLIES: &str = r#"
[[reply]]
agent = "asker"
text = "I ask."
usage = { input = 900, output = 60 }
[[reply.tool]]
name = "ask_user"
input = { question = "Which colour?", options = ["red", "blue"] }
[[reply]]
agent = "asker"
text = "heard: {{result}}"
[[reply]]
agent = "lead"
text = "I ask five."
delay = "20ms"
AGENTS
[[reply]]
agent = "lead"
text = "merged"
delay = "20ms"
[[reply]]
agent = "worker"
text = "I note."
delay = "20ms"
[[reply.tool]]
name = "emit_artifact"
input = { name = "note", text = "some words of a note", media_type = "text/plain" }
[[reply]]
agent = "worker"
text = "done"
delay = "20ms"
"#;

/// Of five clients, for one may have 64 runs under way.
const CLIENTS: usize = 5;
const CHILDREN: usize = 5;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        waiting().await;
        at_once().await;
    });
}

fn folder() -> Folder {
    let client = |n: usize| format!("[clients.c{n}]\ntoken = \"{}\"\nmay_start = [\"asker\", \"lead\"]\n", token(n));
    let mut clients: String = (0..CLIENTS).map(client).collect();
    // Without somebody who may answer no agent is given `ask_user`.
    clients.push_str("[clients.boss]\ntoken = \"boss-boss-boss-boss-boss\"\ncan_approve = true\n");
    let spawn = "[[reply.tool]]\nname = \"Agent\"\n\
                 input = { description = \"part\", prompt = \"Do your part.\", subagent_type = \"worker\" }\n";
    let folder = Folder::new(&POLICY.replace("CLIENTS", &clients));
    folder.write("replies.toml", &REPLIES.replace("AGENTS", &spawn.repeat(CHILDREN)));
    folder
}
fn token(n: usize) -> String {
    format!("client-{n}-client-{n}-client")
}
fn bearer(n: usize) -> String {
    format!("Bearer {}", token(n))
}
fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

async fn begin(served: &Served, n: usize, agent: &str) -> String {
    let body = json!({ "agent": agent, "prompt": "Begin." }).to_string();
    loop {
        let answer = served.post("/v1/runs", &[("authorization", &bearer(n))], body.clone()).await;
        match answer.status {
            202 => return answer.json()["run"].as_str().unwrap().to_owned(),
            // The client has 64 under way; some end in a moment.
            429 => tokio::time::sleep(Duration::from_millis(5)).await,
            _ => panic!("{answer:?}"),
        }
    }
}
async fn get(served: &Served, n: usize, path: &str) -> Value {
    let answer = served.get(path, &[("authorization", &bearer(n))]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// A hundred thousand runs that wait: their memory, and one woken.
async fn waiting() {
    let (all, started) = (number("PARKED", 100_000), number("STARTED", 5_000));
    let folder = folder();
    let store = folder.join("pleach.db");
    let served = Served::start(&folder);
    let idle = used(&served).await;
    let start = Instant::now();
    let begun = (0..started).map(|i| begin(&served, i as usize % CLIENTS, "asker"));
    let begun: Vec<String> = futures_util::stream::iter(begun).buffer_unordered(32).collect().await;
    let spent = start.elapsed().as_secs_f64();
    while count(&store, "SELECT count(*) FROM runs WHERE waiting = 'question'").await < i64::from(started) {
        assert_eq!(count(&store, "SELECT count(*) FROM runs WHERE ended IS NOT NULL").await, 0, "one ended unasked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{started} runs started over REST until they wait: {:.0} a second", f64::from(started) / spent);
    println!("memory with those, in the process that ran them: {:+.1} MiB to idle", mib(used(&served).await, idle));
    served.end();

    let rows = parked::open(&store).await.unwrap();
    let start = Instant::now();
    let copies = parked::copy(&rows, &begun[0], "copied", all - started).await.unwrap();
    rows.close().await;
    println!(
        "the rest copied as rows of one of them in {:.0} s; the store has {:.0} MB",
        start.elapsed().as_secs_f64(),
        std::fs::metadata(&store).unwrap().len() as f64 / 1e6
    );
    let mut ready: Vec<Duration> = (0..20)
        .map(|_| {
            let start = Instant::now();
            let served = Served::start(&folder);
            let took = start.elapsed();
            served.end();
            took
        })
        .collect();
    println!("start to ready over {all} that wait: {}", spread(&mut ready));

    let served = Served::start(&folder);
    let resumed = "SELECT count(*) FROM events WHERE type = 'run.resumed'";
    let looked = used(&served).await;
    // Longer than between two looks for runs to go on with.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(count(&store, resumed).await, 0, "nobody is gone on with");
    println!(
        "memory over {all} that wait: {:+.1} MiB to idle; after two looks for work {:+.1} MiB",
        mib(looked, idle),
        mib(used(&served).await, idle)
    );
    println!("processor time of ten idle seconds over {all} that wait: {:.0} ms", idle_cpu(&served).await);
    lists(&served, &folder).await;
    println!("memory after lists of them were read: {:+.1} MiB to idle", mib(used(&served).await, idle));
    wake(&served, &begun, &copies).await;
    println!("memory after a thousand were woken: {:+.1} MiB to idle", mib(used(&served).await, idle));
}

/// What a server uses that has served something.
async fn used(served: &Served) -> u64 {
    for path in ["/v1/runs?limit=50", "/v1/approvals?limit=50"] {
        get(served, 0, path).await;
    }
    served.memory()
}
fn mib(now: u64, idle: u64) -> f64 {
    (now as f64 - idle as f64) / 1_024.0
}

async fn lists(served: &Served, folder: &Folder) {
    for path in ["/v1/approvals?limit=50", "/v1/runs?limit=50", "/v1/runs?limit=50&state=waiting"] {
        let key = if path.contains("approvals") { "approvals" } else { "runs" };
        let (mut cursor, mut times, mut entries) = (String::new(), Vec::new(), 0);
        loop {
            let start = Instant::now();
            let page = get(served, 0, &format!("{path}{cursor}")).await;
            times.push(start.elapsed());
            entries += page[key].as_array().unwrap().len();
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        println!("{path}: {entries} entries in {} pages, a page {}", times.len(), spread(&mut times));
    }
    for args in [&["runs"][..], &["answer"], &["runs", "--json", "--limit", "1000"]] {
        let mut times: Vec<Duration> = (0..10)
            .map(|_| {
                let start = Instant::now();
                assert_eq!(folder.run(args).code, 0);
                start.elapsed()
            })
            .collect();
        println!("pleach {}: {}", args.join(" "), spread(&mut times));
    }
}

/// Answers a thousand, one after another: all over the store, real ones and copies.
async fn wake(served: &Served, begun: &[String], copies: &[(String, String)]) {
    let mut chosen = Vec::new();
    for run in begun.iter().skip(1).step_by((begun.len() / 100).max(1)).take(100) {
        let client = begun_by(served, run).await;
        let shown = get(served, client, &format!("/v1/runs/{run}")).await;
        chosen.push((client, run.clone(), shown["questions"][0]["id"].as_str().unwrap().to_owned()));
    }
    let owner = begun_by(served, &begun[0]).await;
    let step = (copies.len() / 900).max(1);
    chosen.extend(copies.iter().step_by(step).take(900).map(|(run, question)| (owner, run.clone(), question.clone())));
    let (mut answered, mut ended) = (Vec::new(), Vec::new());
    for (client, run, question) in &chosen {
        let who = bearer(*client);
        let (start, said) = (Instant::now(), json!({ "input": "red" }).to_string());
        let answer = served.post(&format!("/v1/approvals/{question}"), &[("authorization", &who)], said).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answered.push(start.elapsed());
        let mut stream = served.follow(&format!("/v1/runs/{run}/events"), &[("authorization", &who)]).await;
        stream.until("run.finished").await;
        ended.push(start.elapsed());
        assert!(stream.heard.contains("heard: red"), "{}", stream.heard);
    }
    println!(
        "{} woken one after another, from the question's answer to its receipt: {}",
        chosen.len(),
        spread(&mut answered)
    );
    println!("… and to the run's end on its stream of events, the model asked once more: {}", spread(&mut ended));
}
/// The client of a run: the one who sees it.
async fn begun_by(served: &Served, run: &str) -> usize {
    for n in 0..CLIENTS {
        if served.get(&format!("/v1/runs/{run}"), &[("authorization", &bearer(n))]).await.status == 200 {
            return n;
        }
    }
    panic!("{run} is nobody's");
}

/// Two hundred equal trees with five children each, all at once.
async fn at_once() {
    let trees = number("TREES", 200) as usize;
    let folder = folder();
    let served = Served::start(&folder);
    let before = cpu(served.pid());
    let start = Instant::now();
    let begun = futures_util::future::join_all((0..trees).map(|i| begin(&served, i % CLIENTS, "lead"))).await;
    let accepted = start.elapsed();
    let store = folder.join("pleach.db");
    while count(&store, "SELECT count(*) FROM runs WHERE parent IS NULL AND ended IS NOT NULL").await < trees as i64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (spent, cpu) = (start.elapsed().as_secs_f64(), cpu(served.pid()) - before);
    let children = count(&store, "SELECT count(*) FROM runs WHERE parent IS NOT NULL AND state = 'completed'").await;
    assert_eq!(children as usize, trees * CHILDREN);
    let events = count(&store, "SELECT count(*) FROM events").await;
    println!(
        "{trees} trees with {children} children at once: all accepted in {:.2} s, all done in {spent:.2} s: {:.0} runs/s, {:.0} events/s, {:.2} s of processor time",
        accepted.as_secs_f64(),
        (trees as f64 + children as f64) / spent,
        events as f64 / spent,
        cpu / 1e6
    );
    let mut took = Vec::new();
    for run in &begun {
        took.push(lasted(&store, run).await);
    }
    println!(
        "from a tree's first event to its last: {}, least {:.0} ms, most {:.0} ms, fairness (Jain) {:.3}",
        spread(&mut took),
        took[0].as_secs_f64() * 1e3,
        took[took.len() - 1].as_secs_f64() * 1e3,
        jain(&took)
    );
    let alone = begin(&served, 0, "lead").await;
    let mut stream = served.follow(&format!("/v1/runs/{alone}/events"), &[("authorization", &bearer(0))]).await;
    stream.until("\"text\":\"merged\"").await;
    stream.end().await;
    println!(
        "one such tree alone: {:.0} ms, 80 of them its models' delays",
        lasted(&store, &alone).await.as_secs_f64() * 1e3
    );
}

/// From a run's first event to its last, as its row says.
async fn lasted(store: &std::path::Path, run: &str) -> Duration {
    let rows = parked::open(store).await.unwrap();
    let (started, ended): (i64, i64) =
        sqlx::query_as("SELECT started, ended FROM runs WHERE run = ?").bind(run).fetch_one(&rows).await.unwrap();
    rows.close().await;
    Duration::from_millis(u64::try_from(ended - started).unwrap())
}

/// 1: all took equally long; 1/n: one took all the time.
fn jain(took: &[Duration]) -> f64 {
    let sum: f64 = took.iter().map(Duration::as_secs_f64).sum();
    let squares: f64 = took.iter().map(|t| t.as_secs_f64().powi(2)).sum();
    sum * sum / (took.len() as f64 * squares)
}

async fn count(store: &std::path::Path, sql: &'static str) -> i64 {
    let rows = parked::open(store).await.unwrap();
    let n = sqlx::query_scalar(sql).fetch_one(&rows).await.unwrap();
    rows.close().await;
    n
}

/// Sorts them.
fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let at = |p: f64| times[((times.len() - 1) as f64 * p) as usize].as_secs_f64() * 1e3;
    format!("p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", at(0.5), at(0.99), at(1.0))
}

async fn idle_cpu(served: &Served) -> f64 {
    let before = cpu(served.pid());
    tokio::time::sleep(Duration::from_secs(10)).await;
    (cpu(served.pid()) - before) / 1e3
}

/// Processor time of a process so far, in microseconds.
fn cpu(pid: u32) -> f64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    spent.sum::<f64>() / 1e3
}
