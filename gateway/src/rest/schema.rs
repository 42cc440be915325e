//! The schemas of what goes in and comes out.

use serde_json::{Value, json};
use subagents::run::State;

/// All of them, by name.
pub(super) fn all() -> Value {
    let text = || json!({ "type": "string" });
    let may_be = |kind: &str| json!({ "type": [kind, "null"] });
    let time =
        |what: &str| json!({ "type": "integer", "description": format!("{what}, milliseconds since 1970 UTC.") });
    let cursor = || json!({ "type": "string", "description": "There is more; absent on the last page." });
    let list = |of: &str| json!({ "type": "array", "items": { "$ref": format!("#/components/schemas/{of}") } });
    let run = json!({
        "run": text(), "parent": may_be("string"), "root": text(), "depth": { "type": "integer" }, "agent": text(),
        "state": { "enum": State::ALL.map(State::as_str) },
        "waiting": { "type": ["string", "null"], "description": "approval, question, children or pause." },
        "turns": { "type": "integer" }, "tool_calls": { "type": "integer" }, "tokens": { "type": "integer" },
        "usd": { "type": ["number", "null"], "description": "null: unknown." },
        "started": time("When it began"), "ended": may_be("integer"),
        "questions": list("Approval"),
        "text": { "type": "string", "description": "Its answer, or why there is none; once it has ended." },
        "webhook": { "$ref": "#/components/schemas/WebhookState" },
    });
    let approval = json!({
        "id": text(), "run": { "type": ["string", "null"], "description": "null: a client's own call." },
        "root": may_be("string"), "principal": text(),
        "kind": { "enum": ["approval", "question"] }, "text": text(),
        "detail": { "description": "The tool, its arguments and what it touches, or options and schema of the answer." },
        "chain": { "type": "array", "items": text() }, "asked": time("When"), "expires": may_be("integer"),
        "state": { "enum": ["open", "answered", "closed"] },
        "by": text(), "closed": time("When"), "answer": { "type": ["object", "null"] },
    });
    json!({
        "StartRun": closed(&["agent", "prompt"], json!({
            "agent": text(), "prompt": { "type": "string", "minLength": 1 },
            "budget": { "$ref": "#/components/schemas/Budget" }, "webhook": { "$ref": "#/components/schemas/Webhook" },
        })),
        "Budget": closed(&[], json!({
            "usd": { "type": "number", "minimum": 0 }, "tokens": { "type": "integer", "minimum": 0 },
            "turns": { "type": "integer", "minimum": 1 }, "tool_calls": { "type": "integer", "minimum": 0 },
            "wall": { "type": "string", "examples": ["45s", "30m", "2h"] },
        })),
        "Webhook": closed(&["url"], json!({
            "url": { "type": "string", "format": "uri", "description": "Told of run.finished of the run and of what any run of its tree asks (run.waiting), at least once." },
            "secret": { "type": "string", "minLength": 16, "maxLength": 256, "description": "pleach-signature: t=SECONDS,v1=HEX is HMAC-SHA256 with it over SECONDS.BODY. Never shown again." },
        })),
        "WebhookState": { "type": "object", "properties": {
            "url": text(), "signed": { "type": "boolean" }, "pending": { "type": "integer" },
            "delivered": { "type": "integer" }, "dead": { "type": "integer" }, "why": may_be("string"),
        } },
        "Message": closed(&["text"], json!({ "text": { "type": "string", "minLength": 1 } })),
        "Fork": closed(&["at"], json!({ "at": { "type": "integer", "minimum": 1, "description": "The seq of an event of that run." } })),
        "Answer": closed(&[], json!({
            "decision": { "enum": ["allow", "deny"] }, "input": { "description": "What was asked for." }, "note": text(),
            "always": { "enum": ["run", "tool", "path"], "description": "With allow: such calls from now on, those of this run, all of this tool, or those on these paths." },
            "within": { "type": "string", "description": "With always = path: an absolute folder above the paths, instead of those alone." },
        })),
        "Run": { "type": "object", "required": ["run", "root", "depth", "agent", "state"], "properties": run },
        "RunPage": { "type": "object", "required": ["runs"], "properties": { "runs": list("Run"), "next_cursor": cursor() } },
        "Approval": { "type": "object", "required": ["id", "run", "kind", "state"], "properties": approval },
        "ApprovalPage": { "type": "object", "required": ["approvals"], "properties": { "approvals": list("Approval"), "next_cursor": cursor() } },
        "Rule": { "type": "object", "required": ["id", "principal", "whose", "chain", "tool", "manifest", "server", "by", "at", "question"], "properties": {
            "id": text(), "principal": text(), "tool": text(), "manifest": text(), "by": text(),
            "server": { "type": "string", "description": "A hash of who the tool's server is: its command or address." }, "question": text(),
            "whose": { "enum": ["client", "run"], "description": "The client's own calls, or those of its runs." },
            "run": { "type": "string", "description": "The one run it is good for." },
            "chain": { "type": "array", "items": text(), "description": "Whose calls, from the root policy down." },
            "paths": { "type": "array", "items": text(), "description": "Where every path of a call must lie." },
            "at": time("When it was made"),
        } },
        "RulePage": { "type": "object", "required": ["rules"], "properties": { "rules": list("Rule") } },
        "Problem": { "type": "object", "required": ["type", "title", "status", "detail", "next"], "properties": {
            "type": text(), "title": text(), "status": { "type": "integer" }, "detail": text(),
            "next": { "type": "string", "description": "What to do about it." },
        } },
    })
}

/// An object that takes nothing it does not know.
fn closed(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}
