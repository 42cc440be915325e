//! Inclusion of tool rules, decided on the patterns themselves.
//!
//! Every pattern is a small automaton whose states fit one `u128`; running all of both sides in
//! step over the characters that occur in them (and one that stands for all others) visits every
//! distinguishable class of names. If in no reachable state the left side says more than the
//! right, it is within it.

use super::{Glob, Mode, ToolRules};
use std::collections::HashSet;

/// Joint states visited before giving up; beyond it the answer is "not within".
const MAX_STATES: usize = 50_000;

/// A character no pattern contains, for "any other".
const OTHER: u8 = 0;

/// How names of servers' own tools look.
const OF_SERVERS: &[u8] = b"*__*";

struct Automaton<'a>(&'a [u8]);

impl Automaton<'_> {
    fn close(&self, mut set: u128) -> u128 {
        for (at, byte) in self.0.iter().enumerate() {
            if *byte == b'*' && set & (1 << at) != 0 {
                set |= 1 << (at + 1);
            }
        }
        set
    }
    fn start(&self) -> u128 {
        self.close(1)
    }
    fn step(&self, set: u128, input: u8) -> u128 {
        let mut next = 0;
        for (at, byte) in self.0.iter().enumerate() {
            if set & (1 << at) != 0 {
                if *byte == b'*' {
                    next |= 1 << at;
                } else if *byte == input {
                    next |= 1 << (at + 1);
                }
            }
        }
        self.close(next)
    }
    fn accepts(&self, set: u128) -> bool {
        set & (1 << self.0.len()) != 0
    }
}

pub(super) fn within(left: &ToolRules, right: &ToolRules) -> bool {
    let mut globs: Vec<&Glob> = Vec::new();
    for layer in left.layers().chain(right.layers()) {
        for mode in [Mode::Deny, Mode::Ask, Mode::Allow] {
            globs.extend(layer.list(mode));
        }
    }
    globs.sort();
    globs.dedup();
    let patterns = globs.iter().map(|g| g.as_str().as_bytes()).chain([OF_SERVERS]);
    let automata: Vec<Automaton<'_>> = patterns.map(Automaton).collect();
    let mut alphabet: Vec<u8> = automata.iter().flat_map(|a| a.0).copied().filter(|b| *b != b'*').collect();
    alphabet.push(OTHER);
    alphabet.sort_unstable();
    alphabet.dedup();

    let mut stack: Vec<Vec<u128>> = vec![automata.iter().map(Automaton::start).collect()];
    let mut seen: HashSet<Vec<u128>> = HashSet::new();
    while let Some(state) = stack.pop() {
        if seen.len() > MAX_STATES {
            return false;
        }
        for input in &alphabet {
            let next: Vec<u128> = automata.iter().zip(&state).map(|(a, set)| a.step(*set, *input)).collect();
            if seen.contains(&next) {
                continue;
            }
            let matched = |glob: &Glob| globs.binary_search(&glob).is_ok_and(|i| automata[i].accepts(next[i]));
            let of_server = automata[globs.len()].accepts(next[globs.len()]);
            // What a server asks its caller needs no allow either. It is asked in a call that does:
            // so only a rule that speaks of such questions counts (`SERVER__elicitation/create`).
            let asked = globs.iter().any(|g| g.as_str().contains('/') && matched(g));
            if !verdicts_within(left, right, matched, !of_server || asked) {
                return false;
            }
            seen.insert(next.clone());
            stack.push(next);
        }
    }
    true
}

/// Of a name that these patterns match; `runtime` where it may be one of the runtime's.
fn verdicts_within(left: &ToolRules, right: &ToolRules, matched: impl Fn(&Glob) -> bool, runtime: bool) -> bool {
    let mode = |rules: &ToolRules, unmatched: Option<Mode>| {
        let of_layer = |layer: &super::Layer| {
            [Mode::Deny, Mode::Ask, Mode::Allow]
                .into_iter()
                .find(|m| layer.list(*m).iter().any(&matched))
                .unwrap_or(unmatched.unwrap_or(layer.rest()))
        };
        rules.layers().map(of_layer).min().unwrap_or(Mode::Allow)
    };
    // A server's tool that nothing matches is as its layer says; one of the runtime is allowed.
    let judgements = [None, Some(Mode::Allow)].into_iter().take(if runtime { 2 } else { 1 });
    judgements.into_iter().all(|unmatched| mode(left, unmatched) <= mode(right, unmatched))
}
