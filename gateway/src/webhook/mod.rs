//! Telling others what came about in a tree: webhooks of REST, push notifications of A2A. Doors
//! say whom and what ([`Voice`]); the rest is here, once for both.
//!
//! ```text
//!  address ─▶ its client may reach it? ─▶ what it resolves to may be dialled? ─▶ kept
//!                 ▲ asked again at each try, and again of what the name has by then
//!  event ─▶ outbox (same transaction) ─▶ [deliver] ─▶ a door's voice: letters ─▶ POST, no redirect
//! ```

pub(crate) mod deliver;
mod sign;

pub(crate) use deliver::start;
pub(crate) use sign::signature;

use crate::audit::{Audit, Before, Decision, Entry};
use adapters::net;
use adapters::store::Due;
use async_trait::async_trait;
use policies::action::Connect;
use policies::decide;
use policies::permit::{Permit, Verdict};
use subagents::event::Record;
use subagents::run::Caller;
use url::Url;

/// What a door has to say about a message that is due.
pub(crate) enum Said {
    /// This, to there.
    Letters(Letters),
    /// Nothing came of it.
    Nothing,
    /// Nobody is to be told any more, and why.
    Gone(String),
}

/// What is to be told, one after another.
pub(crate) struct Letters {
    /// The client that wants to be told, under whose policy it is.
    pub(crate) principal: String,
    /// The door it came by.
    pub(crate) place: &'static str,
    pub(crate) url: Url,
    pub(crate) letters: Vec<Letter>,
}

/// One request.
pub(crate) struct Letter {
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

/// A door that has something to tell.
#[async_trait]
pub(crate) trait Voice: Send + Sync {
    /// What is to be told of a message that is due.
    async fn say(&self, due: &Due) -> Result<Said, String>;
    /// Before anything is said.
    async fn begin(&self) {}
    /// A message was said: it is over with, or is to be said once more.
    fn settled(&self, _: &Due, _over: bool) {}
    /// Waits until there may be something to tell that no event says.
    async fn woken(&self) {
        std::future::pending().await
    }
    /// Whether an event may be one that is to be told.
    fn cares(&self, record: &Record) -> bool;
}

/// An address somebody wants told: what it must be, whoever names it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| e.to_string())?;
    if text.len() > 2_048 || !matches!(url.scheme(), "http" | "https") {
        return Err("it is an http or https address of at most 2048 characters".into());
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("it names neither a user nor a fragment".into());
    }
    Ok(url)
}

/// Whether a client may have an address told, as far as that can be known now.
///
/// # Errors
/// Why not.
pub(crate) async fn screened(audit: &Audit, caller: &Caller, url: &Url) -> Result<(), String> {
    let permit = permit(audit, caller, url).await?;
    net::screen(permit).await
}

/// Whether whoever holds this authority may reach it; put on record either way.
async fn permit(audit: &Audit, caller: &Caller, url: &Url) -> Result<Permit<Connect>, String> {
    let (host, port) = net::origin(url)?;
    let entry = Entry::new("connect").by(caller).with("target", format!("{host}:{port}")).with("for", "webhook");
    let judged = match decide::connect(&caller.authority, host, port) {
        Verdict::Allow(permit, _) => Ok(permit),
        Verdict::Ask(question) => Err(question.refuse("a webhook cannot wait")),
        Verdict::Deny(denial) => Err(denial),
    };
    let entry = match &judged {
        Ok(permit) => entry.decided(Decision::Allow(permit.rule())),
        Err(denial) => entry.decided(Decision::Deny(denial)),
    };
    let recorded = audit.record(entry, Before::Acting).await;
    let permit = judged.map_err(|denial| {
        tracing::info!("webhook {}", denial.for_person());
        denial.for_model()
    })?;
    recorded.map_err(|failed| failed.to_string())?;
    Ok(permit)
}
