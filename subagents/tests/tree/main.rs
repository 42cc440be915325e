//! The tree over ports that live in memory: what a crash leaves is what is gone on with.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod context;
mod forms;
mod gaps;
mod kill;
mod laws;
mod ledger;
mod limits;
mod old;
mod parking;
mod schedules;
mod talk;
mod world;
