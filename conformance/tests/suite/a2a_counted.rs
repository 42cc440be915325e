//! What a task at another gateway used counts here, and of what a tree may use each such task is
//! given its part: two gateways, judged by the files there and by what both journals say.

use crate::a2a_hop::{Pair, pair, run, said};
use conformance::served::Served;
use serde_json::Value;

const AGENTS: &str = r#"
[agents.thrice]
prompt = "p"
subagents = ["kid"]
policy = { budget = { tokens = 40000 } }
[agents.rich]
prompt = "p"
subagents = ["kid"]
[agents.few]
prompt = "p"
subagents = ["kid"]
policy = { spawn = { max_total = 4 } }
[agents.some]
prompt = "p"
subagents = ["kid"]
policy = { spawn = { max_total = 5 } }
"#;

/// Three messages one after another, or one.
fn replies() -> String {
    let mut replies = String::new();
    for agent in ["thrice", "rich"] {
        for (turn, file) in ["a", "b", "c"].iter().enumerate() {
            replies += &format!(
                "[[reply]]\nagent = \"{agent}\"\ntext = \"I send it.\"\nturn = {turn}\nusage = {{ input = 10, output = 10 }}\n\
                 [[reply.tool]]\nname = \"far__worker\"\ninput = {{ message = \"ok {agent} {file}7-put\" }}\n"
            );
        }
        replies += &format!("[[reply]]\nagent = \"{agent}\"\ntext = \"near: {{{{result}}}}\"\nturn = 3\n");
    }
    for agent in ["few", "some"] {
        replies += &format!(
            "[[reply]]\nagent = \"{agent}\"\ntext = \"I send it.\"\nturn = 0\n[[reply.tool]]\nname = \"far__worker\"\n\
             input = {{ message = \"{{{{prompt}}}}\" }}\n[[reply]]\nagent = \"{agent}\"\ntext = \"near: {{{{result}}}}\"\nturn = 1\n"
        );
    }
    replies
}

fn near(pair: &Pair, far: &Served) -> Served {
    drop(pair.near(&far.base));
    let policy = pair.near_folder.read("pleach.toml").unwrap();
    let policy =
        policy.replace("\"boss\", \"reader\"", "\"thrice\", \"rich\", \"few\", \"some\", \"boss\", \"reader\"");
    pair.near_folder.write("pleach.toml", &(policy + AGENTS));
    pair.near_folder.write("replies.toml", &replies());
    Served::start(&pair.near_folder)
}

/// What was counted, by the journal of a run.
fn counted(pair: &Pair, run: &str) -> Vec<Value> {
    let shown = pair.near_folder.run(&["show", run, "--json"]).out;
    let events = shown.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["type"] == "task.counted").map(|event| event["used"].clone()).collect()
}

fn rows(ran: &str) -> Vec<Value> {
    ran.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn what_is_used_elsewhere_is_used_up_here() {
    let pair = pair("", "");
    let far = Served::start(&pair.far_folder);
    let near = near(&pair, &far);
    // Each of the three uses ten thousand tokens, and each is given half of what is left.
    let done = run(&near, "thrice", "go").await;
    let there = |agent: &str| ["a", "b", "c"].map(|file| pair.is_there(&format!("ok {agent} {file}7-put")));
    assert_eq!(there("thrice"), [true, true, false], "{done}\n{}", said(&far));
    assert!(done.to_string().contains("budget.tokens"), "{done}");
    // Counted as the other side says, each once.
    let id = done["run"].as_str().unwrap();
    let used = counted(&pair, id);
    assert_eq!(used.len(), 3, "{used:?}");
    let far_rows = rows(&pair.far_folder.run(&["runs", "--json"]).out);
    let roots: Vec<&Value> = far_rows.iter().filter(|row| row["parent"].is_null()).collect();
    let theirs = |root: &Value, key: &str| -> u64 {
        let tree = far_rows.iter().filter(|row| row["root"] == root["run"]);
        tree.map(|row| if key == "runs" { 1 } else { row[key].as_u64().unwrap() }).sum()
    };
    for used in &used[..2] {
        let is = |root: &Value| {
            ["tokens", "turns", "tool_calls", "runs"].iter().all(|key| used[*key].as_u64() == Some(theirs(root, key)))
        };
        assert!(roots.iter().any(|root| is(root)), "{used}\n{far_rows:?}");
    }
    let sum = |key: &str| used.iter().map(|used| used[key].as_u64().unwrap()).sum::<u64>();
    // And it is part of what the run is said to have used.
    let near_rows = rows(&pair.near_folder.run(&["runs", "--json"]).out);
    let own = near_rows.iter().find(|row| row["run"] == id).unwrap();
    assert!(own["tokens"].as_u64().unwrap() >= sum("tokens") + 60, "{own}");
    // The twin has no limit.
    let done = run(&near, "rich", "go").await;
    assert_eq!(there("rich"), [true; 3], "{done}");
    // Of the runs that are left a task elsewhere has its part: one is the worker itself.
    for (agent, file, there) in [("few", "ok 21-put", false), ("some", "ok 22-put", true)] {
        let done = run(&near, agent, file).await;
        assert_eq!(pair.is_there(file), there, "{agent}: {done}");
        assert_eq!(done.to_string().contains("max_total"), !there, "{agent}: {done}");
    }
}
