//! Answers one request, whichever transport and era it came by.

use super::call::{self, Asking, Outcome};
use super::lists::{self, List};
use super::{Speaker, View, capabilities, server_info};
use crate::servers::{Abilities, Level};
use adapters::mcp::{Kind, MODERN, Reply, RpcError, meta};
use policies::json::{Json, Object};

/// What is to be sent; `None` when the caller took the request back.
pub(super) type Answer = Option<Result<Json, RpcError>>;

/// How long what a client asked may take to end when the client may not come in any more.
const LEAVING: std::time::Duration = std::time::Duration::from_secs(1);

/// Requests that go on to a server.
const ONWARD: [&str; 4] = ["tools/call", "prompts/get", "resources/read", "completion/complete"];
const TASK_METHODS: [&str; 3] = ["tasks/get", "tasks/update", "tasks/cancel"];

pub(super) async fn dispatch(view: &View, speaker: &Speaker, asking: Asking) -> Answer {
    let (method, cancel) = (asking.method.clone(), asking.cancel.clone());
    let going = async {
        match speaker {
            Speaker::Modern => modern(view, speaker, asking).await,
            Speaker::Legacy(_) => Box::pin(legacy(view, speaker, asking)).await,
        }
    };
    tokio::pin!(going);
    let outcome = tokio::select! {
        outcome = &mut going => outcome,
        why = view.gone() => {
            // Whatever it waits for is taken back; what it waited for is nobody's any more.
            cancel.cancel();
            let _ = tokio::time::timeout(LEAVING, &mut going).await;
            Outcome::Error(RpcError::new(-32001, why))
        }
    };
    match outcome {
        Outcome::Nothing => None,
        Outcome::Error(error) => Some(Err(translate(error, &method, speaker))),
        Outcome::Reply(reply) => Some(Ok(match speaker {
            Speaker::Modern => for_modern(view, reply, &method),
            Speaker::Legacy(_) => for_legacy(reply, &method),
        })),
    }
}

async fn modern(view: &View, speaker: &Speaker, asking: Asking) -> Outcome {
    let method = asking.method.as_str();
    // A call is moved about a few times before it rests: what it is not takes no room in it.
    if let Some(list) = List::of(method) {
        return own(Box::pin(lists::page(view, list, &asking.params)).await);
    }
    if let Some(method) = TASK_METHODS.into_iter().find(|m| *m == method) {
        return Box::pin(call::task(view, method, asking)).await;
    }
    match method {
        "server/discover" => own(Ok(Box::pin(discover(view)).await)),
        _ if ONWARD.contains(&method) => call::ask(view, speaker, asking).await,
        _ => Outcome::Error(RpcError::new(-32601, format!("Method not found: {method}"))),
    }
}

async fn legacy(view: &View, speaker: &Speaker, asking: Asking) -> Outcome {
    let Speaker::Legacy(conversation) = speaker else { return Outcome::Nothing };
    let method = asking.method.as_str();
    if let Some(list) = List::of(method) {
        return own(lists::page(view, list, &asking.params).await);
    }
    let empty = || Json::Object(Object::new());
    let uri = || asking.params.get("uri").and_then(Json::as_str).map(str::to_owned);
    match method {
        "ping" => own(Ok(empty())),
        "logging/setLevel" => {
            let level = asking.params.get("level").and_then(Json::as_str).and_then(Level::parse);
            let Some(level) = level else { return own(Err(RpcError::new(-32602, "Invalid params: no such level"))) };
            conversation.set_level(level);
            view.guard.servers.want_level(&view.caller, level).await;
            own(Ok(empty()))
        }
        "resources/subscribe" => {
            let Some(uri) = uri() else { return own(Err(RpcError::new(-32602, "Invalid params: no uri"))) };
            let abilities = Abilities::of(&conversation.capabilities);
            match view.guard.watch(&view.caller, &uri, abilities).await {
                Ok((watch, answer)) => own(match conversation.watch(&uri, watch) {
                    true => Ok(answer),
                    false => Err(RpcError::new(-32603, "too many resources are watched")),
                }),
                Err(crate::guard::Refused::Unknown) => own(Err(call::no_resource(&uri, true))),
                Err(refused) => call::refusal(refused, Some(&uri)),
            }
        }
        "resources/unsubscribe" => {
            if let Some(uri) = uri() {
                conversation.unwatch(&uri);
            }
            own(Ok(empty()))
        }
        _ if ONWARD.contains(&method) => call::ask(view, speaker, asking).await,
        _ => Outcome::Error(RpcError::new(-32601, format!("Method not found: {method}"))),
    }
}

fn own(result: Result<Json, RpcError>) -> Outcome {
    match result {
        Ok(result) => Outcome::Reply(Reply { kind: Kind::Complete, modern: false, result }),
        Err(error) => Outcome::Error(error),
    }
}

/// A missing resource is -32002 until 2025-11-25 and -32602 since.
fn translate(mut error: RpcError, method: &str, speaker: &Speaker) -> RpcError {
    let about_uri = error.data().is_some_and(|d| d.get("uri").is_some()) && !error.message().starts_with("denied:");
    let code = match (error.code(), speaker) {
        (-32002, Speaker::Modern) => -32602i64,
        (-32602, Speaker::Legacy(_)) if about_uri && method == "resources/read" => -32002,
        _ => return error,
    };
    error.object_mut().set("code", code);
    error
}

/// Gives a result what a modern reader requires.
fn for_modern(view: &View, reply: Reply, method: &str) -> Json {
    let Json::Object(mut result) = reply.result else { return reply.result };
    if reply.kind == Kind::Complete {
        result.set("resultType", "complete");
    }
    let kept = matches!(method, "server/discover" | "resources/read") || List::of(method).is_some();
    if kept && reply.kind == Kind::Complete {
        let ttl = u64::try_from(view.guard.servers.manifests.ttl().as_millis()).unwrap_or(0);
        if method == "resources/read" {
            // A server of the first era does not say; then it is not to be kept.
            if !(reply.modern && result.get("ttlMs").is_some()) {
                result.set("ttlMs", 0u64);
            }
        } else {
            result.set("ttlMs", ttl);
        }
        // What is seen depends on who asks.
        result.set("cacheScope", "private");
    }
    let mut about = match result.remove("_meta") {
        Some(Json::Object(about)) => about,
        _ => Object::new(),
    };
    about.set(meta::SERVER_INFO, server_info());
    result.set("_meta", about);
    Json::Object(result)
}

/// Takes from a modern server's result what a legacy reader does not know.
fn for_legacy(reply: Reply, method: &str) -> Json {
    let Json::Object(mut result) = reply.result else { return reply.result };
    if reply.modern {
        if let Some(Json::Object(about)) = result.get_mut("_meta") {
            about.remove(meta::SERVER_INFO);
            if about.is_empty() {
                result.remove("_meta");
            }
        }
        if method == "resources/read" {
            result.remove("ttlMs");
            result.remove("cacheScope");
        }
    }
    Json::Object(result)
}

async fn discover(view: &View) -> Json {
    let versions: Vec<Json> = std::iter::once(MODERN).chain(super::LEGACY_VERSIONS).map(Json::from).collect();
    let mut capabilities = capabilities(view);
    if let Some(own) = capabilities.as_object_mut() {
        own.set("extensions", Json::object([(call::TASKS, Json::Object(Object::new()))]));
    }
    let mut result = Object::new();
    result.set("supportedVersions", versions);
    result.set("capabilities", capabilities);
    if let Some(instructions) = lists::instructions(view).await {
        result.set("instructions", instructions);
    }
    result.into()
}
