//! `[approvals]`: how long a person is waited for, and how much they are asked at once.

use super::Resolver;
use crate::file::Node;
use std::time::Duration;

/// `[approvals]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalsSpec {
    /// How long a client's own call waits for an answer before it is denied.
    pub wait: Duration,
    /// How long a question stays open.
    pub expire: Duration,
    /// Approvals that may be open at once for one tree of runs, or for a client's own calls.
    pub per_tree: u32,
    /// The same for all of one client.
    pub per_client: u32,
}

impl Default for ApprovalsSpec {
    fn default() -> Self {
        // Clients of MCP give a call up after a minute: until then it says what it waits for.
        let (wait, expire) = (Duration::from_secs(45), Duration::from_secs(24 * 60 * 60));
        Self { wait, expire, per_tree: 16, per_client: 256 }
    }
}

impl Resolver<'_> {
    pub(super) fn approvals(file: &Node) -> ApprovalsSpec {
        let absent = ApprovalsSpec::default();
        let at = |key: &str| file.get("approvals").and_then(|table| table.get(key));
        let time = |key: &str| at(key).and_then(Node::text).and_then(|text| crate::budget::duration(text).ok());
        let count = |key: &str| at(key).and_then(Node::int).and_then(|n| u32::try_from(n).ok());
        ApprovalsSpec {
            wait: time("wait").unwrap_or(absent.wait),
            expire: time("expire").unwrap_or(absent.expire),
            per_tree: count("per_tree").unwrap_or(absent.per_tree),
            per_client: count("per_client").unwrap_or(absent.per_client),
        }
    }
}
