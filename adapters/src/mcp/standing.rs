//! The standing stream: what a server says unasked, heard for as long as the connection lives.
//!
//! | | legacy | modern |
//! |---|---|---|
//! | HTTP | GET of the session | `subscriptions/listen`, a POST that stays open |
//! | stdio | standard output | `subscriptions/listen`, answered at its end |
//!
//! It is taken up again when it breaks; since changes may have been missed meanwhile, the
//! listener is told to look again. A server without one is left in peace.

use super::McpError;
use super::connection::{Core, Era, Link, answer, modern_meta};
use super::http::{Heard, Http};
use super::wire::Message;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use policies::json::{Json, Object};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(2);
/// How long a connection waits for its standing stream.
const OPENING: Duration = Duration::from_millis(700);

type Answering<'a> = std::pin::Pin<Box<dyn Future<Output = Message> + Send + 'a>>;

/// Starts it; it ends with the connection. Waits a moment for it to stand: some servers lose
/// what they would say on it before.
pub(super) async fn start(core: Arc<Core>) {
    let waits = matches!((&core.link, core.era), (Link::Http(_), Era::Legacy));
    let (stands, standing) = oneshot::channel();
    tokio::spawn(async move {
        let end = core.end.clone();
        tokio::select! {
            () = end.cancelled() => {}
            () = run(&core, stands) => {}
        }
        // What a legacy server keeps for us, it may let go.
        if end.is_cancelled()
            && let Link::Http(http) = &core.link
            && core.era == Era::Legacy
        {
            http.leave().await;
        }
    });
    if waits {
        let _ = tokio::time::timeout(OPENING, standing).await;
    }
}

async fn run(core: &Core, stands: oneshot::Sender<()>) {
    match (&core.link, core.era) {
        (Link::Stdio(_), Era::Legacy) => {}
        (Link::Stdio(_), Era::Modern) => over_stdio(core).await,
        (Link::Http(http), _) => over_http(core, http, stands).await,
    }
    // A server without a standing stream still has a session to leave.
    core.end.cancelled().await;
}

/// What is listened for: every list the server says may change, and the watched resources.
fn filter(core: &Core, watched: &BTreeSet<String>) -> Option<Object> {
    let mut wanted = Object::new();
    let kinds =
        [("tools", "toolsListChanged"), ("prompts", "promptsListChanged"), ("resources", "resourcesListChanged")];
    for (capability, key) in kinds {
        let claimed = core.capability(capability).and_then(|c| c.get("listChanged").and_then(Json::as_bool));
        if claimed == Some(true) {
            wanted.set(key, true);
        }
    }
    if !watched.is_empty() {
        wanted.set("resourceSubscriptions", watched.iter().map(|u| u.as_str().into()).collect::<Vec<Json>>());
    }
    (!wanted.is_empty()).then_some(wanted)
}

fn listen(core: &Core, wanted: Object) -> (u64, Message) {
    let number = core.number();
    let mut params = Object::new();
    params.set("notifications", wanted);
    let mut own = Object::new();
    modern_meta(&mut own, Object::new());
    params.set("_meta", own);
    (number, Message::Request { id: number.into(), method: "subscriptions/listen".into(), params })
}

async fn over_http(core: &Core, http: &Http, stands: oneshot::Sender<()>) {
    let mut stands = Some(stands);
    let mut watched = core.watched.subscribe();
    let (mut wait, mut heard_once, mut after) = (FIRST_WAIT, false, None::<String>);
    loop {
        let message = match core.era {
            Era::Legacy => None,
            Era::Modern => {
                let wanted = filter(core, &watched.borrow_and_update());
                let Some(wanted) = wanted else {
                    if watched.changed().await.is_err() {
                        return;
                    }
                    continue;
                };
                Some(listen(core, wanted).1)
            }
        };
        let before = core.session();
        match http.stand(message.as_ref(), after.take().as_deref()).await {
            Ok(stream) => {
                let mut stream = std::pin::pin!(stream);
                let mut retry = None;
                let mut answers: FuturesUnordered<Answering<'_>> = FuturesUnordered::new();
                loop {
                    let heard = tokio::select! {
                        heard = stream.next() => heard,
                        Some(answer) = answers.next() => {
                            http.notify(&answer).await;
                            continue;
                        }
                        changed = watched.changed(), if core.era == Era::Modern => {
                            if changed.is_err() { return }
                            let Some(wanted) = filter(core, &watched.borrow_and_update()) else { break };
                            // The new stream stands before the old one is let go.
                            if let Ok(new) = http.stand(Some(&listen(core, wanted).1), None).await {
                                stream.set(new);
                                heard_once = false;
                            }
                            continue;
                        }
                    };
                    match heard {
                        Some(Heard::Open) => {
                            wait = FIRST_WAIT;
                            stands.take().map(|stands| stands.send(()));
                            if std::mem::replace(&mut heard_once, true) {
                                core.events.resumed();
                            }
                        }
                        Some(Heard::Message(Message::Notification { method, params })) => {
                            core.heard(&method, params);
                        }
                        Some(Heard::Message(Message::Request { id, method, params })) => {
                            answers.push(Box::pin(answered(core, id, method, params)));
                        }
                        Some(Heard::Message(Message::Response { .. })) => {}
                        Some(Heard::Ended { after: last, retry: asked }) => (after, retry) = (last, asked),
                        None => break,
                    }
                }
                if let Some(asked) = retry {
                    tokio::time::sleep(asked).await;
                }
            }
            Err(McpError::SessionLost) => drop(core.reintroduce(before).await),
            Err(McpError::Unreachable(_)) => heard_once = true,
            // It has none.
            Err(_) => return,
        }
        tokio::time::sleep(wait).await;
        wait = MAX_WAIT.min(wait * 2);
    }
}

async fn answered(core: &Core, id: Json, method: String, params: Object) -> Message {
    let outcome = match (method.as_str(), core.era) {
        ("ping", _) | (_, Era::Modern) => answer(&method),
        // Some servers put the questions of a call here.
        _ => core.questions.ask(&method, params).await,
    };
    Message::Response { id, outcome }
}

async fn over_stdio(core: &Core) {
    let Link::Stdio(stdio) = &core.link else { return };
    let mut watched = core.watched.subscribe();
    loop {
        let wanted = filter(core, &watched.borrow_and_update());
        let Some(wanted) = wanted else {
            if watched.changed().await.is_err() {
                return;
            }
            continue;
        };
        let (number, message) = listen(core, wanted);
        tokio::select! {
            // Answered: it does not listen, or no longer.
            _ = stdio.request(number, &message, None) => return,
            changed = watched.changed() => {
                if changed.is_err() { return }
            }
        }
        stdio.forget(number);
        let mut params = Object::new();
        params.set("requestId", number);
        stdio.notify(&Message::Notification { method: "notifications/cancelled".into(), params });
    }
}
