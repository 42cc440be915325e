//! A server behind OAuth shows each account what is for it, so each client of Pleach is shown
//! what its own account is shown.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use conformance::pleach::Folder;
use conformance::served::{Served, text};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An issuer that consents by itself, and a server that has one tool for each of its tokens.
struct Accounts {
    base: String,
    given: AtomicU64,
}

impl Accounts {
    async fn start() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let accounts = Arc::new(Self { base: base.clone(), given: AtomicU64::new(0) });
        let resource = "/.well-known/oauth-protected-resource";
        let router = Router::new()
            .route(resource, get(protected))
            .route(&format!("{resource}/mcp"), get(protected))
            .route("/.well-known/oauth-authorization-server", get(issuer))
            .route("/register", post(register))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .route("/mcp", post(serve).get(nothing))
            .with_state(accounts);
        // Ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("{base}/mcp")
    }
}

type Here = State<Arc<Accounts>>;

fn json_of(status: StatusCode, value: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}
async fn nothing() -> StatusCode {
    StatusCode::METHOD_NOT_ALLOWED
}
async fn protected(State(here): Here) -> Response {
    json_of(StatusCode::OK, &json!({ "resource": format!("{}/mcp", here.base), "authorization_servers": [here.base] }))
}
async fn issuer(State(here): Here) -> Response {
    let at = |path: &str| format!("{}/{path}", here.base);
    json_of(
        StatusCode::OK,
        &json!({
            "issuer": here.base, "authorization_endpoint": at("authorize"), "token_endpoint": at("token"),
            "registration_endpoint": at("register"), "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code"], "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
        }),
    )
}
async fn register(wish: String) -> Response {
    let mut given: Value = serde_json::from_str(&wish).unwrap();
    given["client_id"] = "pleach-1".into();
    json_of(StatusCode::CREATED, &given)
}
async fn authorize(State(here): Here, asked: Uri) -> Redirect {
    let number = here.given.fetch_add(1, Ordering::SeqCst) + 1;
    let asked = reqwest::Url::parse(&format!("{}{asked}", here.base)).unwrap();
    let value = |key: &str| asked.query_pairs().find(|(k, _)| k == key).unwrap().1.into_owned();
    let mut back = reqwest::Url::parse(&value("redirect_uri")).unwrap();
    back.query_pairs_mut().append_pair("code", &format!("code-{number}")).append_pair("state", &value("state"));
    Redirect::to(back.as_str())
}
async fn token(body: String) -> Response {
    let code = body.split('&').find_map(|pair| pair.strip_prefix("code=code-")).unwrap_or("none").to_owned();
    json_of(
        StatusCode::OK,
        &json!({ "access_token": format!("token-{code}"), "token_type": "Bearer", "expires_in": 3600 }),
    )
}

/// A small legacy server.
async fn serve(State(here): Here, headers: HeaderMap, message: String) -> Response {
    let message: Value = serde_json::from_str(&message).unwrap();
    let token = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()?.strip_prefix("Bearer token-"));
    let Some(token) = token else {
        let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", here.base);
        let challenge = format!("Bearer resource_metadata=\"{metadata}\"");
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    };
    let Some(id) = message.get("id") else { return StatusCode::ACCEPTED.into_response() };
    let about = json!({ "name": "accounts", "version": "1" });
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => {
            json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} }, "serverInfo": about })
        }
        "tools/list" => {
            json!({ "tools": [{ "name": format!("of_account_{token}"), "inputSchema": { "type": "object" } }] })
        }
        "tools/call" => json!({ "content": [{ "type": "text", "text": format!("account {token}") }] }),
        _ => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            return json_of(StatusCode::OK, &json!({ "jsonrpc": "2.0", "id": id, "error": error }));
        }
    };
    json_of(StatusCode::OK, &json!({ "jsonrpc": "2.0", "id": id, "result": result }))
}

const ALICE: (&str, &str) = ("authorization", "Bearer alice-alice-alice-alice");
const BOB: (&str, &str) = ("authorization", "Bearer bob-bob-bob-bob-bob-bob");

async fn tools(served: &Served, who: (&str, &str)) -> Vec<String> {
    let list = served.modern("/mcp", "tools/list", json!({}), &[who]).await.json();
    let tools = list["result"]["tools"].as_array().unwrap_or_else(|| panic!("{list}")).clone();
    tools.iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_is_shown_the_tools_of_its_own_account() {
    let url = Accounts::start().await;
    let folder = Folder::new(&format!(
        "version = 1\n[servers.own]\nurl = {url:?}\nauth = {{}}\ndefault_access = \"read-only\"\n\
         [policy]\ntools.allow = [\"*\"]\n[clients.alice]\ntoken = \"alice-alice-alice-alice\"\n\
         [clients.bob]\ntoken = \"bob-bob-bob-bob-bob-bob\"\n"
    ));
    let login = |client: &str| {
        let ran = tokio::task::block_in_place(|| folder.run(&["login", "own", "--follow", "--client", client]));
        assert_eq!(ran.code, 0, "{ran:?}");
    };
    login("alice");
    let served = Served::start(&folder);
    assert_eq!(tools(&served, ALICE).await, ["own__of_account_1"]);
    // One without an account is shown nothing, and what is not shown cannot be called.
    assert!(tools(&served, BOB).await.is_empty());
    let params = json!({ "name": "own__of_account_1", "arguments": {} });
    let call = served.modern("/mcp", "tools/call", params.clone(), &[BOB]).await.json();
    assert_eq!(call["result"]["isError"], true, "{call}");
    let why = call["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert!(why.starts_with("denied: server own could not be listed yet"), "{call}");
    // A login is taken up while it serves.
    login("bob");
    assert_eq!(tools(&served, BOB).await, ["own__of_account_2"]);
    assert_eq!(tools(&served, ALICE).await, ["own__of_account_1"]);
    let call = served.modern("/mcp", "tools/call", params, &[ALICE]).await;
    assert_eq!(text(&call), "account 1");
}
