//! Every example, run as its README says, against its `expected.txt`.

use conformance::pleach::{Folder, Ran, binary};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The example in a folder of its own, so that it runs as if for the first time.
pub(super) fn fresh(name: &str) -> Folder {
    let folder = Folder::new("");
    copy(&examples().join(name), folder.path());
    folder
}

/// What differs from run to run, made the same: run ids and the folder.
fn plain(text: &str, folder: &Folder) -> String {
    let text = text.replace(&folder.path().display().to_string(), ".");
    let mut out = String::new();
    for line in text.lines() {
        let words: Vec<String> = line
            .split(' ')
            .scan("", |before, word| {
                let id = word.starts_with("r-") || *before == "show";
                *before = word;
                Some(match id {
                    true => "RUN".to_owned(),
                    false if word.starts_with("q-") => "QUESTION".to_owned(),
                    false => word.to_owned(),
                })
            })
            .collect();
        out.push_str(&words.join(" "));
        out.push('\n');
    }
    out
}

pub(super) fn matches_expected(name: &str, found: &str) {
    let path = examples().join(name).join("expected.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(found, expected, "{name}: set UPDATE_EXPECTED=1 if the new output is right");
}

/// The summary, which does not depend on which sibling was faster, and the answer.
pub(super) fn told(ran: &Ran, folder: &Folder) -> String {
    let summary = ran.err.split("\n\n").find(|part| part.contains(" allowed, ")).unwrap_or(&ran.err);
    format!("{}\n{}", plain(summary, folder), ran.out)
}

/// What the summary says to type next to see why something was stopped says the same of it.
pub(super) fn explained(ran: &Ran, folder: &Folder) {
    let Some(command) = ran.err.lines().map(str::trim).find(|l| l.starts_with("pleach explain ")) else { return };
    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = std::process::Command::new("bash");
    shell
        .args(["-c", command])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("XDG_STATE_HOME", folder.join(".state"));
    let said = Ran::of(shell.output().unwrap());
    assert_eq!(said.code, 1, "{command}: {said:?}");
    let rule = said.out.strip_prefix("denied: ").and_then(|s| s.split(';').next()).unwrap();
    assert!(ran.err.contains(rule), "{command}: {said:?}");
}

/// Runs it with `--json`, and sees that everything a run told while it lived is what its journal
/// tells afterwards, by `show` and in the sums of `runs`. Gives each run's events, in the order
/// in which the runs began.
pub(super) fn lived_and_written(folder: &Folder, args: &[&str]) -> Vec<Vec<Value>> {
    let ran = folder.run(&[&["run", "--json"], args].concat());
    let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let (mut runs, mut pieces) = (Vec::<Vec<Value>>::new(), HashMap::<String, String>::new());
    for event in ran.out.lines().map(parse) {
        let id = event["run"].as_str().unwrap().to_owned();
        match event["type"].as_str().unwrap() {
            "model.delta" => pieces.entry(id).or_default().push_str(event["text"].as_str().unwrap()),
            "run.started" => runs.push(vec![event]),
            _ => runs.iter_mut().find(|run| run[0]["run"] == event["run"]).unwrap().push(event),
        }
    }
    let sums = folder.run(&["runs", "--json"]);
    let sums: Vec<Value> = sums.out.lines().map(parse).collect();
    for live in &runs {
        let id = live[0]["run"].as_str().unwrap();
        let shown = folder.run(&["show", id, "--json"]);
        assert_eq!(shown.code, 0, "{shown:?}");
        let written: Vec<Value> = shown.out.lines().map(parse).collect();
        assert_eq!(&written, live, "{id}: the journal tells what was told");
        let of = |kind: &str| live.iter().filter(|e| e["type"] == kind).collect::<Vec<_>>();
        let said: String = of("model.replied").iter().map(|e| e["text"].as_str().unwrap()).collect();
        assert_eq!(pieces.remove(id).unwrap_or_default(), said, "{id}: in pieces and whole");
        let sum = sums.iter().find(|sum| sum["run"] == id).unwrap();
        assert_eq!(sum["turns"], of("model.requested").len(), "{id}");
        // Each call a model wrote counts, but for those that the count itself refused.
        let wrote: usize = of("model.replied").iter().map(|e| e["calls"].as_array().map_or(0, Vec::len)).sum();
        let refused = of("tool.decided").iter().filter(|e| e["rule"] == "budget.tool_calls").count();
        assert_eq!(sum["tool_calls"], wrote - refused, "{id}");
        let used = |e: &&Value| e["usage"]["input"].as_u64().unwrap_or(0) + e["usage"]["output"].as_u64().unwrap_or(0);
        assert_eq!(sum["tokens"], of("model.replied").iter().map(used).sum::<u64>(), "{id}");
        let state = of("run.finished").last().map_or("waiting", |e| e["state"].as_str().unwrap());
        assert_eq!(sum["state"], state, "{id}");
    }
    assert!(pieces.is_empty() && !runs.is_empty(), "{ran:?}");
    runs
}

/// Of every example that runs by itself.
#[test]
fn each_journal_tells_what_the_live_run_told() {
    let mut seen = 0;
    for name in ["01-quickstart", "03-inheritance", "04-claude-code", "05-durable"] {
        seen += lived_and_written(&fresh(name), &[]).len();
    }
    assert_eq!(seen, 4 + 3 + 3 + 1);
}

#[test]
fn quickstart() {
    let folder = fresh("01-quickstart");
    let ran = folder.run(&["run"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    matches_expected("01-quickstart", &told(&ran, &folder));
    explained(&ran, &folder);
    let summary = folder.read("out/summary.md").unwrap();
    assert_eq!(summary, "# What the papers agree on\n\nWhat is woven alive mends itself.\n");
    assert!(!format!("{}{}", ran.out, ran.err).contains("Nobody's business"), "the private file stayed private");
}

#[test]
fn inheritance() {
    let folder = fresh("03-inheritance");
    let ran = folder.run(&["run"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    matches_expected("03-inheritance", &told(&ran, &folder));
    explained(&ran, &folder);
    assert_eq!(folder.read("out/team/report.md").as_deref(), Some("Hazel planted.\n"));
    assert!(!folder.join("out/elsewhere.md").exists());
}

#[test]
fn durable() {
    let folder = fresh("05-durable");
    let ran = folder.run(&["run"]);
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(!folder.join("out/letter.md").exists(), "nothing was written unasked");
    let open = folder.run(&["answer", "--json"]);
    let question: serde_json::Value = serde_json::from_str(open.out.trim()).unwrap();
    let answered = folder.run(&["answer", question["id"].as_str().unwrap(), "allow"]);
    assert_eq!(answered.code, 0, "{}", answered.err);
    let waits = ran.err.split("\n\n").find(|part| part.contains("waits for a person")).unwrap_or(&ran.err);
    let found = format!("{}{}\n{}", told(&ran, &folder), plain(waits, &folder), told(&answered, &folder));
    matches_expected("05-durable", &found);
    assert!(folder.read("out/letter.md").unwrap().contains("forty hazels"));
}

#[test]
fn mcp_gateway() {
    let kits = crate::kits();
    let folder = fresh("02-mcp-gateway");
    let output = std::process::Command::new(binary())
        .arg("tools")
        .current_dir(folder.path())
        .env("PLEACH_KITS", &kits)
        .env("XDG_STATE_HOME", folder.join(".state"))
        .output()
        .unwrap();
    let ran = Ran::of(output);
    assert_eq!(ran.code, 0, "{}", ran.err);
    // Which tools a third party offers is its own business; what is allowed is ours.
    let allowed: Vec<String> = ran
        .out
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|l| l.contains(" allowed "))
        .collect();
    matches_expected("02-mcp-gateway", &format!("{}\n", allowed.join("\n")));
}

/// Each subagent's door lists what its file, the settings and the policy all leave it.
#[tokio::test]
async fn claude_code() {
    use serde_json::json;
    let folder = fresh("04-claude-code");
    let served = conformance::served::Served::start(&folder);
    let mut told = String::new();
    for agent in ["lead", "reviewer", "fixer"] {
        let door = format!("/mcp/agents/{agent}");
        let list = served.modern(&door, "tools/list", json!({}), &[]).await.json();
        let tools = list["result"]["tools"].as_array().unwrap().iter().filter_map(|t| t["name"].as_str());
        let tools: Vec<&str> = tools.filter(|name| name.starts_with("files__")).collect();
        told.push_str(&format!("{door}: {}\n", tools.join(" ")));
        let read = json!({ "name": "files__Read", "arguments": { "file_path": "docs/private/salaries.md" } });
        let answer = served.modern(&door, "tools/call", read, &[]).await;
        told.push_str(&format!("  {}\n", plain(&conformance::served::text(&answer), &folder).trim_end()));
    }
    drop(served);
    let check = folder.run(&["check"]);
    assert_eq!(check.code, 0, "{check:?}");
    let report = check.out.lines().filter(|l| l.starts_with(".claude/"));
    told.push_str(&format!("\n{}\n", report.collect::<Vec<_>>().join("\n")));
    let ran = folder.run(&["run"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    told.push_str(&format!("\n{}", self::told(&ran, &folder)));
    matches_expected("04-claude-code", &told);
    assert_eq!(folder.read("src/greet.py").as_deref(), Some("print(\"hello\")\n"));
    assert!(!told.contains("Nobody's business"), "the private file stayed private");
}
