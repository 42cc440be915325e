//! Changes to the policy file that keep its comments and order, checked before they are written.

use crate::error::Failure;
use crate::settings;
use std::io::Write;
use std::path::Path;
use toml_edit::{DocumentMut, Item, Table};

/// Reads the file for editing.
///
/// # Errors
/// When it cannot be read or is not TOML.
pub(super) fn open(path: &Path) -> Result<DocumentMut, Failure> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("{shown}: {e}; `pleach init` writes one")))?;
    text.parse().map_err(|e| Failure::usage(format!("{shown}: {e}")))
}

/// Writes the file if the result holds: beside it, then renamed over it.
///
/// # Errors
/// When the result would not be a valid policy; then nothing is changed.
pub(super) fn save(path: &Path, document: &DocumentMut) -> Result<(), Failure> {
    let text = document.to_string();
    let file = path.canonicalize()?;
    if let Err(errors) = settings::understand(&path.display().to_string(), &text, &file) {
        return Err(Failure::usage(format!("the change would break the file, so nothing was written:\n{errors}")));
    }
    write_atomically(&file, &text)?;
    Ok(())
}

/// Writes a file so that a reader sees the old or the new one, never half of one.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write_atomically(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension(format!("pleach-{}", std::process::id()));
    let mode = std::fs::metadata(path).ok().map(|m| m.permissions());
    let written = (|| {
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if let Some(mode) = mode {
            file.set_permissions(mode)?;
        }
        std::fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
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
