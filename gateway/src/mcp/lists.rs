//! What a view shows: tools, prompts, resources and templates of all servers, in the order of
//! their outside names, page by page. What is shown depends on the caller's authority only.

use super::View;
use crate::guard::outside::Outside;
use adapters::mcp::RpcError;
use policies::json::{Json, Object};
use std::time::Duration;

/// How long a list waits for servers that were not listed yet.
pub(super) const LIST_PATIENCE: Duration = Duration::from_secs(5);
/// Entries of a page.
const PAGE: usize = 2_000;

/// A kind of list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl List {
    pub(super) fn of(method: &str) -> Option<Self> {
        match method {
            "tools/list" => Some(List::Tools),
            "prompts/list" => Some(List::Prompts),
            "resources/list" => Some(List::Resources),
            "resources/templates/list" => Some(List::Templates),
            _ => None,
        }
    }
    fn key(self) -> &'static str {
        match self {
            List::Tools => "tools",
            List::Prompts => "prompts",
            List::Resources => "resources",
            List::Templates => "resourceTemplates",
        }
    }
}

/// One page.
///
/// # Errors
/// -32602 for a cursor that is not ours.
pub(super) async fn page(view: &View, list: List, params: &Object) -> Result<Json, RpcError> {
    let purpose = format!("cursor {}", list.key());
    let who = &*view.place;
    let after = match params.get("cursor") {
        None => None,
        Some(cursor) => {
            let opened = cursor.as_str().and_then(|c| view.seal.open(&purpose, who, c));
            let Some(Json::String(after)) = opened else {
                return Err(RpcError::new(-32602, "Invalid params: no such cursor"));
            };
            Some(after)
        }
    };
    match list {
        List::Tools => view.guard.servers.ensure_listed(&view.caller, LIST_PATIENCE).await,
        _ => view.guard.servers.ensure_offered(&view.caller, LIST_PATIENCE).await,
    }
    let mut entries = entries(view, list, after.as_deref());
    let more = entries.len() > PAGE;
    entries.truncate(PAGE);
    let last = entries.last().map(|(name, _)| name.clone());
    let items: Vec<Json> = entries.into_iter().map(|(_, definition)| definition).collect();
    let mut result = Object::new();
    result.set(list.key(), items);
    if let Some(last) = last.filter(|_| more) {
        result.set("nextCursor", view.seal.seal(&purpose, who, &last.into()));
    }
    Ok(result.into())
}

/// The entries after a name, one page and one more.
fn entries(view: &View, list: List, after: Option<&str>) -> Vec<(String, Json)> {
    let (guard, caller) = (&view.guard, &view.caller);
    let offers = guard.servers.offered.of(caller);
    let later = |name: &str| after.is_none_or(|after| name > after);
    match list {
        List::Tools => {
            let own = view.framework.iter().flat_map(|f| f.definitions(view));
            let mut own: Vec<(String, Json)> = own
                .filter_map(|d| Some((d.get("name")?.as_str()?.to_owned(), d)))
                .filter(|(name, _)| later(name))
                .collect();
            let visible = guard.visible(caller);
            let tools = visible.iter().filter(|t| later(&t.name)).take(PAGE + 1).map(|tool| {
                let mut definition = tool.outside_definition();
                Outside { uris: &offers.uris, server: &tool.server }.tool(&mut definition);
                (tool.name.clone(), definition)
            });
            let mut all: Vec<(String, Json)> = tools.collect();
            all.append(&mut own);
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        }
        List::Prompts => {
            let seen = offers.prompts.iter().filter(|(name, p)| later(name) && guard.sees_prompt(caller, p));
            seen.take(PAGE + 1).map(|(name, p)| (name.clone(), named(&p.definition, "name", name))).collect()
        }
        List::Resources | List::Templates => {
            let (map, key) = match list {
                List::Templates => (&offers.templates, "uriTemplate"),
                _ => (&offers.resources, "uri"),
            };
            let seen = map.iter().filter(|(uri, r)| later(uri) && guard.sees_resources(caller, &r.server));
            seen.take(PAGE + 1).map(|(uri, r)| (uri.clone(), named(&r.definition, key, uri))).collect()
        }
    }
}

/// A definition under its outside name.
fn named(definition: &Object, key: &str, name: &str) -> Json {
    let mut definition = definition.clone();
    definition.set(key, name);
    definition.into()
}

/// What servers say to whoever uses them, each under its name. Waits a little for those not yet
/// listed, the first time.
pub(super) async fn instructions(view: &View) -> Option<String> {
    view.guard.servers.ensure_listed(&view.caller, Duration::from_secs(1)).await;
    let visible = view.guard.visible(&view.caller);
    let listings = view.guard.servers.manifests.listings(&view.caller);
    let said = listings.iter().filter_map(|(server, listing)| {
        let text = listing.instructions.as_deref().map(str::trim).filter(|t| !t.is_empty())?;
        visible.iter().any(|t| t.server == *server).then(|| format!("## {server}\n{text}"))
    });
    let all: Vec<String> = said.collect();
    (!all.is_empty()).then(|| all.join("\n\n"))
}
