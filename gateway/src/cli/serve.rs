use super::Context;
use crate::auth;
use crate::error::{Failure, Outcome};
use crate::guard::Approve;
use crate::mcp::{self, View};
use crate::{compose, live, serve, settings};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Serve the doors: MCP on /mcp and /mcp/agents/{agent}, A2A on /a2a/{agent}, runs over HTTP on
/// /v1/runs.
///
/// Servers start when they are first needed. With --stdio the one client is whoever started
/// pleach, and it speaks on standard input and output; where [clients] are named it identifies
/// itself with the environment variable PLEACH_TOKEN. /openapi.json describes the HTTP door.
///
/// Example: pleach serve --listen 127.0.0.1:7420
#[derive(clap::Args)]
pub(super) struct Args {
    /// The address and port; default: [gateway] listen.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Serve one client on standard input and output.
    #[arg(long)]
    stdio: bool,
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = Arc::new(settings::load(&context.config)?);
    let policy = &loaded.policy;
    for warning in &policy.warnings {
        eprintln!("warning: {warning}");
    }
    let less = policy.imported.iter().filter(|n| n.kind != policies::import::Kind::Taken).count();
    if less > 0 {
        eprintln!("import: {less} things were narrowed or not carried over; `pleach check` tells each");
    }
    let listen = args.listen.unwrap_or(policy.gateway.listen);
    policies::resolve::check_listen(listen, policy.clients.is_some()).map_err(Failure::usage)?;
    policies::resolve::check_public(listen, policy).map_err(Failure::usage)?;
    let app = compose::app(loaded.clone(), Approve::Park).await?;
    // Before there is any child.
    match adapters::sandbox::divide() {
        Ok(used) => tracing::info!("each instance is bounded as a whole by cgroup v2: {used}"),
        Err(why) => tracing::debug!("no instance is bounded as a whole: {why}"),
    }
    let stop = CancellationToken::new();
    on_signal(stop.clone())?;
    app.sampling.open(app.store.clone());
    let stdio = args.stdio && args.listen.is_none();
    if !stdio {
        // Before anything goes on: what it has done elsewhere may come back as soon as the door stands.
        app.live.hops.serve();
    }
    crate::resume::start(&app, stop.clone());
    let ended = if stdio {
        live::watch::start(&app, None, stop.clone())?;
        let token = std::env::var("PLEACH_TOKEN").ok();
        let identity = auth::identify(policy, token.as_deref())
            .map_err(|why| Failure::usage(format!("{why}; with --stdio set PLEACH_TOKEN")))?;
        let view = View::new((app.guard.clone(), &app.shared), &identity, None).map_err(Failure::usage)?;
        mcp::stdio::serve(view, stop).await
    } else {
        let listener = serve::bind(listen).map_err(Failure::usage)?;
        let address = listener.local_addr()?;
        crate::egress::keep_from(address);
        live::watch::start(&app, Some(address), stop.clone())?;
        eprintln!(
            "pleach serves MCP on http://{address}/mcp ({} servers, {} agents)",
            policy.servers.len(),
            policy.agents.len()
        );
        for agent in policy.agents.values().filter(|agent| agent.expose) {
            eprintln!("pleach serves A2A on http://{address}/a2a/{}", agent.name);
        }
        serve::serve(listener, &app, stop).await
    };
    app.shutdown().await;
    if let Some(head) = app.servers.audit.head() {
        eprintln!("pleach: the audit's head is record {} {}", head.seq, head.hash);
    }
    ended?;
    Ok(0)
}

/// Cancels on SIGTERM and SIGINT.
pub(super) fn on_signal(stop: CancellationToken) -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
