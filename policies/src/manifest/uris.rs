//! Addresses of resources, outside and inside.
//!
//! | `prefix` | `file:///a` of server `files` is outside |
//! |---|---|
//! | `always` | `pleach:files/file:///a` (and `ui://x/y` is `ui://files/x/y`, since hosts look at that scheme) |
//! | `auto` | `file:///a`, unless another such server lists it too: then as with `always` |
//! | `none` | `file:///a`; listed by several, it belongs to nobody |
//!
//! The prefixed form is read back exactly: a server's name holds no `/`, and what follows is
//! the address untouched (an opaque path to every URL parser, so nothing normalises it).

use super::{Offering, Prefix};
use crate::names::Name;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const SCHEME: &str = "pleach:";
const UI: &str = "ui://";

/// Reads and writes addresses.
#[derive(Debug, Default)]
pub struct Uris {
    prefixes: BTreeMap<Name, Prefix>,
    /// Addresses listed by exactly one server among those without a prefix.
    owners: BTreeMap<String, Name>,
    /// Addresses listed by several of them.
    shared: BTreeSet<String>,
    /// Templates of servers without a prefix.
    templates: Vec<(String, Name)>,
}

impl Uris {
    pub(super) fn build(all: &[Offering]) -> Self {
        let mut uris = Self::default();
        for offering in all {
            uris.prefixes.insert(offering.server.clone(), offering.prefix);
            if offering.prefix == Prefix::Always {
                continue;
            }
            let listed = offering.offers.resources.iter().chain(&offering.offers.templates);
            for resource in listed {
                let before = uris.owners.insert(resource.uri.clone(), offering.server.clone());
                if before.is_some_and(|other| other != offering.server) {
                    uris.shared.insert(resource.uri.clone());
                }
            }
            let own = offering.offers.templates.iter().map(|t| (t.uri.clone(), offering.server.clone()));
            uris.templates.extend(own);
        }
        let shared = std::mem::take(&mut uris.shared);
        uris.owners.retain(|uri, _| !shared.contains(uri));
        uris.shared = shared;
        uris
    }

    /// A server's address (or template) as it is spelled outside; `None` when it belongs to
    /// nobody.
    pub fn outside(&self, server: &Name, uri: &str) -> Option<String> {
        let prefixed = || match uri.strip_prefix(UI) {
            Some(rest) => format!("{UI}{server}/{rest}"),
            None => format!("{SCHEME}{server}/{uri}"),
        };
        match self.prefixes.get(server) {
            Some(Prefix::Auto) if self.is_shared(server, uri) => Some(prefixed()),
            Some(Prefix::None) if self.shared.contains(uri) => None,
            Some(Prefix::Auto | Prefix::None) => Some(uri.to_owned()),
            _ => Some(prefixed()),
        }
    }

    /// Whether a server's addresses are the same outside.
    pub fn is_bare(&self, server: &Name) -> bool {
        matches!(self.prefixes.get(server), Some(Prefix::Auto | Prefix::None)) && self.shared.is_empty()
    }

    /// Who owns an address of the outside, and what it is there.
    pub fn inside(&self, outside: &str) -> Option<(Name, String)> {
        if let Some(found) = self.prefixed(outside) {
            return Some(found);
        }
        if let Some(owner) = self.owners.get(outside) {
            return Some((owner.clone(), outside.to_owned()));
        }
        if self.shared.contains(outside) {
            return None;
        }
        let matching: BTreeSet<&Name> =
            self.templates.iter().filter(|(t, _)| fits(t, outside)).map(|(_, server)| server).collect();
        if let [server] = matching.iter().collect::<Vec<_>>()[..] {
            return Some(((*server).clone(), outside.to_owned()));
        }
        // Not listed by anybody: a server may still know it, where only one could.
        let mut bare = self.prefixes.iter().filter(|(_, p)| **p != Prefix::Always).map(|(name, _)| name);
        match (bare.next(), bare.next()) {
            (Some(only), None) if matching.is_empty() => Some((only.clone(), outside.to_owned())),
            _ => None,
        }
    }

    /// Whether an address that is the same outside reads as another server's prefixed one.
    pub(super) fn looks_prefixed(&self, server: &Name, outside: &str) -> bool {
        self.prefixed(outside).is_some_and(|(owner, _)| owner != *server)
    }

    /// Whether others have an address too: they list it, or the template it was made from.
    fn is_shared(&self, server: &Name, uri: &str) -> bool {
        if self.shared.contains(uri) || self.owners.get(uri) == Some(server) {
            return self.shared.contains(uri);
        }
        let mut own = self.templates.iter().filter(|(_, of)| of == server);
        own.any(|(template, _)| self.shared.contains(template) && fits(template, uri))
    }

    fn prefixed(&self, outside: &str) -> Option<(Name, String)> {
        let (rest, scheme) = match (outside.strip_prefix(SCHEME), outside.strip_prefix(UI)) {
            (Some(rest), _) => (rest, ""),
            (None, Some(rest)) => (rest, UI),
            (None, None) => return None,
        };
        let (server, uri) = rest.split_once('/')?;
        let (server, prefix) = self.prefixes.iter().find(|(name, _)| name.as_str() == server)?;
        let uri = format!("{scheme}{uri}");
        // Only what `outside` writes: one address, one spelling.
        let own = match prefix {
            Prefix::Always => true,
            // An address itself, or what a template that several list was filled to.
            Prefix::Auto => self.is_shared(server, &uri),
            Prefix::None => false,
        };
        own.then(|| (server.clone(), uri))
    }
}

/// Whether an address could come from a template (RFC 6570): its literal parts stand in it in
/// order, the first at the start and the last at the end.
fn fits(template: &str, uri: &str) -> bool {
    let mut rest = uri;
    let mut parts = template.split('{');
    let Some(after) = rest.strip_prefix(parts.next().unwrap_or("")) else { return false };
    rest = after;
    let mut literals = parts.map(|p| p.split_once('}').map_or("", |(_, literal)| literal)).peekable();
    if literals.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(literal) = literals.next() {
        if literals.peek().is_none() {
            return rest.ends_with(literal);
        }
        match rest.find(literal) {
            Some(at) => rest = &rest[at + literal.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn templates() {
        assert!(fits("test://template/{id}/data", "test://template/7/data"));
        assert!(fits("a://{x}", "a://anything/at?all"));
        assert!(fits("a://x{?q,r}", "a://x?q=1"));
        assert!(!fits("test://template/{id}/data", "test://template/7/date"));
        assert!(!fits("a://b", "a://bc"));
    }
}
