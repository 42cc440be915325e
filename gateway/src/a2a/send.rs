//! `SendMessage`: a new task, or something said to one.
//!
//! ```text
//!  no taskId ─▶ Idempotency-Key or messageId: noted ─▶ Host::start ─▶ its first event is journalled
//!                 └ known: that task, nothing is begun
//!  taskId ─▶ known by its messageId: that task, nothing is said
//!         ├▶ it asks (INPUT_REQUIRED) ─▶ Host::answer: what the message names, else what was asked first
//!         ├▶ it asks for leave (AUTH_REQUIRED) ─▶ Host::answer, by whoever may approve and says to what
//!         ├▶ it works ─▶ Host::send: heard before its next request
//!         └▶ it has ended ─▶ UnsupportedOperation
//! ```

use super::fault::{Fault, Kind};
use super::ops::Asked;
use super::parts::Message;
use super::push;
use super::tale::{Open, Tale};
use super::updates::{self, Until, Updates};
use crate::auth::Came;
use crate::guard::A2A;
use crate::hosted;
use crate::mcp::framework::{SEND, approvals};
use crate::servers::CALLBACK;
use adapters::store::{Reservation, Reserved, clock};
use policies::json::Json;
use serde_json::{Value, json};
use subagents::event::{Inbound, WaitingFor};
use subagents::host::{By, Done, Start, Then};
use subagents::ports::{Answer, Gate, Journal, RunRow};
use subagents::run::RunId;
use tokio_util::sync::CancellationToken;

/// Within this time the same message of the same name is the same, milliseconds.
const REPEATED: u64 = 10 * 60 * 1_000;

/// `SendMessage`, until it is the client's turn unless it wants to be told at once.
pub(super) async fn send(asked: &Asked) -> Result<Value, Fault> {
    let history = asked.history()?;
    let at_once = asked.params.pointer("/configuration/returnImmediately") == Some(&Value::Bool(true));
    let said = say(asked).await?;
    let begun = said.begun;
    if at_once {
        let tale = updates::read(&asked.door.0.store, &said.row).await?;
        return Ok(json!({ "task": updates::shown(&asked.door.0.store, &tale, history, true).await? }));
    }
    let place = asked.door.watching(&asked.who)?;
    let mut updates = Updates::new(&asked.door, &said.row, (Until::Turn, said.answered), Some(place)).await?;
    let task = tokio::select! {
        task = updates.settled(history) => task?,
        () = asked.gone() => return Err(Fault::new(Kind::Unauthenticated, "you are nobody here any more")),
    };
    // A word in the place of a task, to whoever knows of no task.
    match updates.tale.reply() {
        Some(message) if begun && updates.tale.artifacts.is_empty() && !updates.tale.asked => {
            Ok(json!({ "message": message }))
        }
        _ => Ok(json!({ "task": task })),
    }
}

/// `SendStreamingMessage`
pub(super) async fn stream(asked: &Asked) -> Result<Updates, Fault> {
    let history = asked.history()?;
    let place = asked.door.watching(&asked.who)?;
    let said = say(asked).await?;
    let updates = Updates::new(&asked.door, &said.row, (Until::Turn, said.answered), Some(place)).await?;
    updates.with_snapshot(history).await
}

/// Whom the message wants told, if anybody.
fn wants_told(asked: &Asked) -> Option<&Value> {
    asked.params.pointer("/configuration/taskPushNotificationConfig").filter(|config| !config.is_null())
}

/// What was said, and to which task.
struct Said {
    row: RunRow,
    /// It is a new one.
    begun: bool,
    /// The question it answered.
    answered: Option<String>,
}

async fn say(asked: &Asked) -> Result<Said, Fault> {
    let message = Message::read(&asked.params)?;
    // One after another of one name: the second finds what the first did.
    let name = asked.key.as_ref().unwrap_or(&message.id);
    let _lane = asked.door.0.lanes.turn(asked.who.principal(), name).await;
    match message.task.clone() {
        None => begin(asked, message).await.map(|row| Said { row, begun: true, answered: None }),
        Some(task) => go_on(asked, &task, message).await,
    }
}

/// A new task.
async fn begin(asked: &Asked, message: Message) -> Result<RunRow, Fault> {
    let door = &asked.door.0;
    if let Err(denial) = door.guard.own(&asked.who.caller, subagents::tools::agent::NAME).await {
        return Err(Fault::new(Kind::Forbidden, denial.for_model()));
    }
    let run = RunId::fresh().map_err(Fault::failed)?;
    let digest = policies::json::digest(&Json::from(&asked.params["message"]).to_canonical());
    // Without a key of its own a message is known by its name and by what it says: some clients
    // use a name twice.
    let known = match &asked.key {
        Some(key) => format!("a2a {} key {key}", asked.agent),
        None => format!("a2a {} {} {digest}", asked.agent, message.id),
    };
    let reservation = Reservation {
        principal: asked.who.principal().to_owned(),
        // So long after it is no repetition, but a client that counts its messages from 1.
        // A message with a grant is the same one as long as its name is kept.
        renewed: (asked.key.is_none() && !asked.is_granted()).then_some(REPEATED),
        key: Some((known, digest)),
        run: run.clone(),
        webhook: None,
        push: match wants_told(asked) {
            Some(config) if config.get("taskId").is_some_and(|id| *id != "") => {
                let why = "taskId is the server's to give; leave it out for a task that is to begin";
                return Err(Fault::field("taskPushNotificationConfig", why));
            }
            // Clients that say it with every message mean one and the same.
            Some(config) => Some(push::registered(asked, &run, config, Some(run.as_str())).await?),
            None => None,
        },
    };
    // Before anything is noted: whoever has no room leaves no trace.
    let place = asked.door.working(&asked.who)?;
    let run = match door.store.reserve(reservation).await? {
        Reserved::Fresh => run,
        Reserved::Before(before) => {
            // Said once more, it may say whom to tell for the first time.
            if let Some(config) = wants_told(asked) {
                push::keep(asked, push::registered(asked, &before, config, Some(before.as_str())).await?).await?;
            }
            match door.store.row(&before).await? {
                Some(row) => {
                    brought(asked, &row).await?;
                    return Ok(row);
                }
                None => before,
            }
        }
        Reserved::Other => {
            let why = "another message came with this Idempotency-Key before; each has one of its own";
            return Err(Fault::new(Kind::InvalidParams, why));
        }
    };
    if let Some((came, _)) = &asked.came {
        keep(asked, came).await?;
    }
    let start = Start {
        id: run.clone(),
        agent: asked.agent.clone(),
        prompt: message.text,
        principal: asked.who.caller.principal.clone(),
        door: asked.who.caller.authority.clone(),
        place: asked.who.place(),
        limits: asked.who.limits,
        shared: asked.who.identity.as_ref().and_then(|identity| identity.carried.as_ref()).map(|c| c.limits()),
        inbound: Some(Inbound { message: message.id, context: message.context, parts: message.parts }),
        approvals: approvals(&door.live.now().policy),
        cancel: CancellationToken::new(),
    };
    let begun = hosted::begin((&door.host, &door.tasks), &door.store, start, place).await;
    begun.map_err(|e| Fault::of_host(e, Kind::Internal))?;
    door.store.row(&run).await?.ok_or_else(|| Fault::no_task(run.as_str()))
}

/// Something said to a task.
async fn go_on(asked: &Asked, task: &str, message: Message) -> Result<Said, Fault> {
    let row = asked.own(task).await?;
    let door = &asked.door.0;
    let tale = updates::read(&door.store, &row).await?;
    if message.context.as_ref().is_some_and(|context| *context != tale.context) {
        return Err(Fault::field("message.contextId", "it is not that of the task"));
    }
    if tale.has_heard(&message.id, &message.text) {
        brought(asked, &row).await?;
        // Said once more, it may say whom to tell for the first time.
        told(asked, &row).await?;
        return Ok(Said { row, begun: false, answered: None });
    }
    if tale.state.is_terminal() {
        let why = "the task has ended; say it without taskId to begin another";
        return Err(Fault::new(Kind::UnsupportedOperation, why));
    }
    still_granted(asked, &row)?;
    brought(asked, &row).await?;
    let asks = question(asked, &tale, &message)?;
    told(asked, &row).await?;
    let (done, answered) = match asks {
        Some(open) => (answer(asked, open, &message).await?, Some(open.id.clone())),
        None => (tell(asked, &row, &message).await?, None),
    };
    if done == Done::Stored {
        hosted::go_on((&door.host, &door.tasks), &row.root, asked.door.working(&asked.who).ok());
    }
    Ok(Said { row, begun: false, answered })
}

/// Takes what came along with a later message to a task in the place of what came before; a task that
/// began with nothing to call back with, or for another place, goes on without.
async fn brought(asked: &Asked, row: &RunRow) -> Result<(), Fault> {
    let began = Came::at(row.door.as_deref().unwrap_or_default());
    match (&asked.came, began) {
        (Some((came, _)), Some(began)) if came.url == began.url => keep(asked, &began).await,
        _ => Ok(()),
    }
}

/// Keeps what came along, sealed, under a name that the task remembers.
async fn keep(asked: &Asked, came: &Came) -> Result<(), Fault> {
    let Some((_, callback)) = &asked.came else { return Ok(()) };
    let door = &asked.door.0;
    let sealed = door.seal.seal(CALLBACK, &came.id, &callback.to_json());
    let until = callback.until.saturating_mul(1_000);
    Ok(door.store.callback_keep(came.id.clone(), sealed, until).await?)
}

/// Whether whoever goes on with a task may still give what it began with. A task keeps what it was
/// granted, so under less than that it cannot go on.
fn still_granted(asked: &Asked, row: &RunRow) -> Result<(), Fault> {
    if asked.who.identity.as_ref().is_none_or(|identity| identity.carried.is_none()) {
        return Ok(());
    }
    let place = row.door.as_deref().unwrap_or_default();
    let began = asked.door.0.guard.door(asked.who.principal(), place);
    let exceeds = began.map(|(began, _)| began.grant().exceeds(asked.who.caller.authority.grant()));
    match exceeds.as_deref() {
        Some([]) => Ok(()),
        Some(more) => {
            let more: Vec<&str> = more.iter().map(|component| component.as_str()).collect();
            let why = format!(
                "the task began with more than its sender may give now ({}); cancel it and begin another",
                more.join(", ")
            );
            Err(Fault::new(Kind::Forbidden, why))
        }
        None => Err(Fault::new(Kind::Forbidden, "the grant the task began with is no good any more")),
    }
}

/// Keeps whom a message to a task wants told of it.
async fn told(asked: &Asked, row: &RunRow) -> Result<(), Fault> {
    let Some(config) = wants_told(asked) else { return Ok(()) };
    if config.get("taskId").is_some_and(|id| *id != "" && *id != row.run.as_str()) {
        return Err(Fault::field("taskPushNotificationConfig", "taskId is not that of the message"));
    }
    push::keep(asked, push::registered(asked, &row.run, config, Some(row.run.as_str())).await?).await
}

/// The question a message answers: the one it names; else the first that is open and asks for no
/// leave. Leave is given to what was seen, so whoever gives it says to what.
fn question<'t>(asked: &Asked, tale: &'t Tale, message: &Message) -> Result<Option<&'t Open>, Fault> {
    let now = clock();
    let mut open = tale.open.iter().filter(|open| !open.is_over(now));
    if let Some(named) = &message.question {
        let why = format!("{named:?} is not open any more; get the task to see what is");
        return open.find(|open| open.id == *named).map(Some).ok_or_else(|| Fault::field("message.metadata", why));
    }
    let questions: Vec<&Open> = open.collect();
    if let Some(open) = questions.iter().find(|open| open.kind != WaitingFor::Approval) {
        return Ok(Some(open));
    }
    match questions.first() {
        None => Ok(None),
        Some(_) if !asked.who.can_approve => {
            let why = "the task waits for somebody who may approve it; you may not";
            Err(Fault::new(Kind::UnsupportedOperation, why))
        }
        Some(open) => {
            let why = format!(
                "the task asks for leave: say to what, with metadata {{\"pleach/question\": \"{}\"}} as its status has it",
                open.id
            );
            Err(Fault::field("message.metadata", why))
        }
    }
}

/// A message as the journal keeps it beside what was said.
fn named(message: &Message) -> Inbound {
    Inbound { message: message.id.clone(), context: None, parts: message.parts.clone() }
}

async fn tell(asked: &Asked, row: &RunRow, message: &Message) -> Result<Done, Fault> {
    // The same rule as for saying it through the other doors.
    if let Err(denial) = asked.door.0.guard.own(&asked.who.caller, SEND).await {
        return Err(Fault::new(Kind::Forbidden, denial.for_model()));
    }
    let from = (asked.who.principal(), named(message));
    let done = asked.door.0.host.send_open(&row.run, from, message.text.clone(), Then::Leave).await;
    done.map_err(|e| Fault::of_host(e, Kind::UnsupportedOperation))
}

async fn answer(asked: &Asked, open: &Open, message: &Message) -> Result<Done, Fault> {
    let said = match open.kind {
        WaitingFor::Approval => {
            if !asked.who.can_approve {
                let why = "the task waits for somebody who may approve it; you may not";
                return Err(Fault::new(Kind::UnsupportedOperation, why));
            }
            verdict(message)?
        }
        _ => Answer::Input { value: input(open, message), note: None },
    };
    let by = (By { who: asked.who.principal(), door: A2A }, Some(named(message)));
    let done = asked.door.0.host.answer_with(&open.id, said, by, Then::Leave).await;
    done.map_err(|e| Fault::of_host(e, Kind::InvalidParams))
}

/// `allow` or `deny`, as a text or as `{"decision": …}`, with a note if there is one.
fn verdict(message: &Message) -> Result<Answer, Fault> {
    let data = message.data.as_ref();
    let note = data.and_then(|d| d.get("note")).and_then(Value::as_str).map(str::to_owned);
    let word = data.and_then(|d| d.get("decision")).and_then(Value::as_str).unwrap_or(&message.text);
    match word.trim().to_ascii_lowercase().as_str() {
        "allow" => Ok(Answer::Allow { note, always: None }),
        "deny" => Ok(Answer::Deny { note }),
        _ => {
            let why = "the task asks for leave: say allow or deny, or {\"decision\": \"allow\", \"note\": …} as data";
            Err(Fault::field("message.parts", why))
        }
    }
}

/// What a question is answered with: data as it is, a text as the JSON it is where a form is wanted.
fn input(open: &Open, message: &Message) -> Value {
    if let Some(data) = &message.data {
        // Named in the data itself, the answer stands beside.
        return data.get("answer").filter(|_| data.get("question").is_some()).unwrap_or(data).clone();
    }
    let formed = open.detail.get("schema").is_some_and(|schema| !schema.is_null());
    match serde_json::from_str::<Value>(&message.text) {
        Ok(value) if formed => value,
        _ => message.text.clone().into(),
    }
}
