//! The standing stream: what a server says unasked, heard for as long as the connection lives.
//!
//! | | legacy | modern |
//! |---|---|---|
//! | HTTP | GET of the session | `subscriptions/listen`, a POST that stays open |
//! | stdio | standard output | `subscriptions/listen`, answered at its end |
//!
//! It is taken up again when it breaks; since changes may have been missed meanwhile, the
//! listener is told to look again. A server without one is left in peace.

use super::connection::{Core, Era, Link, answer, modern_meta};
use super::http::{Heard, Http};
use super::questions::Open;
use super::wire::{Message, TASKS, meta};
use super::{McpError, Topic};
use futures_util::stream::{BoxStream, FuturesUnordered, SelectAll};
use futures_util::{Stream, StreamExt};
use policies::json::{Json, Object};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(30);
/// The same for a server that cannot be reached.
const AWAY_WAIT: Duration = Duration::from_secs(2);
/// A stream that stood so long was worth having.
const STOOD: Duration = Duration::from_secs(5);
/// How long a server may take to say that it reports changes of a resource.
const REPORTING: Duration = Duration::from_secs(5);
/// Servers acknowledge a stream before they say anything on it; so long the one before is kept.
const OVERLAP: Duration = Duration::from_millis(500);
/// How long a connection waits for its standing stream.
const OPENING: Duration = Duration::from_millis(700);

/// The resources and tasks whose changes are wanted, and those the server says it reports.
pub(super) struct Watches {
    pub(super) wanted: watch::Sender<Set>,
    /// What the newest stream was asked for, and what it said it reports.
    asked: Mutex<(u64, Set)>,
    reported: watch::Sender<(Set, Set)>,
}

type Set = BTreeSet<Topic>;

/// The keys of a filter under which they are named.
const RESOURCES: &str = "resourceSubscriptions";
const TASK_IDS: &str = "taskIds";

impl Default for Watches {
    fn default() -> Self {
        Self {
            wanted: watch::channel(Set::new()).0,
            asked: Mutex::default(),
            reported: watch::channel(Default::default()).0,
        }
    }
}

impl Watches {
    /// `notifications/subscriptions/acknowledged`: what the newest stream reports; whether it
    /// was of that one.
    pub(super) fn acknowledged(&self, params: &Object) -> bool {
        let (number, asked) = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of = params.get("_meta").and_then(|m| m.get(meta::SUBSCRIPTION_ID)).and_then(Json::as_u64);
        if of.is_some_and(|of| of != number) {
            return false;
        }
        let list = |key: &str| {
            let list = params.get("notifications").and_then(|n| n.get(key)).and_then(Json::as_array);
            list.unwrap_or_default().iter().filter_map(Json::as_str).map(str::to_owned)
        };
        let reported = list(RESOURCES).map(Topic::Resource).chain(list(TASK_IDS).map(Topic::Task));
        self.reported.send_replace((asked, reported.collect()));
        true
    }
    /// Has changes reported; waits until the server says so, `false` when it does not. What it
    /// said before counts only where the same was watched already.
    pub(super) async fn report(&self, topic: &Topic) -> bool {
        let mut reported = self.reported.subscribe();
        if self.wanted.send_if_modified(|set| set.insert(topic.clone())) {
            self.reported.send_modify(|(asked, reported)| {
                asked.remove(topic);
                reported.remove(topic);
            });
        }
        let decided = reported.wait_for(|(asked, reported)| asked.contains(topic) || reported.contains(topic));
        let decided = tokio::time::timeout(REPORTING, decided).await;
        decided.is_ok_and(|r| r.is_ok_and(|sets| sets.1.contains(topic)))
    }
}

/// What is said at the start of a stream.
pub(super) const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

type Answering<'a> = std::pin::Pin<Box<dyn Future<Output = Option<Message>> + Send + 'a>>;

/// Starts it; it ends with the connection. Waits a moment for it to stand: some servers lose
/// what they would say on it before.
pub(super) async fn start(core: Arc<Core>) -> JoinHandle<()> {
    let waits = matches!((&core.link, core.era), (Link::Http(_), Era::Legacy));
    let (stands, standing) = oneshot::channel();
    let task = tokio::spawn(async move {
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
    task
}

async fn run(core: &Arc<Core>, stands: oneshot::Sender<()>) {
    match (&core.link, core.era) {
        (Link::Stdio(_), Era::Legacy) | (Link::Peer(_), _) => {}
        (Link::Stdio(_), Era::Modern) => over_stdio(core).await,
        (Link::Http(http), _) => over_http(core, http, stands).await,
    }
    // A server without a standing stream still has a session to leave.
    core.end.cancelled().await;
}

/// What is listened for: every list the server says may change, and what is watched.
fn filter(core: &Core, watched: &Set) -> Option<Wish> {
    let mut wanted = Object::new();
    let kinds =
        [("tools", "toolsListChanged"), ("prompts", "promptsListChanged"), ("resources", "resourcesListChanged")];
    for (capability, key) in kinds {
        let claimed = core.capability(capability).and_then(|c| c.get("listChanged").and_then(Json::as_bool));
        if claimed == Some(true) {
            wanted.set(key, true);
        }
    }
    let mut list = |key: &str, of: fn(&Topic) -> Option<&str>| {
        let all: Vec<Json> = watched.iter().filter_map(of).map(Json::from).collect();
        if !all.is_empty() {
            wanted.set(key, all);
        }
    };
    list(RESOURCES, |w| if let Topic::Resource(uri) = w { Some(uri.as_str()) } else { None });
    list(TASK_IDS, |w| if let Topic::Task(id) = w { Some(id.as_str()) } else { None });
    (!wanted.is_empty()).then(|| Wish { wanted, watched: watched.clone() })
}

/// What a stream is asked for: its filter, and what of it was watched.
struct Wish {
    wanted: Object,
    watched: Set,
}

fn listen(core: &Core, wish: Wish) -> (u64, Message) {
    let number = core.number();
    // Tasks are told to those only who have the extension.
    let mut capabilities = Object::new();
    if wish.watched.iter().any(|w| matches!(w, Topic::Task(_))) {
        let extension = Json::object([(TASKS, Json::Object(Object::new()))]);
        capabilities.set("extensions", extension);
    }
    *core.watches.asked.lock().unwrap_or_else(PoisonError::into_inner) = (number, wish.watched);
    let mut params = Object::new();
    params.set("notifications", wish.wanted);
    let mut own = Object::new();
    modern_meta(&mut own, capabilities);
    params.set("_meta", own);
    (number, Message::Request { id: number.into(), method: "subscriptions/listen".into(), params })
}

async fn over_http(core: &Arc<Core>, http: &Http, stands: oneshot::Sender<()>) {
    let mut stands = Some(stands);
    let mut watched = core.watches.wanted.subscribe();
    let (mut wait, mut missed, mut after) = (FIRST_WAIT, false, None::<String>);
    let mut lost = None;
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
                stands.take().map(|stands| stands.send(()));
                if std::mem::replace(&mut missed, true) {
                    core.events.resumed();
                }
                let began = Instant::now();
                let retry = listened(core, http, stream, &mut watched, &mut after).await;
                // One that ends at once is not worth coming back to at once.
                if began.elapsed() >= STOOD {
                    wait = FIRST_WAIT;
                }
                tokio::time::sleep(retry.unwrap_or_default()).await;
            }
            // A session it does not know though it has just begun it: it has no such stream.
            Err(McpError::SessionLost { .. }) if lost == Some(before.clone()) => return,
            Err(McpError::SessionLost { .. }) => {
                drop(core.reintroduce(before).await);
                lost = Some(core.session());
            }
            Err(McpError::Unreachable(_) | McpError::Broken(_)) => {
                missed = true;
                wait = wait.min(AWAY_WAIT);
            }
            // A login may come.
            Err(McpError::Unauthorized(_)) => missed = true,
            // It has none.
            Err(_) => return,
        }
        tokio::time::sleep(wait).await;
        wait = MAX_WAIT.min(wait * 2);
    }
}

/// Listens until the stream ends, or what is listened for changes and cannot be had; gives how
/// long the server wants to be left alone.
async fn listened(
    core: &Arc<Core>,
    http: &Http,
    stream: impl Stream<Item = Heard> + Send,
    watched: &mut watch::Receiver<Set>,
    after: &mut Option<String>,
) -> Option<Duration> {
    let mut stream = stream.boxed();
    // The streams before, until the new one has been acknowledged for a while: nothing falls
    // between them.
    let mut before: SelectAll<BoxStream<'_, Heard>> = SelectAll::new();
    let mut overlap = None;
    let mut answers: FuturesUnordered<Answering<'_>> = FuturesUnordered::new();
    loop {
        let heard = tokio::select! {
            heard = stream.next() => heard,
            () = over(overlap), if overlap.is_some() => {
                before.clear();
                overlap = None;
                continue;
            }
            Some(heard) = before.next() => match heard {
                Heard::Message(message @ Message::Notification { .. }) => Some(Heard::Message(message)),
                _ => continue,
            },
            Some(answer) = answers.next() => {
                if let Some(answer) = answer {
                    http.notify(&answer).await;
                }
                continue;
            }
            changed = watched.changed(), if core.era == Era::Modern => {
                changed.ok()?;
                let wanted = filter(core, &watched.borrow_and_update())?;
                let new = http.stand(Some(&listen(core, wanted).1), None).await.ok()?;
                before.push(std::mem::replace(&mut stream, new.boxed()));
                // A server that never acknowledges is not listened to twice for ever.
                overlap = Some(Instant::now() + REPORTING);
                continue;
            }
        };
        match heard {
            Some(Heard::Open) => {}
            Some(Heard::Message(Message::Notification { method, params })) => {
                if method != ACKNOWLEDGED {
                    core.heard(&method, params);
                } else if core.watches.acknowledged(&params) {
                    overlap = Some(Instant::now() + OVERLAP);
                }
            }
            Some(Heard::Message(Message::Request { id, method, params })) => {
                answers.push(Box::pin(answered(core, core.questions.open(id), method, params)));
            }
            Some(Heard::Message(Message::Response { .. })) => {}
            Some(Heard::Ended { after: last, retry }) => {
                *after = last;
                return retry;
            }
            None => return None,
        }
    }
}

async fn over(overlap: Option<Instant>) {
    if let Some(at) = overlap {
        tokio::time::sleep_until(at.into()).await;
    }
}

async fn answered(core: &Core, open: Open, method: String, params: Object) -> Option<Message> {
    let answer = async {
        match (method.as_str(), core.era) {
            ("ping", _) | (_, Era::Modern) => answer(&method),
            // Some servers put the questions of a call here.
            _ => core.questions.ask(&method, params).await,
        }
    };
    open.answered(answer).await
}

async fn over_stdio(core: &Core) {
    let Link::Stdio(stdio) = &core.link else { return };
    let end = |number: u64| {
        stdio.forget(number);
        let mut params = Object::new();
        params.set("requestId", number);
        stdio.notify(&Message::Notification { method: "notifications/cancelled".into(), params });
    };
    let mut watched = core.watches.wanted.subscribe();
    let mut before = None;
    loop {
        let wanted = filter(core, &watched.borrow_and_update());
        let Some(wanted) = wanted else {
            before.take().into_iter().for_each(end);
            if watched.changed().await.is_err() {
                return;
            }
            continue;
        };
        let (number, message) = listen(core, wanted);
        let mut acknowledged = core.watches.reported.subscribe();
        let mut overlap = None;
        let mut listening = std::pin::pin!(stdio.request(number, &message, None));
        loop {
            tokio::select! {
                // Answered: it does not listen, or no longer.
                _ = &mut listening => return,
                // The new one stands before the old one is let go.
                _ = acknowledged.changed() => overlap = before.map(|_| Instant::now() + OVERLAP),
                () = over(overlap), if overlap.is_some() => {
                    before.take().into_iter().for_each(end);
                    overlap = None;
                }
                changed = watched.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                }
            }
        }
        before.replace(number).into_iter().for_each(end);
    }
}
