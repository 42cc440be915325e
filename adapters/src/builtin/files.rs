//! Read, Write and Edit.

use super::{Arguments, Outcome, failed};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

const DEFAULT_LINES: usize = 2_000;
const MAX_LINE: usize = 2_000;
/// Bytes of one answer; more must be asked for in pieces.
const MAX_TEXT: usize = 256 << 10;
/// Files beyond this are not edited as text.
const MAX_FILE: u64 = 32 << 20;

pub(super) fn read(args: &Arguments) -> Outcome {
    let path = args.path("file_path")?;
    if path.is_dir() {
        return Err(format!("{} is a folder; use Glob to list it", path.display()));
    }
    let file = fs::File::open(&path).map_err(|e| failed(&path, &e))?;
    let first = args.number("offset").unwrap_or(1).max(1);
    let limit = args.number("limit").unwrap_or(DEFAULT_LINES);
    let mut reader = BufReader::new(file);
    let mut out = String::new();
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        let n = reader.read_until(b'\n', &mut line).map_err(|e| failed(&path, &e))?;
        if n == 0 {
            break;
        }
        number += 1;
        if line.contains(&0) {
            return Err(format!("{} is not a text file", path.display()));
        }
        if number < first {
            continue;
        }
        if number >= first.saturating_add(limit) || out.len() > MAX_TEXT {
            out.push_str(&format!("… more lines follow; read on with offset {number}\n"));
            return Ok(out);
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        let shown: String = text.chars().take(MAX_LINE).collect();
        out.push_str(&format!("{number:>6}\t{shown}\n"));
    }
    match (number, out.is_empty()) {
        (0, _) => Ok("(the file is empty)".to_owned()),
        (n, true) => Err(format!("the file has only {n} lines")),
        _ => Ok(out),
    }
}

pub(super) fn write(args: &Arguments) -> Outcome {
    let path = args.path("file_path")?;
    let content = args.need("content")?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| failed(parent, &e))?;
    }
    let existed = path.exists();
    replace(&path, content)?;
    let lines = content.lines().count();
    Ok(format!("{} {} ({lines} lines)", if existed { "Replaced" } else { "Created" }, path.display()))
}

pub(super) fn edit(args: &Arguments) -> Outcome {
    let path = args.path("file_path")?;
    let (old, new) = (args.need("old_string")?, args.need("new_string")?);
    if old == new {
        return Err("old_string and new_string are the same".into());
    }
    if old.is_empty() {
        return Err("old_string is empty; use Write to make a file".into());
    }
    let length = fs::metadata(&path).map_err(|e| failed(&path, &e))?.len();
    if length > MAX_FILE {
        return Err(format!("{} is larger than {MAX_FILE} bytes", path.display()));
    }
    let mut text = String::new();
    let mut file = fs::File::open(&path).map_err(|e| failed(&path, &e))?;
    file.read_to_string(&mut text).map_err(|e| failed(&path, &e))?;
    let count = text.matches(old).count();
    let changed = match (count, args.flag("replace_all")) {
        (0, _) => return Err(format!("old_string does not stand in {}", path.display())),
        (1, _) | (_, true) => text.replace(old, new),
        (n, false) => {
            return Err(format!(
                "old_string stands {n} times in {}; add context to make it unique, or set replace_all",
                path.display()
            ));
        }
    };
    replace(&path, &changed)?;
    Ok(format!("Replaced {count} in {}", path.display()))
}

/// Writes beside and renames, so that a crash leaves the old or the new file, never half of one.
/// A file whose folder may not be written is written in place.
fn replace(path: &Path, content: &str) -> Result<(), String> {
    let mode = fs::metadata(path).ok().map(|m| m.permissions());
    let beside = path.with_file_name(format!(
        ".{}.pleach-{}",
        path.file_name().and_then(|n| n.to_str()).unwrap_or("file"),
        std::process::id()
    ));
    let is_link = path.symlink_metadata().is_ok_and(|m| m.file_type().is_symlink());
    let written = (|| {
        if is_link {
            return Err(std::io::Error::from(std::io::ErrorKind::Unsupported));
        }
        let mut file = fs::File::create(&beside)?;
        file.write_all(content.as_bytes())?;
        file.sync_data()?;
        if let Some(mode) = mode {
            file.set_permissions(mode)?;
        }
        fs::rename(&beside, path)
    })();
    match written {
        Ok(()) => Ok(()),
        Err(e) if e.raw_os_error() == Some(28) => {
            let _ = fs::remove_file(&beside);
            Err(format!("{}: the disk is full; the file is as it was", path.display()))
        }
        Err(_) => {
            let _ = fs::remove_file(&beside);
            fs::write(path, content).map_err(|e| failed(path, &e))
        }
    }
}
