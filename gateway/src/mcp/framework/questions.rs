//! What runs ask people, put to MCP clients: as elicitation while a call of `pleach__Agent`
//! stands, as `input_required` of a task, and as text for `pleach__answer`.
//!
//! | who | questions of its own runs | approvals of its own runs | of others' runs |
//! |---|---|---|---|
//! | the anonymous local caller, a client with `can_approve` | yes | yes | yes |
//! | any other client | yes | no | no, and it cannot tell that there are any |
//!
//! No run answers, whoever's token it has towards its servers: a call that one makes says so
//! (`meta::OF_RUN`), through however many doors.
//!
//! A client's own call is approved by its person, in an elicitation; never with `pleach__answer` of
//! the same client, which is its model's to call.

use super::own::result;
use super::{ANSWER, ELICITED, Framework};
use crate::guard::error_result;
use crate::mcp::View;
use crate::servers::Abilities;
use crate::shown;
use adapters::mcp::Party;
use policies::json::{Json, Object};
use policies::manifest::visible;
use policies::permit::Denial;
use std::sync::Arc;
use subagents::approval;
use subagents::host::{By, Done, Then};
use subagents::ports::{Always, Answer, Journal, Of, Question, QuestionFilter};
use subagents::run::RunId;
use tokio_util::sync::CancellationToken;

const APPROVAL: &str = "approval";
/// Questions a list has at most.
const LISTED: u32 = 100;

impl Framework {
    /// The open questions of a tree.
    pub(super) async fn asked(&self, root: &RunId) -> Vec<Question> {
        let filter = QuestionFilter { root: Some(root.clone()), ..QuestionFilter::default() };
        self.ground.store.open_questions(&filter).await.unwrap_or_default()
    }
    /// Whether this client may answer a question.
    pub(super) fn may_answer(&self, view: &View, question: &Question) -> bool {
        let own = question.principal == *view.caller.principal;
        let call = question.run.is_empty();
        if own { question.kind != APPROVAL || (self.can_approve && !call) } else { self.can_approve }
    }

    /// Puts the questions of a waiting tree to the client whose call stands, until one is
    /// answered. `None`: it cannot be asked, may not answer, or does not.
    pub(super) async fn put(
        &self,
        view: &View,
        root: &RunId,
        party: Option<&Arc<dyn Party>>,
    ) -> Option<(String, Answer)> {
        let party = party.filter(|p| can_elicit(&***p))?;
        for question in self.asked(root).await.into_iter().filter(|q| self.may_answer(view, q)) {
            // One that stands, or was put off, is not put again.
            let Some(dialog) = view.shared.dialogs.raise(&question.id, &**party, &view.place) else { continue };
            let said = party.ask("elicitation/create", form(&question)).await.ok()?;
            match answer_of(&question, &said) {
                Some(answer) => return Some((question.id, answer)),
                None => dialog.put_off(),
            }
        }
        None
    }

    /// Answers a question for this client; the run goes on by itself.
    pub(super) async fn say(
        &self,
        view: &View,
        question: &Question,
        answer: Answer,
        door: &str,
    ) -> Result<String, String> {
        let (by, root) = (By { who: &view.caller.principal, door }, RunId::known(&question.root));
        let running = &self.ground.running;
        if !running.has_room(&question.principal) {
            return Err("too many runs are under way; answer when some have ended".into());
        }
        let done = self.ground.host.answer(&question.id, answer, by, Then::Leave).await.map_err(|e| e.to_string())?;
        self.go_on(view, &root, &question.principal, &done);
        Ok(match done {
            Done::Settled => "answered; the call goes on, or is made again".into(),
            _ => format!("answered; {} goes on", question.run),
        })
    }

    /// Has a tree that nobody works on worked on.
    pub(super) fn go_on(&self, view: &View, root: &RunId, principal: &str, done: &Done) {
        if matches!(done, Done::Stored) {
            let (host, id) = (self.ground.host.clone(), root.clone());
            let work = async move { host.resume(&id, CancellationToken::new()).await };
            drop(self.ground.running.begin(&view.guard.servers.tasks, root, principal.into(), work));
        }
    }

    /// `pleach__answer`: answers, or lists what is asked.
    pub(super) async fn answer(&self, view: &View, arguments: &Json) -> Json {
        let text = |key: &str| arguments.get(key).and_then(Json::as_str);
        let Some(id) = text("id") else { return self.list(view).await };
        let missing =
            || error_result(&format!("no question of yours is named {id}; pleach__answer without id lists them"));
        let found = match self.ground.store.question(id).await {
            Ok(found) => found,
            Err(e) => return error_result(&e.to_string()),
        };
        // A stranger's and one that never was look the same.
        let Some(row) = found.filter(|r| self.can_approve || r.question.principal == *view.caller.principal) else {
            return missing();
        };
        if let Some((by, _)) = row.closed {
            return error_result(&format!("question {id} {}", approval::over(&by)));
        }
        if !self.may_answer(view, &row.question) {
            return error_result(&operator(&row.question));
        }
        let note = text("note").map(str::to_owned);
        let answer = match (text("verdict"), arguments.get("input")) {
            (Some("allow"), None) => Answer::Allow { note, always: None },
            (Some("deny"), None) => Answer::Deny { note },
            (None, Some(input)) => Answer::Input { value: input.to_serde(), note },
            _ => return error_result("give verdict (allow or deny) or input, and not both"),
        };
        match self.say(view, &row.question, answer, ANSWER).await {
            Ok(text) => result(text, None),
            Err(why) => error_result(&why),
        }
    }

    /// `pleach__answer`, called by a run: Pleach is among its servers, with whatever token they gave
    /// it. It may be a run that asks, or one of the same tree; none of them is who was asked.
    pub(super) async fn no_run_answers(&self, view: &View, arguments: &Json) -> Json {
        let Some(id) = arguments.get("id").and_then(Json::as_str) else { return self.list(view).await };
        let why = "an answer is given by a person or by a client, never by a run, whoever's token it has";
        let denial = Denial::plain(why, "wait until it is answered, or do without it");
        view.guard.refuse_answer(&view.caller, id, &denial).await;
        error_result(&denial.for_model())
    }

    async fn list(&self, view: &View) -> Json {
        let principal = (!self.can_approve).then(|| view.caller.principal.to_string());
        let filter = QuestionFilter { principal, limit: Some(LISTED + 1), ..QuestionFilter::default() };
        match self.ground.store.open_questions(&filter).await {
            Ok(open) if open.is_empty() => result("no run of yours asks anything".into(), None),
            Ok(mut open) => {
                let more = open.len() > LISTED as usize;
                open.truncate(LISTED as usize);
                let mut lines: Vec<String> = open.iter().map(|q| self.how(view, q)).collect();
                lines.extend(more.then(|| format!("more is asked than these {LISTED}, the oldest")));
                let questions: Vec<Json> = open.iter().map(listed).collect();
                result(lines.join("\n"), Some(Json::object([("questions", questions.into())])))
            }
            Err(e) => error_result(&e.to_string()),
        }
    }

    /// The answer of a call whose run waits: for what, and how it is answered.
    pub(super) async fn waits(&self, view: &View, run: &RunId, why: &str) -> Json {
        let open = self.asked(run).await;
        let mut lines = vec![format!("the run {run} waits; it goes on when it is answered")];
        lines.extend(open.iter().map(|q| self.how(view, q)));
        if open.is_empty() {
            lines.push(why.to_owned());
        }
        let questions: Vec<Json> = open.iter().map(listed).collect();
        let structured = [("run", run.as_str().into()), ("state", "waiting".into()), ("questions", questions.into())];
        let mut out = result(lines.join("\n"), Some(Json::object(structured)));
        if let Some(out) = out.as_object_mut() {
            out.set("_meta", Json::object([("pleach/run", run.as_str().into())]));
        }
        out
    }

    /// A question, and how this client answers it.
    fn how(&self, view: &View, question: &Question) -> String {
        let Question { id, text, .. } = question;
        let how = match (self.may_answer(view, question), question.kind.as_str()) {
            (false, _) => operator(question),
            (true, APPROVAL) => {
                format!(
                    "pleach__answer {{\"id\": \"{id}\", \"verdict\": \"allow\" or \"deny\"}}, or \"input\": the arguments it is to have"
                )
            }
            (true, _) => format!("pleach__answer {{\"id\": \"{id}\", \"input\": …}}"),
        };
        let text = shown::text(text, "");
        format!("{id}: {text}{}\n  {how}", about(question))
    }

    /// `inputRequests` of a task: what this client may answer.
    pub(super) fn requests(&self, view: &View, open: &[Question]) -> Object {
        let own = open.iter().filter(|q| self.may_answer(view, q));
        own.map(|q| {
            let params = form(q).into();
            (q.id.clone(), Json::object([("method", "elicitation/create".into()), ("params", params)]))
        })
        .collect()
    }

    /// `inputResponses` of `tasks/update`.
    pub(super) async fn respond(&self, view: &View, root: &RunId, responses: &Object) -> Result<(), String> {
        let open = self.asked(root).await;
        for (id, said) in responses.iter() {
            if self.ground.sampling.answer(root, id, said) {
                continue;
            }
            let question = open.iter().find(|q| q.id == id && self.may_answer(view, q));
            // Answered already, or never asked: not of interest any more.
            let Some(question) = question else { continue };
            if let Some(answer) = answer_of(question, said) {
                self.say(view, question, answer, ELICITED).await?;
            }
        }
        Ok(())
    }
}

pub(in crate::mcp) fn can_elicit(party: &dyn Party) -> bool {
    let capabilities = party.capabilities();
    Abilities::of(&capabilities).elicits(false) && capabilities.get("elicitation").is_some()
}

fn operator(question: &Question) -> String {
    let who = match question.run.is_empty() {
        true => "an approval of your own call is given by a person, not by this tool",
        false => "an approval is given by a client with can_approve",
    };
    format!("{who}, or by the operator: pleach answer {} allow", question.id)
}

/// What a person needs to see of it before its arguments, and these.
fn about(question: &Question) -> String {
    let effects: String = shown::effects(question).iter().map(|effect| format!("\n{effect}")).collect();
    let arguments = shown::arguments(question).map(|a| format!("\nwith {a}")).unwrap_or_default();
    format!("{effects}\n({}){arguments}", shown::chain(question))
}

fn listed(question: &Question) -> Json {
    let mut out = Object::new();
    for (key, value) in
        [("id", &question.id), ("run", &question.run), ("kind", &question.kind), ("text", &question.text)]
    {
        out.set(key, value.as_str());
    }
    let mut detail = Json::from(question.detail.clone());
    if let Some(detail) = detail.as_object_mut() {
        // Where a rule stands in the file is for the operator.
        detail.remove("rule");
    }
    out.set("detail", detail);
    out.into()
}

/// What can be allowed from now on besides the call in question.
fn scopes(question: &Question) -> Vec<(&'static str, Of)> {
    let all = [("tool", Of::Tool), ("path", Of::Path), ("run", Of::Run)];
    let makes = |of| approval::rule(question, &Always { of, within: None }, "", 0).is_ok();
    all.into_iter().filter(|(_, of)| makes(*of)).collect()
}

/// A question as an elicitation by form (MCP 2025-11-25, elicitation: flat schemas only).
pub(in crate::mcp) fn form(question: &Question) -> Object {
    let of = |kind: &str, title: &str| Json::object([("type", kind.into()), ("title", title.into())]);
    let (properties, required) = if question.kind == APPROVAL {
        let mut properties = Object::new();
        properties.set("allow", of("boolean", "Allow it, this once"));
        let scopes = scopes(question);
        if !scopes.is_empty() {
            let mut always = of("string", "And from now on, until it is revoked: all of these calls");
            if let Some(always) = always.as_object_mut() {
                always.set("enum", scopes.into_iter().map(|(word, _)| word.into()).collect::<Vec<Json>>());
            }
            properties.set("always", always);
        }
        properties.set("note", of("string", "A word to the agent"));
        (properties.into(), "allow")
    } else {
        let mut answer = of("string", "The answer");
        let options = question.detail.get("options").and_then(serde_json::Value::as_array);
        if let (Some(options), Some(answer)) = (options, answer.as_object_mut()) {
            answer.set("enum", options.iter().map(|o| Json::from(o.clone())).collect::<Vec<Json>>());
        }
        (Json::object([("answer", answer)]), "answer")
    };
    let schema = Json::object([
        ("type", "object".into()),
        ("properties", properties),
        ("required", vec![Json::from(required)].into()),
    ]);
    let schema_wanted = question.detail.get("schema").filter(|s| !s.is_null());
    let wanted =
        schema_wanted.map(|s| format!("\n(as JSON that fits {})", visible(&s.to_string()))).unwrap_or_default();
    let mut params = Object::new();
    params.set("mode", "form");
    let text = shown::text(&question.text, "");
    params.set("message", format!("{text}{}{wanted}", about(question)));
    params.set("requestedSchema", schema);
    params
}

/// What the person said; `None` when they put it off.
pub(in crate::mcp) fn answer_of(question: &Question, said: &Json) -> Option<Answer> {
    let content = said.get("content");
    let field = |key: &str| content.and_then(|c| c.get(key));
    let note = field("note").and_then(Json::as_str).map(str::to_owned);
    match (said.get("action").and_then(Json::as_str)?, question.kind.as_str()) {
        ("decline", _) => Some(Answer::Deny { note }),
        ("accept", APPROVAL) => match field("allow").and_then(Json::as_bool)? {
            true => {
                let word = field("always").and_then(Json::as_str);
                let of = scopes(question).into_iter().find(|(name, _)| Some(*name) == word).map(|(_, of)| of);
                Some(Answer::Allow { note, always: of.map(|of| Always { of, within: None }) })
            }
            false => Some(Answer::Deny { note }),
        },
        ("accept", _) => {
            let value = field("answer")?.to_serde();
            let has_schema = question.detail.get("schema").is_some_and(|s| !s.is_null());
            let read = value.as_str().filter(|_| has_schema).and_then(|text| serde_json::from_str(text).ok());
            Some(Answer::Input { value: read.unwrap_or(value), note })
        }
        _ => None,
    }
}
