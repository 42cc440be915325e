use super::Context;
use super::words::say;
use crate::error::{Exit, Failure, Outcome};
use crate::guard::{Approve, Decided, Guard};
use crate::live::Live;
use crate::servers::Servers;
use crate::settings;
use adapters::store::Store;
use policies::authority::RunAuthority;
use policies::json::{Json, Limits};
use policies::permit::Denial;
use serde_json::json;
use std::sync::Arc;
use subagents::run::Caller;

/// Say what would happen to a call, and which rule of which ancestor decides.
///
/// Nothing is called; the tool's server is started to learn its schema. Exits 0 when the call
/// would be allowed, 1 when it would be denied.
///
/// Example: pleach explain --agent researcher --tool files__Read --args '{"file_path":"a.md"}'
#[derive(clap::Args)]
pub(super) struct Args {
    /// The agent; default: the root policy itself.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// The tool's outside name.
    #[arg(long, value_name = "TOOL")]
    tool: String,
    /// The arguments.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    args: String,
    /// Print one JSON object: `verdict`, `rule`, `who`, `place`, `fix`, `chain`.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = Arc::new(settings::load(&context.config)?);
    let arguments =
        Json::parse(args.args.as_bytes(), Limits::default()).map_err(|e| Failure::usage(format!("--args: {e}")))?;
    let root = loaded.policy.door(None);
    let (who, authority) = match &args.agent {
        None => ("the root policy".to_owned(), root),
        Some(name) => {
            let agent = super::agent_named(&loaded.policy, Some(name))?;
            let run = RunAuthority::spawn(&root, &agent.policy, None)
                .map_err(|_| Failure::usage("the agent asks too much"))?;
            (format!("agent {name}"), run.use_)
        }
    };
    let servers = Servers::new(Live::new(loaded.clone()));
    let guard = Guard::new(servers.clone(), Approve::Nobody);
    // What stands besides the policy decides too.
    let guard = match Store::look(&loaded.policy.store).await? {
        Some(store) => guard.with(store),
        None => guard,
    };
    let caller = Caller::new("local", &who, authority);
    let decided = guard.would(&caller, &args.tool, arguments).await;
    servers.shutdown().await;
    let chain = caller.authority.chain().join(" > ");
    let (verdict, rule, denial) = match &decided {
        Decided::Allowed(_, rule) => ("allow", rule.to_string(), None),
        Decided::Denied(denial) => ("deny", denial.rule.clone(), Some(denial.clone())),
        Decided::Unknown => {
            let near = near(&guard, &caller, &args.tool);
            (
                "deny",
                format!("no tool is named {}", args.tool),
                Some(Denial::plain(format!("no tool is named {}", args.tool), near)),
            )
        }
    };
    if args.json {
        let place = denial.as_ref().and_then(|d| d.place.as_ref()).map(ToString::to_string);
        let (by, fix) = denial.as_ref().map_or((None, None), |d| (d.who.clone(), d.fix.clone()));
        say!("{}", json!({ "verdict": verdict, "rule": rule, "who": by, "place": place, "fix": fix, "chain": chain }));
    } else {
        match &denial {
            None => say!("allowed: {rule}"),
            Some(denial) => say!("{}", denial.for_person()),
        }
        say!("chain: {chain}");
    }
    Ok(if denial.is_some() { Exit::Failed as u8 } else { 0 })
}

fn near(guard: &Guard, caller: &Caller, tool: &str) -> String {
    let map = guard.servers.manifests.map(caller);
    match policies::names::nearest(tool, map.tools.keys().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None => "`pleach tools` lists them".to_owned(),
    }
}
