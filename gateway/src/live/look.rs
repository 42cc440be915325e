//! What the files a policy is read from look like, to see that they changed. Looked at once in a
//! while instead of being watched: that holds for links that are swapped, folders that are renamed
//! over, and network mounts alike.

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The clock of a file system is coarse: what was written so lately is read, not only looked at.
const FRESH: Duration = Duration::from_secs(3);

/// How everything looks; equal looks, equal contents.
pub(super) type Look = BTreeMap<PathBuf, Option<Seen>>;

/// How one file or folder looks, links followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Of its content, where its age does not tell enough; or the names of a folder.
    content: Option<[u8; 32]>,
}

/// Looks at all of them.
pub(super) fn look(paths: &BTreeSet<PathBuf>) -> Look {
    paths.iter().map(|path| (path.clone(), seen(path))).collect()
}

fn seen(path: &Path) -> Option<Seen> {
    let about = std::fs::metadata(path).ok()?;
    let fresh = || {
        let age = about.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        age.is_none_or(|age| age < FRESH)
    };
    let content = match about.is_dir() {
        true => Some(digest(&names(path))),
        false if fresh() => std::fs::read(path).ok().map(|bytes| digest(&bytes)),
        false => None,
    };
    Some(Seen {
        device: about.dev(),
        inode: about.ino(),
        size: about.size(),
        modified: (about.mtime(), about.mtime_nsec()),
        changed: (about.ctime(), about.ctime_nsec()),
        content,
    })
}

/// Whether two looks are of the same thing. A file that is fresh no more is not read any more.
pub(super) fn alike(one: &Look, other: &Look) -> bool {
    let same = |a: &Seen, b: &Seen| match (&a.content, &b.content) {
        (Some(_), Some(_)) => a == b,
        _ => Seen { content: None, ..a.clone() } == Seen { content: None, ..b.clone() },
    };
    one.len() == other.len()
        && one.iter().zip(other).all(|((p, a), (q, b))| {
            p == q
                && match (a, b) {
                    (Some(a), Some(b)) => same(a, b),
                    (a, b) => a.is_none() && b.is_none(),
                }
        })
}

/// One text for all contents, to know a content again.
pub(super) fn contents(paths: &BTreeSet<PathBuf>) -> [u8; 32] {
    let mut all = Sha256::new();
    for path in paths {
        let bytes = if path.is_dir() { Some(names(path)) } else { std::fs::read(path).ok() };
        all.update(path.as_os_str().as_encoded_bytes());
        all.update([u8::from(bytes.is_some())]);
        all.update(digest(&bytes.unwrap_or_default()));
    }
    all.finalize().into()
}

fn names(folder: &Path) -> Vec<u8> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.sort();
    names.iter().flat_map(|name| name.as_encoded_bytes().iter().copied().chain([0])).collect()
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The links that lead to a file, wherever they stand in its path.
pub(super) fn links(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rest: Vec<_> = path.components().map(|c| c.as_os_str().to_owned()).rev().collect();
    let mut at = PathBuf::new();
    while let Some(part) = rest.pop().filter(|_| found.len() < 40) {
        match part.to_str() {
            Some(".") => continue,
            Some("..") => {
                at.pop();
                continue;
            }
            _ => at.push(&part),
        }
        if let Ok(target) = std::fs::read_link(&at) {
            found.push(at.clone());
            at.pop();
            rest.extend(target.components().map(|c| c.as_os_str().to_owned()).rev());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_change_of_the_same_size_in_the_same_moment_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        let paths = BTreeSet::from([file.clone()]);
        std::fs::write(&file, "one").unwrap();
        let before = look(&paths);
        assert!(alike(&before, &look(&paths)));
        std::fs::write(&file, "two").unwrap();
        assert!(!alike(&before, &look(&paths)));
        let two = look(&paths);
        std::fs::remove_file(&file).unwrap();
        assert!(!alike(&two, &look(&paths)));
        assert!(alike(&look(&paths), &look(&paths)), "what is missing twice is alike");
    }

    #[test]
    fn a_swapped_link_is_seen_wherever_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        for (name, text) in [("one", "1"), ("two", "2")] {
            std::fs::create_dir(base.join(name)).unwrap();
            std::fs::write(base.join(name).join("f"), text).unwrap();
        }
        symlink("one", base.join("..data")).unwrap();
        symlink("..data/f", base.join("f")).unwrap();
        let paths = BTreeSet::from([base.join("f")]);
        assert_eq!(links(&base.join("f")), [base.join("f"), base.join("..data")]);
        assert!(links(&base.join("one/f")).is_empty());
        let before = look(&paths);
        symlink("two", base.join("..next")).unwrap();
        std::fs::rename(base.join("..next"), base.join("..data")).unwrap();
        assert!(!alike(&before, &look(&paths)));
    }

    #[test]
    fn a_new_file_in_a_folder_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let paths = BTreeSet::from([folder.path().to_owned()]);
        let (before, was) = (look(&paths), contents(&paths));
        std::fs::write(folder.path().join("new.md"), "x").unwrap();
        assert!(!alike(&before, &look(&paths)));
        assert_ne!(was, contents(&paths));
    }
}
