//! A2A peers as attachments. Towards the house a peer has the face of a stateless MCP server
//! (2026-07-28): its skills are tools, its artifacts a result, its questions `input_required`.
//! So everything that holds for a server's tools holds for a peer's skills.
//!
//! ```text
//!   tools/list ─▶ card (kept as its headers say) ─▶ skills ─▶ tools
//!   tools/call ─▶ send ─▶ stream ──(breaks)──▶ subscribe ──(refused)──▶ poll
//!                          │ done                    └─ input or auth required ─▶ question
//!                          └─▶ result                       answered ─▶ the same task goes on
//! ```
//!
//! Whoever takes a call back, or does not come back for its answer in time, has the peer's task
//! cancelled. What an operator gives to be shown to a peer goes to one origin and no other.

mod card;
mod mine;
mod shelf;
mod signature;
mod tale;
mod talk;
mod told;
mod v0_3;
mod wire;

pub use signature::payload;

use crate::jwt::Keys;
use crate::mcp::{MODERN, McpError, Message, Party, RpcError, meta};
use mine::Mine;
use policies::json::{Json, Limits, Object};
use policies::resolve::Secret;
use shelf::Shelf;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use talk::Talk;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use wire::Wire;

/// One answer, card or event may have this many bytes, and all events of one call four times as many.
const MAX_BODY: usize = 16 << 20;
/// How long a peer may take to name the task that is to be cancelled, and to cancel it.
const LEAVING: Duration = Duration::from_secs(10);

/// Where a peer is, and what it is shown.
pub struct PeerTarget {
    /// The address of its card.
    pub card: url::Url,
    /// The client for the origin of its card.
    pub card_client: reqwest::Client,
    /// The address whose origin is its own.
    pub home: url::Url,
    /// The client for that origin.
    pub client: reqwest::Client,
    /// The operator's headers, for that origin.
    pub headers: BTreeMap<String, Secret>,
    /// The keys its card must be signed with, if it must.
    pub keys: Option<Keys>,
    /// Whose calls these are.
    pub principal: Arc<str>,
}

/// A peer.
pub(crate) struct Peer {
    target: Arc<PeerTarget>,
    shelf: Shelf,
    mine: Mine,
    /// Calls under way, by their numbers.
    open: Mutex<HashMap<u64, CancellationToken>>,
}

impl Peer {
    pub(crate) fn new(target: PeerTarget) -> Self {
        let target = Arc::new(target);
        let mine = Mine::new(target.principal.clone(), target.card.as_str().to_owned());
        Self { shelf: Shelf::new(target.clone()), target, mine, open: Mutex::default() }
    }

    /// Answers a request of MCP.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(crate) async fn request(
        &self,
        number: u64,
        message: &Message,
        party: Option<Arc<dyn Party>>,
    ) -> Result<Json, McpError> {
        let Message::Request { method, params, .. } = message else {
            return Err(McpError::Protocol("not a request".into()));
        };
        match method.as_str() {
            "server/discover" => {
                let (card, _) = self.shelf.fresh().await?;
                let tools = Json::object([("tools", Json::object([("listChanged", false.into())]))]);
                Ok(Json::object([
                    ("supportedVersions", vec![MODERN.into()].into()),
                    ("capabilities", tools),
                    ("serverInfo", card.about()),
                ]))
            }
            "tools/list" => {
                let (card, lasts) = self.shelf.fresh().await?;
                let mut result = Object::new();
                result.set("tools", card.tools());
                if let Some(lasts) = lasts {
                    result.set("ttlMs", u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
                }
                Ok(result.into())
            }
            "tools/call" => self.call(number, params, party).await,
            other => Err(McpError::Rpc(RpcError::new(-32601, format!("{other}: a peer has no such thing")))),
        }
    }

    /// Nobody waits for a call any more.
    pub(crate) fn abandon(&self, number: u64) {
        let open = lock(&self.open).remove(&number);
        open.inspect(CancellationToken::cancel);
    }

    /// Nobody will answer the question whose `requestState` this is.
    pub(crate) fn let_go(&self, state: &Json) {
        let (Some(wire), Some((task, _))) = (self.wire_now(), paused(state)) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move { cancel(&wire, &task).await });
    }

    fn wire_now(&self) -> Option<Wire> {
        self.shelf.known().map(|card| Wire::new(self.target.clone(), card.interface().clone()))
    }

    async fn call(&self, number: u64, params: &Object, party: Option<Arc<dyn Party>>) -> Result<Json, McpError> {
        let card = match self.shelf.known() {
            Some(card) => card,
            None => self.shelf.fresh().await?.0,
        };
        let skill = params.get("name").and_then(Json::as_str).unwrap_or_default();
        let Some(skill) = card.skill(skill) else {
            return Err(McpError::Rpc(RpcError::new(-32602, format!("the peer's card has no skill {skill} any more"))));
        };
        let wire = Wire::new(self.target.clone(), card.interface().clone());
        let request = match Request::read(skill, params)? {
            Asked::Request(request) => request,
            Asked::Declined(task) => {
                cancel(&wire, &task).await;
                return Ok(told::declined(&task));
            }
        };
        // A state was sealed for whoever brings it back; what an argument says was not.
        if params.get("requestState").is_none()
            && let Err(why) = self.mine.may_go_on(&request.skill, request.task.as_deref(), request.context.as_deref())
        {
            return Ok(told::refused(&RpcError::new(-32602, why)));
        }
        let skill = request.skill.clone();
        let can_ask = can_ask(params);
        let (known, mut named) = watch::channel(request.task.clone());
        let taken_back = CancellationToken::new();
        lock(&self.open).insert(number, taken_back.clone());
        let (tell, told) = oneshot::channel();
        let talk = Talk { wire, streaming: card.streaming, party, number, known };
        // On its own: it has to be cancelled over there when nobody waits here any more.
        tokio::spawn(async move {
            let outcome = {
                let going = talk.run(&request);
                tokio::pin!(going);
                tokio::select! {
                    outcome = &mut going => Some(outcome),
                    () = taken_back.cancelled() => {
                        // It may be about to say which task it is.
                        let both = async {
                            tokio::select! {
                                outcome = &mut going => Some(outcome),
                                _ = named.wait_for(Option::is_some) => None,
                            }
                        };
                        tokio::time::timeout(LEAVING, both).await.unwrap_or(None)
                    }
                }
            };
            let left = match outcome {
                Some(outcome) if !taken_back.is_cancelled() => {
                    // Whoever is told that it failed may begin another one.
                    let failed = outcome.is_err() && request.task.is_none();
                    match tell.send(outcome) {
                        Ok(()) => failed,
                        Err(outcome) => !outcome.is_ok_and(|tale| tale.is_over()),
                    }
                }
                Some(Ok(tale)) => !tale.is_over(),
                _ => true,
            };
            let task = talk.known.borrow().clone().filter(|_| left);
            if let Some(task) = task {
                cancel(&talk.wire, &task).await;
            }
        });
        let outcome = told.await.unwrap_or(Err(McpError::Cancelled));
        lock(&self.open).remove(&number);
        match outcome {
            Ok(tale) => {
                self.mine.note(&skill, &tale);
                if let Some(task) = tale.task.as_deref().filter(|_| told::is_hopeless(&tale, can_ask))
                    && let Some(wire) = self.wire_now()
                {
                    cancel(&wire, task).await;
                }
                Ok(told::result(&tale, can_ask))
            }
            // What it refuses is an answer the caller can read.
            Err(McpError::Rpc(error)) => Ok(told::refused(&error)),
            Err(e) => Err(e),
        }
    }
}

/// Cancels a task over there; nobody is told whether that worked.
async fn cancel(wire: &Wire, task: &str) {
    match tokio::time::timeout(LEAVING, wire.cancel(task)).await {
        Ok(Ok(_)) => {}
        Ok(Err(e)) => tracing::debug!("task {task} at {} is not cancelled: {e}", wire.origin()),
        Err(_) => tracing::debug!("task {task} at {} is not cancelled in time", wire.origin()),
    }
}

/// What is to be sent.
struct Request {
    skill: String,
    /// Good for telling a repetition.
    key: Option<String>,
    text: String,
    data: Option<Json>,
    task: Option<String>,
    context: Option<String>,
}

enum Asked {
    Request(Request),
    /// A question about this task, which nobody answers.
    Declined(String),
}

impl Request {
    fn read(skill: &str, params: &Object) -> Result<Asked, McpError> {
        let invalid = |why: &str| McpError::Rpc(RpcError::new(-32602, format!("Invalid params: {why}")));
        let arguments = params.get("arguments");
        let text = |key: &str| arguments.and_then(|a| a.get(key)).and_then(Json::as_str).map(str::to_owned);
        // Models fill in what they leave out.
        let id = |key: &str| text(key).filter(|id| !id.is_empty());
        if let Some(state) = params.get("requestState") {
            let (task, context) = paused(state).ok_or_else(|| invalid("requestState is of no task"))?;
            let answer = params.get("inputResponses").and_then(|r| r.get(told::QUESTION));
            let answer = answer.ok_or_else(|| invalid("the question has no answer in inputResponses"))?;
            if answer.get("action").and_then(Json::as_str) != Some("accept") {
                return Ok(Asked::Declined(task));
            }
            let said = answer.pointer("/content/answer").and_then(Json::as_str);
            let said = said.ok_or_else(|| invalid("the answer has no text"))?.to_owned();
            let skill = skill.to_owned();
            return Ok(Asked::Request(Self { skill, key: None, text: said, data: None, task: Some(task), context }));
        }
        let key = params.get("_meta").and_then(|own| own.get(meta::IDEMPOTENCY_KEY)?.as_str()).map(str::to_owned);
        Ok(Asked::Request(Self {
            skill: skill.to_owned(),
            key,
            text: text("message").ok_or_else(|| invalid("message is not a text"))?,
            data: arguments.and_then(|a| a.get("data")).filter(|data| **data != Json::Null).cloned(),
            task: id("task"),
            context: id("context"),
        }))
    }
}

/// The task and the context of a `requestState`.
fn paused(state: &Json) -> Option<(String, Option<String>)> {
    let state = Json::parse(state.as_str()?.as_bytes(), Limits::default()).ok()?;
    let text = |key: &str| state.get(key).and_then(Json::as_str).map(str::to_owned);
    Some((text("task")?, text("context")))
}

/// Whether whoever calls takes a form.
fn can_ask(params: &Object) -> bool {
    let capabilities = params.get("_meta").and_then(|own| own.get(meta::CLIENT_CAPABILITIES));
    capabilities
        .and_then(|c| c.get("elicitation"))
        .is_some_and(|elicitation| elicitation.get("form").is_some() || elicitation.get("url").is_none())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
