//! Agent cards (A2A 1.0, section 4.4), made of the policy: one document for both generations, with
//! addresses of one origin, which is `public_url` or where we listen and never what a request says.

use super::codec::Version;
use super::fault::{Fault, Kind};
use super::ops::Asked;
use super::{Door, JWKS, parts, push};
use policies::json::Json;
use policies::resolve::{AgentSpec, Policy, Proof, SkillSpec};
use serde_json::{Map, Value, json};

/// Whose token it takes where a scheme has no scopes: the role of whoever the policy file names.
const CLIENT: &str = "client";
/// A scheme, and what it takes of it: scopes, or a role.
type Wanted = (String, Vec<String>);
/// A card may be kept for so long without asking again, seconds.
const MAX_AGE: u32 = 300;

/// A card, to be signed and served.
pub(super) struct Card {
    document: Document,
    /// Its digest, quoted as HTTP wants it. It says nothing of the signatures, which differ from
    /// process to process: so it is a weak one.
    pub(super) etag: String,
}

/// A card without its signatures.
pub(super) struct Document {
    pub(super) card: Value,
    /// The same in the words of 1.0 alone, where it has more: a reader of 1.0 knows no more of it,
    /// and checks what it knows.
    pub(super) bare: Option<Value>,
}

impl Card {
    /// It with its signatures, as it is written.
    pub(super) fn signed(&self, door: &Door) -> String {
        self.document.signed(door).to_string()
    }
}

impl Document {
    /// A card of one generation for whoever names one, and of both for everybody else.
    pub(super) fn of(version: Option<Version>, written: impl Fn(Option<Version>) -> Value) -> Self {
        let bare = (version != Some(Version::V1)).then(|| written(Some(Version::V1)));
        Self { card: written(version), bare }
    }
    pub(super) fn signed(&self, door: &Door) -> Value {
        let jku = format!("{}{JWKS}", door.0.doorman.base());
        let forms = [self.bare.as_ref(), Some(&self.card)].into_iter().flatten();
        let signatures = forms.filter_map(|form| {
            let payload = adapters::a2a::payload(&Json::from(form));
            match door.0.key.detached(payload.as_bytes(), &jku) {
                Ok((protected, signature)) => Some(json!({ "protected": protected, "signature": signature })),
                Err(why) => {
                    tracing::error!("a card goes out unsigned: {why}");
                    None
                }
            }
        });
        let mut card = self.card.clone();
        card["signatures"] = signatures.collect();
        card
    }
}

/// `Cache-Control` of cards.
pub(super) fn lasts() -> String {
    format!("public, max-age={MAX_AGE}")
}

/// The public card of an agent; `None` where clients do not see it.
pub(super) fn of(door: &Door, agent: &str, version: Option<Version>) -> Option<Card> {
    let policy = door.0.live.now().policy.clone();
    let agent = policy.agents.values().find(|a| a.name.as_str() == agent && a.expose)?;
    Some(served(door, document(door, &policy, agent, version)))
}

/// The card of the whole: the default agent's, else the first that clients see.
pub(super) fn root(door: &Door, version: Option<Version>) -> Option<Card> {
    let policy = door.0.live.now().policy.clone();
    let default = policy.default_agent().filter(|agent| agent.expose);
    let agent = default.or_else(|| policy.agents.values().find(|agent| agent.expose))?;
    Some(served(door, document(door, &policy, agent, version)))
}

/// The card of an agent for whoever asks: with the agents beneath it that whoever asks may start,
/// as skills, and with what it may have told.
pub(super) fn extended(asked: &Asked) -> Result<Value, Fault> {
    let policy = asked.door.0.live.now().policy.clone();
    if policy.clients.is_none() {
        let kind = match asked.version {
            Version::V1 => Kind::UnsupportedOperation,
            Version::V0_3 => Kind::ExtendedCardNotConfigured,
        };
        return Err(Fault::new(kind, "nobody is known by name here, so there is one card for all"));
    }
    let agent = policy.agents.get(&asked.agent);
    let agent = agent.ok_or_else(|| Fault::new(Kind::NoAgent, "there is no such agent"))?;
    let may = |agent: &&AgentSpec| asked.who.may_start.contains(&agent.name);
    let known = agent.subagents.iter().filter_map(|name| policy.agents.get(name)).filter(may);
    let below: Vec<Value> = known.map(|agent| skill(agent, &["subagent"])).collect();
    let reaches = push::reaches(&asked.who.caller.authority);
    let mut document = document(&asked.door, &policy, agent, Some(asked.version));
    for card in [Some(&mut document.card), document.bare.as_mut()].into_iter().flatten() {
        card["capabilities"]["pushNotifications"] = reaches.into();
        if let Some(skills) = card["skills"].as_array_mut() {
            skills.extend(below.iter().cloned());
        }
    }
    Ok(document.signed(&asked.door))
}

pub(super) fn served(door: &Door, document: Document) -> Card {
    let digest = policies::json::digest(&format!("{}{}", document.card, door.0.key.kid()));
    Card { document, etag: format!("W/\"{digest}\"") }
}

fn skill(agent: &AgentSpec, tags: &[&str]) -> Value {
    json!({
        "id": agent.name.as_str(), "name": agent.name.as_str(), "description": described(agent), "tags": tags,
        "inputModes": parts::INPUT, "outputModes": outputs(agent),
    })
}

/// What a card offers: what the operator says the agent does, or the agent itself.
fn skills(agent: &AgentSpec) -> Vec<Value> {
    if agent.skills.is_empty() {
        return vec![skill(agent, &["agent"])];
    }
    let one = |spec: &SkillSpec| {
        let mut skill = json!({
            "id": spec.id, "name": spec.name, "description": spec.description,
            "tags": if spec.tags.is_empty() { vec!["agent".to_owned()] } else { spec.tags.clone() },
            "inputModes": parts::INPUT, "outputModes": outputs(agent),
        });
        if !spec.examples.is_empty() {
            skill["examples"] = json!(spec.examples);
        }
        skill
    };
    agent.skills.iter().map(one).collect()
}

fn described(agent: &AgentSpec) -> String {
    match agent.description.trim() {
        "" => format!("The agent {}.", agent.name),
        description => description.to_owned(),
    }
}

fn outputs(agent: &AgentSpec) -> Vec<&'static str> {
    match agent.output_schema.is_some() {
        true => vec!["application/json"],
        false => parts::OUTPUT.to_vec(),
    }
}

fn document(door: &Door, policy: &Policy, agent: &AgentSpec, version: Option<Version>) -> Document {
    Document::of(version, |version| written(door, policy, agent, version))
}

fn written(door: &Door, policy: &Policy, agent: &AgentSpec, version: Option<Version>) -> Value {
    let base = format!("{}/a2a/{}", door.0.doorman.base(), agent.name);
    let rest = format!("{base}/rest");
    let interface = |url: &str, binding: &str, version: &str| json!({ "url": url, "protocolBinding": binding, "protocolVersion": version });
    let known = policy.clients.is_some();
    let mut card = json!({
        "name": agent.name.as_str(), "description": described(agent), "version": env!("CARGO_PKG_VERSION"),
        "supportedInterfaces": [
            interface(&base, "JSONRPC", "1.0"), interface(&rest, "HTTP+JSON", "1.0"),
            interface(&base, "JSONRPC", "0.3"),
        ],
        "capabilities": { "streaming": true, "pushNotifications": push::is_served(policy), "extendedAgentCard": known },
        "defaultInputModes": parts::INPUT, "defaultOutputModes": outputs(agent),
        "skills": skills(agent),
    });
    takes_grants(&mut card, policy);
    // The same in the words of 0.3.
    let old = json!({
        "url": base, "preferredTransport": "JSONRPC", "protocolVersion": "0.3.0",
        "additionalInterfaces": [{ "url": base, "transport": "JSONRPC" }],
        "supportsAuthenticatedExtendedCard": known,
    });
    if version != Some(Version::V1)
        && let (Value::Object(card), Value::Object(old)) = (&mut card, old)
    {
        card.extend(old);
    }
    secured(&mut card, policy, version);
    card
}

/// Says in a card that gateways are known here by their grants, where some are.
pub(super) fn takes_grants(card: &mut Value, policy: &Policy) {
    if policy.clients.iter().flatten().any(|(_, client)| client.proof.grants().is_some()) {
        let what = "Callers that are gateways come with a grant of what the agent may do for them.";
        let extension = json!({ "uri": adapters::a2a::AUTHORITY, "description": what, "required": false });
        card["capabilities"]["extensions"] = json!([extension]);
    }
}

/// Says in a card how whoever calls says who it is.
pub(super) fn secured(card: &mut Value, policy: &Policy, version: Option<Version>) {
    let (schemes, wanted) = security(policy, version);
    if !schemes.is_empty() {
        card["securitySchemes"] = schemes.into();
        let one = |(name, needs): &Wanted| json!({ "schemes": { name: { "list": needs } } });
        card["securityRequirements"] = wanted.iter().map(one).collect();
        if version != Some(Version::V1) {
            // What is no scope has no place there.
            let needs = |needs: &[String]| if *needs == [CLIENT] { json!([]) } else { json!(needs) };
            card["security"] = wanted.iter().map(|(name, of)| json!({ name: needs(of) })).collect();
        }
    }
}

/// How whoever calls says who it is: a token of the policy file, or one of an issuer. Each scheme
/// is written in the words of both generations. What is wanted says of each what it takes, and never
/// nothing: what is signed of a card leaves out what is empty, and with it the whole requirement.
fn security(policy: &Policy, version: Option<Version>) -> (Map<String, Value>, Vec<Wanted>) {
    let (mut schemes, mut wanted) = (Map::new(), Vec::new());
    let Some(clients) = &policy.clients else { return (schemes, wanted) };
    if clients.values().any(|client| !matches!(client.proof, Proof::OAuth(_))) {
        let scheme = json!({ "scheme": "Bearer", "description": "A token the operator gave you." });
        schemes.insert("bearer".into(), scheme_of(version, ("http", "httpAuthSecurityScheme"), scheme));
        wanted.push(("bearer".to_owned(), vec![CLIENT.to_owned()]));
    }
    for (i, issuer) in policies::callers::issuers(policy).into_iter().enumerate() {
        let name = format!("issuer{}", i + 1);
        let of = policies::callers::specs(policy).filter(|spec| spec.issuer == *issuer);
        // Those that each of its clients must have; every token of OpenID Connect has this one.
        let all = of.map(|spec| spec.scopes.clone()).reduce(|all, one| &all & &one).unwrap_or_default();
        let needs = if all.is_empty() { vec!["openid".to_owned()] } else { all.into_iter().collect() };
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let scheme = json!({ "openIdConnectUrl": url });
        let scheme = scheme_of(version, ("openIdConnect", "openIdConnectSecurityScheme"), scheme);
        schemes.insert(name.clone(), scheme);
        wanted.push((name, needs));
    }
    (schemes, wanted)
}

/// A scheme under its name of 0.3, of 1.0, or of both.
fn scheme_of(version: Option<Version>, (old, new): (&str, &str), scheme: Value) -> Value {
    if version == Some(Version::V1) {
        return json!({ new: scheme });
    }
    let mut both = scheme.clone();
    both["type"] = old.into();
    both[new] = scheme;
    both
}
