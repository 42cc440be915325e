//! What `pleach pin` shows: everything a server says is spelled out, and obeyed by no terminal.

use super::{Found, Looked};
use crate::cli::words::{first_line, say};
use policies::json::Json;
use policies::manifest::{Hidden, visible};
use policies::pins::{Change, Item, Review, State};
use policies::resolve::ServerSpec;

/// Said before a server is started, so that it stands there whatever comes of it.
pub(super) fn start(spec: &ServerSpec) {
    if spec.unapproved.is_some() {
        eprintln!("{}: starting {}", spec.name, identity(&spec.identity));
    }
}

/// A server's command line or address.
fn identity(identity: &Json) -> String {
    let text = |key: &str| identity.get(key).and_then(Json::as_str).map(visible);
    let Some(command) = text("command") else { return text("url").unwrap_or_default() };
    let args = identity.get("args").and_then(Json::as_array).unwrap_or_default().iter();
    let words = std::iter::once(command).chain(args.filter_map(Json::as_str).map(visible));
    words.map(|w| if w.is_empty() || w.contains(' ') { format!("{w:?}") } else { w }).collect::<Vec<_>>().join(" ")
}

pub(super) fn server(one: &Looked, as_json: bool) {
    if as_json {
        return say!("{}", json(one));
    }
    let name = &one.spec.name;
    say!("{name}: {}", identity(&one.spec.identity));
    for change in one.identity.iter().flatten() {
        lines(change, "  ");
    }
    let other = one.identity.as_ref().is_some_and(|changes| !changes.is_empty());
    match &one.found {
        Found::Failed(why) => eprintln!("{name}: {why}"),
        Found::Held if other => {
            say!("  held: it is not what was pinned; `pleach pin --update {name}` starts and approves it");
        }
        Found::Held => say!("  held: it was never approved; `pleach pin {name}` starts and approves it"),
        Found::Seen(review) => seen(name.as_str(), review),
    }
}

fn seen(server: &str, review: &Review) {
    let same = review.items.iter().filter(|i| i.state == State::Same).count();
    if same > 0 {
        say!("  {same} tools as they were pinned");
    }
    for item in review.items.iter().filter(|i| i.state != State::Same) {
        tool(server, item);
    }
    if let Some(change) = &review.instructions {
        let taken = if review.instructions_taken { "" } else { ": withheld" };
        say!("  instructions{taken}");
        lines(change, "      ");
    }
}

fn tool(server: &str, item: &Item) {
    let name = item.tool.as_ref().map_or(&item.upstream, |t| &t.name);
    let verdict = match (&item.state, item.taken) {
        (State::Gone, true) => "gone, dropped".to_owned(),
        (State::Gone, false) => "gone, kept in case it comes back".to_owned(),
        (State::Renamed(from), true) => format!("renamed from {from}, approved"),
        (State::Renamed(from), false) => {
            format!("renamed from {from}: held; `pleach pin --update {server}` approves it")
        }
        (state, true) => format!("{}, approved", state.as_str()),
        (state, false) if !item.hidden.is_empty() => {
            format!("{}: held for its hidden characters; `pleach pin --accept {name}` approves it", state.as_str())
        }
        (state, false) => format!("{}: held; `pleach pin --update {server}` approves it", state.as_str()),
    };
    say!("  {name}: {verdict}");
    for hidden in &item.hidden {
        say!("      {hidden}");
    }
    match &item.state {
        State::Changed(changes) => changes.iter().for_each(|change| lines(change, "      ")),
        State::New => {
            let definition = item.tool.as_ref().map(|t| &t.definition);
            let said = definition.and_then(|d| d.get("description")).and_then(Json::as_str).unwrap_or("");
            // Where something is hidden all of it is spelled out.
            let shown = if item.hidden.is_empty() { first_line(&visible(said), 100) } else { visible(said) };
            if !shown.is_empty() {
                say!("      {shown}");
            }
        }
        State::Same | State::Renamed(_) | State::Gone => {}
    }
}

fn lines(change: &Change, indent: &str) {
    for line in change.lines() {
        say!("{indent}{line}");
    }
}

fn json(one: &Looked) -> Json {
    let (state, tools, why) = match &one.found {
        Found::Failed(why) => ("failed", Vec::new(), Json::from(why.as_str())),
        Found::Held => ("held", Vec::new(), Json::Null),
        Found::Seen(review) => {
            let state = if review.holds_back() { "held" } else { "pinned" };
            (state, review.items.iter().map(tool_json).collect(), Json::Null)
        }
    };
    let mut all: Vec<&Change> = one.identity.iter().flatten().collect();
    if let Found::Seen(review) = &one.found {
        all.extend(&review.instructions);
    }
    Json::object([
        ("server", one.spec.name.as_str().into()),
        ("state", state.into()),
        ("new", one.identity.is_none().into()),
        ("identity", one.spec.identity.clone()),
        ("changes", all.into_iter().map(change_json).collect::<Vec<_>>().into()),
        ("tools", tools.into()),
        ("why", why),
    ])
}

fn tool_json(item: &Item) -> Json {
    let name = item.tool.as_ref().map_or(&item.upstream, |t| &t.name);
    let (from, changes) = match &item.state {
        State::Renamed(from) => (Json::from(from.as_str()), Vec::new()),
        State::Changed(changes) => (Json::Null, changes.iter().map(change_json).collect()),
        _ => (Json::Null, Vec::new()),
    };
    let hidden: Vec<Json> = item.hidden.iter().map(|h: &Hidden| h.to_string().into()).collect();
    Json::object([
        ("tool", name.as_str().into()),
        ("state", item.state.as_str().into()),
        ("taken", item.taken.into()),
        ("from", from),
        ("changes", changes.into()),
        ("hidden", hidden.into()),
        ("hash", item.tool.as_ref().map_or(Json::Null, |t| t.hash.as_str().into())),
    ])
}

fn change_json(change: &Change) -> Json {
    let value = |v: &Option<Json>| v.clone().unwrap_or(Json::Null);
    Json::object([
        ("pointer", change.pointer.as_str().into()),
        ("before", value(&change.before)),
        ("after", value(&change.after)),
    ])
}
