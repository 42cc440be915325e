//! Patterns over tool names: `*` stands for any run of characters, everything else for itself.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

/// A pattern. At most 96 characters, which keeps the order of rules decidable in small words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob(Box<str>);

/// Why a text is not a [`Glob`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Nothing, or more than 96 characters.
    #[error("a tool pattern has 1 to 96 characters")]
    Length,
    /// A character no tool name can hold.
    #[error("names hold letters, digits, `_`, `-`, `.` and `/`; {0:?} can never match (patterns use `*` only)")]
    Character(char),
}

impl TryFrom<&str> for Glob {
    type Error = GlobError;
    fn try_from(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() || text.len() > 96 {
            return Err(GlobError::Length);
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '*');
        if let Some(bad) = text.chars().find(|c| !fits(*c)) {
            return Err(GlobError::Character(bad));
        }
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            if c != '*' || !out.ends_with('*') {
                out.push(c);
            }
        }
        Ok(Self(out.into()))
    }
}
impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl Glob {
    /// The pattern's text, runs of `*` joined.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether it matches the whole of `name`.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or("");
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else { return rest.is_empty() };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// Many patterns, asked at once. Exact names, `prefix*` and `*suffix` cost a hash look-up per
/// distinct length, however many there are; only `a*b*c` shapes are tried one by one.
#[derive(Debug, Clone, Default)]
pub(super) struct Matcher {
    exact: HashSet<Box<str>>,
    prefixes: BTreeMap<usize, HashSet<Box<str>>>,
    suffixes: BTreeMap<usize, HashSet<Box<str>>>,
    general: Vec<Glob>,
}

impl Matcher {
    pub(super) fn new(globs: &BTreeSet<Glob>) -> Self {
        let mut matcher = Self::default();
        for glob in globs {
            let text = glob.as_str();
            let stars = text.matches('*').count();
            if stars == 0 {
                matcher.exact.insert(text.into());
            } else if stars == 1 && text.ends_with('*') {
                let prefix = &text[..text.len() - 1];
                matcher.prefixes.entry(prefix.len()).or_default().insert(prefix.into());
            } else if stars == 1 && text.starts_with('*') {
                matcher.suffixes.entry(text.len() - 1).or_default().insert(text[1..].into());
            } else {
                matcher.general.push(glob.clone());
            }
        }
        matcher
    }
    pub(super) fn matches(&self, name: &str) -> bool {
        self.found(name).is_some()
    }
    /// The text of a pattern that matches, the most telling kind first.
    pub(super) fn find(&self, name: &str) -> Option<String> {
        self.found(name).map(|found| match found {
            Found::Exact => name.to_owned(),
            Found::Prefix(prefix) => format!("{prefix}*"),
            Found::Suffix(suffix) => format!("*{suffix}"),
            Found::General(glob) => glob.as_str().to_owned(),
        })
    }
    fn found<'a>(&'a self, name: &'a str) -> Option<Found<'a>> {
        if self.exact.contains(name) {
            return Some(Found::Exact);
        }
        let longest = self.prefixes.iter().rev();
        let starts = |(len, set): (&usize, &HashSet<Box<str>>)| name.get(..*len).filter(|p| set.contains(*p));
        if let Some(prefix) = longest.map(starts).find_map(|p| p) {
            return Some(Found::Prefix(prefix));
        }
        let ends = |(len, set): (&usize, &HashSet<Box<str>>)| {
            let at = name.len().checked_sub(*len)?;
            name.get(at..).filter(|s| set.contains(*s))
        };
        if let Some(suffix) = self.suffixes.iter().rev().map(ends).find_map(|s| s) {
            return Some(Found::Suffix(suffix));
        }
        self.general.iter().find(|glob| glob.matches(name)).map(Found::General)
    }
}

/// Which pattern matched; its text is made only for whoever reads it.
enum Found<'a> {
    Exact,
    Prefix(&'a str),
    Suffix(&'a str),
    General(&'a Glob),
}
