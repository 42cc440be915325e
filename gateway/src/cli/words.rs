//! How calls and results are put into a line for people.

use serde_json::Value;

/// Prints a line. A reader that went away, as in `pleach tools | head`, ends the command quietly.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write;
        if writeln!(std::io::stdout().lock(), $($arg)*).is_err() {
            std::process::exit(0);
        }
    }};
}
pub(super) use say;

/// The first line of a text, cut to `limit` characters.
pub(super) fn first_line(text: &str, limit: usize) -> String {
    let line = text.trim().lines().next().unwrap_or("");
    let cut: String = line.chars().take(limit).collect();
    let more = cut.len() < line.len() || text.trim().lines().nth(1).is_some();
    if more { format!("{cut} …") } else { cut }
}

/// A call as `files__Read docs/a.md`: the argument people look for, else all of them.
pub(super) fn call(tool: &str, input: &Value) -> String {
    const TELLING: [&str; 9] =
        ["file_path", "path", "command", "pattern", "url", "subagent_type", "query", "message", "repo_path"];
    let telling = TELLING.iter().find_map(|key| input.get(key).and_then(Value::as_str));
    match (tool, telling) {
        ("Agent" | "Task", Some(agent)) => {
            let task = input.get("description").and_then(Value::as_str).unwrap_or("");
            format!("{tool} {agent}: {}", first_line(task, 60))
        }
        (_, Some(text)) => format!("{tool} {}", first_line(text, 80)),
        _ => format!("{tool} {}", first_line(&input.to_string(), 80)),
    }
}

const REFUSALS: [&str; 4] =
    ["Permission denied", "Operation not permitted", "permission denied by the sandbox", "Read-only file system"];

/// Whether a tool's error is the kernel's refusal, as programs report EACCES, EPERM and EROFS.
pub(super) fn kernel_refused(text: &str) -> bool {
    REFUSALS.iter().any(|r| text.contains(r))
}

/// The line of an error that tells of the refusal.
pub(super) fn refusal_line(text: &str) -> String {
    let line = text.lines().find(|l| kernel_refused(l)).unwrap_or(text);
    first_line(line, 160)
}

/// `3.2s`, `2m05s`, `4h12m`.
pub(super) fn duration(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..60 => format!("{}.{}s", s, ms % 1_000 / 100),
        60..3_600 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
    }
}
