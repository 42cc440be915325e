//! OAuth towards servers: an issuer and a server of the test's own, which see every secret and
//! every token that reaches them.

use conformance::pleach::Folder;
use conformance::served::{Served, text};
use conformance::upstream::{Act, Upstream, legacy, saying, told};
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const SECRET: &str = "the-secret-of-the-operator";

/// An issuer whose answers to `/token` the test gives.
fn issuer(token: impl Fn(&str, usize) -> Act + Send + Sync + 'static) -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::of(|base| {
        let base = base.to_owned();
        move |seen| match seen.path.split('?').next().unwrap_or("") {
            "/.well-known/oauth-authorization-server" => Act::Status(
                200,
                json!({
                    "issuer": base,
                    "authorization_endpoint": format!("{base}/authorize"),
                    "token_endpoint": format!("{base}/token"),
                    "response_types_supported": ["code"],
                    "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
                    "code_challenge_methods_supported": ["S256"],
                    "token_endpoint_auth_methods_supported": ["client_secret_post"],
                }),
            ),
            "/token" => token(seen.body.as_str().unwrap_or(""), count.fetch_add(1, Ordering::SeqCst)),
            "/authorize" => {
                let query = |key: &str| {
                    let pairs = seen.path.split(['?', '&']).filter_map(|p| p.split_once('='));
                    pairs.into_iter().find(|(k, _)| *k == key).map_or("", |(_, v)| v)
                };
                let back = query("redirect_uri").replace("%3A", ":").replace("%2F", "/");
                Act::Headed(302, "location", format!("{back}?code=the-code&state={}", query("state")))
            }
            _ => Act::Status(404, Value::Null),
        }
    })
}

/// A server that names an issuer and takes these tokens; what is left to answer the test does.
fn guarded(
    issuer: &str,
    good: impl Fn(&str) -> bool + Send + Sync + 'static,
    does: impl Fn(&conformance::upstream::Seen) -> Option<Act> + Send + Sync + 'static,
) -> Upstream {
    let issuer = issuer.to_owned();
    Upstream::of(|base| {
        let base = base.to_owned();
        move |seen| {
            if seen.path.starts_with("/.well-known/oauth-protected-resource") {
                let about = json!({ "resource": format!("{base}/mcp"), "authorization_servers": [issuer] });
                return Act::Status(200, about);
            }
            if !seen.path.starts_with("/mcp") {
                return Act::Status(404, Value::Null);
            }
            if !seen.header("authorization").strip_prefix("Bearer ").is_some_and(&good) {
                let metadata = format!("{base}/.well-known/oauth-protected-resource/mcp");
                return Act::Headed(401, "www-authenticate", format!("Bearer resource_metadata=\"{metadata}\""));
            }
            if let Some(act) = does(seen) {
                return act;
            }
            match seen.method.as_str() {
                "tools/call" => Act::Result(told("done")),
                _ => legacy(seen, json!({ "tools": { "listChanged": true } }), &["act"]).unwrap_or(Act::Hang),
            }
        }
    })
}

fn granted(access: &str, refresh: Option<&str>) -> Value {
    let mut all = json!({ "access_token": access, "token_type": "Bearer", "expires_in": 3600 });
    if let Some(refresh) = refresh {
        all["refresh_token"] = refresh.into();
    }
    all
}

fn folder(url: &str, auth: &str) -> Folder {
    Folder::new(&format!(
        "version = 1\n[servers.far]\nurl = {url:?}\nauth = {{ client_id = \"pleach\", client_secret = {SECRET:?}, {auth} }}\n\
         default_access = \"read-only\"\n[policy]\ntools.allow = [\"*\"]\n"
    ))
}

async fn call(served: &Served) -> String {
    text(&served.modern("/mcp", "tools/call", json!({ "name": "far__act", "arguments": {} }), &[]).await)
}

/// A server could have the operator's secret sent to whatever issuer it named.
#[tokio::test]
async fn a_secret_is_shown_to_the_issuer_the_operator_named() {
    let ours = issuer(|_, _| Act::Status(200, granted("good", None)));
    let theirs = issuer(|_, _| Act::Status(200, granted("good", None)));
    for (named, shown) in [(&ours, true), (&theirs, false)] {
        let server = guarded(&named.base, |token| token == "good", |_| None);
        let auth = format!("flow = \"client-credentials\", issuer = {:?}", ours.base);
        let folder = folder(&server.url(), &auth);
        let served = Served::start(&folder);
        assert_eq!(call(&served).await == "done", shown, "{}", served.log.lock().unwrap());
    }
    assert!(ours.came_to("/token").iter().any(|s| s.body.as_str().is_some_and(|b| b.contains(SECRET))));
    assert_eq!(theirs.came_to("/token").len(), 0);
}

/// The key in a server's address went to its issuer as the name of the resource.
#[tokio::test]
async fn the_key_in_an_address_is_for_the_server_alone() {
    let issuer = issuer(|_, _| Act::Status(200, granted("good", None)));
    let server = guarded(&issuer.base, |token| token == "good", |_| None);
    let auth = format!("flow = \"client-credentials\", issuer = {:?}", issuer.base);
    let folder = folder(&format!("{}?key=hunter2", server.url()), &auth);
    let served = Served::start(&folder);
    assert_eq!(call(&served).await, "done");
    assert_eq!(server.came("tools/call")[0].path, "/mcp?key=hunter2");
    let asked = issuer.came_to("/token");
    let form = asked[0].body.as_str().unwrap();
    assert!(form.contains("resource=http") && !form.contains("hunter2"), "{form}");
    assert!(issuer.came("GET").iter().all(|s| !s.path.contains("hunter2")));
}

/// A server that a person logged in to, whose token `t0` is good until `stale`.
struct Stale {
    issuer: Upstream,
    server: Upstream,
    stale: Arc<AtomicBool>,
    folder: Folder,
}

/// `renewed` is what the issuer does with a refresh token.
fn logged_in(renewed: impl Fn(&str) -> Act + Send + Sync + 'static) -> Stale {
    let issuer = issuer(move |form, _| match form.contains("grant_type=refresh_token") {
        true => renewed(form),
        false => Act::Status(200, granted("t0", Some("r0"))),
    });
    let stale = Arc::new(AtomicBool::new(false));
    let now = stale.clone();
    let good = move |token: &str| token == "t1" || (token == "t0" && !now.load(Ordering::SeqCst));
    let server = guarded(&issuer.base, good, |_| None);
    let folder = folder(&server.url(), &format!("issuer = {:?}", issuer.base));
    let login = folder.run(&["login", "far", "--follow"]);
    assert_eq!(login.code, 0, "{login:?}");
    Stale { issuer, server, stale, folder }
}

fn renewals(issuer: &Upstream) -> usize {
    let asked = issuer.came_to("/token");
    asked.iter().filter(|s| s.body.as_str().is_some_and(|b| b.contains("grant_type=refresh_token"))).count()
}

/// A renewal ended with the call that needed it, and the new refresh token was lost: the issuer
/// takes the old one no longer.
#[tokio::test]
async fn a_renewal_outlives_the_call_that_began_it() {
    let (answer, answered) = mpsc::unbounded_channel();
    let held = Mutex::new(Some(answered));
    let all = logged_in(move |_| match held.lock().unwrap().take() {
        Some(answered) => Act::Held(answered),
        None => Act::Status(400, json!({ "error": "invalid_grant" })),
    });
    let served = Arc::new(Served::start(&all.folder));
    assert_eq!(call(&served).await, "done");
    all.stale.store(true, Ordering::SeqCst);
    // A legacy client's call, which it takes back while the issuer is being asked.
    let session = served.initialize("/mcp", &[]).await;
    let (asker, of) = (served.clone(), session.clone());
    let cancelled = tokio::spawn(async move {
        let params = json!({ "name": "far__act", "arguments": {} });
        asker.legacy("/mcp", &of, "tools/call", params, &[]).await
    });
    all.issuer.until_at("/token", 2).await;
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    let headers = [("mcp-session-id", session.as_str()), ("mcp-protocol-version", "2025-11-25")];
    assert_eq!(served.post("/mcp", &headers, cancel.to_string()).await.status, 202);
    assert_eq!(cancelled.await.unwrap().body, "", "a call that was taken back is not answered");
    answer.send(granted("t1", Some("r1"))).unwrap();
    assert_eq!(call(&served).await, "done");
    assert_eq!(renewals(&all.issuer), 1);
    assert_eq!(all.server.came("tools/call").pop().unwrap().header("authorization"), "Bearer t1");
}

/// Everybody who waited for a renewal that failed tried it once more.
#[tokio::test]
async fn a_refusal_to_renew_is_one_for_all_who_wait() {
    let all = logged_in(|_| Act::Status(400, json!({ "error": "invalid_grant" })));
    let served = Served::start(&all.folder);
    assert_eq!(call(&served).await, "done");
    assert_eq!(renewals(&all.issuer), 0);
    all.stale.store(true, Ordering::SeqCst);
    let five = tokio::join!(call(&served), call(&served), call(&served), call(&served), call(&served));
    for said in [five.0, five.1, five.2, five.3, five.4] {
        assert!(said.contains("pleach login far"), "{said}");
    }
    assert_eq!(renewals(&all.issuer), 1);
}

/// Tokens that were forgotten while they were renewed came back.
#[tokio::test]
async fn what_is_forgotten_during_a_renewal_stays_forgotten() {
    let (answer, answered) = mpsc::unbounded_channel();
    let held = Mutex::new(Some(answered));
    let all = logged_in(move |_| held.lock().unwrap().take().map_or(Act::Hang, Act::Held));
    let served = Arc::new(Served::start(&all.folder));
    assert_eq!(call(&served).await, "done");
    all.stale.store(true, Ordering::SeqCst);
    let asker = served.clone();
    let waiting = tokio::spawn(async move { call(&asker).await });
    all.issuer.until_at("/token", 2).await;
    let forget = all.folder.command(&["login", "far", "--forget"]).stdout(Stdio::piped()).spawn();
    let mut forget = forget.unwrap();
    // It has its turn after the renewal; that it waits has no event.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert!(forget.try_wait().unwrap().is_none(), "it did not wait for the renewal");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    answer.send(granted("t1", Some("r1"))).unwrap();
    let output = forget.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("forgotten"), "{output:?}");
    waiting.await.unwrap();
    // Within a second nobody looks at the file again; from then on it is gone for good.
    let until = Instant::now() + Duration::from_secs(10);
    let mut after = call(&served).await;
    while !after.contains("pleach login far") {
        assert!(Instant::now() < until, "{after}");
        tokio::time::sleep(Duration::from_millis(100)).await;
        after = call(&served).await;
    }
    assert!(call(&served).await.contains("pleach login far"));
}

/// A standing stream that was refused for want of a good token was never opened again.
#[tokio::test]
async fn a_stream_is_opened_when_a_token_for_it_comes() {
    let issuer = issuer(|_, n| Act::Status(200, granted(&format!("t{n}"), None)));
    let (say, said) = mpsc::unbounded_channel();
    let stream = Mutex::new(Some(said));
    // More tries than one request has.
    let refusals = AtomicUsize::new(0);
    let server = guarded(
        &issuer.base,
        |_| true,
        move |seen| match (seen.method.as_str(), seen.before) {
            ("GET", _) if refusals.fetch_add(1, Ordering::SeqCst) < 6 => {
                Some(Act::Headed(401, "www-authenticate", "Bearer".into()))
            }
            ("GET", _) => Some(stream.lock().unwrap().take().map_or_else(|| saying([], true), Act::Stream)),
            ("tools/list", 1..) => {
                Some(Act::Result(json!({ "tools": [{ "name": "new", "inputSchema": { "type": "object" } }] })))
            }
            _ => None,
        },
    );
    let auth = format!("flow = \"client-credentials\", issuer = {:?}", issuer.base);
    let folder = folder(&server.url(), &auth);
    let served = Served::start(&folder);
    let listed = served.modern("/mcp", "tools/list", json!({}), &[]).await;
    assert!(listed.body.contains("far__act"), "{listed:?}");
    server.until_open(1).await;
    say.send(json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" })).unwrap();
    server.until("tools/list", 2).await;
}
