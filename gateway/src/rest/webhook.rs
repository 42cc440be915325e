//! Webhooks: whom a client wants told when its run ends or asks something, and what it is told.

use super::problem::{Kind, Problem};
use super::request::Call;
use super::{Door, object};
use crate::guard::REST;
use crate::webhook::{self, Letter, Letters, Said, Voice};
use adapters::store::{Due, Webhook, clock};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;
use subagents::event::{Event, Record};
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
    let url = webhook::address(&wanted.url).map_err(|why| Problem::unfit(format!("webhook.url: {why}")))?;
    let refused = |why: String| {
        let next = "use an address the policy lets you reach (policy.domains, policy.networks), or ask the operator";
        Problem::new(Kind::Unfit, format!("webhook.url: {why}"), next)
    };
    webhook::screened(&call.door.0.guard.servers.audit, &call.who.caller, &url).await.map_err(refused)?;
    let principal = call.who.principal().to_owned();
    let secret = match wanted.secret {
        None => None,
        Some(secret) if (16..=256).contains(&secret.len()) => Some(call.seal(PURPOSE, &secret.into())),
        Some(_) => return Err(Problem::unfit("webhook.secret has 16 to 256 bytes")),
    };
    Ok(Webhook { principal, url: url.into(), secret })
}

#[async_trait]
impl Voice for Door {
    async fn say(&self, due: &Due) -> Result<Said, String> {
        let webhook = self.0.store.webhook(&due.root).await.map_err(|e| e.to_string())?;
        let Some(webhook) = webhook else { return Ok(Said::Gone("its webhook is gone".into())) };
        let url = Url::parse(&webhook.url).map_err(|e| e.to_string())?;
        let (kind, seconds) = (due.record.event.kind(), clock() / 1_000);
        let body = json!({
            "id": format!("w-{}", due.id), "type": kind, "root": due.root.as_str(), "run": due.record.run.as_str(),
            "seq": due.record.seq, "at": due.record.at, "event": object::event(&due.record),
        })
        .to_string();
        let mut headers = vec![
            ("content-type", "application/json".to_owned()),
            ("pleach-event", kind.to_owned()),
            ("pleach-delivery", format!("w-{}", due.id)),
        ];
        if let Some(sealed) = &webhook.secret {
            let secret = self.0.seal.open(PURPOSE, &webhook.principal, sealed);
            let secret = secret.as_ref().and_then(|s| s.as_str());
            let secret = secret.ok_or("its secret was sealed with another key (state folder lost?)")?;
            headers.push(("pleach-signature", webhook::signature(secret, seconds, &body)));
        }
        let letters = vec![Letter { headers, body }];
        Ok(Said::Letters(Letters { principal: webhook.principal, place: REST, url, letters }))
    }
    fn cares(&self, record: &Record) -> bool {
        matches!(record.event, Event::Finished { .. } | Event::Waiting(_))
    }
}
