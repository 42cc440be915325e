//! Everything that happens in a run and below it, each event once and in order.
//!
//! What is told is read from the store, by position in the tree: positions have no gaps and are
//! in the order of the commits, so nothing is lost or told twice wherever it is taken up. What the
//! host broadcasts is a hint to read on, and for another process's trees a clock is.

use super::Place;
use adapters::store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use subagents::event::{Event, Record, Seen};
use subagents::host::Host;
use subagents::ports::RunRow;
use subagents::run::RunId;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Nothing was told for so long.
const BEAT: Duration = Duration::from_secs(15);
/// How often another process's tree is looked at, and one of this process's to be sure.
const LOOK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// Events read at a time.
const BATCH: u32 = 256;

/// Something that is told.
pub(crate) enum Told {
    /// An event, with its position in the tree.
    Record(u64, Box<Record>),
    /// A piece of a reply, of the moment.
    Piece(Seen),
    /// Nothing, for a while.
    Beat,
    /// It cannot go on; the last.
    Broken(StoreError),
}

/// A stream that stands.
pub(crate) struct Follow {
    store: Store,
    host: Arc<Host>,
    stop: CancellationToken,
    root: RunId,
    run: RunId,
    /// The last position that was read.
    at: u64,
    /// The runs of the tree, and those that are told of.
    tree: BTreeSet<String>,
    below: BTreeSet<String>,
    /// The last event of each run.
    last: BTreeMap<String, u64>,
    seen: Receiver<Seen>,
    /// What came from the host and is still to be looked at.
    pending: Option<Seen>,
    ready: VecDeque<Told>,
    /// There may be more to read.
    dirty: bool,
    /// The run has ended, and nothing of it came since.
    finished: bool,
    over: bool,
    look: Instant,
    beat: Instant,
    _place: Option<Place>,
}

impl Follow {
    /// What happens from position `at` of the tree on, until `stop`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn new(
        (host, store): (&Arc<Host>, &Store),
        row: &RunRow,
        at: u64,
        stop: CancellationToken,
        place: Option<Place>,
    ) -> Result<Self, StoreError> {
        let (run, root) = (&row.run, &row.root);
        // Before anything is read, so that what happens from now on is heard of.
        let seen = host.watch();
        let (mut tree, mut below) = (BTreeSet::new(), BTreeSet::new());
        // Parents come before children.
        for listed in store.tree(root).await? {
            let (id, parent) = (listed.row.run, listed.row.parent);
            if id == *run || parent.is_some_and(|p| below.contains(p.as_str())) {
                below.insert(id.to_string());
            }
            tree.insert(id.to_string());
        }
        Ok(Self {
            store: store.clone(),
            host: host.clone(),
            stop,
            root: root.clone(),
            run: run.clone(),
            at,
            tree,
            below,
            last: BTreeMap::new(),
            seen,
            pending: None,
            ready: VecDeque::new(),
            dirty: true,
            // Where it has not, what is read says so.
            finished: row.ended.is_some(),
            over: false,
            look: Instant::now(),
            beat: Instant::now() + BEAT,
            _place: place,
        })
    }

    /// Reads until there is something to tell, or all was read. `true` when nothing follows: the run
    /// had ended, and there is nothing after the position.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn prepare(&mut self) -> Result<bool, StoreError> {
        while self.dirty && self.ready.is_empty() {
            self.read().await?;
        }
        Ok(self.ready.is_empty() && self.finished)
    }
    /// Reads on in the store.
    async fn read(&mut self) -> Result<(), StoreError> {
        let batch = self.store.since(&self.root, self.at, BATCH).await?;
        self.dirty = batch.len() == BATCH as usize;
        let look = if self.host.works_on(&self.root) { LOOK.1 } else { LOOK.0 };
        self.look = Instant::now() + look;
        for (n, record) in batch {
            self.at = n;
            self.take(n, &record);
        }
        Ok(())
    }
    fn take(&mut self, n: u64, record: &Record) {
        let run = record.run.to_string();
        if let Event::Started(started) = &record.event
            && started.parent.as_ref().is_some_and(|parent| self.below.contains(parent))
        {
            self.below.insert(run.clone());
        }
        self.tree.insert(run.clone());
        if record.run == self.run {
            self.finished = matches!(record.event, Event::Finished { .. });
        }
        self.last.insert(run.clone(), record.seq);
        if self.below.contains(&run) {
            self.ready.push_back(Told::Record(n, Box::new(record.clone())));
        }
    }

    /// Looks at what the host says: a record is a hint, a piece of a reply is passed on.
    fn hear(&mut self, seen: Seen) {
        let run = seen.run().as_str();
        match &seen {
            Seen::Record(record) => {
                let mine = matches!(&record.event, Event::Started(started) if started.root == self.root.as_str());
                self.dirty |= mine || self.tree.contains(run);
            }
            // One that comes after the event it led to is not told any more.
            Seen::Delta { seq, .. } => {
                if self.below.contains(run) && self.last.get(run).is_none_or(|last| seq >= last) {
                    self.ready.push_back(Told::Piece(seen));
                }
            }
        }
    }
    /// What the host said meanwhile, up to the next piece of a reply if something is to be read.
    fn drain(&mut self) {
        loop {
            let Some(seen) = self.pending.take().or_else(|| self.seen.try_recv().ok()) else { return };
            if self.dirty && matches!(seen, Seen::Delta { .. }) {
                self.pending = Some(seen);
                return;
            }
            self.hear(seen);
        }
    }

    /// What comes next; nothing after the end.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                self.beat = Instant::now() + BEAT;
                return Some(ready);
            }
            if self.over {
                return None;
            }
            self.drain();
            if self.dirty {
                if let Err(why) = self.read().await {
                    self.over = true;
                    return Some(Told::Broken(why));
                }
                continue;
            }
            if !self.ready.is_empty() {
                continue;
            }
            if self.finished {
                self.over = true;
                continue;
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                seen = self.seen.recv() => match seen {
                    Ok(seen) => self.hear(seen),
                    Err(RecvError::Lagged(_)) => self.dirty = true,
                    Err(RecvError::Closed) => return None,
                },
                () = tokio::time::sleep_until(self.look) => self.dirty = true,
                () = tokio::time::sleep_until(self.beat) => {
                    self.beat = Instant::now() + BEAT;
                    return Some(Told::Beat);
                }
            }
        }
    }
}
