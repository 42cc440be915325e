//! Changes to the policy file that keep its comments and order, checked before they are written.
//! Who changes it holds its folder meanwhile, from reading to writing: of two at once, one waits.

use crate::error::Failure;
use crate::settings;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use toml_edit::{DocumentMut, Item, Table};

/// The file while it is changed. Nobody else changes it until this is dropped.
pub(super) struct Draft {
    document: DocumentMut,
    /// The folder, locked: the file itself is another one once it is written.
    _held: File,
}

impl Deref for Draft {
    type Target = DocumentMut;
    fn deref(&self) -> &DocumentMut {
        &self.document
    }
}

impl DerefMut for Draft {
    fn deref_mut(&mut self) -> &mut DocumentMut {
        &mut self.document
    }
}

/// Reads the file for editing, when nobody else is at it.
///
/// # Errors
/// When it cannot be read or is not TOML.
pub(super) fn open(path: &Path) -> Result<Draft, Failure> {
    let shown = path.display();
    let unread = |e: std::io::Error| Failure::usage(format!("{shown}: {e}; `pleach init` writes one"));
    let file = path.canonicalize().map_err(unread)?;
    let held = File::open(folder(&file)).map_err(unread)?;
    held.lock().map_err(|e| Failure::usage(format!("{shown}: its folder cannot be locked: {e}")))?;
    let text = std::fs::read_to_string(&file).map_err(unread)?;
    let document: DocumentMut = text.parse().map_err(|e| Failure::usage(format!("{shown}: {e}")))?;
    Ok(Draft { document, _held: held })
}

fn folder(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes the file if the result holds: beside it, then renamed over it.
///
/// # Errors
/// When the result would not be a valid policy; then nothing is changed.
pub(super) fn save(path: &Path, document: &Draft) -> Result<(), Failure> {
    let text = document.document.to_string();
    let file = path.canonicalize()?;
    if let Err(errors) = settings::understand(&path.display().to_string(), &text, &file) {
        return Err(Failure::usage(format!("the change would break the file, so nothing was written:\n{errors}")));
    }
    write_atomically(&file, &text)?;
    Ok(())
}

/// Writes a file so that a reader sees the old or the new one, never half of one, also after the
/// machine went down. What is written over an old one may be read by whoever could read that, at
/// no time by others.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write_atomically(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension(format!("pleach-{}", std::process::id()));
    let mode = std::fs::metadata(path).ok().map(|m| m.permissions());
    let written = (|| {
        let mut file = draft(&beside, mode.is_some())?;
        file.write_all(text.as_bytes())?;
        if let Some(mode) = mode {
            file.set_permissions(mode)?;
        }
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        File::open(folder(path))?.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// A file of its own; where it takes the place of another, for its owner's eyes only until it does.
fn draft(path: &Path, replaces: bool) -> std::io::Result<File> {
    let make = || {
        let mode = if replaces { 0o600 } else { 0o666 };
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
    };
    match make() {
        // A process of this number left it and is gone.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            std::fs::remove_file(path)?;
            make()
        }
        other => other,
    }
}

/// The table at a path of keys, made where it is missing.
pub(super) fn table<'a>(document: &'a mut DocumentMut, keys: &[&str]) -> Option<&'a mut Table> {
    let mut at: &mut Table = document.as_table_mut();
    for (i, key) in keys.iter().enumerate() {
        let item = at.entry(key).or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(i + 1 < keys.len());
            Item::Table(table)
        });
        // `tools.x = { … }` written inline is made a table of its own.
        if let Item::Value(toml_edit::Value::InlineTable(inline)) = item {
            *item = Item::Table(inline.clone().into_table());
        }
        at = item.as_table_mut()?;
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_draft_of_a_file_is_nobody_elses() {
        let place = tempfile::tempdir().unwrap();
        let (file, beside) = (place.path().join("pleach.toml"), place.path().join("draft"));
        draft(&beside, true).unwrap();
        assert_eq!(mode(&beside), 0o600);
        // One that was left is not written into, whoever may read it.
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o644)).unwrap();
        draft(&beside, true).unwrap();
        assert_eq!(mode(&beside), 0o600);
        std::fs::remove_file(&beside).unwrap();
        for wanted in [0o600, 0o640] {
            std::fs::write(&file, "old").unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(wanted)).unwrap();
            write_atomically(&file, "new").unwrap();
            assert_eq!((mode(&file), std::fs::read_to_string(&file).unwrap().as_str()), (wanted, "new"));
        }
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn of_two_one_waits() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("pleach.toml");
        std::fs::write(&file, "a = 1\n").unwrap();
        let first = open(&file).unwrap();
        let other = File::open(place.path()).unwrap();
        assert!(other.try_lock().is_err());
        drop(first);
        other.try_lock().unwrap();
    }
}
