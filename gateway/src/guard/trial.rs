//! The guard's own row in the table of layers: a server elsewhere, whom no sandbox of ours holds.
//! What the policy denies never reaches it; with the judgement left out, and that alone, it does.
//! What the policy allows reaches it both ways. Seen at the server.

use super::{Approve, Decided, Guard};
use crate::live::Live;
use crate::servers::Servers;
use crate::settings::{self, Loaded};
use adapters::mcp::Exchange;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use policies::authority::Authority;
use policies::json::{Json, Object};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use subagents::run::Caller;
use tokio_util::task::TaskTracker;

/// The names of the tools whose calls arrived.
type Arrived = Arc<Mutex<Vec<String>>>;

/// A server somebody else runs, of the legacy era.
async fn far(arrived: Arrived) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/mcp", post(answer)).with_state(arrived);
    TaskTracker::new().spawn(async move { axum::serve(listener, router).await });
    address
}

async fn answer(State(arrived): State<Arrived>, asked: Bytes) -> Response {
    let asked: Value = serde_json::from_slice(&asked).unwrap();
    let Some(id) = asked.get("id") else { return StatusCode::ACCEPTED.into_response() };
    let result = match asked["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": "2025-11-25",
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "far", "version": "1" },
        }),
        Some("tools/list") => json!({ "tools": [tool("look", true), tool("drop", true), tool("change", false)] }),
        Some("tools/call") => {
            arrived.lock().unwrap().push(asked["params"]["name"].as_str().unwrap().to_owned());
            json!({ "content": [{ "type": "text", "text": "done" }] })
        }
        _ => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            return told(&json!({ "jsonrpc": "2.0", "id": id, "error": error }));
        }
    };
    told(&json!({ "jsonrpc": "2.0", "id": id, "result": result }))
}

fn told(message: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], message.to_string()).into_response()
}

fn tool(name: &str, looks: bool) -> Value {
    json!({
        "name": name,
        "description": "",
        "inputSchema": { "type": "object", "properties": { "path": { "type": "string" } } },
        "annotations": { "readOnlyHint": looks },
    })
}

fn load(folder: &Path, name: &str, text: &str) -> Loaded {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    let loaded = settings::understand(name, text, &file).unwrap();
    Loaded { state: folder.join("state"), packages: folder.join("packages"), ..loaded }
}

/// Makes a call, or says why not.
async fn call(guard: &Guard, caller: &Caller, tool: &str, arguments: Json) -> Result<(), String> {
    match guard.decide(caller, tool, arguments).await {
        Decided::Allowed(permit, _) => {
            guard.perform(caller, permit, Object::new(), Exchange::default()).await.unwrap();
            Ok(())
        }
        Decided::Denied(denial) => Err(denial.for_person()),
        Decided::Unknown => panic!("{tool} is not known"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_reaches_a_far_server_only_without_the_judgement() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let at = |path: &Path| Json::object([("path", path.display().to_string().into())]);
    for judged in [true, false] {
        let kept = tempfile::tempdir().unwrap();
        let folder = kept.path().canonicalize().unwrap();
        let arrived = Arrived::default();
        let server = format!(
            "version = 1\n[servers.far]\nurl = \"http://{}/mcp\"\nannotations = \"trust\"\n\
             tools.look.path_args = [\"/path\"]\n",
            far(arrived.clone()).await
        );
        let rules = "[policy]\nmax_access = \"read-only\"\nfilesystem.read = [\".\"]\n\
                     tools = { allow = [\"far__*\"], deny = [\"far__drop\"] }\n";
        let everything = "[policy]\nmax_access = \"destructive\"\nfilesystem.read_write = [\"/\"]\n\
                          tools = { allow = [\"*\"] }\n";
        let loaded = Arc::new(load(&folder, "pleach.toml", &format!("{server}{rules}")));
        let door = |loaded: &Loaded| -> Authority { loaded.policy.door(None) };
        let caller = Caller::new("local", "whoever asks", door(&loaded));
        let servers = Servers::new(Live::new(loaded));
        let mut guard = Guard::new(servers.clone(), Approve::Nobody);
        if !judged {
            guard.anything = Some(door(&load(&folder, "everything.toml", &format!("{server}{everything}"))));
        }
        // What is allowed, both ways; it also has the server listed.
        let notes = folder.join("notes.txt");
        std::fs::write(&notes, "").unwrap();
        call(&guard, &caller, "far__look", at(&notes)).await.unwrap();
        // Denied by name; above the ceiling; a path outside the grant.
        for (tool, arguments) in
            [("far__drop", at(&notes)), ("far__change", at(&notes)), ("far__look", at(outside.path()))]
        {
            let made = call(&guard, &caller, tool, arguments).await;
            assert_eq!(made.is_ok(), !judged, "{tool}, judged: {judged}: {made:?}");
        }
        let came: Vec<String> = std::mem::take(&mut *arrived.lock().unwrap());
        let all = ["look", "drop", "change", "look"];
        assert_eq!(came, all[..if judged { 1 } else { all.len() }], "judged: {judged}");
        servers.shutdown().await;
    }
}
