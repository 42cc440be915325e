//! The driver: writes an event, lets [`turn::on`] say what follows, performs it, writes the
//! next. Journal first, then perform.
//!
//! Every path that creates a run ends in `Host::launch`, with an authority from the two
//! equations; there is no other.

use crate::agent_tool::{self, Wish};
use crate::event::{Event, Outcome, Record, Seen, ToolCall};
use crate::ports::{Authorized, Gate, Journal, JournalError, Models, Request, RunRow, ToolSpec, Toolbox};
use crate::run::{Caller, RunId, State};
use crate::turn::{self, Effect};
use policies::action::TreeFacts;
use policies::authority::{Authority, Link, RunAuthority};
use policies::decide;
use policies::json::Json;
use policies::names::Name;
use policies::permit::{Denial, Verdict};
use policies::resolve::{AgentSpec, Limits, Policy};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

/// Events an observer may lag behind before it loses some.
const OBSERVER_LAG: usize = 4_096;

/// Tokens one reply may have.
const MAX_OUTPUT: u64 = 32_000;

/// Runs the tree.
pub struct Host {
    policy: Arc<Policy>,
    gate: Arc<dyn Gate>,
    toolbox: Arc<dyn Toolbox>,
    models: Arc<dyn Models>,
    journal: Arc<dyn Journal>,
    seen: broadcast::Sender<Seen>,
}

/// A root run to start.
pub struct Start {
    /// The id the run will have, so that whoever starts it can watch it from its first event.
    pub id: RunId,
    /// The agent.
    pub agent: Name,
    /// What it is asked.
    pub prompt: String,
    /// The client it acts for.
    pub principal: Arc<str>,
    /// What the door allows that client.
    pub door: Authority,
    /// The client's counted limits.
    pub limits: Limits,
    /// Ends the run.
    pub cancel: CancellationToken,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The run.
    pub run: RunId,
    /// How.
    pub state: State,
    /// Its answer, or why there is none.
    pub text: String,
}

/// What the runs of one tree share.
struct Tree {
    total: AtomicU32,
}

/// One run while it lives.
struct Run {
    id: RunId,
    parent: Option<RunId>,
    root: RunId,
    depth: u32,
    agent: AgentSpec,
    model: Name,
    authority: RunAuthority,
    caller: Caller,
    limits: Limits,
    tree: Arc<Tree>,
    children: Semaphore,
    cancel: CancellationToken,
    log: tokio::sync::Mutex<Log>,
    started: u64,
}

/// The run's own end of the journal.
struct Log {
    seq: u64,
    state: turn::State,
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Host {
    /// A host over its ports.
    pub fn new(
        policy: Arc<Policy>,
        gate: Arc<dyn Gate>,
        toolbox: Arc<dyn Toolbox>,
        models: Arc<dyn Models>,
        journal: Arc<dyn Journal>,
    ) -> Arc<Self> {
        Arc::new(Self { policy, gate, toolbox, models, journal, seen: broadcast::channel(OBSERVER_LAG).0 })
    }
    /// Everything that happens from now on, in every run.
    pub fn watch(&self) -> broadcast::Receiver<Seen> {
        self.seen.subscribe()
    }
    /// Runs a root run to its end.
    ///
    /// # Errors
    /// When the journal cannot be written; then nothing was performed.
    pub async fn start(self: &Arc<Self>, start: Start) -> Result<Ended, JournalError> {
        let Some(agent) = self.policy.agents.get(&start.agent).cloned() else {
            return self.rejected(&start, format!("no agent is named {}", start.agent)).await;
        };
        let authority = match RunAuthority::spawn(&start.door, agent.policy(), None) {
            Ok(authority) => authority,
            Err(_) => return self.rejected(&start, "the agent asks too much".into()).await,
        };
        let limits = self.policy.root_limits.meet(start.limits).meet(agent.limits);
        let tree = Arc::new(Tree { total: AtomicU32::new(1) });
        let id = start.id.clone();
        let model = agent.model.clone();
        let place = Place { id: id.clone(), parent: None, root: id, depth: 0, tree };
        let run = Run::new(place, agent, model, authority, limits, start.principal, start.cancel.child_token());
        self.launch(Arc::new(run), start.prompt).await
    }

    /// A root run that is refused leaves a record all the same.
    async fn rejected(&self, start: &Start, why: String) -> Result<Ended, JournalError> {
        let id = start.id.clone();
        let at = now();
        let row = RunRow {
            run: id.clone(),
            parent: None,
            root: id.clone(),
            depth: 0,
            agent: start.agent.to_string(),
            state: State::Rejected.as_str().into(),
            turns: 0,
            tool_calls: 0,
            tokens: 0,
            started: at,
            ended: Some(at),
        };
        let record = Record { run: id.clone(), seq: 1, at, event: Event::finished(State::Rejected, why.clone()) };
        self.journal.append(&record, &row).await?;
        let _ = self.seen.send(Seen::Record(record));
        Ok(Ended { run: id, state: State::Rejected, text: why })
    }

    /// The one way into the loop. Boxed, because a run may hold runs.
    fn launch(self: &Arc<Self>, run: Arc<Run>, prompt: String) -> Boxed<'_, Result<Ended, JournalError>> {
        Box::pin(self.live(run, prompt))
    }

    async fn live(self: &Arc<Self>, run: Arc<Run>, prompt: String) -> Result<Ended, JournalError> {
        let started = Event::Started {
            agent: run.agent.name.to_string(),
            model: run.model.to_string(),
            system: run.agent.prompt.clone(),
            prompt,
            parent: run.parent.as_ref().map(ToString::to_string),
            root: run.root.to_string(),
            depth: run.depth,
            principal: run.caller.principal.to_string(),
            max_turns: run.limits.turns,
            max_tool_calls: run.limits.tool_calls,
        };
        let effects = self.append(&run, started).await?;
        let worked = self.drive(&run, effects).await;
        run.cancel.cancel();
        let state = run.log.lock().await.state.clone();
        if !state.phase.is_end() {
            let event = match &worked {
                Ok(()) => Event::finished(State::Cancelled, "cancelled"),
                Err(e) => Event::finished(State::Failed, e.to_string()),
            };
            self.append(&run, event).await?;
        }
        worked?;
        let state = &run.log.lock().await.state;
        Ok(Ended { run: run.id.clone(), state: state.phase, text: state.text.clone() })
    }

    /// Performs effects until none follow.
    async fn drive(self: &Arc<Self>, run: &Arc<Run>, effects: Vec<Effect>) -> Result<(), JournalError> {
        let Some(tools) = unless_cancelled(run, self.tools(run)).await else { return Ok(()) };
        let mut next = effects;
        while !next.is_empty() && !run.cancel.is_cancelled() {
            // The calls of one turn run in parallel; whichever finishes last brings what follows.
            let work = next.drain(..).map(|effect| self.perform(run, effect, &tools));
            next = futures_util::future::try_join_all(work).await?.into_iter().flatten().collect();
        }
        Ok(())
    }

    async fn perform(
        self: &Arc<Self>,
        run: &Arc<Run>,
        effect: Effect,
        tools: &[ToolSpec],
    ) -> Result<Vec<Effect>, JournalError> {
        match effect {
            Effect::Finish(state, text) => self.append(run, Event::finished(state, text)).await,
            Effect::Think(turn) => self.think(run, turn, tools).await,
            Effect::Refuse(call, why) => {
                self.requested(run, &call).await?;
                self.decided(run, &call, "deny", "budget.tool_calls".into(), None).await?;
                self.done(run, &call, Outcome::Denied, why).await
            }
            Effect::Act(call) => self.act(run, call).await,
        }
    }

    async fn think(&self, run: &Run, turn: u32, tools: &[ToolSpec]) -> Result<Vec<Effect>, JournalError> {
        let fail = |why: String| Event::finished(State::Failed, why);
        let permit = match decide::complete(&run.caller.authority, run.model.clone()) {
            Verdict::Allow(permit, _) => permit,
            Verdict::Ask(question) => {
                return self.append(run, fail(question.refuse("a model call cannot wait").for_model())).await;
            }
            Verdict::Deny(denial) => return self.append(run, fail(denial.for_model())).await,
        };
        let Some(model) = self.models.get(&run.model) else {
            return self.append(run, fail(format!("no model is named {}", run.model))).await;
        };
        self.append(run, Event::ModelRequested { turn }).await?;
        let (state, seq) = {
            let log = run.log.lock().await;
            (log.state.clone(), log.seq)
        };
        let request = Request {
            agent: &state.agent,
            system: &state.system,
            messages: &state.messages,
            tools,
            max_output: MAX_OUTPUT,
            effort: None,
            schema: None,
            run: &run.id,
        };
        let delta = |text: &str| {
            let _ = self.seen.send(Seen::Delta { run: run.id.clone(), seq, at: now(), text: text.to_owned() });
        };
        let Some(replied) = unless_cancelled(run, model.complete(permit, request, &delta)).await else {
            return Ok(Vec::new());
        };
        match replied {
            Ok(reply) => {
                let event = Event::ModelReplied {
                    text: reply.text,
                    calls: unique(reply.calls),
                    stop: reply.stop,
                    usage: reply.usage,
                    blocks: reply.blocks,
                    answered_by: reply.answered_by,
                };
                self.append(run, event).await
            }
            Err(e) => self.append(run, fail(format!("agent {}, turn {turn}: {e}", run.agent.name))).await,
        }
    }

    async fn act(self: &Arc<Self>, run: &Arc<Run>, call: ToolCall) -> Result<Vec<Effect>, JournalError> {
        self.requested(run, &call).await?;
        if call.name == agent_tool::NAME || call.name == agent_tool::ALIAS {
            return self.spawn(run, call).await;
        }
        let judged = self.gate.authorize(&run.caller, &call.name, Json::from(&call.input));
        let Some(judged) = unless_cancelled(run, judged).await else { return Ok(Vec::new()) };
        match judged {
            Authorized::Unknown => {
                let text = format!(
                    "there is no tool named {} for this agent; do not assume what it would have said",
                    call.name
                );
                self.decided(run, &call, "deny", format!("no tool is named {}", call.name), None).await?;
                self.done(run, &call, Outcome::Denied, text).await
            }
            Authorized::Denied(denial) => self.denied(run, &call, denial).await,
            Authorized::Allowed(permit, rule) => {
                self.decided(run, &call, "allow", rule.to_string(), None).await?;
                match self.toolbox.call(&run.caller, permit, run.cancel.child_token()).await {
                    Ok(output) => {
                        let outcome = if output.error { Outcome::Error } else { Outcome::Ok };
                        self.done(run, &call, outcome, output.text).await
                    }
                    Err(why) => self.done(run, &call, Outcome::Error, why).await,
                }
            }
        }
    }

    /// The `Agent` tool: a child run, through the same equations as every other.
    async fn spawn(self: &Arc<Self>, run: &Arc<Run>, call: ToolCall) -> Result<Vec<Effect>, JournalError> {
        // Denied under either name is denied under both.
        for name in [agent_tool::NAME, agent_tool::ALIAS] {
            if let Err(denial) = self.gate.authorize_runtime(&run.caller, name) {
                return self.denied(run, &call, denial).await;
            }
        }
        let may_start = self.may_start(run);
        let wish = match agent_tool::read(&call.input, &may_start) {
            Ok(wish) => wish,
            Err(why) => {
                let denial = Denial::plain(format!("{}: {why}", agent_tool::NAME), "correct the call and try again");
                return self.denied(run, &call, denial).await;
            }
        };
        let child = match self.child(run, &wish) {
            Ok(child) => child,
            Err(denial) => return self.denied(run, &call, denial).await,
        };
        self.decided(run, &call, "allow", format!("subagents of {}", run.caller.who), None).await?;
        // Not more children at a time than granted; the others wait their turn. The permits are
        // this run's own, so a child that waits for its children holds up nobody else's.
        let Some(slot) = unless_cancelled(run, run.children.acquire()).await else { return Ok(Vec::new()) };
        let ended = self.launch(Arc::new(child), wish.prompt).await?;
        drop(slot);
        let (outcome, text) = match ended.state {
            State::Completed => (Outcome::Ok, ended.text),
            other => (Outcome::Error, format!("the subagent {} is {}: {}", wish.agent, other.as_str(), ended.text)),
        };
        self.done(run, &call, outcome, text).await
    }

    fn child(&self, run: &Run, wish: &Wish) -> Result<Run, Denial> {
        let facts = TreeFacts { depth: run.depth, total: run.tree.total.load(Ordering::Acquire) };
        let spawn = match decide::spawn(&run.caller.authority, wish.agent.clone(), facts) {
            Verdict::Allow(permit, _) => permit.redeem(),
            Verdict::Ask(question) => return Err(question.refuse("a spawn cannot wait")),
            Verdict::Deny(denial) => return Err(denial),
        };
        let wrong =
            |why: String| Denial::plain(format!("{}: {why}", agent_tool::NAME), "correct the call and try again");
        let agent =
            self.policy.agents.get(&spawn.agent).ok_or_else(|| wrong(format!("no agent is named {}", spawn.agent)))?;
        let (asks, limits) = match &wish.policy {
            Some(policy) => {
                self.gate.narrowing(policy).map(|(n, l)| (Some(n), l)).map_err(|e| wrong(format!("policy: {e}")))?
            }
            None => (None, Limits::NONE),
        };
        let asks = wish.narrowing(asks).map_err(wrong)?;
        let request = (asks != Default::default()).then(|| Link::request(run.agent.name.as_str(), asks));
        let authority = RunAuthority::spawn(&run.authority.delegate, agent.policy(), request).map_err(|too_wide| {
            let names: Vec<&str> = too_wide.components.iter().map(|c| c.as_str()).collect();
            Denial {
                rule: format!("the request is wider than {} may give: {}", run.caller.who, names.join(", ")),
                who: Some(format!("agent {}", run.agent.name)),
                allowed: "ask for no more than this run may give, or leave policy out".into(),
                place: Some(run.agent.place.clone()),
                fix: Some(format!("widen subagent_policy of agent {}", run.agent.name)),
            }
        })?;
        // Counted under contention: the one that would pass the limit is refused.
        let max = run.caller.authority.grant().spawn.max_total;
        let counted = run.tree.total.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < max).then_some(n + 1));
        if counted.is_err() {
            return Err(Denial::plain("spawn.max_total is reached", "do the work in this run"));
        }
        let id = RunId::fresh().map_err(|e| wrong(e.to_string()))?;
        let limits = run.limits.meet(run.agent.subagent_limits).meet(agent.limits).meet(limits).meet(wish.limits);
        let place = Place {
            id,
            parent: Some(run.id.clone()),
            root: run.root.clone(),
            depth: spawn.depth,
            tree: run.tree.clone(),
        };
        let model = wish.model.clone().unwrap_or_else(|| agent.model.clone());
        let cancel = run.cancel.child_token();
        Ok(Run::new(place, agent.clone(), model, authority, limits, run.caller.principal.clone(), cancel))
    }

    fn may_start(&self, run: &Run) -> Vec<&AgentSpec> {
        let grant = run.caller.authority.grant();
        self.policy.agents.values().filter(|a| grant.agents.allows(a.name.as_str())).collect()
    }

    /// What the model is shown: what the grant shows, and `Agent` where somebody may be started.
    async fn tools(&self, run: &Run) -> Vec<ToolSpec> {
        let mut tools = self.gate.tools(&run.caller).await;
        let may_start = self.may_start(run);
        let grant = run.caller.authority.grant();
        let denied = grant.tools.runtime_mode(agent_tool::NAME) == policies::tools::Mode::Deny;
        if !may_start.is_empty() && run.depth < grant.spawn.max_depth && !denied {
            tools.push(agent_tool::spec(&may_start));
        }
        tools
    }

    async fn requested(&self, run: &Run, call: &ToolCall) -> Result<(), JournalError> {
        let event = Event::ToolRequested { id: call.id.clone(), name: call.name.clone(), input: call.input.clone() };
        self.append(run, event).await.map(drop)
    }
    async fn decided(
        &self,
        run: &Run,
        call: &ToolCall,
        verdict: &str,
        rule: String,
        fix: Option<String>,
    ) -> Result<(), JournalError> {
        let chain = run.caller.authority.chain().into_iter().map(str::to_owned).collect();
        let event = Event::ToolDecided { id: call.id.clone(), verdict: verdict.to_owned(), rule, chain, fix };
        self.append(run, event).await.map(drop)
    }
    async fn denied(&self, run: &Run, call: &ToolCall, denial: Denial) -> Result<Vec<Effect>, JournalError> {
        let place = denial.place.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
        let who = denial.who.as_ref().map(|w| format!(" at {w}")).unwrap_or_default();
        self.decided(run, call, "deny", format!("{}{who}{place}", denial.rule), denial.fix.clone()).await?;
        self.done(run, call, Outcome::Denied, denial.for_model()).await
    }
    async fn done(
        &self,
        run: &Run,
        call: &ToolCall,
        outcome: Outcome,
        text: String,
    ) -> Result<Vec<Effect>, JournalError> {
        self.append(run, Event::ToolFinished { id: call.id.clone(), outcome, text }).await
    }

    /// The only place where a run changes: written first, then taken in.
    async fn append(&self, run: &Run, event: Event) -> Result<Vec<Effect>, JournalError> {
        let mut log = run.log.lock().await;
        if log.state.phase.is_end() {
            return Ok(Vec::new());
        }
        let mut state = log.state.clone();
        let effects = turn::on(&mut state, &event);
        let record = Record { run: run.id.clone(), seq: log.seq + 1, at: now(), event };
        self.journal.append(&record, &run.row(&state, record.at)).await?;
        log.seq += 1;
        log.state = state;
        let _ = self.seen.send(Seen::Record(record));
        Ok(effects)
    }
}

/// Where a run stands.
struct Place {
    id: RunId,
    parent: Option<RunId>,
    root: RunId,
    depth: u32,
    tree: Arc<Tree>,
}

impl Run {
    fn new(
        place: Place,
        agent: AgentSpec,
        model: Name,
        authority: RunAuthority,
        limits: Limits,
        principal: Arc<str>,
        cancel: CancellationToken,
    ) -> Self {
        let who = format!("run {} ({})", place.id, agent.name);
        let caller = Caller::new(&principal, &who, authority.use_.clone());
        let concurrent = authority.use_.grant().spawn.max_concurrent as usize;
        Self {
            id: place.id,
            parent: place.parent,
            root: place.root,
            depth: place.depth,
            tree: place.tree,
            agent,
            model,
            authority,
            caller,
            limits,
            children: Semaphore::new(concurrent.min(Semaphore::MAX_PERMITS)),
            cancel,
            log: tokio::sync::Mutex::new(Log { seq: 0, state: turn::State::default() }),
            started: now(),
        }
    }
    fn row(&self, state: &turn::State, at: u64) -> RunRow {
        RunRow {
            run: self.id.clone(),
            parent: self.parent.clone(),
            root: self.root.clone(),
            depth: self.depth,
            agent: self.agent.name.to_string(),
            state: state.phase.as_str().to_owned(),
            turns: state.turns,
            tool_calls: state.tool_calls,
            tokens: state.usage.total(),
            started: self.started,
            ended: state.phase.is_end().then_some(at),
        }
    }
}

/// Waits for work, or for the end of the run: whoever ends it does not wait for a model.
async fn unless_cancelled<T>(run: &Run, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = run.cancel.cancelled() => None,
    }
}

/// Two calls of one turn need two ids, whatever the model wrote.
fn unique(mut calls: Vec<ToolCall>) -> Vec<ToolCall> {
    let mut seen = std::collections::BTreeSet::new();
    for (i, call) in calls.iter_mut().enumerate() {
        if !seen.insert(call.id.clone()) {
            call.id = format!("{}#{i}", call.id);
            seen.insert(call.id.clone());
        }
    }
    calls
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
