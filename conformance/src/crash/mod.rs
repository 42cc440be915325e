//! SIGKILL at every edge of the journal and of the dispatch of effects, of the real `pleach`.
//!
//! ```text
//!   undisturbed ─▶ the points it passes, and what it comes to: the oracle
//!        │
//!        ├─ each point, each occurrence ─┐
//!        ├─ by the world: asked, done ───┼─▶ dies ─▶ gone on with, perhaps dies again ─▶ ends
//!        └─ at random times, seeded ─────┘              │
//!                                  the world's book, the journal, the list ─▶ check
//! ```
//!
//! The points are the program's own (`adapters/src/crash.rs`, in builds with debug assertions).
//! So that nothing depends on them, the model and the tools (`double`) kill at the moments they
//! know, and a clock at moments nobody knows.

mod chance;
mod check;
mod double;
mod scene;
mod stage;
mod tamper;
mod tools;
mod trial;
mod victim;

pub use tools::serve as ledger;

use chance::Chance;
use check::{Found, Sum};
use double::Moment;
use scene::Scene;
use stage::{Death, Stage};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, Runtime};
use trial::{Plan, Played, Way};

/// Trials side by side.
const WORKERS: usize = 2;
/// Trials of a stage that are looked at together.
const BATCH: usize = 24;
/// Failures after which nothing more is tried.
const ENOUGH: usize = 5;
/// What `PLEACH_CRASH_SEED` is unless it is set.
const SEED: u64 = 20_261_127;

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Each point once, and a little chance.
    Each,
    /// Each occurrence of each point, then chance until so many have died.
    Kills(u64),
}

/// A scene undisturbed.
struct Oracle {
    sums: Vec<Sum>,
    /// The points it passes, `NAME/N`.
    points: Vec<String>,
    takes: Duration,
}

/// What all workers share.
struct Shared {
    queue: Mutex<VecDeque<Plan>>,
    chance: Mutex<(Chance, u64)>,
    oracles: BTreeMap<Scene, Oracle>,
    tally: Mutex<Tally>,
    goal: u64,
}

#[derive(Default)]
struct Tally {
    trials: u64,
    kills: u64,
    /// While a killed run was gone on with.
    again: u64,
    at: BTreeMap<&'static str, u64>,
    /// The points at which something died, with the scene.
    edges: BTreeSet<(Scene, String)>,
    planned: BTreeSet<(Scene, String)>,
    duplicates: u64,
    found: Found,
    failures: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills and looks.
///
/// # Errors
/// What did not hold, with the deaths that led to it.
pub fn run(extent: Extent) -> Result<(), String> {
    let seed = std::env::var("PLEACH_CRASH_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(SEED);
    let began = Instant::now();
    let runtime = Runtime::new().map_err(|e| e.to_string())?;
    let oracles = oracles(runtime.handle())?;
    let (queue, random) = plans(&oracles, extent);
    let planned = queue.iter().filter_map(edge).collect();
    let shared = Shared {
        queue: Mutex::new(queue),
        chance: Mutex::new((Chance::new(seed), random)),
        oracles,
        tally: Mutex::new(Tally { planned, ..Tally::default() }),
        goal: match extent {
            Extent::Each => 0,
            Extent::Kills(goal) => goal,
        },
    };
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| work(&shared, runtime.handle()));
        }
    });
    let tally = shared.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    tell(&tally, seed, began.elapsed());
    match &tally.failures[..] {
        [] if tally.kills < shared.goal => Err(format!("only {} died of {}", tally.kills, shared.goal)),
        [] => Ok(()),
        failures => Err(failures.join("\n\n")),
    }
}

/// What each scene comes to when nobody dies.
fn oracles(runtime: &Handle) -> Result<BTreeMap<Scene, Oracle>, String> {
    let mut out = BTreeMap::new();
    for scene in Scene::ALL {
        let mut stage = Stage::new(scene, runtime)?;
        let plan = Plan { scene, deaths: Vec::new(), way: Way::Resume };
        let began = Instant::now();
        let played = trial::play(&mut stage, plan, Some("points"));
        let played = played.map_err(|why| format!("{}, undisturbed: {why}\n{}", scene.name(), stage.complaints()))?;
        let takes = began.elapsed();
        let text = stage.folder.read("points").unwrap_or_default();
        let points: BTreeSet<String> = text.lines().map(str::to_owned).collect();
        let points = Vec::from_iter(points);
        if points.is_empty() {
            return Err("this pleach passes no points: it must be built with debug assertions".into());
        }
        let events = stage.events(std::slice::from_ref(&played.root))?;
        let rows = stage.lines(&["runs", "--json"])?;
        let found = check::examine(&played, &events[0], &rows, None);
        let why = |why: String| format!("{}, undisturbed: {why}\n{}", scene.name(), stage.complaints());
        let sums = found.map_err(why)?.sums;
        tamper::each(&played, &events[0], &rows).map_err(|why| format!("{}: {why}", scene.name()))?;
        let runs = sums.len();
        println!("   {}: {runs} runs, {} points, {} ms", scene.name(), points.len(), takes.as_millis());
        out.insert(scene, Oracle { sums, points, takes });
    }
    Ok(out)
}

/// What is tried for certain, and how often chance is.
fn plans(oracles: &BTreeMap<Scene, Oracle>, extent: Extent) -> (VecDeque<Plan>, u64) {
    let mut queue = VecDeque::new();
    let ways = [Way::Resume, Way::Serve];
    for (scene, oracle) in oracles {
        let mut points = oracle.points.clone();
        if extent == Extent::Each {
            points = once_each(&points);
        }
        let mut deaths: Vec<Death> = points.into_iter().map(Death::At).collect();
        let calls = u32::try_from(oracle.sums.iter().map(Sum::steps).sum::<u64>()).unwrap_or(1);
        let nths = if extent == Extent::Each { 2..=2 } else { 1..=calls };
        deaths.extend(nths.flat_map(|n| Moment::ALL.map(|moment| Death::By(moment, n))));
        for (i, death) in deaths.into_iter().enumerate() {
            // One in four is gone on with by a server.
            let way = ways[usize::from(i % 4 == 3)];
            queue.push_back(Plan { scene: *scene, deaths: vec![death], way });
        }
    }
    match extent {
        Extent::Each => (queue, 30),
        Extent::Kills(_) => (queue, u64::MAX),
    }
}

/// Of each point the occurrence in the middle.
fn once_each(points: &[String]) -> Vec<String> {
    let mut count: BTreeMap<&str, u32> = BTreeMap::new();
    for name in points.iter().filter_map(|point| point.rsplit_once('/')).map(|(name, _)| name) {
        *count.entry(name).or_default() += 1;
    }
    count.into_iter().map(|(name, n)| format!("{name}/{}", n.div_ceil(2))).collect()
}

fn edge(plan: &Plan) -> Option<(Scene, String)> {
    match plan.deaths.first() {
        Some(Death::At(point)) => Some((plan.scene, point.clone())),
        _ => None,
    }
}

fn next(shared: &Shared) -> Option<Plan> {
    {
        let tally = lock(&shared.tally);
        if tally.failures.len() >= ENOUGH {
            return None;
        }
        if let Some(plan) = lock(&shared.queue).pop_front() {
            return Some(plan);
        }
        if shared.goal > 0 && tally.kills >= shared.goal {
            return None;
        }
    }
    let mut chance = lock(&shared.chance);
    chance.1 = chance.1.checked_sub(1)?;
    let of = |scene: Scene| shared.oracles.get(&scene).map(|o| (o.points.clone(), o.takes)).unwrap_or_default();
    Some(chance.0.plan(&of))
}

/// A stage with the trials on it that were not looked at yet.
struct OnStage {
    stage: Stage,
    trials: Vec<Played>,
    /// It is kept, for whoever looks into what did not hold.
    spoilt: bool,
}

fn work(shared: &Shared, runtime: &Handle) {
    let mut stages: BTreeMap<bool, OnStage> = BTreeMap::new();
    while let Some(plan) = next(shared) {
        let process = plan.scene == Scene::Process;
        if let std::collections::btree_map::Entry::Vacant(slot) = stages.entry(process) {
            match Stage::new(plan.scene, runtime) {
                Ok(stage) => drop(slot.insert(OnStage { stage, trials: Vec::new(), spoilt: false })),
                Err(why) => return lock(&shared.tally).failures.push(why),
            }
        }
        let Some(on) = stages.get_mut(&process) else { return };
        let told = format!("{} {:?} {:?}", plan.scene.name(), plan.way, plan.deaths);
        match trial::play(&mut on.stage, plan, None) {
            Ok(played) => on.trials.push(played),
            Err(why) => {
                let why = format!("{told}: {why}\nin {}\n{}", on.stage.folder.path().display(), on.stage.complaints());
                lock(&shared.tally).failures.push(why);
                // Kept, for whoever looks into it.
                if let Some(left) = stages.remove(&process) {
                    std::mem::forget(left.stage);
                }
                continue;
            }
        }
        if on.trials.len() >= BATCH {
            look(shared, on);
        }
    }
    for mut on in stages.into_values() {
        look(shared, &mut on);
        if on.spoilt {
            std::mem::forget(on.stage);
        }
    }
}

/// Looks at what was played on a stage.
fn look(shared: &Shared, on: &mut OnStage) {
    let trials = std::mem::take(&mut on.trials);
    let roots: Vec<String> = trials.iter().map(|t| t.root.clone()).collect();
    let read = on
        .stage
        .events(&roots)
        .and_then(|events| Ok((events, on.stage.lines(&["runs", "--json", "--limit", "2000"])?)));
    let (events, rows) = match read {
        Ok(read) => read,
        Err(why) => return lock(&shared.tally).failures.push(why),
    };
    for (played, events) in trials.iter().zip(events) {
        let oracle = shared.oracles.get(&played.plan.scene).map(|o| &o.sums[..]);
        let found = check::examine(played, &events, &rows, oracle);
        let mut tally = lock(&shared.tally);
        tally.count(played);
        match found {
            Ok(found) => tally.found.add(&found),
            Err(why) => {
                let plan = &played.plan;
                let journal: Vec<String> = events.iter().map(|e| e.to_string()).collect();
                let kept = on.stage.folder.path().join(format!("{}.failed", played.root));
                let _ = std::fs::write(&kept, journal.join("\n"));
                let text =
                    format!("{} {:?} {:?}: {why}\nbook {:?}", plan.scene.name(), plan.way, plan.deaths, played.made);
                tally.failures.push(format!("{text}\njournal in {}", kept.display()));
                on.spoilt = true;
            }
        }
    }
}

impl Tally {
    fn count(&mut self, played: &Played) {
        self.trials += 1;
        self.duplicates += check::duplicates(played);
        self.kills += played.died.len() as u64;
        self.again += played.died.len().saturating_sub(1) as u64;
        for death in &played.died {
            let at = match death {
                Death::At(_) => "at a point of its own",
                Death::By(Moment::ToolAsked, _) => "by the tool, asked",
                Death::By(Moment::ToolDone, _) => "by the tool, done",
                Death::By(Moment::ModelAsked, _) => "by the model, asked",
                Death::By(Moment::ModelHalf, _) => "by the model, half said",
                Death::After(_) => "at a random time",
            };
            *self.at.entry(at).or_default() += 1;
            if let Death::At(point) = death {
                self.edges.insert((played.plan.scene, point.clone()));
            }
        }
    }
}

fn tell(tally: &Tally, seed: u64, took: Duration) {
    let found = &tally.found;
    let names = |edges: &BTreeSet<(Scene, String)>| {
        let names = edges.iter().filter_map(|(_, point)| point.rsplit_once('/')).map(|(name, _)| name.to_owned());
        names.collect::<BTreeSet<String>>()
    };
    let (hit, planned) = (names(&tally.edges), names(&tally.planned));
    println!(
        "   {} kills in {} trials, {} of them while recovering; seed {seed}, {} s",
        tally.kills,
        tally.trials,
        tally.again,
        took.as_secs()
    );
    for (at, n) in &tally.at {
        println!("     {n} {at}");
    }
    println!(
        "   {} edges hit (scene, point, occurrence), {} distinct: {}",
        tally.edges.len(),
        hit.len(),
        hit.iter().cloned().collect::<Vec<_>>().join(" ")
    );
    let missed: Vec<String> = planned.difference(&hit).cloned().collect();
    if !missed.is_empty() {
        println!("   not reached: {}", missed.join(" "));
    }
    println!(
        "   {} runs, {} events, {} calls ({} must not be repeated): {} unknown, {} repeated with the same key, {} probed, {} duplicates",
        found.runs,
        found.events,
        found.calls,
        found.once,
        found.unknown,
        found.repeated,
        found.looked,
        tally.duplicates
    );
    println!(
        "   {} tokens counted, as undisturbed; {} requests to the model lost and asked again, {} tokens held for them",
        found.tokens, found.lost, found.held
    );
    println!("   {} failures", tally.failures.len());
}
