//! The two equations: no ceiling ever rises, on any tree.

use crate::universe::{Want, grant, narrowing, wants};
use policies::authority::{AgentPolicy, Authority, Link, RunAuthority, Sources};
use policies::grant::{Component, Narrowing};
use policies::permission::Access;
use proptest::prelude::*;
use std::sync::Arc;

fn agent(name: &str, policy: Narrowing, over: Option<Narrowing>) -> AgentPolicy {
    AgentPolicy {
        who: name.into(),
        policy: Arc::new(policy),
        subagent_policy: over.map(Arc::new),
        sources: Arc::default(),
        subagent_sources: Arc::default(),
    }
}
fn door(grant: policies::grant::Grant) -> Authority {
    Authority::root(Arc::new(grant), Arc::new(Sources::default()), None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// On every chain: use(c) and delegate(c) within delegate(p) within the root.
    #[test]
    fn children_stay_within_what_their_parent_may_give(
        root in grant(),
        chain in prop::collection::vec((narrowing(), prop::option::of(narrowing()), prop::option::of(narrowing())), 1..5),
    ) {
        let mut parent = door(root.clone());
        let wants = wants();
        for (policy, over, request) in chain {
            let request = request.map(|asks| Link::request("parent", asks));
            let spec = agent("a", policy, over);
            let run = match RunAuthority::spawn(&parent, &spec, request.clone()) {
                Ok(run) => run,
                Err(too_wide) => {
                    // Refused exactly when the request itself exceeds what the parent may give.
                    let asked = parent.grant().asked(&request.clone().unwrap().asks);
                    prop_assert_eq!(too_wide.components, asked.exceeds(parent.grant()));
                    RunAuthority::spawn(&parent, &spec, None).unwrap()
                }
            };
            prop_assert!(run.use_.grant().within(parent.grant()));
            prop_assert!(run.delegate.grant().within(parent.grant()));
            prop_assert!(run.delegate.grant().within(&root));
            for want in &wants {
                prop_assert!(!want.granted(run.use_.grant()) || want.granted(&root), "{:?}", want);
            }
            parent = run.delegate;
        }
    }

    /// Without a subagent table, what a run may give is what it may do.
    #[test]
    fn without_a_subagent_policy_delegate_is_use(root in grant(), policy in narrowing()) {
        let run = RunAuthority::spawn(&door(root), &agent("a", policy, None), None).unwrap();
        prop_assert_eq!(run.use_.grant(), run.delegate.grant());
    }
}

/// The example of the design: a coordinator that may only read hands a write to a worker.
#[test]
fn a_coordinator_may_give_what_it_may_not_do() {
    let mut root = policies::grant::Grant::nothing();
    root.max_access = Access::ReadWrite;
    let access = |a| Narrowing { max_access: Some(a), ..Narrowing::default() };
    let coordinator = agent("coordinator", access(Access::ReadOnly), Some(access(Access::Destructive)));
    let lead = RunAuthority::spawn(&door(root), &coordinator, None).unwrap();
    assert_eq!(lead.use_.grant().max_access, Access::ReadOnly);
    assert_eq!(lead.delegate.grant().max_access, Access::ReadWrite, "the root's ceiling holds");
    let writer = agent("writer", Narrowing::default(), None);
    let child = RunAuthority::spawn(&lead.delegate, &writer, None).unwrap();
    assert_eq!(child.use_.grant().max_access, Access::ReadWrite);

    let wider = Link::request("coordinator", access(Access::Destructive));
    let refused = RunAuthority::spawn(&lead.delegate, &writer, Some(wider)).unwrap_err();
    assert_eq!(refused.components, [Component::MaxAccess]);
    let narrower = Link::request("coordinator", access(Access::ReadOnly));
    let child = RunAuthority::spawn(&lead.delegate, &writer, Some(narrower)).unwrap();
    assert!(!Want::Class(Access::ReadWrite).granted(child.use_.grant()));
}
