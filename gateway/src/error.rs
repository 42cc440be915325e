//! The single map from what went wrong to an exit code.

use std::fmt;

/// Exit codes of the commands, as the contract names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Failed.
    Failed = 1,
    /// Wrong usage, or a policy file that does not hold.
    Usage = 2,
    /// Something wants a person: it is held back until one approves it, or `diff` finds somebody
    /// wider.
    Held = 3,
    /// Pleach's own failure under `exec`.
    ExecFailed = 125,
    /// The command of `exec` cannot be executed.
    ExecDenied = 126,
    /// The command of `exec` does not exist.
    ExecMissing = 127,
}

/// An error with its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: u8,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit: exit as u8, message: message.to_string() }
    }
    /// Wrong usage or a broken file, exit 2.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            // Some say their cause themselves.
            let cause = inner.to_string();
            if !message.contains(&cause) {
                message.push_str(&format!(": {cause}"));
            }
            source = inner.source();
        }
        Self { exit: Exit::Failed as u8, message }
    }
}

/// What a command ends with: an exit code, or a failure to print.
pub(crate) type Outcome = Result<u8, Failure>;
