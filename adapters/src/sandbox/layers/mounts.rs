//! The view of the filesystem: a private `/tmp` and `/dev/shm`, a `/proc` of the instance's own
//! processes, protected names read-only, and masks over what `filesystem.deny` names.

use super::{Part, limits, protected};
use crate::sandbox::enter::Refusal;
use crate::sandbox::init::there;
use crate::sandbox::spec::Spec;
use crate::sandbox::sys;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const PLAIN: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV;

pub(crate) fn build(spec: &Spec, notes: &mut Vec<String>) -> Result<(), Refusal> {
    let refuse = |what: &str| {
        let what = what.to_owned();
        move |e: io::Error| Refusal::new("mounts", format!("{what}: {e}"))
    };
    sys::mount("none", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "").map_err(refuse("make / private"))?;
    if spec.stands(Part::Seal) {
        seal(spec).map_err(refuse("make / read-only"))?;
    }
    if spec.private_tmp() {
        overlay_tmp(spec).map_err(refuse("/tmp"))?;
    } else {
        fs::create_dir_all(spec.tmpdir()).map_err(refuse("TMPDIR"))?;
    }
    if Path::new("/dev/shm").is_dir() && spec.stands(Part::SharedMemory) {
        sys::mount("tmpfs", Path::new("/dev/shm"), "tmpfs", PLAIN, "mode=1777,size=256m")
            .map_err(refuse("/dev/shm"))?;
    }
    if spec.stands(Part::Terminals) {
        terminals(notes);
    }
    if spec.stands(Part::Processes) {
        proc(notes).map_err(refuse("/proc"))?;
    }
    check_holdable(spec)?;
    if spec.stands(Part::Protected) {
        protected::hold(spec, notes).map_err(refuse("protected names"))?;
    }
    if !spec.stands(Part::Masks) {
        return Ok(());
    }
    masks(spec).map_err(refuse("filesystem.deny"))
}

/// Everything is read-only but what is granted for writing, put back as it was. Landlock has no
/// right for the mode, the owner, the times and the attributes of a file: whoever has the user's
/// id could change those of every file there is.
fn seal(spec: &Spec) -> io::Result<()> {
    let writable: Vec<&PathBuf> = spec.write.iter().chain([&spec.home]).filter(|p| there(p)).collect();
    if writable.iter().any(|p| p.as_path() == Path::new("/")) {
        return Ok(());
    }
    let mut outer: Vec<&PathBuf> =
        writable.iter().filter(|p| !writable.iter().any(|o| p != &o && p.starts_with(o))).copied().collect();
    outer.sort();
    outer.dedup();
    let trees: Vec<(OwnedFd, &PathBuf)> =
        outer.into_iter().map(|p| Ok((sys::open_tree(p)?, p))).collect::<io::Result<_>>()?;
    sys::make_read_only(&fs::File::open("/")?.into())?;
    trees.into_iter().try_for_each(|(tree, path)| sys::move_mount(&tree, path))
}

/// Masks what is denied. The private home may lie inside Pleach's own folder: that mask stays
/// passable, and the home is put back into it.
fn masks(spec: &Spec) -> io::Result<()> {
    if spec.stands(Part::Pins) {
        pin_ancestors(spec)?;
    }
    hold_absent(spec)?;
    let home = sys::open_tree(&spec.home)?;
    let nothing = unreadable_file(spec)?;
    let there = spec.deny.iter().chain(&spec.own).filter(|p| there(p));
    let (around, apart): (Vec<&PathBuf>, Vec<&PathBuf>) = there.partition(|p| spec.home.starts_with(p));
    for path in apart {
        if path.is_dir() {
            sys::mount("tmpfs", path, "tmpfs", PLAIN | libc::MS_RDONLY | libc::MS_NOEXEC, "mode=000,size=4k")?;
        } else {
            sys::mount(&nothing.display().to_string(), path, "", libc::MS_BIND, "")?;
            let sealed = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | libc::MS_NOEXEC | PLAIN;
            sys::mount("none", path, "", sealed, "")?;
        }
    }
    if let Some(outermost) = around.into_iter().min_by_key(|p| p.components().count()) {
        sys::mount("tmpfs", outermost, "tmpfs", PLAIN | libc::MS_NOEXEC, "mode=711,size=64k")?;
        fs::create_dir_all(&spec.home)?;
        sys::move_mount(&home, &spec.home)?;
    }
    Ok(())
}

/// Every folder between a writable grant and a denied path becomes a mount of its own, which
/// cannot be renamed: a mask would move along with a renamed parent and leave its name free.
fn pin_ancestors(spec: &Spec) -> io::Result<()> {
    let mut pins: Vec<&Path> = Vec::new();
    for path in spec.deny.iter().chain(&spec.own) {
        for grant in spec.write.iter().filter(|grant| path.starts_with(grant)) {
            let between = path.ancestors().skip(1).take_while(|a| a != grant).filter(|a| a.is_dir());
            pins.extend(between);
        }
    }
    pins.sort();
    pins.dedup();
    // The outermost first, so that each lies on top of the one around it.
    pins.into_iter().try_for_each(|path| sys::move_mount(&sys::open_tree(path)?, path))
}

/// Files of Pleach that do not exist yet, in a folder the program may write: made empty, so that
/// they can be masked. An empty database or log is a valid one.
fn hold_absent(spec: &Spec) -> io::Result<()> {
    let writable = |path: &&PathBuf| spec.write.iter().any(|grant| path.starts_with(grant));
    let absent = spec.own.iter().filter(|p| !there(p) && p.parent().is_some_and(Path::is_dir));
    absent.filter(writable).try_for_each(|path| fs::File::create_new(path).map(drop))
}

/// An empty file nobody may read, to put over denied files.
fn unreadable_file(spec: &Spec) -> io::Result<PathBuf> {
    use std::os::unix::fs::OpenOptionsExt;
    let shm = Path::new("/dev/shm");
    let path =
        if shm.is_dir() && spec.stands(Part::SharedMemory) { shm.to_owned() } else { spec.tmpdir() }.join(".denied");
    fs::OpenOptions::new().write(true).create_new(true).mode(0o000).open(&path)?;
    Ok(path)
}

/// Without a mount namespace a deny inside a granted folder cannot be held.
pub(crate) fn check_without(spec: &Spec) -> Result<(), Refusal> {
    fs::create_dir_all(spec.tmpdir()).map_err(|e| Refusal::new("TMPDIR", e.to_string()))?;
    if spec.profile() == policies::grant::Profile::Off {
        return Ok(());
    }
    let inside = |path: &&PathBuf| spec.read.iter().chain(&spec.write).any(|grant| path.starts_with(grant));
    match spec.deny.iter().chain(spec.own.iter().filter(|p| there(p))).find(inside) {
        None => Ok(()),
        Some(path) => Err(Refusal::new(
            "filesystem.deny",
            format!(
                "{} lies inside a granted folder, and without namespaces the kernel cannot hold a deny there; \
                 grant narrower folders, or use profile = \"full\"",
                path.display()
            ),
        )),
    }
}

/// A denied path that does not exist, inside a folder that may be written, could be created.
fn check_holdable(spec: &Spec) -> Result<(), Refusal> {
    let writable = |path: &PathBuf| spec.write.iter().any(|grant| path.starts_with(grant));
    match spec.deny.iter().find(|path| writable(path) && !there(path)) {
        None => Ok(()),
        Some(path) => Err(Refusal::new(
            "filesystem.deny",
            format!(
                "{} does not exist, so the kernel cannot mask it, and it could be created inside the writable folder; \
                 create it, or grant narrower folders",
                path.display()
            ),
        )),
    }
}

/// A fresh `/proc` where the kernel lets us (it does not where the host's is partly masked, as
/// in most containers), an empty one otherwise.
fn proc(notes: &mut Vec<String>) -> io::Result<()> {
    let path = Path::new("/proc");
    if sys::mount("proc", path, "proc", PLAIN | libc::MS_NOEXEC, "").is_err() {
        sys::mount("tmpfs", path, "tmpfs", PLAIN | libc::MS_RDONLY, "mode=555,size=4k")?;
        notes.push("/proc is empty: the kernel refused a fresh one here".into());
        return Ok(());
    }
    // Its own pid namespace's, or there would be no fresh `/proc`.
    if let Err(e) = limits::bound_tasks() {
        notes.push(format!("how many processes it may have is bounded for ordinary users only: {e}"));
    }
    Ok(())
}

/// Terminals of its own: the host's others could be read and typed into. The one it may have on
/// its standard streams stays open.
fn terminals(notes: &mut Vec<String>) {
    let pts = Path::new("/dev/pts");
    let options = "newinstance,ptmxmode=0666,mode=620";
    let fresh = sys::mount("devpts", pts, "devpts", libc::MS_NOSUID | libc::MS_NOEXEC, options)
        .and_then(|()| sys::mount("/dev/pts/ptmx", Path::new("/dev/ptmx"), "", libc::MS_BIND, ""));
    if fresh.is_err() {
        let hidden = sys::mount("tmpfs", pts, "tmpfs", PLAIN | libc::MS_RDONLY, "mode=555,size=4k");
        let how = if hidden.is_ok() { "hidden" } else { "shut" };
        notes.push(format!("terminals are {how}: the kernel refused fresh ones here"));
    }
}

/// Replaces `/tmp`, then binds back every granted, runtime and working path that lies below it.
fn overlay_tmp(spec: &Spec) -> io::Result<()> {
    let tmp = Path::new("/tmp");
    let below = spec.below_tmp();
    let private = spec.tmpdir();
    // Bound by the shortest: what lies beneath comes along.
    let mut outer: Vec<&PathBuf> =
        below.iter().filter(|p| !below.iter().any(|o| p != &o && p.starts_with(o))).copied().collect();
    outer.sort();
    outer.dedup();
    let trees: Vec<(OwnedFd, &PathBuf, bool)> =
        outer.iter().map(|p| Ok((sys::open_tree(p)?, *p, p.is_dir()))).collect::<io::Result<_>>()?;
    sys::mount("tmpfs", tmp, "tmpfs", PLAIN, "mode=1777,size=1g")?;
    for (tree, path, is_dir) in trees {
        if is_dir {
            fs::create_dir_all(path)?;
        } else {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::File::create(path)?;
        }
        sys::move_mount(&tree, path)?;
    }
    fs::create_dir_all(private)
}
