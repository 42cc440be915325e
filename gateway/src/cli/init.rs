use super::clients::{Foreign, Origin, read};
use super::tools::toml_key;
use super::words::say;
use super::{Context, edit};
use crate::error::{Failure, Outcome};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Write a policy file: your servers, deny by default, each line explained.
///
/// Reads the configuration of Claude Code, Claude Desktop, Cursor or VS Code (--from, else the one
/// found in this folder). Nothing is started, and the client's own file is not touched.
///
/// Example: pleach init --from .mcp.json
#[derive(clap::Args)]
pub(super) struct Args {
    /// The client's configuration.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Replace a policy file that is there.
    #[arg(long)]
    force: bool,
}

const FOUND_HERE: [&str; 4] = [".mcp.json", ".cursor/mcp.json", ".vscode/mcp.json", "claude_desktop_config.json"];

pub(super) fn run(context: &Context, args: Args) -> Outcome {
    let target = &context.config;
    if target.exists() && !args.force {
        return Err(Failure::usage(format!("{} is there already; --force replaces it", target.display())));
    }
    let from = args.from.or_else(|| FOUND_HERE.map(PathBuf::from).into_iter().find(|p| p.exists()));
    let servers = match &from {
        Some(path) => read(path).map_err(Failure::usage)?,
        None => Vec::new(),
    };
    let mut names: Vec<String> = Vec::new();
    let mut notes = Vec::new();
    let text = policy(&servers, from.as_deref(), &mut names, &mut notes);
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = folder.canonicalize()?.join(target.file_name().unwrap_or_default());
    edit::write_atomically(&file, &text)?;
    let headers = |s: &Foreign| match &s.origin {
        Origin::Url(_, headers) => headers.clone(),
        _ => Vec::new(),
    };
    let literal =
        |(k, v): &(String, String)| (secret(k) || k.eq_ignore_ascii_case("authorization")) && !v.contains("${");
    if servers.iter().any(|s| s.env.iter().chain(&headers(s)).any(literal)) {
        // Secrets that stood in the client's file stand in ours now.
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        notes.push("a secret was taken over as it stood; better export it and write ${VAR}".into());
    }
    say!("{}: {} servers", target.display(), names.len());
    for note in &notes {
        say!("note: {note}");
    }
    let installs = servers.iter().any(|s| matches!(&s.origin, Origin::Command(c, _) if downloads(c)));
    let next = if installs || !names.is_empty() {
        "pleach install --all --accept-hints    (or without, and classify by hand)"
    } else {
        "pleach check"
    };
    say!("next: {next}");
    Ok(0)
}

fn policy(servers: &[Foreign], from: Option<&Path>, names: &mut Vec<String>, notes: &mut Vec<String>) -> String {
    let mut out = String::from("version = 1\n");
    if let Some(from) = from {
        put(
            &mut out,
            format_args!("# Taken over from {}. `pleach check` says in sentences what this allows.", from.display()),
        );
    }
    let (mut write, mut domains) = (Vec::new(), Vec::new());
    for server in servers {
        match &server.origin {
            Origin::Unserved(why) => {
                notes.push(format!("{}: left out: {why}", server.name));
                continue;
            }
            Origin::Command(..) | Origin::Url(..) => {}
        }
        let name = unique(&tidy_name(&server.name), names);
        if name != server.name {
            notes.push(format!("{:?} is called {name} here", server.name));
        }
        notes.extend(server.notes.iter().map(|n| format!("{name}: {n}")));
        names.push(name.clone());
        write.extend(server.write.iter().cloned());
        domains
            .extend(server.domains.iter().filter(|d| policies::domain::Domains::parse([d.as_str()]).is_ok()).cloned());
        table(&mut out, &name, server);
    }
    let read: Vec<String> = servers.iter().flat_map(paths).collect();
    root(&mut out, names, &read, &write, &domains);
    out
}

fn table(out: &mut String, name: &str, server: &Foreign) {
    put(out, format_args!("\n[servers.{name}]"));
    match &server.origin {
        Origin::Command(command, args) => {
            if downloads(command) {
                put(
                    out,
                    format_args!(
                        "# {command} downloads at start; `pleach install {name}` fetches it once and changes these lines."
                    ),
                );
            }
            put(out, format_args!("command = {}", quoted(command)));
            if !args.is_empty() {
                put(out, format_args!("args = [{}]", args.iter().map(|a| quoted(a)).collect::<Vec<_>>().join(", ")));
            }
        }
        Origin::Url(url, headers) => {
            put(out, format_args!("url = {}", quoted(url)));
            if !headers.is_empty() {
                put(out, format_args!("headers = {}", inline(headers)));
            }
        }
        Origin::Unserved(_) => {}
    }
    if !server.env.is_empty() {
        put(out, format_args!("env = {}", inline(&server.env)));
    }
    if let Some(cwd) = &server.cwd {
        put(out, format_args!("cwd = {}", quoted(cwd)));
    }
    if let Some(timeout) = server.timeout.filter(|t| (1..=86_400_000).contains(t)) {
        put(out, format_args!("timeout = {timeout}"));
    }
}

fn root(out: &mut String, names: &[String], read: &[String], write: &[String], domains: &[String]) {
    let list = |items: &[String]| {
        let mut items: Vec<String> = items.iter().map(|i| quoted(i)).collect();
        items.dedup();
        items.join(", ")
    };
    let mut folders = vec![".".to_owned()];
    folders.extend(read.iter().filter(|p| p.as_str() != ".").cloned());
    out.push_str("\n# The root grant. What is not named here is denied.\n[policy]\n");
    out.push_str("# Tools up to this class may be called; one without a class counts as destructive.\n");
    out.push_str("max_access = \"read-only\"\n");
    out.push_str("\n[policy.filesystem]\n# Folders the servers' processes may read; the kernel holds them to it.\n");
    put(out, format_args!("read = [{}]", list(&folders)));
    out.push_str("# Folders they may write, once max_access is at least \"read-write\".\n");
    put(out, format_args!("read_write = [{}]", list(write)));
    out.push_str("\n[policy.domains]\n# Hosts they may reach, such as \"api.example.com\" or \"*.example.com\"; none to begin with.\n");
    put(out, format_args!("allow = [{}]", list(domains)));
    out.push_str(
        "\n[policy.tools]\n# Which servers' tools may be called at all. deny = [\"*__delete_*\"] would beat this.\n",
    );
    let globs: Vec<String> = names.iter().map(|n| format!("{n}__*")).collect();
    put(out, format_args!("allow = [{}]", list(&globs)));
}

/// Existing paths among the arguments, and `--flag=/path` too.
fn paths(server: &Foreign) -> Vec<String> {
    let Origin::Command(_, args) = &server.origin else { return Vec::new() };
    let candidates = args.iter().map(|a| a.split_once('=').map_or(a.as_str(), |(_, value)| value));
    candidates
        .filter(|a| (a.starts_with('/') || a.starts_with('.')) && Path::new(a).exists())
        .map(str::to_owned)
        .collect()
}

/// Commands that fetch a package at start, which does not belong in a sandbox.
pub(super) fn downloads(command: &str) -> bool {
    let name = Path::new(command).file_name().and_then(|n| n.to_str()).unwrap_or("");
    matches!(name, "npx" | "uvx" | "bunx" | "pnpx" | "pipx" | "uv")
}

fn secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL"].iter().any(|word| name.contains(word))
}

/// A name this file accepts, as near as can be.
pub(super) fn tidy_name(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '-' }).collect();
    let mut plain = plain.trim_matches('-').to_owned();
    while plain.contains("__") {
        plain = plain.replace("__", "_");
    }
    plain.truncate(44);
    if plain.is_empty() || plain == "pleach" { "server".to_owned() } else { plain }
}

fn unique(name: &str, taken: &[String]) -> String {
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|n| !taken.contains(n)).unwrap_or_else(|| name.to_owned())
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{line}");
}

fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

fn inline(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{} = {}", toml_key(k), quoted(v))).collect();
    format!("{{ {} }}", pairs.join(", "))
}
