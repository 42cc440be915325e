//! A file that is made once, by whichever process comes first, and read by all: a key.

use std::io::{Error, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Reads a file for its owner's eyes only; made with what `fresh` gives if there is none.
///
/// # Errors
/// When it can be neither read nor written.
pub fn made_once(path: &Path, fresh: impl FnOnce() -> std::io::Result<Vec<u8>>) -> std::io::Result<Vec<u8>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    if !path.exists() {
        // Linked into place when it is whole: another process may start at the same moment.
        let mut mark = [0u8; 8];
        getrandom::fill(&mut mark).map_err(|e| Error::other(e.to_string()))?;
        let mark: String = mark.iter().map(|byte| format!("{byte:02x}")).collect();
        let draft = path.with_added_extension(mark);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(&fresh()?)?;
        file.sync_all()?;
        let linked = match std::fs::hard_link(&draft, path) {
            // A file system without links: then the last of those who start at once wins.
            Err(e) if e.kind() != ErrorKind::AlreadyExists => std::fs::rename(&draft, path),
            other => std::fs::remove_file(&draft).and(other),
        };
        match linked {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            // A key that is gone with the power is another key afterwards.
            _ => std::fs::File::open(folder)?.sync_all()?,
        }
    }
    std::fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_first_one_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/a.key");
        assert_eq!(made_once(&path, || Ok(b"one".to_vec())).unwrap(), b"one");
        assert_eq!(made_once(&path, || Ok(b"two".to_vec())).unwrap(), b"one");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }
}
