//! Who asks at a door behind which runs are.

use crate::auth::Identity;
use policies::names::Name;
use policies::resolve::{Limits, Policy};
use std::collections::BTreeSet;
use subagents::run::Caller;

/// Who asks.
pub(crate) struct Who {
    /// Who it is; nobody in particular where anybody may ask.
    pub(crate) identity: Option<Identity>,
    pub(crate) caller: Caller,
    pub(crate) may_start: BTreeSet<Name>,
    pub(crate) limits: Limits,
    /// May answer for people: named so in the policy, or the anonymous one at the machine.
    pub(crate) can_approve: bool,
}

impl Who {
    /// Somebody who was identified at a door.
    pub(crate) fn of(identity: Identity, door: &str) -> Self {
        Self {
            caller: identity.caller(door),
            may_start: identity.policy.may_start(identity.client()),
            limits: identity.holds().1,
            can_approve: identity.can_approve(),
            identity: Some(identity),
        }
    }
    /// Who reads what everybody may.
    pub(crate) fn nobody(policy: &Policy) -> Self {
        let caller = Caller::new("", "nobody", policy.door(None));
        Self { identity: None, caller, may_start: BTreeSet::new(), limits: Limits::NONE, can_approve: false }
    }
    /// The door's word for where it stands.
    pub(crate) fn place(&self) -> std::sync::Arc<str> {
        self.caller.origin.as_ref().map_or_else(|| "".into(), |origin| origin.place.clone())
    }
    pub(crate) fn principal(&self) -> &str {
        &self.caller.principal
    }
}
