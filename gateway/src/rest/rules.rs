//! Standing rules: what people allowed from some answer on.
//!
//! | | sees it | takes it back |
//! |---|---|---|
//! | the client whose calls it is about | yes | no |
//! | a client with `can_approve`, the anonymous local one | yes | yes |
//! | anybody else | no: it looks like none | no |

use super::problem::{Kind, Problem};
use super::request::{Answered, Call, json};
use http::StatusCode;
use policies::standing::Standing;
use serde_json::{Value, json as value};

/// All that stand and whoever asks may see.
async fn seen(call: &Call, limit: u32) -> Result<Vec<Standing>, Problem> {
    let principal = (!call.who.can_approve).then(|| call.who.principal());
    call.door.0.store.rules(principal, limit).await.map_err(Problem::failed)
}

/// `GET /v1/rules`
pub(super) async fn list(call: Call) -> Answered {
    let rules = seen(&call, call.limit()?).await?;
    let shown: Vec<Value> = rules.iter().map(|rule| serde_json::to_value(rule).unwrap_or_default()).collect();
    Ok(json(StatusCode::OK, &value!({ "rules": shown })))
}

/// `POST /v1/rules/{id}/revoke`
pub(super) async fn revoke(call: Call) -> Answered {
    let rule = seen(&call, u32::MAX).await?.into_iter().find(|rule| rule.id == call.id).ok_or_else(|| {
        let detail = format!("no rule that stands is named {}", call.id);
        Problem::new(Kind::NotFound, detail, "GET /v1/rules lists those that do")
    })?;
    if !call.who.can_approve {
        let next = "a client with can_approve takes it back, or `pleach approvals revoke` at the machine";
        return Err(Problem::new(Kind::Forbidden, "you may not take rules back", next));
    }
    let done = call.door.0.guard.revoke(&rule, call.who.principal()).await;
    done.map_err(|why| Problem::new(Kind::Conflict, why, "GET /v1/rules lists those that stand"))?;
    Ok(json(StatusCode::OK, &serde_json::to_value(&rule).unwrap_or_default()))
}
