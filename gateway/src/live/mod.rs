//! The policy as it is now. Whoever decides asks [`Live::now`] at the decision and keeps nothing
//! of the answer for the next one.

use crate::settings::Loaded;
use std::sync::Arc;
use tokio::sync::watch;

/// The policy file in force, and word of the next one.
#[derive(Debug)]
pub(crate) struct Live(watch::Sender<Arc<Loaded>>);

impl Live {
    /// With what was read at start.
    pub(crate) fn new(loaded: Arc<Loaded>) -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(loaded)))
    }
    /// What is in force.
    pub(crate) fn now(&self) -> Arc<Loaded> {
        self.0.borrow().clone()
    }
}
