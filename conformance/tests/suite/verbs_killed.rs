//! What a person or a client does to runs, by a process that dies while it does it: at every
//! point of the journal it passes, it happened whole or not at all, doing it again is right, and
//! the run comes to the same end.

use conformance::pleach::{Folder, Ran};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Stdio;

const POLICY: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[gateway]
default_agent = "lead"
[agents.lead]
prompt = "Lead."
subagents = ["kid"]
[agents.kid]
prompt = "Ask."
"#;

const REPLIES: &str = r#"
[[reply]]
agent = "lead"
text = "I send one."
[[reply.tool]]
name = "Agent"
input = { description = "d", prompt = "ask", subagent_type = "kid" }
[[reply]]
agent = "lead"
text = "led: {{result}}"
[[reply]]
agent = "kid"
text = "I ask."
[[reply.tool]]
name = "ask_user"
input = { question = "Which?", options = ["red", "blue"] }
[[reply]]
agent = "kid"
text = "heard {{result}}"
"#;

const ANSWER: &str = "led: heard red\n";

/// A tree of two that waits for a person.
struct Scene {
    folder: Folder,
    root: String,
    question: String,
}

impl Scene {
    fn new() -> Self {
        let folder = Folder::new(POLICY);
        folder.write("replies.toml", REPLIES);
        let ran = folder.run(&["run", "Go."]);
        assert_eq!(ran.code, 5, "{ran:?}");
        let mut scene = Self { folder, root: String::new(), question: String::new() };
        let runs = scene.rows(&["runs", "--json"]);
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        scene.root = text(&runs.iter().find(|r| r["depth"] == 0).unwrap()["run"]);
        scene.question = text(&scene.rows(&["answer", "--json"])[0]["id"]);
        scene
    }
    fn rows(&self, args: &[&str]) -> Vec<Value> {
        let ran = self.folder.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
    fn roots(&self) -> Vec<Value> {
        let all = self.rows(&["runs", "--json"]).into_iter();
        all.filter(|r| r["depth"] == 0).collect()
    }
    fn run(&self, args: &[&str]) -> Ran {
        self.folder.run(args)
    }
    /// Answers, and lets it go on to its end.
    fn ends_as_ever(&self, point: &str) {
        let answered = self.run(&["answer", &self.question, "--input", "red"]);
        assert_eq!((answered.code, answered.out.as_str()), (0, ANSWER), "{point}: {answered:?}");
    }
}

/// Lets the process that does it die at each point it passes, each in a scene of its own, and
/// judges what is left. Gives the number of deaths.
fn at_every_point(prepared: impl Fn() -> Scene, verb: impl Fn(&Scene) -> Vec<String>, judge: impl Fn(&Scene, &str)) {
    let scene = prepared();
    let mut command = scene.folder.command(&[]);
    let log = scene.folder.join("points");
    command.args(verb(&scene)).env("PLEACH_CRASH_LOG", &log).stdin(Stdio::null());
    let ran = Ran::of(command.output().unwrap());
    assert_eq!(ran.code, 0, "undisturbed: {ran:?}");
    judge(&scene, "undisturbed");
    let points: BTreeSet<String> = std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect();
    assert!(points.iter().any(|p| p.starts_with("commit.within")), "it writes: {points:?}");
    let (mut died, all) = (0, points.len());
    for point in points {
        let scene = prepared();
        let mut command = scene.folder.command(&[]);
        command.args(verb(&scene)).env("PLEACH_CRASH_AT", &point).stdin(Stdio::null());
        let ended = command.output().unwrap();
        // Writes are put together as they come: now and then there is one fewer.
        died += usize::from(ended.status.code().is_none());
        judge(&scene, &point);
    }
    assert!(died * 10 >= all * 7, "{died} of {all} died");
}

#[test]
fn a_pause_holds_whole_or_not_at_all() {
    at_every_point(
        Scene::new,
        |scene| vec!["pause".into(), scene.root.clone()],
        |scene, point| {
            let again = scene.run(&["pause", &scene.root]);
            assert!(again.code == 0 || again.err.contains("paused"), "{point}: {again:?}");
            let answered = scene.run(&["answer", &scene.question, "--input", "red", "--no-wait"]);
            assert_eq!(answered.code, 0, "{point}: {answered:?}");
            assert_eq!(scene.roots()[0]["ended"], Value::Null, "{point}: it went on while it was paused");
            let on = scene.run(&["unpause", &scene.root]);
            assert_eq!((on.code, on.out.as_str()), (0, ANSWER), "{point}: {on:?}");
        },
    );
}

#[test]
fn an_unpause_holds_whole_or_not_at_all() {
    let paused = || {
        let scene = Scene::new();
        assert_eq!(scene.run(&["pause", &scene.root]).code, 0);
        scene
    };
    at_every_point(
        paused,
        |scene| vec!["unpause".into(), scene.root.clone(), "--no-wait".into()],
        |scene, point| {
            let again = scene.run(&["unpause", &scene.root, "--no-wait"]);
            assert!(again.code == 0 || again.err.contains("not paused"), "{point}: {again:?}");
            scene.ends_as_ever(point);
        },
    );
}

#[test]
fn a_cancel_ends_the_tree_or_leaves_it() {
    at_every_point(
        Scene::new,
        |scene| vec!["cancel".into(), scene.root.clone()],
        |scene, point| {
            let again = scene.run(&["cancel", &scene.root]);
            assert!(again.code == 0 || again.err.contains("cancelled"), "{point}: {again:?}");
            let states: Vec<Value> = scene.rows(&["runs", "--json"]).iter().map(|r| r["state"].clone()).collect();
            assert_eq!(states, ["cancelled", "cancelled"], "{point}");
            let late = scene.run(&["answer", &scene.question, "--input", "red"]);
            assert_ne!(late.code, 0, "{point}: {late:?}");
        },
    );
}

#[test]
fn a_fork_is_whole_or_is_not() {
    at_every_point(
        Scene::new,
        |scene| vec!["fork".into(), scene.root.clone(), "--at".into(), "2".into()],
        |scene, point| {
            let again = scene.run(&["fork", &scene.root, "--at", "2"]);
            assert_eq!(again.code, 0, "{point}: {again:?}");
            scene.ends_as_ever(point);
            let forks: Vec<Value> = scene.roots().into_iter().filter(|r| r["run"] != scene.root.as_str()).collect();
            assert!((1..=2).contains(&forks.len()), "{point}: {forks:?}");
            for fork in forks {
                let id = fork["run"].as_str().unwrap();
                let on = scene.run(&["resume", id]);
                assert_eq!(on.code, 5, "{point}: a fork has its own child, which asks anew: {on:?}");
            }
        },
    );
}

#[test]
fn an_answer_is_heard_once_and_by_itself() {
    at_every_point(
        Scene::new,
        |scene| vec!["answer".into(), scene.question.clone(), "--input".into(), "red".into(), "--no-wait".into()],
        |scene, point| {
            let again = scene.run(&["answer", &scene.question, "--input", "blue", "--no-wait"]);
            let heard = if again.code == 0 { "led: heard blue\n" } else { ANSWER };
            assert!(again.code == 0 || again.err.contains("answered by local already"), "{point}: {again:?}");
            let on = scene.run(&["resume", &scene.root]);
            assert_eq!((on.code, on.out.as_str()), (0, heard), "{point}: {on:?}");
        },
    );
}
