//! Every example, run as its README says, against its `expected.txt`.

use conformance::pleach::{Folder, Ran, binary};
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
fn fresh(name: &str) -> Folder {
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

fn matches_expected(name: &str, found: &str) {
    let path = examples().join(name).join("expected.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(found, expected, "{name}: set UPDATE_EXPECTED=1 if the new output is right");
}

/// The summary, which does not depend on which sibling was faster, and the answer.
fn told(ran: &Ran, folder: &Folder) -> String {
    let summary = ran.err.split("\n\n").find(|part| part.contains(" allowed, ")).unwrap_or(&ran.err);
    format!("{}\n{}", plain(summary, folder), ran.out)
}

#[test]
fn quickstart() {
    let folder = fresh("01-quickstart");
    let ran = folder.run(&["run"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    matches_expected("01-quickstart", &told(&ran, &folder));
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
