//! Approvals: what a person is shown of a call, and the standing rule their answer may make.
//!
//! ```text
//!  question of the guard ─▶ detail: tool, arguments, what it touches ─▶ a person
//!                                                                        │ allow: this call, once
//!                                                                        └ allow, always ─▶ rule
//! ```

use crate::ports::{Always, Of, Question};
use policies::action::{Call, Touch, Touched};
use policies::fs::FileOp;
use policies::permit;
use policies::resolve::ApprovalsSpec;
use policies::standing::{Standing, Whose};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Who closed a question that nobody answered in time.
pub const LATE: &str = "nobody in time";
/// Who closed one whose asker went away, or another way.
pub const WITHDRAWN: &str = "whoever asked";
/// What closed one whose run is over.
pub const ENDED: &str = "the end of the run";

/// How a question that is not open any more ended, by who closed it.
pub fn over(by: &str) -> String {
    match by {
        LATE => "expired: nobody answered it in time".into(),
        WITHDRAWN => "was taken back: whoever asked does not wait for it any more".into(),
        ENDED => "is closed: its run is over".into(),
        by => format!("was answered by {by} already"),
    }
}

/// Everything a person needs to see of a call they are asked about.
pub fn detail(question: &permit::Question<Call>) -> Value {
    let Call { tool, arguments, touches } = question.what();
    json!({
        "tool": tool.name, "arguments": arguments.to_serde(), "rule": question.rule.to_string(),
        "manifest": tool.hash, "server": tool.identity, "touches": touches.iter().map(touch).collect::<Vec<_>>(),
    })
}

/// What a call would touch, as a person is shown it: a yes is to this as well, for the same words
/// may lead elsewhere when a link or a folder changed. Nothing where it touches nothing.
pub fn shown(call: &Call) -> String {
    if call.touches.is_empty() {
        return String::new();
    }
    format!(" {}", Value::from(call.touches.iter().map(touch).collect::<Vec<_>>()))
}

fn touch(touch: &Touch) -> Value {
    match &touch.what {
        Touched::Path(FileOp::Read, path) => json!({ "does": "read", "path": path.display().to_string() }),
        Touched::Path(FileOp::Write, path) => json!({ "does": "write", "path": path.display().to_string() }),
        Touched::Host(host, port) => {
            json!({ "does": "connect", "host": format!("{host}:{port}"), "url": touch.written })
        }
        Touched::Unclear(why) => json!({ "does": "unclear", "why": why }),
    }
}

/// Arguments that are commands, by the names that tools give them.
const COMMANDS: [&str; 6] = ["command", "cmd", "script", "code", "program", "argv"];

/// What a question's call would run, where an argument says so: a command line, or its words.
fn commands(question: &Question) -> impl Iterator<Item = String> {
    let said = |key: &&str| match question.detail.get("arguments")?.get(key)? {
        Value::String(command) => Some(format!("run {command}")),
        Value::Array(words) if !words.is_empty() && words.iter().all(Value::is_string) => {
            Some(format!("run {}", Value::from(words.clone())))
        }
        _ => None,
    };
    COMMANDS.iter().filter_map(said)
}

/// What a question's call would run and touch, a line each: `write /srv/out/a.md`.
pub fn effects(question: &Question) -> Vec<String> {
    let touches = question.detail.get("touches").and_then(Value::as_array);
    let text = |touch: &Value, key: &str| touch.get(key).and_then(Value::as_str).map(str::to_owned);
    let line = |touch: &Value| {
        let what = ["path", "host", "why"].iter().find_map(|key| text(touch, key)).unwrap_or_default();
        let url = text(touch, "url").map(|url| format!(" ({url})")).unwrap_or_default();
        format!("{} {what}{url}", text(touch, "does").unwrap_or_default())
    };
    commands(question).chain(touches.into_iter().flatten().map(line)).collect()
}

/// A new question's id.
///
/// # Errors
/// When the system has no randomness.
pub fn fresh_id() -> Result<String, String> {
    crate::host::question_id()
}

/// Whether one more approval may be open where so many are, in all and of these.
///
/// # Errors
/// Why not.
pub fn room(limits: &ApprovalsSpec, (all, own): (u32, u32), whose: &str) -> Result<(), String> {
    let full = |n: u32, whose: &str| {
        Err(format!("{n} approvals of {whose} are open, and no more are asked until some are answered; do without it"))
    };
    match () {
        () if own >= limits.per_tree => full(own, whose),
        () if all >= limits.per_client => full(all, "this client"),
        () => Ok(()),
    }
}

/// The rule that an answer to a question makes.
///
/// # Errors
/// Why it can make none, with the next step.
pub fn rule(question: &Question, always: &Always, by: &str, at: u64) -> Result<Standing, String> {
    let text = |key: &str| question.detail.get(key).and_then(Value::as_str).map(str::to_owned);
    let (Some(tool), Some(manifest), "approval") = (text("tool"), text("manifest"), question.kind.as_str()) else {
        return Err("only a call of a server's tool can be allowed from now on; allow this one, once".into());
    };
    let Some(server) = text("server") else {
        return Err(
            "it was asked by an earlier version, which did not say of which server; allow this one, once".into()
        );
    };
    if always.within.is_some() && always.of != Of::Path {
        return Err("within goes with always = path".into());
    }
    let run = match always.of {
        Of::Run if question.run.is_empty() => {
            return Err("it is no run's call; allow it always for the tool or the path".into());
        }
        Of::Run => Some(question.run.clone()),
        Of::Tool | Of::Path => None,
    };
    let paths = match always.of {
        Of::Path => Some(folders(question, always.within.as_deref())?),
        Of::Run | Of::Tool => None,
    };
    Ok(Standing {
        id: question.id.replacen("q-", "a-", 1),
        principal: question.principal.clone(),
        whose: if question.run.is_empty() { Whose::Client } else { Whose::Run },
        run,
        chain: question.chain.clone(),
        tool,
        manifest,
        server,
        paths,
        by: by.to_owned(),
        at,
        question: question.id.clone(),
    })
}

/// The paths a call touches, or the folder above all of them.
fn folders(question: &Question, within: Option<&str>) -> Result<Vec<PathBuf>, String> {
    let touches = question.detail.get("touches").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let path = |touch: &Value| touch.get("path").and_then(Value::as_str).map(PathBuf::from);
    let paths: Option<Vec<PathBuf>> = touches.iter().map(path).collect();
    let paths = paths.filter(|paths| !paths.is_empty());
    let paths =
        paths.ok_or("the call touches no path, or something besides; allow it always for the tool or the run")?;
    let Some(folder) = within else { return Ok(paths) };
    let folder = Path::new(folder);
    // As it stands: the paths it is compared with have no links and no `..` in them.
    let plain = folder.is_absolute() && folder.components().all(|c| !matches!(c, std::path::Component::ParentDir));
    match plain && paths.iter().all(|path| path.starts_with(folder)) {
        true => Ok(vec![folder.to_owned()]),
        false => Err(format!(
            "within is an absolute folder above what the call touches ({})",
            paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(run: &str, touches: Value) -> Question {
        Question {
            id: "q-1".into(),
            run: run.into(),
            root: run.into(),
            principal: "local".into(),
            kind: "approval".into(),
            text: "may it?".into(),
            detail: json!({ "tool": "s__put", "arguments": {}, "manifest": "h", "server": "i", "touches": touches }),
            chain: vec!["root policy".into()],
            asked: 1,
            expires: None,
        }
    }
    fn always(of: Of, within: Option<&str>) -> Always {
        Always { of, within: within.map(str::to_owned) }
    }
    fn writes() -> Value {
        json!([{ "does": "write", "path": "/out/a/x" }])
    }

    #[test]
    fn a_rule_is_as_wide_as_was_said() {
        let question = asked("r-1", writes());
        let made = |of, within| rule(&question, &always(of, within), "boss", 7).unwrap();
        assert_eq!((made(Of::Tool, None).run, made(Of::Tool, None).paths), (None, None));
        assert_eq!(made(Of::Run, None).run.as_deref(), Some("r-1"));
        assert_eq!(made(Of::Path, None).paths, Some(vec!["/out/a/x".into()]));
        assert_eq!(made(Of::Path, Some("/out/a")).paths, Some(vec!["/out/a".into()]));
        assert_eq!(made(Of::Tool, None).id, "a-1");
        assert_eq!(made(Of::Tool, None).whose, Whose::Run);
        let own = rule(&asked("", writes()), &always(Of::Tool, None), "boss", 7).unwrap();
        assert_eq!((own.whose, own.run), (Whose::Client, None));
    }

    #[test]
    fn what_makes_no_rule_says_why() {
        let refused = |question: &Question, of, within| rule(question, &always(of, within), "boss", 7).unwrap_err();
        let run = asked("r-1", writes());
        for within in ["/out/b", "out/a", "/out/a/../..", "/out/a/x/y"] {
            assert!(refused(&run, Of::Path, Some(within)).contains("/out/a/x"), "{within}");
        }
        assert!(refused(&run, Of::Tool, Some("/out")).contains("within goes with"));
        assert!(refused(&asked("", writes()), Of::Run, None).contains("no run's call"));
        assert!(refused(&asked("r-1", json!([])), Of::Path, None).contains("touches no path"));
        let mixed = json!([{ "does": "write", "path": "/a" }, { "does": "connect", "host": "h:443" }]);
        assert!(refused(&asked("r-1", mixed), Of::Path, None).contains("something besides"));
        let mut old = run.clone();
        old.detail = json!({ "tool": "s__put", "manifest": "h", "touches": [] });
        assert!(refused(&old, Of::Tool, None).contains("earlier version"));
        let mut own = run;
        own.detail = json!({ "tool": "Agent", "arguments": {} });
        assert!(refused(&own, Of::Tool, None).contains("a server's tool"));
    }
}
