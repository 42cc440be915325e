//! A permission is a value. A [`Permit`] says that one thing was judged and allowed; whoever
//! performs it needs the permit, and using it up is the only way to get at what it allows.
//!
//! The constructor is private to this crate, so only [`crate::decide`] makes permits. A permit
//! is neither `Clone` nor deserialisable: it cannot be kept, copied or received from outside.

use crate::place::Place;
use std::fmt;

/// Permission to do `T`, once, exactly as judged.
#[derive(Debug)]
#[must_use = "a permit that is dropped allowed nothing"]
pub struct Permit<T> {
    what: T,
    rule: Rule,
    asked: bool,
}

impl<T> Permit<T> {
    pub(crate) fn new(what: T, rule: &Rule) -> Self {
        Self { what, rule: rule.clone(), asked: false }
    }
    /// What is permitted, to look at.
    pub fn what(&self) -> &T {
        &self.what
    }
    /// The rule that permitted it, for the record.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }
    /// Whether somebody said yes to it: a person, a rule that one made, or `--yes`.
    pub fn asked(&self) -> bool {
        self.asked
    }
    /// Uses the permit up.
    pub fn redeem(self) -> T {
        self.what
    }
}

/// The outcome of a decision. Denial is an outcome, not an error.
#[derive(Debug)]
pub enum Verdict<T> {
    /// Allowed, with the rule that allowed it.
    Allow(Permit<T>, Rule),
    /// A person decides.
    Ask(Question<T>),
    /// Refused.
    Deny(Denial),
}

/// The rule that decided, where it has a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Such as `tools.allow "files__*" at root policy`.
    pub text: String,
    /// Where it stands.
    pub place: Option<Place>,
}
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{} ({place})", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// A permit that waits for a person.
#[derive(Debug)]
pub struct Question<T> {
    permit: Permit<T>,
    /// Why a person is asked.
    pub rule: Rule,
}

impl<T> Question<T> {
    pub(crate) fn new(what: T, rule: Rule) -> Self {
        Self { permit: Permit::new(what, &rule), rule }
    }
    /// What would be permitted.
    pub fn what(&self) -> &T {
        self.permit.what()
    }
    /// The person said yes, once; `by` is how that reads in the record.
    pub fn approve(mut self, by: &str) -> Permit<T> {
        self.permit.rule.text = format!("{}; {by}", self.permit.rule.text);
        self.permit.asked = true;
        self.permit
    }
    /// The person said no, or there is none.
    pub fn refuse(self, why: &str) -> Denial {
        Denial { rule: self.rule.text, who: None, allowed: why.to_owned(), place: self.rule.place, fix: None }
    }
}

/// Why something is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The rule, such as `filesystem.read does not cover /etc/passwd`.
    pub rule: String,
    /// The ancestor that refused, if one did.
    pub who: Option<String>,
    /// What would be allowed instead.
    pub allowed: String,
    /// Where the deciding rule stands.
    pub place: Option<Place>,
    /// What a person could change. Never shown to a model.
    pub fix: Option<String>,
}

impl Denial {
    /// A refusal that no table is to blame for.
    pub fn plain(rule: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { rule: rule.into(), who: None, allowed: allowed.into(), place: None, fix: None }
    }
    /// With a cure for the person.
    pub fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
    /// What the model is told: `denied: <rule> at <ancestor>; <what would be allowed>`.
    pub fn for_model(&self) -> String {
        let who = self.who.as_ref().map(|w| format!(" at {w}")).unwrap_or_default();
        format!("denied: {}{who}; {}", self.rule, self.allowed)
    }
    /// What the person is told: the same, the place, and the fix.
    pub fn for_person(&self) -> String {
        let place = self.place.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
        let fix = self.fix.as_ref().map(|f| format!(". Fix: {f}")).unwrap_or_default();
        format!("{}{place}{fix}", self.for_model())
    }
}
