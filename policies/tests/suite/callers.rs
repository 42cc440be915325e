//! Which client a token names.

use crate::world::load;
use policies::callers::{Named, named, scopes_needed, scopes_supported};
use policies::json::{Json, Limits};
use policies::resolve::Policy;

fn policy() -> Policy {
    load(
        r#"
version = 1
[clients.plain]
token = "${CI_TOKEN}"
[clients.reader]
oauth = { issuer = "https://i.example", audience = "us", scopes = ["read"] }
match = { groups = "prod" }
[clients.writer]
oauth = { issuer = "https://i.example", audience = "us", scopes = ["read", "write"] }
match = { groups = "prod" }
[clients.admin]
oauth = { issuer = "https://i.example", audience = "us", scopes = ["read"] }
match = { groups = "prod", "/realm/roles" = "admin" }
[clients.else]
oauth = { issuer = "https://other.example", audience = "us" }
"#,
    )
    .unwrap()
}

fn who(issuer: &str, claims: &str) -> String {
    let claims = Json::parse(claims.as_bytes(), Limits::default()).unwrap();
    match named(&policy(), issuer, &claims) {
        Named::Client(client) => client.name.to_string(),
        Named::Lacks(scopes) => format!("lacks {}", scopes.into_iter().collect::<Vec<_>>().join(" ")),
        Named::Both(a, b) => format!("both {} and {}", a.name, b.name),
        Named::Nobody => "nobody".into(),
    }
}

#[test]
fn the_most_demanding_client_is_named() {
    let own = |claims: &str| who("https://i.example", claims);
    assert_eq!(own(r#"{"aud":"us","groups":["x","prod"],"scope":"read"}"#), "reader");
    assert_eq!(own(r#"{"aud":["them","us"],"groups":"prod","scope":"write read"}"#), "writer");
    assert_eq!(own(r#"{"aud":"us","groups":["prod"],"scp":["read"]}"#), "reader");
    assert_eq!(own(r#"{"aud":"us","groups":["prod"],"realm":{"roles":["admin"]},"scope":"read"}"#), "admin");
    let both = own(r#"{"aud":"us","groups":["prod"],"realm":{"roles":["admin"]},"scope":"read write"}"#);
    assert!(both.starts_with("both "), "neither includes the other: {both}");
}

#[test]
fn whoever_lacks_a_claim_is_nobody_and_whoever_lacks_scopes_is_told() {
    let own = |claims: &str| who("https://i.example", claims);
    assert_eq!(own(r#"{"aud":"us","groups":["prod"]}"#), "lacks read");
    assert_eq!(own(r#"{"aud":"us","groups":["prod"],"scope":"reader"}"#), "lacks read");
    assert_eq!(own(r#"{"aud":"us","groups":["production"],"scope":"read"}"#), "nobody");
    assert_eq!(own(r#"{"aud":"us","groups":"prod x","scope":"read"}"#), "nobody", "only scopes are split");
    assert_eq!(own(r#"{"aud":"them","groups":["prod"],"scope":"read"}"#), "nobody");
    assert_eq!(own(r#"{"groups":["prod"],"scope":"read"}"#), "nobody");
    assert_eq!(who("https://other.example", r#"{"aud":"us"}"#), "else");
    assert_eq!(who("https://i.example/", r#"{"aud":"us","groups":["prod"],"scope":"read"}"#), "nobody");
}

#[test]
fn what_the_metadata_says() {
    let all: Vec<String> = scopes_supported(&policy()).into_iter().collect();
    assert_eq!(all, ["read", "write"]);
    assert!(scopes_needed(&policy()).is_empty(), "one of the issuers asks for none");
}
