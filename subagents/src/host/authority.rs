//! What a run may do: worked out in one function, for every path that creates a run or goes on
//! with one (start, spawn, background, resume, follow-up, fork), under the policy as it is now.

use crate::event::Step;
use crate::ports::Gate;
use crate::run::{Caller, RunId};
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
}

impl Standing {
    pub(super) fn new(policy: Arc<Policy>, within: Within, (principal, door): (&str, &str), id: &RunId) -> Self {
        let who = format!("run {id} ({})", within.agent.name);
        let mut caller = Caller::new(principal, &who, within.authority.use_.clone()).through(door);
        caller.run = Some(id.as_str().into());
        Self { policy, agent: within.agent, caller }
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
    /// The counted limits that its last spawn's `policy` asked for.
    pub(super) asked: Limits,
}

/// Walks from the door down: each step is judged as a spawn by the one above it. A lineage has
/// at least one step; its first is the root run.
pub(super) fn authority(
    policy: &Policy,
    gate: &dyn Gate,
    door: &Authority,
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
        above = Some(Within { agent, authority, asked });
    }
    above.ok_or_else(|| wrong("the run has no agent".into()))
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
