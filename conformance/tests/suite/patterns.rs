//! The patterns among the examples: each run as its README says, judged by the files it left,
//! and with the one word of the policy taken back, without which it would have gone through.

use crate::examples::{explained, fresh, lived_and_written, matches_expected, told};
use conformance::pleach::{Folder, Ran};
use serde_json::{Value, json};

fn completed(folder: &Folder, args: &[&str]) -> Ran {
    let ran = folder.run(&[&["run"], args].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    explained(&ran, folder);
    ran
}

/// Changes a file of the example, which must hold what is changed.
fn change(folder: &Folder, file: &str, from: &str, to: &str) {
    let text = folder.read(file).unwrap();
    assert!(text.contains(from), "{file} holds no {from}");
    folder.write(file, &text.replace(from, to));
}

/// `3 stopped` of the summary.
fn stopped(ran: &Ran) -> u32 {
    let line = ran.err.lines().find(|l| l.contains(" allowed, ")).unwrap();
    line.split(", ").nth(1).unwrap().strip_suffix(" stopped").unwrap().parse().unwrap()
}

/// Where each denial of a tree comes from, and the tool it was about.
fn denials(runs: &[Vec<Value>]) -> Vec<(String, String)> {
    let of_run = |run: &Vec<Value>| {
        let name = |id: &Value| {
            let asked = run.iter().find(|e| e["type"] == "tool.requested" && e["id"] == *id).unwrap();
            asked["name"].as_str().unwrap().to_owned()
        };
        let denied = run.iter().filter(|e| e["type"] == "tool.decided" && e["verdict"] == "deny");
        denied.map(|e| (name(&e["id"]), e["rule"].as_str().unwrap().to_owned())).collect::<Vec<_>>()
    };
    runs.iter().flat_map(of_run).collect()
}

#[test]
fn each_policy_file_is_one_without_a_warning() {
    for name in ["06-sequential", "07-parallel", "08-routing", "09-map-reduce", "10-evaluator", "11-hierarchy"] {
        let checked = fresh(name).run(&["check"]);
        assert_eq!(checked.code, 0, "{name}: {checked:?}");
        assert!(!format!("{checked:?}").contains("warning"), "{name}: {checked:?}");
    }
}

#[test]
fn sequential() {
    let folder = fresh("06-sequential");
    let ran = completed(&folder, &[]);
    matches_expected("06-sequential", &told(&ran, &folder));
    assert_eq!(folder.read("out/answer.md").as_deref(), Some("Dear Thorn & Sons, forty hazels leave on Monday."));
    assert!(!folder.join("out/forwarding.md").exists(), "the letter's order was carried out by nobody");

    // What stands in the ledger reached no model: it is in no event of any run.
    let again = fresh("06-sequential");
    let runs = lived_and_written(&again, &[]);
    assert_eq!(runs.len(), 4);
    assert!(!format!("{runs:?}").contains("1200"));

    // With more in the reader's table the same letter gets through.
    let open = fresh("06-sequential");
    change(
        &open,
        "pleach.toml",
        "filesystem = { read = [\"inbox\"] }",
        "filesystem = { read = [\"inbox\", \"ledger\"] }",
    );
    assert_eq!(stopped(&completed(&open, &[])), 1);
}

#[test]
fn parallel() {
    let folder = fresh("07-parallel");
    let before = folder.read("src/hedge.sh");
    let ran = completed(&folder, &[]);
    matches_expected("07-parallel", &told(&ran, &folder));
    let review = folder.read("out/review.md").unwrap();
    let by: Vec<&str> = review.lines().filter_map(|l| l.split(':').next()).collect();
    assert_eq!(by, ["style", "security", "tester"], "in the order they were asked in, not in which they were done");
    assert_eq!(folder.read("src/hedge.sh"), before);

    // Never more than two at work at once.
    let again = fresh("07-parallel");
    let runs = lived_and_written(&again, &[]);
    let at = |run: &Vec<Value>, kind: &str| run.iter().find(|e| e["type"] == kind).map(|e| e["at"].as_u64().unwrap());
    let spans = runs[1..].iter().map(|run| (at(run, "model.requested").unwrap(), at(run, "run.finished").unwrap()));
    let spans: Vec<(u64, u64)> = spans.collect();
    assert_eq!(spans.len(), 3);
    for (from, _) in &spans {
        let at_work = spans.iter().filter(|(begun, done)| begun <= from && from < done).count();
        assert!(at_work <= 2, "{spans:?}");
    }

    let alerts = runs.iter().flatten().filter(|e| e["type"] == "budget.alert");
    let alerts: Vec<Value> = alerts.map(|e| json!([e["what"], e["used"], e["limit"]])).collect();
    assert_eq!(alerts, [json!(["tool_calls", 3, 3])], "the tester's budget, said once");

    let open = fresh("07-parallel");
    change(&open, "pleach.toml", "read = [\"src\", \"docs\"]", "read = [\"src\", \"docs\", \"advisories\"]");
    change(&open, "replies.toml", ", budget = { tool_calls = 3 }", "");
    change(&open, "pleach.toml", "filesystem = { read = [\"src\"] }", "filesystem = { read_write = [\"src\"] }");
    change(&open, "pleach.toml", "read_write = [\"out\"]", "read_write = [\"out\", \"src\"]");
    assert_eq!(stopped(&completed(&open, &[])), 0);
    assert_eq!(open.read("src/hedge.sh").as_deref(), Some("exit 0\n"));
}

#[test]
fn routing() {
    let folder = fresh("08-routing");
    let mut found = String::new();
    let asked: [&[&str]; 3] = [&[], &["What about invoice 7?"], &["I want my money back."]];
    for args in asked {
        found.push_str(&told(&completed(&folder, args), &folder));
        found.push('\n');
        let runs = lived_and_written(&fresh("08-routing"), args);
        let agents: Vec<&str> = runs[1..].iter().map(|run| run[0]["agent"].as_str().unwrap()).collect();
        let only: &[&str] = match args {
            [] => &["gardener"],
            [text] if text.contains("invoice") => &["accounts"],
            _ => &[],
        };
        assert_eq!(agents, only, "{args:?}");
    }
    assert!(!folder.join("out/paid.md").exists() && !folder.join("out/paid-back.md").exists());

    // Whom the desk cannot start, a person can.
    let ran = completed(&folder, &["--agent", "cashier", "Pay back 120 for invoice 7."]);
    found.push_str(&told(&ran, &folder));
    matches_expected("08-routing", &found);
    assert_eq!(folder.read("out/paid-back.md").as_deref(), Some("Pay back 120 for invoice 7.\n"));

    // On the desk's list the cashier is started, and still writes nothing beneath it.
    let open = fresh("08-routing");
    change(&open, "pleach.toml", "subagents = [\"gardener\", \"accounts\"]", "subagents = [\"gardener\", \"cashier\"]");
    let runs = lived_and_written(&open, &["I want my money back."]);
    assert_eq!(runs[1][0]["agent"], "cashier");
    let denied = denials(&runs);
    assert!(
        matches!(&denied[..], [(tool, rule)] if tool == "files__Write" && rule.contains("agent desk")),
        "{denied:?}"
    );
    assert!(!open.join("out/paid-back.md").exists());
}

#[test]
fn map_reduce() {
    let folder = fresh("09-map-reduce");
    let ran = completed(&folder, &[]);
    matches_expected("09-map-reduce", &told(&ran, &folder));
    let sum = "beds/east.md 12 kg\nbeds/north.md 31 kg\nbeds/south.md 8 kg\nbeds/west.md 19 kg\ntotal 70 kg\n";
    assert_eq!(folder.read("out/harvest.md").as_deref(), Some(sum));

    // The sum is of what stands in the documents.
    let other = fresh("09-map-reduce");
    change(&other, "beds/west.md", "Harvest: 19 kg", "Harvest: 119 kg");
    let runs = lived_and_written(&other, &[]);
    assert_eq!(runs.len(), 6);
    assert_eq!(other.read("out/harvest.md").unwrap().lines().last(), Some("total 170 kg"));

    // Readers that are started without a word about documents read their neighbours'.
    let open = fresh("09-map-reduce");
    let replies = open.read("replies.toml").unwrap();
    let lines =
        replies.lines().map(|l| l.split_once(", policy = ").map_or(l.to_owned(), |(wish, _)| format!("{wish} }}")));
    open.write("replies.toml", &lines.collect::<Vec<_>>().join("\n"));
    let ran = completed(&open, &[]);
    assert_eq!(stopped(&ran), 1, "only the adder: {}", ran.err);
}

#[test]
fn evaluator() {
    let folder = fresh("10-evaluator");
    let ran = completed(&folder, &[]);
    let mut found = told(&ran, &folder);
    assert_eq!(folder.read("out/line.txt").as_deref(), Some("A hedge is a fence that went on living\n"));
    assert_eq!(folder.read("rules/words.txt").as_deref(), Some("6\n"), "the writer did not change the rule");

    let signs = fresh("10-evaluator");
    let ran = completed(&signs, &["A line about hedges, for signs."]);
    found.push_str(&format!("\n{}", told(&ran, &signs)));
    matches_expected("10-evaluator", &found);
    assert_eq!(signs.read("out/line.txt").as_deref(), Some("A hedge is a living fence\n"));

    // The cap is the number in the file, whatever the editor wants.
    for (most, line) in [(7, "went on living\n"), (5, "after somebody asked\n"), (3, "asked it kindly to\n")] {
        let folder = fresh("10-evaluator");
        change(&folder, "pleach.toml", "max_total = 7", &format!("max_total = {most}"));
        let runs = lived_and_written(&folder, &[]);
        assert_eq!(runs.len(), most);
        let cap = denials(&runs).into_iter().filter(|(_, rule)| rule.contains("spawn.max_total"));
        assert!(cap.count() >= 1);
        assert!(folder.read("out/line.txt").unwrap().ends_with(line), "{most}");
    }

    // The verdict is the command's: with a wider rule the same first line is accepted.
    let wide = fresh("10-evaluator");
    wide.write("rules/words.txt", "15\n");
    let ran = completed(&wide, &["A line about hedges, for signs."]);
    assert!(ran.err.contains("editor  Accepted: 15 words. Once more."), "{}", ran.err);
}

#[test]
fn hierarchy() {
    let folder = fresh("11-hierarchy");
    let ran = completed(&folder, &[]);
    matches_expected("11-hierarchy", &told(&ran, &folder));
    for plot in ["north/hill", "north/brook", "south/hill", "south/brook"] {
        assert_eq!(folder.read(&format!("out/{plot}/log.md")).as_deref(), Some("hazel\n"), "{plot}");
    }
    assert!(!folder.join("out/done.md").exists());

    // Each refusal is of the level whose word it was, and each level has one.
    let again = fresh("11-hierarchy");
    let runs = lived_and_written(&again, &[]);
    let depths: Vec<u64> = runs.iter().map(|run| run[0]["depth"].as_u64().unwrap()).collect();
    let at = |depth| depths.iter().filter(|d| **d == depth).count();
    assert_eq!((at(0), at(1), at(2), depths.len()), (1, 2, 4, 7));
    let denied = denials(&runs);
    for (tool, whose) in [
        ("files__Write", "at agent steward"),
        ("files__Read", "at request of steward"),
        ("Agent", "at agent forester"),
        ("files__Write", "at request of steward"),
        ("files__Write", "at request of forester"),
        ("files__Bash", "at root policy"),
    ] {
        assert_eq!(denied.iter().filter(|(t, rule)| t == tool && rule.contains(whose)).count(), 1, "{tool} {whose}");
    }
    assert_eq!(denied.len(), 6);

    // A forester that gives its planter all it has lets it into the next plot, and no further.
    let open = fresh("11-hierarchy");
    change(&open, "replies.toml", "read_write = [\"out/north/hill\"]", "read_write = [\"out/north\"]");
    let denied = denials(&lived_and_written(&open, &[]));
    assert_eq!(denied.len(), 5, "{denied:?}");
    assert!(!denied.iter().any(|(_, rule)| rule.contains("request of forester")), "{denied:?}");
    assert_eq!(open.read("out/south/hill/log.md").as_deref(), Some("hazel\n"));
}
