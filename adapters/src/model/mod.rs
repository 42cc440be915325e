//! Models. `scripted` is the honest offline mode: it says what a file says.

mod scripted;

pub use scripted::{ScriptError, Scripted};
