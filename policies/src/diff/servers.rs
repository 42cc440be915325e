//! Servers: what runs or is dialled, what it is given, and what is said of its tools.

use super::{About, Change, Places, Way};
use crate::manifest::{Prefix, ServerWords, ToolWords};
use crate::permission::Access;
use crate::place::Place;
use crate::resolve::{Policy, Secret, ServerSpec, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub(super) fn servers(old: &Policy, new: &Policy, folder: &Path, out: &mut Vec<Change>) {
    let names: BTreeSet<_> = old.servers.keys().chain(new.servers.keys()).collect();
    for name in names {
        let mut about = About { who: format!("server {name}"), out };
        match (old.servers.get(name), new.servers.get(name)) {
            (None, Some(after)) => {
                let way = if after.unapproved.is_some() { Way::Neutral } else { Way::Wider };
                about.note(way, "itself", format!("is new: {}", what_it_is(after)), (None, Some(after.place.clone())));
            }
            (Some(before), None) => {
                about.note(Way::Narrower, "itself", "is gone".into(), (Some(before.place.clone()), None));
            }
            (Some(before), Some(after)) => {
                server(before, after, folder, &mut about);
                words(&before.words, &after.words, &places(before, after), &mut about);
                tools(before, after, about.out);
            }
            (None, None) => {}
        }
    }
}

fn what_it_is(spec: &ServerSpec) -> String {
    match &spec.transport {
        Transport::Builtin(_) => "it is built in".into(),
        Transport::Stdio { command, args, .. } => {
            format!("it runs {}", std::iter::once(command).chain(args).cloned().collect::<Vec<_>>().join(" "))
        }
        Transport::Http { url, .. } => format!("it is at {}", shown(url)),
        Transport::Peer(peer) => match &peer.url {
            Some(url) => format!("it is the peer of {}, at {}", shown(&peer.card), shown(url)),
            None => format!("it is the peer of {}", shown(&peer.card)),
        },
    }
}

/// Without what may be a secret.
fn shown(url: &url::Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

fn places(before: &ServerSpec, after: &ServerSpec) -> Places {
    (Some(before.place.clone()), Some(after.place.clone()))
}

fn server(before: &ServerSpec, after: &ServerSpec, folder: &Path, about: &mut About<'_>) {
    let at = || places(before, after);
    match (&before.transport, &after.transport) {
        (Transport::Stdio { command: c1, args: a1, env: e1 }, Transport::Stdio { command: c2, args: a2, env: e2 }) => {
            if (c1, a1) != (c2, a2) {
                let says = format!("is another program: {}; before: {}", what_it_is(after), what_it_is(before));
                about.note(Way::Other, "command", says, at());
            }
            given("env", e1, e2, at(), about);
        }
        (Transport::Http { url: u1, headers: h1, auth: x1 }, Transport::Http { url: u2, headers: h2, auth: x2 }) => {
            if u1 != u2 {
                let says = format!("is elsewhere: {}; before: {}", what_it_is(after), what_it_is(before));
                about.note(Way::Other, "url", says, at());
            }
            given("headers", h1, h2, at(), about);
            if x1 != x2 {
                about.note(Way::Other, "auth", "is shown another account".into(), at());
            }
        }
        (Transport::Peer(was), Transport::Peer(is)) => {
            if (&was.card, &was.url) != (&is.card, &is.url) {
                let says = format!("is elsewhere: {}; before: {}", what_it_is(after), what_it_is(before));
                about.note(Way::Other, "card", says, at());
            }
            given("headers", &was.headers, &is.headers, at(), about);
            match (was.delegate, is.delegate) {
                (false, true) => {
                    about.note(Way::Other, "delegate", "is shown grants of what senders may give".into(), at())
                }
                (true, false) => about.note(
                    Way::Other,
                    "delegate",
                    "is shown no grants any more: what it does is its own affair".into(),
                    at(),
                ),
                _ => {}
            }
            match (was.callback, is.callback) {
                (false, true) => about.note(Way::Wider, "callback", "may call back while a task goes on".into(), at()),
                (true, false) => about.note(Way::Narrower, "callback", "may not call back any more".into(), at()),
                _ => {}
            }
            match (was.expose, is.expose) {
                (false, true) => about.note(Way::Wider, "expose", "is passed on to A2A clients".into(), at()),
                (true, false) => {
                    about.note(Way::Narrower, "expose", "is no longer passed on to A2A clients".into(), at())
                }
                _ => {}
            }
            let (way, says) = match (&was.keys, &is.keys) {
                (Some(_), None) => (Way::Wider, "is believed without a signature"),
                (None, Some(_)) => (Way::Narrower, "needs a card that is signed"),
                _ => (Way::Other, "has its card signed with other keys"),
            };
            if was.keys != is.keys {
                about.note(way, "keys", says.into(), at());
            }
        }
        (a, b) if a == b => {}
        _ => {
            let says = format!("is another server: {}; before: {}", what_it_is(after), what_it_is(before));
            about.note(Way::Other, "command", says, at());
        }
    }
    match (&before.unapproved, &after.unapproved) {
        (Some(_), None) => about.note(Way::Wider, "approval", "is approved and may be started".into(), at()),
        (None, Some(_)) => about.note(Way::Narrower, "approval", "is no longer approved".into(), at()),
        _ => {}
    }
    match (&before.pinned, &after.pinned) {
        (a, b) if a == b => {}
        (Some(_), None) => about.note(Way::Wider, "pins", "is taken as it comes: nothing of it is pinned".into(), at()),
        (None, Some(_)) => about.note(Way::Narrower, "pins", "is pinned as it was approved".into(), at()),
        _ => about.note(Way::Other, "pins", "is pinned otherwise: something else was approved".into(), at()),
    }
    let paths = |spec: &ServerSpec| spec.runtime_paths.iter().cloned().collect::<BTreeSet<PathBuf>>();
    let (was, is) = (paths(before), paths(after));
    let short = |path: &PathBuf| path.strip_prefix(folder).unwrap_or(path).display().to_string();
    let list = |paths: Vec<&PathBuf>| paths.into_iter().map(short).collect::<Vec<_>>().join(", ");
    let (gained, lost): (Vec<_>, Vec<_>) = (is.difference(&was).collect(), was.difference(&is).collect());
    if let Some(way) = Way::of(!gained.is_empty(), !lost.is_empty()) {
        let says = said(("may now run from", list(gained)), ("may no longer run from", list(lost)));
        about.note(way, "runtime_paths", says, at());
    }
    if before.cwd != after.cwd {
        let says = format!("works in {} and did in {}", short(&after.cwd), short(&before.cwd));
        about.note(Way::Other, "cwd", says, at());
    }
    if before.timeout != after.timeout {
        about.note(Way::Neutral, "timeout", format!("has {} s for a call", after.timeout.as_secs()), at());
    }
}

fn said((gained, more): (&str, String), (lost, less): (&str, String)) -> String {
    let parts = [(gained, more), (lost, less)].into_iter().filter(|(_, what)| !what.is_empty());
    parts.map(|(word, what)| format!("{word} {what}")).collect::<Vec<_>>().join("; ")
}

/// Variables or headers it is given, by name: values are nobody's business.
fn given(
    what: &str,
    old: &BTreeMap<String, Secret>,
    new: &BTreeMap<String, Secret>,
    at: Places,
    about: &mut About<'_>,
) {
    let more = |a: &BTreeMap<String, Secret>, b: &BTreeMap<String, Secret>| -> Vec<String> {
        a.keys().filter(|key| !b.contains_key(*key)).cloned().collect()
    };
    let (gained, lost) = (more(new, old), more(old, new));
    if let Some(way) = Way::of(!gained.is_empty(), !lost.is_empty()) {
        about.note(way, what, said(("is given", gained.join(", ")), ("is not given", lost.join(", "))), at.clone());
    }
    let other: Vec<&str> =
        old.iter().filter(|(k, v)| new.get(*k).is_some_and(|n| n != *v)).map(|(k, _)| k.as_str()).collect();
    if !other.is_empty() {
        about.note(Way::Neutral, what, format!("is given another value of {}", other.join(", ")), at);
    }
}

/// A class that is lower lets more callers call.
fn class(old: Option<&(Access, Option<Place>)>, new: Option<&(Access, Option<Place>)>) -> Option<Way> {
    // Whatever nobody classified counts as destructive, unless annotations say more.
    let of = |class: Option<&(Access, Option<Place>)>| class.map_or(Access::Destructive, |(access, _)| *access);
    let named = |class: Option<&(Access, Option<Place>)>| class.map(|(access, _)| *access);
    match of(new).cmp(&of(old)) {
        std::cmp::Ordering::Less => Some(Way::Wider),
        std::cmp::Ordering::Greater => Some(Way::Narrower),
        std::cmp::Ordering::Equal => (named(old) != named(new)).then_some(Way::Other),
    }
}

fn class_words(class: Option<&(Access, Option<Place>)>) -> String {
    class.map_or_else(|| "nothing in particular".to_owned(), |(access, _)| access.to_string())
}

fn class_places(
    old: Option<&(Access, Option<Place>)>,
    new: Option<&(Access, Option<Place>)>,
    (before, after): &Places,
) -> Places {
    let place = |class: Option<&(Access, Option<Place>)>| class.and_then(|(_, place)| place.clone());
    (place(old).or(before.clone()), place(new).or(after.clone()))
}

fn words(old: &ServerWords, new: &ServerWords, at: &Places, about: &mut About<'_>) {
    let (was, is) = (old.default_access.as_ref(), new.default_access.as_ref());
    if let Some(way) = class(was, is) {
        let says = format!("has tools that count as {}, and did as {}", class_words(is), class_words(was));
        about.note(way, "default_access", says, class_places(was, is, at));
    }
    match (old.trust_annotations, new.trust_annotations) {
        (false, true) => {
            about.note(Way::Wider, "annotations", "is believed what it says of its tools".into(), at.clone())
        }
        (true, false) => {
            about.note(Way::Narrower, "annotations", "is not believed what it says of its tools".into(), at.clone());
        }
        _ => {}
    }
    if old.prefix != new.prefix {
        let word = |prefix: Prefix| match prefix {
            Prefix::Always => "always",
            Prefix::Auto => "auto",
            Prefix::None => "none",
        };
        let says = format!("names its tools otherwise: prefix {}, was {}", word(new.prefix), word(old.prefix));
        about.note(Way::Other, "prefix", says, at.clone());
    }
}

/// What is said of single tools.
fn tools(before: &ServerSpec, after: &ServerSpec, out: &mut Vec<Change>) {
    let (old, new) = (&before.words.tools, &after.words.tools);
    let none = ToolWords::default();
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (was, is) = (old.get(name).unwrap_or(&none), new.get(name).unwrap_or(&none));
        let mut about = About { who: format!("tool {name} of server {}", after.name), out };
        let at = class_places(was.access.as_ref(), is.access.as_ref(), &places(before, after));
        // A tool without a class of its own has its server's.
        let (c1, c2) = (
            was.access.as_ref().or(before.words.default_access.as_ref()),
            is.access.as_ref().or(after.words.default_access.as_ref()),
        );
        if was.access.as_ref().map(|c| c.0) != is.access.as_ref().map(|c| c.0)
            && let Some(way) = class(c1, c2)
        {
            let says = format!("counts as {}, and did as {}", class_words(c2), class_words(c1));
            about.note(way, "access", says, at.clone());
        }
        arguments("path_args", was.path_args.as_deref(), is.path_args.as_deref(), &at, &mut about);
        arguments("url_args", was.url_args.as_deref(), is.url_args.as_deref(), &at, &mut about);
        if was.rename != is.rename {
            let called = |words: &ToolWords| words.rename.clone().unwrap_or_else(|| name.clone());
            let says = format!("is called {}, and was {}", called(is), called(was));
            about.note(Way::Other, "rename", says, at.clone());
        }
        if (was.effect, &was.verify_with) != (is.effect, &is.verify_with) {
            let word = |words: &ToolWords| words.effect.map_or("what its class says", |e| e.as_str());
            let says = format!("has the effect {}, and had {}", word(is), word(was));
            about.note(Way::Neutral, "effect", says, at);
        }
    }
}

/// Declared arguments are all that is looked at: fewer is wider.
fn arguments(what: &str, old: Option<&[String]>, new: Option<&[String]>, at: &Places, about: &mut About<'_>) {
    let (way, says) = match (old, new) {
        (a, b) if a == b => return,
        (Some(was), Some(is)) => {
            let (gained, lost) = (was.iter().any(|a| !is.contains(a)), is.iter().any(|a| !was.contains(a)));
            let Some(way) = Way::of(gained, lost) else { return };
            (way, format!("has the {what} [{}], and had [{}]", is.join(", "), was.join(", ")))
        }
        (None, Some(is)) => (Way::Other, format!("has the {what} [{}], and none was declared", is.join(", "))),
        (Some(was), None) => (Way::Other, format!("has no {what} declared, and had [{}]", was.join(", "))),
        (None, None) => return,
    };
    about.note(way, what, says, at.clone());
}
