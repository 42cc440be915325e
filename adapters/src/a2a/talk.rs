//! One call of a skill: what is said for it, followed to where its task stands still.

use super::passage::{How, Passage, Until};
use super::tale::Tale;
use super::wire::{Saying, Wire};
use super::{Request, mine};
use crate::mcp::{McpError, Party, meta};
use policies::json::{Json, Object};
use std::sync::Arc;
use tokio::sync::watch;

/// Of what a peer says of its progress so many characters are told on.
const MAX_PROGRESS: usize = 2_000;

pub(super) struct Talk {
    pub(super) wire: Wire,
    /// Whether the peer says that it streams.
    pub(super) streaming: bool,
    pub(super) party: Option<Arc<dyn Party>>,
    /// Progress is reported under it.
    pub(super) number: u64,
    /// The task, as soon as it has a name.
    pub(super) known: watch::Sender<Option<String>>,
}

impl Talk {
    /// Sends the message and follows its task; one that was said before is not said again.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(super) async fn run(&self, request: &Request) -> Result<Tale, McpError> {
        let wire = self.wire.clone();
        let mut passage = match (&request.task, request.said) {
            (Some(task), true) => Passage::take_up(wire, self.streaming, task, Until::Turn).await?,
            _ => Passage::say(wire, self.streaming, &saying(request), How::Followed).await?,
        };
        while passage.next().await?.is_some() {
            self.tell(&passage);
        }
        Ok(passage.into_tale())
    }

    /// Tells whoever can hear it how it goes.
    fn tell(&self, passage: &Passage) {
        let tale = passage.tale();
        self.known.send_if_modified(|known| {
            let new = *known != tale.task;
            if new {
                known.clone_from(&tale.task);
            }
            new
        });
        let Some(party) = self.party.as_ref().filter(|party| party.wants_progress()) else { return };
        let mut params = Object::new();
        params.set(meta::PROGRESS_TOKEN, self.number);
        params.set("progress", passage.heard());
        let said = tale.said.as_ref().map(super::told::text).filter(|said| !said.is_empty());
        let said = said.unwrap_or_else(|| tale.state.word().to_owned());
        params.set("message", said.chars().take(MAX_PROGRESS).collect::<String>());
        party.notify("notifications/progress", params);
    }
}

fn saying(request: &Request) -> Saying {
    let mut parts = vec![Json::object([("text", request.text.as_str().into())])];
    parts.extend(request.data.clone().map(|data| Json::object([("data", data)])));
    let mut message = Object::new();
    message.set("messageId", request.key.clone().unwrap_or_else(mine::new_id));
    message.set("role", "ROLE_USER");
    message.set("parts", parts);
    if let Some(task) = &request.task {
        message.set("taskId", task.as_str());
    }
    if let Some(context) = &request.context {
        message.set("contextId", context.as_str());
    }
    // A card lists skills, and a message has no place for one.
    message.set("metadata", Json::object([("skillId", request.skill.as_str().into())]));
    let (task, context) = (request.task.clone(), request.context.clone());
    Saying { message, configuration: Object::new(), task, context, gives: request.gives.clone() }
}
