//! Webhooks: whom a client wants told when its run ends or asks something. The address is judged
//! as every connection of that client would be, at registration and again at each try.

pub(super) mod deliver;

use super::problem::{Kind, Problem};
use super::request::Call;
use crate::audit::{Audit, Before, Decision, Entry};
use adapters::net;
use adapters::store::Webhook;
use policies::action::Connect;
use policies::decide;
use policies::permit::{Permit, Verdict};
use serde::Deserialize;
use subagents::run::Caller;
use url::Url;

/// What secrets are sealed for.
const PURPOSE: &str = "rest webhook";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    url: String,
    secret: Option<String>,
}

/// A webhook that may be kept.
pub(super) async fn registered(call: &Call, wanted: Wanted) -> Result<Webhook, Problem> {
    let url = Url::parse(&wanted.url).map_err(|e| Problem::unfit(format!("webhook.url: {e}")))?;
    if wanted.url.len() > 2_048 || !matches!(url.scheme(), "http" | "https") {
        return Err(Problem::unfit("webhook.url is an http or https address of at most 2048 characters"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(Problem::unfit("webhook.url names neither a user nor a fragment"));
    }
    let refused = |why: String| {
        let next = "use an address the policy lets you reach (policy.domains, policy.networks), or ask the operator";
        Problem::new(Kind::Unfit, format!("webhook.url: {why}"), next)
    };
    let permit = permit(&call.door.0.guard.servers.audit, &call.who.caller, &url).await.map_err(refused)?;
    net::screen(permit).await.map_err(refused)?;
    let principal = call.who.principal().to_owned();
    let secret = match wanted.secret {
        None => None,
        Some(secret) if (16..=256).contains(&secret.len()) => Some(call.seal(PURPOSE, &secret.into())),
        Some(_) => return Err(Problem::unfit("webhook.secret has 16 to 256 bytes")),
    };
    Ok(Webhook { principal, url: url.into(), secret })
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
