//! An approval answered with another input for the call: it is judged afresh, done with that input
//! and no other, and the journal says both. Through each door that answers.

use crate::rest::{ALICE, BOSS, folder, post, start, until};
use conformance::pleach::Folder;
use conformance::served::{Served, text};
use serde_json::{Value, json};

fn question(folder: &Folder) -> String {
    let listed = folder.run(&["answer", "--json"]).out;
    let listed: Value = serde_json::from_str(listed.lines().next().expect("something is asked")).unwrap();
    listed["id"].as_str().unwrap().to_owned()
}
fn events(folder: &Folder, run: &str) -> Vec<Value> {
    let shown = folder.run(&["show", run, "--json"]).out;
    shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["type"] == kind).collect()
}
fn write(path: &str) -> Value {
    json!({ "file_path": path, "content": "given" })
}
/// A local file of the same agents, without named clients.
fn local() -> Folder {
    let folder = folder();
    let own = folder.read("pleach.toml").unwrap();
    let (before, rest) = own.split_once("[clients.alice]").unwrap();
    let agents = rest.split_once("[agents.quick]").unwrap().1;
    folder.write("pleach.toml", &format!("{before}[agents.quick]{agents}"));
    std::fs::create_dir_all(folder.join("out")).unwrap();
    folder
}

#[test]
fn another_input_is_done_in_the_place_of_the_one_asked_about() {
    let folder = local();
    assert_eq!(folder.run(&["run", "--agent", "writer", "go"]).code, 5);
    let id = question(&folder);
    for wrong in ["not json", "[1]", "\"text\""] {
        let refused = folder.run(&["answer", &id, "--input", wrong]);
        assert!(refused.code == 2 && refused.err.contains("no JSON object"), "{refused:?}");
    }
    let answered = folder.run(&["answer", &id, "--input", &write("out/g").to_string(), "--note", "there, please"]);
    assert_eq!(answered.code, 0, "{answered:?}");
    assert_eq!((folder.read("out/g").as_deref(), folder.read("out/f")), (Some("given"), None));
    assert!(
        answered.out.contains("local changed the input to") && answered.out.contains("there, please"),
        "{answered:?}"
    );
    // What was asked, what was answered, and what was done.
    let rows = folder.run(&["runs", "--json"]).out;
    let run = serde_json::from_str::<Value>(rows.trim()).unwrap()["run"].as_str().unwrap().to_owned();
    let events = events(&folder, &run);
    let requested: Vec<&Value> = of(&events, "tool.requested").iter().map(|e| &e["input"]["file_path"]).collect();
    assert_eq!(requested, ["out/f", "out/g"], "{events:?}");
    assert_eq!(of(&events, "run.answered")[0]["answer"]["value"], write("out/g"));
    let verdicts: Vec<&Value> = of(&events, "tool.decided").iter().map(|e| &e["verdict"]).collect();
    assert_eq!(verdicts, ["ask", "allow"]);
    assert!(of(&events, "tool.decided")[1]["rule"].as_str().unwrap().contains("input given by local"), "{events:?}");
    assert_eq!(of(&events, "tool.finished")[0]["outcome"], "ok");
}

#[test]
fn another_input_that_the_policy_denies_is_not_done() {
    for path in ["docs/g", "/etc/pleach-given"] {
        let folder = local();
        assert_eq!(folder.run(&["run", "--agent", "writer", "go"]).code, 5);
        let answered = folder.run(&["answer", &question(&folder), "--input", &write(path).to_string()]);
        assert!(answered.code == 0 && answered.out.contains("denied:"), "the model is told: {answered:?}");
        assert_eq!((folder.read(path), folder.read("out/f"), folder.read("out/g")), (None, None, None));
    }
    // Nor one that is no input of the tool's.
    let folder = local();
    assert_eq!(folder.run(&["run", "--agent", "writer", "go"]).code, 5);
    let answered = folder.run(&["answer", &question(&folder), "--input", "{\"path\": \"out/g\"}"]);
    assert!(answered.code == 0 && answered.out.contains("denied:"), "{answered:?}");
    assert_eq!(folder.read("out/f"), None);
}

/// Left for later and taken up by another process, it is the same.
#[test]
fn another_input_outlives_the_process_that_took_it() {
    let folder = local();
    assert_eq!(folder.run(&["run", "--agent", "writer", "go"]).code, 5);
    let left = folder.run(&["answer", &question(&folder), "--input", &write("out/g").to_string(), "--no-wait"]);
    assert_eq!((left.code, folder.read("out/g")), (0, None), "{left:?}");
    let rows = folder.run(&["runs", "--json"]).out;
    let run = serde_json::from_str::<Value>(rows.trim()).unwrap()["run"].as_str().unwrap().to_owned();
    let resumed = folder.run(&["resume", &run]);
    assert_eq!((resumed.code, folder.read("out/g").as_deref()), (0, Some("given")), "{resumed:?}");
    assert_eq!(folder.read("out/f"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_and_mcp_take_another_input_of_whoever_may_approve() {
    for over_mcp in [false, true] {
        let folder = folder();
        // The tools of the MCP door are for whoever may start something.
        let own = folder.read("pleach.toml").unwrap();
        folder.write("pleach.toml", &own.replace("can_approve = true", "can_approve = true\nmay_start = [\"quick\"]"));
        std::fs::create_dir_all(folder.join("out")).unwrap();
        let served = Served::start(&folder);
        for (path, done) in [("out/g", true), ("docs/g", false)] {
            let run = start(&served, ALICE, "writer").await;
            until(&served, ALICE, &run, "waiting").await;
            let id = question(&folder);
            let say = async |who, id: &str| match over_mcp {
                false => {
                    let answer =
                        post(&served, who, &format!("/v1/approvals/{id}"), json!({ "input": write(path) })).await;
                    answer.status == 200
                }
                true => {
                    let arguments = json!({ "id": id, "input": write(path) });
                    let params = json!({ "name": "pleach__answer", "arguments": arguments });
                    text(&served.modern("/mcp", "tools/call", params, &[who]).await).starts_with("answered")
                }
            };
            assert!(!say(ALICE, &id).await, "alice may not approve");
            assert!(say(BOSS, &id).await);
            let ended = until(&served, ALICE, &run, "completed").await;
            assert_eq!(folder.read(path).is_some(), done, "{ended}");
            assert_eq!(folder.read("out/f"), None);
            assert_eq!(ended.to_string().contains("denied:"), !done, "{ended}");
            assert!(ended.to_string().contains("boss changed the input"), "{ended}");
        }
    }
}

/// Saying something to a run over REST asks the rule that saying it over MCP does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_rest_asks_the_rule_of_its_tool() {
    for denied in [false, true] {
        let folder = folder();
        let own = folder.read("pleach.toml").unwrap();
        let rule =
            if denied { "ask = [\"files__Write\"], deny = [\"pleach__send\"]" } else { "ask = [\"files__Write\"]" };
        folder.write("pleach.toml", &own.replace("ask = [\"files__Write\"]", rule));
        let served = Served::start(&folder);
        let run = start(&served, ALICE, "quick").await;
        until(&served, ALICE, &run, "completed").await;
        let said = post(&served, ALICE, &format!("/v1/runs/{run}/messages"), json!({ "text": "And now?" })).await;
        let arguments = json!({ "run": run, "message": "And now?" });
        let params = json!({ "name": "pleach__send", "arguments": arguments });
        match denied {
            true => {
                assert_eq!(said.status, 403, "{said:?}");
                assert!(said.body.contains("pleach__send"), "{said:?}");
                let over_mcp = text(&served.modern("/mcp", "tools/call", params, &[ALICE]).await);
                assert!(over_mcp.starts_with("denied:"), "{over_mcp}");
                assert_eq!(until(&served, ALICE, &run, "completed").await["turns"], 1);
            }
            false => assert_eq!(said.status, 202, "{said:?}"),
        }
    }
}
