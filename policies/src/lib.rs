//! What may happen. Pure and synchronous: no runtime, no filesystem, no clock, no network.
//! Paths arrive canonical, names resolved, time as an argument; what leaves is a value.
//!
//! ```text
//! pleach.toml ─ file ─▶ resolve ─▶ Policy ─▶ authority (the two equations)
//!                                               │
//! tools/list ─ manifest ─▶ Tool ─▶ action ─▶ decide ─▶ Verdict { Allow(Permit) | Ask | Deny }
//! ```
//!
//! Invariants, as absences: nothing here reads a file or an environment variable; nothing
//! outside [`decide`] makes a [`permit::Permit`]; nothing widens a grant.

#![forbid(unsafe_code)]

pub mod action;
pub mod authority;
pub mod budget;
pub mod callers;
pub mod claims;
pub mod decide;
pub mod diff;
pub mod domain;
pub mod explain;
pub mod file;
pub mod fs;
pub mod grant;
pub mod import;
pub mod json;
pub mod manifest;
pub mod names;
pub mod permission;
pub mod permit;
pub mod pins;
pub mod place;
pub mod price;
pub mod resolve;
pub mod secrets;
pub mod standing;
pub mod tools;

/// A network known to be well-formed.
fn net(text: &'static str) -> ipnet::IpNet {
    text.parse().unwrap_or_else(|_| unreachable!("{text} is a network"))
}
