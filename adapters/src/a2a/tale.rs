//! A task as far as it was heard of: what a peer said last of it, and what it made.

use super::card::AUTHORITY;
use crate::mcp::McpError;
use policies::json::{Json, Object};

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    /// It goes on, as far as is known.
    #[default]
    Working,
    /// It waits for an answer.
    InputRequired,
    /// It waits for a permission or a credential.
    AuthRequired,
    Completed,
    Failed,
    Canceled,
    Rejected,
}

impl State {
    /// What a peer writes.
    pub(super) fn of(word: &str) -> Self {
        match word {
            "TASK_STATE_INPUT_REQUIRED" => State::InputRequired,
            "TASK_STATE_AUTH_REQUIRED" => State::AuthRequired,
            "TASK_STATE_COMPLETED" => State::Completed,
            "TASK_STATE_FAILED" => State::Failed,
            "TASK_STATE_CANCELED" => State::Canceled,
            "TASK_STATE_REJECTED" => State::Rejected,
            _ => State::Working,
        }
    }
    /// For people and models.
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Working => "working",
            State::InputRequired => "input-required",
            State::AuthRequired => "auth-required",
            State::Completed => "completed",
            State::Failed => "failed",
            State::Canceled => "canceled",
            State::Rejected => "rejected",
        }
    }
    /// Whether somebody else has to do something.
    pub(super) fn is_paused(self) -> bool {
        matches!(self, State::InputRequired | State::AuthRequired)
    }
}

#[derive(Debug)]
pub(super) struct Tale {
    pub(super) task: Option<String>,
    pub(super) context: Option<String>,
    pub(super) state: State,
    /// Its status, as the peer wrote it.
    pub(super) status: Json,
    /// The message of its status.
    pub(super) said: Option<Json>,
    pub(super) artifacts: Vec<Object>,
    /// The reply, where there is no task.
    pub(super) message: Option<Json>,
    /// What it used, as its gateway says.
    pub(super) used: Option<Json>,
}

impl Default for Tale {
    fn default() -> Self {
        let (task, context, said, message) = (None, None, None, None);
        let (state, status, artifacts, used) = (State::default(), Json::Null, Vec::new(), None);
        Self { task, context, state, status, said, artifacts, message, used }
    }
}

impl Tale {
    /// Whether nothing more comes by itself.
    pub(super) fn is_settled(&self) -> bool {
        self.message.is_some() || self.state != State::Working
    }
    /// Whether it cannot go on.
    pub(super) fn is_over(&self) -> bool {
        self.is_settled() && !self.state.is_paused()
    }

    /// Takes what a peer says.
    ///
    /// # Errors
    /// When it speaks of another task.
    pub(super) fn take(&mut self, update: Json) -> Result<(), McpError> {
        let Json::Object(update) = update else { return Err(McpError::Protocol("an answer that is no object".into())) };
        for (key, value) in update.into_entries() {
            match key.as_str() {
                "task" => self.snapshot(value)?,
                "message" => {
                    self.is_of(&value, "taskId")?;
                    self.message = Some(value);
                }
                "statusUpdate" => {
                    self.is_of(&value, "taskId")?;
                    self.used(&value);
                    self.status(value.get("status"));
                }
                "artifactUpdate" => {
                    self.is_of(&value, "taskId")?;
                    self.artifact(value);
                }
                // Something newer than we are.
                _ => {}
            }
        }
        Ok(())
    }

    /// What is said of one task is believed of no other.
    fn is_of(&mut self, value: &Json, key: &str) -> Result<(), McpError> {
        let text = |key: &str| value.get(key).and_then(Json::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
        match (text(key), &self.task) {
            (Some(other), Some(task)) if other != *task => {
                // Whose the other is, is not known, so it is not named.
                return Err(McpError::Protocol("it speaks of another task than it was asked about".into()));
            }
            (Some(task), None) => self.task = Some(task),
            _ => {}
        }
        self.context = text("contextId").or(self.context.take());
        Ok(())
    }

    fn snapshot(&mut self, task: Json) -> Result<(), McpError> {
        self.is_of(&task, "id")?;
        if self.task.is_none() {
            return Err(McpError::Protocol("a task without an id".into()));
        }
        self.used(&task);
        self.status(task.get("status"));
        if let Some(artifacts) = task.get("artifacts").and_then(Json::as_array) {
            self.artifacts = artifacts.iter().filter_map(Json::as_object).cloned().collect();
        }
        Ok(())
    }

    fn used(&mut self, value: &Json) {
        let metadata = value.get("metadata").and_then(|metadata| metadata.get(AUTHORITY));
        if let Some(used) = metadata.and_then(|along| along.get("used")) {
            self.used = Some(used.clone());
        }
    }

    fn status(&mut self, status: Option<&Json>) {
        let Some(status) = status else { return };
        if let Some(state) = status.get("state").and_then(Json::as_str) {
            self.state = State::of(state);
        }
        self.said = status.get("message").filter(|m| **m != Json::Null).cloned();
        self.status = status.clone();
    }

    fn artifact(&mut self, update: Json) {
        let append = update.get("append").and_then(Json::as_bool) == Some(true);
        let Some(Json::Object(artifact)) = update.get("artifact") else { return };
        let id = artifact.get("artifactId");
        let known = self.artifacts.iter_mut().find(|known| known.get("artifactId") == id);
        match known {
            Some(known) if append => {
                let more = artifact.get("parts").and_then(Json::as_array).unwrap_or_default();
                match known.get_mut("parts").and_then(Json::as_array_mut) {
                    Some(parts) => more.iter().for_each(|part| join(parts, part)),
                    None => known.set("parts", more.to_vec()),
                }
            }
            Some(known) => *known = artifact.clone(),
            None => self.artifacts.push(artifact.clone()),
        }
    }
}

/// The parts of an artifact, however they were cut.
pub(super) fn joined(artifact: &Object) -> Vec<Json> {
    let mut parts = Vec::new();
    artifact.get("parts").and_then(Json::as_array).unwrap_or_default().iter().for_each(|part| join(&mut parts, part));
    parts
}

/// Adds a part of a chunk: text that only goes on is one text.
fn join(parts: &mut Vec<Json>, part: &Json) {
    let only_text =
        |part: &Json| part.as_object().is_some_and(|p| p.iter().all(|(k, _)| k == "text" || k == "mediaType"));
    if only_text(part)
        && let Some(text) = part.get("text").and_then(Json::as_str)
        && let Some(last) =
            parts.last_mut().filter(|last| only_text(last) && last.get("mediaType") == part.get("mediaType"))
        && let Some(Json::String(before)) = last.as_object_mut().and_then(|last| last.get_mut("text"))
    {
        before.push_str(text);
        return;
    }
    parts.push(part.clone());
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::json::Limits;

    fn parsed(text: &str) -> Json {
        Json::parse(text.as_bytes(), Limits::default()).unwrap()
    }

    #[test]
    fn chunks_make_an_artifact() {
        let mut tale = Tale::default();
        tale.take(parsed(r#"{"task":{"id":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}}"#)).unwrap();
        for (append, parts) in [
            (false, r#"[{"text":"a"}]"#),
            (true, r#"[{"text":"b"},{"data":1E2}]"#),
            (true, r#"[{"text":"c"},{"text":"d"}]"#),
        ] {
            let event = format!(
                r#"{{"artifactUpdate":{{"taskId":"t","append":{append},"artifact":{{"artifactId":"x","parts":{parts}}}}}}}"#
            );
            tale.take(parsed(&event)).unwrap();
        }
        assert_eq!(tale.artifacts[0].get("parts").unwrap().to_text(), r#"[{"text":"ab"},{"data":1E2},{"text":"cd"}]"#);
        assert!(!tale.is_settled());
        let status = |of: &str| {
            parsed(&format!(r#"{{"statusUpdate":{{"taskId":"{of}","status":{{"state":"TASK_STATE_COMPLETED"}}}}}}"#))
        };
        assert!(tale.take(status("other")).is_err());
        tale.take(status("t")).unwrap();
        assert!(tale.is_over());
    }
}
