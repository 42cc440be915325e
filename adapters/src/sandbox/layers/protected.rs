//! Protected names inside writable folders (`policies::fs::PROTECTED`): read-only mounts of their
//! own, whether something stands there or not.
//!
//! What is not there is made: an empty folder (in a home: an empty file) that carries a mark, to
//! be mounted over. It must stay while an instance lives, because removing it from outside would
//! take the mount along, and is taken away by the last that needs it:
//!
//! ```text
//!  pid 1      hold ── make, open, lock shared ── mount over it, read-only
//!    │ lives: the lock is held
//!  launcher   release, after pid 1 ── lock alone? ── unmount, remove
//! ```
//!
//! An instance killed with its launcher leaves the mark behind; the next one finds it, holds it
//! and removes it.

use crate::sandbox::init::there;
use crate::sandbox::spec::Spec;
use crate::sandbox::sys;
use policies::fs::{Kind, Obeyed, PROTECTED, protecting};
use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A repository: its objects may be written, but it may not be replaced as a whole.
const GIT: &str = ".git";
/// How deep below a writable folder names are looked for, and how many entries are looked at.
const DEPTH: usize = 4;
const ENTRIES: usize = 2_048;
/// The mark: a sticky bit and no right to write, which nobody sets by accident on an empty file.
const MARK: u32 = 0o1555;
const MARK_FILE: u32 = 0o1444;
/// Another instance may take a placeholder away between our look and our lock.
const TRIES: usize = 64;

/// Mounts every protected name read-only. The placeholders' locks stay with this process.
///
/// # Errors
/// What could not be held.
pub(crate) fn hold(spec: &Spec, notes: &mut Vec<String>) -> io::Result<()> {
    let mut held = BTreeSet::new();
    for (path, kind) in placeholders(spec) {
        match placeholder(&path, kind) {
            Ok(Some(lock)) => {
                // Kept open until this process ends; the program does not inherit it.
                std::mem::forget(lock);
                held.insert(path);
            }
            Ok(None) => {}
            Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
        }
    }
    let mut pins = BTreeSet::new();
    for root in &spec.write {
        let found = look(root, notes);
        for path in found {
            if path.file_name().is_some_and(|n| n == GIT) && path.is_dir() {
                pins.insert(path);
            } else if !lifted(spec, &path) {
                held.insert(path);
            }
        }
    }
    let between = |path: &PathBuf| -> Vec<PathBuf> {
        let roots = spec.write.iter().filter(|root| path.starts_with(root) && *root != path);
        let inside = |root: &PathBuf| {
            path.ancestors().skip(1).take_while(|a| *a != root).map(Path::to_owned).collect::<Vec<_>>()
        };
        roots.flat_map(inside).collect()
    };
    pins.extend(held.iter().chain(&pins).flat_map(between).collect::<Vec<_>>());
    // A granted folder is a mount already, unless another one around it is.
    let mount = |path: &PathBuf| spec.write.contains(path) && !within_another(spec, path);
    pins.retain(|path| !mount(path) && !held.contains(path));
    // What was granted by itself inside a held folder is put back on top of it.
    let inside = |grant: &&PathBuf| held.iter().any(|h| grant.starts_with(h) && *grant != h);
    let free: Vec<_> =
        spec.write.iter().filter(inside).map(|g| Ok((sys::open_tree(g)?, g))).collect::<io::Result<_>>()?;
    for path in &pins {
        sys::move_mount(&sys::open_tree(path)?, path)?;
    }
    for path in &held {
        if path.symlink_metadata()?.file_type().is_symlink() {
            notes.push(format!("{} is a link, which the kernel cannot hold in its place", path.display()));
            continue;
        }
        let tree = sys::open_tree(path)?;
        sys::make_read_only(&tree)?;
        sys::move_mount(&tree, path)?;
    }
    free.into_iter().try_for_each(|(tree, grant)| sys::move_mount(&tree, grant))
}

/// Takes the placeholders away that no other instance holds. Called by the launcher when every
/// process of the instance is gone; what cannot be taken away is left to the next.
pub(crate) fn release(spec: &Spec) {
    for (path, kind) in placeholders(spec) {
        let Ok(Some(file)) = marked(&path, kind) else { continue };
        // Somebody else lives who needs it.
        if sys::lock(&file, libc::LOCK_EX | libc::LOCK_NB).is_err() {
            continue;
        }
        // Ours lies over it, under whatever else was put there.
        while sys::unmount(&path).is_ok() {}
        let _ = match kind {
            Kind::Folder => fs::remove_dir(&path),
            Kind::File => fs::remove_file(&path),
        };
    }
}

/// Where a protected name could be made anew: in each writable folder, in its repository, and in
/// the user's home if that may be written.
fn placeholders(spec: &Spec) -> Vec<(PathBuf, Kind)> {
    let mut out = Vec::new();
    let home = spec.user_home.as_ref().filter(|home| spec.write.iter().any(|root| home.starts_with(root)));
    for protected in PROTECTED {
        let name: PathBuf = protected.name.iter().collect();
        match protected.obeyed {
            // An empty folder, whatever usually stands there: version control does not see it.
            Obeyed::Anywhere => out.extend(spec.write.iter().map(|root| (root.join(&name), Kind::Folder))),
            Obeyed::AtHome => out.extend(home.iter().map(|home| (home.join(&name), protected.kind))),
        }
    }
    let repository = |root: &PathBuf| match root.file_name() {
        Some(name) if name == GIT => None,
        _ => Some((root.join(GIT), Kind::Folder)),
    };
    out.extend(spec.write.iter().filter_map(repository));
    out.retain(|(path, _)| !lifted(spec, path) && !within_protected(spec, path));
    out
}

/// Whether a path was granted by itself.
fn lifted(spec: &Spec, path: &Path) -> bool {
    let least = match protecting(path) {
        Some((_, end)) => end,
        None => path.iter().count(),
    };
    spec.write.iter().any(|root| path.starts_with(root) && root.iter().count() >= least)
}

/// Whether a folder that may be written lies in another.
fn within_another(spec: &Spec, path: &Path) -> bool {
    path.ancestors().skip(1).any(|around| spec.write.iter().any(|root| root == around))
}

/// Whether a path lies in a folder that is held as a whole.
fn within_protected(spec: &Spec, path: &Path) -> bool {
    path.parent().is_some_and(|parent| protecting(parent).is_some() && !lifted(spec, parent))
}

/// A placeholder, made or found, locked for as long as the descriptor is open; `None` where
/// something else stands, or nothing could be made by anybody here.
fn placeholder(path: &Path, kind: Kind) -> io::Result<Option<File>> {
    for _ in 0..TRIES {
        let made = match kind {
            Kind::Folder => fs::DirBuilder::new().mode(MARK).create(path),
            Kind::File => OpenOptions::new().write(true).create_new(true).mode(MARK_FILE).open(path).map(drop),
        };
        match made {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            // No such folder, or none that we, and so the program, could write in.
            Err(e) if could_not(&e) => return Ok(None),
            Err(e) => return Err(e),
        }
        match marked(path, kind) {
            Ok(None) => return Ok(None),
            Ok(Some(file)) => {
                // Whoever has it alone is about to take it away: wait, and look what stands then.
                sys::lock(&file, libc::LOCK_SH)?;
                let (opened, stands) = (file.metadata()?, path.symlink_metadata());
                if stands.is_ok_and(|s| (s.dev(), s.ino()) == (opened.dev(), opened.ino())) {
                    return Ok(Some(file));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other("others make and remove it all the time"))
}

fn could_not(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), NotFound | NotADirectory | PermissionDenied | ReadOnlyFilesystem)
}

/// What stands at `path`, opened, if it is a placeholder.
fn marked(path: &Path, kind: Kind) -> io::Result<Option<File>> {
    let look = path.symlink_metadata()?;
    let is = match kind {
        Kind::Folder => look.is_dir(),
        Kind::File => look.is_file() && look.len() == 0,
    };
    if !is || look.mode() & 0o1222 != 0o1000 {
        return Ok(None);
    }
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | if kind == Kind::Folder { libc::O_DIRECTORY } else { 0 };
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let empty = kind == Kind::File || fs::read_dir(path)?.next().is_none();
    Ok(empty.then_some(file))
}

/// Protected names and repositories below a writable folder, the shallow first.
fn look(root: &Path, notes: &mut Vec<String>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = ENTRIES;
    let mut folders = VecDeque::from([(root.to_owned(), 0)]);
    while let Some((folder, depth)) = folders.pop_front() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if left == 0 {
                notes.push(format!(
                    "{}: protected names are held in its outer folders only: it is large",
                    root.display()
                ));
                return found;
            }
            left -= 1;
            let path = entry.path();
            let exactly = protecting(&path).is_some_and(|(_, end)| end == path.iter().count());
            let git = entry.file_name() == GIT;
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if exactly || git {
                found.push(path.clone());
            }
            // What stands in a repository that was found is found too, however deep it lies.
            if is_dir && !exactly && (depth + 1 < DEPTH || git) && (!git_inside(&path) || git) {
                folders.push_back((path, depth + 1));
            }
        }
    }
    found.retain(|path| there(path));
    found
}

/// Whether a folder lies inside a repository's own: only the names at its top are obeyed.
fn git_inside(path: &Path) -> bool {
    path.parent().is_some_and(|parent| parent.file_name().is_some_and(|n| n == GIT))
}
