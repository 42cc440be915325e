//! A peer's card: how it is spoken to, and its skills as tools.

use policies::json::{Json, Object};
use url::Url;

/// The extension of A2A by which a gateway says that it takes grants: as bearer tokens, one for each
/// message, met with what its own policy allows.
pub const AUTHORITY: &str = "urn:pleach:a2a:authority:v1";

/// How an interface is spoken to. The order is that of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Binding {
    /// A2A 1.0 over JSON-RPC.
    Rpc,
    /// A2A 1.0 over HTTP and JSON.
    Http,
    /// A2A 0.3 over JSON-RPC.
    OldRpc,
}

/// Where and how a peer answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) binding: Binding,
    pub(super) url: Url,
    pub(super) tenant: Option<String>,
}

/// A card that was understood.
#[derive(Debug)]
pub(super) struct Card {
    interface: Interface,
    pub(super) streaming: bool,
    /// Whether it takes grants.
    pub(super) takes_grants: bool,
    name: String,
    version: String,
    /// The name of each tool, and the skill's own id.
    skills: Vec<(String, String)>,
    tools: Vec<Json>,
}

impl Card {
    /// Reads a card whose peer is at home in the origin of `home`.
    ///
    /// # Errors
    /// When it is none, or names no interface there that is spoken here.
    pub(super) fn read(card: &Json, home: &Url) -> Result<Self, String> {
        let text = |key: &str| card.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        let streaming = card.pointer("/capabilities/streaming").and_then(Json::as_bool) == Some(true);
        let extensions = card.pointer("/capabilities/extensions").and_then(Json::as_array).unwrap_or_default();
        let takes_grants = extensions.iter().any(|e| e.get("uri").and_then(Json::as_str) == Some(AUTHORITY));
        let interface = interface(card, home)?;
        let (mut skills, mut tools) = (Vec::new(), Vec::new());
        for skill in card.get("skills").and_then(Json::as_array).ok_or("the card has no list of skills")? {
            let Some(id) = skill.get("id").and_then(Json::as_str).filter(|id| !id.is_empty()) else { continue };
            let name = tool_name(id);
            tools.push(tool(&name, skill, &interface));
            skills.push((name, id.to_owned()));
        }
        Ok(Self { interface, streaming, takes_grants, name: text("name"), version: text("version"), skills, tools })
    }
    pub(super) fn interface(&self) -> &Interface {
        &self.interface
    }
    /// Who it says it is.
    pub(super) fn about(&self) -> Json {
        Json::object([("name", self.name.as_str().into()), ("version", self.version.as_str().into())])
    }
    /// Its skills, as tools.
    pub(super) fn tools(&self) -> Vec<Json> {
        self.tools.clone()
    }
    /// The skill of a tool's name.
    pub(super) fn skill(&self, tool: &str) -> Option<&str> {
        self.skills.iter().find(|(name, _)| name == tool).map(|(_, id)| id.as_str())
    }
}

/// The tool of a skill: what tools may not be called, skills may.
pub fn tool_name(id: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    id.chars().map(|c| if fits(c) { c } else { '-' }).collect()
}

fn tool(name: &str, skill: &Json, interface: &Interface) -> Json {
    let text = |key: &str| skill.get(key).and_then(Json::as_str);
    let mut description = text("description").or(text("name")).unwrap_or_default().to_owned();
    let examples = skill.get("examples").and_then(Json::as_array).unwrap_or_default();
    for example in examples.iter().filter_map(Json::as_str) {
        description.push_str("\nExample: ");
        description.push_str(example);
    }
    let of = |kind: &str, says: &str| Json::object([("type", kind.into()), ("description", says.into())]);
    let properties = Json::object([
        ("message", of("string", "What the agent is to do, in words.")),
        ("data", Json::object([("description", "Data that goes with it, of any form.".into())])),
        ("context", of("string", "The context of an earlier result, to go on with that conversation.")),
        ("task", of("string", "The task of an earlier result that waits for an answer; message is the answer.")),
    ]);
    let schema = Json::object([
        ("type", "object".into()),
        ("properties", properties),
        ("required", vec!["message".into()].into()),
        ("additionalProperties", false.into()),
    ]);
    let mut tool = Object::new();
    tool.set("name", name);
    if let Some(title) = text("name") {
        tool.set("title", title);
    }
    tool.set("description", description);
    tool.set("inputSchema", schema);
    // What is pinned of a tool holds for where its messages go and for the skill they name, too. An
    // address may hold a key, so that it stands as its digest.
    let Interface { binding, url, tenant } = interface;
    let at = policies::json::digest(&format!("{binding:?} {url} {}", tenant.as_deref().unwrap_or_default()));
    let id = skill.get("id").and_then(Json::as_str).unwrap_or_default();
    tool.set("_meta", Json::object([("pleach/skill", id.into()), ("pleach/interface", at.into())]));
    tool.into()
}

/// The best interface at home.
fn interface(card: &Json, home: &Url) -> Result<Interface, String> {
    let (mut good, mut elsewhere, mut unspoken) = (Vec::new(), Vec::new(), Vec::new());
    for (url, binding, tenant) in interfaces(card) {
        let Some(binding) = binding else {
            unspoken.push(url);
            continue;
        };
        match Url::parse(&url) {
            Ok(url) if url.origin() == home.origin() && url.username().is_empty() && url.password().is_none() => {
                good.push(Interface { binding, url, tenant });
            }
            Ok(url) => elsewhere.push(url.origin().ascii_serialization()),
            Err(_) => unspoken.push(url),
        }
    }
    good.sort_by_key(|interface| interface.binding);
    if let Some(best) = good.into_iter().next() {
        return Ok(best);
    }
    let home = home.origin().ascii_serialization();
    Err(match elsewhere.first() {
        Some(other) => format!(
            "the card sends its callers to {other}, which is not {home}; if that is right, say so: url = {other:?} in \
             its [peers] table"
        ),
        None if unspoken.is_empty() => "the card names no interface".into(),
        None => "the card names no interface that is spoken here: JSON-RPC of 1.0 and 0.3, HTTP+JSON of 1.0".into(),
    })
}

/// Every interface a card of either generation names, and its binding where it is spoken here.
fn interfaces(card: &Json) -> Vec<(String, Option<Binding>, Option<String>)> {
    let text = |of: &Json, key: &str| of.get(key).and_then(Json::as_str).map(str::to_owned);
    let mut out = Vec::new();
    for one in card.get("supportedInterfaces").and_then(Json::as_array).unwrap_or_default() {
        let (version, kind) = (text(one, "protocolVersion"), text(one, "protocolBinding").unwrap_or_default());
        let version = version.unwrap_or_else(|| "1.0".into());
        let generation = version.split('.').take(2).collect::<Vec<_>>().join(".");
        let binding = match (generation.as_str(), kind.to_ascii_uppercase().as_str()) {
            ("1" | "1.0" | "1.1", "JSONRPC") => Some(Binding::Rpc),
            ("1" | "1.0" | "1.1", "HTTP+JSON") => Some(Binding::Http),
            ("0.3", "JSONRPC") => Some(Binding::OldRpc),
            _ => None,
        };
        let tenant = text(one, "tenant").filter(|tenant| !tenant.is_empty());
        out.extend(text(one, "url").map(|url| (url, binding, tenant)));
    }
    let old = text(card, "protocolVersion").is_some_and(|version| version.starts_with("0.3"));
    let of = |kind: Option<String>| {
        (old && kind.is_none_or(|kind| kind.eq_ignore_ascii_case("JSONRPC"))).then_some(Binding::OldRpc)
    };
    out.extend(text(card, "url").map(|url| (url, of(text(card, "preferredTransport")), None)));
    for one in card.get("additionalInterfaces").and_then(Json::as_array).unwrap_or_default() {
        out.extend(text(one, "url").map(|url| (url, of(text(one, "transport")), None)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::json::Limits;

    fn read(interfaces: &str) -> Result<Card, String> {
        let text = format!(
            r#"{{"name":"n","version":"1","skills":[{{"id":"book a/flight","name":"Book","description":"Books.","examples":["to Rome"]}}],{interfaces}}}"#
        );
        let card = Json::parse(text.as_bytes(), Limits::default()).unwrap();
        Card::read(&card, &Url::parse("https://a.example/card").unwrap())
    }

    #[test]
    fn the_best_interface_at_home_is_taken() {
        let one = |url: &str, binding: &str, version: &str| {
            format!(r#"{{"url":"{url}","protocolBinding":"{binding}","protocolVersion":"{version}"}}"#)
        };
        let all = |list: &[String]| format!(r#""supportedInterfaces":[{}]"#, list.join(","));
        let old = one("https://a.example/old", "JSONRPC", "0.3.0");
        let (http, rpc) =
            (one("https://a.example/http", "HTTP+JSON", "1.0"), one("https://a.example/rpc", "JSONRPC", "1.0"));
        let grpc = one("a.example:443", "GRPC", "1.0");
        let path = |list: &[String]| read(&all(list)).map(|card| card.interface().url.path().to_owned());
        assert_eq!(path(&[grpc.clone(), old.clone(), http.clone(), rpc.clone()]).unwrap(), "/rpc");
        assert_eq!(path(&[old.clone(), http]).unwrap(), "/http");
        assert_eq!(path(&[old]).unwrap(), "/old");
        assert!(path(&[grpc]).unwrap_err().contains("spoken here"));
        for other in
            ["https://b.example/rpc", "http://a.example/rpc", "https://a.example:8443/", "https://u@a.example/"]
        {
            assert!(path(&[one(other, "JSONRPC", "1.0")]).unwrap_err().contains("sends its callers"), "{other}");
        }
        // One elsewhere does not spoil the others.
        assert_eq!(path(&[one("https://b.example/", "JSONRPC", "1.0"), rpc]).unwrap(), "/rpc");
    }

    #[test]
    fn a_card_of_0_3() {
        let card = read(r#""url":"https://a.example/","protocolVersion":"0.3.0","capabilities":{"streaming":true}"#);
        let card = card.unwrap();
        assert_eq!((card.interface().binding, card.streaming), (Binding::OldRpc, true));
        let grpc = r#""url":"https://a.example/g","preferredTransport":"GRPC","protocolVersion":"0.3.0""#;
        assert!(read(grpc).is_err());
        let more = format!(r#"{grpc},"additionalInterfaces":[{{"url":"https://a.example/r","transport":"JSONRPC"}}]"#);
        assert_eq!(read(&more).unwrap().interface().url.path(), "/r");
    }

    #[test]
    fn what_is_pinned_of_a_skill_holds_for_where_it_goes() {
        let at = |url: &str, tenant: &str| {
            let one = format!(r#"{{"url":"{url}","protocolBinding":"JSONRPC","protocolVersion":"1.0"{tenant}}}"#);
            read(&format!(r#""supportedInterfaces":[{one}]"#)).unwrap().tools()[0].to_canonical()
        };
        let first = at("https://a.example/rpc", "");
        assert_eq!(first, at("https://a.example/rpc", ""));
        assert!(first.contains("book a/flight"), "the skill's own id: {first}");
        assert_ne!(first, at("https://a.example/other", ""));
        assert_ne!(first, at("https://a.example/rpc", r#","tenant":"t""#));
    }

    #[test]
    fn skills_are_tools() {
        let card = read(r#""url":"https://a.example/","protocolVersion":"0.3.0""#).unwrap();
        assert_eq!(card.skill("book-a-flight"), Some("book a/flight"));
        let tool = &card.tools()[0];
        assert_eq!(tool.get("description").and_then(Json::as_str), Some("Books.\nExample: to Rome"));
        assert_eq!(tool.get("title").and_then(Json::as_str), Some("Book"));
    }
}
