//! Pleach from outside: the built binary, real files, real sockets, real processes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod a2a;
mod a2a_clients;
mod a2a_hop;
mod a2a_peer_tasks;
mod a2a_peers;
mod a2a_peers_again;
mod a2a_peers_faults;
mod a2a_proxy;
mod a2a_proxy_faults;
mod a2a_push;
mod a2a_signed;
mod a2a_turns;
mod a2a_wire;
mod abandoned;
mod accounts;
mod approvals;
mod approvals_bound;
mod audit;
mod audit_files;
mod audit_kills;
mod audit_live;
mod bad_servers;
mod bridge;
mod changed_input;
mod check_command;
mod connections;
mod conversations;
mod diff_command;
mod doors_killed;
mod durable;
mod examples;
mod far_servers;
mod faults;
mod followed;
mod framework_tools;
mod from_nothing;
mod handed_out;
mod help;
mod live;
mod live_files;
mod live_processes;
mod lossless;
mod matrix;
mod mcp_door;
mod minds;
mod neighbours;
mod oauth_door;
mod oauth_leg;
mod ordinary;
mod patterns;
mod pins;
mod prefixes;
mod providers;
mod questions;
mod real_tools;
mod rest;
mod rest_events;
mod rest_webhooks;
mod runs;
mod same_verdict;
mod sampling;
mod sandbox_egress;
mod sandbox_egress_tunnels;
mod sandbox_files;
mod sandbox_processes;
mod sandbox_protected;
mod scale;
mod secrets;
mod verbs_killed;
mod watching;
mod web_fetch;

/// Where the third-party servers and clients are.
fn kits() -> std::path::PathBuf {
    let set = std::env::var_os("PLEACH_KITS").map(std::path::PathBuf::from);
    let beside = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/kits");
    let folder = set.unwrap_or(beside);
    let there = folder.join("venv/bin/mcp-server-fetch").exists() && folder.join("node_modules").exists();
    assert!(there, "third-party servers are not installed; run `cargo conformance kits`");
    folder
}
