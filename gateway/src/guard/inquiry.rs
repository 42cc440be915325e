//! What a server asks of its caller passes the guard too: elicitation, sampling, roots. The
//! policy may forbid it (`tools.deny = ["*__sampling/createMessage"]`); the server then gets
//! the answer of a person who said no, and never waits.

use super::outside::Outside;
use super::{Approve, Guard};
use crate::audit::{Decision, Entry};
use crate::servers::{Abilities, Servers};
use adapters::mcp::{Client, McpError, Party, RpcError};
use async_trait::async_trait;
use policies::action::Inquiry;
use policies::decide;
use policies::json::{Json, Object};
use policies::names::Name;
use policies::permit::{Denial, Rule, Verdict};
use std::sync::{Arc, OnceLock, Weak};
use subagents::run::Caller;

/// A party behind the guard.
pub(super) struct Guarded {
    pub(super) inner: Arc<dyn Party>,
    pub(super) between: Between,
    /// What may be asked, worked out once a call.
    pub(super) can: OnceLock<Object>,
}

/// Between a server and whoever it may ask.
#[derive(Clone)]
pub(super) struct Between {
    /// Connections remember their clients, and belong to the servers themselves.
    pub(super) servers: Weak<Servers>,
    pub(super) approve: Approve,
    pub(super) caller: Caller,
    pub(super) server: Name,
}

/// A question on its way through.
enum Passed {
    /// It may be put, with these parameters.
    On(Object),
    /// The policy answered it.
    Answered(Result<Json, RpcError>),
}

impl Between {
    fn pass(&self, method: &str, params: Object) -> Passed {
        let ending = || Passed::Answered(Err(RpcError::new(-32603, "pleach is ending")));
        let Some(servers) = self.servers.upgrade() else { return ending() };
        let caller = servers.live.current(&self.caller);
        let judged = caller.and_then(|caller| judge(&caller, &self.server, method, self.approve));
        if let Err(denial) = noted(&servers, &self.caller, &self.server, (method, judged)) {
            tracing::warn!(caller = %self.caller.who, server = %self.server, method, "{}", denial.for_person());
            return Passed::Answered(refusal(method, &denial));
        }
        let mut params = Json::Object(params);
        let offers = servers.offered.of(&self.caller);
        Outside { uris: &offers.uris, server: &self.server }.result(&mut params);
        match params {
            Json::Object(params) => Passed::On(params),
            _ => Passed::Answered(Err(RpcError::new(-32603, "no params"))),
        }
    }
}

/// The capability each question needs.
const NEEDS: [(&str, &str); 3] =
    [("elicitation/create", "elicitation"), ("sampling/createMessage", "sampling"), ("roots/list", "roots")];

/// What an `input_required` asks of a client that did not say it can be asked so: it would not know
/// what to do with it, and is told what it lacks (2026-07-28, missing client capability).
pub(super) fn beyond(party: &dyn Party, result: &Json) -> Option<RpcError> {
    let capabilities = party.capabilities();
    let can = Abilities::of(&capabilities);
    for (_, request) in result.get("inputRequests").and_then(Json::as_object)?.iter() {
        let method = request.get("method").and_then(Json::as_str).unwrap_or_default();
        let Some((_, needs)) = NEEDS.iter().find(|(known, _)| *known == method) else { continue };
        let url = request.get("params").and_then(|p| p.get("mode")).and_then(Json::as_str) == Some("url");
        if capabilities.get(needs).is_some() && (*needs != "elicitation" || can.elicits(url)) {
            continue;
        }
        let how = match *needs {
            "elicitation" => Json::object([(if url { "url" } else { "form" }, Json::Object(Object::new()))]),
            _ => Json::Object(Object::new()),
        };
        let data = Json::object([("requiredCapabilities", Json::object([(needs, how)]))]);
        return Some(RpcError::new(-32021, format!("{method}: this client cannot be asked")).with_data(data));
    }
    None
}

#[async_trait]
impl Party for Guarded {
    fn notify(&self, method: &str, params: Object) {
        self.inner.notify(method, params);
    }
    async fn ask(&self, method: &str, params: Object) -> Result<Json, RpcError> {
        let Some((_, needs)) = NEEDS.iter().find(|(known, _)| *known == method) else {
            return Err(RpcError::new(-32601, format!("{method} is nothing a client is asked")));
        };
        if self.inner.capabilities().get(needs).is_none() {
            return Err(RpcError::new(-32601, format!("{method}: this client cannot be asked")));
        }
        let can = Abilities::of(&self.inner.capabilities());
        if needs == &"elicitation" && !can.elicits(params.get("mode").and_then(Json::as_str) == Some("url")) {
            return Err(RpcError::new(-32602, "this client does not take elicitation in that mode"));
        }
        match self.between.pass(method, params) {
            Passed::On(params) => self.inner.ask(method, params).await,
            Passed::Answered(answer) => answer,
        }
    }
    fn capabilities(&self) -> Object {
        // What policy forbids is not offered to begin with.
        let judged = || {
            let mut own = self.inner.capabilities();
            let Between { caller, server, approve, .. } = &self.between;
            for (method, capability) in NEEDS {
                let has = own.get(capability).is_some();
                if has && judge(caller, server, method, *approve).is_err() {
                    own.remove(capability);
                }
            }
            own
        };
        self.can.get_or_init(judged).clone()
    }
    fn wants_progress(&self) -> bool {
        self.inner.wants_progress()
    }
    fn log_level(&self) -> Option<String> {
        self.inner.log_level()
    }
    fn client(&self) -> Option<Arc<dyn Client>> {
        let inner = self.inner.client()?;
        Some(Arc::new(GuardedClient { inner, between: self.between.clone() }))
    }
}

/// A client behind the guard.
struct GuardedClient {
    inner: Arc<dyn Client>,
    between: Between,
}

#[async_trait]
impl Client for GuardedClient {
    fn number(&self) -> u64 {
        self.inner.number()
    }
    fn has_roots(&self) -> bool {
        self.inner.has_roots()
    }
    fn listens(&self) -> bool {
        self.inner.listens()
    }
    async fn roots(&self, params: Object) -> Result<Json, RpcError> {
        match self.between.pass("roots/list", params) {
            Passed::On(params) => self.inner.roots(params).await,
            Passed::Answered(answer) => answer,
        }
    }
}

fn judge(caller: &Caller, server: &Name, method: &str, approve: Approve) -> Result<Rule, Denial> {
    let rule = format!("{server}__{method}");
    match decide::inquiry(&caller.authority, Inquiry { rule }) {
        Verdict::Allow(_, rule) => Ok(rule),
        Verdict::Ask(question) => Guard::answer(approve, question).map(|(_, rule)| rule),
        Verdict::Deny(denial) => Err(denial),
    }
}

/// Judges a question and puts that on record.
fn record(guard: &Guard, caller: &Caller, server: &Name, method: &str) -> Result<(), Denial> {
    noted(&guard.servers, caller, server, (method, judge(caller, server, method, guard.approve)))
}

fn noted(
    servers: &Servers,
    caller: &Caller,
    server: &Name,
    (method, judged): (&str, Result<Rule, Denial>),
) -> Result<(), Denial> {
    let entry = Entry::new("question").by(caller).with("server", server.as_str()).with("method", method);
    let entry = match &judged {
        Ok(rule) => entry.decided(Decision::Allow(rule)),
        Err(denial) => entry.decided(Decision::Deny(denial)),
    };
    let recorded = servers.audit.noted(entry);
    judged?;
    recorded.map_err(super::ledger::unrecorded)
}

/// The answer of a person who said no.
fn refusal(method: &str, denial: &Denial) -> Result<Json, RpcError> {
    match method {
        "elicitation/create" => Ok(Json::object([("action", "decline".into())])),
        // -1: rejected by the user (MCP 2025-11-25, sampling, error handling).
        _ => Err(RpcError::new(-1, denial.for_model())),
    }
}

/// A legacy server that wants pages visited first (-32042) asks too.
pub(super) fn judge_error(guard: &Guard, caller: &Caller, server: &Name, error: McpError) -> McpError {
    match &error {
        McpError::Rpc(e) if e.code() == -32042 => match record(guard, caller, server, "elicitation/create") {
            Ok(_) => error,
            Err(denial) => McpError::Rpc(RpcError::new(-32602, denial.for_model())),
        },
        _ => error,
    }
}

/// Whether a modern server may put these questions.
pub(super) fn judge_all(guard: &Guard, caller: &Caller, server: &Name, result: &Json) -> Result<(), Denial> {
    let asked = result.get("inputRequests").and_then(Json::as_object).into_iter().flat_map(Object::iter);
    for (_, request) in asked {
        let method = request.get("method").and_then(Json::as_str).unwrap_or("an unnamed method");
        record(guard, caller, server, method)?;
    }
    Ok(())
}
