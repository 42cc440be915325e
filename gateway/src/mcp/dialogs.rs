//! Dialogs with clients' persons: one for a question and session, however many calls are about it,
//! and none for a question they put off.
//!
//! ```text
//!  raise ─┬─ it stands, or was put off ─▶ none
//!         └─ stands ─┬─ answered, or whoever raised it went away ─▶ forgotten
//!                    └─ put off ─▶ kept
//! ```

use adapters::mcp::Party;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many are remembered; of more the oldest is forgotten, and may be raised again.
const MOST: usize = 4_096;

/// A question, and the session of whoever is asked.
type Key = (String, String);

/// All of them.
#[derive(Default)]
pub(crate) struct Dialogs(Mutex<VecDeque<Key>>);

/// One that stands, until dropped.
pub(super) struct Dialog {
    dialogs: Arc<Dialogs>,
    key: Key,
    put_off: bool,
}

impl Dialogs {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Key>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// A new one about a question; `None` where the session has one, or had it put off. A client
    /// without a session has its place.
    pub(super) fn raise(self: &Arc<Self>, question: &str, party: &dyn Party, place: &str) -> Option<Dialog> {
        let session = party.client().map_or_else(|| place.to_owned(), |client| client.number().to_string());
        self.stand((question.to_owned(), session))
    }
    fn stand(self: &Arc<Self>, key: Key) -> Option<Dialog> {
        let mut all = self.lock();
        if all.contains(&key) {
            return None;
        }
        if all.len() >= MOST {
            all.pop_front();
        }
        all.push_back(key.clone());
        Some(Dialog { dialogs: self.clone(), key, put_off: false })
    }
}

impl Dialog {
    /// The person did not want to say: they are not asked again.
    pub(super) fn put_off(mut self) {
        self.put_off = true;
    }
}

impl Drop for Dialog {
    fn drop(&mut self) {
        if !self.put_off {
            self.dialogs.lock().retain(|key| *key != self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(question: &str, session: &str) -> Key {
        (question.into(), session.into())
    }

    #[test]
    fn one_stands_for_a_question_and_a_session() {
        let all = Arc::new(Dialogs::default());
        let first = all.stand(key("q-1", "1")).unwrap();
        assert!(all.stand(key("q-1", "1")).is_none(), "it stands");
        let other = all.stand(key("q-1", "2")).expect("another session");
        assert!(all.stand(key("q-2", "1")).is_some(), "another question");
        drop(first);
        let again = all.stand(key("q-1", "1")).expect("whoever raised it went away");
        again.put_off();
        assert!(all.stand(key("q-1", "1")).is_none(), "put off");
        drop(other);
        assert_eq!(all.lock().len(), 1);
        for n in 0..=MOST {
            all.stand(key("q", &n.to_string())).unwrap().put_off();
        }
        assert_eq!(all.lock().len(), MOST, "they do not grow for ever");
    }
}
