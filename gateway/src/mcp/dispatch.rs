//! Answers one request, whichever transport and era it came by.

use super::{Era, View, capabilities, server_info};
use crate::guard::{Decided, error_result};
use adapters::mcp::{Exchange, MODERN, McpError, Message, RpcError, meta};
use policies::json::{Json, Object};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Where notifications that belong to a request go.
pub(super) type Sink = Arc<dyn Fn(Message) + Send + Sync>;

/// How long `tools/list` waits for servers that were not listed yet.
const LIST_PATIENCE: Duration = Duration::from_secs(5);
/// How long a list may be kept by the client, milliseconds.
const LIST_TTL: u64 = 60_000;
/// No call is longer, whatever its server's own limit.
const CALL_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// What became of a request.
pub(super) enum Answer {
    /// To be sent.
    Now(Result<Json, RpcError>),
    /// The caller took it back; nothing is to be sent.
    Nothing,
}

pub(super) async fn dispatch(
    view: &View,
    era: Era,
    method: &str,
    params: Object,
    sink: Sink,
    cancel: CancellationToken,
) -> Answer {
    let result = match (method, era) {
        ("ping", Era::Legacy) => Ok(Json::Object(Object::new())),
        ("server/discover", Era::Modern) => Ok(discover()),
        ("tools/list", _) => list(view, &params).await,
        ("tools/call", _) => match call(view, params, sink, cancel).await {
            Some(result) => result,
            None => return Answer::Nothing,
        },
        _ => Err(RpcError::new(-32601, format!("Method not found: {method}"))),
    };
    Answer::Now(result.map(|result| dress(result, era, method)))
}

/// Gives a result what the era of its reader requires, and takes what it does not know.
fn dress(result: Json, era: Era, method: &str) -> Json {
    let Json::Object(mut result) = result else { return result };
    if let Some(Json::Object(own)) = result.get_mut("_meta") {
        own.remove(meta::SERVER_INFO);
        if own.is_empty() {
            result.remove("_meta");
        }
    }
    match era {
        Era::Legacy => {
            result.remove("resultType");
        }
        Era::Modern => {
            result.set("resultType", "complete");
            if matches!(method, "tools/list" | "server/discover") {
                result.set("ttlMs", LIST_TTL);
                // The list depends on who asks.
                result.set("cacheScope", "private");
            }
            let mut own = match result.remove("_meta") {
                Some(Json::Object(own)) => own,
                _ => Object::new(),
            };
            own.set(meta::SERVER_INFO, server_info());
            result.set("_meta", own);
        }
    }
    Json::Object(result)
}

fn discover() -> Json {
    let versions: Vec<Json> = std::iter::once(MODERN).chain(super::LEGACY_VERSIONS).map(Json::from).collect();
    Json::object([("supportedVersions", versions.into()), ("capabilities", capabilities())])
}

async fn list(view: &View, params: &Object) -> Result<Json, RpcError> {
    if params.get("cursor").is_some() {
        return Err(RpcError::new(-32602, "Invalid params: no such cursor"));
    }
    Ok(Json::object([("tools", tools(view).await.into())]))
}

/// The definitions a view shows, in order.
pub(super) async fn tools(view: &View) -> Vec<Json> {
    view.guard.servers.ensure_listed(&view.caller, LIST_PATIENCE).await;
    let own = view.framework.iter().flat_map(|f| f.definitions(view));
    view.guard.visible(&view.caller).iter().map(|tool| tool.outside_definition()).chain(own).collect()
}

/// `None` when the caller took the call back.
async fn call(
    view: &View,
    mut params: Object,
    sink: Sink,
    cancel: CancellationToken,
) -> Option<Result<Json, RpcError>> {
    let invalid = |why: &str| Some(Err(RpcError::new(-32602, format!("Invalid params: {why}"))));
    let Some(Json::String(name)) = params.remove("name") else { return invalid("name is not a string") };
    let arguments = match params.remove("arguments") {
        None => Json::Object(Object::new()),
        Some(arguments @ Json::Object(_)) => arguments,
        Some(_) => return invalid("arguments is not an object"),
    };
    if let Some(framework) = view.framework.as_ref().filter(|_| name == super::framework::AGENT) {
        let (_, progress) = split_meta(&mut params, sink);
        return framework.call(view, &arguments, progress, cancel).await.map(Ok);
    }
    let unknown = || Some(Err(RpcError::new(-32602, format!("Unknown tool: {name}"))));
    let (permit, rule) = match view.guard.decide(&view.caller, &name, arguments).await {
        Decided::Allowed(permit, rule) => (permit, rule),
        Decided::Unknown => return unknown(),
        Decided::Denied(denial) => {
            warn!(caller = %view.caller.who, tool = name, "{}", denial.for_person());
            let hidden = !view.guard.visible(&view.caller).iter().any(|t| t.name == name);
            // A hidden and an unknown tool look the same.
            return if hidden { unknown() } else { Some(Ok(error_result(&denial.for_model()))) };
        }
    };
    info!(caller = %view.caller.who, tool = name, "allowed by {rule}");
    let (own, progress) = split_meta(&mut params, sink);
    let exchange = Exchange { limit: CALL_LIMIT, cancel, progress };
    match view.guard.perform(&view.caller, permit, own, exchange).await {
        Ok(result) => Some(Ok(result)),
        Err(McpError::Cancelled) => None,
        Err(McpError::Rpc(error)) => Some(Err(error)),
        Err(other) => {
            warn!(caller = %view.caller.who, tool = name, "{other}");
            Some(Ok(error_result(&format!("{name}: {other}"))))
        }
    }
}

type Progress = Arc<dyn Fn(Object) + Send + Sync>;

/// What of `_meta` goes on: everything that does not belong to this connection. The progress
/// token stays here; the server gets one of ours, and its reports come back under the caller's.
fn split_meta(params: &mut Object, sink: Sink) -> (Object, Option<Progress>) {
    let Some(Json::Object(mut own)) = params.remove("_meta") else { return (Object::new(), None) };
    for key in [meta::PROTOCOL_VERSION, meta::CLIENT_INFO, meta::CLIENT_CAPABILITIES] {
        own.remove(key);
    }
    let progress = own.remove(meta::PROGRESS_TOKEN).map(|token| super::framework::progress_to(token, sink));
    (own, progress)
}
