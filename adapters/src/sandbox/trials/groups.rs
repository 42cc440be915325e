//! Control groups, where one is delegated to this test: say, under `systemd-run --user --scope -p
//! Delegate=yes`. Elsewhere these say that they were skipped, and why.

use super::{ATTACK, folder, program};
use crate::sandbox::{Pipes, Spec, group, launch};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::io::{AsyncBufReadExt, BufReader};

/// Whether there is a group to try things in.
fn delegated() -> bool {
    match group::house() {
        Ok(_) => true,
        Err(why) => {
            println!("SKIPPED, no cgroup is delegated to this test: {why}");
            false
        }
    }
}

fn sleeper(profile: &str, home: &Path) -> Spec {
    let mut spec = program(ATTACK, &["sleep".into(), "600".into()], Path::new("/"), home);
    spec.profile = profile.into();
    spec
}

fn tasks(group: &Path) -> Vec<u32> {
    let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    procs.lines().map(|pid| pid.parse().unwrap()).collect()
}

/// Where the instance runs, once its program does.
async fn place(instance: &mut crate::sandbox::Instance) -> PathBuf {
    let mut line = String::new();
    BufReader::new(instance.child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    assert_eq!(line, "ready\n");
    instance.group.as_ref().unwrap().path.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_bounded_as_a_whole_and_its_group_is_gone_with_it() {
    if !delegated() {
        return;
    }
    for profile in ["full", "no-namespaces", "off"] {
        let (_kept, root) = folder(Path::new("/var/tmp"));
        let mut instance = launch(&sleeper(profile, &root), Pipes::piped()).await.unwrap();
        let path = place(&mut instance).await;
        let of = |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default().trim().to_owned();
        assert!(instance.layers.iter().any(|layer| layer.starts_with("cgroup (")), "{:?}", instance.layers);
        for controller in group::house().as_ref().unwrap().controllers() {
            let (file, bounded) = match *controller {
                "memory" => ("memory.max", of("memory.max").parse::<u64>().is_ok()),
                "pids" => ("pids.max", of("pids.max") == "4096"),
                _ => ("cpu.weight", of("cpu.weight") == "50"),
            };
            assert!(bounded, "{profile}: {file} is {}", of(file));
        }
        let inside = tasks(&path);
        assert!(!inside.is_empty(), "{profile}: nobody is in it");
        assert!(!inside.contains(&std::process::id()) && !inside.contains(&instance.child.id().unwrap()));
        instance.kill().await;
        drop(instance);
        assert!(!path.exists(), "{profile}: {}", path.display());
        assert!(inside.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{profile}: {inside:?}");
    }
}

/// What is left of a pleach that was killed: a group nobody holds the lock of, with a process in it.
#[test]
fn what_a_killed_pleach_left_is_taken_away() {
    if !delegated() {
        return;
    }
    let house = group::house().as_ref().unwrap();
    let place = house.path().parent().unwrap();
    let stale = place.join(format!("pleach-{}-stale", std::process::id()));
    fs::create_dir_all(stale.join("1")).unwrap();
    let mut left = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(stale.join("1/cgroup.procs"), left.id().to_string()).unwrap();
    group::sweep(place);
    assert!(!stale.exists());
    let ended = left.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(libc::SIGKILL));
    // Ours is not: its lock is held.
    assert!(house.path().exists());
}
