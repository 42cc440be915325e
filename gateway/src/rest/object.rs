//! What the door shows: runs, questions, events. What a person could change (where a rule stands,
//! how to widen it) and the agent's instructions are for the person at the machine.

use super::Door;
use super::problem::Problem;
use crate::hosted::Who;
use policies::price::Usd;
use serde_json::{Value, json};
use subagents::event::Record;
use subagents::ports::{Journal, Question, QuestionFilter, QuestionRow, RunRow};

/// The fields of `runs --json`, and what it waits for.
pub(super) fn row(row: &RunRow) -> Value {
    json!({
        "run": row.run.as_str(), "parent": row.parent.as_ref().map(|p| p.as_str()), "root": row.root.as_str(),
        "depth": row.depth, "agent": row.agent, "state": row.state, "waiting": row.waiting, "turns": row.turns,
        "tool_calls": row.tool_calls, "tokens": row.tokens, "usd": row.usd.map(|nanos| Usd(nanos).as_dollars()),
        "started": row.started, "ended": row.ended,
    })
}

/// The same with what it asks, what it said in the end, and what its webhook was told.
pub(super) async fn run(door: &Door, who: &Who, of: &RunRow) -> Result<Value, Problem> {
    let store = &door.0.store;
    let mut shown = row(of);
    let filter = QuestionFilter { root: Some(of.root.clone()), ..QuestionFilter::default() };
    // Nobody asks anything in a tree that has ended.
    let open = if of.ended.is_some() { Vec::new() } else { store.open_questions(&filter).await? };
    // At the root those of the whole tree: whoever follows it need not know its children.
    let own = open.iter().filter(|q| of.parent.is_none() || q.run == of.run.as_str());
    shown["questions"] = own.map(|q| question(q, who)).collect();
    if of.ended.is_some() {
        shown["text"] = store.last_words(&of.run).await?.into();
    }
    if of.parent.is_none()
        && let Some(webhook) = store.webhook(&of.run).await?
    {
        let told = store.told(&of.run).await?;
        shown["webhook"] = json!({
            "url": webhook.url, "signed": webhook.secret.is_some(), "pending": told.pending,
            "delivered": told.delivered, "dead": told.dead, "why": told.why,
        });
    }
    Ok(shown)
}

/// An open question.
pub(super) fn question(question: &Question, who: &Who) -> Value {
    let mut detail = question.detail.clone();
    if !who.can_approve {
        hide_places(&mut detail);
    }
    json!({
        "id": question.id, "run": named(&question.run), "root": named(&question.root), "principal": question.principal,
        "kind": question.kind, "text": question.text, "detail": detail, "chain": question.chain,
        "asked": question.asked, "expires": question.expires, "state": "open",
    })
}

/// A client's own call is of no run.
fn named(run: &str) -> Value {
    if run.is_empty() { Value::Null } else { run.into() }
}

/// A question as it stands.
pub(super) fn question_row(row: &QuestionRow, who: &Who) -> Value {
    let mut shown = question(&row.question, who);
    if let Some((by, at)) = &row.closed {
        shown["state"] = if row.answer.is_some() { "answered" } else { "closed" }.into();
        shown["by"] = by.as_str().into();
        shown["closed"] = (*at).into();
        shown["answer"] = serde_json::to_value(&row.answer).unwrap_or_default();
    }
    shown
}

/// An event in the form of `run --json`.
pub(super) fn event(record: &Record) -> Value {
    let mut shown = record.to_json();
    if let Value::Object(fields) = &mut shown {
        for hidden in ["fix", "system", "door"] {
            fields.remove(hidden);
        }
        if let Some(detail) = fields.get_mut("detail") {
            hide_places(detail);
        }
    }
    hide_places(&mut shown);
    shown
}

fn hide_places(value: &mut Value) {
    if let Some(Value::String(rule)) = value.get_mut("rule")
        && let Some((text, place)) = rule.rsplit_once(" (")
        && place.ends_with(')')
        && place.contains(':')
    {
        *rule = text.to_owned();
    }
}

/// A field that is a text.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}
