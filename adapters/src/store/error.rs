//! What went wrong with the store, in words that name the file and the cure.

use subagents::ports::JournalError;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened, read or written.
    #[error("store {path}: {}", cure(.source))]
    Database {
        /// The file.
        path: String,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// It was made by another version.
    #[error("store {path}: {source}; it was made by another version of pleach")]
    Migration {
        /// The file.
        path: String,
        /// What is wrong.
        source: sqlx::migrate::MigrateError,
    },
    /// Its file cannot be made.
    #[error("store {path}: {source}; does its folder exist, and may it be written?")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// What stands in it cannot be read.
    #[error("store {path}: run {run}, event {seq}: {why}")]
    Corrupt {
        /// The file.
        path: String,
        /// The run.
        run: String,
        /// The event; 0 is the run's row.
        seq: i64,
        /// What is wrong.
        why: String,
    },
}

impl From<StoreError> for JournalError {
    fn from(error: StoreError) -> Self {
        JournalError::Failed(error.to_string())
    }
}

/// SQLite's primary result code.
fn code(error: &sqlx::Error) -> Option<u32> {
    let extended: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// Whether an entry broke a rule of the tables: its own fault, not the file's.
pub(super) fn breaks_a_rule(error: &sqlx::Error) -> bool {
    const CONSTRAINT: u32 = 19;
    code(error) == Some(CONSTRAINT)
}

/// Whether somebody else was just using the file.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    matches!(code(error), Some(BUSY | LOCKED))
}

/// Whether a statement did not fit the tables, as when two processes make them at once.
pub(super) fn is_misfit(error: &sqlx::Error) -> bool {
    code(error) == Some(1)
}

/// What SQLite said, and what to do about it.
pub(super) fn cure(error: &sqlx::Error) -> String {
    let cure = match code(error) {
        Some(5 | 6) => "another process keeps it locked; end that process, or try again",
        Some(8) => "it may not be written; check its permissions and its folder's",
        Some(10) => "the disk does not take or give it; look at the system's log",
        Some(13) => "the disk is full; make room and try again, nothing of this was written",
        Some(14) => "it cannot be opened; does its folder exist, and may it be read and written?",
        Some(11 | 26) => "it is damaged, or no store of pleach; move it away to start a new one",
        _ => return error.to_string(),
    };
    format!("{error}; {cure}")
}
