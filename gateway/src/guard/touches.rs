//! From the paths and hosts among arguments to what the decision is taken on: canonical paths.

use adapters::paths;
use policies::action::{Touch, Touched};
use policies::fs::FileOp;
use policies::json::Json;
use policies::manifest::{RawTouch, RawTouched, Tool};
use policies::permission::Access;
use std::path::{Component, Path, PathBuf};

/// A path of a read-only tool is a read, else a write. Relative paths are against the server's
/// working folder.
pub(super) fn resolve(tool: &Tool, arguments: &Json, cwd: &Path) -> Vec<Touch> {
    let op = if tool.access == Access::ReadOnly { FileOp::Read } else { FileOp::Write };
    resolved(tool.touches(arguments), op, cwd)
}

/// The same for what is only read.
pub(super) fn read(raw: Vec<RawTouch>, cwd: &Path) -> Vec<Touch> {
    resolved(raw, FileOp::Read, cwd)
}

fn resolved(raw: Vec<RawTouch>, op: FileOp, cwd: &Path) -> Vec<Touch> {
    raw.into_iter()
        .map(|touch| {
            let what = match touch.what {
                RawTouched::Host(host, port) => Touched::Host(host, port),
                RawTouched::Unclear(why) => Touched::Unclear(why),
                RawTouched::Path(path) => match meaning(&absolute(&path, cwd)) {
                    Ok(path) => Touched::Path(op, path),
                    Err(why) => Touched::Unclear(why),
                },
            };
            Touch { pointer: touch.pointer, written: touch.written, what }
        })
        .collect()
}

/// What a path means. With `..` in it, programs disagree: the kernel follows a link before it
/// goes up, others normalise the text first. Where both readings are the same, it is clear.
fn meaning(path: &Path) -> Result<PathBuf, String> {
    let real = paths::canonical(path)?;
    if path.components().any(|c| c == Component::ParentDir) {
        let mut plain = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir => drop(plain.pop()),
                other => plain.push(other),
            }
        }
        if paths::canonical(&plain)? != real {
            return Err("`..` behind a link, which programs read differently".into());
        }
    }
    Ok(real)
}

/// `~` is judged as the user's own home, whatever the server would make of it.
fn absolute(path: &str, cwd: &Path) -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => match home() {
            Some(home) => home.join(rest.trim_start_matches('/')),
            None => cwd.join(path),
        },
        _ => cwd.join(path),
    }
}
