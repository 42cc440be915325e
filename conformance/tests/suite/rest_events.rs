//! Events over REST: all of them, in order, each once, wherever a stream breaks.

use crate::rest::{ALICE, folder, start, until};
use conformance::served::Served;
use serde_json::Value;

/// The events of a stream with their ids; pieces of replies have none.
fn events(heard: &str) -> Vec<(Option<u64>, Value)> {
    let blocks = heard.split("\n\n").filter(|b| b.contains("data: "));
    let read = blocks.map(|block| {
        let field = |name: &str| block.lines().find_map(|l| l.strip_prefix(name));
        let id = field("id: ").map(|id| id.parse().unwrap());
        (id, serde_json::from_str(field("data: ").unwrap()).unwrap())
    });
    read.collect()
}
fn numbered(heard: &str) -> Vec<(u64, Value)> {
    events(heard).into_iter().filter_map(|(id, event)| Some((id?, event))).collect()
}

#[tokio::test]
async fn a_stream_tells_the_whole_tree_live_and_ends() {
    let folder = folder();
    let served = Served::start(&folder);
    let run = start(&served, ALICE, "lead").await;
    let path = format!("/v1/runs/{run}/events");
    let (mut one, mut two) = (served.follow(&path, &[ALICE]).await, served.follow(&path, &[ALICE]).await);
    assert_eq!(one.status(), 200);
    one.end().await;
    two.end().await;
    let all = numbered(&one.heard);
    assert_eq!(all, numbered(&two.heard), "each watcher hears the same");
    assert_eq!(all.iter().map(|(id, _)| *id).collect::<Vec<_>>(), (1..=all.len() as u64).collect::<Vec<_>>());
    let last = &all.last().unwrap().1;
    assert_eq!((&last["type"], last["run"].as_str()), (&"run.finished".into(), Some(run.as_str())));
    assert_eq!(all.iter().filter(|(_, e)| e["type"] == "run.started").count(), 2, "the child too");
    assert!(events(&one.heard).iter().any(|(id, e)| id.is_none() && e["type"] == "model.delta"), "{}", one.heard);
    assert!(!one.heard.contains("\"system\"") && !one.heard.contains("pleach.toml"), "{}", one.heard);
    // What was told live is what is told afterwards.
    let mut later = served.follow(&path, &[ALICE]).await;
    later.end().await;
    assert_eq!(numbered(&later.heard), all);
    // The same as on the command line.
    for run in all.iter().filter(|(_, e)| e["type"] == "run.started").map(|(_, e)| e["run"].as_str().unwrap()) {
        let shown = folder.run(&["show", run, "--json"]);
        assert_eq!(shown.out.lines().count(), all.iter().filter(|(_, e)| e["run"] == run).count(), "{}", shown.err);
    }
}

#[tokio::test]
async fn a_broken_stream_is_taken_up_where_it_broke() {
    let folder = folder();
    let served = Served::start(&folder);
    let run = start(&served, ALICE, "lead").await;
    let path = format!("/v1/runs/{run}/events");
    let mut told: Vec<(u64, Value)> = Vec::new();
    // It breaks after each event that was heard.
    loop {
        let last = told.last().map_or(0, |(id, _)| *id).to_string();
        let mut stream = served.follow(&path, &[ALICE, ("last-event-id", &last)]).await;
        if stream.status() == 204 {
            break;
        }
        assert_eq!(stream.status(), 200);
        stream.until("id: ").await;
        stream.until("\n\n").await;
        // What came whole was heard, the rest was lost with the stream.
        let whole = stream.heard.rfind("\n\n").map_or("", |end| &stream.heard[..end]);
        told.extend(numbered(whole).into_iter().take(1));
    }
    let mut all = served.follow(&path, &[ALICE]).await;
    all.end().await;
    assert_eq!(told, numbered(&all.heard), "nothing lost, nothing twice");
    let beyond = served.get(&path, &[ALICE, ("last-event-id", "9999")]).await;
    assert_eq!(beyond.status, 422, "{beyond:?}");
    assert_eq!(served.get(&path, &[ALICE, ("last-event-id", "x")]).await.status, 422);
}

#[tokio::test]
async fn a_child_has_a_stream_of_its_own_and_a_restart_breaks_none() {
    let folder = folder();
    let served = Served::start(&folder);
    let run = start(&served, ALICE, "lead").await;
    until(&served, ALICE, &run, "completed").await;
    let child = served.get(&format!("/v1/runs?parent={run}"), &[ALICE]).await.json()["runs"][0]["run"].clone();
    let path = format!("/v1/runs/{}/events", child.as_str().unwrap());
    let mut stream = served.follow(&path, &[ALICE]).await;
    stream.end().await;
    let of_child = numbered(&stream.heard);
    assert!(of_child.iter().all(|(_, e)| e["run"] == child), "{}", stream.heard);
    let third = of_child[2].0.to_string();
    served.end();
    let served = Served::start(&folder);
    let mut rest = served.follow(&path, &[ALICE, ("last-event-id", &third)]).await;
    rest.end().await;
    assert_eq!(numbered(&rest.heard), of_child[3..]);
}

/// A tree that another process works on is followed too.
#[tokio::test]
async fn a_run_goes_on_elsewhere_and_is_followed_here() {
    let folder = folder();
    let served = Served::start(&folder);
    let run = start(&served, ALICE, "asker").await;
    let waiting = until(&served, ALICE, &run, "waiting").await;
    let question = waiting["questions"][0]["id"].as_str().unwrap().to_owned();
    let mut stream = served.follow(&format!("/v1/runs/{run}/events"), &[ALICE]).await;
    stream.until("run.waiting").await;
    let ran = tokio::task::spawn_blocking(move || {
        let ran = folder.run(&["answer", &question, "--input", "red"]);
        (ran, folder)
    });
    let (ran, _folder) = ran.await.unwrap();
    assert_eq!(ran.code, 0, "{}", ran.err);
    stream.end().await;
    let all = numbered(&stream.heard);
    assert!(all.last().unwrap().1["text"].as_str().unwrap().contains("heard: red"), "{}", stream.heard);
    assert_eq!(all.iter().map(|(id, _)| *id).collect::<Vec<_>>(), (1..=all.len() as u64).collect::<Vec<_>>());
}
