//! The door as an OAuth resource server: an issuer of the test's own, tokens good and bad.

use conformance::issuer::{Issuer, jwk, now, pair};
use conformance::pleach::Folder;
use conformance::served::{Answer, Served};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn served(issuer: &Issuer) -> (Folder, Served) {
    let url = &issuer.url;
    let folder = Folder::new(&format!(
        "version = 1\n[servers.files]\nbuiltin = \"workspace\"\n\
         [clients.reader]\noauth = {{ issuer = \"{url}\", audience = \"us\", scopes = [\"mcp:read\"] }}\n\
         match = {{ groups = \"agents-prod\" }}\npolicy.max_access = \"read-only\"\n\
         [clients.writer]\noauth = {{ issuer = \"{url}\", audience = \"us\", scopes = [\"mcp:read\", \"mcp:write\"] }}\n\
         match = {{ groups = \"agents-prod\" }}\n[policy]\nmax_access = \"read-write\"\ntools.allow = [\"*\"]\n"
    ));
    let served = Served::start(&folder);
    (folder, served)
}

async fn list(served: &Served, token: Option<&str>) -> Answer {
    let value = token.map(|t| format!("Bearer {t}"));
    let headers: Vec<(&str, &str)> = value.iter().map(|v| ("authorization", v.as_str())).collect();
    served.modern("/mcp", "tools/list", json!({}), &headers).await
}

fn challenge(answer: &Answer) -> String {
    answer.headers.get("www-authenticate").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_stranger_is_told_where_tokens_are_had() {
    let issuer = Issuer::start();
    let (_folder, served) = served(&issuer);
    let refused = list(&served, None).await;
    assert_eq!(refused.status, 401);
    let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", served.base);
    let said = challenge(&refused);
    assert!(said.starts_with("Bearer ") && said.contains(&format!("resource_metadata=\"{metadata}\"")), "{said}");
    assert!(said.contains("scope=\"mcp:read\"") && !said.contains("error="), "{said}");

    for (path, resource) in [("", ""), ("/mcp", "/mcp"), ("/mcp/agents/a", "/mcp/agents/a")] {
        let url = format!("{}/.well-known/oauth-protected-resource{path}", served.base);
        let found: Value =
            serde_json::from_str(&Served::client().get(url).send().await.unwrap().text().await.unwrap()).unwrap();
        assert_eq!(found["resource"], format!("{}{resource}", served.base));
        assert_eq!(found["authorization_servers"], json!([issuer.url]));
        assert_eq!(found["scopes_supported"], json!(["mcp:read", "mcp:write"]));
    }
    let nothing = format!("{}/.well-known/oauth-protected-resource/else", served.base);
    assert_eq!(Served::client().get(nothing).send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn good_tokens_name_clients_and_bad_ones_nobody() {
    let issuer = Issuer::start();
    let (_folder, served) = served(&issuer);
    let names = |answer: &Answer| answer.json()["result"]["tools"].to_string();
    let reader = list(&served, Some(&issuer.token(json!({})))).await;
    assert_eq!(reader.status, 200, "{reader:?}");
    assert!(names(&reader).contains("files__Read") && !names(&reader).contains("files__Write"), "{}", names(&reader));
    let writer = list(&served, Some(&issuer.token(json!({ "scope": "mcp:write mcp:read" })))).await;
    assert!(names(&writer).contains("files__Write"), "{}", names(&writer));

    for more in [
        json!({ "aud": "them" }),
        json!({ "iss": "https://login.example" }),
        json!({ "exp": now() - 600 }),
        json!({ "nbf": now() + 600 }),
        json!({ "cnf": { "jkt": "x" } }),
    ] {
        let refused = list(&served, Some(&issuer.token(more.clone()))).await;
        assert_eq!(refused.status, 401, "{more}");
        assert!(challenge(&refused).contains("error=\"invalid_token\""), "{more}");
    }
    let stolen = issuer.sign(&pair(), "one", &issuer.claims(json!({})));
    assert_eq!(list(&served, Some(&stolen)).await.status, 401);
    assert_eq!(list(&served, Some("not.a.token")).await.status, 401);
}

#[tokio::test]
async fn scopes_can_be_asked_for_and_claims_cannot() {
    let issuer = Issuer::start();
    let (_folder, served) = served(&issuer);
    let lacking = list(&served, Some(&issuer.token(json!({ "scope": "openid" })))).await;
    assert_eq!(lacking.status, 403);
    let said = challenge(&lacking);
    assert!(said.contains("error=\"insufficient_scope\"") && said.contains("scope=\"mcp:read\""), "{said}");
    let other = list(&served, Some(&issuer.token(json!({ "groups": ["sales"] })))).await;
    assert_eq!((other.status, challenge(&other)), (403, String::new()));
}

#[tokio::test]
async fn keys_are_fetched_again_when_a_token_names_a_new_one() {
    let issuer = Issuer::start();
    let (_folder, served) = served(&issuer);
    assert_eq!(list(&served, Some(&issuer.token(json!({})))).await.status, 200);
    let next = pair();
    let token = issuer.sign(&next, "two", &issuer.claims(json!({})));
    *issuer.keys.lock().unwrap() = json!({ "keys": [jwk(&next, "two")] });
    assert_eq!(list(&served, Some(&token)).await.status, 200);
    assert_eq!(list(&served, Some(&issuer.token(json!({})))).await.status, 401, "the old key is no longer published");
}

/// Keys that grow stale are tested where they are kept: from here an hour is long.
#[tokio::test]
async fn an_issuer_that_hangs_holds_up_nobody_whose_key_is_known() {
    let issuer = Issuer::start();
    let (_folder, served) = served(&issuer);
    let known = issuer.token(json!({}));
    assert_eq!(list(&served, Some(&known)).await.status, 200);
    issuer.hangs.store(true, Ordering::SeqCst);
    let before = issuer.asked.load(Ordering::SeqCst);
    let unknown = issuer.sign(&pair(), "two", &issuer.claims(json!({})));
    let waiting = async {
        // Some leave at once; the issuer is not asked the oftener.
        for _ in 0..3 {
            let leaving = tokio::time::timeout(Duration::from_millis(300), list(&served, Some(&unknown))).await;
            assert!(leaving.is_err(), "a token with an unknown key waits for the issuer");
        }
        list(&served, Some(&unknown)).await.status
    };
    let others = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let began = Instant::now();
        for _ in 0..5 {
            assert_eq!(list(&served, Some(&known)).await.status, 200);
        }
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    };
    let (status, ()) = tokio::join!(waiting, others);
    assert_eq!(status, 401);
    assert_eq!(issuer.asked.load(Ordering::SeqCst) - before, 1, "one fetch for all");
}
