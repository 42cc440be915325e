//! What a run is: its id, its place in the tree, its state as others see it.

use crate::event::Step;
use policies::authority::Authority;
use policies::resolve::{Limits, Policy};
use std::fmt;
use std::sync::{Arc, Weak};

/// The id of a run: unguessable, short enough to type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(Arc<str>);

impl RunId {
    /// A new id of 80 random bits.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn fresh() -> Result<Self, getrandom::Error> {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes)?;
        let text: String = bytes.iter().map(|b| DIGITS[usize::from(b & 31)] as char).collect();
        Ok(Self(format!("r-{text}").into()))
    }
    /// An id as it was written down.
    pub fn known(text: &str) -> Self {
        Self(text.into())
    }
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The last characters, for people.
    pub fn short(&self) -> &str {
        &self.0[self.0.len().saturating_sub(4)..]
    }
}
impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The state of a run as others see it.
///
/// ```text
/// queued ─▶ thinking ─▶ acting ─▶ thinking … ─▶ completed
///    │          │          │  └─▶ waiting (for a person) ─▶ acting
///    └──────────┴──────────┴────▶ failed | cancelled | over_budget | rejected
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Created; waits for its turn among its siblings.
    Queued,
    /// The model is asked.
    Thinking,
    /// Tools run.
    Acting,
    /// A person is asked.
    Waiting,
    /// Done, with an answer.
    Completed,
    /// Ended by an error.
    Failed,
    /// Ended by whoever may.
    Cancelled,
    /// Ended by a limit.
    OverBudget,
    /// Refused before it began.
    Rejected,
}

impl State {
    /// All states.
    pub const ALL: [State; 9] = [
        State::Queued,
        State::Thinking,
        State::Acting,
        State::Waiting,
        State::Completed,
        State::Failed,
        State::Cancelled,
        State::OverBudget,
        State::Rejected,
    ];
    /// The word in the journal and in `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Thinking => "thinking",
            State::Acting => "acting",
            State::Waiting => "waiting",
            State::Completed => "completed",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::OverBudget => "over_budget",
            State::Rejected => "rejected",
        }
    }
    /// Reads the word.
    pub fn from_word(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|s| s.as_str() == word)
    }
    /// Whether nothing follows.
    pub fn is_end(self) -> bool {
        matches!(self, State::Completed | State::Failed | State::Cancelled | State::OverBudget | State::Rejected)
    }
}

/// Who acts: a principal with the authority it holds here. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The client, not its session; a run acts for the client that owns its root.
    pub principal: Arc<str>,
    /// For people: `client ci`, `run r-… (researcher)`.
    pub who: Arc<str>,
    /// What it may do.
    pub authority: Authority,
    /// What it may give, where that is something else.
    pub gives: Option<Authority>,
    /// What it may still spend, of a run that is about to call something.
    pub rest: Limits,
    /// How many runs it may have begun elsewhere, of a run that is about to call something.
    pub runs: Option<u32>,
    /// Identifies the sandbox its grant compiles to: equal texts, equal sandboxes.
    pub sandbox: Arc<str>,
    /// How its authority came about; without it, it stands as it is.
    pub origin: Option<Origin>,
    /// The door it came through; of a run, its root's. For the record.
    pub door: Arc<str>,
    /// The run it is, if it is one. For the record.
    pub run: Option<Arc<str>>,
}

/// How an authority came about, so that it can be worked out again when the policy is another.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The policy it is of.
    policy: Weak<Policy>,
    /// The door, in its own words ([`crate::ports::Gate::door`]).
    pub place: Arc<str>,
    /// From the door down to a run; empty for whoever stands at the door.
    pub lineage: Arc<[Step]>,
}

impl Origin {
    /// Of this policy, through that door, down these steps.
    pub fn new(policy: &Arc<Policy>, place: &str, lineage: &[Step]) -> Self {
        Self { policy: Arc::downgrade(policy), place: place.into(), lineage: lineage.into() }
    }
    /// Whether it is of this policy.
    pub fn is_of(&self, policy: &Arc<Policy>) -> bool {
        self.policy.as_ptr() == Arc::as_ptr(policy)
    }
}

impl Caller {
    /// A caller; works out which sandbox its grant means.
    pub fn new(principal: &str, who: &str, authority: Authority) -> Self {
        let grant = authority.grant();
        // Only what the sandbox and its way out depend on.
        let sandbox = format!(
            "{:?} {:?} {:?} {:?} {:?}",
            grant.filesystem, grant.domains, grant.networks, grant.sandbox, grant.max_access
        );
        Self {
            principal: principal.into(),
            who: who.into(),
            authority,
            gives: None,
            rest: Limits::NONE,
            runs: None,
            sandbox: sandbox.into(),
            origin: None,
            door: "".into(),
            run: None,
        }
    }
    /// The same, with how its authority came about.
    pub fn from(self, origin: Origin) -> Self {
        // What a door remembers of who stands there is not its name.
        let door = origin.place.split(' ').next().unwrap_or_default().into();
        Self { origin: Some(origin), door, ..self }
    }
    /// The same with what it may give.
    pub fn giving(mut self, delegate: &Authority) -> Self {
        self.gives = (*delegate != self.authority).then(|| delegate.clone());
        self
    }
    /// What it may give.
    pub fn may_give(&self) -> &Authority {
        self.gives.as_ref().unwrap_or(&self.authority)
    }
    /// How deep a run of its own making would lie; whoever stands at a door makes roots.
    pub fn depth_below(&self) -> u32 {
        let steps = self.origin.as_ref().map_or(0, |origin| origin.lineage.len());
        u32::try_from(steps).unwrap_or(u32::MAX)
    }
    /// The same through a door.
    pub fn through(mut self, door: &str) -> Self {
        self.door = door.split(' ').next().unwrap_or_default().into();
        self
    }
}
