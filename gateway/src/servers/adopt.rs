//! Another policy is in force: what still fits it goes on as it is, everything else is ended.
//!
//! | server | its instances |
//! |---|---|
//! | as before, whatever else is said of it | stay |
//! | another command, address, variable, folder | are used no more; calls under way finish |
//! | not registered any more | the same, and its tools are gone |
//!
//! | instance of a server that stays | |
//! |---|---|
//! | its caller would have the same sandbox now | stays |
//! | a wider one | is used no more; calls under way finish |
//! | a narrower one, or is nobody any more | **ends at once**, with every connection it has open |
//!
//! Each instance is looked at again whenever somebody wants it under a policy it was not yet
//! looked at under, so nothing depends on who is faster.

use super::slot::Slot;
use super::{Entry, Servers, lock};
use crate::settings::Loaded;
use policies::grant::Grant;
use policies::names::Name;
use policies::resolve::ServerSpec;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

const CHANGED: &str = "the policy of this server was changed; call again";
const NARROWER: &str = "the policy was changed and the process no longer fits it; call again";

/// Whether a server is the same one, whatever is said of it.
fn same(old: &ServerSpec, new: &ServerSpec) -> bool {
    let is = |spec: &ServerSpec| {
        (spec.transport.clone(), spec.cwd.clone(), spec.runtime_paths.clone(), spec.unapproved.clone())
    };
    is(old) == is(new)
}

/// Whether a process under the one grant may do nothing it could not under the other.
fn narrower(was: &Grant, now: &Grant) -> bool {
    was.filesystem.within(&now.filesystem)
        && was.domains.within(&now.domains)
        && was.networks.within(&now.networks)
        && was.max_access <= now.max_access
        && was.sandbox >= now.sandbox
}

impl Servers {
    /// Registers what the policy in force registers. To be called while nobody decides
    /// ([`crate::live::Live::swap`]).
    pub(crate) fn adopt(&self, before: &Loaded, after: &Loaded) {
        let specs = &after.policy.servers;
        let known = self.entries();
        let mut entries: BTreeMap<Name, Arc<Entry>> = BTreeMap::new();
        let mut reworded = Vec::new();
        for (name, spec) in specs {
            let entry = match known.get(name).filter(|entry| same(&entry.spec(), spec)) {
                Some(entry) => {
                    let known = entry.spec();
                    if (&known.words, &known.pinned) != (&spec.words, &spec.pinned) {
                        reworded.push(name.clone());
                    }
                    *entry.spec.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(spec.clone());
                    entry.clone()
                }
                None => Entry::new(spec, &self.stop),
            };
            entries.insert(name.clone(), entry);
        }
        let stays = |old: &Arc<Entry>| entries.get(&old.name).is_some_and(|new| Arc::ptr_eq(old, new));
        let replaced: Vec<Arc<Entry>> = known.values().filter(|old| !stays(old)).cloned().collect();
        for old in &replaced {
            old.gone.store(true, Ordering::Release);
        }
        let forgotten: Vec<Name> = replaced.iter().map(|old| old.name.clone()).collect();
        *self.entries.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(entries);
        self.manifests.adopt(specs, &forgotten, &reworded);
        self.offered.adopt(specs, &forgotten);
        for old in replaced {
            std::mem::take(&mut *lock(&old.slots)).into_values().for_each(|slot| slot.let_go(CHANGED));
        }
        // A process that sees a file which is policy now could write it.
        let seen = before.own() != after.own();
        for entry in self.entries().values() {
            let slots: Vec<Arc<Slot>> = lock(&entry.slots).values().cloned().collect();
            for slot in slots {
                if seen && entry.spec().transport.is_process() {
                    slot.withdraw(NARROWER);
                    entry.remove(&slot);
                } else {
                    let _ = self.fits(entry, &slot);
                }
            }
        }
    }

    /// Whether an instance is still what its caller's grant says. One that is not is ended.
    ///
    /// # Errors
    /// What whoever wanted it is told.
    pub(super) fn fits(&self, entry: &Entry, slot: &Slot) -> Result<(), String> {
        if let Some(why) = slot.over() {
            return Err(why.to_owned());
        }
        if entry.is_gone() {
            slot.let_go(CHANGED);
            return Err(CHANGED.into());
        }
        let policy = self.live.now().policy.clone();
        if slot.fits(&policy) {
            return Ok(());
        }
        let process = entry.spec().transport.is_process();
        let why = match self.live.again(&slot.caller) {
            Ok(now) if !process || now.sandbox == slot.caller.sandbox => {
                slot.found_to_fit(&policy);
                return Ok(());
            }
            Ok(now) if narrower(slot.caller.authority.grant(), now.authority.grant()) => {
                slot.let_go(NARROWER);
                NARROWER.to_owned()
            }
            Ok(_) => {
                slot.withdraw(NARROWER);
                NARROWER.to_owned()
            }
            Err(denial) => {
                slot.withdraw(&denial.for_model());
                denial.for_model()
            }
        };
        tracing::warn!(server = %entry.name, who = %slot.caller.who, "an instance is ended: {why}");
        entry.remove(slot);
        Err(why)
    }
}

impl Entry {
    fn remove(&self, slot: &Slot) {
        lock(&self.slots).retain(|_, other| !std::ptr::eq(Arc::as_ptr(other), slot));
    }
}
