//! The guard: the one function every call from every door goes through.
//!
//! ```text
//! name ─▶ tool ─▶ arguments' paths and hosts, resolved ─▶ policies::decide
//!                                                          │ deny ─▶ reason to the model, fix to the person
//!                                                          │ ask  ─▶ a standing rule, or a person (`approvals`)
//!                                                          └ allow ─▶ Permit ─▶ instance ─▶ Attachment::call
//! ```
//!
//! `ledger` is its side of the record: a call leaves when it is written there, or not at all.
//! `ports` is the guard as the tree of runs sees it.

mod answers;
mod approvals;
mod fetch;
mod hop;
mod inquiry;
mod ledger;
pub(crate) mod outside;
pub(crate) mod passed;
mod ports;
mod result;
mod touches;
#[cfg(test)]
mod trial;
mod verify;
mod waiting;

use crate::audit::{Before, Decision, Entry};
use crate::servers::{Abilities, Enough, Servers};
use adapters::hidden;
use adapters::mcp::{Attachment, Exchange, Kind, McpError, Reply, meta};
use adapters::store::Store;
pub(crate) use approvals::{Asks, Put, Wish};
pub(crate) use fetch::Refused;
use ledger::Leaving;
use policies::action::{Call, RuntimeCall};
use policies::authority::Authority;
use policies::decide;
use policies::json::{Json, Object};
use policies::manifest::{NameMap, Tool, visible};
use policies::names::Name;
use policies::permit::{Denial, Permit, Question, Rule, Verdict};
use policies::resolve::Transport;
use policies::tools::Mode;
pub(crate) use ports::{A2A, CLI, LOCAL, MCP, MCP_AGENT, REST};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use subagents::run::Caller;

/// How long a server may take to hear that a call is withdrawn.
const LEAVING: Duration = Duration::from_millis(500);
/// How `--yes` reads in the record.
const YES: &str = "allowed once by --yes";

/// Decides and performs.
pub(crate) struct Guard {
    pub(crate) servers: Arc<Servers>,
    approve: Approve,
    /// What people said from then on, and what clients' own calls ask them; without it nothing stands.
    book: Option<Store>,
    /// Clients' own calls that wait for a person.
    waiting: waiting::Waiting,
    /// Held by whoever puts on record what ended.
    noting: tokio::sync::Mutex<()>,
    /// What a trial judges by in everybody's place.
    #[cfg(test)]
    anything: Option<Authority>,
}

/// What happens to what the policy asks a person about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Approve {
    /// Nobody can be reached: denied with the reason.
    Nobody,
    /// The call of a tool waits as a row until somebody answers. What is no such call has no row to
    /// wait in and is denied.
    Park,
    /// `--yes`: allowed, this once.
    Once,
}

/// What became of a wish to call a tool.
pub(crate) enum Decided {
    /// May be performed.
    Allowed(Permit<Call>, Rule),
    /// May not.
    Denied(Denial),
    /// There is no such tool for this caller.
    Unknown,
}

/// The same before anybody was asked, with what the record says of the wish; no verdict where
/// there is no such tool.
type Judged = (Option<Verdict<Call>>, Entry);

impl Guard {
    pub(crate) fn new(servers: Arc<Servers>, approve: Approve) -> Self {
        Self {
            servers,
            approve,
            book: None,
            waiting: waiting::Waiting::default(),
            noting: tokio::sync::Mutex::default(),
            #[cfg(test)]
            anything: None,
        }
    }
    /// What a call is judged by: the caller's authority, always.
    #[cfg(not(test))]
    const fn judged_by<'a>(&'a self, caller: &'a Caller) -> &'a Authority {
        &caller.authority
    }
    /// What a call is judged by: the caller's authority, unless a trial leaves the judgement out.
    #[cfg(test)]
    fn judged_by<'a>(&'a self, caller: &'a Caller) -> &'a Authority {
        self.anything.as_ref().unwrap_or(&caller.authority)
    }
    /// The same where what people said is kept.
    pub(crate) fn with(self, book: Store) -> Self {
        Self { book: Some(book), ..self }
    }

    /// The tools a caller may see, in deterministic order: those its rules do not deny and its
    /// ceiling covers. Depends on the caller's authority only.
    pub(crate) fn visible(&self, caller: &Caller) -> Vec<Arc<Tool>> {
        let Ok(caller) = self.servers.live.current(caller) else { return Vec::new() };
        let map = self.servers.manifests.map(&caller);
        map.tools.values().filter(|tool| shows(&caller, tool)).cloned().collect()
    }

    /// Whether a tool is in a caller's list, or would be if it were not in quarantine or if its
    /// server could be listed.
    pub(crate) fn is_visible(&self, caller: &Caller, name: &str) -> bool {
        let Ok(caller) = self.servers.live.current(caller) else { return false };
        let map = self.servers.manifests.map(&caller);
        map.tools.get(name).is_some_and(|tool| shows(&caller, tool))
            || self.held(&caller, name, &map).is_some()
            || self.unlisted(&caller, name).is_some()
    }

    /// The tool of a name, if the caller may see it; its server is listed first if need be.
    pub(crate) async fn find(&self, caller: &Caller, name: &str) -> Option<Arc<Tool>> {
        let caller = self.servers.live.current(caller).ok()?;
        let known = || self.servers.manifests.map(&caller).tools.get(name).cloned();
        let mut found = known();
        if found.is_none() {
            Box::pin(self.servers.ensure_listed_for(name, &caller, Enough::Attempt)).await;
            found = known();
        }
        found.filter(|tool| shows(&caller, tool))
    }

    /// Judges a call that nobody waits about, unless `--yes` answers.
    pub(crate) async fn decide(&self, caller: &Caller, name: &str, arguments: Json) -> Decided {
        let (verdict, entry) = self.judged(caller, name, arguments, Enough::Attempt).await;
        self.refusals_noted(self.weighed(verdict), entry).await
    }

    /// Puts on record what is not to be.
    async fn refusals_noted(&self, decided: Decided, entry: Entry) -> Decided {
        let nothing = Denial::plain("there is no such tool", "");
        let denial = match &decided {
            // Put on record when it leaves.
            Decided::Allowed(..) => None,
            Decided::Denied(denial) => Some(denial),
            Decided::Unknown => Some(&nothing),
        };
        let Some(denial) = denial else { return decided };
        let entry = entry.decided(Decision::Deny(denial));
        // It does not happen either way.
        let _ = self.servers.audit.record(entry, Before::Reading).await;
        decided
    }

    /// What would be decided; nothing is about to happen, so nothing is put on record.
    pub(crate) async fn would(&self, caller: &Caller, name: &str, arguments: Json) -> Decided {
        self.weighed(self.judged(caller, name, arguments, Enough::Attempt).await.0)
    }

    fn weighed(&self, verdict: Option<Verdict<Call>>) -> Decided {
        match verdict {
            Some(Verdict::Allow(permit, rule)) => Decided::Allowed(permit, rule),
            Some(Verdict::Ask(question)) if self.approve == Approve::Park => {
                let fix = "answer it when it is asked, or move the tool from ask to allow";
                Decided::Denied(question.refuse("it asks a person first").with_fix(fix))
            }
            Some(Verdict::Ask(question)) => match Self::answer(self.approve, question) {
                Ok((permit, rule)) => Decided::Allowed(permit, rule),
                Err(denial) => Decided::Denied(denial),
            },
            Some(Verdict::Deny(denial)) => Decided::Denied(denial),
            None => Decided::Unknown,
        }
    }

    /// Judges one call, a run's or a client's own, by the policy and by what stands besides.
    async fn judged(&self, caller: &Caller, name: &str, arguments: Json, enough: Enough) -> Judged {
        let (verdict, entry) = self.judged_by_policy(caller, name, arguments, enough).await;
        match verdict {
            Some(Verdict::Ask(question)) => (Some(self.stands(caller, question).await), entry),
            other => (other, entry),
        }
    }

    /// Where its server was never listed, after `enough` of trying.
    async fn judged_by_policy(&self, caller: &Caller, name: &str, arguments: Json, enough: Enough) -> Judged {
        let mut changes = self.servers.live.changes();
        let mut arguments = arguments;
        // A secret goes to whom it is for, and there not as an argument: what is judged, asked about, put
        // on record and sent is without it.
        hidden::in_json(&mut arguments);
        loop {
            arguments = match self.judge_now(caller, name, arguments) {
                Ok(judged) => return judged,
                Err(arguments) => arguments,
            };
            Box::pin(self.servers.ensure_listed_for(name, caller, enough)).await;
            arguments = match self.judge_now(caller, name, arguments) {
                Ok(judged) => return judged,
                Err(arguments) => arguments,
            };
            // A server that was changed meanwhile is listed anew.
            if !changes.has_changed().unwrap_or(false) {
                return (self.unlisted(caller, name).map(Verdict::Deny), unknown(caller, name));
            }
            changes.mark_unchanged();
        }
    }

    /// Judges it under the policy in force, all at once; gives the arguments back where no tool
    /// of the name is known.
    fn judge_now(&self, caller: &Caller, name: &str, arguments: Json) -> Result<Judged, Json> {
        let _held = self.servers.live.hold();
        let denied = |denial| Ok((Some(Verdict::Deny(denial)), unknown(caller, name)));
        let caller = match self.servers.live.current(caller) {
            Ok(caller) => caller,
            Err(denial) => return denied(denial),
        };
        let map = self.servers.manifests.map(&caller);
        let Some(tool) = map.tools.get(name).cloned() else {
            let Some(denial) = self.held(&caller, name, &map) else { return Err(arguments) };
            return denied(denial);
        };
        let Some(spec) = self.servers.spec(&tool.server) else { return Ok((None, unknown(&caller, name))) };
        let touches = touches::resolve(&tool, &arguments, &spec.cwd);
        let said =
            |call: &Call| self.wish(&caller, (&call.tool.name, &call.tool.server), &call.arguments, &call.touches);
        // What is given along is judged with the call it goes along with.
        if let Err(denial) = hop::may(&caller, &spec) {
            let entry = said(&Call { tool, arguments, touches });
            return Ok((Some(Verdict::Deny(denial)), entry));
        }
        Ok(match decide::call_or_back(self.judged_by(&caller), Call { tool, arguments, touches }) {
            Err((denial, call)) => (Some(Verdict::Deny(denial)), said(&call)),
            Ok(Verdict::Ask(question)) => {
                let entry = said(question.what());
                (Some(Verdict::Ask(question)), entry)
            }
            // Put on record when it leaves, by what is in the permit.
            Ok(allowed) => (Some(allowed), Entry::none()),
        })
    }

    /// Why what a caller may otherwise use is held back: the tool is in quarantine, its name is
    /// nobody's, or its server was not approved.
    fn held(&self, caller: &Caller, name: &str, map: &NameMap) -> Option<Denial> {
        let instead = "use another tool";
        if let Some(held) = map.held.get(name).filter(|held| shows(caller, &held.tool)) {
            return Some(Denial::plain(held.reason(), instead).with_fix(held.fix()));
        }
        if caller.authority.grant().tools.mode(name) == Mode::Deny {
            return None;
        }
        if let Some(why) = map.refused.get(name) {
            return Some(Denial::plain(format!("the name {name} is not used: {why}"), instead));
        }
        let (server, why) = self.servers.unapproved(name)?;
        Some(Denial::plain(format!("server {server} is not approved"), instead).with_fix(why))
    }

    /// Why a call is not made whose server could not be listed: what it would do cannot be known.
    fn unlisted(&self, caller: &Caller, name: &str) -> Option<Denial> {
        let caller = self.servers.live.current(caller).ok()?;
        if caller.authority.grant().tools.mode(name) == Mode::Deny {
            return None;
        }
        if let Some(server) = self.servers.lacks_callback(name, &caller) {
            let why = format!("server {server} takes what came along with a task to call back with, and nothing did");
            let fix = format!(
                "callback = true for us in [peers] of the gateway that sends such tasks, at the url of {server}"
            );
            return Some(Denial::plain(why, "use another tool").with_fix(fix));
        }
        let (server, why) = self.servers.unlisted(name, &caller)?;
        let why = why.unwrap_or_else(|| "it does not answer".into());
        let denial = Denial::plain(format!("server {server} could not be listed yet"), "try again later");
        Some(denial.with_fix(format!("{why}; it is tried again by itself, and `pleach tools` tells how it stands")))
    }

    /// Judges a call of one of Pleach's own tools, which nobody is asked about.
    ///
    /// # Errors
    /// Why it may not be made.
    pub(crate) async fn own(&self, caller: &Caller, tool: &'static str) -> Result<Permit<RuntimeCall>, Denial> {
        let now = self.servers.live.current(caller);
        let judged =
            now.as_deref().map_err(Denial::clone).and_then(|now| match decide::runtime(&now.authority, tool) {
                Verdict::Allow(permit, _) => Ok(permit),
                Verdict::Ask(question) => Self::answer(self.approve, question).map(|(permit, _)| permit),
                Verdict::Deny(denial) => Err(denial),
            });
        let entry = Entry::new("own").by(now.as_deref().unwrap_or(caller)).with("tool", tool);
        let entry = match &judged {
            Ok(permit) => entry.decided(Decision::Allow(permit.rule())),
            Err(denial) => entry.decided(Decision::Deny(denial)),
        };
        let recorded = self.servers.audit.record(entry, Before::Reading).await;
        let permit = judged?;
        recorded.map_err(ledger::unrecorded)?;
        Ok(permit)
    }

    fn answer<T>(approve: Approve, question: Question<T>) -> Result<(Permit<T>, Rule), Denial> {
        let fix = "run it with --yes, or move the tool from ask to allow";
        match approve {
            Approve::Once => {
                let rule = question.rule.clone();
                Ok((question.approve(YES), rule))
            }
            Approve::Nobody => {
                Err(question.refuse("it asks a person, and nobody can be reached from here").with_fix(fix))
            }
            Approve::Park => {
                let why = "it asks a person, and only the call of a tool can wait for one";
                Err(question.refuse(why).with_fix("move it from ask to allow"))
            }
        }
    }

    /// Performs what was permitted. `rest` is what else the caller said.
    pub(crate) async fn perform(
        &self,
        caller: &Caller,
        permit: Permit<Call>,
        rest: Object,
        exchange: Exchange,
    ) -> Result<Reply, McpError> {
        let rest = marked(caller, rest);
        let (tool, touches) = (permit.what().tool.clone(), permit.what().touches.clone());
        let server = tool.server.clone();
        let asked = permit.asked();
        let given = hop::given(caller, self.servers.spec(&server).as_deref());
        let still = |now: &Caller| {
            let _held = self.servers.live.hold();
            if self.servers.spec(&tool.server).is_none() {
                return Err(Denial::plain(format!("there is no server {} any more", tool.server), "use another tool"));
            }
            hop::still(given.as_ref(), now)?;
            let known = self.servers.manifests.tool(&tool.server, &tool.upstream, now);
            decide::still(&now.authority, known.as_ref().unwrap_or(&tool), &touches, asked)
        };
        let leaving = self.leaving(&permit);
        let send = async |attachment: Arc<Attachment>, exchange| attachment.call(permit, rest, exchange).await;
        let reply = self.relay(caller, &server, exchange, leaving, still, send).await;
        let reply = reply.map_err(|e| match self.failed(caller, &server, e) {
            Refused::Failed(e) => e,
            _ => McpError::Cancelled,
        })?;
        // It is passed on as it is: what to make of it is the caller's business.
        if reply.kind == Kind::Complete
            && let Some(why) = tool.unlike_declared(&reply.result)
        {
            tracing::warn!(%server, tool = tool.name, "its result is not as its outputSchema says: {}", visible(&why));
        }
        Ok(reply)
    }

    /// The one way to a server: its instance for this caller, within the limits, with the guard
    /// between the server and whoever it may ask, and its answer in the names of the outside.
    ///
    /// It ends, with the reason, when the policy changes and `still` says that what was permitted
    /// is not any more.
    async fn relay(
        &self,
        caller: &Caller,
        server: &Name,
        mut exchange: Exchange,
        leaving: Leaving,
        still: impl Fn(&Caller) -> Result<(), Denial>,
        send: impl AsyncFnOnce(Arc<Attachment>, Exchange) -> Result<Reply, McpError>,
    ) -> Result<Reply, McpError> {
        let live = &self.servers.live;
        // From here on every change is heard of; what came before is asked about now.
        let mut changes = live.changes();
        let judged = |caller: &Caller| live.current(caller).and_then(|now| still(&now).map(|()| now.into_owned()));
        let renewed;
        let caller = match live.has_changed() {
            false => caller,
            true => match judged(caller) {
                Ok(now) => {
                    renewed = now;
                    &renewed
                }
                Err(denial) => return Err(self.stays(caller, leaving, &denial).await),
            },
        };
        let left = self.leaves(caller, leaving).await?;
        let outer = exchange.cancel.clone();
        let cancel = outer.child_token();
        exchange.cancel = cancel.clone();
        let going = self.relayed(caller, server, exchange, send);
        tokio::pin!(going);
        let mut changed = false;
        loop {
            tokio::select! {
                done = &mut going => {
                    let done = match done {
                        Err(McpError::Gone(_)) if changed || changes.has_changed().unwrap_or(false) => {
                            let why = "the policy was changed, and the process did not fit it any more; call again";
                            Err(McpError::Withdrawn(why.into()))
                        }
                        done => done,
                    };
                    left.came(ledger::word(&done, ledger::says_error), None);
                    return done;
                }
                Ok(()) = changes.changed() => changed = true,
            }
            let Err(denial) = judged(caller) else { continue };
            tracing::warn!(caller = %caller.who, %server, "withdrawn: {}", denial.for_person());
            cancel.cancel();
            // The server is told; whether it listens is not waited for.
            let _ = tokio::time::timeout(LEAVING, &mut going).await;
            left.came("withdrawn", Some(&denial));
            return Err(McpError::Withdrawn(denial.for_model()));
        }
    }

    async fn relayed(
        &self,
        caller: &Caller,
        server: &Name,
        mut exchange: Exchange,
        send: impl AsyncFnOnce(Arc<Attachment>, Exchange) -> Result<Reply, McpError>,
    ) -> Result<Reply, McpError> {
        let spec = self.servers.spec(server);
        if let Some(spec) = &spec {
            exchange.limit = exchange.limit.min(spec.timeout.max(Duration::from_millis(1)));
        }
        // What was given along to call back with is good until this returns, however it does.
        let mut _hop = None;
        if let Some(spec) = &spec {
            let given = hop::gives(&self.servers.live, caller, spec);
            (exchange.gives, _hop) = given.map_err(|denial| McpError::Withdrawn(denial.for_model()))?;
        }
        let mut abilities = Abilities::default();
        if let Some(inner) = exchange.party.take() {
            let (servers, approve) = (Arc::downgrade(&self.servers), self.approve);
            let between = inquiry::Between { servers, approve, caller: caller.clone(), server: server.clone() };
            let guarded = inquiry::Guarded { inner, between, can: OnceLock::new() };
            abilities = Abilities::of(&adapters::mcp::Party::capabilities(&guarded));
            exchange.party = Some(Arc::new(guarded));
        }
        let party = exchange.party.clone();
        let attachment = tokio::select! {
            found = self.servers.instance(server, caller, abilities) => found.map_err(McpError::Unreachable)?,
            () = exchange.cancel.cancelled() => return Err(McpError::Cancelled),
            () = tokio::time::sleep(exchange.limit) => {
                return Err(McpError::Timeout { method: format!("start of {server}"), seconds: exchange.limit.as_secs() });
            }
        };
        let mut reply = send(attachment, exchange).await.map_err(|e| inquiry::judge_error(self, caller, server, e))?;
        // A peer has no resources: an address it names is one of the world's.
        if !spec.is_some_and(|spec| matches!(spec.transport, Transport::Peer(_))) {
            let offers = self.servers.offered.of(caller);
            outside::Outside { uris: &offers.uris, server }.result(&mut reply.result);
        }
        let reply = fetch::judged(self, caller, server, reply)?;
        let asks = reply.kind == Kind::InputRequired;
        match party.filter(|_| asks).and_then(|party| inquiry::beyond(&*party, &reply.result)) {
            Some(error) => Err(McpError::Rpc(error)),
            None => Ok(reply),
        }
    }
}

/// What else is said with a call, with the mark of a run's where it is one.
fn marked(caller: &Caller, mut rest: Object) -> Object {
    if caller.run.is_some() {
        let mut own = match rest.remove("_meta") {
            Some(Json::Object(own)) => own,
            _ => Object::new(),
        };
        own.set(meta::OF_RUN, true);
        rest.set("_meta", own);
    }
    rest
}

/// Whether a tool is in a caller's list.
pub(crate) fn shows(caller: &Caller, tool: &Tool) -> bool {
    let grant = caller.authority.grant();
    grant.tools.mode(&tool.name) != Mode::Deny && tool.access <= grant.max_access
}

/// A tool result that is an error the model can read.
pub(crate) fn error_result(text: &str) -> Json {
    let content = Json::object([("type", "text".into()), ("text", text.into())]);
    Json::object([("content", vec![content].into()), ("isError", true.into())])
}

/// The record of a call of a tool that is nobody's, or of a caller who is.
fn unknown(caller: &Caller, name: &str) -> Entry {
    Entry::new("call").by(caller).with("tool", name)
}
