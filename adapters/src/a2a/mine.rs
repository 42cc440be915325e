//! Whose tasks and conversations over there are whose here. All clients share what the operator
//! gave to be shown to a peer, so the peer cannot tell them apart: whoever goes on with a task or
//! a conversation must have been given it, by the same skill. What this process did not give out
//! (another one's, or of before its start) looks like none.

use super::lock;
use super::tale::{State, Tale};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex};

/// So many are known at once, of all peers; the oldest are forgotten.
const MOST: usize = 20_000;

/// Tasks and contexts by owner, peer and kind.
#[derive(Default)]
struct Given {
    known: HashMap<(Owner, String), Whose>,
    order: VecDeque<(Owner, String)>,
}

#[derive(Clone)]
struct Whose {
    skill: String,
    /// It waits for a permission, which no agent gives.
    permission: bool,
}

type Owner = (Arc<str>, String);

static GIVEN: LazyLock<Mutex<Given>> = LazyLock::new(Mutex::default);

/// What one principal was given by one peer.
pub(super) struct Mine(Owner);

impl Mine {
    pub(super) fn new(principal: Arc<str>, peer: String) -> Self {
        Self((principal, peer))
    }

    /// It is told of the task and the conversation.
    pub(super) fn note(&self, skill: &str, tale: &Tale) {
        let permission = tale.state == State::AuthRequired;
        let whose = Whose { skill: skill.to_owned(), permission };
        let mut given = lock(&GIVEN);
        for key in [tale.task.as_deref().map(task), tale.context.as_deref().map(context)].into_iter().flatten() {
            let key = (self.0.clone(), key);
            if given.known.insert(key.clone(), whose.clone()).is_none() {
                given.order.push_back(key);
            }
        }
        while given.order.len() > MOST {
            if let Some(oldest) = given.order.pop_front() {
                given.known.remove(&oldest);
            }
        }
    }

    /// Whether it may go on with these.
    ///
    /// # Errors
    /// Why not, for whoever called.
    pub(super) fn may_go_on(&self, skill: &str, task: Option<&str>, context: Option<&str>) -> Result<(), String> {
        let given = lock(&GIVEN);
        let found = |key: String| given.known.get(&(self.0.clone(), key)).filter(|whose| whose.skill == skill);
        if let Some(id) = context
            && found(self::context(id)).is_none()
        {
            return Err(format!("there is no conversation {id:?} of yours here; leave context out to begin one"));
        }
        let Some(id) = task else { return Ok(()) };
        match found(self::task(id)) {
            None => Err(format!("there is no task {id:?} of yours here; leave task out to begin one")),
            Some(whose) if whose.permission => {
                Err(format!("task {id:?} waits for a permission, which a person gives and no agent"))
            }
            Some(_) => Ok(()),
        }
    }
}

fn task(id: &str) -> String {
    format!("task {id}")
}
fn context(id: &str) -> String {
    format!("context {id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_was_given_is_nobody_elses() {
        let mine = |who: &str, peer: &str| Mine::new(who.into(), peer.to_owned());
        let tale = |state| Tale { task: Some("t".into()), context: Some("c".into()), state, ..Tale::default() };
        let alice = mine("alice", "https://p.test");
        alice.note("act", &tale(State::InputRequired));
        assert_eq!(alice.may_go_on("act", Some("t"), Some("c")), Ok(()));
        for (other, skill) in
            [(mine("bob", "https://p.test"), "act"), (mine("alice", "https://q.test"), "act"), (alice, "book")]
        {
            assert!(other.may_go_on(skill, Some("t"), None).unwrap_err().contains("no task"), "{skill}");
            assert!(other.may_go_on(skill, None, Some("c")).unwrap_err().contains("no conversation"), "{skill}");
            assert_eq!(other.may_go_on(skill, None, None), Ok(()));
        }
        let alice = mine("alice", "https://p.test");
        alice.note("act", &tale(State::AuthRequired));
        assert!(alice.may_go_on("act", Some("t"), None).unwrap_err().contains("no agent"));
    }
}
