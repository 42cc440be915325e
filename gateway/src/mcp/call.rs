//! Requests that go on to a server: tool calls, prompts, resources, completions, tasks.
//!
//! A legacy client is asked what the server wants to know, on the stream of its request. A
//! modern client gets questions as its answer and comes again, with a sealed `requestState`
//! that is good for this request, this principal and some minutes.

use super::approval::{self, Came};
use super::conversation::{Conversation, QUESTION_LIMIT, Speaking};
use super::framework::{Framework, Said};
use super::parked::{Channel, GoesOn, Parked, Waited};
use super::seal::expiry;
use super::{Sink, Speaker, View};
use crate::guard::{Decided, Refused, Wish, error_result};
use crate::servers::Level;
pub(super) use adapters::mcp::TASKS;
use adapters::mcp::{Exchange, Kind, McpError, Message, Party, Reply, Rounds, RpcError, meta};
use bytes::Bytes;
use policies::json::{Json, Limits, Object};
use policies::names::Name;
use sha2::{Digest, Sha256};
use std::cell::OnceCell;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// No call is longer, whatever its server's own limit.
const CALL_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// How long a modern server's own `requestState` may come back.
const STATE_LIMIT: Duration = Duration::from_secs(3600);
/// Questions a server asks at once are answered at once: so long is waited for the others.
const GATHER: Duration = Duration::from_millis(30);

/// What became of a request.
pub(super) enum Outcome {
    /// The server's reply, or ours.
    Reply(Reply),
    /// An error.
    Error(RpcError),
    /// The caller took it back; nothing is to be sent.
    Nothing,
}

impl Outcome {
    fn own(result: Json) -> Self {
        Outcome::Reply(Reply { kind: Kind::Complete, modern: false, result })
    }
    fn invalid(why: &str) -> Self {
        Outcome::Error(RpcError::new(-32602, format!("Invalid params: {why}")))
    }
}

/// A request with what belongs to it and no longer to the wire.
pub(super) struct Asking {
    pub(super) method: String,
    pub(super) params: Object,
    pub(super) sink: Sink,
    pub(super) cancel: CancellationToken,
    /// The message as it was read, where it is kept.
    pub(super) raw: Option<Bytes>,
}

/// What of `_meta` stays here, and what goes on.
pub(super) struct OwnMeta {
    pub(super) token: Option<Json>,
    level: Option<Level>,
    capabilities: Object,
}

impl OwnMeta {
    /// Takes what belongs to this connection out of `params`.
    ///
    /// # Errors
    /// -32602 for an unknown log level.
    pub(super) fn take(params: &mut Object) -> Result<Self, RpcError> {
        let mut out = Self { token: None, level: None, capabilities: Object::new() };
        let Some(Json::Object(own)) = params.get_mut("_meta") else { return Ok(out) };
        own.remove(meta::PROTOCOL_VERSION);
        own.remove(meta::CLIENT_INFO);
        out.token = own.remove(meta::PROGRESS_TOKEN);
        if let Some(Json::Object(capabilities)) = own.remove(meta::CLIENT_CAPABILITIES) {
            out.capabilities = capabilities;
        }
        if let Some(level) = own.remove(meta::LOG_LEVEL) {
            let level = level.as_str().and_then(Level::parse);
            out.level = Some(level.ok_or_else(|| {
                RpcError::new(-32602, format!("Invalid params: {} is no log level", meta::LOG_LEVEL))
            })?);
        }
        if own.is_empty() {
            params.remove("_meta");
        }
        Ok(out)
    }
}

/// Whether a client follows tasks.
pub(super) fn has_tasks(capabilities: &Object) -> bool {
    capabilities.get("extensions").is_some_and(|e| e.get(TASKS).is_some())
}

/// Does what is asked, for whoever asks.
pub(super) async fn ask(view: &View, speaker: &Speaker, mut asking: Asking) -> Outcome {
    let own = match OwnMeta::take(&mut asking.params) {
        Ok(own) => own,
        Err(error) => return Outcome::Error(error),
    };
    let level = match speaker {
        Speaker::Legacy(conversation) => conversation.level(),
        Speaker::Modern => own.level,
    };
    if let Some(level) = level {
        Box::pin(view.guard.servers.want_level(&view.caller, level)).await;
    }
    match speaker {
        Speaker::Legacy(conversation) => Box::pin(legacy(view, conversation, own, asking)).await,
        Speaker::Modern => modern(view, own, asking).await,
    }
}

async fn legacy(view: &View, conversation: &Arc<Conversation>, own: OwnMeta, mut asking: Asking) -> Outcome {
    // Rounds are of 2026-07-28; Pleach drives them itself.
    for key in ["task", "requestState", "inputResponses"] {
        asking.params.remove(key);
    }
    let (conversation, sink) = (conversation.clone(), asking.sink.clone());
    let party: Arc<dyn Party> = Arc::new(Speaking { conversation, sink, token: own.token });
    let exchange = Exchange { limit: CALL_LIMIT, cancel: asking.cancel, party: Some(party), ..Exchange::default() };
    run(view, &asking.method, asking.params, exchange).await
}

async fn modern(view: &View, mut own: OwnMeta, mut asking: Asking) -> Outcome {
    // Whoever calls back has nothing that outlives what it was given along with.
    if view.identity.goes_with().is_some()
        && let Some(Json::Object(extensions)) = own.capabilities.get_mut("extensions")
    {
        extensions.remove(TASKS);
    }
    // Tasks of 2025-11-25 are not offered; a request for one is a plain request.
    asking.params.remove("task");
    // What it is bound to is worked out only where a state comes or goes.
    let what = What::new(&mut asking);
    match asking.params.get("inputResponses") {
        None | Some(Json::Object(_)) => {}
        Some(_) => return Outcome::invalid("inputResponses is not an object"),
    }
    let channel = Channel { sink: asking.sink.clone(), token: own.token.clone(), level: own.level };
    let state = match asking.params.remove("requestState") {
        None => None,
        Some(state) => match open_state(view, &state, what.digest()) {
            Some(state) => Some(state),
            None => return Outcome::invalid("requestState is not of this request, or too old"),
        },
    };
    let mut running = Running::default();
    let parked = match state {
        Some(State::Parked(id)) => {
            let Some(parked) = view.parking.find(&id, &view.place, what.digest()) else {
                return Outcome::invalid("requestState is of a call that ended");
            };
            parked.speak_through(channel);
            if let Some(answers) = asking.params.get("inputResponses").and_then(Json::as_object)
                && let Err(error) = parked.answer(answers)
            {
                return Outcome::Error(error);
            }
            running.take_up(view, &parked);
            parked
        }
        other => {
            match other {
                Some(State::Theirs(state)) => asking.params.set("requestState", state),
                Some(State::Again) => drop(asking.params.remove("inputResponses")),
                _ => {}
            }
            let parked = Parked::new(view.place.clone(), own.capabilities.clone(), channel);
            running.begin(view, &parked, asking.method.clone(), asking.params);
            parked
        }
    };
    let waited = match running.wait(&parked, &asking.cancel).await {
        Waited::Asked(_) => {
            running.until(tokio::time::sleep(GATHER)).await;
            running.wait(&parked, &asking.cancel).await
        }
        other => other,
    };
    match waited {
        Waited::Gone => {
            view.parking.leave(&parked);
            Outcome::Nothing
        }
        Waited::Asked(questions) => match view.parking.park(&parked, what.digest()) {
            Ok(id) => {
                running.go_on();
                asked(view, questions, what.digest(), ("p", id.into()), QUESTION_LIMIT)
            }
            Err(error) => {
                parked.cancel.cancel();
                Outcome::Error(error)
            }
        },
        Waited::Done(outcome) => {
            running.over();
            view.parking.leave(&parked);
            relayed(view, outcome, &own, &what)
        }
    }
}

/// A call in the hands of the request that waits for it, which costs no task of its own: put
/// down, it is taken back. With a question on its way to the client it goes on by itself.
#[derive(Default)]
struct Running(Option<Call>);

struct Call {
    view: View,
    parked: Arc<Parked>,
    /// `None` where it goes on by itself already.
    work: Option<Work>,
}

type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

impl Running {
    fn begin(&mut self, view: &View, parked: &Arc<Parked>, method: String, params: Object) {
        let (inner, own) = (view.clone(), parked.clone());
        let work = Box::pin(async move {
            let exchange = Exchange {
                limit: CALL_LIMIT,
                cancel: own.cancel.clone(),
                party: Some(own.clone()),
                rounds: Rounds::Relay,
                gives: None,
            };
            run(&inner, &method, params, exchange).await
        });
        self.0 = Some(Call { view: view.clone(), parked: parked.clone(), work: Some(work) });
    }
    /// Takes a call up that was put down with a question.
    fn take_up(&mut self, view: &View, parked: &Arc<Parked>) {
        self.0 = Some(Call { view: view.clone(), parked: parked.clone(), work: None });
    }
    /// Waits for the result or for questions while the call goes on.
    async fn wait(&mut self, parked: &Parked, cancel: &CancellationToken) -> Waited {
        match self.until(parked.wait(cancel)).await {
            Some(waited) => waited,
            // What was waited with is gone, so that nobody is woken by what this very task put
            // there: woken in its own turn, a task is handed to another thread.
            None => parked.wait(cancel).await,
        }
    }
    /// Waits for something while the call goes on; `None` where the call's end came first.
    async fn until<T>(&mut self, wait: impl Future<Output = T>) -> Option<T> {
        let Some(Call { work: Some(work), .. }) = &mut self.0 else { return Some(wait.await) };
        let outcome = tokio::select! {
            biased;
            came = wait => return Some(came),
            outcome = work => outcome,
        };
        if let Some(call) = &mut self.0 {
            call.work = None;
            call.parked.done(outcome);
        }
        None
    }
    /// It ended.
    fn over(&mut self) {
        self.0 = None;
    }
    /// Goes on without the request.
    fn go_on(&mut self) {
        let Some(Call { view, parked, work: Some(work) }) = self.0.take() else { return };
        let tasks = view.guard.servers.tasks.clone();
        let goes_on = GoesOn::new(&view.parking, &parked);
        tasks.spawn(async move {
            let stop = &view.guard.servers.stop;
            tokio::select! {
                () = goes_on.through(work) => {}
                () = stop.cancelled() => {}
                () = view.identity.done() => {}
            }
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(call) = &self.0 {
            call.parked.cancel.cancel();
        }
    }
}

/// What a modern server answered, for the modern client.
fn relayed(view: &View, outcome: Outcome, own: &OwnMeta, what: &What) -> Outcome {
    match outcome {
        Outcome::Reply(mut reply) if reply.kind == Kind::InputRequired => {
            if let Some(Json::String(theirs)) = reply.result.get("requestState") {
                let value = ("s", Json::String(theirs.clone()));
                let sealed = seal_state(view, what.digest(), value, STATE_LIMIT);
                if let Some(result) = reply.result.as_object_mut() {
                    result.set("requestState", sealed);
                }
            }
            Outcome::Reply(reply)
        }
        // A legacy server wants a page visited first; a modern client learns that as a question.
        Outcome::Error(error) if error.code() == -32042 => {
            let can = own.capabilities.get("elicitation").is_some_and(|e| e.get("url").is_some());
            if !can {
                let needs = Json::object([("elicitation", Json::object([("url", Json::Object(Object::new()))]))]);
                let data = Json::object([("requiredCapabilities", needs)]);
                return Outcome::Error(RpcError::new(-32021, error.message()).with_data(data));
            }
            let pages = error.data().and_then(|d| d.get("elicitations")).and_then(Json::as_array);
            let mut questions = Object::new();
            for (n, page) in pages.unwrap_or_default().iter().enumerate() {
                let mut params = page.as_object().cloned().unwrap_or_default();
                params.remove("elicitationId");
                let question = Json::object([("method", "elicitation/create".into()), ("params", params.into())]);
                questions.set(format!("page-{}", n + 1), question);
            }
            asked(view, questions, what.digest(), ("a", true.into()), STATE_LIMIT)
        }
        other => other,
    }
}

/// Questions as an answer.
fn asked(view: &View, questions: Object, digest: &str, state: (&str, Json), limit: Duration) -> Outcome {
    let mut result = Object::new();
    result.set("resultType", "input_required");
    result.set("inputRequests", questions);
    result.set("requestState", seal_state(view, digest, state, limit));
    Outcome::Reply(Reply { kind: Kind::InputRequired, modern: true, result: result.into() })
}

enum State {
    Parked(String),
    Theirs(Json),
    Again,
}

fn seal_state(view: &View, digest: &str, (key, value): (&str, Json), limit: Duration) -> String {
    let mut state = Object::new();
    state.set("d", digest);
    state.set("e", expiry(limit));
    state.set(key, value);
    view.seal.seal("state", &view.place, &state.into())
}

fn open_state(view: &View, sealed: &Json, digest: &str) -> Option<State> {
    let state = view.seal.open("state", &view.place, sealed.as_str()?)?;
    let fresh = state.get("e").and_then(Json::as_u64)? > expiry(Duration::ZERO);
    if !fresh || state.get("d").and_then(Json::as_str) != Some(digest) {
        return None;
    }
    match (state.get("p").and_then(Json::as_str), state.get("s"), state.get("a")) {
        (Some(id), ..) => Some(State::Parked(id.to_owned())),
        (_, Some(theirs), _) => Some(State::Theirs(theirs.clone())),
        (_, _, Some(_)) => Some(State::Again),
        _ => None,
    }
}

/// A request as it came.
struct What {
    method: String,
    source: Source,
    digest: OnceCell<String>,
}

/// Where the message is at hand it is read once more, if it ever comes to that.
enum Source {
    Params(Object),
    Raw(Bytes),
}

impl What {
    fn new(asking: &mut Asking) -> Self {
        let source = asking.raw.take().map_or_else(|| Source::Params(asking.params.clone()), Source::Raw);
        Self { method: asking.method.clone(), source, digest: OnceCell::new() }
    }
    fn digest(&self) -> &str {
        self.digest.get_or_init(|| match &self.source {
            Source::Params(params) => digest(&self.method, params),
            Source::Raw(raw) => {
                let limits = Limits { bytes: raw.len(), ..Limits::default() };
                let mut params = match Message::read(raw, limits) {
                    Ok(Message::Request { params, .. }) => params,
                    // It was a request when it came.
                    _ => Object::new(),
                };
                params.remove("task");
                digest(&self.method, &params)
            }
        })
    }
}

/// What a request is, besides its round: the same for a retry of it.
fn digest(method: &str, params: &Object) -> String {
    let kept = params.iter().filter(|(key, _)| !matches!(*key, "_meta" | "inputResponses" | "requestState"));
    let kept: Object = kept.map(|(key, value)| (key.to_owned(), value.clone())).collect();
    let digest = Sha256::digest(format!("{method}\0{}", Json::Object(kept).to_canonical()));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Through the guard to the server.
async fn run(view: &View, method: &str, mut params: Object, exchange: Exchange) -> Outcome {
    let (guard, caller) = (&view.guard, &view.caller);
    let legacy = exchange.rounds == Rounds::Drive;
    match method {
        "tools/call" => call(view, params, exchange).await,
        "resources/read" => {
            let Some(Json::String(uri)) = params.remove("uri") else { return Outcome::invalid("uri is not a string") };
            match Box::pin(guard.read(caller, &uri, params, exchange)).await {
                Ok(reply) => Outcome::Reply(reply),
                Err(Refused::Unknown) => Outcome::Error(no_resource(&uri, legacy)),
                Err(refused) => refusal(refused, Some(&uri)),
            }
        }
        "prompts/get" => {
            let Some(Json::String(name)) = params.remove("name") else {
                return Outcome::invalid("name is not a string");
            };
            let arguments = params.remove("arguments");
            match Box::pin(guard.prompt(caller, &name, arguments, params, exchange)).await {
                Ok(reply) => Outcome::Reply(reply),
                Err(Refused::Unknown) => Outcome::Error(RpcError::new(-32602, format!("Unknown prompt: {name}"))),
                Err(refused) => refusal(refused, None),
            }
        }
        "completion/complete" => {
            let mut judged = Object::new();
            for key in ["ref", "argument", "context"] {
                if let Some(value) = params.remove(key) {
                    judged.set(key, value);
                }
            }
            match Box::pin(guard.complete(caller, judged, params, exchange)).await {
                Ok(reply) => Outcome::Reply(reply),
                Err(Refused::Unknown) => Outcome::invalid("ref names no prompt or resource"),
                Err(refused) => refusal(refused, None),
            }
        }
        other => Outcome::Error(RpcError::new(-32601, format!("Method not found: {other}"))),
    }
}

/// Where no resource is found: -32002 until 2025-11-25, -32602 since.
pub(super) fn no_resource(uri: &str, legacy: bool) -> RpcError {
    let code = if legacy { -32002 } else { -32602 };
    RpcError::new(code, format!("Resource not found: {uri}")).with_data(Json::object([("uri", uri.into())]))
}

pub(super) fn refusal(refused: Refused, uri: Option<&str>) -> Outcome {
    let error = match refused {
        Refused::Failed(McpError::Cancelled) => return Outcome::Nothing,
        Refused::Failed(McpError::Rpc(error)) => return Outcome::Error(error),
        Refused::Failed(other) => RpcError::new(-32603, other.to_string()),
        Refused::Denied(denial) => RpcError::new(-32602, denial.for_model()),
        Refused::Unknown => RpcError::new(-32602, "there is no such thing here"),
    };
    Outcome::Error(match uri {
        Some(uri) => error.with_data(Json::object([("uri", uri.into())])),
        None => error,
    })
}

async fn call(view: &View, mut params: Object, exchange: Exchange) -> Outcome {
    let Some(Json::String(name)) = params.remove("name") else { return Outcome::invalid("name is not a string") };
    let arguments = match params.remove("arguments") {
        None => Json::Object(Object::new()),
        Some(arguments @ Json::Object(_)) => arguments,
        Some(_) => return Outcome::invalid("arguments is not an object"),
    };
    // Pleach may be among its own servers, or among those of another.
    let of_run = params.get("_meta").is_some_and(|own| own.get(meta::OF_RUN).is_some());
    if let Some(framework) = view.framework.as_ref().filter(|_| Framework::has(&name)) {
        let said = Said { arguments: &arguments, of_run };
        let called = Box::pin(framework.call(view, &name, said, exchange.party, exchange.cancel)).await;
        return called.map_or(Outcome::Nothing, Outcome::Reply);
    }
    let unknown = || Outcome::Error(RpcError::new(-32602, format!("Unknown tool: {name}")));
    let (permit, rule) = match decided(view, &name, arguments, (&exchange, of_run)).await {
        None => return Outcome::Nothing,
        Some(Decided::Allowed(permit, rule)) => (permit, rule),
        Some(Decided::Unknown) => return unknown(),
        Some(Decided::Denied(denial)) => {
            warn!(caller = %view.caller.who, tool = name, "{}", denial.for_person());
            // A hidden and an unknown tool look the same.
            let hidden = !view.guard.is_visible(&view.caller, &name);
            return if hidden { unknown() } else { Outcome::own(error_result(&denial.for_model())) };
        }
    };
    debug!(caller = %view.caller.who, tool = name, "allowed by {rule}");
    let server = permit.what().tool.server.clone();
    match view.guard.perform(&view.caller, permit, params, exchange).await {
        Ok(mut reply) => {
            if reply.kind == Kind::Other {
                seal_task(view, &server, &name, &mut reply.result);
            }
            Outcome::Reply(reply)
        }
        Err(McpError::Cancelled) => Outcome::Nothing,
        Err(McpError::Rpc(error)) => Outcome::Error(error),
        Err(other) => {
            warn!(caller = %view.caller.who, tool = name, "{other}");
            Outcome::own(error_result(&format!("{name}: {other}")))
        }
    }
}

/// What is decided about a call, by a person where the policy asks one; `None` when the caller took
/// it back meanwhile.
async fn decided(view: &View, name: &str, arguments: Json, (exchange, of_run): (&Exchange, bool)) -> Option<Decided> {
    let asks = match view.guard.decide_or_ask(&view.caller, name, arguments).await {
        Wish::Decided(decided) => return Some(decided),
        Wish::Asks(asks) => asks,
    };
    let again = asks.arguments();
    match Box::pin(approval::wait(view, *asks, exchange, of_run)).await {
        Came::Gone => None,
        Came::Denied(denial) => Some(Decided::Denied(denial)),
        Came::Answered(put) => Some(view.guard.answered(&view.caller, name, again, *put).await),
    }
}

/// A task by the id a client has of it.
pub(super) enum Task {
    /// A run of Pleach's own.
    Run(String),
    /// A server's, of a call of a tool, under its own id.
    Theirs(Name, String, String),
}

impl Task {
    /// The task of an id that was given to this client at this door.
    pub(super) fn open(view: &View, sealed: &str) -> Option<Self> {
        let opened = view.seal.open("task", &view.place, sealed)?;
        let text = |key: &str| opened.get(key).and_then(Json::as_str).map(str::to_owned);
        if let Some(run) = text("r") {
            return Some(Self::Run(run));
        }
        let server = Name::try_from(text("s")?.as_str()).ok()?;
        Some(Self::Theirs(server, text("t")?, text("i")?))
    }
}

/// A task's id, good for this principal only.
fn seal_task(view: &View, server: &Name, tool: &str, result: &mut Json) {
    let Some(task) = result.as_object_mut() else { return };
    let Some(Json::String(id)) = task.get("taskId") else { return };
    let value = Json::object([("s", server.as_str().into()), ("t", tool.into()), ("i", id.as_str().into())]);
    let sealed = view.seal.seal("task", &view.place, &value);
    task.set("taskId", sealed);
}

/// `tasks/get`, `tasks/update`, `tasks/cancel` of the extension.
pub(super) async fn task(view: &View, method: &'static str, mut asking: Asking) -> Outcome {
    let own = match OwnMeta::take(&mut asking.params) {
        Ok(own) => own,
        Err(error) => return Outcome::Error(error),
    };
    if !has_tasks(&own.capabilities) {
        let needs = Json::object([("extensions", Json::object([(TASKS, Json::Object(Object::new()))]))]);
        let data = Json::object([("requiredCapabilities", needs)]);
        return Outcome::Error(RpcError::new(-32021, format!("{method} needs the extension {TASKS}")).with_data(data));
    }
    let Some(Json::String(sealed)) = asking.params.remove("taskId") else {
        return Outcome::invalid("taskId is not a string");
    };
    let unknown = || Outcome::Error(RpcError::new(-32602, "Unknown task"));
    let (server, tool, id) = match (Task::open(view, &sealed), &view.framework) {
        (Some(Task::Theirs(server, tool, id)), _) => (server, tool, id),
        (Some(Task::Run(run)), Some(framework)) => {
            return match framework.follow(view, method, (&run, &sealed), &asking.params, Some(&own.capabilities)).await
            {
                Ok(result) => Outcome::own(result),
                Err(error) => Outcome::Error(error),
            };
        }
        _ => return unknown(),
    };
    let channel = Channel { sink: asking.sink.clone(), token: None, level: None };
    let party = Parked::new(view.place.clone(), own.capabilities, channel);
    let exchange =
        Exchange { limit: CALL_LIMIT, cancel: asking.cancel, party: Some(party), rounds: Rounds::Relay, gives: None };
    let place = (server.clone(), tool.clone(), id);
    match view.guard.task(&view.caller, method, place, asking.params, exchange).await {
        Ok(mut reply) => {
            seal_task(view, &server, &tool, &mut reply.result);
            Outcome::Reply(reply)
        }
        Err(Refused::Unknown) => unknown(),
        Err(refused) => refusal(refused, None),
    }
}
