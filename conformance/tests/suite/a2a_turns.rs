//! Whose turn it is, where several parts of a task ask at once, messages are named twice, and an
//! answer comes too late. Each of these was once heard by the wrong ear.

use crate::a2a::{answered, code, message, result, send, state, to_task};
use conformance::pleach::Folder;
use conformance::served::Served;
use serde_json::{Value, json};

const NOBODY: (&str, &str) = ("x-nobody", "1");
const POLICY: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[servers.files]
builtin = "workspace"
[policy]
max_access = "read-write"
filesystem = { read_write = ["out"] }
tools = { allow = ["files__*"], ask = ["files__Write"] }
[gateway]
default_agent = "lead"
[agents.lead]
prompt = ""
subagents = ["child"]
[agents.child]
prompt = ""
[agents.two]
prompt = ""
expose = true
[agents.writer]
prompt = ""
expose = true
"#;

const REPLIES: &str = r#"
[[reply]]
agent = "lead"
[[reply.tool]]
name = "Agent"
input = { description = "d", prompt = "ask", subagent_type = "child", run_in_background = true }
[[reply]]
agent = "lead"
text = "I wait for my child."
[[reply]]
agent = "lead"
text = "It heard: {{prompt}}"
[[reply]]
agent = "child"
[[reply.tool]]
name = "ask_user"
input = { question = "Child: which?" }
[[reply]]
agent = "child"
text = "child heard {{result}}"
[[reply]]
agent = "two"
[[reply.tool]]
name = "ask_user"
input = { question = "First?" }
[[reply.tool]]
name = "ask_user"
input = { question = "Second?", options = ["x", "y"] }
[[reply]]
agent = "two"
text = "both: {{results}}"
[[reply]]
agent = "writer"
[[reply.tool]]
name = "files__Write"
input = { file_path = "out/harmless", content = "a" }
[[reply]]
agent = "writer"
[[reply.tool]]
name = "files__Write"
input = { file_path = "out/dangerous", content = "b" }
[[reply]]
agent = "writer"
text = "done"
"#;

fn folder() -> Folder {
    let folder = Folder::new(POLICY);
    folder.write("replies.toml", REPLIES);
    std::fs::create_dir_all(folder.join("out")).unwrap();
    folder
}

fn named(task: &Value, id: &str, text: &str, question: &Value) -> Value {
    let mut params = to_task(task, id, text);
    params["message"]["metadata"] = json!({ "pleach/question": question });
    params
}

/// Leave that was asked for one call is never taken for another, whoever answered the first.
#[tokio::test]
async fn leave_is_given_to_the_call_that_was_shown() {
    let folder = folder();
    let served = Served::start(&folder);
    let shown = send(&served, NOBODY, "writer", message("m-1", "go")).await;
    let first = &shown["status"]["message"]["metadata"]["pleach/question"];
    let elsewhere = format!("/v1/approvals/{}", first.as_str().unwrap());
    let denied = served.post(&elsewhere, &[], json!({ "decision": "deny" }).to_string()).await;
    assert_eq!(denied.status, 200, "{denied:?}");
    let second = answered(&served, "writer", &shown, |task| {
        let question = &task["status"]["message"]["metadata"]["pleach/question"];
        question.is_string() && question != first
    });
    let second = second.await;
    assert_eq!(second["status"]["message"]["metadata"]["pleach/form"]["arguments"]["file_path"], "out/dangerous");
    let late = named(&shown, "m-2", "allow", first);
    assert_eq!(code(&served, NOBODY, "writer", "SendMessage", late).await, -32602);
    assert_eq!((folder.read("out/harmless"), folder.read("out/dangerous")), (None, None));
    let own = second["status"]["message"]["metadata"]["pleach/question"].clone();
    let done = send(&served, NOBODY, "writer", named(&shown, "m-3", "allow", &own)).await;
    assert_eq!(state(&done), "TASK_STATE_COMPLETED");
    assert_eq!((folder.read("out/harmless"), folder.read("out/dangerous").as_deref()), (None, Some("b")));
}

/// What a child in the background asks is the task's question as long as it is open, whatever its
/// parent does meanwhile.
#[tokio::test]
async fn what_a_part_of_it_asks_the_task_asks() {
    let folder = folder();
    let served = Served::start(&folder);
    let asks = send(&served, NOBODY, "lead", message("m-1", "go")).await;
    let asks = answered(&served, "lead", &asks, |task| state(task) == "TASK_STATE_INPUT_REQUIRED").await;
    assert_eq!(asks["status"]["message"]["parts"][0]["text"], "Child: which?");
    let listed = result(&served, NOBODY, "lead", "ListTasks", json!({ "status": "TASK_STATE_INPUT_REQUIRED" })).await;
    assert_eq!(listed["totalSize"], 1);
    // A blocking call that says what was said already comes back at once.
    let again = send(&served, NOBODY, "lead", message("m-1", "go")).await;
    assert_eq!((&again["id"], state(&again)), (&asks["id"], "TASK_STATE_INPUT_REQUIRED"));
    let done = send(&served, NOBODY, "lead", to_task(&asks, "m-2", "red")).await;
    assert_eq!(state(&done), "TASK_STATE_COMPLETED", "{done}");
}

#[tokio::test]
async fn several_questions_are_answered_one_after_another_or_by_name() {
    let folder = folder();
    let served = Served::start(&folder);
    let asked = send(&served, NOBODY, "two", message("m-1", "go")).await;
    let told = |task: &Value| task["status"]["message"]["parts"][0]["text"].as_str().unwrap().to_owned();
    // Calls of one turn are made side by side: either may be asked first. "x" answers both.
    let first = told(&asked);
    let second = if first == "First?" { "Second?" } else { "First?" };
    assert!(["First?", "Second?"].contains(&first.as_str()), "{asked}");
    let next = send(&served, NOBODY, "two", to_task(&asked, "m-2", "x")).await;
    assert_eq!((state(&next), told(&next).as_str()), ("TASK_STATE_INPUT_REQUIRED", second));
    let formed = if first == "Second?" { &asked } else { &next };
    assert_eq!(formed["status"]["message"]["metadata"]["pleach/form"]["options"], json!(["x", "y"]));
    let question = next["status"]["message"]["metadata"]["pleach/question"].clone();
    let done = send(&served, NOBODY, "two", named(&asked, "m-3", "y", &question)).await;
    assert_eq!(state(&done), "TASK_STATE_COMPLETED");
    let said: Vec<&str> =
        done["history"].as_array().unwrap().iter().map(|m| m["parts"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(said, ["go", first.as_str(), "x", second, "y"], "each once, in order");
    let ids: std::collections::BTreeSet<&str> =
        done["history"].as_array().unwrap().iter().map(|m| m["messageId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 5, "no two have one name");
}

/// A client that names all its messages alike is heard all the same, and a repetition is none.
#[tokio::test]
async fn a_name_is_used_twice_and_a_message_is_not() {
    let folder = folder();
    let served = Served::start(&folder);
    let asked = send(&served, NOBODY, "two", message("1", "go")).await;
    let next = send(&served, NOBODY, "two", to_task(&asked, "1", "x")).await;
    let told = |task: &Value| task["status"]["message"]["parts"][0]["text"].clone();
    assert!(told(&next).is_string() && told(&next) != told(&asked), "the other one is asked now: {next}");
    let task = result(&served, NOBODY, "two", "GetTask", json!({ "id": asked["id"] })).await;
    // What was said, asked and is wanted is the same; the journal may have come to rest meanwhile.
    for at in ["/id", "/history", "/status/state", "/status/message"] {
        assert_eq!(task.pointer(at), next.pointer(at), "{at}");
    }
    let generation = |task: &Value| task["metadata"]["pleach/generation"].as_u64().unwrap();
    assert!(generation(&task) >= generation(&next), "{task}");
}

/// An artifact that was to go on is closed by the end of its task: whoever puts chunks together is
/// told that there are no more.
#[tokio::test]
async fn the_last_chunk_is_said_even_if_none_was_meant_to_be() {
    let folder = Folder::new(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy]\n[agents.maker]\n\
         prompt = \"p\"\nexpose = true\n",
    );
    let piece = |turn: u32, name: &str, text: &str, more: bool| {
        format!(
            "[[reply]]\nturn = {turn}\n[[reply.tool]]\nname = \"emit_artifact\"\n\
             input = {{ name = {name:?}, media_type = \"text/plain\", content = {text:?}, more = {more} }}\n"
        )
    };
    let replies = piece(0, "open", "one", true) + &piece(1, "whole", "all", false) + &piece(2, "open", "two", true);
    folder.write("replies.toml", &(replies + "[[reply]]\nturn = 3\ntext = \"done\"\n"));
    let served = Served::start(&folder);
    let said = json!({ "messageId": "m-1", "role": "ROLE_USER", "parts": [{ "text": "go" }] });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": { "message": said } });
    let mut stream = served.open("/a2a/maker", &[("a2a-version", "1.0")], body.to_string()).await;
    stream.end().await;
    let frames = stream.heard.lines().filter_map(|line| line.strip_prefix("data: "));
    let updates = frames.map(|data| serde_json::from_str::<Value>(data).unwrap()["result"].clone());
    let chunks: Vec<Value> = updates
        .filter_map(|update| update.get("artifactUpdate").cloned())
        .map(|update| {
            let artifact = &update["artifact"];
            json!([artifact["name"], artifact["parts"][0]["text"], update["append"], update["lastChunk"]])
        })
        .collect();
    let wanted = json!([
        ["open", "one", false, false],
        ["whole", "all", false, true],
        ["open", "two", true, false],
        ["open", "", true, true],
        ["answer", "done", false, true],
    ]);
    assert_eq!(Value::from(chunks), wanted, "{}", stream.heard);
}
