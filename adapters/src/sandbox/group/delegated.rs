//! Whether a cgroup v2 subtree is this process's own to divide.
//!
//! It is when one of three says so: the mark that systemd leaves on what it delegates (the
//! attribute `user.delegate` or `trusted.delegate`), the owner (an ordinary user's group in
//! somebody else's), or a cgroup namespace that begins there (a container). Root may write
//! everywhere, so that root may write says nothing.

use crate::sandbox::sys;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The controllers that are used where they are offered.
pub(super) const WANTED: [&str; 3] = ["memory", "pids", "cpu"];

/// What is delegated.
pub(super) struct Place {
    /// The delegated group: groups are made below it.
    pub(super) path: PathBuf,
    /// The group this process is in: that one, or a leaf of it.
    pub(super) own: PathBuf,
    /// The controllers it has.
    pub(super) offered: Vec<&'static str>,
    /// Three quarters of the least memory that bounds it, if anything does.
    pub(super) memory: Option<u64>,
}

/// Where groups can be made.
///
/// # Errors
/// Why nowhere.
pub(super) fn place() -> Result<Place, String> {
    let mounts = read("/proc/self/mountinfo")?;
    let (root, top) = mounted(&mounts).ok_or("no cgroup v2 is mounted")?;
    let groups = read("/proc/self/cgroup")?;
    let name = groups.lines().find_map(|line| line.strip_prefix("0::")).ok_or("the kernel has no cgroup v2")?;
    let inside = Path::new(name).strip_prefix(&root).map_err(|_| format!("its group {name} is not mounted here"))?;
    let own = top.join(inside).components().collect::<PathBuf>();
    let path = [Some(own.as_path()), own.parent().filter(|around| around.starts_with(&top))];
    let path = path.into_iter().flatten().find(|path| is_ours(path, &top));
    let path = path.ok_or_else(|| format!("its group {name} is not delegated to it"))?.to_owned();
    let ours = std::process::id().to_string();
    let procs = read(path.join("cgroup.procs"))?;
    if let Some(other) = procs.lines().find(|pid| *pid != ours) {
        return Err(format!(
            "process {other} is in its group {} too, and a group with processes in it cannot be divided",
            path.display()
        ));
    }
    let has = read(path.join("cgroup.controllers"))?;
    let offered: Vec<&str> = WANTED.into_iter().filter(|name| has.split_whitespace().any(|has| has == *name)).collect();
    if offered.is_empty() {
        let has = if has.trim().is_empty() { "none" } else { has.trim() };
        return Err(format!("its group {name} has none of {}, but {has}", WANTED.join(", ")));
    }
    let bounds = path.ancestors().take_while(|around| around.starts_with(&top));
    let bounds = bounds.filter_map(|around| fs::read_to_string(around.join("memory.max")).ok()?.trim().parse().ok());
    let memory = bounds.min().map(|least: u64| least / 4 * 3);
    Ok(Place { path, own, offered, memory })
}

fn read(path: impl AsRef<Path>) -> Result<String, String> {
    fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.as_ref().display()))
}

/// What of the hierarchy is mounted, and where.
fn mounted(mounts: &str) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        kind.starts_with("cgroup2 ").then(|| Some((fields.next()?.into(), fields.next()?.into())))?
    })
}

fn is_ours(path: &Path, top: &Path) -> bool {
    if ["user.delegate", "trusted.delegate"].iter().any(|name| sys::attribute(path, name).is_ok_and(|v| v == b"1")) {
        return true;
    }
    // Only the very root of the hierarchy has no type: this one is the root of a namespace.
    if path == top && path.join("cgroup.type").exists() {
        return true;
    }
    let owner = |path: &Path| path.metadata().map(|m| m.uid()).ok();
    let we = sys::user();
    we != 0
        && owner(path) == Some(we)
        && (path == top || path.parent().and_then(owner).is_some_and(|around| around != we))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_hierarchy_of_a_mixed_machine_is_found() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      31 25 0:27 /box /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mounted(mounts), Some(("/box".into(), "/sys/fs/cgroup/unified".into())));
        assert_eq!(mounted(mounts.lines().next().unwrap_or_default()), None);
    }
}
