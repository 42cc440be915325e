//! What was given along to call back with, as long as what it was given for goes on. It is known in
//! the process that gave it and in no other, so at its end nothing that was given is good any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// What a token that is given along goes with: this and a name.
const CALLBACK: &str = "callback ";

/// All that goes on over there.
#[derive(Default)]
pub(crate) struct Hops {
    /// Somebody who comes back would find a door.
    serves: AtomicBool,
    open: Mutex<HashMap<String, CancellationToken>>,
}

/// One call that has something done over there; dropping it ends what was given along.
pub(crate) struct Hop {
    hops: Arc<Hops>,
    name: String,
}

impl Hops {
    /// From now on there is a door to come back to.
    pub(crate) fn serve(&self) {
        self.serves.store(true, Ordering::Release);
    }
    /// Begins one; `None` where nobody could come back.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Hop> {
        if !self.serves.load(Ordering::Acquire) {
            return None;
        }
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes).ok()?;
        let name = policies::json::digest(&format!("{bytes:?}"));
        self.lock().insert(name.clone(), CancellationToken::new());
        Some(Hop { hops: self.clone(), name })
    }
    /// What tells the end of the one a token goes with, if it still goes on.
    pub(crate) fn end_of(&self, goes_with: &str) -> Option<CancellationToken> {
        self.lock().get(goes_with.strip_prefix(CALLBACK)?).cloned()
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hop {
    /// What a token for it goes with.
    pub(crate) fn goes_with(&self) -> String {
        format!("{CALLBACK}{}", self.name)
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        let ended = self.hops.lock().remove(&self.name);
        ended.inspect(CancellationToken::cancel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_good_while_it_goes_on_and_where_somebody_serves() {
        let hops = Arc::new(Hops::default());
        assert!(hops.begin().is_none());
        hops.serve();
        let (one, other) = (hops.begin().unwrap(), hops.begin().unwrap());
        let (first, second) = (one.goes_with(), other.goes_with());
        assert_ne!(first, second);
        let end = hops.end_of(&first).unwrap();
        assert!(hops.end_of(&second).is_some() && !end.is_cancelled());
        drop(one);
        assert!(end.is_cancelled() && hops.end_of(&first).is_none() && hops.end_of(&second).is_some());
        assert!(hops.end_of(&second[CALLBACK.len()..]).is_none());
    }
}
