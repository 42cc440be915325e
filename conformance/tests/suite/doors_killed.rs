//! The REST door of a process that dies while it is used: a request with a key is one run however
//! often it is sent, what was acknowledged is not lost, and an endpoint hears of everything, each
//! thing under one name.

use crate::rest::{ALICE, folder_with};
use conformance::pleach::Folder;
use conformance::served::Served;
use conformance::upstream::{Act, Upstream};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Nothing that is to come takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that may die at a point, and another one after it.
struct Door {
    folder: Folder,
    served: Served,
    died: bool,
}

impl Door {
    fn open(folder: Folder, env: &[(&str, &str)]) -> Self {
        let served = Served::start_with(&folder, env);
        Self { folder, served, died: false }
    }
    /// Does it again at the next server when this one dies of it.
    async fn again_and_again<T>(&mut self, mut step: impl AsyncFnMut(&Served) -> T) -> T {
        loop {
            tokio::select! {
                done = step(&self.served) => return done,
                () = dead(self.served.pid()) => {}
            }
            self.restart();
        }
    }
    fn restart(&mut self) {
        assert!(!std::mem::replace(&mut self.died, true), "it dies once");
        assert!(self.served.ended_within(PATIENCE).is_some());
        self.served = Served::start(&self.folder);
    }
}

/// Until a process is gone: a killed child is a zombie until it is waited for.
async fn dead(pid: u32) {
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with('Z')) || stat.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sends until somebody answers.
async fn send(served: &Served, path: &str, key: Option<&str>, body: &Value) -> (u16, Value) {
    let client = Served::client();
    let mut request = client.post(format!("{}{path}", served.base)).header(ALICE.0, ALICE.1);
    request = request.header("content-type", "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    answered(request.body(body.to_string())).await
}
/// The answer; of a server that dies of it none ever comes, and whoever waits for that sees it.
async fn answered(request: reqwest::RequestBuilder) -> (u16, Value) {
    let whole = async {
        let answer = request.send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    };
    match whole.await {
        Some(answer) => answer,
        None => std::future::pending().await,
    }
}

/// Which of the times a point is passed it is died at; every one of them is `cargo conformance
/// crash`'s.
#[derive(Clone, Copy)]
enum Time {
    First,
    Last,
}

/// The points that are passed from the first request on.
async fn points(folder: Folder, time: Time, drive: impl AsyncFn(&mut Door)) -> Vec<String> {
    let log = folder.join("points");
    let mut door = Door::open(folder, &[("PLEACH_CRASH_LOG", log.to_str().unwrap())]);
    let before: BTreeSet<String> = read(&log);
    drive(&mut door).await;
    let mut times: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for (name, n) in read(&log).difference(&before).filter_map(|p| p.rsplit_once('/')) {
        times.entry(name.to_owned()).or_default().push(n.parse().unwrap());
    }
    let one = |times: Vec<u32>| match time {
        Time::First => times.into_iter().min(),
        Time::Last => times.into_iter().max(),
    };
    times.into_iter().map(|(name, times)| format!("{name}/{}", one(times).unwrap())).collect()
}
fn read(log: &std::path::Path) -> BTreeSet<String> {
    std::fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
}

async fn at_every_point(folder: impl Fn() -> Folder, time: Time, drive: impl AsyncFn(&mut Door)) {
    let points = points(folder(), time, &drive).await;
    assert!(points.iter().any(|p| p.starts_with("run.finished")), "{points:?}");
    let (mut died, all) = (0, points.len());
    for point in points {
        println!("{point}");
        let mut door = Door::open(folder(), &[("PLEACH_CRASH_AT", &point)]);
        drive(&mut door).await;
        died += usize::from(door.died);
    }
    assert!(died * 10 >= all * 7, "{died} of {all} died");
}

#[tokio::test]
async fn a_key_is_one_run_and_its_endpoint_hears_of_it() {
    let hook = Upstream::start(|_| Act::Status(204, Value::Null));
    let url = format!("{}/hook", hook.base);
    let told = std::sync::Mutex::new(0);
    let drive = async |door: &mut Door| {
        let wanted = json!({ "agent": "asker", "prompt": "go",
            "webhook": { "url": url, "secret": "0123456789abcdef0123" } });
        let (status, begun) =
            door.again_and_again(async |served| send(served, "/v1/runs", Some("k"), &wanted).await).await;
        assert_eq!(status, 202, "{begun}");
        let run = begun["run"].as_str().unwrap().to_owned();
        let question = door
            .again_and_again(async |served| {
                let now = waits(served, &run, "waiting").await;
                now["questions"][0]["id"].as_str().unwrap().to_owned()
            })
            .await;
        let answer = json!({ "input": "red" });
        let at = format!("/v1/approvals/{question}");
        let (status, said) = door.again_and_again(async |served| send(served, &at, None, &answer).await).await;
        // Sent again, it was answered by the one before.
        assert!(status == 200 || (door.died && status == 409), "{status} {said}");
        let done = door.again_and_again(async |served| waits(served, &run, "completed").await).await;
        assert_eq!(done["text"], "heard: red");
        let list = door
            .again_and_again(async |served| {
                let answer = send_get(served, "/v1/runs").await;
                answer["runs"].as_array().unwrap().len()
            })
            .await;
        assert_eq!(list, 1, "one key, one run");
        // Each thing is told at least once, and under one name.
        door.again_and_again(async |_| {
            loop {
                let seen = hook.came_to("/hook");
                let names: BTreeSet<(String, String)> = seen
                    .iter()
                    .filter(|s| s.body["run"] == run.as_str())
                    .map(|s| (s.body["type"].to_string(), s.header("pleach-delivery").to_owned()))
                    .collect();
                let kinds: BTreeSet<&str> = names.iter().map(|(kind, _)| kind.as_str()).collect();
                assert_eq!(kinds.len(), names.len(), "told under two names: {names:?}");
                if kinds.len() == 2 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        *told.lock().unwrap() += 1;
    };
    let limit = Duration::from_secs(280);
    let loopback = || folder_with("networks = { allow = [\"127.0.0.0/8\"] }");
    tokio::time::timeout(limit, at_every_point(loopback, Time::Last, drive)).await.expect("something hangs");
    assert!(*told.lock().unwrap() > 10);
}

/// A message has no key: whoever got no answer looks whether it was heard.
#[tokio::test]
async fn an_acknowledged_message_is_heard() {
    let drive = async |door: &mut Door| {
        let wanted = json!({ "agent": "quick", "prompt": "go" });
        let (_, begun) = door.again_and_again(async |served| send(served, "/v1/runs", Some("k"), &wanted).await).await;
        let run = begun["run"].as_str().unwrap().to_owned();
        door.again_and_again(async |served| waits(served, &run, "completed").await).await;
        let at = format!("/v1/runs/{run}/messages");
        let more = json!({ "text": "more" });
        let mut sent = 0;
        let (status, said) = door
            .again_and_again(async |served| {
                sent += 1;
                if sent > 1 && heard(served, &run).await {
                    return (202, Value::Null);
                }
                send(served, &at, None, &more).await
            })
            .await;
        assert_eq!(status, 202, "{said}");
        door.again_and_again(async |served| {
            while waits(served, &run, "completed").await["text"] != "again" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    let limit = Duration::from_secs(280);
    tokio::time::timeout(limit, at_every_point(|| folder_with(""), Time::First, drive)).await.expect("something hangs");
}

/// Whether the message is with the run, or the run is past it.
async fn heard(served: &Served, run: &str) -> bool {
    // It has until its run is taken up again, which is at the start.
    let until = tokio::time::Instant::now() + Duration::from_secs(2);
    while tokio::time::Instant::now() < until {
        let now = send_get(served, &format!("/v1/runs/{run}")).await;
        if now["text"] == "again" || now["state"] != "completed" {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

async fn waits(served: &Served, run: &str, state: &str) -> Value {
    loop {
        let now = send_get(served, &format!("/v1/runs/{run}")).await;
        if now["state"] == state {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
async fn send_get(served: &Served, path: &str) -> Value {
    answered(Served::client().get(format!("{}{path}", served.base)).header(ALICE.0, ALICE.1)).await.1
}
