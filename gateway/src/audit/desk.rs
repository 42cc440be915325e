//! Where records are handed in: who needs one written writes it himself, with all that waits,
//! unless somebody is at it already or it may take long; the thread does the rest.
//!
//! ```text
//!   record ─▶ desk ─┬─ writer free, nothing to sync, nobody else in the folder ─▶ written at once
//!   note ───▶ desk  └─ else ─▶ thread ─▶ written, synced ─▶ answered
//!               └───────────── after NOTES_AFTER at the latest ─▶ thread
//! ```
//!
//! Handing a record to a thread and waiting for it costs ten times what writing it does. What came
//! of a call is in no hurry: it goes with the next record.

use super::writer::{Message, Shared, Writer};
use super::{Failed, lock};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Batches somebody writes for others before the thread goes on with them.
const ROUNDS: usize = 4;
/// Records of one batch.
const MAX_BATCH: usize = 512;
/// What nobody waits for is written after so long.
const NOTES_AFTER: Duration = Duration::from_millis(10);
/// What needs no sync of its own waits no longer for one.
const SYNC_AFTER: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Pile {
    messages: Vec<Message>,
    /// One of them must be synced, or cannot be written at once: the thread is to come now.
    urgent: bool,
    /// When the thread is to come at the latest.
    due: Option<Instant>,
    closed: bool,
    /// The thread is gone, after its last batch.
    ended: bool,
}

impl Pile {
    fn take(&mut self) -> Vec<Message> {
        let n = self.messages.len().min(MAX_BATCH);
        self.urgent &= n < self.messages.len();
        self.messages.drain(..n).collect()
    }
    fn is_due_at(&mut self, at: Instant) -> bool {
        let sooner = self.due.is_none_or(|due| at < due);
        if sooner {
            self.due = Some(at);
        }
        sooner
    }
}

/// The desk, between everyone and the writer.
pub(super) struct Desk {
    pile: Mutex<Pile>,
    come: Condvar,
    writer: Mutex<Writer>,
    shared: Arc<Shared>,
}

impl Desk {
    pub(super) fn new(writer: Writer, shared: Arc<Shared>) -> Self {
        Self { pile: Mutex::default(), come: Condvar::new(), writer: Mutex::new(writer), shared }
    }
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Hands in a record that somebody waits for.
    pub(super) fn hand_in(&self, message: Message) -> Result<(), Failed> {
        let durable = message.durable;
        self.put(message, durable)?;
        if !durable {
            self.write_at_once();
        }
        Ok(())
    }
    /// Hands in a record that nobody waits for.
    pub(super) fn leave(&self, message: Message) -> Result<(), Failed> {
        self.put(message, false)
    }
    fn put(&self, message: Message, urgent: bool) -> Result<(), Failed> {
        let mut pile = lock(&self.pile);
        if pile.ended {
            return Err(Failed::ended());
        }
        pile.messages.push(message);
        if urgent {
            pile.urgent = true;
            self.come.notify_one();
        } else if pile.is_due_at(Instant::now() + NOTES_AFTER) {
            self.come.notify_one();
        }
        Ok(())
    }

    /// Writes what waits, if that is quick. Whoever is at it takes along what comes meanwhile: it
    /// looks again after it let go of the writer. Batches are taken by whoever holds the writer,
    /// so they are written in their order.
    fn write_at_once(&self) {
        for _ in 0..ROUNDS {
            let mut writer = match self.writer.try_lock() {
                Ok(writer) => writer,
                Err(TryLockError::Poisoned(writer)) => writer.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let mut pile = lock(&self.pile);
            // The thread was called: it takes all.
            if pile.urgent || pile.messages.is_empty() {
                return;
            }
            let batch = pile.take();
            drop(pile);
            let left = writer.write_quickly(batch);
            let mut pile = lock(&self.pile);
            if let Some(batch) = left {
                pile.messages.splice(0..0, batch);
                return self.call(&mut pile);
            }
            if writer.is_dirty() && pile.is_due_at(Instant::now() + SYNC_AFTER) {
                self.come.notify_one();
            }
        }
        // Others have written enough for others.
        let mut pile = lock(&self.pile);
        if !pile.messages.is_empty() {
            self.call(&mut pile);
        }
    }
    fn call(&self, pile: &mut Pile) {
        pile.urgent = true;
        self.come.notify_one();
    }

    /// The thread: comes when it is called or when something is due, and ends when the desk is
    /// closed and empty.
    pub(super) fn run(&self) {
        // However it ends, nobody waits for it afterwards.
        let _end = End(self);
        let mut dirty_since: Option<Instant> = None;
        loop {
            self.wait();
            let mut writer = lock(&self.writer);
            let (batch, closed) = {
                let mut pile = lock(&self.pile);
                let batch = pile.take();
                // What was too much for one batch is not forgotten.
                pile.due = (!pile.messages.is_empty()).then(Instant::now);
                (batch, pile.closed)
            };
            if !batch.is_empty() {
                writer.write(batch);
            }
            let now = Instant::now();
            dirty_since = writer.is_dirty().then(|| dirty_since.unwrap_or(now));
            if dirty_since.is_some_and(|since| closed || now >= since + SYNC_AFTER) {
                writer.settle();
                dirty_since = None;
            }
            let mut pile = lock(&self.pile);
            if closed && pile.messages.is_empty() {
                // With the writer: nobody has a batch in hand. What comes later is refused.
                pile.ended = true;
                return;
            }
            if let Some(since) = dirty_since {
                pile.is_due_at(since + SYNC_AFTER);
            }
            // Who handed in meanwhile found the writer taken, and waits.
            if !pile.messages.is_empty() {
                pile.is_due_at(now);
            }
        }
    }
    /// Until the thread is called, or something is due.
    fn wait(&self) {
        let mut pile = lock(&self.pile);
        loop {
            let now = Instant::now();
            if pile.urgent || pile.closed || pile.due.is_some_and(|due| due <= now) {
                return;
            }
            pile = match pile.due {
                None => self.come.wait(pile).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let waited = self.come.wait_timeout(pile, due - now);
                    waited.map_or_else(|e| e.into_inner().0, |(pile, _)| pile)
                }
            };
        }
    }

    /// Nothing more comes: the thread writes what is there and ends.
    pub(super) fn close(&self) {
        lock(&self.pile).closed = true;
        self.come.notify_one();
    }
    /// There is no thread, so nothing can be put on record.
    pub(super) fn abandon(&self) {
        let mut pile = lock(&self.pile);
        pile.ended = true;
        pile.messages.clear();
    }
}

struct End<'a>(&'a Desk);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
