use super::Context;
use super::words::say;
use crate::error::Outcome;
use crate::guard::{Approve, Guard};
use crate::live::Live;
use crate::servers::Servers;
use crate::settings;
use policies::authority::RunAuthority;
use policies::manifest::{Tool, near, visible};
use policies::pins::{Held, Why};
use policies::tools::Mode;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use subagents::run::Caller;

/// List the tools of all servers, with their class and what the policy says of each.
///
/// Starts every server once. With --agent the verdict is that agent's; with --suggest it prints
/// the tables that the servers' own hints would amount to, for you to read before you paste them.
/// Tools in quarantine (see `pleach pin`) are told beside the list, with what is different.
///
/// Example: pleach tools --agent researcher
#[derive(clap::Args)]
pub(super) struct Args {
    /// The agent whose policy is asked.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// Print [servers.X.tools.Y] tables from the servers' hints.
    #[arg(long)]
    suggest: bool,
    /// Print one JSON object a line: `tool`, `server`, `access`, `from`, `verdict`, `hash`.
    #[arg(long)]
    json: bool,
}

/// A slow server may take this long to be listed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = Arc::new(settings::load(&context.config)?);
    let servers = Servers::new(Live::new(loaded.clone()));
    let guard = Guard::new(servers.clone(), Approve::Nobody);
    let root = loaded.policy.door(None);
    let caller = match &args.agent {
        None => Caller::new("local", "the root policy", root),
        Some(name) => {
            let agent = super::agent_named(&loaded.policy, Some(name))?;
            let use_ = RunAuthority::spawn(&root, &agent.policy, None).map_or(root, |run| run.use_);
            Caller::new("local", &format!("agent {name}"), use_)
        }
    };
    servers.ensure_listed(&caller, PATIENCE).await;
    if args.suggest {
        suggest(&servers, &caller);
    } else {
        list(&guard, &caller, args.json);
    }
    let mut code = 0;
    for (name, listing) in servers.manifests.listings(&caller) {
        if let Some(why) = listing.failed {
            eprintln!("{name}: {why}");
            code = 1;
        }
        for (tool, why) in listing.rejected {
            eprintln!("{name}: tool {tool:?} is not used: {}", visible(&why));
        }
        listing.held.iter().for_each(|held| quarantined(held));
        if let Some((_, why)) = listing.withheld {
            eprintln!("{name}: {why}, so nobody is shown them; `pleach pin {name}` shows them");
        }
    }
    let map = servers.manifests.map(&caller);
    for (tool, why) in &map.refused {
        eprintln!("{tool:?} is not used: {}", visible(why));
    }
    for pair in near(map.tools.values().map(|t| (t.server.as_str(), t.upstream.as_str()))) {
        eprintln!("warning: {}", super::pin::alike_line(&pair));
    }
    servers.shutdown().await;
    Ok(code)
}

fn verdict(caller: &Caller, tool: &Tool) -> &'static str {
    let grant = caller.authority.grant();
    match grant.tools.mode(&tool.name) {
        Mode::Deny => "denied by tools",
        _ if tool.access > grant.max_access => "over max_access",
        Mode::Ask => "asks",
        Mode::Allow => "allowed",
    }
}

/// A tool in quarantine: why, what is different, and what to do.
fn quarantined(held: &Held) {
    eprintln!("{}", held.reason());
    if let Why::Changed(changes) = &held.why {
        for line in changes.iter().flat_map(|change| change.lines()) {
            eprintln!("    {line}");
        }
    }
    eprintln!("    {}", held.fix());
}

fn list(guard: &Guard, caller: &Caller, as_json: bool) {
    for tool in guard.servers.manifests.map(caller).tools.values() {
        let verdict = verdict(caller, tool);
        if as_json {
            let from = tool.access_from.to_string();
            say!(
                "{}",
                json!({ "tool": tool.name, "server": tool.server.as_str(), "access": tool.access.as_str(),
                        "from": from, "verdict": verdict, "hash": tool.hash })
            );
        } else {
            say!("{:<44} {:<12} {:<16} {}", tool.name, tool.access, verdict, tool.access_from);
        }
    }
}

fn suggest(servers: &Servers, caller: &Caller) {
    say!("# What the servers' own hints amount to. They are claims, not facts: read before you paste.");
    for (name, listing) in servers.manifests.listings(caller) {
        for tool in listing.tools.iter().flatten() {
            say!("[servers.{name}.tools.{}]\naccess = \"{}\"", toml_key(&tool.upstream), tool.suggested());
        }
    }
}

/// A tool's name as a TOML key.
pub(super) fn toml_key(name: &str) -> String {
    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { name.to_owned() } else { format!("\"{name}\"") }
}
