use super::clients::Client;
use super::words::say;
use super::{Context, edit};
use crate::error::{Failure, Outcome};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Print, or with --write put, the configuration that points a client at Pleach.
///
/// With --write the client's file keeps a copy beside it, loses the servers that Pleach serves
/// now, so that nothing goes around it, and keeps the rest.
///
/// Example: pleach connect claude-code --write
#[derive(clap::Args)]
pub(super) struct Args {
    /// Which client.
    client: Client,
    /// Write its configuration in this folder.
    #[arg(long)]
    write: bool,
}

pub(super) fn run(context: &Context, args: Args) -> Outcome {
    let loaded = crate::settings::look(&context.config)?;
    let binary = std::env::current_exe()?.canonicalize()?;
    let mut entry = json!({
        "command": binary.display().to_string(),
        "args": ["serve", "--stdio", "--config", loaded.path.display().to_string()],
    });
    if args.client == Client::Vscode {
        entry["type"] = "stdio".into();
    }
    if loaded.policy.clients.is_some() {
        entry["env"] = json!({ "PLEACH_TOKEN": "${PLEACH_TOKEN}" });
    }
    if !args.write {
        say!("{:#}", json!({ args.client.key(): { "pleach": entry } }));
        return Ok(0);
    }
    let file = args.client.file();
    let mut config = existing(&file)?;
    let key = args.client.key();
    let servers = config.entry(key).or_insert_with(|| json!({}));
    let servers =
        servers.as_object_mut().ok_or_else(|| Failure::usage(format!("{}: {key} is not an object", file.display())))?;
    let served: Vec<String> = servers.keys().filter(|name| serves(&loaded.policy, name)).cloned().collect();
    for name in &served {
        servers.remove(name);
    }
    servers.insert("pleach".into(), entry);
    if file.exists() {
        let copy = file.with_extension("json.before-pleach");
        if !copy.exists() {
            std::fs::copy(&file, &copy)?;
        }
        say!("{}: a copy is in {}", file.display(), copy.display());
    } else if let Some(folder) = file.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    edit::write_atomically(&file, &format!("{:#}\n", Value::Object(config)))?;
    say!("{}: pleach is connected; {} servers are reached through it now", file.display(), served.len());
    Ok(0)
}

fn existing(file: &Path) -> Result<Map<String, Value>, Failure> {
    match std::fs::read_to_string(file) {
        Err(_) => Ok(Map::new()),
        Ok(text) => match serde_json::from_str(&text) {
            Ok(Value::Object(config)) => Ok(config),
            // Rewriting it would lose the comments.
            _ => Err(Failure::usage(format!(
                "{} is not plain JSON; add by hand what `pleach connect` prints without --write",
                file.display()
            ))),
        },
    }
}

/// Whether a client's server is one of ours, under its name or the name `init` gave it.
fn serves(policy: &policies::resolve::Policy, name: &str) -> bool {
    let here = super::init::tidy_name(name);
    policy.servers.keys().any(|n| n.as_str() == name || n.as_str() == here)
}
