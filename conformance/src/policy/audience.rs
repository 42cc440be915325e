//! Credentials in the wrong place: tokens for another resource at our door, a client's token at a
//! server behind, and a peer's card that says where the operator's credential goes. And where the door
//! is, when nobody says.

use super::arena::Arena;
use super::gate::{Gate, show, tools};
use super::world::World;
use super::{Act, Case, gate};
use crate::issuer::{Issuer, now, pair, part};
use crate::served::Served;
use crate::upstream::{self, Act as Does, Seen, Upstream};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    let alone = Case::new("A1.01", "the door is open to other machines when nobody said so", bound(true), bound(false));
    [vec![alone], audiences(), onward(), cards()].into_iter().flatten().collect()
}

/// What is served without a word about where: reached at an address of this machine that others see.
fn bound(attack: bool) -> Act {
    Box::new(move |_| {
        let world = World::new("version = 1\n", "")?;
        let served = Served::of(world.folder.command(&["serve"]));
        let port = served.base.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
        let place = if attack { [10, 77, 0, 9] } else { [127, 0, 0, 1] };
        Ok(TcpStream::connect_timeout(&(place, port).into(), Duration::from_secs(5)).is_ok())
    })
}

const US: &str = "https://pleach.test/mcp";
const OAUTH: &str = r#"
version = 1
[servers.rec]
url = "{url}"
default_access = "read-only"
[servers.rec.tools]
put = { access = "read-write" }
[policy]
max_access = "read-write"
tools = { allow = ["*"] }
[clients.reader]
oauth = { issuer = "{issuer}", audience = "https://pleach.test/mcp", scopes = ["mcp:read"] }
match = { groups = "agents-prod" }
policy.max_access = "read-only"
[clients.writer]
oauth = { issuer = "{issuer}", audience = "https://pleach.test/mcp", scopes = ["mcp:read", "mcp:write"] }
match = { groups = "agents-prod" }
"#;

type Token = fn(&Issuer) -> String;

/// A good token.
fn good(issuer: &Issuer) -> String {
    issuer.token(json!({ "aud": US }))
}

/// A call with this token; what reached the server behind decides.
fn bearing(tool: &'static str, token: Token) -> Act {
    Box::new(move |arena| {
        let issuer = Issuer::start();
        let gate = Gate::open(&OAUTH.replace("{issuer}", &issuer.url), tools())?;
        let (tag, bearer) = (arena.tag(), format!("Bearer {}", token(&issuer)));
        show(&gate.call(arena, tool, &json!({ "tag": tag }), &[("authorization", &bearer)]));
        Ok(gate.reached(&tag))
    })
}

fn audiences() -> Vec<Case> {
    let tokens: [(&str, &str, Token); 16] = [
        ("A4.20", "a token for another resource", |i| i.token(json!({ "aud": "https://other.test/mcp" }))),
        ("A4.21", "a token for a resource that begins alike", |i| i.token(json!({ "aud": format!("{US}/more") }))),
        ("A4.22", "a token for a resource that ends alike", |i| i.token(json!({ "aud": "pleach.test/mcp" }))),
        ("A4.23", "a token for our resource in capitals", |i| i.token(json!({ "aud": US.to_uppercase() }))),
        ("A4.24", "a token for several others", |i| i.token(json!({ "aud": ["https://a.test", "https://b.test"] }))),
        ("A4.25", "a token for nobody", |i| i.token(json!({ "aud": null }))),
        ("A4.26", "a token for whatever an object is", |i| i.token(json!({ "aud": { "a": US } }))),
        ("A4.27", "a token of another issuer", |i| i.token(json!({ "aud": US, "iss": "https://login.example" }))),
        ("A4.28", "a token of an issuer that begins alike", |i| {
            i.token(json!({ "aud": US, "iss": format!("{}/evil", i.url) }))
        }),
        ("A4.29", "a token whose time is over", |i| i.token(json!({ "aud": US, "exp": now() - 600 }))),
        ("A4.30", "a token whose time has not come", |i| i.token(json!({ "aud": US, "nbf": now() + 600 }))),
        ("A4.31", "a token that a key of the same name signed", |i| {
            i.sign(&pair(), "one", &i.claims(json!({ "aud": US })))
        }),
        ("A4.32", "a token that nobody signed", |i| {
            let head = part(json!({ "alg": "none", "typ": "at+jwt" }).to_string().as_bytes());
            format!("{head}.{}.", part(i.claims(json!({ "aud": US })).to_string().as_bytes()))
        }),
        ("A4.33", "a token signed with what is public", |i| {
            let head = json!({ "alg": "HS256", "typ": "at+jwt", "kid": "one" }).to_string();
            let message =
                format!("{}.{}", part(head.as_bytes()), part(i.claims(json!({ "aud": US })).to_string().as_bytes()));
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, i.pair.public_key().as_ref());
            format!("{message}.{}", part(ring::hmac::sign(&key, message.as_bytes()).as_ref()))
        }),
        ("A4.34", "a token that is bound to a key which is not shown", |i| {
            i.token(json!({ "aud": US, "cnf": { "jkt": "x" } }))
        }),
        ("A4.35", "a token of somebody of another group", |i| i.token(json!({ "aud": US, "groups": ["sales"] }))),
    ];
    let mut all: Vec<Case> = tokens
        .into_iter()
        .map(|(id, says, token)| Case::new(id, says, bearing("rec__peek", token), bearing("rec__peek", good)))
        .collect();
    let wide: Token = |i| i.token(json!({ "aud": US, "scope": "mcp:read mcp:write" }));
    all.push(Case::new(
        "A4.36",
        "a token of a scope that may only read, which writes",
        bearing("rec__put", good),
        bearing("rec__put", wide),
    ));
    all
}

/// A client's token, on its way to the server behind: it is never there, whatever that server asks.
fn onward() -> Vec<Case> {
    let act = |demands: bool, attack: bool| -> Act {
        Box::new(move |arena| {
            let issuer = Issuer::start();
            let upstream = Upstream::start(move |seen| {
                let asks = demands && seen.method == "tools/call" && seen.before == 0;
                match upstream::modern(seen, json!({ "tools": {} }), &["peek"]) {
                    Some(act) => act,
                    None if asks => {
                        Does::Headed(401, "www-authenticate", format!("Bearer scope=\"mcp:read\", resource=\"{US}\""))
                    }
                    None => Does::Result(upstream::told("done")),
                }
            });
            let policy = OAUTH.replace("{issuer}", &issuer.url).replace("{url}", &upstream.url());
            let policy =
                policy.replace("[servers.rec]\n", "[servers.rec]\nheaders = { X-Key = \"of-the-operator\" }\n");
            let world = World::new(&policy, "")?;
            let served = Served::start(&world.folder);
            let gate = Gate { world, served, upstream };
            let token = good(&issuer);
            let bearer = format!("Bearer {token}");
            show(&gate.call(arena, "rec__peek", &json!({}), &[("authorization", &bearer)]));
            let calls = gate.upstream.came("tools/call");
            if calls.is_empty() {
                return Err("the call did not arrive".into());
            }
            let all = gate.upstream.came_to("/mcp");
            Ok(match attack {
                true => all.iter().any(|seen| format!("{:?} {}", seen.headers, seen.body).contains(&token)),
                false => calls.iter().all(|seen| seen.header("x-key") == "of-the-operator"),
            })
        })
    };
    vec![
        Case::new("A4.40", "a client's OAuth token goes on to a server", act(false, true), act(false, false)),
        Case::new("A4.41", "the same to a server that asks for one", act(true, true), act(true, false)),
        Case::new("A4.42", "a token in the address", addressed(true), addressed(false)),
    ]
}

/// A token among the parameters of the address, where logs and caches keep it.
fn addressed(attack: bool) -> Act {
    Box::new(move |arena| {
        let issuer = Issuer::start();
        let gate = Gate::open(&OAUTH.replace("{issuer}", &issuer.url), tools())?;
        let (tag, token) = (arena.tag(), good(&issuer));
        let bearer = format!("Bearer {token}");
        let path = if attack { format!("/mcp?access_token={token}") } else { "/mcp".to_owned() };
        let headers: &[(&str, &str)] = if attack { &[] } else { &[("authorization", &bearer)] };
        show(&gate.call_at(arena, &path, "rec__peek", &json!({ "tag": tag }), headers));
        Ok(gate.reached(&tag))
    })
}

const CREDENTIAL: &str = "Bearer the-credential-of-the-operator";

fn card(url: &str) -> Value {
    json!({
        "name": "p", "version": "1", "capabilities": { "streaming": false },
        "supportedInterfaces": [{ "url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0" }],
        "skills": [{ "id": "act", "name": "act", "description": "Acts.", "tags": [] }],
    })
}

fn done(seen: &Seen, card: &Value) -> Does {
    let task = json!({ "id": "t-1", "contextId": "c-1", "status": { "state": "TASK_STATE_COMPLETED" },
        "artifacts": [{ "artifactId": "a", "parts": [{ "text": "done" }] }] });
    if seen.method == "GET" { Does::Status(200, card.clone()) } else { Does::Result(json!({ "task": task })) }
}

/// A pleach with one peer, which is asked for something.
fn asks(arena: &Arena, peer: &str) -> Result<Gate, String> {
    let policy = format!(
        "version = 1\n[peers.p]\n{peer}\ndefault_access = \"read-only\"\n\
         headers = {{ Authorization = \"{CREDENTIAL}\" }}\n[policy]\ntools.allow = [\"*\"]\n"
    );
    let world = World::new(&policy, "")?;
    let served = Served::start(&world.folder);
    let gate = Gate { world, served, upstream: gate::behind(tools()) };
    show(&gate.call(arena, "p__act", &json!({ "message": "go" }), &[]));
    Ok(gate)
}

/// How many requests had the credential.
fn shown(upstream: &Upstream) -> usize {
    let all = ["GET", "SendMessage", "GetTask", "SendStreamingMessage"].iter().flat_map(|m| upstream.came(m));
    all.filter(|seen| format!("{:?}", seen.headers).contains(CREDENTIAL)).count()
}

fn cards() -> Vec<Case> {
    // Somebody else, whom nobody named, and whom the card, or an answer, does.
    let elsewhere = |liar: fn(&str, &str, &Seen) -> Does, attack: bool| -> Act {
        Box::new(move |arena| {
            let other = Upstream::of(|base| {
                let card = card(base);
                move |seen: &Seen| done(seen, &card)
            });
            let there = other.base.clone();
            let first = Upstream::of(|base| {
                let here = base.to_owned();
                move |seen: &Seen| liar(&here, &there, seen)
            });
            let (card, url) = (&first.base, &other.base);
            // The twin: the operator says himself that it lives there.
            let _gate = match attack {
                true => asks(arena, &format!("card = {card:?}"))?,
                false => asks(arena, &format!("card = {url:?}"))?,
            };
            Ok(shown(&other) > 0)
        })
    };
    let case = |id: &str, says: &str, liar: fn(&str, &str, &Seen) -> Does| {
        Case::new(id, format!("a credential goes where {says}"), elsewhere(liar, true), elsewhere(liar, false))
    };
    vec![
        case("A6.01", "a card says that its agent lives", |_, there, seen| done(seen, &card(there))),
        case("A6.02", "a redirect of the card leads", |_, there, _| Does::Headed(307, "location", there.to_owned())),
        case("A6.03", "a redirect of a message leads", |here, there, seen| match seen.method.as_str() {
            "GET" => done(seen, &card(here)),
            _ => Does::Headed(307, "location", there.to_owned()),
        }),
        case("A6.04", "a card's second interface is", |here, there, seen| {
            let mut both = card(here);
            both["supportedInterfaces"] = json!([
                { "url": there, "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0" },
                { "url": here, "protocolBinding": "GRPC", "protocolVersion": "1.0" },
            ]);
            done(seen, &both)
        }),
        case("A6.05", "a card of the older generation says", |_, there, seen| {
            let old = json!({ "name": "p", "version": "1", "protocolVersion": "0.3.0", "url": there,
                "preferredTransport": "JSONRPC", "capabilities": {}, "defaultInputModes": ["text/plain"],
                "defaultOutputModes": ["text/plain"], "description": "d",
                "skills": [{ "id": "act", "name": "act", "description": "Acts.", "tags": [] }] });
            done(seen, &old)
        }),
        Case::new("A6.06", "a card names the header that a credential goes in", header(true), header(false)),
        Case::new("A6.10", "a card that must be signed and is not", signed("none"), signed("right")),
        Case::new("A6.11", "a card that was changed after it was signed", signed("changed"), signed("right")),
        Case::new("A6.12", "a card that another key signed", signed("stranger"), signed("right")),
        Case::new("A6.13", "a card whose signature names its own key", signed("own"), signed("right")),
    ]
}

/// The card asks for the key in a header of its own choice.
fn header(attack: bool) -> Act {
    Box::new(move |arena| {
        let peer = Upstream::of(|base| {
            let mut card = card(base);
            card["securitySchemes"] =
                json!({ "key": { "apiKeySecurityScheme": { "location": "header", "name": "x-evil" } } });
            card["securityRequirements"] = json!([{ "schemes": { "key": { "list": [] } } }]);
            move |seen: &Seen| done(seen, &card)
        });
        let _gate = asks(arena, &format!("card = {:?}", peer.base))?;
        let name = if attack { "x-evil" } else { "authorization" };
        Ok(["GET", "SendMessage"].iter().flat_map(|m| peer.came(m)).any(|seen| seen.header(name) == CREDENTIAL))
    })
}

/// A peer whose card must be signed with the operator's key; whether it is given a message.
fn signed(kind: &'static str) -> Act {
    Box::new(move |arena| {
        let key = || {
            let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|e| e.to_string())?;
            Ed25519KeyPair::from_pkcs8(der.as_ref()).map_err(|e| e.to_string())
        };
        let (ours, stranger): (Ed25519KeyPair, Ed25519KeyPair) = (key()?, key()?);
        let public = part(ours.public_key().as_ref());
        let jwk = |pair: &Ed25519KeyPair| json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": part(pair.public_key().as_ref()) });
        let theirs = jwk(&stranger);
        let peer = Upstream::of(|base| {
            // serde_json sorts keys, which is the canonical form here.
            let mut card = card(base);
            let mut head = json!({ "alg": "EdDSA", "kid": "k", "typ": "JOSE" });
            if kind == "own" {
                head["jwk"] = theirs.clone();
            }
            let protected = part(head.to_string().as_bytes());
            let message = format!("{protected}.{}", part(card.to_string().as_bytes()));
            let by = if matches!(kind, "stranger" | "own") { &stranger } else { &ours };
            let signature = part(by.sign(message.as_bytes()).as_ref());
            if kind != "none" {
                card["signatures"] = json!([{ "protected": protected, "signature": signature }]);
            }
            if kind == "changed" {
                card["skills"][0]["description"] = "Acts, and more.".into();
            }
            move |seen: &Seen| done(seen, &card)
        });
        let keys = format!("keys = {{ keys = [{{ kty = \"OKP\", crv = \"Ed25519\", kid = \"k\", x = {public:?} }}] }}");
        let _gate = asks(arena, &format!("card = {:?}\n{keys}", peer.base))?;
        Ok(!peer.came("SendMessage").is_empty())
    })
}
