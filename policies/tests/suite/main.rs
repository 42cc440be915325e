//! The crate from outside, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod budgets;
mod callers;
mod decisions;
mod diff;
mod domains;
mod file_samples;
mod import_agents;
mod import_laws;
mod import_settings;
mod inheritance;
mod json;
mod lattice_laws;
mod manifests;
mod pins;
mod standing;
mod universe;
mod world;
