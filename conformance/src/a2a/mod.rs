//! The system under test for A2A kits: scripted agents behind the whole real stack, which do what
//! the prefix of a message's id asks for. `cargo conformance a2a --serve` serves it. The kit of 0.3 goes
//! by the root card, and wants tasks that stay open: `--serve 0.3` shows it the agent that asks.
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
default_agent = "DEFAULT"
[agents.tck]
expose = true
description = "Does what the prefix of a message's id says."
prompt = ""
[agents.open]
expose = true
description = "Asks, and asks again: its tasks stay open, as the kit of 0.3 wants them."
prompt = ""
"#;
/// How often the other agent asks before it is content.
const ASKS: usize = 12;
/// One of its questions.
const ASK: &str = r#"[[reply]]
agent = "open"
[[reply.tool]]
name = "ask_user"
input = { question = "What shall it be?" }
"#;

/// A folder with its policy.
pub fn folder() -> Folder {
    folder_of("tck")
}

fn folder_of(default: &str) -> Folder {
    let folder = Folder::new(&POLICY.replace("DEFAULT", default));
    // Before the last, which is for whatever is left.
    let last = REPLIES.rfind("[[reply]]").unwrap_or(0);
    let (known, rest) = REPLIES.split_at(last);
    folder.write("replies.toml", &format!("{known}{}{rest}", ASK.repeat(ASKS)));
    folder
}

/// Serves it until it is stopped; `old`: to the kit of 0.3.
///
/// # Errors
/// When pleach cannot be started, or ends badly.
pub fn serve(old: bool) -> Result<(), String> {
    let folder = if old { folder_of("open") } else { folder() };
    println!("the system under test is in {}", folder.path().display());
    let status = folder.command(&["serve"]).status().map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("pleach serve: {status}")) }
}
