//! Push notifications (A2A 1.0, sections 3.1.7 to 3.1.10 and 4.3): whom a client wants told of a
//! task. Kept in the store, told by [`crate::webhook`] in the words of [`tell`].
//!
//! ```text
//!  capability: the client may reach anything at all ─▶ the task is its own ─▶ fields ─▶ screened ─▶ kept
//!
//!  kept ─┬ of a task that has ended: told of its end, once each time it is asked for
//!        ├ deleted, by whoever it is of, whatever it may still reach
//!        ├ its client is gone, is known by another token, or may see the agent no more: found when
//!        │   something is to be told, and put on record
//!        ├ 410, or not heard for a whole schedule of tries ─▶ with it goes what waits for it
//!        └ a day after its task has ended, when all is told
//! ```
//!
//! What a message proves itself with is sealed, and never shown again; so is what its client was
//! known by.

mod tell;

use super::fault::{Fault, Kind};
use super::ops::Asked;
use crate::webhook;
use adapters::store::{Kept, MOST_CONFIGS, PushConfig};
use policies::authority::Authority;
use policies::json::Json;
use policies::resolve::Policy;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use subagents::run::RunId;

/// What proofs and page tokens are sealed for.
const PROOF: &str = "a2a push";
const PAGE: &str = "a2a push page";
/// The scheme of our own whose credentials are a secret that signs and is not sent.
const HMAC: &str = "HMAC-SHA256";
/// The field of a request that is to blame.
const FIELD: &str = "taskPushNotificationConfig";

/// Whether anything could be told at all: no host may be reached where none is allowed.
pub(super) fn reaches(authority: &Authority) -> bool {
    let grant = authority.grant();
    !grant.domains.is_empty() || !grant.networks.is_empty()
}

/// Whether any client could have anything told.
pub(super) fn is_served(policy: &Policy) -> bool {
    match &policy.clients {
        Some(clients) => clients.values().any(|client| reaches(&policy.door(Some(client)))),
        None => reaches(&policy.door(None)),
    }
}

/// Refuses whoever could have nothing told.
pub(super) fn served(asked: &Asked) -> Result<(), Fault> {
    if reaches(&asked.who.caller.authority) {
        return Ok(());
    }
    let why = "push notifications are not served to you, since you may reach no host: the operator can allow one in \
               policy.domains or policy.networks; without it, subscribe to the task";
    Err(Fault::new(Kind::PushNotificationNotSupported, why))
}

fn wrong(why: impl std::fmt::Display) -> Fault {
    Fault::field(FIELD, why)
}

/// A field that is a text of a header: what is seen, and spaces.
fn text<'c>(config: &'c Value, key: &'static str, most: usize) -> Result<Option<&'c str>, Fault> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.len() <= most && text.bytes().all(|b| matches!(b, b' '..=b'~')) => {
            Ok(Some(text))
        }
        Some(_) => Err(wrong(format!("{key} is a string of at most {most} printable ASCII characters"))),
    }
}

/// The scheme and the credentials that are asked for.
fn authentication(config: &Value) -> Result<(Option<&str>, Option<&str>), Fault> {
    let Some(given) = config.get("authentication").filter(|given| !given.is_null()) else { return Ok((None, None)) };
    let credentials = text(given, "credentials", 4_096)?;
    let Some(scheme) = text(given, "scheme", 64)? else {
        return Err(wrong("authentication.scheme is missing; Bearer, Basic, HMAC-SHA256 or another of RFC 9110"));
    };
    if !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)) {
        return Err(wrong("authentication.scheme is a name such as Bearer"));
    }
    let signs = scheme.eq_ignore_ascii_case(HMAC);
    if signs && !credentials.is_some_and(|secret| (16..=256).contains(&secret.len())) {
        return Err(wrong("authentication.credentials is the secret that signs: 16 to 256 characters"));
    }
    // Nothing but ours comes without: a token of our own key.
    if credentials.is_none() && !scheme.eq_ignore_ascii_case("bearer") {
        return Err(wrong("authentication.credentials is missing; only Bearer comes without, with a token we sign"));
    }
    Ok((Some(scheme), credentials))
}

/// What a client asks for, if it may be kept. `root` is the task; `unnamed` is what it is called
/// where the client does not say.
///
/// # Errors
/// Which field is wrong, or why the address may not be told.
pub(super) async fn registered(
    asked: &Asked,
    root: &RunId,
    config: &Value,
    unnamed: Option<&str>,
) -> Result<PushConfig, Fault> {
    served(asked)?;
    if !config.is_object() {
        return Err(wrong("it is an object"));
    }
    let id = match text(config, "id", 256)?.or(unnamed) {
        Some(id) if id.contains('/') => return Err(wrong("id has a slash, which no path can hold")),
        Some(id) => id.to_owned(),
        None => {
            let mut bytes = [0u8; 8];
            getrandom::fill(&mut bytes).map_err(Fault::failed)?;
            bytes.iter().fold("c-".to_owned(), |id, byte| format!("{id}{byte:02x}"))
        }
    };
    let url = config.get("url").and_then(Value::as_str).ok_or_else(|| wrong("url is missing"))?;
    let url = webhook::address(url).map_err(|why| wrong(format!("url: {why}")))?;
    let token = text(config, "token", 1_024)?;
    let (scheme, credentials) = authentication(config)?;
    let audit = &asked.door.0.guard.servers.audit;
    webhook::screened(audit, &asked.who.caller, &url).await.map_err(|why| wrong(format!("url: {why}")))?;
    let principal = asked.who.principal().to_owned();
    let mark = asked.who.identity.as_ref().and_then(|identity| identity.client()).map(|client| client.proof.mark());
    let proof = json!({ "token": token, "scheme": scheme, "credentials": credentials, "mark": mark });
    let proof = asked.door.0.seal.seal(PROOF, &principal, &Json::from(&proof));
    let (scheme, version) = (scheme.map(str::to_owned), asked.version.as_str().to_owned());
    // Before it is kept: what comes about from then on is looked for.
    asked.door.0.pushes.store(true, Ordering::Release);
    Ok(PushConfig { root: root.clone(), id, principal, version, url: url.into(), proof, scheme })
}

/// Keeps it.
pub(super) async fn keep(asked: &Asked, config: PushConfig) -> Result<(), Fault> {
    match asked.door.0.store.keep_push(config).await? {
        Kept::Kept => {
            asked.door.0.asked_to_tell.notify_one();
            Ok(())
        }
        Kept::Full => Err(wrong(format!("a task has at most {MOST_CONFIGS}; delete one first"))),
    }
}

/// The task a request is about: one of whoever asks.
async fn task(asked: &Asked) -> Result<RunId, Fault> {
    served(asked)?;
    let id = asked.text("taskId").ok_or_else(|| Fault::field("taskId", "it is missing"))?;
    asked.own(id).await.map(|row| row.run)
}

/// The same, with what it has. Whoever may reach nothing any more still sees what it left, and can
/// take it away; to everybody else who may reach nothing it is not served, whatever task is named.
async fn left(asked: &Asked) -> Result<(RunId, Vec<PushConfig>), Fault> {
    let unserved = served(asked).err();
    let found = async {
        let id = asked.text("taskId").ok_or_else(|| Fault::field("taskId", "it is missing"))?;
        let root = asked.own(id).await?.run;
        let all = asked.door.0.store.pushes(&root).await?;
        Ok::<_, Fault>((root, all))
    };
    match (found.await, unserved) {
        (Ok(found), Some(_)) if !found.1.is_empty() => Ok(found),
        (_, Some(unserved)) => Err(unserved),
        (found, None) => found,
    }
}

pub(super) async fn set(asked: &Asked) -> Result<Value, Fault> {
    let root = task(asked).await?;
    let config = registered(asked, &root, &asked.params, None).await?;
    let shown = shown(&config);
    keep(asked, config).await?;
    Ok(shown)
}

pub(super) async fn get(asked: &Asked) -> Result<Value, Fault> {
    let (_, all) = left(asked).await?;
    let mut all = all.into_iter();
    let found = match asked.text("id") {
        Some(id) => all.find(|config| config.id == id),
        // In 0.3 it need not be named.
        None if asked.version.is_old() => all.next(),
        None => return Err(Fault::field("id", "it is missing")),
    };
    let name = asked.text("id").unwrap_or("any");
    let none = || Fault::new(Kind::TaskNotFound, format!("the task has no push configuration named {name:?}"));
    found.as_ref().map(shown).ok_or_else(none)
}

pub(super) async fn list(asked: &Asked) -> Result<Value, Fault> {
    let (root, all) = left(asked).await?;
    let size = match asked.params.get("pageSize") {
        None | Some(Value::Null) => MOST_CONFIGS as usize,
        Some(size) => {
            let size = size.as_u64().and_then(|n| usize::try_from(n).ok());
            size.ok_or_else(|| Fault::field("pageSize", "it is a number from 0"))?
        }
    };
    // 0 is as good as none said.
    let size = if size == 0 { MOST_CONFIGS as usize } else { size };
    let (seal, purpose) = (&asked.door.0.seal, format!("{PAGE} {root}"));
    let after = match asked.text("pageToken") {
        None => None,
        Some(token) => {
            let opened = seal.open(&purpose, asked.who.principal(), token);
            let after = opened.as_ref().and_then(Json::as_str).map(str::to_owned);
            Some(after.ok_or_else(|| Fault::field("pageToken", "it is none of this task; begin again without it"))?)
        }
    };
    let mut rest = all.iter().filter(|config| after.as_ref().is_none_or(|after| config.id > *after)).peekable();
    let page: Vec<&PushConfig> = rest.by_ref().take(size).collect();
    let next = match (rest.peek(), page.last()) {
        (Some(_), Some(last)) => seal.seal(&purpose, asked.who.principal(), &last.id.as_str().into()),
        _ => String::new(),
    };
    let configs: Vec<Value> = page.into_iter().map(shown).collect();
    Ok(json!({ "configs": configs, "nextPageToken": next }))
}

/// One that is not there is as good as deleted.
pub(super) async fn delete(asked: &Asked) -> Result<Value, Fault> {
    let (root, _) = left(asked).await?;
    let id = asked.text("id").ok_or_else(|| Fault::field("id", "it is missing"))?;
    asked.door.0.store.forget_push(&root, id).await?;
    Ok(json!({}))
}

/// What a client is shown: nothing a message proves itself with.
fn shown(config: &PushConfig) -> Value {
    let mut shown = json!({ "id": config.id, "taskId": config.root.as_str(), "url": config.url });
    if let Some(scheme) = &config.scheme {
        shown["authentication"] = json!({ "scheme": scheme });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_proves_itself_with_fits_a_header() {
        let read = |given: Value| {
            let config = json!({ "authentication": given });
            authentication(&config).map(|(s, c)| (s.map(str::to_owned), c.map(str::to_owned))).ok()
        };
        let some =
            |scheme: &str, credentials: Option<&str>| Some((Some(scheme.to_owned()), credentials.map(str::to_owned)));
        assert_eq!(read(Value::Null), Some((None, None)));
        assert_eq!(read(json!({ "scheme": "Bearer", "credentials": "abc" })), some("Bearer", Some("abc")));
        assert_eq!(read(json!({ "scheme": "Bearer" })), some("Bearer", None), "signed by us");
        let secret = "0123456789abcdef";
        assert_eq!(read(json!({ "scheme": HMAC, "credentials": secret })), some(HMAC, Some(secret)));
        for bad in [
            json!({}),
            json!("Bearer"),
            json!({ "scheme": "Basic" }),
            json!({ "scheme": "Bearer x", "credentials": "a" }),
            json!({ "scheme": "Bearer", "credentials": "a\r\nX-Evil: 1" }),
            json!({ "scheme": "Bearer", "credentials": 1 }),
            json!({ "scheme": HMAC, "credentials": "short" }),
            json!({ "scheme": HMAC }),
        ] {
            assert_eq!(read(bad.clone()), None, "{bad}");
        }
    }
}
