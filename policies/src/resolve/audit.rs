//! `[audit]`: where the record of decisions is kept, and how much of it.

use super::Resolver;
use crate::file::Node;
use std::path::{Path, PathBuf};

/// `[audit]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSpec {
    /// The folder, absolute; outside every grant.
    pub folder: PathBuf,
    /// Bytes of one file before the next is begun.
    pub segment: u64,
    /// How many files are kept; `None` is all.
    pub keep: Option<u32>,
}

impl AuditSpec {
    /// Where it is kept if the file names no folder.
    pub fn beside(store: &Path) -> PathBuf {
        store.with_extension("audit.d")
    }
}

/// Megabytes of a file where nothing is said.
const SEGMENT_MB: i64 = 64;

impl Resolver<'_> {
    pub(super) fn audit(&mut self, file: &Node, store: &Path) -> Option<AuditSpec> {
        let table = file.get("audit");
        let at = |key: &str| table.and_then(|t| t.get(key));
        let folder = match at("folder") {
            None => AuditSpec::beside(store),
            Some(node) => match self.around.canonical(&self.absolute(node.text()?)) {
                Ok(folder) => folder,
                Err(why) => {
                    let place = node.place.clone();
                    self.error(&place, format!("audit.folder: {why}"));
                    return None;
                }
            },
        };
        let megabytes = at("segment_mb").and_then(Node::int).unwrap_or(SEGMENT_MB);
        let keep = at("keep").and_then(Node::int).and_then(|n| u32::try_from(n).ok());
        Some(AuditSpec { folder, segment: u64::try_from(megabytes).ok()? << 20, keep })
    }
}
