//! What goes along when something leaves for another gateway: a grant of what its sender may give,
//! which the other side meets with what it allows itself.
//!
//! A peer that is one (`delegate = true`) is given nothing else that says who we are, and no message
//! without a grant. What any other peer does is its own affair: it is shown the operator's headers
//! and no grant.

use crate::auth::Hop;
use crate::guard::LOCAL;
use crate::live::Live;
use adapters::mcp::{Callback, Gives};
use adapters::token::Says;
use policies::claims;
use policies::decide;
use policies::grant::Grant;
use policies::permit::Denial;
use policies::resolve::{Limits, Secret, ServerSpec, Transport};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use subagents::run::Caller;

/// What is begun over there has no longer than this.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

pub(super) fn delegates(spec: &ServerSpec) -> bool {
    matches!(&spec.transport, Transport::Peer(peer) if peer.delegate)
}

/// Whether a caller may have something done by this server, if that takes a grant.
///
/// # Errors
/// Why it may give none.
pub(super) fn may(caller: &Caller, spec: &ServerSpec) -> Result<(), Denial> {
    if delegates(spec) { decide::hop(caller.may_give(), caller.depth_below()).map(drop) } else { Ok(()) }
}

/// The grant that goes along at this moment, if one does.
pub(super) fn given(caller: &Caller, spec: Option<&ServerSpec>) -> Option<Grant> {
    spec.filter(|spec| delegates(spec)).and_then(|_| decide::hop(caller.may_give(), caller.depth_below()).ok())
}

/// Whether what went along may still be given: a child over there has what it was given, until what
/// it does is taken back.
///
/// # Errors
/// What of it may not.
pub(super) fn still(given: Option<&Grant>, now: &Caller) -> Result<(), Denial> {
    let Some(given) = given else { return Ok(()) };
    let more = given.exceeds(&decide::hop(now.may_give(), now.depth_below())?);
    if more.is_empty() {
        return Ok(());
    }
    let more: Vec<&str> = more.iter().map(|component| component.as_str()).collect();
    let why = format!("what went along is more than may be given now: {}", more.join(", "));
    Err(Denial::plain(why, "call again, with what may be given"))
}

/// What goes along with what a caller has done by this server, and how long that may come back.
///
/// # Errors
/// Why it may give none.
pub(super) fn gives(
    live: &Live,
    caller: &Caller,
    spec: &ServerSpec,
) -> Result<(Option<Arc<Gives>>, Option<Hop>), Denial> {
    if !delegates(spec) {
        return Ok((None, None));
    }
    let mut grant = decide::hop(caller.may_give(), caller.depth_below())?;
    if let Some(runs) = caller.runs {
        grant.spawn.max_total = grant.spawn.max_total.min(runs);
    }
    // What is given ends some time, whoever lives by then.
    let rest = caller.rest.meet(Limits { wall: Some(LONGEST), ..Limits::NONE });
    let written = claims::write(&grant, &rest).map_err(|e| {
        Denial::plain(e.to_string(), format!("{} cannot be used by this run", spec.name)).with_fix("narrow its policy")
    })?;
    // Not which run: a rule that a person makes over there is to hold for the next one too.
    let chain = caller.may_give().chain().join(" > ");
    // What comes back uses tools here and starts nothing further: what that would use, no ledger counts.
    let mut back = grant.clone();
    (back.spawn.max_depth, back.spawn.max_total) = (0, 0);
    let back = claims::write(&back, &rest).ok();
    let comes = back.and_then(|back| callback(live, caller, spec, (&back, &chain, rest.wall)));
    let (callback, hop) = comes.unzip();
    Ok((Some(Arc::new(Gives { grant: written, chain, callback })), hop))
}

/// What a run has done over there may come back for, with what the run gives: to our endpoint, in the
/// name of its client, as long as the call goes on. Only to a process that serves, and for a client
/// that may come in there.
fn callback(
    live: &Live,
    caller: &Caller,
    spec: &ServerSpec,
    (grant, chain, wall): (&str, &str, Option<Duration>),
) -> Option<(Callback, Hop)> {
    let Transport::Peer(peer) = &spec.transport else { return None };
    if !peer.callback || caller.run.is_none() {
        return None;
    }
    let policy = live.now().policy.clone();
    let known = match &policy.clients {
        Some(clients) => clients.contains_key(&*caller.principal),
        None => &*caller.principal == LOCAL,
    };
    let url = format!("{}/mcp", policy.gateway.public_url.as_ref()?.origin().ascii_serialization());
    let hop = if known { live.hops.begin()? } else { return None };
    let until = SystemTime::now() + wall.unwrap_or(LONGEST).min(LONGEST);
    let goes_with = hop.goes_with();
    let (message, principal) = (Some(goes_with.as_str()), Some(&*caller.principal));
    let token = live.granter()?.mint(&Says { grant, chain, audience: &url, message, principal }, until);
    match token {
        Ok(token) => {
            let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            Some((Callback { url, token: Secret::new(token), until }, hop))
        }
        Err(e) => {
            tracing::warn!(server = %spec.name, "nothing to call back with goes along: {e}");
            None
        }
    }
}
