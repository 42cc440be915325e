//! `GET /metrics`: what Prometheus reads. Runs are counted in the store, everything else by what
//! this process saw since it began.

use super::Door;
use super::request::{Answered, Call};
use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use subagents::event::{Event, Outcome, Seen};
use tokio::sync::broadcast::error::RecvError;

/// What was seen.
#[derive(Default)]
pub(super) struct Counts {
    model_calls: AtomicU64,
    allowed: AtomicU64,
    asked: AtomicU64,
    denied: AtomicU64,
    unknown: AtomicU64,
    missed: AtomicU64,
}

/// Begins to count; ends with the servers.
pub(super) fn start(door: &Door) {
    let (door, stop) = (door.clone(), door.0.stop.clone());
    door.0.tasks.clone().spawn(async move {
        let _ = stop.run_until_cancelled(count(&door)).await;
    });
}

async fn count(door: &Door) {
    let mut seen = door.0.host.watch();
    let counts = &door.0.counts;
    loop {
        let counter = match seen.recv().await {
            Ok(Seen::Record(record)) => match &record.event {
                Event::ModelReplied { .. } => &counts.model_calls,
                Event::ToolDecided { verdict, .. } if verdict == "allow" => &counts.allowed,
                Event::ToolDecided { verdict, .. } if verdict == "ask" => &counts.asked,
                Event::ToolDecided { .. } => &counts.denied,
                Event::ToolFinished { outcome: Outcome::Unknown, .. } => &counts.unknown,
                _ => continue,
            },
            Ok(Seen::Delta { .. }) => continue,
            Err(RecvError::Lagged(n)) => {
                counts.missed.fetch_add(n, Ordering::Relaxed);
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// `GET /metrics`
pub(super) async fn get(call: Call) -> Answered {
    let door = &call.door.0;
    let mut out = String::new();
    head(&mut out, "pleach_runs", "gauge", "Runs in the store, by state.");
    for (state, n) in door.store.states().await? {
        let _ = writeln!(out, "pleach_runs{{state=\"{state}\"}} {n}");
    }
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counts = &door.counts;
    head(&mut out, "pleach_tool_decisions_total", "counter", "Tool calls of runs, by verdict.");
    for (verdict, counter) in [("allow", &counts.allowed), ("ask", &counts.asked), ("deny", &counts.denied)] {
        let _ = writeln!(out, "pleach_tool_decisions_total{{verdict=\"{verdict}\"}} {}", read(counter));
    }
    let plain = [
        ("pleach_model_calls_total", "counter", "Replies of models.", read(&counts.model_calls)),
        ("pleach_unknown_outcomes_total", "counter", "Tool calls nobody knows the outcome of.", read(&counts.unknown)),
        ("pleach_events_missed_total", "counter", "Events too fast to be counted here.", read(&counts.missed)),
        ("pleach_rest_working", "gauge", "Trees begun or gone on with over REST.", door.working.len() as u64),
        ("pleach_rest_streams", "gauge", "Streams of events that stand.", door.watching.len() as u64),
    ];
    let policy = &door.live.counts;
    let plain = plain.into_iter().chain([
        ("pleach_policy_changes_total", "counter", "Changes of the policy file that were taken.", read(&policy.taken)),
        ("pleach_policy_refused_total", "counter", "Changes of it that do not hold.", read(&policy.refused)),
        (
            "pleach_policy_behind",
            "gauge",
            "1 while the file holds something else than what is in force.",
            u64::from(policy.behind.load(Ordering::Relaxed)),
        ),
    ]);
    for (name, kind, help, value) in plain {
        head(&mut out, name, kind, help);
        let _ = writeln!(out, "{name} {value}");
    }
    let audit = &door.guard.servers.audit;
    head(
        &mut out,
        "pleach_audit_broken",
        "gauge",
        "Whether decisions cannot be put on record; nothing is let through then.",
    );
    let _ = writeln!(out, "pleach_audit_broken {}", u8::from(audit.trouble().is_some()));
    if let Some(last) = audit.head() {
        head(&mut out, "pleach_audit_head", "gauge", "The number of the last record, with its hash.");
        let _ = writeln!(out, "pleach_audit_head{{hash=\"{}\"}} {}", last.hash, last.seq);
    }
    let mut response = Response::new(Body::from(out));
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    Ok(response)
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}
