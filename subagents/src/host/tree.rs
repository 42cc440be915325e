//! A tree while somebody works on it: its runs, its ledger, its lease; `commit` is where it changes.

use super::authority::{self, Standing};
use super::run::{Log, Run};
use super::{Approvals, HostError, Ports};
use crate::event::{Event, Started, Step};
use crate::ledger::{Ledger, Spent};
use crate::ports::{Lease, Loaded};
use crate::run::{Origin, RunId};
use policies::authority::Authority;
use policies::permit::Denial;
use policies::resolve::{Limits, Policy};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What a door allows its client: the authority, and the counted limits.
pub(super) type Door = (Authority, Limits);

/// What the runs of one tree share.
pub(crate) struct Tree {
    pub(crate) root: RunId,
    pub(super) lease: Lease,
    pub(crate) principal: Arc<str>,
    /// The door in its own words.
    pub(super) place: Arc<str>,
    pub(super) approvals: Approvals,
    /// Held by whoever is about to ask for an approval.
    pub(super) asking: tokio::sync::Mutex<()>,
    /// It began with a client's message.
    pub(crate) inbound: bool,
    /// Its journal does not say how its door is opened again.
    old: bool,
    /// The door's authority and counted limits, and the policy they are of.
    door: Mutex<Option<(Arc<Policy>, Door)>>,
    runs: Mutex<BTreeMap<RunId, Arc<Run>>>,
    /// The children of each.
    children: Mutex<BTreeMap<RunId, Vec<Arc<Run>>>>,
    /// Whether what begins or goes on now is paused at once: a pause is on its way through the
    /// tree, or has been.
    pub(super) paused: AtomicBool,
    /// Held by the host's count of trees.
    _counted: Option<Arc<()>>,
    /// Runs there are and are about to be: counted before one is made.
    pub(super) total: AtomicU32,
    pub(crate) ledger: Ledger,
    /// Ends everything: every run's token is below it.
    pub(super) cancel: CancellationToken,
    /// Why nothing more may be written.
    broken: OnceLock<HostError>,
    /// Whether commands are still taken, and whether one came since the tree was looked at.
    pub(super) gate: tokio::sync::Mutex<Gate>,
    /// Something changed that the tree's own driver must see.
    pub(super) wake: Notify,
    /// Nobody works on it here any more.
    pub(super) closed: CancellationToken,
}

pub(super) struct Gate {
    pub(super) open: bool,
    pub(super) dirty: bool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tree {
    pub(super) fn new(
        lease: Lease,
        principal: Arc<str>,
        place: Arc<str>,
        approvals: Approvals,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            root: lease.root.clone(),
            lease,
            principal,
            place,
            approvals,
            asking: tokio::sync::Mutex::default(),
            inbound: false,
            old: false,
            door: Mutex::new(None),
            runs: Mutex::default(),
            children: Mutex::default(),
            paused: AtomicBool::new(false),
            _counted: None,
            total: AtomicU32::new(0),
            ledger: Ledger::default(),
            cancel,
            broken: OnceLock::new(),
            gate: tokio::sync::Mutex::new(Gate { open: true, dirty: false }),
            wake: Notify::new(),
            closed: CancellationToken::new(),
        }
    }
    /// A tree as its journal says: every run folded, every budget counted.
    pub(super) fn rebuilt(lease: Lease, loaded: Vec<Loaded>, cancel: CancellationToken) -> Result<Self, HostError> {
        let refuse = |why: &str| HostError::Refused(why.to_owned());
        let root = loaded.iter().find(|l| l.row.run == lease.root).ok_or_else(|| refuse("there is no such run"))?;
        let Some(Event::Started(first)) = root.records.first().map(|r| &r.event) else {
            return Err(refuse("the run was refused before it began; start a new one"));
        };
        // Trees of the first version name no door: they can be read, and no more than that.
        let place = first.door.as_deref().unwrap_or_default();
        let approvals = first.nobody.as_deref().map_or(Approvals::Park, |why| Approvals::Nobody(why.into()));
        let mut tree = Self::new(lease, first.principal.as_str().into(), place.into(), approvals, cancel);
        tree.old = first.door.is_none();
        tree.inbound = first.inbound.is_some();
        for Loaded { row, records } in loaded {
            let Some(Event::Started(started)) = records.first().map(|r| &r.event) else { continue };
            let parent = started.parent.as_deref().map(RunId::known);
            let run = Run::new(row.run.clone(), parent, tree.lineage(started), row.started);
            let mut log = Log::new(row.started);
            for record in &records {
                log.apply(record.at, &record.event);
                if record.seq != log.seq {
                    let why = format!("the journal of run {} has no event {}", row.run, log.seq);
                    return Err(HostError::Journal(why));
                }
            }
            let mut spent = Spent {
                turns: log.state.turns.into(),
                tool_calls: log.state.tool_calls.into(),
                ..log.state.spent().into()
            };
            spent.add(log.state.elsewhere.into());
            tree.total.fetch_add(log.state.elsewhere.runs, Ordering::AcqRel);
            tree.ledger.add(&run.id, run.parent.as_ref(), &started.budget.unwrap_or_default(), spent);
            if log.state.paused && !log.state.phase().is_end() {
                tree.paused.store(true, Ordering::Release);
            }
            if let Ok(mut slot) = run.log.try_lock() {
                *slot = log;
            }
            tree.insert(run);
        }
        Ok(tree)
    }
    /// Whether it can be gone on with.
    pub(super) fn goes_on(&self) -> Result<(), HostError> {
        match self.old {
            false => Ok(()),
            true => Err(HostError::Refused(
                "the run was made by a version that could not go on with one; it can be shown, and a new one started"
                    .into(),
            )),
        }
    }
    pub(super) fn count(&mut self, counted: Arc<()>) {
        self._counted = Some(counted);
    }
    /// From the door down to a run: its parent's way, or the one its fork brought along.
    fn lineage(&self, started: &Started) -> Vec<Step> {
        let parent = started.parent.as_deref().and_then(|p| self.run(&RunId::known(p)));
        let mut steps = parent.map_or_else(|| started.lineage.clone(), |p| p.lineage.clone());
        steps.push(Step { agent: started.agent.clone(), request: started.request.clone() });
        steps
    }
    pub(super) fn insert(&self, run: Arc<Run>) {
        if let Some(parent) = &run.parent {
            lock(&self.children).entry(parent.clone()).or_default().push(run.clone());
        }
        lock(&self.runs).insert(run.id.clone(), run);
        self.total.fetch_add(1, Ordering::AcqRel);
    }
    pub(crate) fn run(&self, id: &RunId) -> Option<Arc<Run>> {
        lock(&self.runs).get(id).cloned()
    }
    /// All runs, parents before children.
    pub(crate) fn all(&self) -> Vec<Arc<Run>> {
        let mut runs: Vec<_> = lock(&self.runs).values().cloned().collect();
        runs.sort_by(|a, b| (a.depth(), &a.id).cmp(&(b.depth(), &b.id)));
        runs
    }
    /// The runs above one, nearest first.
    pub(crate) fn above(&self, run: &Run) -> Vec<Arc<Run>> {
        let mut out = Vec::new();
        let mut at = run.parent.clone();
        while let Some(parent) = at.and_then(|id| self.run(&id)) {
            at = parent.parent.clone();
            out.push(parent);
        }
        out
    }
    /// The runs below one, parents before children.
    pub(crate) fn below(&self, run: &RunId) -> Vec<Arc<Run>> {
        let children = lock(&self.children);
        let of = |run: &RunId| children.get(run).cloned().unwrap_or_default();
        let mut out = of(run);
        let mut at = 0;
        while let Some(next) = out.get(at).map(|r| of(&r.id)) {
            out.extend(next);
            at += 1;
        }
        out
    }
    /// Tells a run's driver, and those that may have put it down, to look again.
    pub(super) fn wake(&self, run: &Run) {
        run.wake.notify_one();
        for above in self.above(run) {
            above.wake.notify_one();
        }
        self.wake.notify_one();
    }

    /// Why nothing more may be written, if so.
    pub(super) fn broken(&self) -> Option<HostError> {
        self.broken.get().cloned()
    }
    /// Stops everything at once, without an end in any journal.
    pub(super) fn break_off(&self, why: HostError) -> HostError {
        let why = self.broken.get_or_init(|| why).clone();
        self.cancel.cancel();
        self.wake.notify_one();
        why
    }

    /// Fixes what the door allows, under the policy it was asked under.
    pub(super) fn set_door(&self, policy: Arc<Policy>, door: Door) {
        *lock(&self.door) = Some((policy, door));
    }
    fn door(&self, ports: &Ports, policy: &Arc<Policy>) -> Result<Door, Denial> {
        let mut door = lock(&self.door);
        match &*door {
            Some((of, door)) if Arc::ptr_eq(of, policy) => Ok(door.clone()),
            _ => {
                let now =
                    ports.gate.door(&self.principal, &self.place).ok_or_else(|| authority::gone(&self.principal))?;
                *door = Some((policy.clone(), now.clone()));
                Ok(now)
            }
        }
    }
    /// A run's standing under the policy as it is now: worked out again when that changed.
    pub(crate) fn standing(&self, ports: &Ports, run: &Run) -> Result<Arc<Standing>, Denial> {
        let policy = ports.gate.policy();
        let mut standing = lock(&run.standing);
        if let Some(known) = standing.as_ref().filter(|s| Arc::ptr_eq(&s.policy, &policy)) {
            return Ok(known.clone());
        }
        let within = self.within(ports, &policy, &run.lineage)?;
        let origin = Origin::new(&policy, &self.place, &run.lineage);
        let fresh = Arc::new(Standing::new(policy, within, (&self.principal, origin), &run.id));
        // What its model is shown is what it may do now.
        if standing.replace(fresh.clone()).is_some() {
            *lock(&run.shown) = None;
        }
        Ok(fresh)
    }
    pub(super) fn within(
        &self,
        ports: &Ports,
        policy: &Arc<Policy>,
        lineage: &[Step],
    ) -> Result<authority::Within, Denial> {
        if let Some(root) = lineage.first() {
            authority::may_have(&*ports.gate, &self.principal, &self.place, root)?;
        }
        authority::authority(policy, &*ports.gate, &self.door(ports, policy)?, lineage)
    }
}
