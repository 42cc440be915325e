//! Cards that are signed, as others check them; what is known of a client by name; and
//! `pleach client add`, whose lines are run as they are printed.

use crate::a2a::{message, result, send};
use crate::kits;
use crate::rest::{ALICE, folder};
use conformance::pleach::{Folder, Ran};
use conformance::served::Served;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const V1: (&str, &str) = ("a2a-version", "1.0");
const CARD: &str = "/a2a/quick/.well-known/agent-card.json";

/// A folder whose agents everybody sees.
fn shown() -> Folder {
    let folder = folder();
    let policy = folder.read("pleach.toml").unwrap();
    folder.write("pleach.toml", &policy.replace("prompt = \"p\"", "prompt = \"p\"\nexpose = true"));
    folder
}

/// What the official SDK's verifier says of a card: `ok`, or why not.
fn verified(card: &str, keys: &str) -> String {
    let script = format!("{}/tests/suite/clients/a2a_verify.py", env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("card.json"), card).unwrap();
    std::fs::write(folder.path().join("keys.json"), keys).unwrap();
    let mut command = Command::new(kits().join("a2a/venv/bin/python"));
    let ran = Ran::of(command.arg(script).current_dir(folder.path()).output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out.trim().to_owned()
}

/// The operator's words for what an agent does are its card's; without any it is its own skill.
#[tokio::test]
async fn a_card_offers_what_the_operator_says() {
    let folder = shown();
    let policy = folder.read("pleach.toml").unwrap();
    let skills = "[[agents.quick.skills]]\nid = \"echo\"\nname = \"Echo\"\ndescription = \"Says it again.\"\n\
        tags = [\"words\"]\nexamples = [\"Hello\"]\n[[agents.quick.skills]]\nid = \"bare\"\ndescription = \"Nothing more.\"\n";
    folder.write("pleach.toml", &(policy + skills));
    let served = Served::start(&folder);
    let card = served.get(CARD, &[V1]).await.json();
    let echo = json!({ "id": "echo", "name": "Echo", "description": "Says it again.", "tags": ["words"],
        "examples": ["Hello"], "inputModes": card["defaultInputModes"], "outputModes": card["defaultOutputModes"] });
    assert_eq!(card["skills"][0], echo, "{card}");
    assert_eq!((&card["skills"][1]["name"], &card["skills"][1]["tags"]), (&json!("bare"), &json!(["agent"])), "{card}");
    assert_eq!(card["skills"].as_array().unwrap().len(), 2);
    let other = served.get("/a2a/lead/.well-known/agent-card.json", &[V1]).await.json();
    assert_eq!(other["skills"][0]["id"], "lead", "{other}");
}

#[tokio::test]
async fn a_card_is_signed_so_that_others_can_check_it() {
    let folder = shown();
    let served = Served::start(&folder);
    let keys = served.get("/.well-known/jwks.json", &[]).await.body;
    let extended = result(&served, ALICE, "lead", "GetExtendedAgentCard", json!({})).await.to_string();
    let both = served.get(CARD, &[]).await;
    let pure = served.get(CARD, &[V1]).await;
    for card in [&both.body, &pure.body, &extended] {
        assert_eq!(verified(card, &keys), "ok", "{card}");
        assert_ne!(verified(&card.replacen("\"description\":\"", "\"description\":\"Not ", 1), &keys), "ok", "changed");
    }
    // How one says who one is belongs to it.
    for change in [json!([]), json!([{ "schemes": { "other": { "list": ["client"] } } }])] {
        let mut card = pure.json();
        assert_eq!(card["securityRequirements"], json!([{ "schemes": { "bearer": { "list": ["client"] } } }]));
        card["securityRequirements"] = change;
        assert_ne!(verified(&card.to_string(), &keys), "ok", "{card}");
    }
    let protected = pure.json()["signatures"][0]["protected"].as_str().unwrap().to_owned();
    let protected = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, protected).unwrap();
    let protected: Value = serde_json::from_slice(&protected).unwrap();
    let jku = format!("{}/.well-known/jwks.json", served.base);
    assert_eq!(
        (&protected["alg"], &protected["typ"], &protected["jku"]),
        (&json!("ES256"), &json!("JOSE"), &json!(jku))
    );
    assert_eq!(protected["kid"], serde_json::from_str::<Value>(&keys).unwrap()["keys"][0]["kid"]);
    // Asked again it is the same to the letter; who has it need not read it, also after a restart.
    assert_eq!(served.get(CARD, &[V1]).await.body, pure.body);
    let etag = pure.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(served.get(CARD, &[V1, ("if-none-match", &etag)]).await.status, 304);
    drop(served);
    let key = find(folder.path(), "signing.key").expect("the key is in the state folder");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let served = Served::start(&folder);
    assert_eq!(served.get("/.well-known/jwks.json", &[]).await.body, keys, "the same key");
    let again = served.get(CARD, &[V1]).await;
    assert_eq!(verified(&again.body, &keys), "ok");
    // Another gateway's key signs nothing of ours.
    let other = Served::start(&shown());
    let theirs = other.get("/.well-known/jwks.json", &[]).await.body;
    assert_ne!(verified(&again.body, &theirs), "ok");
    assert_ne!(theirs, keys);
}

fn find(folder: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).find_map(|path| match path.is_dir() {
        true => find(&path, name),
        false => (path.file_name()? == name).then_some(path),
    })
}

/// What we serve our own peers believe, with the right key and no other.
#[tokio::test]
async fn a_pleach_believes_the_cards_of_another_by_its_key() {
    let (folder, other) = (shown(), shown());
    let (far, stranger) = (Served::start(&folder), Served::start(&other));
    let tools = async |keys: String| {
        let card = format!("{}{CARD}", far.base);
        let policy = format!(
            "version = 1\n[peers.far]\ncard = {card:?}\nkeys = \"keys.json\"\ndefault_access = \"read-only\"\n\
             headers = {{ Authorization = \"{}\" }}\n[policy]\ntools.allow = [\"*\"]\n",
            ALICE.1
        );
        let near = Folder::new(&policy);
        near.write("keys.json", &keys);
        let served = Served::start(&near);
        let listed = served.modern("/mcp", "tools/list", json!({}), &[]).await.json();
        let names = listed["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone());
        names.filter(|name| name.as_str().unwrap().starts_with("far__")).collect::<Vec<Value>>()
    };
    assert_eq!(tools(far.get("/.well-known/jwks.json", &[]).await.body).await, [json!("far__quick")]);
    assert_eq!(tools(stranger.get("/.well-known/jwks.json", &[]).await.body).await, [] as [Value; 0]);
}

#[tokio::test]
async fn an_extended_card_shows_what_its_reader_may_use() {
    let folder = shown();
    let policy = folder.read("pleach.toml").unwrap();
    let policy = policy.replace("subagents = [\"quick\"]", "subagents = [\"quick\", \"writer\"]");
    folder.write("pleach.toml", &policy.replace("may_start = [\"quick\"]", "may_start = [\"quick\", \"lead\"]"));
    let served = Served::start(&folder);
    for (who, wanted) in [(ALICE, vec!["lead", "quick", "writer"]), (crate::rest::BOB, vec!["lead", "quick"])] {
        let card = result(&served, who, "lead", "GetExtendedAgentCard", json!({})).await;
        let skills = card["skills"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap());
        assert_eq!(skills.collect::<Vec<_>>(), wanted, "{}", who.1);
    }
}

/// The lines that are printed, run by a shell as they are.
#[test]
fn a_client_is_added_and_its_curl_line_works() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let policy = format!(
        "version = 1\n[gateway]\nlisten = \"127.0.0.1:{port}\"\n[models.default]\nprovider = \"scripted\"\n\
         script = \"replies.toml\"\n[policy] # kept\n[agents.greeter]\nprompt = \"p\"\nexpose = true\n\
         [agents.hidden]\nprompt = \"p\"\n"
    );
    let folder = Folder::new(&policy);
    folder.write("replies.toml", "[[reply]]\ntext = \"Hello back: {{prompt}}\"\n");
    let added = folder.run(&["client", "add", "partner", "--json"]);
    assert_eq!(added.code, 0, "{added:?}");
    let added: Value = serde_json::from_str(&added.out).unwrap();
    let token = added["token"].as_str().unwrap();
    let now = folder.read("pleach.toml").unwrap();
    assert!(!now.contains(token) && now.contains("[clients.partner]") && now.contains("# kept"), "{now}");
    assert_eq!(added["agents"].as_array().unwrap().len(), 1, "only who is exposed: {added}");
    let again = folder.run(&["client", "add", "partner"]);
    assert!(again.code == 2 && again.err.contains("[clients.partner] already"), "{again:?}");
    for wrong in [vec!["a b"], vec!["other", "--may-start", "nobody"], vec!["other", "--url", "nothing"]] {
        let told = folder.run(&[vec!["client", "add"], wrong.clone()].concat());
        assert_eq!((told.code, folder.read("pleach.toml")), (2, Some(now.clone())), "{wrong:?}: {told:?}");
    }
    let plain = folder.run(&["client", "add", "second", "--may-start", "hidden"]);
    assert_eq!(plain.code, 0, "{plain:?}");
    let second = plain.out.lines().find_map(|line| line.strip_prefix("try    ")).unwrap().to_owned();
    assert!(plain.out.contains("card   none for everybody") && second.contains("/a2a/hidden"), "{plain:?}");
    assert_eq!(folder.run(&["check"]).code, 0);
    let _served = Served::of(folder.command(&["serve"]));
    let shell = |line: &str| Ran::of(Command::new("sh").args(["-c", line]).output().unwrap());
    for line in [added["agents"][0]["curl"].as_str().unwrap(), &second] {
        let said = shell(line);
        let answer: Value = serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {line}: {said:?}"));
        let text = &answer["result"]["task"]["artifacts"][0]["parts"][0]["text"];
        assert_eq!(text, "Hello back: Hello", "{line}: {answer}");
        // Its twins: with another token, and without one, it does not.
        for other in [line.replace("Bearer pleach_", "Bearer pleach_x"), line.replace("Authorization", "X-Nothing")] {
            let said = shell(&other);
            assert!(said.out.contains("-32600") && !said.out.contains("Hello back"), "{other}: {said:?}");
        }
    }
    let card = shell(&format!("curl -sS {}", added["agents"][0]["card"].as_str().unwrap()));
    assert_eq!(serde_json::from_str::<Value>(&card.out).unwrap()["name"], "greeter");
}

/// Of those added at the same moment none is lost, and the file stays as readable as it was.
#[test]
fn clients_added_at_once_are_all_there() {
    let folder = Folder::new("version = 1\n[policy] # kept\n");
    std::fs::set_permissions(folder.join("pleach.toml"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let names: Vec<String> = (0..12).map(|n| format!("c{n}")).collect();
    let adding: Vec<_> = names.iter().map(|name| folder.command(&["client", "add", name]).spawn().unwrap()).collect();
    for mut one in adding {
        assert!(one.wait().unwrap().success());
    }
    let now = folder.read("pleach.toml").unwrap();
    for name in &names {
        assert!(now.contains(&format!("[clients.{name}]")), "{name} is lost: {now}");
    }
    assert!(now.contains("# kept") && folder.run(&["check"]).code == 0, "{now}");
    assert_eq!(std::fs::metadata(folder.join("pleach.toml")).unwrap().permissions().mode() & 0o777, 0o640);
}

/// What a message was made of is told as it was sent, wherever it was said.
#[tokio::test]
async fn a_history_keeps_parts_as_they_were_sent() {
    let folder = folder();
    let served = Served::start(&folder);
    let parts = json!([
        { "text": "go", "metadata": { "n": 1 } },
        { "data": { "list": [1, 2.5, "x"], "none": null } },
        { "raw": "Yg==", "mediaType": "text/plain", "filename": "b.txt" },
        { "url": "https://example.com/c", "mediaType": "text/plain" },
    ]);
    let mut first = message("m-1", "-");
    first["message"]["parts"] = parts.clone();
    let task = send(&served, ALICE, "asker", first).await;
    assert_eq!(task["history"][0]["parts"], parts);
    let mut second = crate::a2a::to_task(&task, "m-2", "-");
    second["message"]["parts"] = json!([{ "data": "red", "mediaType": "application/json" }]);
    let done = send(&served, ALICE, "asker", second.clone()).await;
    assert_eq!(done["artifacts"][0]["parts"][0]["text"], "heard: red", "{done}");
    let history = done["history"].as_array().unwrap();
    let said = history.iter().find(|m| m["messageId"] == "m-2").unwrap();
    assert_eq!(said["parts"], second["message"]["parts"]);
    drop(served);
    // It stands in the journal: another process tells the same.
    let served = Served::start(&folder);
    let got = result(&served, ALICE, "asker", "GetTask", json!({ "id": task["id"] })).await;
    assert_eq!(got["history"], done["history"]);
}
