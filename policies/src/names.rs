//! Validated names: parse once, then the type is the proof.

use std::fmt;

/// The name of a server, peer, agent, model or client: `[A-Za-z0-9_-]{1,48}` without `__`,
/// because `__` separates a server's name from a tool's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or more than 48 characters.
    #[error("a name has 1 to 48 characters")]
    Length,
    /// A character outside `[A-Za-z0-9_-]`.
    #[error("a name holds letters, digits, `_` and `-`; {0:?} is none of them")]
    Character(char),
    /// Two underscores in a row.
    #[error("`__` separates server and tool, so a name cannot hold it")]
    Separator,
}

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Name {
    type Error = NameError;
    fn try_from(text: &str) -> Result<Self, NameError> {
        if text.is_empty() || text.chars().count() > 48 {
            return Err(NameError::Length);
        }
        if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))) {
            return Err(NameError::Character(bad));
        }
        if text.contains("__") {
            return Err(NameError::Separator);
        }
        Ok(Self(text.into()))
    }
}
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The nearest of `known` to `typed`, when near enough to be what was meant.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&typed.to_lowercase(), &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= 1 + k.len().min(typed.len()) / 4)
        .min()
        .map(|(_, k)| k)
}
