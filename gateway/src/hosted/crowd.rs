//! How much of one thing each client has at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a client may have of one thing at a time, unless it is said otherwise.
const CROWD: usize = 64;

/// How many of one thing each client has.
pub(crate) struct Crowd {
    most: usize,
    now: Mutex<HashMap<Arc<str>, usize>>,
}

impl Default for Crowd {
    fn default() -> Self {
        Self::of(CROWD)
    }
}

/// One of them, until dropped.
pub(crate) struct Place(Arc<Crowd>, Arc<str>);

impl Crowd {
    /// So many of it at most.
    pub(crate) fn of(most: usize) -> Self {
        Self { most, now: Mutex::default() }
    }
    /// One more, unless there are too many.
    pub(crate) fn enter(self: &Arc<Self>, who: &Arc<str>) -> Option<Place> {
        let mut all = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(who.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place(self.clone(), who.clone()))
    }
    /// All of everybody's.
    pub(crate) fn len(&self) -> usize {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}
