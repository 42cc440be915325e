//! `pleach install`.

mod package;

use super::words::say;
use super::{Context, edit};
use crate::error::{Failure, Outcome};
use crate::live::Live;
use crate::servers::Servers;
use crate::settings::{self, Loaded};
use package::{Package, Runner};
use policies::manifest::AccessFrom;
use policies::names::Name;
use policies::resolve::Transport;
use std::sync::Arc;
use std::time::Duration;
use subagents::run::Caller;

/// Fetch a server's package once, outside the sandbox, and list its tools.
///
/// A server started by npx, uvx and the like would download at every start, which a sandbox does
/// not let it do. This fetches the package by name from its registry (install scripts off), names
/// the fetched program in the policy file, and starts it once in its sandbox to list its tools.
/// With --accept-hints the classes that the server's own hints claim are written as your word,
/// which is a decision about that server's maker; `pleach tools --suggest` prints them to read
/// first. Tools without a class count as destructive.
///
/// Example: pleach install --all
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server.
    #[arg(required_unless_present = "all")]
    server: Option<String>,
    /// Every server of the file.
    #[arg(long, conflicts_with = "server")]
    all: bool,
    /// Take the servers' own hints for the classes of their tools.
    #[arg(long)]
    accept_hints: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = settings::load(&context.config)?;
    let names: Vec<Name> = match &args.server {
        None => loaded.policy.servers.keys().cloned().collect(),
        Some(server) => {
            let name = loaded.policy.servers.keys().find(|n| n.as_str() == server);
            let near = policies::names::nearest(server, loaded.policy.servers.keys().map(|n| n.as_str()));
            let hint = near.map(|n| format!("; did you mean {n}?")).unwrap_or_default();
            vec![name.cloned().ok_or_else(|| Failure::usage(format!("no server is named {server}{hint}")))?]
        }
    };
    let mut failed = 0;
    for name in &names {
        if let Err(why) = fetch(context, &loaded, name) {
            failed += 1;
            eprintln!("{name}: {why}");
        }
    }
    failed += classify(context, &names, args.accept_hints).await?;
    let next = if failed == 0 {
        "pleach check, then pleach connect claude-code|cursor|vscode --write"
    } else {
        "pleach install SERVER, once what failed is mended"
    };
    say!("next: {next}");
    Ok(u8::from(failed > 0))
}

/// Fetches the package behind a runner and names its program in the file.
fn fetch(context: &Context, loaded: &Loaded, name: &Name) -> Result<(), String> {
    let Some(Transport::Stdio { command, args, .. }) = loaded.policy.servers.get(name).map(|s| &s.transport) else {
        return Ok(());
    };
    let Some(package) = Package::behind(command, args)? else { return Ok(()) };
    let folder = loaded.packages.join(name.as_str());
    say!("{name}: fetching {} from {}", package.spec, package.runner.registry());
    let fetched = package.fetch(&folder)?;
    // For the lock file: another version is another server.
    let said = format!("{} {}\n", package.name, fetched.version);
    std::fs::write(folder.join(settings::PACKAGE), said).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut document = edit::open(&context.config).map_err(|f| f.message)?;
    let table = edit::table(&mut document, &["servers", name.as_str()]).ok_or("it is not a table of its own")?;
    // What follows the package in the file's own args, so that variables stay variables.
    let own: Vec<String> = table
        .get("args")
        .and_then(|a| a.as_array())
        .map(|a| a.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect())
        .unwrap_or_default();
    let rest = own.get(package.consumed..).unwrap_or_default();
    table["command"] = toml_edit::value(fetched.program.display().to_string());
    if rest.is_empty() {
        table.remove("args");
    } else {
        table["args"] = toml_edit::value(rest.iter().map(String::as_str).collect::<toml_edit::Array>());
    }
    if let Some(mut key) = table.key_mut("command") {
        let from = match package.runner {
            Runner::Npm => "npm",
            Runner::Pip => "PyPI",
        };
        key.leaf_decor_mut()
            .set_prefix(format!("# {} {} from {from}, fetched by pleach install\n", package.name, fetched.version));
    }
    edit::save(&context.config, &document).map_err(|f| f.message)?;
    say!("{name}: {} {}", package.name, fetched.version);
    Ok(())
}

/// Starts each server once and lists its tools; writes the classes its hints claim where the
/// operator accepts them. Returns how many failed.
async fn classify(context: &Context, names: &[Name], accept: bool) -> Result<u32, Failure> {
    let loaded = Arc::new(settings::load(&context.config)?);
    let servers = Servers::new(Live::new(loaded.clone()));
    let caller = Caller::new("local", "the root policy", loaded.policy.door(None));
    servers.ensure_listed(&caller, Duration::from_secs(90)).await;
    let listings = servers.manifests.listings(&caller);
    servers.shutdown().await;
    let mut document = edit::open(&context.config)?;
    let mut failed = 0;
    for name in names {
        let Some(listing) = listings.get(name) else { continue };
        let Some(tools) = &listing.tools else {
            failed += 1;
            eprintln!("{name}: {}", listing.failed.as_deref().unwrap_or("it was not listed in time"));
            eprintln!(
                "{name}: it may need more than [policy] grants: a file to write (filesystem.read_write, max_access) or a host (domains)"
            );
            continue;
        };
        let (mut written, mut silent) = (0, 0);
        for tool in tools.iter().filter(|t| t.access_from == AccessFrom::Unclassified) {
            match tool.hinted() {
                None => silent += 1,
                Some(_) if !accept => silent += 1,
                Some(access) => {
                    let table = edit::table(&mut document, &["servers", name.as_str(), "tools", &tool.upstream]);
                    if let Some(table) = table {
                        table["access"] = toml_edit::value(access.as_str());
                        written += 1;
                    }
                }
            }
        }
        let silent = match silent {
            0 => String::new(),
            n if accept => format!(", {n} without a hint count as destructive (pleach allow TOOL --as CLASS)"),
            n => {
                format!(", {n} without a class count as destructive (--accept-hints, or pleach allow TOOL --as CLASS)")
            }
        };
        say!("{name}: {} tools, {written} newly classified{silent}", tools.len());
    }
    edit::save(&context.config, &document)?;
    Ok(failed)
}
