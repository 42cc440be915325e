//! Who Pleach is to a server (`[servers.x] auth`), and whose tokens name a client of ours
//! (`[clients.x] oauth` and `match`).

use super::{ClientSpec, Resolver, Secret};
use crate::domain::Host;
use crate::file::Node;
use crate::names::Name;
use crate::place::Place;
use std::collections::{BTreeMap, BTreeSet};
use url::Url;

/// How Pleach comes by a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// A person consents, once, with `pleach login`.
    #[default]
    Code,
    /// Pleach acts for itself.
    ClientCredentials,
    /// A run shows what came along with its task from another gateway.
    Grant,
}

/// What proves that Pleach is the client it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOrSecret {
    /// Sent.
    Secret(Secret),
    /// Signs in its place: PKCS#8 in PEM.
    Key(Secret),
}

/// Who Pleach is to a server's authorization server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthSpec {
    /// `flow`
    pub flow: Flow,
    /// The one issuer that may be used, exactly as it writes itself.
    pub issuer: Option<String>,
    /// The id Pleach was registered under.
    pub client_id: Option<String>,
    /// What goes with it.
    pub proof: Option<KeyOrSecret>,
    /// The document that is its id.
    pub metadata_url: Option<Url>,
    /// What is asked for; empty: what the server says it needs.
    pub scopes: Vec<String>,
    /// The loopback port of the redirect.
    pub redirect_port: Option<u16>,
}

/// What names a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A token of this file.
    Token(Secret),
    /// A token of which this file has the SHA-256, in hexadecimal.
    Digest(String),
    /// A token of an issuer.
    OAuth(Box<OAuthSpec>),
    /// Grants of another gateway, signed with one of these keys (`ed25519/…`): each says what it may do.
    Grants(BTreeSet<String>),
}

impl Proof {
    /// What it is known again by: the same for the same token however the file has it, and another
    /// for every other. Whoever has it can try tokens against it, so it is kept sealed.
    pub fn mark(&self) -> String {
        match self {
            Proof::Token(token) => crate::json::digest(token.expose()),
            Proof::Digest(digest) => digest.clone(),
            Proof::OAuth(spec) => crate::json::digest(&format!("{spec:?}")),
            Proof::Grants(keys) => crate::json::digest(&keys.iter().map(String::as_str).collect::<Vec<_>>().join(" ")),
        }
    }
    /// The issuer, where it is one.
    pub fn oauth(&self) -> Option<&OAuthSpec> {
        match self {
            Proof::OAuth(spec) => Some(spec),
            Proof::Token(_) | Proof::Digest(_) | Proof::Grants(_) => None,
        }
    }
    /// The keys of its grants, where it is another gateway: more than one while it changes its own.
    pub fn grants(&self) -> Option<&BTreeSet<String>> {
        match self {
            Proof::Grants(keys) => Some(keys),
            _ => None,
        }
    }
}

/// The tokens that name a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthSpec {
    /// `iss`, exactly.
    pub issuer: String,
    /// What `aud` must hold.
    pub audience: String,
    /// Where its keys are, unless its metadata says.
    pub jwks_url: Option<Url>,
    /// Scopes they must carry.
    pub scopes: BTreeSet<String>,
    /// Claims they must carry: a name, or a JSON pointer, and the value.
    pub claims: BTreeMap<String, String>,
}

impl Resolver<'_> {
    /// The `auth` of a server reached by `url`. Without the table Pleach can still be logged in
    /// there, unless a header says who it is or a token would travel in clear text.
    pub(super) fn server_auth(
        &mut self,
        name: &Name,
        node: &Node,
        url: &Url,
        headers: &BTreeMap<String, Secret>,
    ) -> Option<Option<AuthSpec>> {
        let header = headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"));
        let clear = url.scheme() == "http" && !is_loopback(url);
        let Some(table) = node.get("auth") else { return Some((!header && !clear).then(AuthSpec::default)) };
        let place = node.key_place("auth").unwrap_or(&table.place);
        if header {
            self.error(place, "auth and headers.Authorization both say who Pleach is; give one of them");
            return None;
        }
        if clear {
            self.error(place, "a token would travel in clear text; give the server an https url");
            return None;
        }
        let flow = match table.text_at("flow") {
            Some("client-credentials") => Flow::ClientCredentials,
            Some("grant") => Flow::Grant,
            _ => Flow::Code,
        };
        let metadata_url = match table.get("client_metadata_url") {
            Some(at) => Some(self.metadata_url(at)?),
            None => None,
        };
        let client_id = self.optional(table, "client_id")?;
        let proof = self.key_or_secret(name, table)?;
        let spec = AuthSpec {
            flow,
            issuer: match table.get("issuer") {
                Some(at) => Some(self.issuer(at)?),
                None => None,
            },
            client_id,
            proof,
            metadata_url,
            scopes: texts(table.get("scopes")),
            redirect_port: table.get("redirect_port").and_then(Node::int).and_then(|p| u16::try_from(p).ok()),
        };
        self.check_auth(place, &spec).then_some(Some(spec))
    }

    fn check_auth(&mut self, place: &Place, spec: &AuthSpec) -> bool {
        let own = spec.flow == Flow::ClientCredentials;
        let alone = AuthSpec { flow: Flow::Grant, ..AuthSpec::default() };
        let wrong = match spec {
            AuthSpec { flow: Flow::Grant, .. } if *spec != alone => {
                "flow = \"grant\" stands alone: what is shown comes along with a task"
            }
            AuthSpec { flow: Flow::Grant, .. } => return true,
            AuthSpec { client_id: None, proof: Some(_), .. } => {
                "a client_secret or private_key_file needs its client_id"
            }
            AuthSpec { client_id: Some(_), metadata_url: Some(_), .. } => {
                "client_id and client_metadata_url are both an id; give one of them"
            }
            AuthSpec { client_id: None, .. } | AuthSpec { proof: None, .. } if own => {
                "flow = \"client-credentials\" needs client_id and client_secret (or private_key_file)"
            }
            AuthSpec { proof: Some(KeyOrSecret::Key(_)), .. } if !own => {
                "private_key_file goes with flow = \"client-credentials\""
            }
            AuthSpec { redirect_port: Some(_), .. } if own => {
                "redirect_port is for flow = \"code\"; with client-credentials nobody is redirected"
            }
            _ => return true,
        };
        self.error(place, wrong);
        false
    }

    fn key_or_secret(&mut self, name: &Name, table: &Node) -> Option<Option<KeyOrSecret>> {
        match (table.get("client_secret"), table.get("private_key_file")) {
            (None, None) => Some(None),
            (Some(_), Some(file)) => {
                self.error(&file.place, "give client_secret or private_key_file, not both");
                None
            }
            (Some(secret), None) => Some(Some(KeyOrSecret::Secret(self.private(secret, &format!("server {name}"))?))),
            (None, Some(file)) => {
                let text = self.expand(file)?;
                let path = self.absolute(&text);
                match self.around.read_text(&path) {
                    Ok(pem) => Some(Some(KeyOrSecret::Key(Secret::new(pem)))),
                    Err(why) => {
                        self.error(&file.place, format!("private_key_file {}: {why}", path.display()));
                        None
                    }
                }
            }
        }
    }

    /// What names a client. `others` are those above it.
    pub(super) fn proof(
        &mut self,
        name: &Name,
        place: &Place,
        node: &Node,
        others: &BTreeMap<Name, ClientSpec>,
    ) -> Option<Proof> {
        let (token, oauth, claims) = (node.get("token"), node.get("oauth"), node.get("match"));
        if let (Some(_), None) = (claims, oauth) {
            let at = node.key_place("match").unwrap_or(place);
            self.error(at, "match is about the claims of a token; it needs oauth = { issuer, audience }");
        }
        if let Some(at) = node.get("grant_key") {
            if token.is_some() || oauth.is_some() || node.get("token_sha256").is_some() {
                let at = node.key_place("grant_key").unwrap_or(place);
                self.error(at, format!("client {name} has grant_key and another proof; give one"));
                return None;
            }
            return self.grant_key(name, at, others);
        }
        if let Some(at) = node.get("token_sha256") {
            if token.is_some() || oauth.is_some() {
                let at = node.key_place("token_sha256").unwrap_or(place);
                self.error(at, format!("client {name} has token_sha256 and another proof; give one"));
                return None;
            }
            return self.token_digest(name, at, others);
        }
        match (token, oauth) {
            (Some(_), Some(_)) => {
                let at = node.key_place("oauth").unwrap_or(place);
                self.error(at, format!("client {name} has token and oauth; give one, and the other to another client"));
                None
            }
            (Some(at), None) => self.token(name, at, others),
            (None, Some(table)) => self.oauth(name, table, claims, others),
            (None, None) => {
                let variable = name.as_str().to_uppercase();
                let message = format!(
                    "client {name} needs a token, such as token = \"${{{variable}_TOKEN}}\", or oauth = {{ issuer, audience }}, or grant_key"
                );
                self.error(place, message);
                None
            }
        }
    }

    fn token(&mut self, name: &Name, at: &Node, others: &BTreeMap<Name, ClientSpec>) -> Option<Proof> {
        let token = self.private(at, &format!("client {name}"))?;
        if token.expose().len() < 16 {
            self.error(&at.place, format!("the token of client {name} is shorter than 16 characters"));
        }
        self.token_of_one(name, at, &crate::json::digest(token.expose()), others);
        Some(Proof::Token(token))
    }

    /// A token this file does not have itself.
    fn token_digest(&mut self, name: &Name, at: &Node, others: &BTreeMap<Name, ClientSpec>) -> Option<Proof> {
        let digest = self.expand(at)?.to_ascii_lowercase();
        if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            let message = format!(
                "token_sha256 of client {name} is no SHA-256 in hexadecimal (64 digits); `pleach client add` writes one"
            );
            self.error(&at.place, message);
            return None;
        }
        self.token_of_one(name, at, &digest, others);
        Some(Proof::Digest(digest))
    }

    /// The key of another gateway.
    fn grant_key(&mut self, name: &Name, at: &Node, others: &BTreeMap<Name, ClientSpec>) -> Option<Proof> {
        let one = [at];
        let listed: Vec<&Node> = if at.text().is_some() { one.to_vec() } else { at.items().iter().collect() };
        let mut keys = BTreeSet::new();
        for at in listed {
            let key = self.expand(at)?.to_ascii_lowercase();
            let digits = key.strip_prefix("ed25519/").unwrap_or_default();
            if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                let message = format!(
                    "grant_key of client {name} is no key: ed25519/ and 64 hexadecimal digits, as `pleach token key` prints it there"
                );
                self.error(&at.place, message);
                return None;
            }
            if others.values().any(|other| other.proof.grants().is_some_and(|keys| keys.contains(&key))) {
                self.error(
                    &at.place,
                    format!("client {name} shares its grant_key with another; a key names one client"),
                );
            }
            keys.insert(key);
        }
        Some(Proof::Grants(keys))
    }

    fn token_of_one(&mut self, name: &Name, at: &Node, digest: &str, others: &BTreeMap<Name, ClientSpec>) {
        let same = |c: &ClientSpec| match &c.proof {
            Proof::Token(other) => crate::json::digest(other.expose()) == digest,
            Proof::Digest(other) => other == digest,
            Proof::OAuth(_) | Proof::Grants(_) => false,
        };
        if others.values().any(same) {
            self.error(&at.place, format!("client {name} shares its token with another; a token names one client"));
        }
    }

    fn oauth(
        &mut self,
        name: &Name,
        table: &Node,
        claims: Option<&Node>,
        others: &BTreeMap<Name, ClientSpec>,
    ) -> Option<Proof> {
        let (Some(issuer), Some(_)) = (table.get("issuer"), table.get("audience")) else {
            self.error(&table.place, format!("the oauth of client {name} needs an issuer and an audience"));
            return None;
        };
        let mut spec = OAuthSpec {
            issuer: self.issuer(issuer)?,
            audience: self.optional(table, "audience")??,
            jwks_url: match table.get("jwks_url") {
                Some(at) => Some(self.https(at, "jwks_url")?),
                None => None,
            },
            scopes: texts(table.get("scopes")).into_iter().collect(),
            claims: BTreeMap::new(),
        };
        for (claim, _, value) in claims.map(Node::entries).unwrap_or_default() {
            spec.claims.insert(claim.clone(), self.expand(value)?);
        }
        for other in others.values() {
            let Some(theirs) = other.proof.oauth() else { continue };
            if theirs.issuer == spec.issuer && theirs.jwks_url != spec.jwks_url {
                let message = format!("client {} says otherwise of this issuer's jwks_url; it has one", other.name);
                self.error(&table.place, message);
            }
            let same = (&theirs.issuer, &theirs.audience, &theirs.scopes, &theirs.claims);
            if same == (&spec.issuer, &spec.audience, &spec.scopes, &spec.claims) {
                let message =
                    format!("every token of client {name} is one of client {} too; match other claims", other.name);
                self.error(&table.place, message);
            }
        }
        Some(Proof::OAuth(Box::new(spec)))
    }

    /// `public_url`: an origin.
    pub(super) fn public_url(&mut self, node: Option<&Node>) -> Option<Url> {
        let at = node?;
        let text = self.expand(at)?;
        let url = Url::parse(&text).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.host().is_some());
        let plain = |u: &Url| u.path() == "/" && u.query().is_none() && u.fragment().is_none() && !has_user(u);
        match url.filter(plain) {
            Some(url) => Some(url),
            None => {
                self.error(&at.place, "public_url is an origin, such as https://agents.example.com");
                None
            }
        }
    }

    /// An issuer as it writes itself: compared as text, never normalised.
    fn issuer(&mut self, at: &Node) -> Option<String> {
        let url = self.https(at, "issuer")?;
        if url.query().is_some() || url.fragment().is_some() {
            self.error(&at.place, "an issuer has neither query nor fragment");
            return None;
        }
        self.expand(at)
    }

    fn metadata_url(&mut self, at: &Node) -> Option<Url> {
        let url = self.https(at, "client_metadata_url")?;
        if url.scheme() != "https" || url.path() == "/" || url.fragment().is_some() {
            self.error(&at.place, "client_metadata_url is the https address of a document, path included");
            return None;
        }
        Some(url)
    }

    fn https(&mut self, at: &Node, key: &str) -> Option<Url> {
        let text = self.expand(at)?;
        let url = Url::parse(&text).ok().filter(|u| u.host().is_some() && !has_user(u));
        match url.filter(|u| u.scheme() == "https" || (u.scheme() == "http" && is_loopback(u))) {
            Some(url) => Some(url),
            None => {
                self.error(&at.place, format!("{key} is an https address (http on loopback only)"));
                None
            }
        }
    }

    fn optional(&mut self, table: &Node, key: &str) -> Option<Option<String>> {
        match table.get(key) {
            Some(at) => self.expand(at).map(Some),
            None => Some(None),
        }
    }
}

fn texts(list: Option<&Node>) -> Vec<String> {
    list.map(Node::items).unwrap_or_default().iter().filter_map(Node::text).map(str::to_owned).collect()
}
fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}
fn is_loopback(url: &Url) -> bool {
    Host::of(url).is_ok_and(|host| host.is_loopback())
}
