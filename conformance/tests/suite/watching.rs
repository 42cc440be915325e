//! What servers say unasked, and who hears it: watches that are judged afresh, streams that are
//! not left standing, and servers that say nothing when they should.

use conformance::pleach::Folder;
use conformance::served::Served;
use conformance::upstream::{Act, Upstream, legacy, modern, saying, told};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

const URI: &str = "pleach:far/note://one";
const UPDATED: &str = "notifications/resources/updated";

fn serve(upstream: &Upstream) -> (Folder, Served) {
    let folder = Folder::new(&format!(
        "version = 1\n[servers.far]\nurl = {:?}\ndefault_access = \"read-only\"\n[policy]\nfilesystem.read = [\"docs\"]\ntools.allow = [\"*\"]\n\
         [models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n\
         [agents.narrow]\nprompt = \"p\"\npolicy.filesystem.read = []\n",
        upstream.url()
    ));
    std::fs::create_dir(folder.join("docs")).unwrap();
    let served = Served::start(&folder);
    (folder, served)
}

fn watching(uris: &[&str]) -> Value {
    json!({ "resourceSubscriptions": uris })
}
fn capabilities(lists: bool) -> Value {
    json!({ "tools": { "listChanged": lists }, "resources": { "subscribe": true } })
}
fn resources(uris: &[&str]) -> Act {
    let all: Vec<Value> = uris.iter().map(|uri| json!({ "uri": uri, "name": "n" })).collect();
    Act::Result(json!({ "resultType": "complete", "ttlMs": 60000, "cacheScope": "private", "resources": all }))
}
fn templates() -> Act {
    Act::Result(json!({ "resultType": "complete", "ttlMs": 60000, "cacheScope": "private", "resourceTemplates": [] }))
}
/// What a modern server says first on a stream.
fn acknowledged(id: &Value, uris: Vec<Value>) -> Value {
    let own = json!({ "io.modelcontextprotocol/subscriptionId": id });
    let params = json!({ "notifications": { "resourceSubscriptions": uris }, "_meta": own });
    json!({ "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params })
}
fn updated(uri: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": UPDATED, "params": { "uri": uri } })
}

/// What a server had said once of a resource, that it reports it or that it does not, was
/// believed when it was watched again.
#[tokio::test]
async fn a_watch_is_judged_by_what_the_server_says_to_it() {
    for first in [true, false] {
        let say: Arc<Mutex<Option<mpsc::UnboundedSender<Value>>>> = Arc::default();
        let newest = say.clone();
        let upstream = Upstream::start(move |seen| match seen.method.as_str() {
            "subscriptions/listen" => {
                let reports = (seen.before == 0) == first;
                let uris = if reports { vec!["note://one".into()] } else { vec![] };
                let (say, said) = mpsc::unbounded_channel();
                say.send(acknowledged(&seen.body["id"], uris)).unwrap();
                *newest.lock().unwrap() = Some(say);
                Act::Stream(said)
            }
            "resources/list" => resources(&["note://one"]),
            "resources/templates/list" => templates(),
            _ => modern(seen, capabilities(false), &[]).unwrap_or(Act::Hang),
        });
        let (_folder, served) = serve(&upstream);
        for reported in [first, !first] {
            let mut listening = served.listen("/mcp", watching(&[URI]), &[]).await;
            listening.until("acknowledged").await;
            assert_eq!(listening.heard.contains(URI), reported, "{first}: {}", listening.heard);
            if reported {
                say.lock().unwrap().as_ref().unwrap().send(updated("note://one")).unwrap();
                listening.until(UPDATED).await;
            }
            drop(listening);
            // Nobody watches any more, so nothing is listened to.
            upstream.until_open(0).await;
        }
        assert_eq!(upstream.came("subscriptions/listen").len(), 2);
    }
}

/// Of a server that never acknowledges, one more stream stood for ever with each watch.
#[tokio::test]
async fn streams_of_a_server_that_never_acknowledges_do_not_pile_up() {
    let upstream = Upstream::start(|seen| match seen.method.as_str() {
        "subscriptions/listen" => saying([], true),
        "resources/list" => resources(&["note://one"]),
        "resources/templates/list" => templates(),
        "tools/call" => Act::Result(told("done")),
        _ => modern(seen, capabilities(true), &["act"]).unwrap_or(Act::Hang),
    });
    let (_folder, served) = serve(&upstream);
    served.modern("/mcp", "tools/list", json!({}), &[]).await;
    upstream.until("subscriptions/listen", 1).await;
    let mut listening = served.listen("/mcp", watching(&[URI]), &[]).await;
    listening.until("acknowledged").await;
    assert!(!listening.heard.contains(URI), "it does not say that it reports: {}", listening.heard);
    let asked = upstream.until("subscriptions/listen", 2).await;
    assert_eq!(asked[1].body["params"]["notifications"]["resourceSubscriptions"], json!(["note://one"]));
    upstream.until_open(1).await;
}

/// One resource that could not be watched cost all others of the same request.
#[tokio::test]
async fn a_watch_that_hangs_costs_itself() {
    let (say, said) = mpsc::unbounded_channel();
    let stream = Mutex::new(Some(said));
    let upstream = Upstream::start(move |seen| match (seen.method.as_str(), seen.body["params"]["uri"].as_str()) {
        ("GET", _) => stream.lock().unwrap().take().map_or(Act::Status(405, Value::Null), Act::Stream),
        ("resources/list", _) => resources(&["note://one", "note://hung"]),
        ("resources/templates/list", _) => templates(),
        ("resources/subscribe", Some("note://one")) => Act::Result(json!({})),
        _ => legacy(seen, capabilities(false), &[]).unwrap_or(Act::Hang),
    });
    let (_folder, served) = serve(&upstream);
    let mut listening = served.listen("/mcp", watching(&[URI, "pleach:far/note://hung"]), &[]).await;
    listening.until("acknowledged").await;
    assert!(listening.heard.contains(URI) && !listening.heard.contains("note://hung"), "{}", listening.heard);
    say.send(updated("note://hung")).unwrap();
    say.send(updated("note://one")).unwrap();
    listening.until(UPDATED).await;
    assert!(listening.heard.contains(URI) && !listening.heard.contains("note://hung"), "{}", listening.heard);
}

/// A server over HTTP is one for all doors of a principal, but only the door that used it first
/// heard what it says; and words Pleach has no part in were heard by nobody.
#[tokio::test]
async fn every_door_of_a_principal_hears_a_far_server() {
    let (say, said) = mpsc::unbounded_channel();
    let stream = Mutex::new(Some(said));
    let upstream = Upstream::start(move |seen| match seen.method.as_str() {
        "GET" => stream.lock().unwrap().take().map_or(Act::Status(405, Value::Null), Act::Stream),
        "resources/list" => resources(&["note://one", "note://two"]),
        "resources/templates/list" => templates(),
        "resources/subscribe" | "resources/unsubscribe" => Act::Result(json!({})),
        "tools/call" => Act::Result(told("done")),
        _ => legacy(seen, capabilities(false), &["act"]).unwrap_or(Act::Hang),
    });
    let (_folder, served) = serve(&upstream);
    let params = json!({ "name": "far__act", "arguments": {} });
    served.modern("/mcp", "tools/call", params, &[]).await;
    let mut there = served.listen("/mcp/agents/narrow", watching(&[URI]), &[]).await;
    there.until("acknowledged").await;
    assert!(there.heard.contains(URI), "{}", there.heard);
    let session = served.initialize("/mcp/agents/narrow", &[]).await;
    let mut old = served.stand("/mcp/agents/narrow", &session, &[]).await;
    assert_eq!(old.status(), 200);
    say.send(json!({ "jsonrpc": "2.0", "method": "notifications/strange", "params": { "odd": 1.0 } })).unwrap();
    say.send(updated("note://two")).unwrap();
    say.send(updated("note://one")).unwrap();
    there.until(UPDATED).await;
    assert!(there.heard.contains(URI), "{}", there.heard);
    // Only what it asked for.
    assert!(!there.heard.contains("note://two") && !there.heard.contains("strange"), "{}", there.heard);
    old.until("notifications/strange").await;
    assert!(!old.heard.contains(UPDATED), "{}", old.heard);
}
