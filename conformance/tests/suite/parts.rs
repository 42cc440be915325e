//! Whoever holds a token can make ever new parts of it. What they make processes of is counted for
//! the client they are parts of.

use crate::rest::{ALICE, BOB};
use conformance::pleach::Folder;
use conformance::served::{Answer, Served};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Instances of one server that one client may have in use.
const MOST: usize = 32;

/// Its one tool answers when the file `go` is in a folder.
const SERVER: &str = r#"
import json, os, sys, time
for line in sys.stdin:
    m = json.loads(line)
    if "id" not in m: continue
    if m["method"] == "tools/call":
        while not os.path.exists(os.path.join(m["params"]["arguments"]["path"], "go")): time.sleep(0.05)
        r = {"content": [{"type": "text", "text": "gone"}]}
    else:
        tool = {"name": "hold", "inputSchema": {"type": "object", "properties": {"path": {"type": "string"}}}}
        r = {"initialize": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}},
             "tools/list": {"tools": [tool]}}.get(m["method"])
    out = {"result": r} if r else {"error": {"code": -32601, "message": "no"}}
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], **out}), flush=True)
"#;

async fn hold(served: &Served, bearer: &str, path: &Path) -> Answer {
    let call = json!({ "name": "s__hold", "arguments": { "path": path } });
    served.modern("/mcp", "tools/call", call, &[("authorization", bearer)]).await
}

#[tokio::test]
async fn parts_of_a_client_are_counted_for_the_client() {
    let folder = Folder::new(
        "version = 1\n[servers.s]\ncommand = \"python3\"\nargs = [\"srv/server.py\"]\nruntime_paths = [\"srv\"]\n\
         timeout = 600000\ndefault_access = \"read-only\"\ntools = { hold = { path_args = [\"/path\"] } }\n\
         [policy]\nfilesystem = { read = [\"out\"] }\ntools.allow = [\"s__*\"]\n\
         [clients.alice]\ntoken = \"alice-alice-alice-alice\"\n[clients.bob]\ntoken = \"bob-bob-bob-bob-bob-bob\"\n",
    );
    folder.write("srv/server.py", SERVER);
    let served = Arc::new(Served::start(&folder));
    let place = |n: usize| folder.join(&format!("out/{n}"));
    let part = |n: usize| {
        folder.write(&format!("out/{n}/.keep"), "");
        let grant = json!({ "filesystem": { "read": [place(n)] } }).to_string();
        let minted = folder.run(&["token", "mint", "--client", "alice", "--url", &served.base, "--grant", &grant]);
        assert_eq!(minted.code, 0, "{minted:?}");
        format!("Bearer {}", minted.out.trim())
    };
    // One more than there may be, which answers at once: idle, it makes room.
    let extra = part(MOST);
    folder.write(&format!("out/{MOST}/go"), "");
    assert!(hold(&served, &extra, &place(MOST)).await.body.contains("gone"));
    let mut held = Vec::new();
    for n in 0..MOST {
        let (served, bearer, path) = (served.clone(), part(n), place(n));
        held.push(tokio::spawn(async move {
            loop {
                let answer = hold(&served, &bearer, &path).await;
                // The one that answers at once may have been there at this moment.
                if !answer.body.contains("instances of server") {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }));
    }
    let until = async |words: &str| {
        let said = tokio::time::timeout(Duration::from_secs(120), async {
            loop {
                let answer = hold(&served, &extra, &place(MOST)).await;
                if answer.body.contains(words) {
                    return;
                }
                assert!(answer.body.contains("gone") || answer.body.contains("instances of server s"), "{answer:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        said.await.unwrap_or_else(|_| panic!("{words:?} was not said"));
    };
    until("client alice has 32 instances of server s in use").await;
    // Another client has its own, and none of alice's was ended for it.
    folder.write("out/go", "");
    let answer = hold(&served, BOB.1, &folder.join("out")).await;
    assert!(answer.body.contains("gone"), "{answer:?}");
    let answer = hold(&served, ALICE.1, &folder.join("out")).await;
    assert!(answer.body.contains("instances of server s"), "{answer:?}");
    // When one of them is done there is room again.
    folder.write("out/0/go", "");
    let first = held.remove(0).await.unwrap();
    assert!(first.body.contains("gone"), "{first:?}");
    until("gone").await;
    for (n, held) in (1..).zip(held) {
        folder.write(&format!("out/{n}/go"), "");
        let answer = held.await.unwrap();
        assert!(answer.body.contains("gone"), "{answer:?}");
    }
}
