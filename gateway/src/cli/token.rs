use super::Context;
use super::words::say;
use crate::error::{Failure, Outcome};
use crate::guard::LOCAL;
use crate::live::GRANTS;
use crate::settings::{self, Loaded};
use adapters::token::{self, Granter, Says};
use policies::authority::{Authority, Link};
use policies::claims;
use policies::grant::Narrowing;
use policies::resolve::{ClientSpec, Limits};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::SystemTime;

/// Grants as tokens: less than a client holds, for a script, an agent elsewhere, another gateway.
///
/// A token carries a grant and can only lose more of it: whoever holds one takes away from it with
/// `attenuate`, without asking anybody. It is good at this gateway's /mcp until it expires, as long as
/// its client is in the policy file, and never for more than that client holds at the moment.
///
/// Example: pleach token mint --client ci --allow 'files__Read' --ttl 15m
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print this gateway's key, for `grant_key` of another gateway's `[clients.NAME]`: with it
    /// that gateway believes the grants which agents here are given along.
    Key {
        /// Print one JSON object: `key`.
        #[arg(long)]
        json: bool,
    },
    /// Print a token for a part of what a client holds.
    Mint {
        /// Whose part it is; default: the anonymous one, where no clients are named.
        #[arg(long, value_name = "CLIENT")]
        client: Option<String>,
        #[command(flatten)]
        less: Less,
        /// Where it is shown; default: `public_url`, else `listen` of the file.
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Print one JSON object: `token`, `client`, `url`, `expires` (seconds since 1970).
        #[arg(long)]
        json: bool,
    },
    /// Print a token that grants less than the one it is made of. Nobody is asked, and no key is needed.
    Attenuate {
        /// The token, or - to read it from standard input.
        token: String,
        #[command(flatten)]
        less: Less,
    },
    /// Print what a token says, block by block. Whether it is believed is not looked at.
    Show {
        /// The token, or - to read it from standard input.
        token: String,
        /// Print one JSON object: `blocks`, each with `id` and `source`.
        #[arg(long)]
        json: bool,
    },
}

/// What is taken away.
#[derive(clap::Args)]
struct Less {
    /// Only tools of this pattern; may be said more than once.
    #[arg(long, value_name = "PATTERN")]
    allow: Vec<String>,
    /// No more than this class of access.
    #[arg(long, value_name = "CLASS", value_parser = ["read-only", "read-write", "destructive"])]
    max_access: Option<String>,
    /// Only this domain; may be said more than once.
    #[arg(long, value_name = "DOMAIN")]
    domain: Vec<String>,
    /// A grant as JSON, for all else: the form `pleach token show` prints.
    #[arg(long, value_name = "JSON")]
    grant: Option<String>,
    /// How long it is good; a day at most.
    #[arg(long, value_name = "TIME", default_value = "15m")]
    ttl: String,
}

impl Less {
    /// The flags as a grant's text.
    fn flags(&self) -> Option<String> {
        let mut grant = Map::new();
        if !self.allow.is_empty() {
            grant.insert("tools".into(), json!([{ "allow": self.allow }]));
        }
        if let Some(class) = &self.max_access {
            grant.insert("max_access".into(), json!(class));
        }
        if !self.domain.is_empty() {
            grant.insert("domains".into(), json!(self.domain));
        }
        (!grant.is_empty()).then(|| Value::Object(grant).to_string())
    }
    /// All that is taken away, checked.
    fn texts(&self) -> Result<Vec<String>, Failure> {
        let texts: Vec<String> = self.flags().into_iter().chain(self.grant.clone()).collect();
        for text in &texts {
            claims::read(text).map_err(|e| Failure::usage(e.to_string()))?;
        }
        Ok(texts)
    }
    fn until(&self) -> Result<SystemTime, Failure> {
        let ttl = policies::budget::duration(&self.ttl).map_err(Failure::usage)?;
        if ttl > token::PATIENCE {
            return Err(Failure::usage("--ttl is a day at most; mint another one then".to_owned()));
        }
        Ok(SystemTime::now() + ttl)
    }
}

pub(super) fn run(context: &Context, args: Args) -> Outcome {
    match args.command {
        Command::Key { json } => {
            let granter = granter(&settings::load(&context.config)?)?;
            match json {
                true => say!("{}", json!({ "key": granter.public() })),
                false => say!("{}", granter.public()),
            }
        }
        Command::Mint { client, less, url, json } => mint(context, client.as_deref(), &less, (url.as_deref(), json))?,
        Command::Attenuate { token, less } => {
            let mut token = given(&token)?;
            let until = less.until()?;
            let texts = less.texts()?;
            for text in &texts {
                token = token::attenuate(&token, Some(text), Some(until)).map_err(unfit)?;
            }
            if texts.is_empty() {
                token = token::attenuate(&token, None, Some(until)).map_err(unfit)?;
            }
            say!("{token}");
        }
        Command::Show { token, json } => {
            let blocks = token::show(&given(&token)?).map_err(unfit)?;
            if json {
                let blocks: Vec<Value> = blocks.iter().map(|b| json!({ "id": b.id, "source": b.source })).collect();
                say!("{}", json!({ "blocks": blocks }));
                return Ok(0);
            }
            for (at, block) in blocks.iter().enumerate() {
                let what = if at == 0 { "given" } else { "taken away" };
                say!("block {at} ({what}), revocation id {}\n{}", block.id, block.source.trim_end());
            }
        }
    }
    Ok(0)
}

fn granter(loaded: &Loaded) -> Result<Granter, Failure> {
    Ok(Granter::load(&loaded.state.join(GRANTS))?)
}

fn unfit(flaw: token::Flaw) -> Failure {
    Failure::usage(format!("the token is not taken: {flaw}"))
}

/// A token as it was said, or from standard input.
fn given(token: &str) -> Result<String, Failure> {
    if token != "-" {
        return Ok(token.trim().to_owned());
    }
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::stdin(), &mut text)?;
    Ok(text.trim().to_owned())
}

fn mint(
    context: &Context,
    client: Option<&str>,
    less: &Less,
    (url, json): (Option<&str>, bool),
) -> Result<(), Failure> {
    let loaded = settings::load(&context.config)?;
    let base = super::client::base(&loaded, url)?;
    let spec = whose(&loaded, client)?;
    let mut held: (Authority, Limits) = (loaded.policy.door(spec), spec.map_or(Limits::NONE, |client| client.limits));
    for text in less.texts()? {
        let (asks, limits) = claims::read(&text).map_err(|e| Failure::usage(e.to_string()))?;
        held = (held.0.narrowed(link(asks)), held.1.meet(limits));
    }
    let until = less.until()?;
    let grant = claims::write(held.0.grant(), &held.1).map_err(|e| Failure::usage(e.to_string()))?;
    let principal = spec.map_or(LOCAL, |client| client.name.as_str());
    let chain = held.0.chain().join(" > ");
    let says = Says { grant: &grant, chain: &chain, audience: &base, principal: Some(principal), ..Says::default() };
    let token = granter(&loaded)?.mint(&says, until).map_err(unfit)?;
    if spec.is_none() {
        eprintln!("note: the file names no clients, so whoever leaves the token out holds all there is; see [clients]");
    }
    if json {
        let expires = until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        say!("{}", json!({ "token": token, "client": principal, "url": base, "expires": expires }));
    } else {
        say!("{token}");
    }
    Ok(())
}

fn link(asks: Narrowing) -> Link {
    Link { who: "pleach token mint".into(), asks: Arc::new(asks), sources: Arc::default() }
}

fn whose<'a>(loaded: &'a Loaded, name: Option<&str>) -> Result<Option<&'a ClientSpec>, Failure> {
    match (&loaded.policy.clients, name) {
        (None, None | Some(LOCAL)) => Ok(None),
        (None, Some(name)) => {
            Err(Failure::usage(format!("the file names no clients, so there is no {name}; leave --client out")))
        }
        (Some(clients), name) => {
            let found = name.and_then(|name| clients.get(name));
            let names = || clients.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let found = found.ok_or_else(|| Failure::usage(format!("whose? Name one with --client: {}", names())))?;
            match found.proof.grants() {
                None => Ok(Some(found)),
                Some(_) => {
                    let why =
                        format!("{} is a gateway, which gives its grants itself; name another client", found.name);
                    Err(Failure::usage(why))
                }
            }
        }
    }
}
