//! The system under test for A2A kits: scripted agents behind the whole real stack, which do what
//! the prefix of a message's id asks for. `cargo conformance a2a --serve` serves it.
//!
//! ```text
//!  kit ─▶ JSON-RPC, HTTP+JSON ─▶ pleach ─▶ the run of an agent ─▶ scripted model ─▶ its tools
//! ```

use crate::pleach::Folder;

/// What the scripted model answers.
const REPLIES: &str = include_str!("replies.toml");
const POLICY: &str = r#"version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[policy]
max_access = "read-write"
# A kit's listener of notifications is on this machine.
domains = { allow = ["localhost", "example.com"] }
networks = { allow = ["127.0.0.0/8", "::1/128"] }
[gateway]
default_agent = "tck"
[agents.tck]
description = "Does what the prefix of a message's id says."
prompt = ""
"#;

/// A folder with its policy.
pub fn folder() -> Folder {
    let folder = Folder::new(POLICY);
    folder.write("replies.toml", REPLIES);
    folder
}

/// Serves it until it is stopped.
///
/// # Errors
/// When pleach cannot be started, or ends badly.
pub fn serve() -> Result<(), String> {
    let folder = folder();
    println!("the system under test is in {}", folder.path().display());
    let status = folder.command(&["serve"]).status().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("pleach serve: {status}")) }
}
