//! `pleach pin`.

mod show;

use super::Context;
use super::words::say;
use crate::error::{Exit, Failure, Outcome};
use crate::live::Live;
use crate::servers::Servers;
use crate::settings::{self, Loaded};
use policies::manifest::{Prefix, Tool, near, visible};
use policies::names::Name;
use policies::pins::{Change, Pins, Review, Take, changes, review};
use policies::resolve::{ServerSpec, Transport, lock_of};
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use subagents::run::Caller;

/// Approve servers and their tools as they are now, in pleach.lock.
///
/// Shows each server's command or url, starts it once, and writes who it is and the whole
/// definition of each of its tools, with the SHA-256 of its canonical form, to the lock file
/// beside the policy file. Commit it. From then on a tool whose description, schema or annotations
/// are not what stands there is in quarantine, a tool that does not stand there too, and a server
/// whose command, arguments, environment, package or url changed is not even started.
///
/// What is new is approved. What changed is shown, and approved with --update, which also drops
/// what is gone. A definition with hidden characters is approved by name only, with --accept.
/// A server with hidden characters in its instructions goes without them.
///
/// Exits 0 when all that was looked at is approved, 1 when a server could not be listed, 2 with
/// an error of the file, 3 when something is held back.
///
/// Examples: `pleach pin`, then `pleach pin git` and `pleach pin --update git` when git changed
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The server; default: all.
    server: Option<String>,
    /// Approve what changed too, and drop what is gone.
    #[arg(long)]
    update: bool,
    /// Approve this tool as it is, hidden characters and all (`server__tool`; may be repeated).
    #[arg(long, value_name = "TOOL")]
    accept: Vec<String>,
    /// Show what would be approved, and write nothing; no server is started that was not approved.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object a server: `server`, `state`, `identity`, `changes`, `tools`, `why`.
    #[arg(long)]
    json: bool,
}

/// A slow server may take this long to be listed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of one server.
enum Found {
    /// It was listed.
    Seen(Box<Review>),
    /// It is another than the one that was pinned, or was never pinned, and was not started.
    Held,
    /// It could not be listed.
    Failed(String),
}

/// One server as it was found.
struct Looked {
    spec: ServerSpec,
    /// `None` where it is new.
    identity: Option<Vec<Change>>,
    found: Found,
}

pub(crate) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = settings::load(&context.config)?;
    let before = loaded.policy.pins.clone();
    let known = before.as_deref().cloned().unwrap_or_default();
    let chosen = chosen(&loaded, &args)?;
    let take = Take { changed: args.update, accept: args.accept.iter().cloned().collect() };
    check_accept(&chosen, &take)?;
    let looked = look(loaded.clone(), chosen, &known, &args, &take).await;

    let mut pins = known.clone();
    let mut code = 0;
    for one in &looked {
        match &one.found {
            Found::Seen(review) => {
                if review.holds_back() {
                    code = Exit::Held as u8;
                }
                pins.servers.insert(one.spec.name.clone(), Arc::new(review.pinned.clone()));
            }
            Found::Held => code = Exit::Held as u8,
            Found::Failed(_) => {}
        }
        show::server(one, args.json);
    }
    if looked.iter().any(|one| matches!(one.found, Found::Failed(_))) {
        code = Exit::Failed as u8;
    }
    let dropped = dropped(&loaded, &mut pins, &args);
    let path = lock_of(&loaded.path);
    let shown = lock_of(&context.config).display().to_string();
    let written = !args.dry_run && (before.is_none() || pins.write() != known.write());
    if written {
        write_in_place(&path, &pins.write()).map_err(|e| Failure::new(Exit::Failed, format!("{shown}: {e}")))?;
    }
    if !args.json {
        dropped.iter().for_each(|name| say!("{name}: it is not in the policy file any more"));
        look_alikes(&pins);
        summary(&loaded, &pins, &shown, written, args.dry_run);
    }
    Ok(code)
}

/// In place: a running sandbox masks the file that is there, and would not mask one that took its
/// name. Half of one is no lock file, and nothing starts with it.
fn write_in_place(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The servers to look at: those that do not ship with Pleach.
fn chosen(loaded: &Loaded, args: &Args) -> Result<Vec<ServerSpec>, Failure> {
    let all = || loaded.policy.servers.values().filter(|s| !matches!(s.transport, Transport::Builtin(_)));
    let Some(wanted) = &args.server else { return Ok(all().cloned().collect()) };
    match all().find(|s| s.name.as_str() == wanted) {
        Some(spec) => Ok(vec![spec.clone()]),
        None if loaded.policy.servers.contains_key(wanted.as_str()) => {
            Err(Failure::usage(format!("server {wanted} ships with pleach; there is nothing to pin")))
        }
        None => {
            let near = policies::names::nearest(wanted, all().map(|s| s.name.as_str()));
            let hint = near.map(|n| format!("; did you mean {n}?")).unwrap_or_default();
            Err(Failure::usage(format!("no server is named {wanted}{hint}")))
        }
    }
}

/// `--accept` names tools of servers that are looked at.
fn check_accept(chosen: &[ServerSpec], take: &Take) -> Result<(), Failure> {
    for tool in &take.accept {
        let of = |spec: &ServerSpec| {
            let own = tool.strip_prefix(spec.name.as_str()).is_some_and(|rest| rest.starts_with("__"));
            own || spec.words.prefix != Prefix::Always
        };
        if !chosen.iter().any(of) {
            return Err(Failure::usage(format!("--accept {tool}: no server that is looked at has such a tool")));
        }
    }
    Ok(())
}

/// Lists the servers that may be started, as they come.
async fn look(mut loaded: Loaded, chosen: Vec<ServerSpec>, known: &Pins, args: &Args, take: &Take) -> Vec<Looked> {
    let identity = |spec: &ServerSpec| known.servers.get(&spec.name).map(|p| changes(&p.identity, &spec.identity));
    let starts = |spec: &ServerSpec| match identity(spec) {
        // An attacker who edits the command gets no process before it was read and agreed to.
        Some(changes) if !changes.is_empty() => args.update && !args.dry_run,
        Some(_) => true,
        None => !args.dry_run || spec.unapproved.is_none(),
    };
    let mut policy = (*loaded.policy).clone();
    policy.servers.retain(|name, _| chosen.iter().any(|spec| spec.name == *name && starts(spec)));
    for spec in policy.servers.values_mut() {
        if !args.json {
            show::start(spec);
        }
        spec.unapproved = None;
        spec.pinned = None;
    }
    loaded.policy = Arc::new(policy);
    let caller = Caller::new("local", "the root policy", loaded.policy.door(None));
    let servers = Servers::new(Live::new(Arc::new(loaded)));
    servers.ensure_listed(&caller, PATIENCE).await;
    let mut listings = servers.manifests.listings(&caller);
    servers.shutdown().await;
    let looked = chosen.into_iter().map(|spec| {
        let found = match listings.remove(&spec.name) {
            None => Found::Held,
            Some(listing) => match listing.tools {
                None => Found::Failed(listing.failed.unwrap_or_else(|| "it was not listed in time".into())),
                Some(tools) => {
                    for (tool, why) in &listing.rejected {
                        eprintln!("{}: tool {tool:?} is not used: {}", spec.name, visible(why));
                    }
                    let held = listing.held.iter().map(|held| &held.tool);
                    let tools: Vec<Tool> = tools.iter().chain(held).map(|tool| (**tool).clone()).collect();
                    let said = listing.instructions.or(listing.withheld.map(|(text, _)| text));
                    let before = known.servers.get(&spec.name);
                    let before = before.map(|b| &**b);
                    let identity = spec.identity.clone();
                    Found::Seen(Box::new(review(before, identity, said.as_deref(), tools, take)))
                }
            },
        };
        Looked { identity: identity(&spec), spec, found }
    });
    looked.collect()
}

/// Servers that are pinned and no more in the policy file go with `--update` of all.
fn dropped(loaded: &Loaded, pins: &mut Pins, args: &Args) -> Vec<Name> {
    let gone = pins.servers.keys().filter(|name| !loaded.policy.servers.contains_key(*name));
    let gone: Vec<Name> = gone.cloned().collect();
    if args.update && args.server.is_none() {
        gone.iter().for_each(|name| drop(pins.servers.remove(name)));
    }
    gone
}

/// Tools of different servers that are a letter apart.
fn look_alikes(pins: &Pins) {
    for line in near_names(pins) {
        say!("warning: {line}");
    }
}

/// The same, as lines: what `check` says too.
pub(super) fn near_names(pins: &Pins) -> Vec<String> {
    let names = pins.servers.iter().flat_map(|(server, of)| of.tools.keys().map(|t| (server.as_str(), t.as_str())));
    near(names).into_iter().map(|pair| alike_line(&pair)).collect()
}

/// Two tools a letter apart.
pub(super) fn alike_line([(one, a), (other, b)]: &[(&str, &str); 2]) -> String {
    format!("{one}__{a} and {other}__{b} are a letter apart: see that neither passes for the other")
}

fn summary(loaded: &Loaded, pins: &Pins, shown: &str, written: bool, dry_run: bool) {
    let tools: usize = pins.servers.values().map(|s| s.tools.len()).sum();
    let held: BTreeSet<&str> = loaded
        .policy
        .servers
        .values()
        .filter(|s| !matches!(s.transport, Transport::Builtin(_)) && !pins.servers.contains_key(&s.name))
        .map(|s| s.name.as_str())
        .collect();
    let state = match (written, dry_run) {
        (true, _) => "written",
        (false, true) => "not written (--dry-run)",
        (false, false) => "unchanged",
    };
    say!("{shown}: {state}; {} servers, {tools} tools", pins.servers.len());
    if !held.is_empty() && !dry_run {
        let held = held.into_iter().collect::<Vec<_>>().join(", ");
        say!("not in it, and so not started: {held}; `pleach pin` approves them");
    }
}
