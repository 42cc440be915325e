//! Our names for a peer's tasks and conversations, both ways. Artifacts and what is said are left as
//! they are.

use adapters::a2a::unscoped;
use adapters::store::{Between, PeerNews};
use policies::json::Json;
use serde_json::Value;

/// The peer's names of a task and of its conversation, as far as it said.
pub(super) type Theirs<'t> = (Option<&'t str>, Option<&'t str>);

/// The names of one task.
#[derive(Debug, Clone)]
pub(super) struct Names {
    principal: String,
    peer: String,
    /// Ours.
    task: String,
    context: String,
}

impl Names {
    pub(super) fn new(of: &Between, task: &str, context: &str) -> Self {
        let (principal, peer) = (of.principal.clone(), of.peer.clone());
        Self { principal, peer, task: task.to_owned(), context: context.to_owned() }
    }

    /// An update or an answer of the peer, in our names.
    pub(super) fn outward(&self, mut update: Value) -> Value {
        if let Some(task) = update.get_mut("task") {
            self.task(task);
        }
        if let Some(message) = update.get_mut("message") {
            self.message(message);
        }
        for key in ["statusUpdate", "artifactUpdate"] {
            let Some(event) = update.get_mut(key).filter(|event| event.is_object()) else { continue };
            event["taskId"] = self.task.as_str().into();
            event["contextId"] = self.context.as_str().into();
            self.status(event);
        }
        update
    }

    /// News of the task that tell nothing yet.
    pub(super) fn nothing(&self) -> PeerNews {
        PeerNews { id: self.task.clone(), ..PeerNews::default() }
    }

    fn task(&self, task: &mut Value) {
        if !task.is_object() {
            return;
        }
        task["id"] = self.task.as_str().into();
        task["contextId"] = self.context.as_str().into();
        self.status(task);
        for message in task.get_mut("history").and_then(Value::as_array_mut).into_iter().flatten() {
            self.message(message);
        }
    }
    fn status(&self, of: &mut Value) {
        if let Some(message) = of.pointer_mut("/status/message") {
            self.message(message);
        }
    }
    fn message(&self, message: &mut Value) {
        let Some(message) = message.as_object_mut() else { return };
        if message.contains_key("taskId") {
            message.insert("taskId".into(), self.task.as_str().into());
        }
        if message.contains_key("contextId") {
            message.insert("contextId".into(), self.context.as_str().into());
        }
        // Names of other tasks, which are nobody's here.
        message.remove("referenceTaskIds");
        let own = message.get("messageId").and_then(Value::as_str);
        let own = own.map(|id| unscoped(&self.principal, &self.peer, id).to_owned());
        if let Some(own) = own {
            message.insert("messageId".into(), own.into());
        }
    }

    /// What is to be noted of an update in our names; `theirs` are the peer's names of the task and
    /// its conversation. `None` where it tells nothing of how the task stands.
    pub(super) fn news(&self, update: &Value, theirs: Option<Theirs<'_>>) -> Option<PeerNews> {
        let status = update.pointer("/task/status").or_else(|| update.pointer("/statusUpdate/status"));
        let (task, context) = theirs.unwrap_or_default();
        let (task, context) = (task.map(str::to_owned), context.map(str::to_owned));
        let id = self.task.clone();
        if let Some(reply) = update.get("message") {
            // A word said to a task says nothing of how it stands.
            let (state, status) = match task.is_none() {
                true => (Some(REPLIED.to_owned()), Some(reply.to_string())),
                false => (None, None),
            };
            return Some(PeerNews { id, task, context, state, status });
        }
        let status = status?;
        let state = status.get("state").and_then(Value::as_str).unwrap_or("TASK_STATE_WORKING").to_owned();
        Some(PeerNews { id, task, context, state: Some(state), status: Some(Json::from(status).to_text()) })
    }

    /// What is told of something, without the peer's names of the task and its conversation.
    pub(super) fn told(&self, text: &str, (task, context): Theirs<'_>) -> String {
        let mut text = text.to_owned();
        for (theirs, ours) in [(task, &self.task), (context, &self.context)] {
            if let Some(theirs) = theirs.filter(|theirs| !theirs.is_empty()) {
                text = text.replace(theirs, ours);
            }
        }
        text
    }
    /// Our name of the task.
    pub(super) fn id(&self) -> &str {
        &self.task
    }
}

/// The state of what became no task: the peer replied with a message.
pub(super) const REPLIED: &str = "replied";

#[cfg(test)]
mod tests {
    use super::*;
    use adapters::a2a::scoped;
    use adapters::store::PeerDoor;
    use serde_json::json;

    #[test]
    fn what_goes_out_has_our_names_and_is_otherwise_as_it_was() {
        let of = Between { principal: "alice".into(), peer: "p".into(), door: PeerDoor::A2a };
        let names = Names::new(&of, "t-ours", "c-ours");
        let said = scoped("alice", "p", "m-1");
        let foreign = scoped("bob", "p", "m-1");
        let given = json!({ "task": { "id": "t", "contextId": "c", "x": 1, "status": { "state": "TASK_STATE_WORKING",
            "message": { "messageId": "q", "taskId": "t", "contextId": "c", "referenceTaskIds": ["u"], "parts": [] } },
            "history": [{ "messageId": said, "taskId": "t" }, { "messageId": foreign }],
            "artifacts": [{ "artifactId": "t", "parts": [{ "text": "t" }] }] } });
        let wanted = json!({ "task": { "id": "t-ours", "contextId": "c-ours", "x": 1, "status": {
            "state": "TASK_STATE_WORKING",
            "message": { "messageId": "q", "taskId": "t-ours", "contextId": "c-ours", "parts": [] } },
            "history": [{ "messageId": "m-1", "taskId": "t-ours" }, { "messageId": foreign }],
            "artifacts": [{ "artifactId": "t", "parts": [{ "text": "t" }] }] } });
        assert_eq!(names.outward(given), wanted);
        let event = json!({ "artifactUpdate": { "taskId": "t", "artifact": { "artifactId": "a" } } });
        let told = names.outward(event);
        assert_eq!(told["artifactUpdate"]["taskId"], "t-ours");
        assert!(names.news(&told, None).is_none());
        let news = names.news(&wanted, Some((Some("t"), Some("c")))).unwrap();
        assert_eq!((news.state.as_deref(), news.task.as_deref()), (Some("TASK_STATE_WORKING"), Some("t")));
        // A reply is all there is, unless there is a task.
        let reply = json!({ "message": { "messageId": "r", "parts": [] } });
        assert_eq!(names.news(&reply, None).unwrap().state.as_deref(), Some(REPLIED));
        assert_eq!(names.news(&reply, Some((Some("t"), None))).unwrap().state, None);
        assert_eq!(names.told("task th-1 of co-1", (Some("th-1"), Some("co-1"))), "task t-ours of c-ours");
    }
}
