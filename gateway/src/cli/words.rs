//! How calls and results are put into a line for people.

use serde_json::Value;
use subagents::event::Event;
use subagents::ports::Answer;

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

/// What somebody said to a question.
pub(super) fn answer(answer: &Answer) -> String {
    let (word, note) = match answer {
        Answer::Allow { note, always: None } => ("allow".to_owned(), note),
        Answer::Allow { note, always: Some(always) } => (format!("allow, {}", always.in_words()), note),
        Answer::Deny { note } => ("deny".to_owned(), note),
        Answer::Input { value, note } => (value.as_str().map_or_else(|| value.to_string(), str::to_owned), note),
    };
    let note = note.as_ref().map(|n| format!(" ({})", first_line(n, 120))).unwrap_or_default();
    format!("{}{note}", first_line(&word, 120))
}

/// What happened to a run besides its turns and calls; `None` for those.
pub(super) fn event(event: &Event) -> Option<String> {
    Some(match event {
        Event::Answered { by, answer: said, .. } => format!("answered by {by}: {}", answer(said)),
        Event::TimedOut { .. } => "nobody answered in time".to_owned(),
        Event::MessageReceived { from, text, .. } => format!("told by {from}: {}", first_line(text, 120)),
        Event::ChildFinished { agent, state, .. } => format!("{agent}, in the background, is {state}"),
        Event::Concluded { state, text, .. } => format!("is to be {state}: {}", first_line(text, 120)),
        Event::ArtifactEmitted { name, media_type, .. } => format!("made {name} ({media_type})"),
        Event::Resumed { .. } => "resumed".to_owned(),
        Event::Paused { by } => format!("paused by {by}"),
        Event::Unpaused { by } => format!("goes on after the pause, as {by} said"),
        Event::ModelFailed { why, .. } => format!("the model did not answer: {}", first_line(why, 160)),
        Event::BudgetAlert { what, used, limit } => {
            let shown = |n: &u64| if what == "usd" { policies::price::Usd(*n).to_string() } else { n.to_string() };
            format!("budget.{what}: {} of {} used", shown(used), shown(limit))
        }
        _ => return None,
    })
}
