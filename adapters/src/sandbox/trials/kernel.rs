//! The kernel differential: a random grant, random system calls under it, and what came of each
//! against what `policies` decides. What the guard would deny the kernel must refuse.
//!
//! One seed is one tree, one grant and one sandboxed program, told act after act; before each,
//! what it would touch is worked out from the tree as it then is. At the end no file may have
//! changed that the grant does not let be written. `PLEACH_SEED=17` plays that seed alone and
//! shows its acts.
//!
//! Where the kernel allows what the guard would deny, it is one of [`Gap`], or the test fails.
//! Where it refuses what the guard allows, that is counted, and printed with `--nocapture`.

use super::acts::{Act, What};
use super::tree::{self, Dice, Model, Need};
use super::{ACTS, folder, launch, program};
use crate::sandbox::{Instance, LaunchError, Pipes};
use policies::fs::{FileOp, protecting};
use policies::grant::Grant;
use policies::permission::Access;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const SEEDS: u64 = 96;
const ACTS_EACH: usize = 130;
const LEAST: usize = 10_000;

/// What the kernel allows and the guard would deny, and why that is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    /// Landlock has no right for looking at a name: what is there, how large, where a link points.
    Looking,
    /// A protected name that was not there when the program started, below the top of a writable
    /// folder: there is nothing to mount over. `.git` of a repository the program made is its own.
    ProtectedLater,
    /// Modes, owners, times and attributes of a folder above a granted one below `/tmp`: it is one
    /// of the private `/tmp`, made to bind the granted one back, and the real one is as it was.
    StandIn,
}

/// What came of all seeds.
#[derive(Default)]
struct Tally {
    cases: usize,
    refused: usize,
    agreed: [usize; 2],
    gaps: BTreeMap<(Gap, What), usize>,
    stricter: BTreeMap<(What, i32), usize>,
    wrong: Vec<String>,
}

#[test]
fn what_the_guard_denies_the_kernel_refuses() {
    let alone: Option<u64> = std::env::var("PLEACH_SEED").ok().map(|text| text.parse().unwrap());
    let (first, end) = alone.map_or((0, SEEDS), |seed| (seed, seed + 1));
    let (next, tally) = (AtomicU64::new(first), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= end {
                        break;
                    }
                    runtime.block_on(seeded(seed, &tally, alone.is_some()));
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    println!("{} cases under {} grants, {} grants refused", tally.cases, end - first, tally.refused);
    println!("both allow {}, both deny {}", tally.agreed[1], tally.agreed[0]);
    for ((gap, what), count) in &tally.gaps {
        println!("gap {gap:?}: {what:?} {count}");
    }
    for ((what, errno), count) in &tally.stricter {
        println!("the kernel is stricter: {what:?} {} {count}", std::io::Error::from_raw_os_error(*errno));
    }
    assert!(tally.wrong.is_empty(), "{} times:\n{}", tally.wrong.len(), tally.wrong.join("\n"));
    assert!(alone.is_some() || tally.cases >= LEAST, "{}", tally.cases);
    // A bench that denies all, or reaches nothing, would agree as well.
    assert!(alone.is_some() || tally.agreed.iter().all(|n| *n > LEAST / 20), "{:?}", tally.agreed);
}

/// One tree, one grant, one program.
async fn seeded(seed: u64, tally: &Mutex<Tally>, show: bool) {
    let mut dice = Dice::new(seed);
    // Below `/tmp`, which is a private one, what is granted is bound back.
    let (_kept, root) = folder(Path::new(dice.one(&["/tmp", "/var/tmp"])));
    let (_home, home) = folder(Path::new("/var/tmp"));
    tree::build(&root);
    let grant = tree::grant(&root, &mut dice);
    let model = Model::new(&grant);
    let mut spec = program(ACTS, &[], Path::new("/"), &home);
    spec.grant(&grant, &[]);
    let mut instance = match launch(&spec, Pipes::piped()).await {
        Ok(instance) => instance,
        // A deny that nothing can be mounted over: nothing runs.
        Err(LaunchError::Refused { layer, .. }) if layer == "filesystem.deny" => {
            tally.lock().unwrap().refused += 1;
            return;
        }
        Err(e) => panic!("seed {seed}: {e}"),
    };
    let before = tree::state(&root);
    let writable = |path: &Path| model.denied(&[Need { op: FileOp::Write, path: path.to_owned() }]).is_none();
    let there: Vec<PathBuf> =
        tree::names().into_iter().map(|name| root.join(name)).filter(|p| p.symlink_metadata().is_ok()).collect();
    let mut told = instance.child.stdin.take().unwrap();
    let mut answers = BufReader::new(instance.child.stdout.take().unwrap()).lines();
    for _ in 0..ACTS_EACH {
        let act = chosen(&root, &mut dice);
        let needs = tree::needs(&act);
        let denied = needs.as_deref().map(|needs| model.denied(needs));
        let look = |needs: &Option<Vec<Need>>| needs.iter().flatten().next().map(|need| changed(&need.path));
        let was = look(&needs);
        told.write_all(format!("{}\n", serde_json::to_string(&act).unwrap()).as_bytes()).await.unwrap();
        let answer = answers.next_line().await.unwrap();
        let errno: i32 = answer.unwrap_or_else(|| panic!("seed {seed}: the program ended at {act:?}")).parse().unwrap();
        if show {
            println!("{act:?}: {errno}, denied: {:?}", denied.map(|d| d.map(|need| (need.op, &need.path))));
        }
        let outside = was != look(&needs);
        let came = Came { errno, outside };
        tally.lock().unwrap().count((seed, &grant, &there), &act, denied, &came);
    }
    drop(told);
    ended(instance).await;
    let mut tally = tally.lock().unwrap();
    for ((path, was), (_, is)) in before.iter().zip(tree::state(&root)) {
        if *was != is && !writable(path) {
            tally.wrong.push(format!("seed {seed}: {} changed: {was} is {is}", path.display()));
        }
    }
}

async fn ended(mut instance: Instance) {
    let _ = instance.child.wait().await;
}

/// A random act on random names, written in a random way.
fn chosen(root: &Path, dice: &mut Dice) -> Act {
    let names = tree::names();
    let path = |dice: &mut Dice| {
        if dice.under(40) == 0 {
            return dice.one(&["/etc/shadow", "/root/.bashrc", "/var/tmp/of_nobody", "/opt/of_nobody"]).to_string();
        }
        let name = *dice.one(&names);
        let root = root.display();
        match dice.under(8) {
            0 => format!("{root}/a/../{name}"),
            1 => format!("{root}//./{name}"),
            2 => format!("/proc/self/root{root}/{name}"),
            3 => format!("{root}/a/to_folder/../{name}"),
            4 => match name.rsplit_once('/') {
                Some((folder, file)) => format!("{root}/{folder}/./{file}"),
                None => format!("{root}/to_b/../{name}"),
            },
            _ => format!("{root}/{name}"),
        }
    };
    Act { what: *dice.one(&What::ALL), one: path(dice), two: path(dice) }
}

/// Refusals that come of rights, not of what is or is not there.
const OF_RIGHTS: [i32; 5] = [libc::EACCES, libc::EPERM, libc::EROFS, libc::EXDEV, libc::EBUSY];

/// What came of an act: an error number, and whether what it was denied for changed outside.
struct Came {
    errno: i32,
    outside: bool,
}

/// When something was changed last, in any way.
fn changed(path: &Path) -> Option<(i64, i64)> {
    path.symlink_metadata().ok().map(|m| (m.ctime(), m.ctime_nsec()))
}

impl Tally {
    fn count(
        &mut self,
        (seed, grant, there): (u64, &Grant, &[PathBuf]),
        act: &Act,
        denied: Option<Option<&Need>>,
        came: &Came,
    ) {
        self.cases += 1;
        match (denied, came.errno) {
            (None, 0) => self.wrong.push(format!("seed {seed}: {act:?} was done, though its path means nothing")),
            (Some(Some(need)), 0) => match gap(grant, act, need, there, came) {
                Some(gap) => *self.gaps.entry((gap, act.what)).or_default() += 1,
                None => self.wrong.push(format!(
                    "seed {seed}: {act:?} was done, denied for {:?} of {} under {:?} {:?}",
                    need.op,
                    need.path.display(),
                    grant.max_access,
                    grant.filesystem
                )),
            },
            (Some(None), 0) => self.agreed[1] += 1,
            (Some(None), errno) if OF_RIGHTS.contains(&errno) => {
                *self.stricter.entry((act.what, errno)).or_default() += 1
            }
            (Some(Some(_)), _) => self.agreed[0] += 1,
            // Neither there nor refused: nothing was tried.
            _ => {}
        }
    }
}

fn gap(grant: &Grant, act: &Act, need: &Need, there: &[PathBuf], came: &Came) -> Option<Gap> {
    if matches!(act.what, What::Mode | What::Times | What::Owner | What::Attribute)
        && need.path.starts_with("/tmp")
        && need.path.is_dir()
        && !came.outside
    {
        return Some(Gap::StandIn);
    }
    if matches!(act.what, What::ReadLink | What::Stat | What::OpenPath | What::Enter) {
        return Some(Gap::Looking);
    }
    // Writable but for its name, which did not stand there at the start, nor at the top.
    let files = &grant.filesystem;
    let (protected, end) = protecting(&need.path)?;
    let (name, around) = (first(&need.path, end), first(&need.path, end - protected.name.len()));
    let later = grant.max_access > Access::ReadOnly
        && files.protects(&need.path).is_some()
        && !there.contains(&name)
        && !files.write().contains(&around);
    later.then_some(Gap::ProtectedLater)
}

fn first(path: &Path, parts: usize) -> PathBuf {
    path.iter().take(parts).collect()
}
