//! How long things take to start.

use crate::{percentile, times};
use conformance::pleach::Folder;
use conformance::served::Served;
use std::process::Command;

/// The sandbox's own cost: `pleach exec -- true` against plain `true` and against a pleach that
/// does everything but the sandbox (`off`).
pub(crate) fn starts() {
    let policy = |profile: &str| {
        format!(
            "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy.sandbox]\nprofile = \"{profile}\"\n[agents.a]\nprompt = \"\"\n"
        )
    };
    let (full, off) = (Folder::new(&policy("full")), Folder::new(&policy("off")));
    let run = |folder: &Folder| assert!(folder.command(&["exec", "--", "true"]).status().unwrap().success());
    let mut bare = times(200, || assert!(Command::new("true").status().unwrap().success()));
    let mut with = times(200, || run(&full));
    let mut without = times(200, || run(&off));
    for (name, times) in
        [("bare `true`", &mut bare), ("exec, profile off", &mut without), ("exec, profile full", &mut with)]
    {
        println!("start {name}: p50 {:.2} ms, p99 {:.2} ms", percentile(times, 0.5), percentile(times, 0.99));
    }
    println!("sandboxed over unsandboxed: p50 +{:.2} ms", percentile(&mut with, 0.5) - percentile(&mut without, 0.5));
}

/// From the start of `pleach serve` with ten servers to the line that says it listens.
pub(crate) fn ready() {
    let servers: String = (0..10).map(|i| format!("[servers.s{i}]\ncommand = \"sleep\"\nargs = [\"60\"]\n")).collect();
    let folder = Folder::new(&format!("version = 1\n{servers}"));
    let mut all = times(30, || drop(Served::start(&folder)));
    println!(
        "serve with ten lazy servers to listening: p50 {:.1} ms, p99 {:.1} ms",
        percentile(&mut all, 0.5),
        percentile(&mut all, 0.99)
    );
}
