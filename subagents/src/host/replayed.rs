//! Replay equals live, looked at where nothing is to be gained by believing it: in builds with
//! debug assertions every tree that is put down is read back, and each of its runs must be what
//! was lived, and its row what its journal adds up to. So every run of every test is a test.

use super::Host;
use super::tree::Tree;
use crate::ports::Loaded;
use crate::replay::replay;

impl Tree {
    /// # Panics
    /// When a journal says something else than was lived.
    pub(super) async fn assert_replayed(&self, host: &Host) {
        // A journal that cannot be read says so elsewhere.
        let Ok(loaded) = host.ports.journal.load(&self.root).await else { return };
        for Loaded { row, records } in loaded {
            let Some(run) = self.run(&row.run) else { continue };
            let log = run.log.lock().await;
            assert_eq!(records.len() as u64, log.seq, "run {}: events in the journal, and lived", row.run);
            assert!(
                replay(records.iter()) == log.state,
                "run {}: its journal says something else than was lived",
                row.run
            );
            let lived = run.row(self, &log.state, row.ended.unwrap_or_default());
            assert_eq!(row, lived, "run {}: its row, and what its journal adds up to", row.run);
        }
    }
}
