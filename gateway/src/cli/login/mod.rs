//! `pleach login`.

mod listener;

use super::Context;
use super::words::say;
use crate::error::{Exit, Failure, Outcome};
use crate::oauth::{Account, Login, Vault};
use crate::{servers, settings};
use adapters::oauth::Credential;
use listener::Listener;
use policies::names::{Name, nearest};
use policies::resolve::{Flow, Policy, Transport};
use std::time::Duration;
use url::Url;

/// How long a person may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// The port of the redirect where nobody listens.
const NO_PORT: u16 = 8912;

/// Log in at a server that asks for OAuth, and keep the tokens.
///
/// Opens the page on which you consent and waits on loopback until it sends you back. The tokens
/// are kept encrypted in pleach's state folder, for this server and for the command line; with
/// --client for that client of [clients]. They are renewed by themselves, and a running
/// `pleach serve` takes them up.
///
/// Where the browser is on another machine, use --no-browser and paste the address it was sent
/// back to, whose page does not load there.
///
/// Example: pleach login search
#[derive(clap::Args)]
pub(super) struct Args {
    /// The server.
    server: String,
    /// The client of [clients] the tokens are for.
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Print the address instead of opening it.
    #[arg(long)]
    no_browser: bool,
    /// Ask for the page without a person, for issuers that consent by themselves (tests).
    #[arg(long, conflicts_with = "no_browser")]
    follow: bool,
    /// Forget the tokens instead.
    #[arg(long, conflicts_with_all = ["no_browser", "follow"])]
    forget: bool,
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = settings::load(&context.config)?;
    let name = server_named(&loaded.policy, &args.server)?;
    let Some(spec) = loaded.policy.servers.get(&name) else { return Err(Failure::usage("no such server")) };
    if let Some(why) = &spec.unapproved {
        return Err(Failure::usage(format!("server {name}: {why}")));
    }
    let Transport::Http { url, headers, auth } = &spec.transport else {
        return Err(Failure::usage(format!("server {name} is a program; only servers with a url ask for a login")));
    };
    let Some(auth) = auth else {
        return Err(Failure::usage(format!(
            "server {name} is told who pleach is by its headers, or its url is not https; there is nothing to log in to"
        )));
    };
    if auth.flow == Flow::Grant {
        let why = format!("server {name} takes what comes along with a task to call back with; nobody logs in");
        return Err(Failure::usage(why));
    }
    let principal = principal(&loaded.policy, args.client.as_deref())?;
    let account = Account::new(&Vault::new(loaded.state.clone()), &name, url, auth, &principal);
    if args.forget {
        let had = account.forget().await?;
        say!("{name}: {}", if had { "forgotten" } else { "there was nothing to forget" });
        return Ok(0);
    }
    let failed = |e: adapters::oauth::OAuthError| Failure::new(Exit::Failed, format!("{name}: {e}"));
    let target = servers::target(url, headers, None).map_err(|e| Failure::new(Exit::Failed, e))?;
    if auth.flow == Flow::ClientCredentials {
        account.own(target).await.map_err(failed)?;
        say!("{name}: pleach has its own token; it needs no login");
        return Ok(0);
    }
    let start = account.start(target).await.map_err(failed)?;
    let issuer = start.issuer().to_owned();
    let scopes = if start.scopes().is_empty() { String::new() } else { format!(" ({})", start.scopes().join(" ")) };
    eprintln!("{name}: {issuer} is asked for tokens{scopes}");
    let port = auth.redirect_port;
    let credential = if args.follow {
        let redirect = match (port, start.redirect()) {
            (None, Some(before)) => before.to_owned(),
            (port, _) => redirect(port.unwrap_or(NO_PORT)),
        };
        let login = account.ask(start, &redirect).await.map_err(failed)?;
        let answer = login.follow().await.map_err(failed)?;
        account.finish(login, &answer).await.map_err(failed)?
    } else {
        let before = start.redirect().and_then(|r| Url::parse(r).ok()).and_then(|r| r.port());
        let listener = Listener::bind(port, before).await.map_err(|e| Failure::new(Exit::Failed, e))?;
        let login = account.ask(start, &redirect(listener.port())).await.map_err(failed)?;
        let answer = answer(&login, listener, args.no_browser).await?;
        account.finish(login, &answer).await.map_err(failed)?
    };
    say!("{name}: logged in at {issuer}{}", summary(&credential));
    if loaded.policy.clients.is_some() && args.client.is_none() {
        say!("{name}: for the command line only; each client has its own tokens: --client NAME");
    }
    Ok(0)
}

/// Shows the question and waits for the answer, wherever it comes from.
async fn answer(login: &Login, listener: Listener, no_browser: bool) -> Result<Url, Failure> {
    let prefix = redirect(listener.port());
    let state = login.url().query_pairs().find(|(key, _)| key == "state").map(|(_, state)| state.into_owned());
    let Some(state) = state.filter(|state| !state.is_empty()) else {
        return Err(Failure::new(Exit::Failed, "the question has no state, so no answer could be told from another"));
    };
    if no_browser || !open(login.url()) {
        eprintln!("open this address and consent:\n\n  {}\n", login.url());
        eprintln!("or, if the browser is elsewhere, paste the address it was sent back to ({prefix}?…)");
    } else {
        eprintln!("consent in the browser; if none opened: {}", login.url());
    }
    let waited = async {
        tokio::select! {
            answer = listener.answer(&state) => answer,
            answer = pasted(&prefix), if no_browser => answer,
        }
    };
    let answer = tokio::time::timeout(PATIENCE, waited).await;
    let late = || Failure::new(Exit::Failed, format!("nobody answered within {} min", PATIENCE.as_secs() / 60));
    answer.unwrap_or_else(|_| Err(late().message)).map_err(|why| Failure::new(Exit::Failed, why))
}

/// An address from standard input.
async fn pasted(prefix: &str) -> Result<Url, String> {
    use tokio::io::AsyncBufReadExt;
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match Url::parse(line.trim()) {
            Ok(url) if url.as_str().starts_with(prefix) => return Ok(url),
            _ if line.trim().is_empty() => {}
            _ => eprintln!("that is no address that begins with {prefix}"),
        }
    }
    // No more input; the listener may still be answered.
    std::future::pending().await
}

/// Opens the browser, where there is a desktop to open it on.
fn open(url: &Url) -> bool {
    use std::process::{Command, Stdio};
    if ["DISPLAY", "WAYLAND_DISPLAY"].iter().all(|name| std::env::var_os(name).is_none()) {
        return false;
    }
    let mut command = Command::new("xdg-open");
    command.arg(url.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // It may stay for as long as the browser does.
    std::thread::spawn(move || command.status());
    true
}

fn redirect(port: u16) -> String {
    format!("http://127.0.0.1:{port}{}", listener::PATH)
}

fn server_named(policy: &Policy, server: &str) -> Result<Name, Failure> {
    let found = policy.servers.keys().find(|name| name.as_str() == server).cloned();
    found.ok_or_else(|| {
        let near = nearest(server, policy.servers.keys().map(|n| n.as_str()));
        let hint = near.map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        Failure::usage(format!("no server is named {server}{hint}"))
    })
}

/// Whose tokens they become: the command line's, or a client's.
fn principal(policy: &Policy, client: Option<&str>) -> Result<String, Failure> {
    let Some(client) = client else { return Ok("local".into()) };
    let known = policy.clients.iter().flat_map(|clients| clients.keys()).any(|name| name.as_str() == client);
    if known { Ok(client.to_owned()) } else { Err(Failure::usage(format!("no client is named {client}"))) }
}

fn summary(credential: &Credential) -> String {
    let scopes = match credential.scopes.as_slice() {
        [] => String::new(),
        scopes => format!(", scopes {}", scopes.join(" ")),
    };
    let renews = match (&credential.refresh, credential.expires_at) {
        (Some(_), _) => "; renewed by itself",
        (None, Some(_)) => "; not renewable, log in again when it ends",
        (None, None) => "",
    };
    format!("{scopes}{renews}")
}
