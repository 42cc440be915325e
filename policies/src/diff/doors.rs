//! Who may come in, which agents they may start, who answers, and what the door lets in.

use super::grants::{Stance, Table, compare, root_table, spending};
use super::{About, Change, Way};
use crate::explain::describe;
use crate::place::Place;
use crate::resolve::{ClientSpec, Limits, ModelSpec, OAuthSpec, Policy, Proof, Provider};
use std::collections::BTreeSet;
use std::path::Path;

/// Whoever comes in under one name: a client, or anybody where no clients are named.
#[derive(Clone, Copy)]
enum In<'a> {
    Anybody,
    Client(&'a ClientSpec),
}

fn who_comes<'a>(policy: &'a Policy, name: Option<&str>) -> Option<In<'a>> {
    match (&policy.clients, name) {
        (None, _) => Some(In::Anybody),
        (Some(clients), Some(name)) => clients.get(name).map(In::Client),
        (Some(_), None) => None,
    }
}

impl In<'_> {
    fn client(&self) -> Option<&ClientSpec> {
        match self {
            In::Anybody => None,
            In::Client(client) => Some(client),
        }
    }
    fn stance(&self, policy: &Policy) -> Stance {
        let table = self.client().map(|c| Table { asks: Some(c.policy.clone()), sources: c.sources.clone() });
        let tables = table.into_iter().chain([root_table(policy)]).collect();
        Stance { grant: policy.door(self.client()).grant().clone(), tables }
    }
    fn limits(&self, policy: &Policy) -> Limits {
        policy.root_limits.meet(self.client().map_or(Limits::NONE, |c| c.limits))
    }
    fn can_approve(&self) -> bool {
        self.client().is_none_or(|c| c.can_approve)
    }
    /// Some line of its table.
    fn place(&self) -> Option<Place> {
        self.client().and_then(|c| c.sources.0.values().min().cloned())
    }
}

/// Every caller, as it stands at the door.
pub(super) fn callers(old: &Policy, new: &Policy, folder: &Path, out: &mut Vec<Change>) {
    let named = [old, new].into_iter().filter_map(|p| p.clients.as_ref()).flat_map(|c| c.keys());
    let names: BTreeSet<&str> = named.map(|n| n.as_str()).collect();
    if old.clients.is_none() || new.clients.is_none() {
        let who = "whoever calls without a token".to_owned();
        caller((old, who_comes(old, None)), (new, who_comes(new, None)), folder, &mut About { who, out });
    }
    for name in names {
        let who = format!("client {name}");
        caller((old, who_comes(old, Some(name))), (new, who_comes(new, Some(name))), folder, &mut About { who, out });
    }
}

fn caller(
    (old, before): (&Policy, Option<In<'_>>),
    (new, after): (&Policy, Option<In<'_>>),
    folder: &Path,
    about: &mut About<'_>,
) {
    let (before, after) = match (before, after) {
        (None, Some(after)) => {
            let may = describe(&after.stance(new).grant, folder);
            return about.note(Way::Wider, "itself", format!("may come in: it {may}"), (None, after.place()));
        }
        (Some(before), None) => {
            return about.note(Way::Narrower, "itself", "may not come in any more".into(), (before.place(), None));
        }
        (Some(before), Some(after)) => (before, after),
        (None, None) => return,
    };
    let at = || (before.place(), after.place());
    // Where nobody is named, whoever calls holds the root's grant, which was told of.
    if before.client().is_some() || after.client().is_some() {
        compare(&before.stance(old), &after.stance(new), folder, about);
        spending(&before.limits(old), &after.limits(new), at(), about);
    }
    let (was, is) = (old.may_start(before.client()), new.may_start(after.client()));
    // An agent that is new or gone is told of as such.
    let gained: Vec<&str> = is.difference(&was).map(|n| n.as_str()).collect();
    let lost: Vec<&str> = was.difference(&is).map(|n| n.as_str()).collect();
    if let Some(way) = Way::of(!gained.is_empty(), !lost.is_empty()) {
        let part = |may: &str, names: &[&str]| (!names.is_empty()).then(|| format!("{may} start {}", names.join(", ")));
        let says: Vec<String> =
            [part("may now", &gained), part("may no longer", &lost)].into_iter().flatten().collect();
        about.note(way, "may_start", says.join("; "), at());
    }
    match (before.can_approve(), after.can_approve()) {
        (false, true) => about.note(Way::Wider, "can_approve", "may now answer approvals".into(), at()),
        (true, false) => about.note(Way::Narrower, "can_approve", "may no longer answer approvals".into(), at()),
        _ => {}
    }
    proof(before, after, about);
}

/// How it is known.
fn proof(before: In<'_>, after: In<'_>, about: &mut About<'_>) {
    let at = (before.place(), after.place());
    let (way, says) = match (before.client().map(|c| &c.proof), after.client().map(|c| &c.proof)) {
        (a, b) if a == b => return,
        (None, Some(_)) => (Way::Narrower, "must show who it is"),
        (Some(_), None) => (Way::Wider, "need not show who it is any more"),
        (Some(Proof::Token(_) | Proof::Digest(_)), Some(Proof::Token(_) | Proof::Digest(_))) => {
            (Way::Neutral, "has another token; the old one is no good")
        }
        (Some(Proof::OAuth(a)), Some(Proof::OAuth(b))) => (matches(a, b), "is known by other tokens of an issuer"),
        (Some(Proof::Grants(was)), Some(Proof::Grants(is))) => match (was.is_subset(is), is.is_subset(was)) {
            (true, _) => (Way::Wider, "comes with grants of one more key"),
            (_, true) => (Way::Narrower, "comes with grants of one key less"),
            _ => (Way::Other, "comes with grants of another key"),
        },
        (Some(_), Some(Proof::Grants(_))) => (Way::Narrower, "holds only what its grants say, each time"),
        (Some(Proof::Grants(_)), Some(_)) => {
            (Way::Wider, "needs no grant any more: it holds all that its table allows")
        }
        _ => (Way::Other, "is known in another way"),
    };
    about.note(way, "token", says.into(), at);
}

/// Who is let in by the claims of a token: fewer conditions let in more.
fn matches(old: &OAuthSpec, new: &OAuthSpec) -> Way {
    if (&old.issuer, &old.audience, &old.jwks_url) != (&new.issuer, &new.audience, &new.jwks_url) {
        return Way::Other;
    }
    let holds = |less: &OAuthSpec, more: &OAuthSpec| {
        less.scopes.is_subset(&more.scopes) && less.claims.iter().all(|(k, v)| more.claims.get(k) == Some(v))
    };
    match (holds(old, new), holds(new, old)) {
        (true, _) => Way::Narrower,
        (false, true) => Way::Wider,
        (false, false) => Way::Other,
    }
}

/// Who answers, and who hears what agents say.
pub(super) fn models(old: &Policy, new: &Policy, out: &mut Vec<Change>) {
    let names: BTreeSet<_> = old.models.keys().chain(new.models.keys()).collect();
    for name in names {
        let mut about = About { who: format!("model {name}"), out };
        let (before, after) = (old.models.get(name), new.models.get(name));
        let at = (before.map(|m| m.place.clone()), after.map(|m| m.place.clone()));
        match (before, after) {
            (None, Some(after)) => about.note(Way::Wider, "itself", format!("is new: {}", address(after)), at),
            (Some(_), None) => about.note(Way::Narrower, "itself", "is gone".into(), at),
            (Some(before), Some(after)) if address(before) != address(after) => {
                let says = format!("is {}, and was {}", address(after), address(before));
                about.note(Way::Other, "base_url", says, at);
            }
            (Some(before), Some(after)) => {
                let same = ModelSpec { place: before.place.clone(), ..after.clone() } == *before;
                if !same {
                    about.note(Way::Neutral, "model", "has another model, key, price or fallback".into(), at);
                }
            }
            (None, None) => {}
        }
    }
}

/// Who is told what agents say.
fn address(model: &ModelSpec) -> String {
    match &model.provider {
        Provider::Remote(remote) => remote.base_url.origin().ascii_serialization(),
        Provider::Scripted { .. } => "a script".into(),
        Provider::Sampling { .. } => "the model of whoever calls".into(),
    }
}

/// What the door lets in.
pub(super) fn gateway(old: &Policy, new: &Policy, out: &mut Vec<Change>) {
    let mut about = About { who: "the gateway".into(), out };
    let (before, after) = (&old.gateway, &new.gateway);
    let mut list = |what: &str, was: &[String], is: &[String]| {
        let more =
            |a: &[String], b: &[String]| -> Vec<String> { a.iter().filter(|x| !b.contains(x)).cloned().collect() };
        let (gained, lost) = (more(is, was), more(was, is));
        if let Some(way) = Way::of(!gained.is_empty(), !lost.is_empty()) {
            let part = |word: &str, all: &[String]| (!all.is_empty()).then(|| format!("{word} {}", all.join(", ")));
            let says: Vec<String> =
                [part("lets in", &gained), part("keeps out", &lost)].into_iter().flatten().collect();
            about.note(way, what, format!("{what}: {}", says.join("; ")), (None, None));
        }
    };
    list("allowed_hosts", &before.allowed_hosts, &after.allowed_hosts);
    list("allowed_origins", &before.allowed_origins, &after.allowed_origins);
    match (before.framework_tools, after.framework_tools) {
        (false, true) => about.note(Way::Wider, "framework_tools", "shows pleach's own tools".into(), (None, None)),
        (true, false) => {
            about.note(Way::Narrower, "framework_tools", "no longer shows pleach's own tools".into(), (None, None));
        }
        _ => {}
    }
    let notes = [
        ("listen", before.listen != after.listen),
        ("public_url", before.public_url != after.public_url),
        ("default_agent", before.default_agent != after.default_agent),
        ("store", old.store != new.store),
    ];
    for (what, _) in notes.into_iter().filter(|(_, changed)| *changed) {
        about.note(Way::Neutral, what, format!("has another {what}"), (None, None));
    }
}
