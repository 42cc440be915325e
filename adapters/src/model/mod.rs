//! Models. `scripted` is the honest offline mode: it says what a file says. The others are
//! reached over the network, or are the model of the MCP client that started the run.
//!
//! ```text
//! route      one model of the policy file: itself, then its fallbacks
//!   sampling one answer of the client's own model
//!   remote   one answer: rounds, tries, the stream and its limits of time and size
//!     breaker  fails fast where everything failed before
//!     limiter  waits where the provider says so; shared by all models of a credential
//!     retry    what a failure means and whether it is tried again
//!     endpoint HTTP to one origin
//!     format   what is spoken there: anthropic, openai
//! ```

mod anthropic;
mod breaker;
mod buckets;
mod endpoint;
mod estimate;
mod format;
mod limiter;
mod openai;
mod remote;
mod retry;
mod route;
mod sampling;
mod scripted;
#[cfg(test)]
mod tests;
mod tools;

pub use route::{SetupError, build};
pub use scripted::{ScriptError, Scripted};
