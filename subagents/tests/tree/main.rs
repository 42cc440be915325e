//! The tree over ports that live in memory: what a crash leaves is what is gone on with.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kill;
mod laws;
mod ledger;
mod parking;
mod talk;
mod world;
