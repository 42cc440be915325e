//! The tree of runs: an agent loop that is a pure function, a host that performs its effects,
//! and the ports through which everything else is reached.
//!
//! ```text
//!   doors ──▶ host: start · resume · send · answer · cancel · pause · fork · watch
//!               │
//!               ▼          Effect: Think · Act · Redo · AwaitChild · Await · Finish
//!            driver ◀──────────────────────────── turn::pending(state)
//!               │ Event                                   ▲
//!               ▼                                         │
//!            journal (durable, one transaction) ──▶ turn::on(state, event)
//!               │
//!               ├─ Think ─▶ ledger::reserve ─▶ Model::complete(Permit) ─▶ settle
//!               └─ Act ───▶ Gate::authorize ─▶ Toolbox::call(Permit, key)
//!                           or one of the runtime's own tools ─▶ another run, through the same door
//! ```
//!
//! A run is its journal: what is to be done next follows from the folded state alone, so a
//! resumed run is driven by the same code as a new one.
//!
//! Invariants, as absences: no state changes but by an appended event; nothing is performed
//! before it is journalled; no wire type and no driver of a database is named here; no task
//! that is not tracked and cancelled with its run.

#![forbid(unsafe_code)]

pub mod approval;
pub mod event;
pub mod history;
pub mod host;
pub mod ledger;
pub mod ports;
pub mod replay;
pub mod run;
pub mod tools;
pub mod turn;
