//! A peer's card as its clients here see it: what the peer says of itself, with our address, our
//! ways to say who one is, and the skills whoever asks may use.

use super::super::card::{Card, Document, secured, served, takes_grants};
use super::super::codec::Version;
use super::super::fault::{Fault, Kind};
use super::super::{Door, parts};
use super::{Passing, exposed, no_peer, or_empty, skill_of};
use crate::auth;
use crate::hosted::Who;
use http::HeaderMap;
use policies::manifest::Tool;
use policies::names::Name;
use policies::resolve::Policy;
use serde_json::{Value, json};
use std::sync::Arc;

/// The card of a peer for whoever asks: named, with what it may use; unnamed, with what anybody
/// might. `None` where there is no such peer for it.
pub(in super::super) async fn of(door: &Door, name: &str, headers: &HeaderMap) -> Result<Option<Card>, Fault> {
    let policy = door.0.live.now().policy.clone();
    let Some((peer, _)) = exposed(&policy, name) else { return Ok(None) };
    let who = match (door.identify(headers).await, auth::bearer(headers)) {
        (Ok(who), _) => who,
        (Err(_), None) => Who::nobody(&policy),
        (Err(fault), Some(_)) => return Err(fault),
    };
    let skills = door.0.guard.skills(&who.caller, peer).await;
    let version = super::super::named(headers);
    let document = document(door, &policy, (peer, &who), &skills, version).await?;
    let shows = document.card["skills"].as_array().is_some_and(|skills| !skills.is_empty());
    Ok(shows.then(|| served(door, document)))
}

/// The same for whoever is known by name.
pub(super) async fn extended(passing: &Passing) -> Result<Value, Fault> {
    let (door, who) = (&passing.asked.door, &passing.asked.who);
    let policy = door.0.live.now().policy.clone();
    if policy.clients.is_none() {
        let kind = match passing.asked.version {
            Version::V1 => Kind::UnsupportedOperation,
            Version::V0_3 => Kind::ExtendedCardNotConfigured,
        };
        return Err(Fault::new(kind, "nobody is known by name here, so there is one card for all"));
    }
    let version = Some(passing.asked.version);
    let document = document(door, &policy, (&passing.peer, who), &passing.skills, version).await?;
    Ok(document.signed(door))
}

async fn document(
    door: &Door,
    policy: &Policy,
    (peer, who): (&Name, &Who),
    tools: &[Arc<Tool>],
    version: Option<Version>,
) -> Result<Document, Fault> {
    if tools.is_empty() && super::away(door, who, peer).is_none() {
        return Err(no_peer(peer.as_str()));
    }
    let own = door.0.guard.card(&who.caller, peer).await.map_err(|e| super::fault(peer, e, None))?.to_serde();
    Ok(Document::of(version, |version| written(door, policy, (peer, &own), tools, version)))
}

fn written(
    door: &Door,
    policy: &Policy,
    (peer, own): (&Name, &Value),
    tools: &[Arc<Tool>],
    version: Option<Version>,
) -> Value {
    let base = format!("{}/a2a/{peer}", door.0.doorman.base());
    let interface = |url: &str, binding: &str, version: &str| json!({ "url": url, "protocolBinding": binding, "protocolVersion": version });
    let known = policy.clients.is_some();
    let text = |key: &str| own.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let or_text = |modes: Value| if modes.as_array().is_some_and(Vec::is_empty) { json!(parts::INPUT) } else { modes };
    let mut card = json!({
        "name": text("name").unwrap_or(peer.as_str()),
        "description": text("description").unwrap_or("An agent elsewhere."),
        "version": text("version").unwrap_or("0"),
        "supportedInterfaces": [
            interface(&base, "JSONRPC", "1.0"), interface(&format!("{base}/rest"), "HTTP+JSON", "1.0"),
            interface(&base, "JSONRPC", "0.3"),
        ],
        // Where the peer does not stream, it is asked again and again here.
        "capabilities": { "streaming": true, "pushNotifications": false, "extendedAgentCard": known },
        "defaultInputModes": or_text(or_empty(own.get("defaultInputModes"))),
        "defaultOutputModes": or_text(or_empty(own.get("defaultOutputModes"))),
        "skills": skills(own, tools),
    });
    // What comes with a grant leaves here with less of it: what is left under our own rules.
    takes_grants(&mut card, policy);
    for key in ["provider", "documentationUrl", "iconUrl"] {
        if let Some(value) = own.get(key).filter(|value| !value.is_null()) {
            card[key] = value.clone();
        }
    }
    if version != Some(Version::V1) {
        card["url"] = base.as_str().into();
        card["preferredTransport"] = "JSONRPC".into();
        card["protocolVersion"] = "0.3.0".into();
        card["additionalInterfaces"] = json!([{ "url": base, "transport": "JSONRPC" }]);
        card["supportsAuthenticatedExtendedCard"] = known.into();
    }
    secured(&mut card, policy, version);
    card
}

/// The skills of these tools, as the peer describes them; how one says who one is there is nobody's
/// business here.
fn skills(own: &Value, tools: &[Arc<Tool>]) -> Value {
    let all = own.get("skills").and_then(Value::as_array);
    let named = |skill: &&Value| {
        let id = skill.get("id").and_then(Value::as_str);
        id.is_some_and(|id| tools.iter().any(|tool| skill_of(tool) == id))
    };
    let bare = |skill: &Value| {
        let mut skill = skill.clone();
        if let Some(skill) = skill.as_object_mut() {
            skill.remove("security");
            skill.remove("securityRequirements");
        }
        skill
    };
    all.into_iter().flatten().filter(named).map(bare).collect()
}
