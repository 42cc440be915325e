//! What is asked for under one name is taken one after another: the second finds what the first began.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OwnedMutexGuard;

/// A principal and a name.
type Key = (String, String);
type Lane = Arc<tokio::sync::Mutex<()>>;

/// The lanes of a door: one for each name that somebody is at. A turn may last as long as a person
/// takes to answer, so nobody waits for another name.
#[derive(Default)]
pub(crate) struct Lanes(Mutex<HashMap<Key, Lane>>);

/// A turn; it lasts until dropped.
pub(crate) struct Turn<'l> {
    lanes: &'l Lanes,
    key: Key,
    lane: Lane,
    held: Option<OwnedMutexGuard<()>>,
}

impl Lanes {
    /// Waits for the turn of a principal's name.
    pub(crate) async fn turn(&self, principal: &str, name: &str) -> Turn<'_> {
        let key = (principal.to_owned(), name.to_owned());
        let lane = self.lock().entry(key.clone()).or_default().clone();
        // Made before it waits: whoever leaves without a turn tidies up as well.
        let mut turn = Turn { lanes: self, key, lane, held: None };
        turn.held = Some(turn.lane.clone().lock_owned().await);
        turn
    }
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut lanes = self.lanes.lock();
        self.held = None;
        // The map's and this one: nobody else is there, and nobody comes while the map is held.
        if Arc::strong_count(&self.lane) == 2 {
            lanes.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn comes(turn: impl Future) -> bool {
        tokio::time::timeout(Duration::from_millis(50), turn).await.is_ok()
    }

    #[tokio::test]
    async fn one_name_is_one_lane_and_nothing_is_left() {
        let lanes = Lanes::default();
        let first = lanes.turn("alice", "m-1").await;
        assert!(!comes(lanes.turn("alice", "m-1")).await);
        for n in 0..200 {
            assert!(comes(lanes.turn("alice", &format!("n-{n}"))).await);
            assert!(comes(lanes.turn(&format!("bob-{n}"), "m-1")).await);
        }
        drop(first);
        assert!(comes(lanes.turn("alice", "m-1")).await);
        assert!(lanes.lock().is_empty());
    }
}
