//! One trial: a run is begun, dies as planned, is gone on with, perhaps dies again, until it ends.
//!
//! ```text
//!   run ─▶ killed ─▶ resume ─▶ killed ─▶ resume … ─▶ ended
//!            │ nothing was written      ▲   │ a person is asked
//!            └─▶ run again              └ answer
//! ```

use super::double::Book;
use super::scene::Scene;
use super::stage::{Death, Ended, Stage};
use super::tools::Made;
use serde_json::Value;

/// Steps of one trial; one that takes more never ends.
const STEPS: usize = 60;

/// Who goes on with what a dead process left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A person, with `pleach resume`.
    Resume,
    /// A `pleach serve`, by itself.
    Serve,
}

/// What is to happen.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) scene: Scene,
    /// How the first process dies, the second, and so on.
    pub(super) deaths: Vec<Death>,
    pub(super) way: Way,
}

/// What happened.
#[derive(Clone)]
pub(super) struct Played {
    pub(super) plan: Plan,
    pub(super) root: String,
    /// The deaths that came to pass.
    pub(super) died: Vec<Death>,
    pub(super) book: Book,
    pub(super) made: Vec<Made>,
}

/// What comes next.
enum Next {
    Begin,
    GoOn(String),
    Answer(String),
}

/// Plays a plan to the end of its tree. `log` is a file for the points that are passed.
pub(super) fn play(stage: &mut Stage, plan: Plan, log: Option<&str>) -> Result<Played, String> {
    stage.begin()?;
    // One that did not come is still to come, in the next process.
    let mut deaths = plan.deaths.iter().peekable();
    let (mut died, mut next) = (Vec::new(), Next::Begin);
    for _ in 0..STEPS {
        let death = deaths.peek().copied();
        let (root, ended) = step(stage, &plan, next, death, log)?;
        match ended {
            Ended::Killed => {
                died.extend(deaths.next().cloned());
                let root = match root {
                    Some(root) => Some(root),
                    None => stage.newcomer()?,
                };
                next = root.map_or(Next::Begin, Next::GoOn);
            }
            Ended::Exit(0) => {
                let root = root.ok_or("it ended well and named no run")?;
                stage.learn(&root);
                return Ok(Played { plan, root, died, book: stage.double.book(), made: stage.made() });
            }
            Ended::Exit(5) if plan.scene.asks() => next = Next::Answer(root.ok_or("it waits and named no run")?),
            Ended::Exit(code) => return Err(format!("it ended with code {code}")),
        }
    }
    Err(format!("it has not ended after {STEPS} steps"))
}

fn step(
    stage: &Stage,
    plan: &Plan,
    next: Next,
    death: Option<&Death>,
    log: Option<&str>,
) -> Result<(Option<String>, Ended), String> {
    match next {
        Next::Begin => {
            let mut root = None;
            let ended = stage.play(&["run", "--json", plan.scene.prompt()], death, log, |event| {
                if event["type"] == "run.started" && event["parent"].is_null() {
                    root = event["run"].as_str().map(str::to_owned);
                }
            })?;
            Ok((root, ended))
        }
        Next::GoOn(root) => {
            let ended = match plan.way {
                Way::Serve if !plan.scene.asks() => stage.serve(&root, death)?,
                _ => stage.play(&["resume", &root, "--json"], death, log, |_| {})?,
            };
            Ok((Some(root), ended))
        }
        Next::Answer(root) => {
            let open = stage.questions(&root)?;
            let ended = match open.first() {
                None => stage.play(&["resume", &root, "--json"], death, log, |_: &Value| {})?,
                Some((id, kind)) if kind == "approval" => {
                    stage.play(&["answer", id, "allow", "--json"], death, log, |_| {})?
                }
                Some((id, _)) => stage.play(&["answer", id, "--input", "red", "--json"], death, log, |_| {})?,
            };
            Ok((Some(root), ended))
        }
    }
}
