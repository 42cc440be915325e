//! What a run may do: worked out in one function, for every path that creates a run or goes on
//! with one (start, spawn, background, resume, follow-up, fork), under the policy as it is now.

use crate::event::Step;
use crate::ports::Gate;
use crate::run::{Caller, Origin, RunId};
use crate::tools::agent::Request;
use policies::action::TreeFacts;
use policies::authority::{Authority, Link, RunAuthority};
use policies::decide;
use policies::names::Name;
use policies::permit::{Denial, Verdict};
use policies::resolve::{AgentSpec, Limits, Policy};
use std::sync::Arc;

/// A run's standing under one policy.
pub(crate) struct Standing {
    /// The policy it was worked out under.
    pub(crate) policy: Arc<Policy>,
    /// Its agent's definition.
    pub(crate) agent: AgentSpec,
    /// What it may do, as the guard knows it.
    pub(crate) caller: Caller,
    /// The counted limits of its own tables.
    pub(super) own: Limits,
    /// The same met with those of all above it.
    pub(super) all: Limits,
}

impl Standing {
    pub(super) fn new(policy: Arc<Policy>, within: Within, (principal, origin): (&str, Origin), id: &RunId) -> Self {
        let who = format!("run {id} ({})", within.agent.name);
        let mut caller = Caller::new(principal, &who, within.authority.use_.clone()).from(origin);
        caller = caller.giving(&within.authority.delegate);
        caller.run = Some(id.as_str().into());
        Self { policy, agent: within.agent, caller, own: within.own, all: within.all }
    }
    /// Agents its model may start.
    pub(crate) fn may_start(&self) -> Vec<&AgentSpec> {
        let grant = self.caller.authority.grant();
        self.policy.agents.values().filter(|a| grant.agents.allows(a.name.as_str())).collect()
    }
}

/// What the equations gave for the last step of a lineage.
pub(super) struct Within {
    pub(super) agent: AgentSpec,
    pub(super) authority: RunAuthority,
    /// The counted limits of its own tables: at the root those of the policy, the door and the
    /// agent, below it those its parent's table, its agent's, and its spawn's `policy` name.
    pub(super) own: Limits,
    /// The same met with those of all above it.
    pub(super) all: Limits,
}

/// Walks from the door, with its authority and its counted limits, down: each step is judged as a
/// spawn by the one above it. A lineage has at least one step; its first is the root run.
pub(super) fn authority(
    policy: &Policy,
    gate: &dyn Gate,
    (door, limits): &(Authority, Limits),
    lineage: &[Step],
) -> Result<Within, Denial> {
    let mut above: Option<Within> = None;
    for (depth, step) in lineage.iter().enumerate() {
        let name = Name::try_from(step.agent.as_str()).map_err(|e| wrong(format!("agent {:?}: {e}", step.agent)))?;
        if let Some(parent) = &above {
            let facts = TreeFacts { depth: u32::try_from(depth - 1).unwrap_or(u32::MAX), total: 0 };
            may_spawn(&parent.authority.use_, name.clone(), facts)?;
        }
        let Some(agent) = policy.agents.get(&name).cloned() else {
            return Err(wrong(format!("no agent is named {name}")));
        };
        let request = step.request.as_deref().map(Request::from_text).transpose().map_err(wrong)?.unwrap_or_default();
        let (asks, asked) = request.asks(gate).map_err(wrong)?;
        let by = above.as_ref().map_or("the door", |a| a.agent.name.as_str());
        let link = (asks != Default::default()).then(|| Link::request(by, asks));
        let ceiling = above.as_ref().map_or(door, |a| &a.authority.delegate);
        let authority = RunAuthority::spawn(ceiling, agent.policy(), link).map_err(|too_wide| {
            let names: Vec<&str> = too_wide.components.iter().map(|c| c.as_str()).collect();
            Denial {
                rule: format!("the request is wider than {by} may give: {}", names.join(", ")),
                who: Some(format!("agent {by}")),
                allowed: "ask for no more than this run may give, or leave policy out".into(),
                place: above.as_ref().map(|a| a.agent.place.clone()),
                fix: Some(format!("widen subagent_policy of agent {by}")),
            }
        })?;
        let tables = above.as_ref().map_or(policy.root_limits.meet(*limits), |a| a.agent.subagent_limits);
        let own = tables.meet(agent.limits).meet(asked);
        let all = above.as_ref().map_or(own, |a| a.all.meet(own));
        above = Some(Within { agent, authority, own, all });
    }
    above.ok_or_else(|| wrong("the run has no agent".into()))
}

/// A caller under the policy as it is now: whoever stands at a door, or a run, down the same way
/// as before. One without an origin stays as it is.
///
/// # Errors
/// Why there is nobody there any more.
pub fn renewed(gate: &dyn Gate, caller: &Caller) -> Result<Caller, Denial> {
    let Some(origin) = &caller.origin else { return Ok(caller.clone()) };
    let policy = gate.policy();
    let door = gate.door(&caller.principal, &origin.place).ok_or_else(|| gone(&caller.principal))?;
    let RunAuthority { use_, delegate } = match origin.lineage.first() {
        None => RunAuthority { delegate: door.0.clone(), use_: door.0 },
        Some(root) => {
            may_have(gate, &caller.principal, &origin.place, root)?;
            authority(&policy, gate, &door, &origin.lineage)?.authority
        }
    };
    let origin = Origin::new(&policy, &origin.place, &origin.lineage);
    let fresh = Caller::new(&caller.principal, &caller.who, use_).from(origin).through(&caller.door);
    let mut fresh = fresh.giving(&delegate);
    fresh.run.clone_from(&caller.run);
    (fresh.rest, fresh.runs) = (caller.rest, caller.runs);
    Ok(fresh)
}

pub(super) fn gone(principal: &str) -> Denial {
    Denial::plain(format!("the client {principal} may not come in any more"), "the run cannot go on")
}

/// Whether a principal may have a root run of the agent a lineage begins with.
pub(super) fn may_have(gate: &dyn Gate, principal: &str, place: &str, root: &Step) -> Result<(), Denial> {
    let agent = Name::try_from(root.agent.as_str()).ok();
    match agent.filter(|agent| !gate.may_start(principal, place, agent)) {
        None => Ok(()),
        Some(agent) => {
            let why = format!("the client {principal} may not start {agent} any more");
            Err(Denial::plain(why, "the run cannot go on"))
        }
    }
}

/// Whether a run with this authority may start that agent.
pub(super) fn may_spawn(parent: &Authority, agent: Name, facts: TreeFacts) -> Result<(), Denial> {
    match decide::spawn(parent, agent, facts) {
        Verdict::Allow(permit, _) => {
            permit.redeem();
            Ok(())
        }
        Verdict::Ask(question) => Err(question.refuse("a spawn cannot wait")),
        Verdict::Deny(denial) => Err(denial),
    }
}

pub(super) fn wrong(why: String) -> Denial {
    Denial::plain(format!("Agent: {why}"), "correct the call and try again")
}
