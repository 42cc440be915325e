//! From a journal to a state: the same function that ran live, folded over what it wrote.

use crate::event::Record;
use crate::turn::{State, on};

/// The state after these events.
pub fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> State {
    let mut state = State::default();
    for record in records {
        on(&mut state, &record.event);
    }
    state
}
