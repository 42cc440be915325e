//! Peers that lie, break, hang and flood: each costs its own calls, with a reason, and nothing the
//! operator gave to be shown to one reaches anybody else.

use crate::a2a_peers::{asking, call, near};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use conformance::pleach::Folder;
use conformance::served::text;
use conformance::upstream::{Act, Seen, Upstream, saying};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

const SECRET: &str = "headers = { Authorization = \"Bearer the-secret\" }";

pub(crate) fn card(url: &str, streaming: bool) -> Value {
    json!({
        "name": "p", "version": "1", "capabilities": { "streaming": streaming },
        "supportedInterfaces": [{ "url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0" }],
        "skills": [{ "id": "act", "name": "act", "description": "Acts.", "tags": [] }],
    })
}
pub(crate) fn task(state: &str) -> Value {
    json!({ "id": "t-1", "contextId": "c-1", "status": { "state": format!("TASK_STATE_{state}") },
        "artifacts": if state == "COMPLETED" { json!([{ "artifactId": "a", "parts": [{ "text": "done" }] }]) } else { json!([]) } })
}
/// A peer whose card names itself; the rest the test does.
pub(crate) fn peer(streaming: bool, does: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Upstream {
    Upstream::of(move |base| {
        let card = card(base, streaming);
        move |seen: &Seen| if seen.method == "GET" { Act::Status(200, card.clone()) } else { does(seen) }
    })
}
pub(crate) fn event(seen: &Seen, value: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": seen.body["id"], "result": value })
}
/// What the operator is told of a peer.
fn told(folder: &Folder) -> String {
    let ran = folder.run(&["tools"]);
    format!("{}{}", ran.out, ran.err)
}
fn shown(upstream: &Upstream) -> usize {
    ["GET", "SendMessage", "GetTask", "CancelTask", "SendStreamingMessage"]
        .iter()
        .flat_map(|method| upstream.came(method))
        .filter(|seen| !seen.header("authorization").is_empty())
        .count()
}

/// A card that sends its callers elsewhere is refused; named by the operator, the other is used,
/// and then alone is shown what he gave.
#[tokio::test]
async fn credentials_go_to_the_origin_the_operator_named() {
    let other = peer(false, |_| Act::Result(json!({ "task": task("COMPLETED") })));
    let there = other.base.clone();
    let liar = Upstream::start(move |_| Act::Status(200, card(&there, false)));
    let (folder, served) = near(&[("p", &liar.base, SECRET)], "");
    let refused = call(&served, "p__act", json!({ "message": "go" })).await;
    assert!(refused.body.contains("could not be listed"), "{refused:?}");
    assert!(told(&folder).contains("sends its callers to"), "{}", told(&folder));
    assert_eq!((other.came("SendMessage").len(), shown(&other)), (0, 0));
    assert!(shown(&liar) > 0, "its own origin may see them");
    // The twin.
    let before = shown(&liar);
    let (_folder, served) = near(&[("p", &liar.base, &format!("url = {:?}\n{SECRET}", other.base))], "");
    assert_eq!(text(&call(&served, "p__act", json!({ "message": "go" })).await), "done");
    assert_eq!(other.came("SendMessage")[0].header("authorization"), "Bearer the-secret");
    assert_eq!(shown(&liar), before, "the card's origin is another's now");
}

#[tokio::test]
async fn no_redirect_is_followed() {
    let other = peer(false, |_| Act::Result(json!({ "task": task("COMPLETED") })));
    for of_card in [true, false] {
        let to = other.base.clone();
        let liar = Upstream::of(move |base| {
            let card = card(base, false);
            move |seen: &Seen| match seen.method.as_str() {
                "GET" if !of_card => Act::Status(200, card.clone()),
                _ => Act::Headed(307, "location", to.clone()),
            }
        });
        let (folder, served) = near(&[("p", &liar.base, SECRET)], "");
        let refused = call(&served, "p__act", json!({ "message": "go" })).await;
        let why = if of_card { told(&folder) } else { refused.body.clone() };
        assert!(why.contains("a redirect is not followed"), "{why} {refused:?}");
    }
    assert_eq!((other.came("GET").len(), other.came("SendMessage").len()), (0, 0));
}

/// stream -> subscribe -> poll.
#[tokio::test]
async fn a_broken_stream_is_taken_up_and_then_asked_for() {
    let working = || json!({ "task": task("WORKING") });
    let taken_up = peer(true, move |seen| match seen.method.as_str() {
        "SendStreamingMessage" => saying([event(seen, working())], false),
        "SubscribeToTask" => {
            let done = json!({ "statusUpdate": { "taskId": "t-1", "contextId": "c-1", "status": task("COMPLETED")["status"] } });
            let made = json!({ "artifactUpdate": { "taskId": "t-1", "artifact": { "artifactId": "a", "parts": [{ "text": "done" }] } } });
            saying([event(seen, working()), event(seen, made), event(seen, done)], true)
        }
        _ => Act::Status(500, json!({})),
    });
    let polled = peer(true, move |seen| match seen.method.as_str() {
        "SendStreamingMessage" => saying([event(seen, working())], false),
        "SubscribeToTask" => Act::Error(json!({ "code": -32004, "message": "no streams" })),
        "GetTask" if seen.before < 2 => Act::Result(task("WORKING")),
        "GetTask" => Act::Result(task("COMPLETED")),
        _ => Act::Status(500, json!({})),
    });
    let (_folder, served) = near(&[("t", &taken_up.base, ""), ("p", &polled.base, "")], "");
    assert_eq!(text(&call(&served, "t__act", json!({ "message": "go" })).await), "done");
    assert_eq!(text(&call(&served, "p__act", json!({ "message": "go" })).await), "done");
    assert_eq!((polled.came("SendStreamingMessage").len(), polled.came("GetTask").len()), (1, 3));
    // One that never said which task it was: nobody knows what became of it, and it is not asked again.
    let mute = peer(true, |_| saying([], false));
    let (_folder, served) = near(&[("m", &mute.base, "")], "");
    let lost = call(&served, "m__act", json!({ "message": "go" })).await;
    assert!(lost.body.contains("said of no task"), "{lost:?}");
    assert_eq!(mute.came("SendStreamingMessage").len(), 1);
}

#[tokio::test]
async fn one_that_hangs_is_left_and_its_task_cancelled() {
    let hung = peer(true, |seen| match seen.method.as_str() {
        "SendStreamingMessage" => saying([event(seen, json!({ "task": task("WORKING") }))], true),
        "CancelTask" => Act::Result(task("CANCELED")),
        _ => Act::Hang,
    });
    let good = peer(false, |_| Act::Result(json!({ "task": task("COMPLETED") })));
    let (_folder, served) = near(&[("h", &hung.base, "timeout = 1000"), ("g", &good.base, "")], "");
    // Listed first: that takes of the same second.
    assert!(served.modern("/mcp", "tools/list", json!({}), &[]).await.body.contains("h__act"));
    let late = call(&served, "h__act", json!({ "message": "go" })).await;
    assert!(late.body.contains("within 1 s"), "{late:?}");
    assert_eq!(hung.until("CancelTask", 1).await[0].body["params"]["id"], "t-1");
    assert_eq!(text(&call(&served, "g__act", json!({ "message": "go" })).await), "done", "its neighbour");
}

/// What a peer says arrives as it said it; a reply may be no task at all; a no is an answer.
#[tokio::test]
async fn replies_of_every_kind() {
    let parts =
        json!([{ "text": "plain" }, { "data": { "n": 1 }, "x": 1 }, { "url": "https://e.example/f", "filename": "f" }]);
    let message = peer(false, move |_| {
        Act::Result(json!({ "message": { "messageId": "m", "role": "ROLE_AGENT", "contextId": "c", "parts": parts } }))
    });
    let no = peer(false, |_| Act::Error(json!({ "code": -32005, "message": "not that" })));
    let failed = peer(false, |_| {
        let mut failed = task("FAILED");
        failed["status"]["message"] =
            json!({ "messageId": "m", "role": "ROLE_AGENT", "parts": [{ "text": "out of fuel" }] });
        Act::Result(json!({ "task": failed }))
    });
    let other = peer(true, |seen| {
        let foreign = json!({ "statusUpdate": { "taskId": "t-2", "status": { "state": "TASK_STATE_COMPLETED" } } });
        saying([event(seen, json!({ "task": task("WORKING") })), event(seen, foreign)], true)
    });
    let (_folder, served) =
        near(&[("m", &message.base, ""), ("n", &no.base, ""), ("f", &failed.base, ""), ("o", &other.base, "")], "");
    let said = call(&served, "m__act", json!({ "message": "go", "data": { "big": 12345678901234567890_u64 } }))
        .await
        .json()["result"]
        .clone();
    assert_eq!(
        (&said["content"][0]["text"], &said["content"][1]["text"]),
        (&json!("plain"), &json!("{\"n\":1}")),
        "{said}"
    );
    assert_eq!(
        (&said["content"][2]["uri"], &said["structuredContent"]["data"][0]["n"]),
        (&json!("https://e.example/f"), &json!(1))
    );
    let sent = message.came("SendMessage")[0].body["params"]["message"].clone();
    assert_eq!(
        (&sent["parts"][1]["data"]["big"], &sent["metadata"]["skillId"]),
        (&json!(12345678901234567890_u64), &json!("act"))
    );
    for (tool, why) in [("n__act", "not that"), ("f__act", "out of fuel")] {
        let refused = call(&served, tool, json!({ "message": "go" })).await;
        assert!(refused.json()["result"]["isError"] == true && text(&refused).contains(why), "{refused:?}");
    }
    let strange = call(&served, "o__act", json!({ "message": "go" })).await;
    assert!(strange.body.contains("speaks of another task"), "{strange:?}");
}

#[tokio::test]
async fn a_huge_answer_is_not_read_to_its_end() {
    let huge = "x".repeat(17 << 20);
    let flood = peer(false, move |_| Act::Result(json!({ "task": { "id": "t", "metadata": { "x": huge } } })));
    let (_folder, served) = near(&[("f", &flood.base, "")], "");
    let refused = call(&served, "f__act", json!({ "message": "go" })).await;
    assert!(refused.body.contains("larger than"), "{:.300}", refused.body);
}

/// A card that must be signed is believed with the right signature only.
#[tokio::test]
async fn an_unsigned_or_badly_signed_card_is_refused() {
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap();
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let keys = format!(
        "keys = {{ keys = [{{ kty = \"OKP\", crv = \"Ed25519\", kid = \"k\", x = {:?} }}] }}",
        part(pair.public_key().as_ref())
    );
    for (kind, good) in [("right", true), ("none", false), ("of another card", false), ("unknown key", false)] {
        let upstream = Upstream::of(|base| {
            let mut card = card(base, false);
            // serde_json sorts keys, which is the canonical form here.
            let mut payload = card.clone();
            if kind == "of another card" {
                payload["name"] = "q".into();
            }
            let kid = if kind == "unknown key" { "other" } else { "k" };
            let protected = part(
                json!({ "alg": "EdDSA", "kid": kid, "typ": "JOSE", "jku": "https://evil.example/" })
                    .to_string()
                    .as_bytes(),
            );
            let signed = format!("{protected}.{}", part(payload.to_string().as_bytes()));
            if kind != "none" {
                card["signatures"] =
                    json!([{ "protected": protected, "signature": part(pair.sign(signed.as_bytes()).as_ref()) }]);
            }
            move |seen: &Seen| match seen.method.as_str() {
                "GET" => Act::Status(200, card.clone()),
                _ => Act::Result(json!({ "task": task("COMPLETED") })),
            }
        });
        let (folder, served) = near(&[("p", &upstream.base, &keys)], "");
        let answer = call(&served, "p__act", json!({ "message": "go" })).await;
        assert_eq!(text(&answer) == "done", good, "{kind}: {answer:?}");
        assert_eq!(upstream.came("SendMessage").len(), usize::from(good), "{kind}");
        assert!(good || told(&folder).contains("sign"), "{kind}: {}", told(&folder));
    }
}

/// A question is nobody's after the one who was asked has left: over there it is cancelled.
#[tokio::test]
async fn permissions_are_asked_for_too() {
    let wants = peer(false, |seen| match (seen.method.as_str(), seen.body["params"]["message"]["taskId"].as_str()) {
        ("SendMessage", None) => Act::Result(json!({ "task": task("AUTH_REQUIRED") })),
        ("SendMessage", Some("t-1")) => Act::Result(json!({ "task": task("COMPLETED") })),
        _ => Act::Status(500, json!({})),
    });
    let (_folder, served) = near(&[("w", &wants.base, "")], "");
    let asked = asking(&served, "w__act", json!({ "message": "go" }), json!({})).await;
    assert!(
        asked["inputRequests"]["question"]["params"]["message"].as_str().unwrap().contains("permission"),
        "{asked}"
    );
    let answers = json!({ "question": { "action": "accept", "content": { "answer": "allow" } } });
    let more = json!({ "requestState": asked["requestState"], "inputResponses": answers });
    let done = asking(&served, "w__act", json!({ "message": "go" }), more).await;
    assert_eq!(done["content"][0]["text"], "done", "{done}");
    assert_eq!(wants.came("SendMessage")[1].body["params"]["message"]["parts"][0]["text"], "allow");
    // A state that was not given to this client is none.
    let forged = json!({ "requestState": "{\"task\":\"t-1\"}", "inputResponses": answers });
    asking(&served, "w__act", json!({ "message": "go" }), forged).await;
    assert_eq!(wants.came("SendMessage").len(), 2);
}

/// Who is not believed any more in the middle of a task is not told that nothing was done; who never
/// was is.
#[tokio::test]
async fn a_refusal_in_the_middle_says_nothing_of_what_was_done() {
    for (middle, words) in [(true, "while task t-1 was under way"), (false, "asks who we are")] {
        let upstream = peer(false, move |seen| match (seen.method.as_str(), middle) {
            ("SendMessage", true) => Act::Result(json!({ "task": task("WORKING") })),
            _ => Act::Status(401, json!({})),
        });
        let (folder, served) = near(&[("p", &upstream.base, "tools = { act = { effect = \"once\" } }")], "");
        let answer = call(&served, "p__act", json!({ "message": "go" })).await;
        assert!(answer.body.contains(words), "{middle}: {answer:?}");
        drop(served);
        let more = "[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[agents.a]\nprompt = \"p\"\n";
        folder.write("pleach.toml", &format!("{}{more}", folder.read("pleach.toml").unwrap()));
        folder.write(
            "replies.toml",
            "[[reply]]\nturn = 0\ntext = \"I do.\"\n[[reply.tool]]\nname = \"p__act\"\ninput = { message = \"go\" }\n\
             [[reply]]\nturn = 1\ntext = \"{{result}}\"\n",
        );
        let ran = folder.run(&["run", "--agent", "a", "go"]);
        assert_eq!(ran.out.contains("unknown: "), middle, "{ran:?}");
    }
}
