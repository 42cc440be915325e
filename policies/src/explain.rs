//! Sentences: what a grant means to a reviewer, and why a verdict fell.

use crate::authority::RunAuthority;
use crate::budget::{count, in_words};
use crate::domain::{Domains, Networks};
use crate::fs::FsGrant;
use crate::grant::{Grant, Profile};
use crate::permission::Access;
use crate::price::Usd;
use crate::resolve::{AgentSpec, Limits, ModelSpec, Policy, Priced, SecretSpec, Source};
use crate::tools::Mode;
use std::path::Path;

/// `check`'s sentences: one paragraph for the root and one for each agent, as it would be
/// started from a door, and again for each parent that leaves it less.
pub fn sentences(policy: &Policy, folder: &Path) -> Vec<String> {
    let root = describe(&policy.root, folder);
    let mut out = vec![format!("The root policy {root} {}", spends("It", &policy.root_limits))];
    if policy.root.sandbox != Profile::Full {
        let loses: Vec<String> = policy.root.sandbox.loses().iter().map(|l| format!("  - {l}")).collect();
        out.push(format!("The sandbox profile \"{}\" loses:\n{}", policy.root.sandbox, loses.join("\n")));
    }
    out.extend(policy.models.values().filter_map(model));
    out.extend(policy.secrets.values().filter(|secret| !secret.given_to.is_empty()).map(|s| secret(s, folder)));
    for agent in policy.agents.values() {
        let Ok(own) = RunAuthority::spawn(&policy.door(None), &agent.policy, None) else { continue };
        out.push(format!("{} {}", agent.name, agent_sentence(policy, agent, &own, folder)));
        for parent in policy.agents.values().filter(|p| p.subagents.contains(&agent.name)) {
            let Ok(above) = RunAuthority::spawn(&policy.door(None), &parent.policy, None) else { continue };
            let Ok(below) = RunAuthority::spawn(&above.delegate, &agent.policy, None) else { continue };
            if below.use_.grant() != own.use_.grant() && !own.use_.grant().within(below.use_.grant()) {
                let sentence = describe(below.use_.grant(), folder);
                out.push(format!("{} beneath {} {sentence}", agent.name, parent.name));
            }
        }
    }
    out
}

/// Where a secret comes from, and who gets it.
fn secret(spec: &SecretSpec, folder: &Path) -> String {
    let from = match &spec.source {
        Source::File { named, .. } => {
            format!("the file {}, which is in no grant,", named.strip_prefix(folder).unwrap_or(named).display())
        }
        Source::Command(words) => {
            format!("the command {}, run outside the sandbox,", words.first().map_or("", String::as_str))
        }
        Source::Variable(name) => format!("the variable {name}"),
    };
    let whom: Vec<&str> = spec.given_to.iter().map(String::as_str).collect();
    format!("Secret {} comes from {from} and is given to {} only.", spec.name, whom.join(", "))
}

/// A model that is somewhere else: who is told what agents say, and what that costs.
fn model(spec: &ModelSpec) -> Option<String> {
    let remote = spec.remote()?;
    let dollars = |billionths: u64| Usd(billionths.saturating_mul(1_000_000));
    let cost = match &spec.price {
        None => "cost unknown".to_owned(),
        Some(Priced { price, as_of }) => {
            let above = price
                .above
                .map(|a| format!(", above {} tokens {} and {}", a.tokens, dollars(a.input), dollars(a.output)));
            let as_of = as_of.as_ref().map(|day| format!(" as of {day}")).unwrap_or_default();
            format!(
                "{} per million tokens read and {} written{}{as_of}",
                dollars(price.input),
                dollars(price.output),
                above.unwrap_or_default()
            )
        }
    };
    let names: Vec<&str> = spec.fallback.iter().map(|n| n.as_str()).collect();
    let fallback =
        if names.is_empty() { String::new() } else { format!(" When it cannot, {} answers.", names.join(", then ")) };
    let origin = remote.base_url.origin().ascii_serialization();
    Some(format!("Model {} is {} at {origin}: {cost}.{fallback}", spec.name, remote.model))
}

fn agent_sentence(policy: &Policy, agent: &AgentSpec, own: &RunAuthority, folder: &Path) -> String {
    let limits = policy.root_limits.meet(agent.limits);
    let mut text = format!("{} {}", describe(own.use_.grant(), folder), spends("It", &limits));
    if agent.subagents.is_empty() {
        text.push_str(" It starts nobody.");
        return text;
    }
    let names: Vec<&str> = agent.subagents.iter().map(|n| n.as_str()).collect();
    text.push_str(&format!(" It may start {}", names.join(", ")));
    let (mine, give) = (own.use_.grant(), own.delegate.grant());
    if give == mine || give.within(mine) {
        text.push_str(", and give them no more than it has.");
    } else {
        let wider: Vec<&str> = give.exceeds(mine).into_iter().map(|c| c.as_str()).collect();
        text.push_str(&format!(
            ", and may give them more {} than it has itself: a child {}",
            wider.join(", "),
            describe(give, folder)
        ));
    }
    let below = limits.meet(agent.subagent_limits);
    if below != limits {
        text.push_str(&format!(" {}", spends("Each of them", &below)));
    }
    text
}

/// One grant in words: `may read docs/papers, write nothing, reach no network, …`.
pub fn describe(grant: &Grant, folder: &Path) -> String {
    let calls = match (tools(grant), grant.max_access) {
        (None, _) => "no tools".to_owned(),
        (Some(tools), Access::ReadOnly) => format!("read-only tools: {tools}"),
        (Some(tools), Access::ReadWrite) => format!("tools up to read-write: {tools}"),
        (Some(tools), Access::Destructive) => format!("tools of every class, destructive ones too: {tools}"),
    };
    let agents = grant.spawn;
    format!(
        "may {}, {}. It calls {calls}. The tree beneath goes to depth {} with at most {} runs.",
        files(&grant.filesystem, grant.max_access, folder),
        reach(&grant.domains, &grant.networks),
        agents.max_depth,
        agents.max_total,
    )
}

/// What counted limits leave: `It may spend $2.00, 500000 tokens, 100 turns, 30 minutes.`
pub fn spends(who: &str, limits: &Limits) -> String {
    let counts = [("turn", limits.turns), ("tool call", limits.tool_calls)];
    let counts = counts.into_iter().filter(|(_, n)| *n != u32::MAX).map(|(name, n)| count(n.into(), name));
    let usd = (limits.usd != Usd::MAX).then(|| limits.usd.to_string());
    let tokens = (limits.tokens != u64::MAX).then(|| count(limits.tokens, "token"));
    let parts: Vec<String> = usd.into_iter().chain(tokens).chain(counts).chain(limits.wall.map(in_words)).collect();
    match parts.as_slice() {
        [] => format!("{who} may spend without limit."),
        parts => format!("{who} may spend {}.", parts.join(", ")),
    }
}

fn files(fs: &FsGrant, access: Access, folder: &Path) -> String {
    let short = |path: &Path| match path.strip_prefix(folder) {
        Ok(rest) if rest.as_os_str().is_empty() => ".".to_owned(),
        Ok(rest) => rest.display().to_string(),
        Err(_) => path.display().to_string(),
    };
    let list = |paths: &mut dyn Iterator<Item = String>| {
        let all: Vec<String> = paths.collect();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    };
    let read = list(&mut fs.read().iter().map(|p| short(p)));
    let mut write = list(&mut fs.write().iter().map(|p| short(p)));
    if access == Access::ReadOnly {
        write = "nothing".to_owned();
    }
    let mut text = format!("read {read}, write {write}");
    let deny: Vec<String> = fs.deny().iter().filter(|p| !own_file(p)).map(|p| short(p)).collect();
    if !deny.is_empty() {
        text.push_str(&format!(", except {}", deny.join(", ")));
    }
    text
}

/// Pleach's own files are always kept out; saying so for each agent would only be noise.
fn own_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    name == "pleach.toml" || [".db", ".db-wal", ".db-shm", ".db-journal"].iter().any(|e| name.ends_with(e))
}

fn reach(domains: &Domains, networks: &Networks) -> String {
    let mut all = domains.patterns();
    all.extend(networks.blocks().iter().map(ToString::to_string));
    if all.is_empty() { "reach no network".to_owned() } else { format!("reach {}", all.join(", ")) }
}

fn tools(grant: &Grant) -> Option<String> {
    let mut parts = Vec::new();
    for (mode, word) in [(Mode::Allow, ""), (Mode::Ask, "asking for "), (Mode::Deny, "never ")] {
        for layer in grant.tools.layers() {
            let names: Vec<&str> = layer.list(mode).iter().map(|g| g.as_str()).collect();
            if !names.is_empty() {
                parts.push(format!("{word}{}", names.join(", ")));
            }
        }
        if mode == Mode::Ask && grant.tools.layers().any(|l| l.rest() == Mode::Ask) {
            parts.push("asking for the rest".to_owned());
        }
    }
    let names = |l: &crate::tools::Layer| !l.list(Mode::Allow).is_empty() || !l.list(Mode::Ask).is_empty();
    let allows_any = grant.tools.layers().all(|l| l.rest() != Mode::Deny || names(l));
    allows_any.then(|| parts.join("; "))
}
