//! Journals of the first version (as of 0be2db3) still read.

use crate::world::*;
use std::sync::Arc;
use subagents::event::{Event, Record};
use subagents::host::{HostError, Then};
use subagents::ports::RunRow;
use subagents::run::{RunId, State};
use tokio_util::sync::CancellationToken;

/// One event a line, as that version wrote them: a run that ended, and one that died.
const OLD: &str = include_str!("old.jsonl");

fn records() -> Vec<Record> {
    let lines = OLD.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
            let object = value.as_object_mut().unwrap();
            let run = RunId::known(object.remove("run").unwrap().as_str().unwrap());
            let seq = object.remove("seq").unwrap().as_u64().unwrap();
            let at = object.remove("at").unwrap().as_u64().unwrap();
            Record { run, seq, at, event: serde_json::from_value::<Event>(value).unwrap() }
        })
        .collect()
}

/// A disk with these on it.
fn disk() -> Arc<World> {
    let world = World::new(policy(TOOLS), Script::new());
    for record in records() {
        let mut disk = world.disk();
        let entry = disk.runs.entry(record.run.clone()).or_insert_with(|| {
            let Event::Started(started) = &record.event else { panic!("the first event is the start") };
            let row = RunRow {
                run: record.run.clone(),
                parent: started.parent.as_deref().map(RunId::known),
                root: RunId::known(&started.root),
                depth: started.depth,
                agent: started.agent.clone(),
                principal: started.principal.clone(),
                door: None,
                state: String::new(),
                waiting: None,
                turns: 0,
                tool_calls: 0,
                tokens: 0,
                usd: None,
                started: record.at,
                ended: None,
            };
            (row, Vec::new(), subagents::turn::State::default())
        });
        subagents::turn::on(&mut entry.2, &record.event);
        entry.0.state = entry.2.phase().as_str().to_owned();
        entry.1.push(record);
    }
    Arc::new(world)
}

#[test]
fn every_event_of_the_first_version_reads_and_folds() {
    let world = disk();
    let disk = world.disk();
    let (_, _, ended) = &disk.runs[&RunId::known("r-old")];
    assert_eq!((ended.phase(), ended.text.as_str()), (State::Completed, "b said: found"));
    assert_eq!((ended.turns, ended.tool_calls, ended.usage.total()), (2, 3, 1_080));
    assert_eq!(ended.messages.len(), 4);
    let (_, _, died) = &disk.runs[&RunId::known("r-died")];
    assert_eq!(died.phase(), State::Acting);
    let (_, _, waits) = &disk.runs[&RunId::known("r-waits")];
    assert_eq!(waits.phase(), State::Waiting);
}

#[test]
fn a_tree_of_the_first_version_is_shown_and_refuses_to_go_on_in_words() {
    let world = disk();
    block(async {
        let host = world.host();
        let ended = host.ended(&RunId::known("r-old")).await.unwrap();
        assert_eq!((ended.state, ended.text.as_str()), (State::Completed, "b said: found"));
        let died = RunId::known("r-died");
        assert!(host.ended(&died).await.is_ok());
        let refused = |error: HostError| {
            assert!(matches!(error, HostError::Refused(_)), "{error:?}");
            assert!(error.to_string().contains("made by a version that could not go on"), "{error}");
        };
        refused(host.resume(&died, CancellationToken::new()).await.unwrap_err());
        refused(host.send(&RunId::known("r-old"), "ann", "and?".into(), Then::Drive).await.unwrap_err());
        refused(host.fork(&RunId::known("r-old"), 3).await.unwrap_err());
        // Nobody holds it afterwards.
        refused(host.resume(&died, CancellationToken::new()).await.unwrap_err());
        assert_eq!(host.in_hand().trees, 0);
    });
}
