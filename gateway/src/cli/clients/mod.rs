//! The configurations of MCP clients: read for `init`, written for `connect`.

mod jsonc;
mod read;

pub(super) use read::{Foreign, Origin, read};

use std::path::PathBuf;

/// A client whose configuration is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Client {
    /// Claude Code: `.mcp.json`
    ClaudeCode,
    /// Cursor: `.cursor/mcp.json`
    Cursor,
    /// VS Code: `.vscode/mcp.json`
    Vscode,
}

impl Client {
    /// Where its configuration of this folder lives.
    pub(super) fn file(self) -> PathBuf {
        match self {
            Client::ClaudeCode => ".mcp.json".into(),
            Client::Cursor => ".cursor/mcp.json".into(),
            Client::Vscode => ".vscode/mcp.json".into(),
        }
    }
    /// The key its servers stand under.
    pub(super) fn key(self) -> &'static str {
        match self {
            Client::Vscode => "servers",
            _ => "mcpServers",
        }
    }
}
