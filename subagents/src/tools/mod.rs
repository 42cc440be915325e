//! The runtime's own tools: one file each.

pub mod agent;
