//! Push notifications: told in order and at least once, over a restart and a kill, proved in the way
//! that was asked for, and only where the policy lets their client reach. Judged by what arrived.

use crate::a2a::{code, message, result, send, state, to_task};
use crate::rest::{ALICE, BOB, folder, folder_with};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use conformance::pleach::Folder;
use conformance::served::Served;
use conformance::upstream::{Act, Seen, Upstream};
use ring::{digest, hmac, signature};
use serde_json::{Value, json};
use std::time::Duration;

const V1: (&str, &str) = ("a2a-version", "1.0");
const LOOPBACK: &str = "networks = { allow = [\"127.0.0.0/8\"] }";
const SET: &str = "CreateTaskPushNotificationConfig";
const GET: &str = "GetTaskPushNotificationConfig";
const LIST: &str = "ListTaskPushNotificationConfigs";
const DELETE: &str = "DeleteTaskPushNotificationConfig";

fn hook() -> Upstream {
    Upstream::start(|_| Act::Status(204, Value::Null))
}
/// A message that wants somebody told.
fn telling(id: &str, config: Value) -> Value {
    let mut params = message(id, "go");
    params["configuration"] = json!({ "taskPushNotificationConfig": config });
    params
}
/// What a notification of 1.0 says, in a word.
fn word(seen: &Seen) -> String {
    let body = &seen.body;
    match body["artifactUpdate"].is_object() {
        true => format!("artifact {}", body["artifactUpdate"]["artifact"]["parts"][0]["text"].as_str().unwrap()),
        false => state(&body["statusUpdate"]).replace("TASK_STATE_", ""),
    }
}
fn words(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(word).collect()
}
/// The claims of a token by the published key; the body it is of must be this one.
async fn proved(served: &Served, seen: &Seen) -> Value {
    let token = seen.header("pleach-token");
    let (message, mark) = token.rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    let read = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
    let header: Value = serde_json::from_slice(&read(header)).unwrap();
    let keys = served.get("/.well-known/jwks.json", &[]).await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    let keys = keys.json();
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).unwrap();
    assert_eq!((&header["alg"], key.get("d")), (&json!("ES256"), None));
    let mut point = vec![4];
    point.extend(["x", "y"].iter().flat_map(|part| read(key[part].as_str().unwrap())));
    let public = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
    public.verify(message.as_bytes(), &read(mark)).unwrap();
    let claims: Value = serde_json::from_slice(&read(claims)).unwrap();
    let body = digest::digest(&digest::SHA256, seen.body.to_string().as_bytes());
    assert_eq!(claims["body_sha256"], BASE64_URL_SAFE_NO_PAD.encode(body));
    claims
}

#[tokio::test]
async fn a_task_is_told_change_by_change() {
    let (hook, folder) = (hook(), folder_with(LOOPBACK));
    let served = Served::start(&folder);
    let url = format!("{}/hook?of=alice", hook.base);
    let config =
        json!({ "url": url, "token": "tok-1", "authentication": { "scheme": "Bearer", "credentials": "s3cret" } });
    let task = send(&served, ALICE, "asker", telling("m-1", config)).await;
    assert_eq!(state(&task), "TASK_STATE_INPUT_REQUIRED");
    hook.until("POST", 3).await;
    send(&served, ALICE, "asker", to_task(&task, "m-2", "red")).await;
    let seen = hook.until("POST", 6).await;
    let wanted = ["WORKING", "WORKING", "INPUT_REQUIRED", "WORKING", "artifact heard: red", "COMPLETED"];
    assert_eq!(words(&seen), wanted);
    for one in &seen {
        let inner = one.body.as_object().unwrap().values().next().unwrap();
        assert_eq!((one.body.as_object().unwrap().len(), &inner["taskId"]), (1, &task["id"]));
        let given = ["authorization", "x-a2a-notification-token", "content-type", "a2a-version"].map(|h| one.header(h));
        assert_eq!(given, ["Bearer s3cret", "tok-1", "application/json", "1.0"]);
        let claims = proved(&served, one).await;
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!(served.base), &json!(url)));
        assert_eq!((&claims["taskId"], claims["jti"].as_str().unwrap()), (&task["id"], one.header("pleach-delivery")));
    }
    assert_eq!(seen[4].body["artifactUpdate"]["lastChunk"], true);
    let mut names: Vec<&str> = seen.iter().map(|s| s.header("pleach-delivery")).collect();
    names.dedup();
    assert_eq!(names.len(), 6, "each its own: {names:?}");
    let events = folder.run(&["show", task["id"].as_str().unwrap(), "--json"]).out;
    assert!(!events.contains("s3cret") && !events.contains("tok-1"));
}

/// As the clients that say with every message whom to tell.
#[tokio::test]
async fn whoever_is_named_with_every_message_is_one() {
    let (hook, folder) = (hook(), folder_with(LOOPBACK));
    let served = Served::start(&folder);
    let config = json!({ "url": hook.base });
    let task = send(&served, ALICE, "asker", telling("m-1", config.clone())).await;
    hook.until("POST", 3).await;
    let mut more = to_task(&task, "m-2", "red");
    more["configuration"] = json!({ "taskPushNotificationConfig": config });
    send(&served, ALICE, "asker", more).await;
    let words = words(&hook.until("POST", 6).await);
    assert_eq!(words[3..], ["WORKING", "artifact heard: red", "COMPLETED"], "each once");
    let all = result(&served, ALICE, "asker", LIST, json!({ "taskId": task["id"] })).await;
    let names: Vec<&Value> = all["configs"].as_array().unwrap().iter().map(|c| &c["id"]).collect();
    assert_eq!(names, [&task["id"]]);
}

#[tokio::test]
async fn configurations_are_kept_shown_without_their_secrets_and_deleted_over_both_bindings() {
    let (hook, folder) = (hook(), folder_with(LOOPBACK));
    let served = Served::start(&folder);
    let task = send(&served, ALICE, "asker", message("m-1", "go")).await;
    let id = task["id"].as_str().unwrap();
    let at = |path: &str| format!("/a2a/asker/rest/tasks/{id}/pushNotificationConfigs{path}");
    let given = json!({ "taskId": id, "id": "c-1", "url": format!("{}/one", hook.base), "token": "tok-1",
                        "authentication": { "scheme": "Basic", "credentials": "czNjcmV0" } });
    let shown = json!({ "id": "c-1", "taskId": id, "url": given["url"], "authentication": { "scheme": "Basic" } });
    assert_eq!(result(&served, ALICE, "asker", SET, given.clone()).await, shown);
    let mut other = json!({ "url": format!("{}/two", hook.base) });
    let made = served.post(&at(""), &[ALICE, V1], other.to_string()).await;
    assert_eq!(made.status, 200, "{made:?}");
    let made = made.json();
    other["id"] = made["id"].clone();
    other["taskId"] = json!(id);
    assert_eq!(made, other);
    assert_eq!(result(&served, ALICE, "asker", GET, json!({ "taskId": id, "id": "c-1" })).await, shown);
    assert_eq!(served.get(&at("/c-1"), &[ALICE, V1]).await.json(), shown);
    let all = result(&served, ALICE, "asker", LIST, json!({ "taskId": id })).await;
    assert_eq!((all["configs"].as_array().unwrap().len(), &all["nextPageToken"]), (2, &json!("")));
    assert_eq!(served.get(&at(""), &[ALICE, V1]).await.json(), all);
    let first = result(&served, ALICE, "asker", LIST, json!({ "taskId": id, "pageSize": 1 })).await;
    let more = json!({ "taskId": id, "pageSize": 1, "pageToken": first["nextPageToken"] });
    let second = result(&served, ALICE, "asker", LIST, more).await;
    assert_eq!(json!([first["configs"][0], second["configs"][0]]), all["configs"]);
    assert!(first["nextPageToken"] != "" && second["nextPageToken"] == "");
    // The store holds no secret in clear text either.
    for file in ["pleach.db", "pleach.db-wal"] {
        let bytes = std::fs::read(folder.join(file)).unwrap_or_default();
        for secret in ["czNjcmV0", "tok-1"] {
            assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()), "{file} has {secret}");
        }
    }
    // A stranger's and one that is not look the same, whatever is asked.
    for (method, params) in [
        (SET, given.clone()),
        (GET, json!({ "taskId": id, "id": "c-1" })),
        (LIST, json!({ "taskId": id })),
        (DELETE, json!({ "taskId": id, "id": "c-1" })),
    ] {
        let mut absent = params.clone();
        absent["taskId"] = json!("r-0000000000000000");
        for params in [params, absent] {
            assert_eq!(code(&served, BOB, "quick", method, params.clone()).await, -32001, "{method} {params}");
        }
    }
    assert_eq!(served.get(&at("/c-1").replace("asker", "quick"), &[BOB, V1]).await.status, 404);
    assert_eq!(code(&served, ALICE, "asker", GET, json!({ "taskId": id, "id": "none" })).await, -32001);
    // Deleted once or twice it is gone, and is not told; the other one is.
    for _ in 0..2 {
        let gone = served.delete(&at("/c-1"), &[ALICE, V1]).await;
        assert_eq!((gone.status, gone.json()), (200, json!({})));
        assert_eq!(result(&served, ALICE, "asker", DELETE, json!({ "taskId": id, "id": "c-1" })).await, json!({}));
    }
    assert_eq!(served.get(&at("/c-1"), &[ALICE, V1]).await.status, 404);
    send(&served, ALICE, "asker", to_task(&task, "m-2", "red")).await;
    let seen = hook.until_at("/two", 3).await;
    assert_eq!(words(&seen), ["WORKING", "artifact heard: red", "COMPLETED"]);
    assert!(hook.came_to("/one").is_empty());
}

#[tokio::test]
async fn nothing_is_told_where_its_client_may_not_reach() {
    // Where nothing may be reached the card says so, and nothing is taken.
    let none = folder();
    let served = Served::start(&none);
    let extended = result(&served, ALICE, "quick", "GetExtendedAgentCard", json!({})).await;
    assert_eq!(extended["capabilities"]["pushNotifications"], false);
    let config = json!({ "url": "http://127.0.0.1:9/x" });
    assert_eq!(code(&served, ALICE, "quick", "SendMessage", telling("m-1", config)).await, -32003);
    assert_eq!(code(&served, ALICE, "quick", LIST, json!({ "taskId": "r-0" })).await, -32003);
    drop(served);
    let hook = hook();
    let folder = folder_with(LOOPBACK);
    let served = Served::start(&folder);
    let extended = result(&served, ALICE, "quick", "GetExtendedAgentCard", json!({})).await;
    assert_eq!(extended["capabilities"]["pushNotifications"], true);
    let port = hook.base.rsplit_once(':').unwrap().1;
    for url in [
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://[::1]/x".to_owned(),
        format!("http://localhost:{port}/x"),
        "http://10.0.0.1/".to_owned(),
        "http://[::ffff:10.0.0.1]/".to_owned(),
        "https://example.com/x".to_owned(),
        "ftp://127.0.0.1/".to_owned(),
        format!("http://user:pw@127.0.0.1:{port}/"),
        "nothing".to_owned(),
        String::new(),
    ] {
        let answer = code(&served, ALICE, "quick", "SendMessage", telling("m-2", json!({ "url": url }))).await;
        assert_eq!(answer, -32602, "{url}");
    }
    for wrong in [json!({}), json!({ "url": hook.base, "token": "a\nb" }), json!({ "url": hook.base, "taskId": "r-1" })]
    {
        assert_eq!(
            code(&served, ALICE, "quick", "SendMessage", telling("m-3", wrong.clone())).await,
            -32602,
            "{wrong}"
        );
    }
    let runs = served.get("/v1/runs", &[ALICE]).await.json();
    assert_eq!(runs["runs"], json!([]), "nothing was begun");
    // The benign twin of all of them.
    let config = json!({ "url": format!("{}/good", hook.base) });
    send(&served, ALICE, "quick", telling("m-4", config)).await;
    hook.until_at("/good", 3).await;
    assert_eq!(hook.came("POST").len(), 3, "and nothing else arrived");
}

/// A redirect leads nowhere, and a name is judged by what it means when something is told.
#[tokio::test]
async fn a_name_that_means_something_else_by_then_is_not_dialled() {
    let inner = hook();
    let to = format!("{}/inner", inner.base);
    let outer = Upstream::start(move |_| Act::Headed(307, "location", to.clone()));
    let port = inner.base.rsplit_once(':').unwrap().1.to_owned();
    let domains = format!("domains = {{ allow = [\"hook.test:{port}\"] }}");
    // The same policy but for the last word: whether a name may mean this machine.
    for (networks, arrives) in [("", 0), (LOOPBACK, 3)] {
        let folder = folder_with(&format!("{domains}\n{networks}"));
        let hosts = folder.write("hosts", "127.0.0.1 localhost\n8.8.8.8 hook.test\n");
        let served = Served::of(resolving(&folder, &hosts));
        let task = send(&served, ALICE, "asker", message("m-1", "go")).await;
        let config = json!({ "taskId": task["id"], "url": format!("http://hook.test:{port}/{}", arrives) });
        result(&served, ALICE, "asker", SET, config).await;
        if arrives > 0 {
            let config = json!({ "taskId": task["id"], "url": format!("{}/outer", outer.base) });
            result(&served, ALICE, "asker", SET, config).await;
        }
        // In place: the file is mounted over the machine's own.
        std::fs::write(&hosts, "127.0.0.1 localhost hook.test\n").unwrap();
        let done = send(&served, ALICE, "asker", to_task(&task, "m-2", "red")).await;
        assert_eq!(state(&done), "TASK_STATE_COMPLETED");
        // Registered, tried, and tried again: the first try is over.
        tried(&folder, &format!("hook.test:{port}"), if arrives > 0 { 2 } else { 3 }).await;
        assert_eq!(inner.until_at(&format!("/{arrives}"), arrives).await.len(), arrives);
        if arrives > 0 {
            // Told a second time, it led nowhere the first time.
            outer.until_at("/outer", 2).await;
        }
    }
    assert!(inner.came_to("/inner").is_empty(), "no redirect was followed");
    assert!(inner.came_to("/0").is_empty(), "nothing arrived by a name that changed");
}

/// `pleach serve` with a table of names of its own.
fn resolving(folder: &Folder, hosts: &std::path::Path) -> std::process::Command {
    let plain = folder.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut command = std::process::Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let script = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(hosts);
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(folder.path());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Waits until a connection for a webhook was wanted so many times, by the record.
async fn tried(folder: &Folder, target: &str, times: usize) {
    let wanted = async {
        loop {
            let record = folder.run(&["audit", "show", "--json"]).out;
            let of = |line: &&str| line.contains("\"webhook\"") && line.contains(target);
            if record.lines().filter(of).count() >= times {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wanted).await.expect("it was not tried so often");
}

/// Killed right after the commit of what is to be told, it is told by the next process; and what was
/// not heard is told again, as the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_the_commit_and_the_telling_loses_nothing() {
    let folder = folder_with(LOOPBACK);
    let hook =
        Upstream::start(
            |seen| if seen.before == 0 { Act::Status(500, Value::Null) } else { Act::Status(200, json!({})) },
        );
    let mut served = Served::start_with(&folder, &[("PLEACH_CRASH_AT", "run.finished.after/1")]);
    let task = send(&served, ALICE, "asker", message("m-1", "go")).await;
    let config = json!({ "taskId": task["id"], "id": "c", "url": format!("{}/h", hook.base) });
    result(&served, ALICE, "asker", SET, config).await;
    let answer = crate::a2a::to_task(&task, "m-2", "red");
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": answer }).to_string();
    // Its answer never comes: the process dies.
    let client = served.base.clone();
    let asked = tokio::spawn(async move {
        let request = reqwest::Client::builder().no_proxy().build().unwrap().post(format!("{client}/a2a/asker"));
        let request = request.header(ALICE.0, ALICE.1).header(V1.0, V1.1).header("content-type", "application/json");
        drop(request.body(body).send().await);
    });
    assert!(served.ended_within(Duration::from_secs(30)).is_some(), "it was to be killed");
    asked.await.unwrap();
    let served = Served::start(&folder);
    let seen = hook.until_at("/h", 4).await;
    assert_eq!(words(&seen), ["WORKING", "WORKING", "artifact heard: red", "COMPLETED"]);
    let names: Vec<&str> = seen.iter().map(|s| s.header("pleach-delivery")).collect();
    assert_eq!((names[0], &seen[0].body), (names[1], &seen[1].body), "the same again");
    assert_eq!(names[2].split('.').next(), names[3].split('.').next(), "of one event");
    drop(served);
}

#[tokio::test]
async fn what_fails_is_told_again_in_order_and_a_secret_signs() {
    let folder = folder_with(LOOPBACK);
    let hook = Upstream::start(|seen| match seen.before {
        0 | 1 => Act::Status(503, Value::Null),
        _ => Act::Status(200, json!({})),
    });
    let served = Served::start(&folder);
    let secret = "0123456789abcdef-secret";
    let config = json!({ "url": format!("{}/h", hook.base),
                         "authentication": { "scheme": "HMAC-SHA256", "credentials": secret } });
    send(&served, ALICE, "quick", telling("m-1", config)).await;
    let seen = hook.until_at("/h", 5).await;
    assert_eq!(words(&seen), ["WORKING", "WORKING", "WORKING", "artifact quick: go", "COMPLETED"]);
    for one in &seen {
        let (t, v1) = one.header("pleach-signature").split_once(",v1=").unwrap();
        let tag: Vec<u8> = (0..64).step_by(2).map(|i| u8::from_str_radix(&v1[i..i + 2], 16).unwrap()).collect();
        let said = format!("{}.{}", t.strip_prefix("t=").unwrap(), one.body);
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), said.as_bytes(), &tag).unwrap();
        assert_eq!(one.header("authorization"), "");
        assert!(!format!("{:?}", one.headers).contains(secret));
    }
    // Bearer without credentials is our own token.
    let config = json!({ "url": format!("{}/jwt", hook.base), "authentication": { "scheme": "Bearer" } });
    send(&served, ALICE, "quick", telling("m-2", config)).await;
    for one in hook.until_at("/jwt", 3).await {
        assert_eq!(one.header("authorization"), format!("Bearer {}", one.header("pleach-token")));
        proved(&served, &one).await;
    }
}

#[tokio::test]
async fn clients_of_0_3_are_told_the_task() {
    let (hook, folder) = (hook(), folder_with(LOOPBACK));
    let served = Served::start(&folder);
    let call = async |method: &str, params: Value| {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        served.post("/a2a/asker", &[ALICE], body).await.json()
    };
    let said =
        json!({ "kind": "message", "messageId": "m-1", "role": "user", "parts": [{ "kind": "text", "text": "go" }] });
    let config = json!({ "id": "inline", "url": format!("{}/inline", hook.base), "token": "tok" });
    let sent =
        call("message/send", json!({ "message": said, "configuration": { "pushNotificationConfig": config } })).await;
    let id = sent["result"]["id"].clone();
    assert_eq!(sent["result"]["status"]["state"], "input-required", "{sent}");
    let set = json!({ "taskId": id, "pushNotificationConfig": {
        "url": format!("{}/set", hook.base), "authentication": { "schemes": ["Bearer"], "credentials": "s3cret" },
    } });
    let made = call("tasks/pushNotificationConfig/set", set).await["result"].clone();
    let shown = json!({ "taskId": id, "pushNotificationConfig": {
        "id": id, "url": format!("{}/set", hook.base), "authentication": { "schemes": ["Bearer"] },
    } });
    assert_eq!(made, shown, "without a name it is the task's");
    let got = call("tasks/pushNotificationConfig/get", json!({ "id": id, "pushNotificationConfigId": id })).await;
    assert_eq!(got["result"], shown);
    let all = call("tasks/pushNotificationConfig/list", json!({ "id": id })).await;
    assert_eq!(all["result"].as_array().unwrap().len(), 2, "{all}");
    let said = json!({ "kind": "message", "messageId": "m-2", "taskId": id, "role": "user",
                       "parts": [{ "kind": "text", "text": "red" }] });
    call("message/send", json!({ "message": said })).await;
    let inline = hook.until_at("/inline", 5).await;
    let states: Vec<&str> = inline.iter().map(|s| s.body["status"]["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["working", "working", "input-required", "working", "completed"]);
    assert!(inline.iter().all(|s| s.body["kind"] == "task" && s.body["id"] == id), "{inline:?}");
    assert_eq!(inline[4].body["artifacts"][0]["parts"], json!([{ "kind": "text", "text": "heard: red" }]));
    assert_eq!(inline[0].header("x-a2a-notification-token"), "tok");
    assert_eq!((inline[0].header("a2a-version"), inline[0].header("authorization")), ("0.3", ""));
    let set = hook.until_at("/set", 2).await;
    assert!(set.iter().all(|s| s.header("authorization") == "Bearer s3cret"));
    let named = json!({ "id": id, "pushNotificationConfigId": id });
    let gone = call("tasks/pushNotificationConfig/delete", named.clone()).await;
    assert!(gone.get("error").is_none() && gone["result"].is_null(), "{gone}");
    assert_eq!(call("tasks/pushNotificationConfig/get", named).await["error"]["code"], -32001);
}

/// Of an event that makes two notifications, the second was not heard: the first is not told again.
#[tokio::test]
async fn telling_goes_on_from_what_was_not_heard() {
    let folder = folder_with(LOOPBACK);
    let failed = std::sync::atomic::AtomicBool::new(false);
    let hook = Upstream::start(move |seen| {
        let last = state(&seen.body["statusUpdate"]) == "TASK_STATE_COMPLETED";
        match last && !failed.swap(true, std::sync::atomic::Ordering::SeqCst) {
            true => Act::Status(503, Value::Null),
            false => Act::Status(200, json!({})),
        }
    });
    let served = Served::start(&folder);
    send(&served, ALICE, "quick", telling("m-1", json!({ "url": format!("{}/h", hook.base) }))).await;
    let seen = hook.until_at("/h", 4).await;
    assert_eq!(words(&seen), ["WORKING", "artifact quick: go", "COMPLETED", "COMPLETED"]);
    let names: Vec<&str> = seen.iter().map(|s| s.header("pleach-delivery")).collect();
    assert_eq!(names[2], names[3], "the same again");
}

/// Who wants no more is told no more of the task at all, though much of it waits; the record says so.
#[tokio::test]
async fn a_receiver_that_is_gone_ends_its_config() {
    let folder = folder_with(LOOPBACK);
    let gone = Upstream::start(|_| Act::Status(410, Value::Null));
    let hook = hook();
    let served = Served::start(&folder);
    let task = send(&served, ALICE, "asker", message("m-1", "go")).await;
    for (id, base) in [("gone", &gone.base), ("stays", &hook.base)] {
        result(&served, ALICE, "asker", SET, json!({ "taskId": task["id"], "id": id, "url": format!("{base}/h") }))
            .await;
    }
    send(&served, ALICE, "asker", to_task(&task, "m-2", "red")).await;
    let seen = hook.until_at("/h", 3).await;
    assert_eq!(words(&seen), ["WORKING", "artifact heard: red", "COMPLETED"]);
    forgotten(&folder, &task, "gone", "HTTP 410").await;
    // It is on record first.
    let over = async {
        while named(&served, &task).await != ["stays"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), over).await.expect("it is still there");
    assert_eq!(gone.came_to("/h").len(), 1, "asked once, and no more");
}

/// The names of a task's configs.
async fn named(served: &Served, task: &Value) -> Vec<String> {
    let all = result(served, ALICE, "asker", LIST, json!({ "taskId": task["id"] })).await;
    all["configs"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap().to_owned()).collect()
}

/// Waits until the record says that a config was forgotten, and why.
async fn forgotten(folder: &Folder, task: &Value, config: &str, why: &str) {
    let id = task["id"].as_str().unwrap().to_owned();
    let said = async {
        loop {
            let record = folder.run(&["audit", "show", "--json"]).out;
            let words = ["\"forgotten\"", &id, &format!("\"push\":\"{config}\""), why];
            if record.lines().any(|line| words.iter().all(|word| line.contains(word))) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), said).await.expect("the record does not say that it was forgotten");
}

/// Whoever asked is gone, is known by another token now, or may not see the agent: its configs end when
/// there is something to tell, and nothing is told. The twin whose client stayed is told.
#[tokio::test]
async fn configs_end_with_what_their_client_was_known_by() {
    let twin = "[clients.twin]\ntoken = \"twin-twin-twin-twin-twin\"\nmay_start = [\"asker\"]\n";
    let folder = folder_with(LOOPBACK);
    let policy = folder.read("pleach.toml").unwrap() + twin;
    folder.write("pleach.toml", &policy);
    const TWIN: (&str, &str) = ("authorization", "Bearer twin-twin-twin-twin-twin");
    let (before, alice) = policy.split_once("[clients.alice]").unwrap();
    let gone = format!("{before}[clients.bob]{}", alice.split_once("[clients.bob]").unwrap().1);
    for (what, other, why) in [
        ("gone", gone, "client alice is gone"),
        ("token", policy.replace("alice-alice-alice-alice", "alice-has-another-token"), "another token"),
        ("agent", policy.replace("\"writer\", \"asker\"]", "\"writer\"]"), "may not see agent asker"),
    ] {
        assert_ne!(policy, other);
        folder.write("pleach.toml", &policy);
        let hook = hook();
        let served = Served::start(&folder);
        let mut tasks = Vec::new();
        for (who, name) in [(ALICE, "alice"), (TWIN, "twin")] {
            let task = send(&served, who, "asker", message(&format!("{what}-1"), "go")).await;
            let config = json!({ "taskId": task["id"], "id": "c", "url": format!("{}/{name}", hook.base) });
            result(&served, who, "asker", SET, config).await;
            tasks.push(task);
        }
        drop(served);
        folder.write("pleach.toml", &other);
        let served = Served::start(&folder);
        // Whoever may approve may answer for all; the task goes on, whoever's it is.
        for task in &tasks {
            let open = served.get("/v1/approvals", &[crate::rest::BOSS]).await.json();
            let open = open["approvals"].as_array().unwrap();
            let question = open.iter().find(|q| q["run"] == task["id"]).unwrap_or_else(|| panic!("{open:?}"));
            let path = format!("/v1/approvals/{}", question["id"].as_str().unwrap());
            let answered = served.post(&path, &[crate::rest::BOSS], json!({ "input": "red" }).to_string()).await;
            assert!(answered.status < 300, "{answered:?}");
        }
        hook.until_at("/twin", 1).await;
        forgotten(&folder, &tasks[0], "c", why).await;
        assert!(hook.came_to("/alice").is_empty(), "{what}");
    }
}

/// Whoever may reach nothing any more sees what it left, and takes it away; but leaves nothing new.
#[tokio::test]
async fn what_was_left_can_be_taken_away_without_any_reach() {
    let (hook, folder) = (hook(), folder_with(LOOPBACK));
    let served = Served::start(&folder);
    let task = send(&served, ALICE, "asker", message("m-1", "go")).await;
    let config = json!({ "taskId": task["id"], "id": "c", "url": format!("{}/h", hook.base) });
    result(&served, ALICE, "asker", SET, config.clone()).await;
    drop(served);
    let policy = folder.read("pleach.toml").unwrap();
    folder.write("pleach.toml", &policy.replace(LOOPBACK, ""));
    let served = Served::start(&folder);
    let one = json!({ "taskId": task["id"], "id": "c" });
    assert_eq!(code(&served, ALICE, "asker", SET, config).await, -32003);
    assert_eq!(named(&served, &task).await, ["c"]);
    assert_eq!(result(&served, ALICE, "asker", GET, one.clone()).await["id"], "c");
    // To others it is not served, be the task there or not.
    for id in [task["id"].clone(), json!("r-0000000000000000")] {
        assert_eq!(code(&served, BOB, "quick", LIST, json!({ "taskId": id })).await, -32003);
    }
    result(&served, ALICE, "asker", DELETE, one.clone()).await;
    assert_eq!(code(&served, ALICE, "asker", GET, one).await, -32003, "nothing is left");
}

/// A message that came before says whom to tell for the first time: that is kept, and nothing is
/// begun or said twice.
#[tokio::test]
async fn a_message_said_again_may_say_whom_to_tell() {
    let (hook, folder) = (hook(), folder_with(LOOPBACK));
    let served = Served::start(&folder);
    let task = send(&served, ALICE, "asker", message("m-1", "go")).await;
    let again = send(&served, ALICE, "asker", telling("m-1", json!({ "url": format!("{}/first", hook.base) }))).await;
    assert_eq!(again["id"], task["id"]);
    assert_eq!(named(&served, &task).await, [task["id"].as_str().unwrap()]);
    let done = send(&served, ALICE, "asker", to_task(&task, "m-2", "red")).await;
    assert_eq!(state(&done), "TASK_STATE_COMPLETED");
    assert_eq!(words(&hook.until_at("/first", 3).await), ["WORKING", "artifact heard: red", "COMPLETED"]);
    let mut more = to_task(&task, "m-2", "red");
    more["configuration"] =
        json!({ "taskPushNotificationConfig": { "id": "late", "url": format!("{}/late", hook.base) } });
    assert_eq!(send(&served, ALICE, "asker", more).await["id"], task["id"]);
    assert!(named(&served, &task).await.contains(&"late".to_owned()));
    // It has ended, so that is all there is to be told: once each time somebody asks for it.
    assert_eq!(words(&hook.until_at("/late", 2).await), ["artifact heard: red", "COMPLETED"]);
    let runs = served.get("/v1/runs", &[ALICE]).await.json();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1, "{runs}");
}
