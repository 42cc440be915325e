//! `[peers]`: A2A agents elsewhere, whose skills are tools like those of a server.

use super::Resolver;
use super::servers::{Secret, ServerSpec, Transport};
use crate::file::Node;
use crate::json::Json;
use crate::manifest::ServerWords;
use crate::names::Name;
use crate::place::Place;
use std::collections::BTreeMap;
use std::time::Duration;

/// How a peer is reached, and what is believed of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSpec {
    /// The address of its card.
    pub card: url::Url,
    /// Where it answers, where that is not the origin of its card.
    pub url: Option<url::Url>,
    /// Headers for [`PeerSpec::home`].
    pub headers: BTreeMap<String, Secret>,
    /// The JWK set its card must be signed with, if it must.
    pub keys: Option<Json>,
    /// It is shown grants in the place of [`PeerSpec::headers`]' word for who we are.
    pub delegate: bool,
    /// What a run has done over there may use the tools here as the run might, until it is done.
    pub callback: bool,
    /// Whether A2A clients see it, at `/a2a/NAME`.
    pub expose: bool,
}

impl PeerSpec {
    /// The address whose origin is the peer's own: what it is shown goes there and nowhere else.
    pub fn home(&self) -> &url::Url {
        self.url.as_ref().unwrap_or(&self.card)
    }
}

impl Resolver<'_> {
    /// Adds the peers to the servers: one table of names, for their tools have one.
    pub(super) fn peers(&mut self, file: &Node, out: &mut BTreeMap<Name, ServerSpec>) {
        for (key, place, node) in file.get("peers").map(Node::entries).unwrap_or_default() {
            let Ok(name) = Name::try_from(key.as_str()) else { continue };
            if key == "pleach" {
                self.error(place, "the name \"pleach\" belongs to pleach's own tools; choose another");
                continue;
            }
            if let Some(server) = file.get("servers").and_then(|s| s.key_place(key)) {
                let message = format!("{key} is the name of a server as well (line {}); choose another", server.line);
                self.error(place, message);
                continue;
            }
            if node.get("expose").and_then(Node::bool) == Some(true)
                && let Some(agent) = file.get("agents").and_then(|agents| agents.key_place(key))
            {
                let message = format!(
                    "{key} is the name of an agent as well (line {}), and /a2a/{key} is one of them; choose another",
                    agent.line
                );
                self.error(place, message);
                continue;
            }
            self.callback(file, &name, node);
            if let Some(spec) = self.peer(&name, place, node) {
                out.insert(name, spec);
            }
        }
    }

    /// Whether a peer can be told where to call back, if it is to be.
    fn callback(&mut self, file: &Node, name: &Name, node: &Node) {
        if node.get("callback").and_then(Node::bool) != Some(true) {
            return;
        }
        let url = file.get("gateway").and_then(|gateway| gateway.text_at("public_url")).map(url::Url::parse);
        let clear = |url: &url::Url| {
            url.scheme() == "http" && !crate::domain::Host::of(url).is_ok_and(|host| host.is_loopback())
        };
        let why = match url {
            _ if node.get("delegate").and_then(Node::bool) != Some(true) => {
                "callback goes with delegate = true: only a Pleach is given something to call back with"
            }
            None => "callback needs public_url in [gateway]: it is where what is done over there calls back",
            Some(Ok(url)) if clear(&url) => "a token would come back in clear text; give [gateway] an https public_url",
            Some(_) => return,
        };
        let at = node.key_place("callback").unwrap_or(&node.place).clone();
        self.error(&at, format!("peer {name}: {why}"));
    }

    fn peer(&mut self, name: &Name, place: &Place, node: &Node) -> Option<ServerSpec> {
        let Some(card) = node.get("card") else {
            let message = format!("peer {name} needs card, such as \"https://…/.well-known/agent-card.json\"");
            self.error(place, message);
            return None;
        };
        let card = self.address(card, "card")?;
        let url = match node.get("url") {
            Some(at) => Some(self.address(at, "url")?),
            None => None,
        };
        let headers = self.secrets(&format!("peer {name}"), node.get("headers"))?;
        let keys = match node.get("keys") {
            Some(at) => Some(self.signing_keys(at)?),
            None => None,
        };
        let delegate = node.get("delegate").and_then(Node::bool).unwrap_or(false);
        if delegate && headers.keys().any(|name| name.eq_ignore_ascii_case("authorization")) {
            let at = node.key_place("delegate").unwrap_or(place);
            self.error(at, "delegate and headers.Authorization both say who we are; give one of them");
            return None;
        }
        let expose = node.get("expose").and_then(Node::bool).unwrap_or(false);
        let callback = node.get("callback").and_then(Node::bool).unwrap_or(false);
        let spec = PeerSpec { card, url, headers, keys, delegate, callback, expose };
        if delegate
            && spec.home().scheme() == "http"
            && !crate::domain::Host::of(spec.home()).is_ok_and(|h| h.is_loopback())
        {
            let at = node.key_place("delegate").unwrap_or(place);
            self.error(at, "a grant would travel in clear text; give the peer an https address");
            return None;
        }
        let transport = Transport::Peer(Box::new(spec));
        let identity = self.identity(&transport, node);
        let (unapproved, pinned) = self.approval(name, place, &transport, &identity);
        let timeout = node.get("timeout").and_then(Node::int).and_then(|ms| u64::try_from(ms).ok()).unwrap_or(60_000);
        Some(ServerSpec {
            name: name.clone(),
            place: place.clone(),
            words: ServerWords { peer: true, ..self.words(node, false, &identity) },
            transport,
            cwd: self.around.folder().to_owned(),
            timeout: Duration::from_millis(timeout),
            runtime_paths: Vec::new(),
            unapproved,
            identity,
            pinned,
        })
    }

    fn signing_keys(&mut self, at: &Node) -> Option<Json> {
        let (set, of) = self.document(at, "keys")?;
        if set.get("keys").and_then(Json::as_array).is_none_or(<[Json]>::is_empty) {
            self.error(&at.place, format!("{of} is no JWK set: it needs keys = [{{ kty = …, kid = … }}, …]"));
            return None;
        }
        Some(set)
    }
}
