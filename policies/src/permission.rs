//! How strong an effect is, and the ceiling on it.

use std::fmt;

/// An access class. The order is the ceiling's: `read-only < read-write < destructive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Changes nothing.
    ReadOnly,
    /// Changes things in a way that can be repaired.
    ReadWrite,
    /// May do anything.
    Destructive,
}

impl Access {
    /// All classes, weakest first.
    pub const ALL: [Access; 3] = [Access::ReadOnly, Access::ReadWrite, Access::Destructive];
    /// The word in the policy file.
    pub fn as_str(self) -> &'static str {
        match self {
            Access::ReadOnly => "read-only",
            Access::ReadWrite => "read-write",
            Access::Destructive => "destructive",
        }
    }
    /// Reads the word of the policy file.
    pub fn from_word(word: &str) -> Option<Access> {
        Access::ALL.into_iter().find(|a| a.as_str() == word)
    }
}
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
