//! Canonical paths: the one place that asks the filesystem what a path means.

use std::io;
use std::path::{Component, Path, PathBuf};

/// The canonical form of an absolute path: the longest existing part resolved through links,
/// the rest appended. A decision taken on it holds for what will be opened.
///
/// # Errors
/// `..` in the part that does not exist, a dangling link (creating it would land elsewhere), a
/// loop, a folder that may not be searched.
pub fn canonical(path: &Path) -> Result<PathBuf, String> {
    if !path.is_absolute() {
        return Err("it is not absolute".into());
    }
    let mut rest: Vec<Component<'_>> = Vec::new();
    let mut known = path;
    loop {
        match known.canonicalize() {
            Ok(real) => return append(real, rest),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if known.symlink_metadata().is_ok() {
                    return Err(format!("{} is a link to something that does not exist", known.display()));
                }
            }
            // A file taken for a folder: nothing can exist beneath it.
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {}
            Err(e) => return Err(format!("{}: {e}", known.display())),
        }
        // `Path::parent` hides a trailing `..`, so the components are walked one by one.
        let mut parts = known.components();
        let Some(last) = parts.next_back() else { return Err("it has no existing part".into()) };
        rest.push(last);
        known = parts.as_path();
    }
}

fn append(mut real: PathBuf, rest: Vec<Component<'_>>) -> Result<PathBuf, String> {
    for part in rest.into_iter().rev() {
        match part {
            Component::Normal(name) => real.push(name),
            Component::CurDir => {}
            _ => return Err("`..` after a part that does not exist".into()),
        }
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_and_the_rest_is_plain() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        symlink(root.join("real"), root.join("link")).unwrap();
        symlink(root.join("nowhere"), root.join("dangling")).unwrap();
        symlink(root.join("loop"), root.join("loop")).unwrap();
        let canon = |p: &str| canonical(&root.join(p));
        assert_eq!(canon("link/new/file"), Ok(root.join("real/new/file")));
        assert_eq!(canon("link/../file"), Ok(root.join("file")));
        assert_eq!(canon("real/./x//y/"), Ok(root.join("real/x/y")));
        assert_eq!(canon("file/x"), Ok(root.join("file/x")));
        assert!(canon("missing/../../etc").is_err());
        assert!(canon("dangling").is_err());
        assert!(canon("dangling/x").is_err());
        assert!(canon("loop").is_err());
        assert!(canonical(Path::new("relative")).is_err());
    }
}
