//! The policy as it is now. Whoever decides asks [`Live::now`] at the decision and keeps nothing
//! of the answer for the next one.
//!
//! ```text
//!  in force ─(the file, or what it names, looks different)─▶ settling ─(twice alike)─▶ read
//!      ▲                                                       │  ▲                      │
//!      │                                                       └──┘ different again      │
//!      ├──── broken: said loudly, once for each content; the old one stands ◀────────────┤
//!      ├──── nobody gets wider: in force at once ◀───────────────────────────────────────┤
//!      └──── somebody does: in force when the files were left alone for a second ◀───────┘
//! ```
//!
//! A file that is being written can hold by chance and lack its last tables, so what widens waits
//! until nobody writes; what narrows does not. The change itself is one step for whoever decides
//! ([`Live::hold`]): a call is judged under the one policy or the other, never under half of each.

mod look;
mod take;
pub(crate) mod watch;

use crate::auth::Hops;
use crate::settings::Loaded;
use adapters::token::Granter;
use policies::permit::Denial;
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak};
use subagents::host;
use subagents::ports::Gate;
use subagents::run::Caller;
use tokio::sync::watch as channel;

/// The key of grants, in the state folder.
pub(crate) const GRANTS: &str = "grants.key";

/// The policy file in force, and word of the next one.
pub(crate) struct Live {
    now: channel::Sender<Arc<Loaded>>,
    /// Written while the policy changes, read while somebody decides.
    turn: RwLock<()>,
    /// Works out authorities under the policy in force.
    gate: OnceLock<Weak<dyn Gate>>,
    /// The key of grants given here, once somebody needed it; `None` where there can be none.
    granter: OnceLock<Option<Arc<Granter>>>,
    /// What was given along to call back with.
    pub(crate) hops: Arc<Hops>,
    pub(crate) counts: Counts,
}

/// What became of changes, for `/metrics`.
#[derive(Default)]
pub(crate) struct Counts {
    /// Taken.
    pub(crate) taken: AtomicU64,
    /// Refused.
    pub(crate) refused: AtomicU64,
    /// What stands in the file is not what is in force.
    pub(crate) behind: AtomicBool,
}

impl Live {
    /// With what was read at start.
    pub(crate) fn new(loaded: Arc<Loaded>) -> Arc<Self> {
        Arc::new(Self {
            now: channel::Sender::new(loaded),
            turn: RwLock::default(),
            gate: OnceLock::new(),
            granter: OnceLock::new(),
            hops: Arc::default(),
            counts: Counts::default(),
        })
    }
    /// What is in force.
    pub(crate) fn now(&self) -> Arc<Loaded> {
        self.now.borrow().clone()
    }
    /// Gives grants for other gateways, and for those who come back with one; made when it is first
    /// needed.
    pub(crate) fn granter(&self) -> Option<&Arc<Granter>> {
        let load = || match Granter::load(&self.now().state.join(GRANTS)) {
            Ok(granter) => Some(Arc::new(granter)),
            Err(why) => {
                tracing::error!("no grants can be given: {why}");
                None
            }
        };
        self.granter.get_or_init(load).as_ref()
    }
    /// Told when something else is.
    pub(crate) fn changes(&self) -> channel::Receiver<Arc<Loaded>> {
        self.now.subscribe()
    }
    /// Whether it ever changed.
    pub(crate) fn has_changed(&self) -> bool {
        self.counts.taken.load(Ordering::Acquire) > 0
    }
    /// Who works out authorities; without it every caller stays what it is.
    pub(crate) fn worked_out_by(&self, gate: Weak<dyn Gate>) {
        let _ = self.gate.set(gate);
    }
    /// While this is held the policy does not change. Never across an await, never twice.
    pub(crate) fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.turn.read().unwrap_or_else(PoisonError::into_inner)
    }
    /// Puts another policy in force, and has `adopt` make everything else follow, in one step for
    /// whoever decides.
    fn swap(&self, loaded: Arc<Loaded>, adopt: impl FnOnce(&Loaded, &Loaded)) {
        let _alone = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        let before = self.now();
        self.counts.taken.fetch_add(1, Ordering::AcqRel);
        self.now.send_replace(loaded.clone());
        adopt(&before, &loaded);
    }
    /// A caller under the policy in force, worked out anew.
    ///
    /// # Errors
    /// Why it is nobody any more.
    pub(crate) fn again(&self, caller: &Caller) -> Result<Caller, Denial> {
        match self.gate.get().and_then(Weak::upgrade) {
            Some(gate) => host::renewed(&*gate, caller),
            None => Ok(caller.clone()),
        }
    }
    /// The same, as it is where it is of that policy already.
    ///
    /// # Errors
    /// Why it is nobody any more.
    pub(crate) fn current<'a>(&self, caller: &'a Caller) -> Result<Cow<'a, Caller>, Denial> {
        match &caller.origin {
            Some(origin) if !origin.is_of(&self.now.borrow().policy) => self.again(caller).map(Cow::Owned),
            _ => Ok(Cow::Borrowed(caller)),
        }
    }
}
