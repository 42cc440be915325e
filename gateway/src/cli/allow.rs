use super::words::say;
use super::{Context, edit};
use crate::error::{Failure, Outcome};
use crate::guard::{Approve, Guard};
use crate::live::Live;
use crate::servers::Servers;
use crate::settings;
use std::sync::Arc;
use std::time::Duration;
use subagents::run::Caller;

/// Write your word for a tool's class into the policy file.
///
/// The file keeps its comments and order, and is checked before it is written. The class alone
/// allows nothing: the tool rules and the ceiling still apply, and this says so.
///
/// Example: pleach allow git__git_commit --as read-write
#[derive(clap::Args)]
pub(super) struct Args {
    /// The tool's outside name, as `pleach tools` prints it.
    tool: String,
    /// The class.
    #[arg(long = "as", value_name = "CLASS", value_parser = ["read-only", "read-write", "destructive"])]
    class: String,
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = Arc::new(settings::load(&context.config)?);
    let servers = Servers::new(Live::new(loaded.clone()));
    let guard = Guard::new(servers.clone(), Approve::Nobody);
    let caller = Caller::new("local", "the root policy", loaded.policy.door(None));
    servers.ensure_listed(&caller, Duration::from_secs(60)).await;
    let map = guard.servers.manifests.map(&caller);
    let found = map.tools.get(&args.tool).map(|t| (t.server.to_string(), t.upstream.clone()));
    servers.shutdown().await;
    let (server, tool) = found.ok_or_else(|| {
        let near = policies::names::nearest(&args.tool, map.tools.keys().map(String::as_str));
        let hint = near.map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        Failure::usage(format!("no tool is named {}{hint} `pleach tools` lists them", args.tool))
    })?;
    let mut document = edit::open(&context.config)?;
    let table = edit::table(&mut document, &["servers", &server, "tools", &tool]);
    let table = table.ok_or_else(|| Failure::usage(format!("servers.{server}.tools.{tool} is not a table")))?;
    table["access"] = toml_edit::value(args.class.as_str());
    edit::save(&context.config, &document)?;
    say!(
        "{}: [servers.{server}.tools.{}] access = \"{}\"",
        context.config.display(),
        super::tools::toml_key(&tool),
        args.class
    );
    let now = settings::load(&context.config)?;
    let grant = &now.policy.root;
    if grant.tools.mode(&args.tool) == policies::tools::Mode::Deny {
        say!("note: the root policy's tools do not allow it yet; add \"{}\" to [policy.tools] allow", args.tool);
    } else if policies::permission::Access::from_word(&args.class) > Some(grant.max_access) {
        say!("note: the root policy goes up to {}; raise max_access to let it be called", grant.max_access);
    }
    Ok(0)
}
