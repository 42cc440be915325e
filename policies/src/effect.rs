//! What a repetition of a call would do: whether a call whose outcome was lost in a crash may be
//! made again.

use std::fmt;

/// The effect class of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Changes nothing: a repetition is harmless.
    Pure,
    /// Changes something, but twice is the same as once.
    Idempotent,
    /// Changes something once; another tool tells whether it happened.
    Verifiable,
    /// Changes something each time: never repeated, an outcome that was lost is reported.
    Once,
}

impl Effect {
    /// All classes.
    pub const ALL: [Effect; 4] = [Effect::Pure, Effect::Idempotent, Effect::Verifiable, Effect::Once];
    /// The word in the policy file and in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Pure => "pure",
            Effect::Idempotent => "idempotent",
            Effect::Verifiable => "verifiable",
            Effect::Once => "once",
        }
    }
    /// Reads the word.
    pub fn from_word(word: &str) -> Option<Effect> {
        Effect::ALL.into_iter().find(|e| e.as_str() == word)
    }
    /// Whether a call whose outcome is unknown may simply be made again.
    pub fn repeats(self) -> bool {
        matches!(self, Effect::Pure | Effect::Idempotent)
    }
}
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
