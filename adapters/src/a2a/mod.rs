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
//! A call that takes long becomes a task of MCP, where its client has those (`tasks`).
//!
//! Whoever takes a call back, or does not come back for its answer in time, has the peer's task
//! cancelled. What an operator gives to be shown to a peer goes to one origin and no other.

mod card;
mod mine;
mod passage;
mod proxy;
mod shelf;
mod signature;
mod tale;
mod talk;
mod tasks;
mod told;
mod v0_3;
mod wire;

pub use card::{AUTHORITY, tool_name};
pub use mine::{scoped, unscoped};
pub use passage::{How, Passage, Until};
pub use proxy::{Passed, known_as};
pub use signature::payload;
pub use wire::{along, bound};

use crate::jwt::Keys;
use crate::mcp::{Gives, MODERN, McpError, Message, Party, RpcError, TASKS, meta};
use crate::store::Store;
use crate::token::Granter;
use mine::Mine;
use policies::json::{Json, Limits, Object};
use policies::manifest::PASSED;
use policies::resolve::Secret;
use shelf::{Shelf, When};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use talk::Talk;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::Wire;

/// One answer, card or event may have this many bytes, and all events of one call four times as many.
const MAX_BODY: usize = 16 << 20;
/// How long between tries to say to a gateway what it may not have heard, at first and at last.
const FIRST_TRY: Duration = Duration::from_millis(250);
const LAST_TRY: Duration = Duration::from_secs(8);
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
    /// Who gives it grants, where it is shown some.
    pub granter: Option<Arc<Granter>>,
    /// So long one answer of it is waited for.
    pub patience: Duration,
    /// Whose calls these are.
    pub principal: Arc<str>,
    /// What it is known by where what it gave out is kept.
    pub peer: String,
    /// Where that is.
    pub store: Option<Store>,
    /// What is still to be done over there when nobody waits for it here.
    pub tasks: TaskTracker,
    /// This process ends.
    pub stop: CancellationToken,
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
        let mine = Mine::new(&target.principal, &target.peer, target.store.clone());
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
        gives: Option<Arc<Gives>>,
    ) -> Result<Json, McpError> {
        let Message::Request { method, params, .. } = message else {
            return Err(McpError::Protocol("not a request".into()));
        };
        match method.as_str() {
            "server/discover" => {
                let (card, _) = self.shelf.fresh(When::Unsaid).await?;
                self.look_after_questions();
                let capabilities = Json::object([
                    ("tools", Json::object([("listChanged", false.into())])),
                    ("extensions", Json::object([(TASKS, Json::Object(Object::new()))])),
                ]);
                Ok(Json::object([
                    ("supportedVersions", vec![MODERN.into()].into()),
                    ("capabilities", capabilities),
                    ("serverInfo", card.about()),
                ]))
            }
            "tools/list" => {
                let (card, lasts) = self.shelf.fresh(When::Unsaid).await?;
                let mut result = Object::new();
                result.set("tools", card.tools());
                if let Some(lasts) = lasts {
                    result.set("ttlMs", u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
                }
                Ok(result.into())
            }
            "tools/call" => self.call(number, params, party, gives).await,
            "tasks/get" | "tasks/update" | "tasks/cancel" => self.task(method, params).await,
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
        let (Some(wire), Some(paused)) = (self.wire_now(), paused(state)) else { return };
        if tokio::runtime::Handle::try_current().is_ok() {
            self.target.tasks.spawn(async move { cancel(&wire, &paused.task).await });
        }
    }

    fn wire_now(&self) -> Option<Wire> {
        self.shelf.known().map(|card| self.wire(&card))
    }
    fn wire(&self, card: &card::Card) -> Wire {
        Wire::new(self.target.clone(), card)
    }

    /// Tasks whose questions were put to somebody before this process began.
    fn look_after_questions(&self) {
        let (mine, target, wire) = (self.mine.clone(), self.target.clone(), self.wire_now());
        let Some(wire) = wire.filter(|_| target.store.is_some()) else { return };
        let tasks = target.tasks.clone();
        tasks.spawn(async move {
            for (task, until) in mine.waiting().await {
                let (wire, mine) = (wire.clone(), mine.clone());
                target.tasks.spawn(give_up(target.stop.clone(), wire, mine, task, until));
            }
        });
    }

    /// The card as it is to be used now, and a tool's skill on it. One that is due is asked for
    /// again, as is one that has no such skill; where that fails, the one before is good enough.
    async fn skill(&self, tool: &str) -> Result<(Arc<card::Card>, String), McpError> {
        let mut card = match (self.shelf.fresh(When::Due).await, self.shelf.known()) {
            (Ok((card, _)), _) => card,
            (Err(e), Some(card)) => {
                tracing::debug!("{e}");
                card
            }
            (Err(e), None) => return Err(e),
        };
        if card.skill(tool).is_none() {
            card = self.shelf.fresh(When::Now).await?.0;
        }
        let gone = || McpError::Rpc(RpcError::new(-32602, format!("the peer's card has no skill {tool} any more")));
        let skill = card.skill(tool).ok_or_else(gone)?.to_owned();
        Ok((card, skill))
    }

    async fn call(
        &self,
        number: u64,
        params: &Object,
        party: Option<Arc<dyn Party>>,
        gives: Option<Arc<Gives>>,
    ) -> Result<Json, McpError> {
        let name = params.get("name").and_then(Json::as_str).unwrap_or_default();
        let (card, skill) = self.skill(name).await?;
        let wire = self.wire(&card);
        let mut request = match Request::read(&skill, params)? {
            Asked::Request(request) => request,
            Asked::Declined(task) => {
                self.mine.answers(&task, None).await?;
                cancel(&wire, &task).await;
                return Ok(told::declined(&task));
            }
        };
        // A state was sealed for whoever brings it back; what an argument says was not.
        if request.question.is_none()
            && let Err(why) =
                self.mine.may_go_on(&request.skill, request.task.as_deref(), request.context.as_deref()).await
        {
            return Ok(told::refused(&RpcError::new(-32602, why)));
        }
        request.key = request.key.map(|key| self.mine.named(&key));
        if wire.knows_again() {
            request.key.get_or_insert_with(mine::new_id);
        }
        request.gives = gives;
        if let (Some(question), Some(task)) = (&request.question, &request.task) {
            // One answer to one question: whoever brings the state again hears what became of it.
            request.said = !self.mine.answers(task, Some(question)).await?;
        }
        // An answer to a question of its task goes with a grant of its own, which no later request has.
        // Nor has a message of a task that is named already: it may still be on its way.
        let may_wait = request.task.is_none() && self.mine.is_kept() && self.target.granter.is_none();
        request.patience = (may_wait && tasks::wanted(params)).then_some(tasks::PATIENCE);
        let request = Arc::new(request);
        let mut outcome = self.talk((&*card, wire.clone()), number, &request, party.clone()).await;
        let mut wait = FIRST_TRY;
        // Whoever was there at a try that broke may have heard it.
        let mut heard = false;
        while wire.knows_again() && wait <= LAST_TRY && lost(&outcome) {
            heard |= !matches!(outcome, Err(McpError::Unreachable(_)));
            tokio::time::sleep(wait).await;
            wait *= 2;
            outcome = self.talk((&*card, wire.clone()), number, &request, party.clone()).await;
        }
        if outcome.is_err() && wire.found_nobody() && !heard {
            // Nobody was there, so nothing was done: it may have moved.
            if let Ok((card, _)) = self.shelf.fresh(When::Now).await
                && !wire.is_at(card.interface())
            {
                outcome = self.talk((&*card, self.wire(&card)), number, &request, party).await;
            }
        }
        if let (Err(McpError::Unreachable(_) | McpError::Rpc(_)), Some(task), Some(question), false) =
            (&outcome, &request.task, &request.question, request.said)
        {
            self.mine.unanswered(task, question).await;
        }
        match outcome {
            Ok(tale) => self.answered(&request.skill, &tale, can_ask(params)).await,
            // What it refuses is an answer the caller can read.
            Err(McpError::Rpc(error)) => Ok(told::refused(&error)),
            Err(e) => Err(e),
        }
    }

    /// What a call came to, as its result; a question is waited for so long.
    async fn answered(&self, skill: &str, tale: &tale::Tale, can_ask: bool) -> Result<Json, McpError> {
        let asked = self.mine.note(skill, tale, can_ask).await?;
        if !tale.is_settled() {
            return Ok(tasks::created(tale));
        }
        if let Some(task) = &tale.task
            && let Some(wire) = self.wire_now()
        {
            if told::is_hopeless(tale, can_ask) {
                cancel(&wire, task).await;
            } else if let Some(asked) = &asked {
                self.look_after(wire, task, asked);
            }
        }
        Ok(told::result(tale, asked.map(|asked| asked.name).as_deref(), can_ask))
    }

    /// A task whose question was put to somebody.
    fn look_after(&self, wire: Wire, task: &str, asked: &mine::Put) {
        let (stop, mine) = (self.target.stop.clone(), self.mine.clone());
        self.target.tasks.spawn(give_up(stop, wire, mine, task.to_owned(), asked.until));
    }

    /// Says it and follows it, or to where it takes long: then its task is named and goes on. On its own: it has to be cancelled over there when nobody waits
    /// here any more, and when this process ends.
    async fn talk(
        &self,
        (card, wire): (&card::Card, Wire),
        number: u64,
        request: &Arc<Request>,
        party: Option<Arc<dyn Party>>,
    ) -> Result<tale::Tale, McpError> {
        let (known, named) = watch::channel(request.task.clone());
        let taken_back = self.target.stop.child_token();
        lock(&self.open).insert(number, taken_back.clone());
        let (tell, mut told) = oneshot::channel();
        let (handed, mut long) = (CancellationToken::new(), named.clone());
        let talk = Talk { wire, streaming: card.streaming, party, number, known };
        self.target.tasks.spawn(carry(talk, request.clone(), (taken_back, named, handed.clone()), tell));
        let named_at_last = async {
            match request.patience {
                None => std::future::pending().await,
                Some(patience) => tokio::time::sleep(patience).await,
            }
            let task = long.wait_for(Option::is_some).await.map(|task| task.clone());
            match task {
                Ok(task) => task,
                // It is over, and says so.
                Err(_) => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = &mut told => outcome.unwrap_or(Err(McpError::Cancelled)),
            task = named_at_last => {
                handed.cancel();
                Ok(tale::Tale { task, ..tale::Tale::default() })
            }
        };
        lock(&self.open).remove(&number);
        outcome
    }
}

/// Whether a message was lost before its task was named, so that it can be said again to whoever
/// knows it again.
fn lost(outcome: &Result<tale::Tale, McpError>) -> bool {
    match outcome {
        Err(McpError::Broken(_) | McpError::Unreachable(_)) => true,
        Err(McpError::Gone(why)) => why == passage::NAMELESS,
        _ => false,
    }
}

async fn carry(
    talk: Talk,
    request: Arc<Request>,
    (taken_back, mut named, handed): (CancellationToken, watch::Receiver<Option<String>>, CancellationToken),
    tell: oneshot::Sender<Result<tale::Tale, McpError>>,
) {
    let outcome = {
        let going = talk.run(&request);
        tokio::pin!(going);
        tokio::select! {
            outcome = &mut going => Some(outcome),
            // Whoever called has the task now.
            () = handed.cancelled() => return,
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
    if handed.is_cancelled() {
        return;
    }
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
}

/// Cancels a task whose question nobody answered in time. At the end of this process the next one
/// sees to it.
async fn give_up(stop: CancellationToken, wire: Wire, mine: Mine, task: String, until: u64) {
    let left = Duration::from_millis(until.saturating_sub(crate::store::clock()));
    tokio::select! {
        () = stop.cancelled() => return,
        () = tokio::time::sleep(left) => {}
    }
    if mine.is_over(&task).await {
        cancel(&wire, &task).await;
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
    /// The question it answers, where it comes with a state.
    question: Option<String>,
    /// It was said before.
    said: bool,
    /// What is given along.
    gives: Option<Arc<Gives>>,
    /// So long it is waited for before it becomes a task of MCP, if it may.
    patience: Option<Duration>,
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
        if arguments.is_some_and(|arguments| arguments.get(PASSED).is_some()) {
            return Err(invalid("a skill has no argument of that name: a2a"));
        }
        let text = |key: &str| arguments.and_then(|a| a.get(key)).and_then(Json::as_str).map(str::to_owned);
        // Models fill in what they leave out.
        let id = |key: &str| text(key).filter(|id| !id.is_empty());
        if let Some(state) = params.get("requestState") {
            let paused = paused(state).ok_or_else(|| invalid("requestState is of no task"))?;
            let answer = params.get("inputResponses").and_then(|r| r.get(told::QUESTION));
            let answer = answer.ok_or_else(|| invalid("the question has no answer in inputResponses"))?;
            return Self::answering(skill, paused, answer);
        }
        let key = params.get("_meta").and_then(|own| own.get(meta::IDEMPOTENCY_KEY)?.as_str()).map(str::to_owned);
        Ok(Asked::Request(Self {
            skill: skill.to_owned(),
            key,
            text: text("message").ok_or_else(|| invalid("message is not a text"))?,
            data: arguments.and_then(|a| a.get("data")).filter(|data| **data != Json::Null).cloned(),
            task: id("task"),
            context: id("context"),
            question: None,
            said: false,
            gives: None,
            patience: None,
        }))
    }
}

impl Request {
    /// What somebody says to a question.
    fn answering(skill: &str, paused: Paused, answer: &Json) -> Result<Asked, McpError> {
        let Paused { task, context, question } = paused;
        if answer.get("action").and_then(Json::as_str) != Some("accept") {
            return Ok(Asked::Declined(task));
        }
        let said = answer.pointer("/content/answer").and_then(Json::as_str);
        let said =
            said.ok_or_else(|| McpError::Rpc(RpcError::new(-32602, "Invalid params: the answer has no text")))?;
        Ok(Asked::Request(Self {
            skill: skill.to_owned(),
            key: Some(format!("answer-{}", policies::json::digest(&format!("{question} {said}")))),
            text: said.to_owned(),
            data: None,
            task: Some(task),
            context,
            question: Some(question),
            said: false,
            gives: None,
            patience: None,
        }))
    }
}

/// What a `requestState` says: the task, its conversation, and the question that was asked.
struct Paused {
    task: String,
    context: Option<String>,
    question: String,
}

fn paused(state: &Json) -> Option<Paused> {
    let state = Json::parse(state.as_str()?.as_bytes(), Limits::default()).ok()?;
    let text = |key: &str| state.get(key).and_then(Json::as_str).map(str::to_owned);
    Some(Paused { task: text("task")?, context: text("context"), question: text("question").unwrap_or_default() })
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
