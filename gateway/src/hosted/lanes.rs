//! What is asked for under one name is taken one after another: the second finds what the first began.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use tokio::sync::{Mutex, MutexGuard};

/// That many names at a time.
const LANES: usize = 64;

/// The lanes of a door.
pub(crate) struct Lanes(Vec<Mutex<()>>);

impl Default for Lanes {
    fn default() -> Self {
        Self((0..LANES).map(|_| Mutex::default()).collect())
    }
}

impl Lanes {
    /// Waits for the turn of a principal's name; it lasts until dropped.
    pub(crate) async fn turn(&self, principal: &str, name: &str) -> MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((principal, name));
        self.0[usize::try_from(hash % LANES as u64).unwrap_or(0)].lock().await
    }
}
