//! What runs and clients' own calls ask people, and the answers.
//!
//! | | sees it | answers it |
//! |---|---|---|
//! | its client | yes | what the agent asks (`ask_user`), not what the policy asks |
//! | a client with `can_approve`, the anonymous local one | yes | both |
//! | anybody else | no: it looks like none | no |

use super::object;
use super::problem::{Kind, Problem};
use super::request::{Answered, Call, json};
use crate::guard::REST;
use adapters::store::clock;
use http::StatusCode;
use policies::json::Json;
use serde::Deserialize;
use serde_json::{Value, json as value};
use subagents::approval;
use subagents::host::{By, Done, Then};
use subagents::ports::{Always, Answer, Journal, Of, Question, QuestionFilter, QuestionRow};
use subagents::run::RunId;

const PURPOSE: &str = "rest approvals";
const APPROVAL: &str = "approval";

/// `GET /v1/approvals`
pub(super) async fn list(call: Call) -> Answered {
    let root = call.query("root").map(RunId::known);
    // A cursor is good for the tree it came with.
    let purpose = format!("{PURPOSE} {}", root.as_ref().map_or("", |root| root.as_str()));
    let after = call.cursor(&purpose)?;
    let after = after.as_ref().and_then(|a| Some((a.get("at")?.as_u64()?, a.get("id")?.as_str()?.to_owned())));
    let limit = call.limit()?;
    // Whose questions those are is said anew for each page.
    let principal = (!call.who.can_approve).then(|| call.who.principal().to_owned());
    let filter = QuestionFilter { principal, root, after, limit: Some(limit.saturating_add(1)) };
    let mut open = call.door.0.store.open_questions(&filter).await?;
    let more = open.len() > limit as usize;
    open.truncate(limit as usize);
    let shown: Vec<Value> = open.iter().map(|q| object::question(q, &call.who)).collect();
    let mut page = value!({ "approvals": shown });
    if let Some(last) = open.last().filter(|_| more) {
        page["next_cursor"] = call.seal(&purpose, &value!({ "at": last.asked, "id": last.id })).into();
    }
    Ok(json(StatusCode::OK, &page))
}

/// A question that whoever asks may see.
async fn seen(call: &Call) -> Result<QuestionRow, Problem> {
    let row = call.door.0.store.question(&call.id).await?;
    let seen = row.filter(|row| call.who.can_approve || row.question.principal == call.who.principal());
    seen.ok_or_else(|| Problem::no_question(&call.id))
}

/// `GET /v1/approvals/{id}`
pub(super) async fn get(call: Call) -> Answered {
    let row = seen(&call).await?;
    Ok(json(StatusCode::OK, &object::question_row(&row, &call.who)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    decision: Option<Decision>,
    input: Option<Value>,
    note: Option<String>,
    always: Option<Of>,
    within: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Decision {
    Allow,
    Deny,
}

/// `POST /v1/approvals/{id}`
pub(super) async fn answer(call: Call) -> Answered {
    let row = seen(&call).await?;
    let question = &row.question;
    if question.kind == APPROVAL && !call.who.can_approve {
        let next = "a client with can_approve answers it, or `pleach answer` at the machine";
        return Err(Problem::new(Kind::Forbidden, "it asks for an approval, and you may not approve", next));
    }
    let said = understood(question, call.read()?)?;
    if let Some((by, _)) = &row.closed {
        return Err(Problem::new(Kind::Conflict, format!("it is closed already, by {by}"), "GET it to see how"));
    }
    if question.expires.is_some_and(|at| at <= clock()) {
        return Err(Problem::new(Kind::Conflict, "it has expired", "what asked goes on without an answer"));
    }
    let door = &call.door;
    let done = door.0.host.answer(&question.id, said, By { who: call.who.principal(), door: REST }, Then::Leave).await;
    let done = done.map_err(|e| Problem::of_host(e, Kind::Conflict))?;
    if done == Done::Stored {
        let owner = question.principal.as_str().into();
        // Whoever answers is not held back by how much the run's client has under way.
        door.go_on(&RunId::known(&question.root), door.0.working.enter(&owner));
    }
    let row = seen(&call).await?;
    // Another process obeys when it looks.
    let status = if matches!(done, Done::Elsewhere { .. }) { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok(json(status, &object::question_row(&row, &call.who)))
}

/// The answer, if it is one to this question.
fn understood(question: &Question, said: Said) -> Result<Answer, Problem> {
    let Said { decision, input, note, always, within } = said;
    if (always.is_some() || within.is_some()) && !matches!(decision, Some(Decision::Allow)) {
        return Err(Problem::unfit("always and within go with decision = \"allow\""));
    }
    let always = match (always, within) {
        (None, Some(_)) => return Err(Problem::unfit("within goes with always = \"path\"")),
        (of, within) => of.map(|of| Always { of, within }),
    };
    if let Some(always) = &always {
        approval::rule(question, always, "", 0).map_err(|why| Problem::unfit(format!("always: {why}")))?;
    }
    match (decision, input) {
        (Some(Decision::Allow), None) => Ok(Answer::Allow { note, always }),
        (Some(Decision::Deny), None) => Ok(Answer::Deny { note }),
        (None, Some(_)) if question.run.is_empty() => {
            Err(Problem::unfit("a client's own call is made as it is or not at all: give decision"))
        }
        (None, Some(value)) if question.kind == APPROVAL => match value.is_object() {
            true => Ok(Answer::Input { value, note }),
            false => Err(Problem::unfit("it asks for an approval: give decision, or input as an object of arguments")),
        },
        (None, Some(value)) => {
            fits(&question.detail, &value).map_err(|why| Problem::unfit(format!("input: {why}")))?;
            Ok(Answer::Input { value, note })
        }
        _ => Err(Problem::unfit("give either decision (\"allow\" or \"deny\") or input")),
    }
}

/// As the engine judges it, said here with the field's name.
fn fits(detail: &Value, input: &Value) -> Result<(), String> {
    if let Some(options) = detail.get("options").and_then(Value::as_array)
        && !options.contains(input)
    {
        let options: Vec<String> = options.iter().map(Value::to_string).collect();
        return Err(format!("it is one of: {}", options.join(", ")));
    }
    match detail.get("schema").filter(|schema| !schema.is_null()) {
        None => Ok(()),
        Some(schema) => policies::manifest::fits(&Json::from(schema), &Json::from(input)),
    }
}
