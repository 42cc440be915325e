//! A client's own runs, and why a call of it would be refused.

use super::Framework;
use super::task::time;
use crate::guard::{Decided, error_result};
use crate::mcp::View;
use adapters::store::Listed;
use policies::json::{Json, Object};
use policies::price::Usd;
use subagents::host::Then;

impl Framework {
    pub(super) async fn runs(&self, view: &View, arguments: &Json) -> Json {
        let limit = arguments.get("limit").and_then(Json::as_u64).unwrap_or(50);
        let limit = u32::try_from(limit).unwrap_or(50);
        match self.ground.store.runs_of(&view.caller.principal, limit).await {
            Ok(runs) => {
                let lines: Vec<String> = runs.iter().map(|l| line(l).to_text()).collect();
                let structured = Json::object([("runs", runs.iter().map(line).collect::<Vec<Json>>().into())]);
                let shown = if lines.is_empty() { "no run yet".to_owned() } else { lines.join("\n") };
                result(shown, Some(structured))
            }
            Err(e) => error_result(&e.to_string()),
        }
    }

    /// A run of this client, by its whole id.
    async fn find(&self, view: &View, arguments: &Json) -> Result<Listed, Json> {
        let id = arguments.get("run").and_then(Json::as_str).unwrap_or("");
        let found = self.ground.store.run_of(&view.caller.principal, id).await;
        match found {
            Ok(Some(listed)) => Ok(listed),
            // A stranger's and one that never was look the same.
            Ok(None) => Err(error_result(&format!("no run of yours is named {id}; pleach__runs lists them"))),
            Err(e) => Err(error_result(&e.to_string())),
        }
    }

    pub(super) async fn run(&self, view: &View, arguments: &Json) -> Json {
        let listed = match self.find(view, arguments).await {
            Ok(listed) => listed,
            Err(why) => return why,
        };
        match self.ground.store.events(&listed.row.run).await {
            Ok(events) => {
                // What a person may change is for the person.
                let events = events.iter().map(|record| {
                    let mut event = Json::from(record.to_json());
                    if let Some(event) = event.as_object_mut() {
                        event.remove("fix");
                        event.remove("system");
                        if let Some(Json::String(rule)) = event.get_mut("rule") {
                            *rule = without_place(rule);
                        }
                    }
                    event.to_text()
                });
                let all: Vec<String> = std::iter::once(line(&listed).to_text()).chain(events).collect();
                result(all.join("\n"), None)
            }
            Err(e) => error_result(&e.to_string()),
        }
    }

    pub(super) async fn cancel(&self, view: &View, arguments: &Json) -> Json {
        let listed = match self.find(view, arguments).await {
            Ok(listed) => listed,
            Err(why) => return why,
        };
        let row = &listed.row;
        if row.ended.is_some() {
            return result(format!("{} is {} already", row.run, row.state), None);
        }
        match self.ground.host.cancel(&row.run, &view.caller.principal).await {
            Ok(_) => result(format!("{} ends", row.run), None),
            Err(why) => error_result(&why.to_string()),
        }
    }

    /// Says something to a run; one that has ended goes on with it.
    pub(super) async fn send(&self, view: &View, arguments: &Json) -> Json {
        let listed = match self.find(view, arguments).await {
            Ok(listed) => listed,
            Err(why) => return why,
        };
        let row = &listed.row;
        let message = arguments.get("message").and_then(Json::as_str).unwrap_or("").to_owned();
        let principal = view.caller.principal.clone();
        if !self.ground.running.has_room(&principal) {
            return error_result("too many runs of yours are under way; wait for some, or cancel them");
        }
        match self.ground.host.send(&row.run, &principal, message, Then::Leave).await {
            Ok(done) => {
                self.go_on(view, &row.root, &principal, &done);
                result(format!("{} is told; pleach__run shows what comes of it", row.run), None)
            }
            Err(why) => error_result(&why.to_string()),
        }
    }

    pub(super) async fn explain(&self, view: &View, arguments: &Json) -> Json {
        let name = arguments.get("tool").and_then(Json::as_str).unwrap_or("");
        let given = arguments.get("arguments").cloned().unwrap_or_else(|| Object::new().into());
        // What was not listed is not started for this.
        let map = view.guard.servers.manifests.map(&view.caller);
        if !map.tools.contains_key(name) && !map.held.contains_key(name) {
            return result(format!("deny: no tool is named {name}"), None);
        }
        let decided = view.guard.would(&view.caller, name, given).await;
        let (verdict, why) = match &decided {
            Decided::Allowed(_, rule) => ("allow", rule.text.clone()),
            // What is hidden looks like what is not there.
            Decided::Denied(denial) if view.guard.is_visible(&view.caller, name) => ("deny", denial.for_model()),
            _ => ("deny", format!("no tool is named {name}")),
        };
        let chain: Vec<Json> =
            view.caller.authority.chain().into_iter().map(|who| Json::String(who.to_string())).collect();
        let structured =
            Json::object([("verdict", verdict.into()), ("why", why.as_str().into()), ("chain", chain.into())]);
        result(format!("{verdict}: {why}"), Some(structured))
    }
}

/// A rule without where it stands in the policy file, which is for a person.
fn without_place(rule: &str) -> String {
    match rule.rsplit_once(" (") {
        Some((text, place)) if place.ends_with(')') && place.contains(':') => text.to_owned(),
        _ => rule.to_owned(),
    }
}

pub(super) fn result(text: String, structured: Option<Json>) -> Json {
    let content = Json::object([("type", "text".into()), ("text", text.into())]);
    let mut out = Object::new();
    out.set("content", vec![content]);
    if let Some(structured) = structured {
        out.set("structuredContent", structured);
    }
    out.set("isError", false);
    out.into()
}

fn line(listed: &Listed) -> Json {
    let row = &listed.row;
    let mut out = Object::new();
    out.set("run", row.run.as_str());
    if let Some(parent) = &row.parent {
        out.set("parent", parent.as_str());
    }
    out.set("agent", row.agent.as_str());
    out.set("state", row.state.as_str());
    if let Some(waiting) = &row.waiting {
        out.set("waiting", waiting.as_str());
    }
    if let Some(usd) = row.usd {
        out.set("usd", Usd(usd).to_string());
    }
    out.set("turns", u64::from(row.turns));
    out.set("tool_calls", u64::from(row.tool_calls));
    out.set("started", time(row.started));
    if let Some(ended) = row.ended {
        out.set("ended", time(ended));
    }
    out.into()
}
