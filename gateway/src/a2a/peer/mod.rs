//! Peers behind the door: `/a2a/{peer}` passes a peer on task for task, where the policy file says
//! `expose`. Its tasks and conversations have names of our own, which the store keeps, so that each
//! is its client's own and a restart changes nothing.
//!
//! ```text
//!  card ─────────────▶ the peer's, with our address and our ways to say who you are; skills you may use
//!  SendMessage ─▶ skill ─▶ guard (as a call of the skill's tool) ─▶ noted ─▶ Attachment::say ─▶ told on
//!  GetTask, CancelTask, SubscribeToTask ─▶ owner? ─▶ guard ─▶ Attachment::pass
//!  ListTasks ─▶ what the store keeps, after a look at what may have changed
//! ```

pub(super) mod card;
mod judge;
mod list;
mod names;
mod say;
mod told;

pub(super) use told::Told;

use super::Door;
use super::codec::Version;
use super::fault::{Fault, Kind};
use super::ops::{Answer, Asked, Op};
use super::updates::Many;
use crate::guard::Refused;
use crate::hosted::Who;
use adapters::a2a::{Passage, Passed, known_as, tool_name};
use adapters::mcp::McpError;
use adapters::store::{Between, PeerDoor, PeerTask};
use names::{Names, Theirs};
use policies::json::{Json, Object};
use policies::manifest::Tool;
use policies::names::Name;
use policies::resolve::{PeerSpec, Policy, Transport};
use serde_json::{Value, json};
use std::sync::Arc;

/// A peer that clients see.
pub(super) fn exposed<'p>(policy: &'p Policy, name: &str) -> Option<(&'p Name, &'p PeerSpec)> {
    let spec = policy.servers.get(name)?;
    match &spec.transport {
        Transport::Peer(peer) if peer.expose => Some((&spec.name, peer)),
        _ => None,
    }
}

/// A request to a peer.
pub(super) struct Passing {
    pub(super) asked: Asked,
    pub(super) peer: Name,
    /// Whose what it gives out is.
    pub(super) of: Between,
    /// The skills whoever asks may see.
    pub(super) skills: Vec<Arc<Tool>>,
}

/// Does it, where the agent of a request is a peer; gives the request back where it is none.
pub(super) async fn perform(op: Op, asked: Asked) -> Result<Result<Answer, Asked>, Fault> {
    let policy = asked.door.0.live.now().policy.clone();
    if policy.agents.contains_key(&asked.agent) {
        return Ok(Err(asked));
    }
    let Some((peer, spec)) = exposed(&policy, asked.agent.as_str()) else { return Ok(Err(asked)) };
    let (door, caller) = (asked.door.clone(), &asked.who.caller);
    let skills = door.0.guard.skills(caller, peer).await;
    if skills.is_empty() {
        return Err(match away(&door, &asked.who, peer) {
            Some(why) => {
                tracing::warn!(%peer, "cannot be reached: {}", why.as_deref().unwrap_or("it does not answer"));
                let why = format!("{peer} cannot be reached just now");
                Fault::new(Kind::Unavailable, why).with("retry-after", "5")
            }
            None => no_peer(peer.as_str()),
        });
    }
    let known = known_as(peer.as_str(), &spec.card);
    let of = Between { principal: asked.who.principal().to_owned(), peer: known, door: PeerDoor::A2a };
    let passing = Passing { peer: peer.clone(), of, skills, asked };
    let answer = match op {
        Op::Send => say::send(passing).await.map(Answer::One),
        Op::Stream => say::stream(passing).await.map(|told| Answer::Many(Many::Peer(Box::new(told)))),
        Op::Get => passing.task("GetTask").await.map(Answer::One),
        Op::Cancel => passing.task("CancelTask").await.map(Answer::One),
        Op::Subscribe => passing.subscribe().await.map(|told| Answer::Many(Many::Peer(Box::new(told)))),
        Op::List => list::list(&passing).await.map(Answer::One),
        Op::SetPush | Op::GetPush | Op::ListPush | Op::DeletePush => Err(Fault::new(
            Kind::PushNotificationNotSupported,
            "push notifications of a peer are not passed on; subscribe to the task",
        )),
        Op::Card => card::extended(&passing).await.map(Answer::One),
    };
    answer.map(Ok)
}

/// Why a peer's skills are not known, to whoever might use some of them.
fn away(door: &Door, who: &Who, peer: &Name) -> Option<Option<String>> {
    let guard = &door.0.guard;
    let caller = guard.servers.live.current(&who.caller).ok()?;
    let skills = format!("{peer}__");
    let may = caller.authority.grant().tools.may_cover(&skills);
    guard.servers.unlisted(&skills, &caller).filter(|_| may).map(|(_, why)| why)
}

/// The same for a peer that is none and for one whoever asks may not use.
fn no_peer(name: &str) -> Fault {
    Fault::new(Kind::NoAgent, format!("there is no agent {name:?}"))
}

/// The skill of a tool, by the peer's name.
fn skill_of(tool: &Tool) -> &str {
    let own = tool.definition.get("_meta").and_then(|own| own.get("pleach/skill")?.as_str());
    own.unwrap_or(&tool.upstream)
}

/// Whether a tool is that of a skill, by the peer's name of it or by ours.
fn is_of(tool: &Tool, skill: &str) -> bool {
    skill_of(tool) == skill
        || tool.upstream == tool_name(skill) && skill_of(tool) == tool.upstream
        || tool.name == skill
}

impl Passing {
    /// A task of whoever asks.
    ///
    /// # Errors
    /// The same for one that is absent and one of somebody else.
    async fn own(&self, id: &str) -> Result<PeerTask, Fault> {
        self.asked.door.0.store.peer_task(&self.of, id).await?.ok_or_else(|| Fault::no_task(id))
    }
    fn names(&self, row: &PeerTask) -> Names {
        Names::new(&self.of, &row.id, &row.context)
    }
    /// The tools a task is under: that of its skill, or all where none was named.
    fn tools(&self, skill: &str) -> Result<Vec<Arc<Tool>>, Fault> {
        let guard = &self.asked.door.0.guard;
        if !skill.is_empty() {
            let found = self.skills.iter().find(|tool| skill_of(tool) == skill).cloned();
            let gone = || Fault::new(Kind::Forbidden, format!("you may not use skill {skill:?} of {} now", self.peer));
            return found.map(|tool| vec![tool]).ok_or_else(gone);
        }
        let all = guard.all_skills(&self.asked.who.caller, &self.peer);
        if all.len() != self.skills.len() || guard.holds_skills(&self.asked.who.caller, &self.peer) {
            let mine: Vec<&str> = self.skills.iter().map(|tool| skill_of(tool)).collect();
            let why = format!(
                "you may use some skills of {} only: name one in metadata {{\"skillId\": …}}: {}",
                self.peer,
                mine.join(", ")
            );
            return Err(Fault::field("message.metadata", why));
        }
        Ok(self.skills.clone())
    }

    async fn named(&self) -> Result<PeerTask, Fault> {
        let id = self.asked.text("id").ok_or_else(|| Fault::field("id", "it is missing"))?;
        self.own(id).await
    }

    async fn pass(&self, method: &'static str, row: &PeerTask, more: Object) -> Result<Passed, Fault> {
        let task = row.task.as_deref().ok_or_else(|| Fault::no_task(&row.id))?;
        // That it is there is not said to whoever may not use its skill any more.
        let tools = self.tools(&row.skill).map_err(|_| Fault::no_task(&row.id))?;
        let tools: Vec<String> = tools.iter().map(|tool| tool.name.clone()).collect();
        let mut params = more;
        params.set("taskId", task);
        let guard = &self.asked.door.0.guard;
        let passed = guard.pass(&self.asked.who.caller, method, (&self.peer, &tools), params).await;
        passed.map_err(|refused| match refused {
            Refused::Unknown => Fault::no_task(&row.id),
            Refused::Denied(denial) => Fault::new(Kind::Forbidden, denial.for_model()),
            Refused::Failed(e) => fault(&self.peer, e, Some((&self.names(row), (row.task.as_deref(), None)))),
        })
    }

    /// A task as it is, or as it is after it was cancelled.
    async fn task(&self, method: &'static str) -> Result<Value, Fault> {
        let history = self.asked.history()?;
        let row = self.named().await?;
        self.look(method, &row, history).await
    }

    /// The same of a row; what is new of it is noted.
    async fn look(&self, method: &'static str, row: &PeerTask, history: Option<usize>) -> Result<Value, Fault> {
        let mut more = Object::new();
        if let Some(history) = history.filter(|_| method == "GetTask") {
            more.set("historyLength", history as u64);
        }
        let Passed::Task(task) = self.pass(method, row, more).await? else {
            return Err(Fault::new(Kind::Internal, "the peer told a task bit by bit"));
        };
        let names = self.names(row);
        let mut task = names.outward(task.to_serde());
        if let Some(news) = names.news(&task, None) {
            self.asked.door.0.store.peer_heard(&self.of, news, None).await?;
        }
        Ok(task["task"].take())
    }

    async fn subscribe(self) -> Result<Told, Fault> {
        let row = self.named().await?;
        let place = self.asked.door.watching(&self.asked.who)?;
        let mut more = Object::new();
        // In 0.3 what is final ends a stream, and a question is.
        more.set("until", if self.asked.version == Version::V0_3 { "turn" } else { "end" });
        let Passed::Passage(passage) = self.pass("SubscribeToTask", &row, more).await? else {
            return Err(Fault::new(Kind::Internal, "the peer told a task at once"));
        };
        if passage.is_over() {
            return Err(Fault::new(Kind::UnsupportedOperation, "the task has ended; get it to see how"));
        }
        let tools = self.tools(&row.skill)?;
        let names = self.names(&row);
        Ok(Told::new(self.asked, self.of, (names, tools), *passage, place))
    }
}

/// What went wrong over there, in our names; `about` is the task it is about, and the peer's names
/// of that and of its conversation.
fn fault(peer: &Name, error: McpError, about: Option<(&Names, Theirs<'_>)>) -> Fault {
    let told = |why: &str| match about {
        Some((names, theirs)) => names.told(why, theirs),
        None => why.to_owned(),
    };
    let internal = |why: String| Fault::new(Kind::Internal, format!("{peer}: {}", told(&why)));
    match error {
        McpError::Rpc(error) => {
            let kind = match error.code() {
                -32001 => match about {
                    Some((names, _)) => return Fault::no_task(names.id()),
                    None => Kind::TaskNotFound,
                },
                -32002 => Kind::TaskNotCancelable,
                -32003 => Kind::PushNotificationNotSupported,
                -32004 | -32601 => Kind::UnsupportedOperation,
                -32005 => Kind::ContentTypeNotSupported,
                -32602 => Kind::InvalidParams,
                _ => Kind::Internal,
            };
            Fault::new(kind, format!("{peer} refuses: {}", told(error.message())))
        }
        McpError::Unauthorized(why) => {
            tracing::error!(%peer, "{why}");
            Fault::new(Kind::Unavailable, format!("{peer} refuses who pleach says it is; ask the operator"))
        }
        McpError::Unreachable(why) => {
            tracing::warn!(%peer, "{why}");
            let why = format!("{peer} cannot be reached just now, and was told nothing; try again");
            Fault::new(Kind::Unavailable, why).with("retry-after", "5")
        }
        McpError::Withdrawn(why) => Fault::new(Kind::Forbidden, why),
        error @ (McpError::Gone(_) | McpError::Broken(_) | McpError::Timeout { .. }) => {
            internal(format!("{error}; whether it acted is not known: say it again with the same messageId, or list"))
        }
        other => internal(other.to_string()),
    }
}

/// What is told of what broke while it was followed.
fn broke((door, peer): (&Door, &Name), error: McpError, names: &Names, passage: &Passage) -> Fault {
    match door.0.stop.is_cancelled() {
        true => Fault::new(Kind::Unavailable, "pleach is ending; the task goes on").with("retry-after", "5"),
        false => fault(peer, error, Some((names, (passage.task(), passage.context())))),
    }
}

/// A value for the wire of a peer.
fn json_of(value: &Value) -> Json {
    Json::from(value)
}

/// An empty list of nothing, for a peer whose card has none.
fn or_empty(value: Option<&Value>) -> Value {
    value.filter(|value| value.is_array()).cloned().unwrap_or_else(|| json!([]))
}
