//! The auth scenarios: a person who logs in with `pleach login`, and again whenever Pleach says
//! that it takes one. Nothing of OAuth is known here; the suite is the authorization server.

use crate::pleach::Folder;
use crate::served::Served;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Logins one scenario may take: the first, a step up, and one that should not be needed.
const LOGINS: usize = 3;

/// Runs a scenario against the suite's server at `url`.
///
/// # Errors
/// When a login is refused; some scenarios want that.
pub(super) async fn run(scenario: &str, url: &str, context: &Value) -> Result<(), String> {
    let (auth, own) = auth(scenario, context);
    let folder = Folder::new(&super::policy(&format!("url = {url:?}\nauth = {{ {auth} }}")));
    if let Some(key) = context["private_key_pem"].as_str() {
        folder.write("key.pem", key);
    }
    for _ in 0..LOGINS {
        if !own {
            let login = folder.run(&["login", "fixture", "--follow"]);
            if login.code != 0 {
                return Err(format!("login: {}", login.err));
            }
        }
        if !wants_login(&folder).await {
            return Ok(());
        }
    }
    Ok(())
}

/// The `auth` of the server, and whether Pleach acts for itself.
fn auth(scenario: &str, context: &Value) -> (String, bool) {
    let id = context["client_id"].as_str().unwrap_or_default();
    let secret = context["client_secret"].as_str().unwrap_or_default();
    match scenario {
        "auth/basic-cimd" => {
            ("client_metadata_url = \"https://conformance-test.local/client-metadata.json\"".into(), false)
        }
        "auth/pre-registration" => (format!("client_id = {id:?}, client_secret = {secret:?}"), false),
        "auth/client-credentials-basic" => {
            (format!("flow = \"client-credentials\", client_id = {id:?}, client_secret = {secret:?}"), true)
        }
        "auth/client-credentials-jwt" => {
            (format!("flow = \"client-credentials\", client_id = {id:?}, private_key_file = \"key.pem\""), true)
        }
        _ => (String::new(), false),
    }
}

/// Uses everything there is; whether Pleach asked for a login meanwhile.
async fn wants_login(folder: &Folder) -> bool {
    let served = Served::start(folder);
    let mut said = String::new();
    let until = Instant::now() + Duration::from_secs(8);
    let tools = loop {
        let listed = served.modern("/mcp", "tools/list", json!({}), &[]).await;
        let tools = listed.json()["result"]["tools"].as_array().cloned().unwrap_or_default();
        if !tools.is_empty() || Instant::now() > until || said_login(&served) {
            break tools;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    for tool in tools {
        let params = json!({ "name": tool["name"], "arguments": {} });
        said.push_str(&served.modern("/mcp", "tools/call", params, &[]).await.body);
    }
    said.contains(LOGIN) || said_login(&served)
}

/// What Pleach says when it takes a person.
const LOGIN: &str = "pleach login fixture";

fn said_login(served: &Served) -> bool {
    served.log.lock().is_ok_and(|log| log.contains(LOGIN))
}
