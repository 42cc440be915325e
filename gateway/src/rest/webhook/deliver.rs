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
//! other; `run` and `seq` say what came when.

use super::super::{Door, object};
use super::{PURPOSE, permit};
use crate::guard::Guard;
use adapters::net;
use adapters::store::{Due, Full, Told, Webhook, clock};
use ring::hmac;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use subagents::event::{Event, Seen};
use subagents::ports::Gate;
use subagents::run::Caller;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use url::Url;

/// How long to wait after a try that failed, seconds. After the last one it is given up.
const WAITS: [u64; 11] = [1, 5, 30, 120, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400];
/// Messages under way at a time to one endpoint.
const EACH: u32 = 4;
/// And of one client: sixteen of its endpoints must hang before another of its own waits.
const CLIENT: u32 = 64;
/// Messages begun by one look.
const AT_ONCE: u32 = 256;
/// How long nobody looks for messages of another process.
const LOOK: Duration = Duration::from_secs(5);

/// Begins to tell them; ends with the servers.
pub(crate) fn start(door: &Door) {
    let (door, stop) = (door.clone(), door.0.stop.clone());
    door.0.tasks.clone().spawn(async move {
        let _ = stop.run_until_cancelled(work(&door)).await;
    });
}

async fn work(door: &Door) {
    let mut seen = door.0.host.watch();
    // Tasks of their own: one that waits for the store while nobody polls it would keep its place in
    // the queue for a connection, and we could stand behind it.
    let (mut busy, mut under_way) = (Busy::default(), JoinSet::new());
    let mut hears = true;
    loop {
        let mut next = clock().saturating_add(u64::try_from(LOOK.as_millis()).unwrap_or(u64::MAX));
        if let Err(why) = door.0.store.reclaim_due().await {
            tracing::error!("webhooks of processes that died cannot be looked for: {why}");
        }
        // Twice what is begun: some of them may be under way already, and not taken yet.
        match door.0.store.due(clock(), &busy.full(), 2 * EACH, AT_ONCE).await {
            Ok(due) => {
                for due in due {
                    if busy.has_room(&due) {
                        let (id, endpoint) = (due.id, due.endpoint.clone());
                        let task = under_way.spawn(attempt(door.clone(), due)).id();
                        busy.0.insert(id, (endpoint, task));
                    }
                }
                if let Ok(Some(at)) = door.0.store.next_due(&busy.full()).await {
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
                    Ok(Seen::Record(record)) if matches!(record.event, Event::Finished { .. } | Event::Waiting(_)) => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => hears = false,
                },
            }
        }
    }
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
async fn attempt(door: Door, due: Due) {
    let store = &door.0.store;
    // Longer than a try takes: who dies in between leaves it to the next one.
    let until = clock().saturating_add(u64::try_from(net::DELIVERY_LIMIT.as_millis()).unwrap_or(0) + 30_000);
    match store.take_due(&due, until).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(why) => return tracing::error!("a webhook cannot be taken: {why}"),
    }
    let told = match store.webhook(&due.root).await {
        Ok(Some(webhook)) => outcome(tell(&door, &webhook, &due).await, due.tries),
        Ok(None) => Told::Dead("its webhook is gone".into()),
        Err(why) => outcome(Err(why.to_string()), due.tries),
    };
    match &told {
        Told::Dead(why) => tracing::warn!(run = %due.root, "a webhook is given up: {why}"),
        Told::Later(_, why) => tracing::info!(run = %due.root, "a webhook is tried again: {why}"),
        Told::Delivered => {}
    }
    if let Err(why) = store.settle(due.id, told).await {
        tracing::error!("a webhook's outcome cannot be noted: {why}");
    }
}

/// What a try means, after so many before it.
fn outcome(told: Result<u16, String>, tries: u32) -> Told {
    let why = match told {
        Ok(200..=299) => return Told::Delivered,
        // It says that it wants no more.
        Ok(410) => return Told::Dead("HTTP 410".into()),
        Ok(status) => format!("HTTP {status}"),
        Err(why) => why,
    };
    match WAITS.get(usize::try_from(tries).unwrap_or(usize::MAX)) {
        None => Told::Dead(why),
        Some(wait) => {
            // Up to a tenth more, so that those that failed together do not come back together.
            let mut byte = [0u8; 1];
            let _ = getrandom::fill(&mut byte);
            let jitter = wait * 100 * u64::from(byte[0]) / 255;
            Told::Later(clock().saturating_add(wait * 1_000 + jitter), why)
        }
    }
}

async fn tell(door: &Door, webhook: &Webhook, due: &Due) -> Result<u16, String> {
    let url = Url::parse(&webhook.url).map_err(|e| e.to_string())?;
    // Under the policy as it is now: a client that is gone reaches nothing.
    let guard: &Guard = &door.0.guard;
    let place = crate::guard::REST;
    let (authority, _) = guard.door(&webhook.principal, place).ok_or("its client may not come in any more")?;
    let caller =
        Caller::new(&webhook.principal, &format!("webhook of {}", webhook.principal), authority).through(place);
    let permit = permit(&guard.servers.audit, &caller, &url).await?;
    let (kind, seconds) = (due.record.event.kind(), clock() / 1_000);
    let body = json!({
        "id": format!("w-{}", due.id), "type": kind, "root": due.root.as_str(), "run": due.record.run.as_str(),
        "seq": due.record.seq, "at": due.record.at, "event": object::event(&due.record),
    })
    .to_string();
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("user-agent", format!("pleach/{}", env!("CARGO_PKG_VERSION"))),
        ("pleach-event", kind.to_owned()),
        ("pleach-delivery", format!("w-{}", due.id)),
    ];
    if let Some(sealed) = &webhook.secret {
        let secret = door.0.seal.open(PURPOSE, &webhook.principal, sealed);
        let secret = secret.as_ref().and_then(|s| s.as_str());
        let secret = secret.ok_or("its secret was sealed with another key (state folder lost?)")?;
        headers.push(("pleach-signature", signature(secret, seconds, &body)));
    }
    net::deliver(&url, permit, &headers, body).await
}

/// `t=…,v1=…`: HMAC-SHA256 over `t.body`, hexadecimal.
fn signature(secret: &str, seconds: u64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{seconds}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_can_be_checked_by_others() {
        // printf '1.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let signed = signature("0123456789abcdef", 1, "{}");
        assert!(signed.starts_with("t=1,v1=") && signed.len() == 7 + 64, "{signed}");
        assert_ne!(signed, signature("0123456789abcdef", 1, "{ }"));
    }

    #[test]
    fn tries_end() {
        assert_eq!(outcome(Ok(204), 0), Told::Delivered);
        assert_eq!(outcome(Ok(410), 0), Told::Dead("HTTP 410".into()));
        assert!(matches!(outcome(Ok(302), 0), Told::Later(..)), "no redirect is followed");
        assert!(matches!(outcome(Err("x".into()), 10), Told::Later(..)));
        assert_eq!(outcome(Err("x".into()), 11), Told::Dead("x".into()));
    }
}
