//! How many clients may be connected at once. A connection is a descriptor, and so is whatever a
//! call needs behind it; clients take half of them at most, or those who came first would keep the
//! calls of all from being made. When every seat is taken, whoever has been idle longest gives way.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// So long is waited for somebody to give way, before the next one is asked.
const BREATH: Duration = Duration::from_secs(1);
/// What a process may have open where the kernel does not say.
const USUAL: usize = 1_024;

/// The seats.
pub(super) struct Seats {
    free: Arc<Semaphore>,
    most: usize,
    /// Heard by the sleeper who waits longest.
    wanted: Notify,
}

impl Seats {
    pub(super) fn of(most: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(most)), most, wanted: Notify::new() }
    }
    /// As many as this process can have.
    pub(super) fn here() -> Self {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self::of((descriptors(&limits).unwrap_or(USUAL) / 2).clamp(1, Semaphore::MAX_PERMITS))
    }
    /// One for another client, once there is one.
    pub(super) async fn take(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(seat) = self.free.clone().try_acquire_owned() {
                return seat;
            }
            self.give_way();
            match tokio::time::timeout(BREATH, self.free.clone().acquire_owned()).await {
                Ok(Ok(seat)) => return seat,
                // Nobody closes it.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => tracing::warn!(
                    "a client waits: {} are connected and none of them is idle; half of what \
                     `ulimit -Hn` allows, at most of 65,536, is for clients",
                    self.most
                ),
            }
        }
    }
    /// Asks the one who has been idle longest to leave.
    pub(super) fn give_way(&self) {
        self.wanted.notify_one();
    }
    /// Returns when the seat of whoever waits for it is wanted.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

/// The soft limit of open files.
fn descriptors(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let soft = line.split_whitespace().next()?;
    if soft == "unlimited" { Some(usize::MAX) } else { soft.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_many() {
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax processes   7   8   processes\nMax open files            256                  4096                 files\n";
        assert_eq!(descriptors(limits), Some(256));
        assert_eq!(descriptors("Max open files   unlimited   unlimited   files"), Some(usize::MAX));
        assert_eq!(descriptors(""), None);
        assert!(Seats::here().most > 1);
    }
}
