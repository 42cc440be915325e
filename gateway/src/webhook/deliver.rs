//! Telling webhooks: from the outbox in the store, until they have heard or it is given up.
//!
//! ```text
//!  outbox ─▶ due, endpoint by endpoint ─▶ under way: of an endpoint at most EACH, of a client at most CLIENT
//!     ▲                                        │ told, or not
//!     └────────────── settled ◀────────────────┘ ─▶ room: looked for again
//! ```
//!
//! An endpoint (a client and an origin) that hangs holds up itself and nobody else: whoever is full
//! is left out when it is looked for what is due.
//!
//! A message is told at least once; its `id` is the same each time. Messages may overtake each
//! other, unless they are of one config of an A2A client; `run` and `seq` say what came when.
//!
//! ```text
//!  2xx ─▶ told · 410 ─▶ its config ends · 400, 413, 415, 422 ─▶ REFUSED tries, then given up, and three in a row
//!  end their config · anything else ─▶ tried again, WAITS long; not heard until then, its config ends
//! ```

use super::{Letters, Said, Voice, permit};
use crate::audit::Entry;
use crate::compose::App;
use crate::guard::Guard;
use adapters::net;
use adapters::store::{Due, Full, Store, Told, clock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use subagents::event::{Record, Seen};
use subagents::host::Host;
use subagents::ports::Gate;
use subagents::run::Caller;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

/// How long to wait after a try that failed, seconds. After the last one it is given up.
const WAITS: [u64; 11] = [1, 5, 30, 120, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400];
/// How often a message is tried that its receiver would not have as it is: what comes after it of
/// the same config waits for it.
const REFUSED: u32 = 5;
/// How often it is looked for configs that have nothing to tell any more.
const SWEEP: Duration = Duration::from_secs(60 * 60);
/// Messages under way at a time to one endpoint.
const EACH: u32 = 4;
/// And of one client: sixteen of its endpoints must hang before another of its own waits.
const CLIENT: u32 = 64;
/// Messages begun by one look.
const AT_ONCE: u32 = 256;
/// How long the letters of one message may take together.
const ALL_LIMIT: Duration = Duration::from_secs(240);
/// How long nobody looks for messages of another process.
const LOOK: Duration = Duration::from_secs(5);

/// What telling takes.
#[derive(Clone)]
struct Post {
    store: Store,
    guard: Arc<Guard>,
    host: Arc<Host>,
    /// Of trees' webhooks.
    rest: Arc<dyn Voice>,
    /// Of the configs of A2A clients.
    a2a: Arc<dyn Voice>,
}

impl Post {
    fn voice(&self, due: &Due) -> &dyn Voice {
        if due.config.is_some() { &*self.a2a } else { &*self.rest }
    }
    fn cares(&self, record: &Record) -> bool {
        self.rest.cares(record) || self.a2a.cares(record)
    }
}

/// Begins to tell them; ends with the servers.
pub(crate) fn start(app: &App, rest: Arc<dyn Voice>, a2a: Arc<dyn Voice>) {
    let (store, guard, host) = (app.store.clone(), app.guard.clone(), app.host.clone());
    let (post, stop) = (Post { store, guard, host, rest, a2a }, app.servers.stop.clone());
    app.servers.tasks.spawn(async move {
        let _ = stop.run_until_cancelled(work(&post)).await;
    });
}

async fn work(post: &Post) {
    let mut seen = post.host.watch();
    post.rest.begin().await;
    post.a2a.begin().await;
    // Tasks of their own: one that waits for the store while nobody polls it would keep its place in
    // the queue for a connection, and we could stand behind it.
    let (mut busy, mut under_way) = (Busy::default(), JoinSet::new());
    let mut hears = true;
    let mut swept: Option<tokio::time::Instant> = None;
    loop {
        if swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            swept = Some(tokio::time::Instant::now());
            if let Err(why) = post.store.sweep_pushes().await {
                tracing::error!("push configs of tasks that ended cannot be forgotten: {why}");
            }
        }
        let mut next = clock().saturating_add(u64::try_from(LOOK.as_millis()).unwrap_or(u64::MAX));
        if let Err(why) = post.store.reclaim_due().await {
            tracing::error!("webhooks of processes that died cannot be looked for: {why}");
        }
        // Twice what is begun: some of them may be under way already, and not taken yet.
        match post.store.due(clock(), &busy.full(), 2 * EACH, AT_ONCE).await {
            Ok(due) => {
                for due in due {
                    if busy.has_room(&due) {
                        let (id, endpoint) = (due.id, due.endpoint.clone());
                        let task = under_way.spawn(attempt(post.clone(), due)).id();
                        busy.0.insert(id, (endpoint, task));
                    }
                }
                if let Ok(Some(at)) = post.store.next_due(&busy.full()).await {
                    // One that was just begun is due until it is taken.
                    next = next.min(at.max(clock().saturating_add(50)));
                }
            }
            Err(why) => tracing::error!("webhooks cannot be looked for: {why}"),
        }
        let wait = tokio::time::sleep(Duration::from_millis(next.saturating_sub(clock())));
        tokio::pin!(wait);
        loop {
            tokio::select! {
                () = &mut wait => break,
                () = post.a2a.woken() => break,
                Some(ended) = under_way.join_next_with_id() => {
                    let task = ended.map_or_else(
                        |e| {
                            tracing::error!("a webhook's try broke off: {e}");
                            e.id()
                        },
                        |(task, ())| task,
                    );
                    busy.leave(task);
                    break;
                }
                heard = seen.recv(), if hears => match heard {
                    Ok(Seen::Record(record)) if post.cares(&record) => {
                        skip(&mut seen);
                        break;
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => hears = false,
                },
            }
        }
    }
}

/// One look finds whatever came until now.
fn skip(seen: &mut broadcast::Receiver<Seen>) {
    use broadcast::error::TryRecvError;
    while matches!(seen.try_recv(), Ok(_) | Err(TryRecvError::Lagged(_))) {}
}

/// What is under way, by its number: where it goes, and the task that tells it.
#[derive(Default)]
struct Busy(BTreeMap<u64, (String, tokio::task::Id)>);

impl Busy {
    /// Whether a message is not under way yet, and there is room where it goes.
    fn has_room(&self, due: &Due) -> bool {
        let (mut endpoint, mut client) = (0, 0);
        for (of, _) in self.0.values() {
            endpoint += u32::from(*of == due.endpoint);
            client += u32::from(Due::client(of) == Due::client(&due.endpoint));
        }
        endpoint < EACH && client < CLIENT && !self.0.contains_key(&due.id)
    }
    fn leave(&mut self, ended: tokio::task::Id) {
        self.0.retain(|_, (_, task)| *task != ended);
    }
    /// Who gets nothing more for now.
    fn full(&self) -> Full {
        let (mut endpoints, mut clients) = (BTreeMap::new(), BTreeMap::new());
        for (of, _) in self.0.values() {
            *endpoints.entry(of.as_str()).or_insert(0) += 1;
            *clients.entry(Due::client(of)).or_insert(0) += 1;
        }
        let at = |most: u32, count: BTreeMap<&str, u32>| {
            count.into_iter().filter(|(_, n)| *n >= most).map(|(name, _)| name.to_owned()).collect()
        };
        Full { endpoints: at(EACH, endpoints), clients: at(CLIENT, clients) }
    }
}

/// One try.
async fn attempt(post: Post, due: Due) {
    let store = &post.store;
    // Longer than a try takes: who dies in between leaves it to the next one.
    let limit = if due.config.is_some() { ALL_LIMIT } else { net::DELIVERY_LIMIT };
    let until = clock().saturating_add(u64::try_from(limit.as_millis()).unwrap_or(0) + 30_000);
    match store.take_due(&due, until).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(why) => return tracing::error!("a webhook cannot be taken: {why}"),
    }
    let voice = post.voice(&due);
    let mut heard = due.heard;
    let told = match voice.say(&due).await {
        Ok(Said::Letters(letters)) => {
            let told = tokio::time::timeout(limit, tell(&post, letters, &mut heard)).await;
            outcome(told.unwrap_or_else(|_| Err("it takes too long".into())), due.tries, heard)
        }
        Ok(Said::Nothing) => Told::Nothing,
        Ok(Said::Gone(why)) => Told::Ended(why),
        Err(why) => outcome(Err(why), due.tries, heard),
    };
    match &told {
        Told::Dead(why) => tracing::warn!(run = %due.root, "a webhook is given up: {why}"),
        Told::Later { why, .. } => tracing::info!(run = %due.root, "a webhook is tried again: {why}"),
        Told::Ended(why) => {
            tracing::warn!(run = %due.root, "a webhook is given up, and its config: {why}");
            if let Some(config) = &due.config {
                let entry = Entry::new("forgotten").with("principal", Due::client(&due.endpoint));
                let entry = entry.with("task", due.root.as_str()).with("push", config.as_str());
                post.guard.servers.audit.owe(entry.with("why", why.as_str())).await;
            }
        }
        Told::Delivered | Told::Nothing => {}
    }
    let over = !matches!(told, Told::Later { .. });
    let ended = matches!(told, Told::Ended(_));
    let noted = match store.settle(due.id, until, told).await {
        Ok(noted) => noted,
        Err(why) => {
            tracing::error!("a webhook's outcome cannot be noted: {why}");
            false
        }
    };
    if ended
        && !noted
        && let Some(config) = &due.config
    {
        let entry = Entry::new("kept").with("principal", Due::client(&due.endpoint));
        let entry = entry.with("task", due.root.as_str()).with("push", config.as_str());
        post.guard.servers.audit.owe(entry.with("why", "it was set again, or taken away, meanwhile")).await;
    }
    // What is not noted comes again, and is looked for from where it was looked for before.
    voice.settled(&due, over && noted);
}

/// What a try means, after so many before it, when so many of its letters were heard.
fn outcome(told: Result<u16, String>, tries: u32, heard: u32) -> Told {
    let why = match told {
        Ok(200..=299) => return Told::Delivered,
        // It says that it wants no more, of this or of what follows.
        Ok(410) => return Told::Ended("HTTP 410: it wants no more".into()),
        // It is there, and this will not do.
        Ok(status @ (400 | 413 | 415 | 422)) if tries + 1 >= REFUSED => return Told::Dead(format!("HTTP {status}")),
        Ok(status) => format!("HTTP {status}"),
        Err(why) => why,
    };
    match WAITS.get(usize::try_from(tries).unwrap_or(usize::MAX)) {
        None => Told::Ended(why),
        Some(wait) => {
            // Up to a tenth more, so that those that failed together do not come back together.
            let mut byte = [0u8; 1];
            let _ = getrandom::fill(&mut byte);
            let jitter = wait * 100 * u64::from(byte[0]) / 255;
            Told::Later { next: clock().saturating_add(wait * 1_000 + jitter), why, heard }
        }
    }
}

/// Tells one letter after another, from the first that was not heard, until one is not; gives how
/// the last one went, and counts those heard.
async fn tell(post: &Post, letters: Letters, heard: &mut u32) -> Result<u16, String> {
    let Letters { principal, place, url, letters } = letters;
    let mut status = 204;
    for letter in letters.into_iter().skip(usize::try_from(*heard).unwrap_or(usize::MAX)) {
        // Under the policy as it is now: a client that is gone reaches nothing.
        let (authority, _) = post.guard.door(&principal, place).ok_or("its client may not come in any more")?;
        let caller = Caller::new(&principal, &format!("webhook of {principal}"), authority).through(place);
        let permit = permit(&post.guard.servers.audit, &caller, &url).await?;
        let mut headers = letter.headers;
        headers.push(("user-agent", format!("pleach/{}", env!("CARGO_PKG_VERSION"))));
        status = net::deliver(&url, permit, &headers, letter.body).await?;
        if !(200..=299).contains(&status) {
            break;
        }
        *heard += 1;
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_end() {
        let later = |told, tries| match outcome(told, tries, 2) {
            Told::Later { heard, .. } => heard == 2,
            _ => false,
        };
        assert_eq!(outcome(Ok(204), 0, 2), Told::Delivered);
        assert!(matches!(outcome(Ok(410), 0, 2), Told::Ended(_)), "it wants no more of anything");
        assert!(later(Ok(302), 0), "no redirect is followed");
        assert!(later(Err("x".into()), 10));
        assert_eq!(outcome(Err("x".into()), 11, 2), Told::Ended("x".into()));
        assert!(later(Ok(422), 3), "it may have been mended meanwhile");
        assert_eq!(outcome(Ok(422), 4, 2), Told::Dead("HTTP 422".into()), "what follows may do");
        assert!(later(Ok(401), 4) && later(Ok(404), 9), "that may be mended");
    }
}
