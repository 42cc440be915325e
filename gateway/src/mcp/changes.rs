//! What a client is told unasked: changes of *its* lists, of resources it watches, and what
//! servers log. Legacy clients hear it on their standing stream, modern ones on the streams of
//! `subscriptions/listen`, which say what they want.

use super::View;
use super::conversation::Conversation;
use super::followed::Followed;
use crate::servers::{Said, Watch, What};
use crate::settings::Loaded;
use adapters::mcp::{Message, meta};
use futures_util::Stream;
use policies::json::{Json, Object};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, watch};

/// A storm of changes is one change.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// What the lists of a view look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u64; 3]);

const LISTS: [(&str, &str); 3] = [
    ("toolsListChanged", "notifications/tools/list_changed"),
    ("promptsListChanged", "notifications/prompts/list_changed"),
    ("resourcesListChanged", "notifications/resources/list_changed"),
];

impl Fingerprint {
    pub(super) fn of(view: &View) -> Self {
        let (guard, caller) = (&view.guard, &view.caller);
        let offers = guard.servers.offered.of(caller);
        let mut hashers = [(); 3].map(|()| DefaultHasher::new());
        for tool in guard.visible(caller) {
            (&tool.name, &tool.hash).hash(&mut hashers[0]);
        }
        for own in view.framework.iter().flat_map(|framework| framework.definitions(view)) {
            own.to_text().hash(&mut hashers[0]);
        }
        for (name, prompt) in offers.prompts.iter().filter(|(_, p)| guard.sees_prompt(caller, p)) {
            (name, Json::Object(prompt.definition.clone()).to_text()).hash(&mut hashers[1]);
        }
        let resources = offers.resources.iter().chain(&offers.templates);
        for (uri, resource) in resources.filter(|(_, r)| guard.sees_resources(caller, &r.server)) {
            (uri, Json::Object(resource.definition.clone()).to_text()).hash(&mut hashers[2]);
        }
        Self(hashers.map(|h| h.finish()))
    }
}

/// Who listens, and for what.
enum Listener {
    Legacy(Arc<Conversation>),
    Modern { lists: [bool; 3], watches: BTreeMap<String, Watch>, followed: Followed, id: Json },
}

/// Everything one stream needs.
struct Feed {
    view: View,
    version: watch::Receiver<u64>,
    policy: watch::Receiver<Arc<Loaded>>,
    /// There is nobody to tell any more.
    over: bool,
    said: broadcast::Receiver<Arc<Said>>,
    seen: Fingerprint,
    listener: Listener,
    /// What a legacy client is asked beyond its requests.
    asked: Option<mpsc::Receiver<Box<Message>>>,
    ready: VecDeque<Message>,
}

/// What a legacy client hears on its standing stream. A new one first hears what it missed
/// since the last.
pub(super) fn standing(view: View, conversation: Arc<Conversation>) -> impl Stream<Item = Message> + Send + 'static {
    let mut missed = VecDeque::new();
    let before = *conversation.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let again = before.is_some();
    if again {
        for uri in conversation.watched() {
            missed.push_back(updated(uri, Object::new()));
        }
    }
    let seen = before.unwrap_or_else(|| Fingerprint::of(&view));
    *conversation.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    let asked = conversation.stand();
    let mut feed = Feed::new(view, seen, Listener::Legacy(conversation));
    feed.asked = Some(asked);
    feed.ready = missed;
    feed.compare();
    feed.stream()
}

/// `subscriptions/listen`: the acknowledgement first, then what was asked for, then, if the
/// door closes, the answer. Resources this client may not read are left out, as unknown ones;
/// so are tasks nobody tells of.
pub(super) async fn listen(view: View, id: Json, params: &Object) -> impl Stream<Item = Message> + Send + use<> {
    let wanted = params.get("notifications").and_then(Json::as_object).cloned().unwrap_or_default();
    let lists = LISTS.map(|(key, _)| wanted.get(key).and_then(Json::as_bool) == Some(true));
    let uris = wanted.get("resourceSubscriptions").and_then(Json::as_array).unwrap_or_default();
    let uris: Vec<&str> = uris.iter().filter_map(Json::as_str).take(1_000).collect();
    let said = view.guard.servers.listen();
    // Whoever is to hear of changes must have been listed before.
    match lists[1] || lists[2] {
        true => view.guard.servers.ensure_offered(&view.caller, super::lists::LIST_PATIENCE).await,
        false => view.guard.servers.ensure_listed(&view.caller, super::lists::LIST_PATIENCE).await,
    }
    let watched = uris.into_iter().map(|uri| {
        let watching = view.guard.watch(&view.caller, uri, crate::servers::Abilities::default());
        // One that cannot be had costs itself.
        let watching = tokio::time::timeout(super::lists::LIST_PATIENCE, watching);
        async move { Some((uri.to_owned(), watching.await.ok()?.ok()?.0)) }
    });
    let ids = wanted.get("taskIds").and_then(Json::as_array).unwrap_or_default();
    let followed = Followed::new(&view, ids.iter().filter_map(Json::as_str).take(1_000));
    let (watched, mut followed) = tokio::join!(futures_util::future::join_all(watched), followed);
    let watches: BTreeMap<String, Watch> = watched.into_iter().flatten().collect();
    let mut accepted = Object::new();
    for ((key, _), on) in LISTS.iter().zip(lists) {
        if on {
            accepted.set(*key, true);
        }
    }
    if wanted.get("resourceSubscriptions").is_some() {
        accepted.set("resourceSubscriptions", watches.keys().map(|u| u.as_str().into()).collect::<Vec<Json>>());
    }
    if wanted.get("taskIds").is_some() {
        accepted.set("taskIds", followed.ids());
    }
    let mut params = Object::new();
    params.set("notifications", accepted);
    let method = "notifications/subscriptions/acknowledged".to_owned();
    let seen = Fingerprint::of(&view);
    // One that ended before it was listened to is told of all the same.
    let ended = followed.ended(&view).await;
    let mut feed = Feed::new(view, seen, Listener::Modern { lists, watches, followed, id });
    feed.said = said;
    feed.push(Message::Notification { method, params });
    ended.into_iter().for_each(|message| feed.push(message));
    feed.stream()
}

/// The next message of a stream, if there is one and it has one.
async fn next(stream: &mut Option<mpsc::Receiver<Box<Message>>>) -> Message {
    if let Some(receiver) = stream
        && let Some(message) = receiver.recv().await
    {
        return *message;
    }
    // A newer stream took its place.
    *stream = None;
    std::future::pending().await
}

/// Runs a client follows that have ended.
async fn ended(listener: &mut Listener, view: &View) -> Vec<Message> {
    match listener {
        Listener::Modern { followed, .. } => followed.hear(view).await,
        Listener::Legacy(_) => std::future::pending().await,
    }
}

fn updated(uri: String, mut params: Object) -> Message {
    params.set("uri", uri);
    Message::Notification { method: "notifications/resources/updated".into(), params }
}

impl Feed {
    fn new(view: View, seen: Fingerprint, listener: Listener) -> Self {
        let version = view.guard.servers.manifests.version();
        let said = view.guard.servers.listen();
        let mut policy = view.guard.servers.live.changes();
        // The view may be of the one before already.
        policy.mark_changed();
        Self { view, version, policy, over: false, said, seen, listener, asked: None, ready: VecDeque::new() }
    }

    fn stream(self) -> impl Stream<Item = Message> + Send + 'static {
        let stop = self.view.guard.servers.stop.clone();
        futures_util::stream::unfold((Some(self), stop), |(feed, stop)| async move {
            let mut feed = feed?;
            loop {
                if let Some(message) = feed.ready.pop_front() {
                    return Some((message, (Some(feed), stop)));
                }
                if feed.over {
                    return Some((feed.last()?, (None, stop)));
                }
                tokio::select! {
                    () = stop.cancelled() => return Some((feed.last()?, (None, stop))),
                    () = feed.hear() => {}
                }
            }
        })
    }

    /// The answer to `subscriptions/listen`, when the door closes.
    fn last(&self) -> Option<Message> {
        let Listener::Modern { id, .. } = &self.listener else { return None };
        let own = Json::object([(meta::SUBSCRIPTION_ID, id.clone())]);
        let result = Json::object([("resultType", "complete".into()), ("_meta", own)]);
        Some(Message::Response { id: id.clone(), outcome: Ok(result) })
    }

    /// Waits for something that may concern this listener.
    async fn hear(&mut self) {
        let view = self.view.clone();
        let expired = view.expired();
        tokio::select! {
            changed = self.version.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
                tokio::time::sleep(DEBOUNCE).await;
                self.version.mark_unchanged();
                self.compare();
            }
            Ok(()) = self.policy.changed() => self.renew().await,
            () = expired => self.over = true,
            said = self.said.recv() => match said {
                Ok(said) => self.said(&said),
                Err(broadcast::error::RecvError::Lagged(_)) => self.missed(),
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            },
            asked = next(&mut self.asked) => self.ready.push_back(asked),
            ended = ended(&mut self.listener, &self.view) => ended.into_iter().for_each(|message| self.push(message)),
        }
    }

    /// Another policy is in force: its view is shown from now on, if there still is one.
    async fn renew(&mut self) {
        match self.view.renewed() {
            Err(_) => self.over = true,
            Ok(None) => {}
            Ok(Some(view)) => {
                self.view = view;
                // What is new is listed, and told of when it is.
                self.view.guard.servers.ensure_listed(&self.view.caller, Duration::ZERO).await;
                self.compare();
            }
        }
    }

    /// Tells of lists that look different now.
    fn compare(&mut self) {
        let now = Fingerprint::of(&self.view);
        let before = std::mem::replace(&mut self.seen, now);
        if let Listener::Legacy(conversation) = &self.listener {
            *conversation.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        }
        for (at, (_, method)) in LISTS.iter().enumerate() {
            let wanted = match &self.listener {
                Listener::Legacy(_) => true,
                Listener::Modern { lists, .. } => lists[at],
            };
            if wanted && now.0[at] != before.0[at] {
                self.push(Message::Notification { method: (*method).to_owned(), params: Object::new() });
            }
        }
    }

    fn said(&mut self, said: &Said) {
        if !said.is_for(&self.view.caller) {
            return;
        }
        match &said.what {
            What::Log(params) => {
                // A modern client hears log lines on the stream of its own request only.
                if let Listener::Legacy(conversation) = &self.listener
                    && conversation.wants(params)
                {
                    let method = "notifications/message".to_owned();
                    self.push(Message::Notification { method, params: params.clone() });
                }
            }
            What::Other(method, params) => {
                if let Listener::Legacy(_) = &self.listener {
                    self.push(Message::Notification { method: method.clone(), params: params.clone() });
                }
            }
            What::Task(task) => {
                if let Listener::Modern { followed, .. } = &self.listener
                    && let Some(message) = followed.said(&self.view, &said.server, task)
                {
                    self.push(message);
                }
            }
            What::Updated(params) => {
                let offers = self.view.guard.servers.offered.of(&self.view.caller);
                let uri = params.get("uri").and_then(Json::as_str).unwrap_or("");
                let Some(uri) = offers.uris.outside(&said.server, uri) else { return };
                let wanted = match &self.listener {
                    Listener::Legacy(conversation) => conversation.watches(&uri),
                    Listener::Modern { watches, .. } => watches.contains_key(&uri),
                };
                if wanted {
                    self.push(updated(uri, params.clone()));
                }
            }
        }
    }

    /// Too much was said to follow: every watched resource may have changed.
    fn missed(&mut self) {
        let uris = match &self.listener {
            Listener::Legacy(conversation) => conversation.watched(),
            Listener::Modern { watches, .. } => watches.keys().cloned().collect(),
        };
        uris.into_iter().for_each(|uri| self.push(updated(uri, Object::new())));
    }

    fn push(&mut self, mut message: Message) {
        if let (Listener::Modern { id, .. }, Message::Notification { params, .. }) = (&self.listener, &mut message) {
            let mut own = match params.remove("_meta") {
                Some(Json::Object(own)) => own,
                _ => Object::new(),
            };
            own.set(meta::SUBSCRIPTION_ID, id.clone());
            params.set("_meta", own);
        }
        self.ready.push_back(message);
    }
}
