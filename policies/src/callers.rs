//! Which client a verified token names. The signature, the issuer and the times were checked
//! before; what a token may be used for is decided here, from its claims alone.
//!
//! A client's demands are its audience, its scopes and its `match`. Of the clients whose demands
//! a token meets it names the one whose demands include all the others'; where there is no such
//! client it names none. Scopes that are all a token lacks are told, so that its owner can ask
//! for them.

use crate::json::Json;
use crate::resolve::{ClientSpec, OAuthSpec, Policy};
use std::collections::BTreeSet;

/// What a token says of its bearer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named<'a> {
    /// It is this client.
    Client(&'a ClientSpec),
    /// It would be a client with these scopes.
    Lacks(BTreeSet<String>),
    /// It is two clients, neither of which asks for more than the other.
    Both(&'a ClientSpec, &'a ClientSpec),
    /// It is nobody.
    Nobody,
}

/// Names the bearer of a token of `issuer` with these claims.
pub fn named<'a>(policy: &'a Policy, issuer: &str, claims: &Json) -> Named<'a> {
    let scopes = scopes(claims);
    let mut fitting: Vec<(&ClientSpec, BTreeSet<Demand<'_>>)> = Vec::new();
    let mut lacking: Option<(usize, &BTreeSet<String>)> = None;
    for client in policy.clients.iter().flat_map(|c| c.values()) {
        let Some(spec) = client.proof.oauth().filter(|spec| spec.issuer == issuer) else { continue };
        if !carries(claims, "aud", &spec.audience) || !spec.claims.iter().all(|(c, v)| carries(claims, c, v)) {
            continue;
        }
        let lacks = spec.scopes.difference(&scopes).count();
        if lacks == 0 {
            fitting.push((client, demands(spec)));
        } else if lacking.is_none_or(|(least, _)| lacks < least) {
            // All that is needed, not only what is missing (RFC 6750, section 3).
            lacking = Some((lacks, &spec.scopes));
        }
    }
    let all = || fitting.iter().map(|(client, demands)| (*client, demands));
    let Some((client, most)) = all().max_by_key(|(_, demands)| demands.len()) else {
        return lacking.map_or(Named::Nobody, |(_, scopes)| Named::Lacks(scopes.clone()));
    };
    match all().find(|(_, demands)| !demands.is_subset(most)) {
        Some((other, _)) => Named::Both(client, other),
        None => Named::Client(client),
    }
}

/// Every scope that some client of an issuer asks for.
pub fn scopes_supported(policy: &Policy) -> BTreeSet<String> {
    specs(policy).flat_map(|spec| spec.scopes.iter().cloned()).collect()
}

/// The scopes with which most can be reached at first: those of the least demanding client.
pub fn scopes_needed(policy: &Policy) -> BTreeSet<String> {
    specs(policy).map(|spec| &spec.scopes).min_by_key(|scopes| scopes.len()).cloned().unwrap_or_default()
}

/// The issuers whose tokens name clients.
pub fn issuers(policy: &Policy) -> BTreeSet<&str> {
    specs(policy).map(|spec| spec.issuer.as_str()).collect()
}

/// The tables of tokens.
pub fn specs(policy: &Policy) -> impl Iterator<Item = &OAuthSpec> {
    policy.clients.iter().flat_map(|clients| clients.values()).filter_map(|client| client.proof.oauth())
}

/// The scopes of a token: `scope` (RFC 9068), or `scp`, as some issuers write.
pub fn scopes(claims: &Json) -> BTreeSet<String> {
    let claim = claims.get("scope").or_else(|| claims.get("scp"));
    match claim {
        Some(Json::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
        Some(Json::Array(items)) => items.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
        _ => BTreeSet::new(),
    }
}

type Demand<'a> = (&'a str, &'a str);

fn demands(spec: &OAuthSpec) -> BTreeSet<Demand<'_>> {
    let scopes = spec.scopes.iter().map(|scope| ("scope", scope.as_str()));
    let claims = spec.claims.iter().map(|(claim, value)| (claim.as_str(), value.as_str()));
    scopes.chain(claims).chain([("aud", spec.audience.as_str())]).collect()
}

/// Whether a claim is this value, or a list that holds it.
fn carries(claims: &Json, claim: &str, wanted: &str) -> bool {
    let value = if claim.starts_with('/') { claims.pointer(claim) } else { claims.get(claim) };
    match value {
        Some(Json::String(text)) if matches!(claim, "scope" | "scp") => text.split_whitespace().any(|s| s == wanted),
        Some(Json::String(text)) => text == wanted,
        Some(Json::Array(items)) => items.iter().any(|item| item.as_str() == Some(wanted)),
        Some(Json::Bool(b)) => wanted == if *b { "true" } else { "false" },
        Some(Json::Number(n)) => n.lexeme() == wanted,
        _ => false,
    }
}
