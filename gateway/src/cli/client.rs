use super::words::say;
use super::{Context, edit};
use crate::error::{Failure, Outcome};
use crate::settings::{self, Loaded};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use policies::names::Name;
use policies::resolve::AgentSpec;
use serde_json::{Value, json};
use std::net::IpAddr;

/// Let somebody call: a token of its own, and what to do with it.
///
/// The policy file gets the SHA-256 of the token, which is shown once and kept nowhere. What the
/// client may do is its table's `policy`, `may_start` and `can_approve`, which may be added by
/// hand; without them it holds the root grant, and may start the agents that are exposed.
///
/// Example: pleach client add partner
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Write `[clients.NAME]`, and print its token, the cards it may read and a curl line that works.
    Add {
        /// What it is called in the policy file, the record and the runs it starts.
        name: String,
        /// An agent it may start; may be said more than once. Default: those exposed.
        #[arg(long = "may-start", value_name = "AGENT")]
        may_start: Vec<String>,
        /// Where it will find this gateway; default: `public_url`, else `listen` of the file.
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Print one JSON object: `client`, `token`, `url`, and for each agent `agents`: `agent`, `url`,
        /// `card` (null: it has none for everybody), `curl`.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(context: &Context, args: Args) -> Outcome {
    let Command::Add { name, may_start, url, json } = args.command;
    let name = Name::try_from(name.as_str()).map_err(|e| Failure::usage(format!("{name:?} is no name: {e}")))?;
    // Before it is read: whoever adds another one at the same time waits.
    let mut document = edit::open(&context.config)?;
    let before = settings::load(&context.config)?;
    for agent in &may_start {
        super::agent_named(&before.policy, Some(agent))?;
    }
    let base = base(&before, url.as_deref())?;
    let shown = context.config.display().to_string();
    if before.policy.clients.as_ref().is_some_and(|clients| clients.contains_key(&name)) {
        let why =
            format!("{shown} has [clients.{name}] already; remove it first, which ends its token, or name another");
        return Err(Failure::usage(why));
    }
    let table = edit::table(&mut document, &["clients", name.as_str()]);
    let table = table.ok_or_else(|| Failure::usage(format!("clients.{name} of {shown} is not a table")))?;
    let token = fresh()?;
    table["token_sha256"] = toml_edit::value(policies::json::digest(&token));
    if !may_start.is_empty() {
        table["may_start"] = toml_edit::value(may_start.iter().collect::<toml_edit::Array>());
    }
    edit::save(&context.config, &document)?;
    let now = settings::load(&context.config)?;
    let client = now.policy.clients.as_ref().and_then(|clients| clients.get(&name));
    let may = now.policy.may_start(client);
    let agents: Vec<&AgentSpec> = may.iter().filter_map(|agent| now.policy.agents.get(agent)).collect();
    let lines: Vec<Value> = agents.iter().map(|agent| line(&base, agent, &token)).collect();
    if json {
        say!("{}", json!({ "client": name.as_str(), "token": token, "url": base, "agents": lines }));
        return Ok(0);
    }
    say!("{shown}: [clients.{name}] token_sha256 (the token itself is kept nowhere)\n");
    say!("token  {token}\n       shown once; it goes in Authorization: Bearer");
    for line in &lines {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        say!("\nagent  {}", text("agent"));
        match line["card"].as_str() {
            Some(card) => say!("card   {card}"),
            None => say!("card   none for everybody; expose = true of [agents.{}] shows one", text("agent")),
        }
        say!("try    {}", text("curl"));
    }
    say!("\nMCP    {base}/mcp, with the same token");
    if lines.is_empty() {
        say!("note: no agent may be started by {name}; say --may-start, or set expose = true for one");
    }
    if before.policy.clients.is_none() {
        say!("note: until now anybody on this machine could call without a token; from now on only named clients can");
    }
    Ok(0)
}

/// A token nobody guesses.
fn fresh() -> Result<String, Failure> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|e| Failure::from(std::io::Error::other(e.to_string())))?;
    Ok(format!("pleach_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

/// Where a client finds this gateway.
pub(super) fn base(loaded: &Loaded, given: Option<&str>) -> Result<String, Failure> {
    if let Some(given) = given {
        let url = url::Url::parse(given).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| Failure::usage(format!("--url {given:?} is no http or https address")))?;
        return Ok(url.origin().ascii_serialization());
    }
    let gateway = &loaded.policy.gateway;
    if let Some(url) = &gateway.public_url {
        return Ok(url.origin().ascii_serialization());
    }
    let mut listen = gateway.listen;
    if listen.ip().is_unspecified() {
        // Everywhere is nowhere to call; here it is this machine.
        listen.set_ip(match listen.ip() {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        });
    }
    Ok(format!("http://{listen}"))
}

/// What whoever has the token can do with an agent at once.
fn line(base: &str, agent: &AgentSpec, token: &str) -> Value {
    let url = format!("{base}/a2a/{}", agent.name);
    let message = json!({
        "jsonrpc": "2.0", "id": 1, "method": "SendMessage",
        "params": { "message": { "messageId": "hello-1", "role": "ROLE_USER", "parts": [{ "text": "Hello" }] } },
    });
    // Nothing in it needs another quoting: names and tokens hold no quotation marks.
    let curl = format!(
        "curl -sS {url} -H 'Authorization: Bearer {token}' -H 'A2A-Version: 1.0' \
         -H 'Content-Type: application/json' -d '{message}'"
    );
    let card = agent.expose.then(|| format!("{url}/.well-known/agent-card.json"));
    json!({ "agent": agent.name.as_str(), "url": url, "card": card, "curl": curl })
}
