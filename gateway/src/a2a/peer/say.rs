//! A message for a peer.
//!
//! ```text
//!  taskId? ─▶ whose? ─▶ skill ─▶ decided ─▶ noted ─▶ passed on ─▶ the peer names a task ─▶ noted ─▶ followed
//!                                  │ denied  └ known: answered: that task, nothing is said
//!                                  ▼                  not answered: said again under the same name
//!                                nothing is noted
//! ```
//!
//! What is noted before the message leaves survives whatever happens then: whoever says it again
//! with the same `messageId` is told of the same task.

use super::super::fault::{Fault, Kind};
use super::super::ops::Asked;
use super::judge::judged;
use super::names::{Names, REPLIED};
use super::told::{Following, Told};
use super::{Passing, fault, is_of, json_of, skill_of};
use crate::guard::passed::arguments;
use adapters::a2a::{How, Passage, Passed, scoped};
use adapters::mcp::McpError;
use adapters::store::{Between, PeerContext, PeerMessage, PeerNews, PeerSaid, PeerTask, Store, clock};
use policies::action::Call;
use policies::json::{Json, Object, digest};
use policies::manifest::Tool;
use policies::permit::Permit;
use serde_json::{Value, json};
use std::sync::Arc;
use subagents::run::RunId;
use tokio::sync::oneshot;

/// Within this time the same message of the same name is the same, milliseconds.
const REPEATED: u64 = 10 * 60 * 1_000;

/// A message as it came.
struct Message {
    id: String,
    task: Option<String>,
    context: Option<String>,
    skill: Option<String>,
    references: Vec<String>,
    /// What rules are asked about: its words, and its data where it is one.
    text: String,
    data: Option<Json>,
}

/// What became of a message.
enum Said {
    /// A task that is followed.
    Followed(Box<Passage>, Names, Vec<Arc<Tool>>),
    /// It was said before, and the peer had replied with this.
    Replied(Value),
}

/// `SendMessage`
pub(super) async fn send(passing: Passing) -> Result<Value, Fault> {
    let history = passing.asked.history()?;
    let at_once = passing.asked.params.pointer("/configuration/returnImmediately") == Some(&Value::Bool(true));
    let _place = passing.asked.door.watching(&passing.asked.who)?;
    let how = if at_once { How::AtOnce } else { How::Followed };
    let (mut passage, names, tools) = match say(&passing, how).await? {
        Said::Followed(passage, names, tools) => (passage, names, tools),
        Said::Replied(message) => return Ok(json!({ "message": message })),
    };
    if at_once {
        let first = passage.next().await;
        let first = first.map_err(|e| super::broke((&passing.asked.door, &passing.peer), e, &names, &passage))?;
        let first = names.outward(first.map(|first| first.to_serde()).unwrap_or_default());
        return Ok(one_of(first));
    }
    let Passing { asked, of, .. } = passing;
    let following = Following { asked, of, names, tools };
    following.follow(&mut passage, None).await?;
    let whole = passage.whole(history.map(|n| n as u64)).await;
    Ok(one_of(following.names.outward(whole.to_serde())))
}

/// The task or the message of an answer, and nothing else.
fn one_of(mut answer: Value) -> Value {
    match answer.get_mut("message") {
        Some(message) => json!({ "message": message.take() }),
        None => json!({ "task": answer["task"].take() }),
    }
}

/// `SendStreamingMessage`
pub(super) async fn stream(passing: Passing) -> Result<Told, Fault> {
    let place = passing.asked.door.watching(&passing.asked.who)?;
    match say(&passing, How::Followed).await? {
        Said::Followed(passage, names, tools) => {
            let Passing { asked, of, .. } = passing;
            Ok(Told::new(asked, of, (names, tools), *passage, place))
        }
        Said::Replied(message) => Ok(Told::one(json!({ "message": message }), place)),
    }
}

async fn say(passing: &Passing, how: How) -> Result<Said, Fault> {
    let asked = &passing.asked;
    no_push(asked)?;
    let message = Message::read(&asked.params)?;
    let name = asked.key.as_ref().unwrap_or(&message.id);
    // One after another of one name: the second finds what the first did.
    let _lane = asked.door.0.lanes.turn(asked.who.principal(), name).await;
    let row = match &message.task {
        None => begun(passing, &message).await?,
        Some(task) => {
            let row = passing.own(task).await?;
            if message.context.as_ref().is_some_and(|context| *context != row.context) {
                return Err(Fault::field("message.contextId", "it is not that of the task"));
            }
            row
        }
    };
    let tools = passing.tools(&row.skill)?;
    may_answer(passing, &row).await?;
    let said = digest(&Json::from(&asked.params["message"]).to_canonical());
    let known = match &asked.key {
        Some(key) => format!("key {key}"),
        None => format!("{} {said}", message.id),
    };
    let begins = message.task.is_none().then(|| (row.skill.clone(), row.context.clone()));
    // A message with a grant is the same one as long as its name is kept.
    let renewed = (asked.key.is_none() && !asked.is_granted()).then(|| clock().saturating_sub(REPEATED));
    let (store, of) = (asked.door.0.store.clone(), passing.of.clone());
    let noted = PeerMessage { known: known.clone(), said, id: row.id.clone(), renewed, begins };
    // What was answered does not leave again, so nobody is asked about it again.
    if let Some(PeerSaid::Before(id, true)) = store.peer_said(&of, &noted).await? {
        return before(passing, passing.own(&id).await?, tools).await;
    }
    let outgoing = outgoing(passing, &message, &row).await?;
    let arguments = arguments(message.text.clone(), message.data.clone(), outgoing);
    let permit = judged(passing, &tools, arguments).await?;
    let mut row = row;
    match store.peer_say(&of, noted).await? {
        PeerSaid::Fresh => {}
        PeerSaid::Other => {
            let why = "another message came with this Idempotency-Key before; each has one of its own";
            return Err(Fault::new(Kind::InvalidParams, why));
        }
        PeerSaid::Before(id, answered) => {
            row = passing.own(&id).await?;
            if answered {
                return before(passing, row, tools).await;
            }
        }
    }
    let names = passing.names(&row);
    let leaving = Leaving { store, of, names: names.clone(), known };
    let theirs = (row.task.as_deref(), None);
    let said = leaving.say(asked, permit, how).await;
    let passage = said.map_err(|e| fault(&passing.peer, e, Some((&names, theirs))))?;
    Ok(Said::Followed(Box::new(passage), names, tools))
}

/// Nobody is to wait for notifications that never come.
fn no_push(asked: &Asked) -> Result<(), Fault> {
    let wanted = ["taskPushNotificationConfig", "pushNotificationConfig"]
        .iter()
        .any(|key| asked.params.pointer(&format!("/configuration/{key}")).is_some_and(|config| !config.is_null()));
    let why = "push notifications of a peer are not passed on; send without a configuration of them";
    if wanted { Err(Fault::new(Kind::PushNotificationNotSupported, why)) } else { Ok(()) }
}

/// What a message will begin.
async fn begun(passing: &Passing, message: &Message) -> Result<PeerTask, Fault> {
    let store = &passing.asked.door.0.store;
    let context = match &message.context {
        Some(context) => store.peer_context(&passing.of, context).await?,
        None => None,
    };
    let skill = chosen(passing, message, context.as_ref())?;
    let fresh = || RunId::fresh().map(|id| id.as_str().trim_start_matches("r-").to_owned()).map_err(Fault::failed);
    let id = format!("p-{}", fresh()?);
    let context = match &message.context {
        Some(context) => context.clone(),
        None => format!("c-{}", fresh()?),
    };
    let state = "TASK_STATE_SUBMITTED".to_owned();
    Ok(PeerTask { id, skill, task: None, context, state, status: None, asked: None, changed: 0 })
}

/// The skill a message is for: the one it names, the only one there is for whoever asks, or none in
/// particular. A conversation stays with its skill.
fn chosen(passing: &Passing, message: &Message, context: Option<&PeerContext>) -> Result<String, Fault> {
    let named = match (&message.skill, &passing.skills[..]) {
        (Some(named), skills) => {
            let found = skills.iter().find(|tool| is_of(tool, named)).map(|tool| skill_of(tool).to_owned());
            let known: Vec<&str> = skills.iter().map(|tool| skill_of(tool)).collect();
            let why = format!("metadata.skillId: you may use no skill {named:?}; yours are: {}", known.join(", "));
            Some(found.ok_or_else(|| Fault::field("message.metadata", why))?)
        }
        (None, [only]) => Some(skill_of(only).to_owned()),
        (None, _) => None,
    };
    match (named, context) {
        (Some(named), Some(context)) if named != context.skill => {
            let why = format!("the conversation is with skill {:?}; leave contextId out to begin one", context.skill);
            Err(Fault::field("message.contextId", why))
        }
        (Some(named), _) => Ok(named),
        (None, Some(context)) => Ok(context.skill.clone()),
        (None, None) => Ok(String::new()),
    }
}

/// A permission is given by whoever may approve, and by no other.
async fn may_answer(passing: &Passing, row: &PeerTask) -> Result<(), Fault> {
    if passing.asked.who.can_approve || row.task.is_none() {
        return Ok(());
    }
    let now = passing.look("GetTask", row, Some(0)).await?;
    if now.pointer("/status/state").and_then(Value::as_str) == Some("TASK_STATE_AUTH_REQUIRED") {
        let why = "the task waits for somebody who may approve it; you may not";
        return Err(Fault::new(Kind::UnsupportedOperation, why));
    }
    Ok(())
}

/// The message as it goes to the peer: in its names, and under one that is this client's only.
async fn outgoing(passing: &Passing, message: &Message, row: &PeerTask) -> Result<Json, Fault> {
    let (asked, of) = (&passing.asked, &passing.of);
    let store = &asked.door.0.store;
    let mut out = asked.params["message"].clone();
    let theirs = match store.peer_context(of, &row.context).await? {
        Some(context) => context.context,
        None => None,
    };
    let mut references = Vec::new();
    for id in &message.references {
        references.extend(passing.own(id).await?.task);
    }
    if let Some(out) = out.as_object_mut() {
        for (key, id) in [("taskId", row.task.clone()), ("contextId", theirs)] {
            match id {
                Some(id) => drop(out.insert(key.into(), id.into())),
                None => drop(out.remove(key)),
            }
        }
        out.remove("referenceTaskIds");
        if !references.is_empty() {
            out.insert("referenceTaskIds".into(), references.into());
        }
        out.insert("messageId".into(), scoped(&of.principal, &of.peer, &message.id).into());
        if !row.skill.is_empty() {
            let metadata = out.entry("metadata").or_insert_with(|| json!({}));
            if metadata.is_null() {
                *metadata = json!({});
            }
            metadata["skillId"] = row.skill.as_str().into();
        }
    }
    let mut configuration = Object::new();
    for key in ["acceptedOutputModes", "historyLength"] {
        if let Some(value) = asked.params.pointer(&format!("/configuration/{key}")).filter(|value| !value.is_null()) {
            configuration.set(key, json_of(value));
        }
    }
    Ok(Json::object([("message", json_of(&out)), ("configuration", configuration.into())]))
}

/// A message the peer answered already: its task as it goes on.
async fn before(passing: &Passing, row: PeerTask, tools: Vec<Arc<Tool>>) -> Result<Said, Fault> {
    if row.state == REPLIED {
        let reply = row.status.as_deref().and_then(|text| serde_json::from_str(text).ok());
        return Ok(Said::Replied(reply.unwrap_or_default()));
    }
    let mut more = Object::new();
    more.set("until", "turn");
    let Passed::Passage(passage) = passing.pass("SubscribeToTask", &row, more).await? else {
        return Err(Fault::new(Kind::Internal, "the peer told a task at once"));
    };
    Ok(Said::Followed(passage, passing.names(&row), tools))
}

/// A message that is about to leave.
struct Leaving {
    store: Store,
    of: Between,
    names: Names,
    known: String,
}

impl Leaving {
    /// Passes it on, on its own: whoever asked may be gone before the peer names its task.
    async fn say(self, asked: &Asked, permit: Permit<Call>, how: How) -> Result<Passage, McpError> {
        let (guard, caller) = (asked.door.0.guard.clone(), asked.who.caller.clone());
        let (tell, told) = oneshot::channel();
        asked.door.0.tasks.spawn(async move {
            let said = guard.say(&caller, permit, how).await;
            let said = self.noted(said).await;
            let _ = tell.send(said);
        });
        told.await.unwrap_or(Err(McpError::Cancelled))
    }

    /// What is known of it from the first.
    fn news(&self, passage: &Passage) -> PeerNews {
        let first = passage.first().map(|first| self.names.outward(first.to_serde())).unwrap_or_default();
        let theirs = (passage.task(), passage.context());
        self.names.news(&first, Some(theirs)).unwrap_or_else(|| PeerNews {
            task: theirs.0.map(str::to_owned),
            context: theirs.1.map(str::to_owned),
            ..self.names.nothing()
        })
    }

    async fn noted(&self, said: Result<Passage, McpError>) -> Result<Passage, McpError> {
        // It said no, or heard nothing: it may be said again.
        let nothing = matches!(said, Err(McpError::Rpc(_) | McpError::Unreachable(_) | McpError::Unauthorized(_)));
        let news = said.as_ref().ok().map(|passage| self.news(passage));
        let kept = match news {
            Some(news) => self.store.peer_heard(&self.of, news, Some(self.known.clone())).await,
            None if nothing => self.store.peer_unsaid(&self.of, self.known.clone()).await,
            None => Ok(()),
        };
        kept.map_err(|e| McpError::Gone(format!("; what it gave cannot be kept: {e}")))?;
        said
    }
}

impl Message {
    fn read(params: &Value) -> Result<Self, Fault> {
        let message = params.get("message").filter(|m| m.is_object());
        let message = message.ok_or_else(|| Fault::field("message", "it is missing"))?;
        let id = super::super::parts::name(message, "messageId", "message.messageId")?;
        let id = id.ok_or_else(|| Fault::field("message.messageId", "it is missing"))?;
        if message.get("role").and_then(Value::as_str) != Some("ROLE_USER") {
            return Err(Fault::field("message.role", "it is ROLE_USER for what you say"));
        }
        let parts = message.get("parts").and_then(Value::as_array).filter(|parts| !parts.is_empty());
        let parts = parts.ok_or_else(|| Fault::field("message.parts", "there is at least one part"))?;
        if let Some(metadata) = message.get("metadata")
            && !(metadata.is_object() || metadata.is_null())
        {
            return Err(Fault::field("message.metadata", "it is an object"));
        }
        let (mut texts, mut data) = (Vec::new(), Vec::new());
        for part in parts {
            let known =
                ["text", "raw", "url", "data"].into_iter().filter(|key| part.get(key).is_some_and(|v| !v.is_null()));
            if known.count() != 1 {
                return Err(Fault::field("message.parts", "a part has one of text, raw, url and data"));
            }
            match part.get("text").and_then(Value::as_str) {
                Some(text) => texts.push(text),
                None => data.extend(part.get("data").filter(|data| !data.is_null()).map(json_of)),
            }
        }
        let data = if data.len() > 1 { Some(Json::from(data)) } else { data.pop() };
        let references = message.get("referenceTaskIds").and_then(Value::as_array);
        let references = references.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Self {
            id,
            task: super::super::parts::name(message, "taskId", "message.taskId")?,
            context: super::super::parts::name(message, "contextId", "message.contextId")?,
            skill: message.pointer("/metadata/skillId").and_then(Value::as_str).map(str::to_owned),
            references,
            text: texts.join("\n"),
            data,
        })
    }
}
