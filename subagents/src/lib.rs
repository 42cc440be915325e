//! The tree of runs: an agent loop that is a pure function, a host that performs its effects,
//! and the ports through which everything else is reached.
//!
//! ```text
//!             Event                         Effect
//! journal ◀── append ◀── host ◀── turn::on(state, event) ──▶ Think | Act | Refuse | Finish
//!                         │
//!                         ├─ Think ─▶ Model::complete(Permit)
//!                         └─ Act ───▶ Gate::authorize ─▶ Toolbox::call(Permit)
//!                                     or the Agent tool ─▶ another run, through the same door
//! ```
//!
//! Invariants, as absences: no state changes but by an appended event; nothing is performed
//! before it is journalled; no wire type and no driver of a database is named here; no task
//! that is not tracked and cancelled with its run.

#![forbid(unsafe_code)]

pub mod event;
pub mod host;
pub mod ledger;
pub mod ports;
pub mod replay;
pub mod run;
pub mod tools;
pub mod turn;
