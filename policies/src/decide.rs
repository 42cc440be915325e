//! The decision: an authority and something somebody wants, to a verdict. Pure; the only
//! maker of permits.
//!
//! A tool call passes, in this order, its argument checks, the access ceiling, the tool rules,
//! and one judgement for every path and host among its arguments. The first refusal is the
//! answer; a call that any rule wants asked about is a question.

use crate::action::{Call, Complete, Connect, Fetch, Inquiry, RuntimeCall, Spawn, Touch, Touched, TreeFacts};
use crate::authority::Authority;
use crate::domain::{Host, Networks};
use crate::fs::FileOp;
use crate::grant::Grant;
use crate::manifest::{AccessFrom, Tool};
use crate::permit::{Denial, Permit, Question, Rule, Verdict};
use crate::tools::Mode;
use std::path::Path;

/// Judges a call of an imported tool.
pub fn call(authority: &Authority, call: Call) -> Verdict<Call> {
    call_or_back(authority, call).unwrap_or_else(|(denial, _)| Verdict::Deny(denial))
}

/// The same; what is denied is given back, for whoever says what it was.
///
/// # Errors
/// The denial, with the call.
pub fn call_or_back(authority: &Authority, call: Call) -> Result<Verdict<Call>, (Denial, Call)> {
    match judge_call(authority, &call) {
        Err(denial) => Err((denial, call)),
        Ok((Mode::Ask, rule)) => Ok(Verdict::Ask(Question::new(call, rule))),
        Ok((_, rule)) => Ok(Verdict::Allow(Permit::new(call, &rule), rule)),
    }
}

fn judge_call(authority: &Authority, call: &Call) -> Result<(Mode, Rule), Denial> {
    let name = &call.tool.name;
    if let Err(what) = call.tool.check_arguments(&call.arguments) {
        return Err(Denial::plain(
            format!("arguments of {name} do not fit its input schema: {what}"),
            "correct the arguments and call again",
        ));
    }
    if let Some(denial) = over_ceiling(authority, &call.tool) {
        return Err(denial);
    }
    let mode = authority.grant().tools.mode(name);
    if mode == Mode::Deny {
        return Err(tool_denied(authority, name, Grant::tool_mode));
    }
    call.touches.iter().try_for_each(|touch| judge_touch(authority, touch))?;
    Ok((mode, tool_rule(authority, name, mode, Grant::tool_mode)))
}

/// Whether a call that was permitted and has left would be permitted now: judged like [`call`],
/// but for its arguments, which are the tool's business. Where a person was `asked`, they are
/// not asked again.
///
/// # Errors
/// Why it would not.
pub fn still(authority: &Authority, tool: &Tool, touches: &[Touch], asked: bool) -> Result<(), Denial> {
    if let Some(denial) = over_ceiling(authority, tool) {
        return Err(denial);
    }
    match authority.grant().tools.mode(&tool.name) {
        Mode::Deny => return Err(tool_denied(authority, &tool.name, Grant::tool_mode)),
        Mode::Ask if !asked => {
            let why = format!("{} asks a person now", tool.name);
            return Err(Denial::plain(why, "call it again, and a person is asked"));
        }
        _ => {}
    }
    touches.iter().try_for_each(|touch| judge_touch(authority, touch))
}

/// The same for a resource, a prompt, a completion or a task.
///
/// # Errors
/// Why it would not be permitted.
pub fn still_fetched(authority: &Authority, rule: &str, touches: &[Touch]) -> Result<(), Denial> {
    if authority.grant().tools.mode(rule) == Mode::Deny {
        return Err(tool_denied(authority, rule, Grant::tool_mode));
    }
    touches.iter().try_for_each(|touch| judge_touch(authority, touch))
}

/// Judges a call of one of the runtime's own tools, which need no allow.
pub fn runtime(authority: &Authority, tool: &'static str) -> Verdict<RuntimeCall> {
    let mode = authority.grant().tools.runtime_mode(tool);
    if mode == Mode::Deny {
        return Verdict::Deny(tool_denied(authority, tool, Grant::runtime_mode));
    }
    let rule = tool_rule(authority, tool, mode, Grant::runtime_mode);
    let what = RuntimeCall { tool };
    match mode {
        Mode::Ask => Verdict::Ask(Question::new(what, rule)),
        _ => Verdict::Allow(Permit::new(what, &rule), rule),
    }
}

/// Judges a resource, a prompt or a completion: allowed by the tool rules under its rule name,
/// and for every path and host it touches. Reading is within every ceiling.
pub fn fetch(authority: &Authority, fetch: Fetch) -> Verdict<Fetch> {
    let mode = authority.grant().tools.mode(&fetch.rule);
    if mode == Mode::Deny {
        return Verdict::Deny(tool_denied(authority, &fetch.rule, Grant::tool_mode));
    }
    for touch in &fetch.touches {
        if let Err(denial) = judge_touch(authority, touch) {
            return Verdict::Deny(denial);
        }
    }
    let rule = tool_rule(authority, &fetch.rule, mode, Grant::tool_mode);
    match mode {
        Mode::Ask => Verdict::Ask(Question::new(fetch, rule)),
        _ => Verdict::Allow(Permit::new(fetch, &rule), rule),
    }
}

/// Judges what a server asks of its caller (elicitation, sampling, roots). Being asked needs
/// no allow, since whoever is asked decides; `deny` and `ask` apply.
pub fn inquiry(authority: &Authority, inquiry: Inquiry) -> Verdict<Inquiry> {
    let mode = authority.grant().tools.runtime_mode(&inquiry.rule);
    if mode == Mode::Deny {
        return Verdict::Deny(tool_denied(authority, &inquiry.rule, Grant::runtime_mode));
    }
    let rule = tool_rule(authority, &inquiry.rule, mode, Grant::runtime_mode);
    match mode {
        Mode::Ask => Verdict::Ask(Question::new(inquiry, rule)),
        _ => Verdict::Allow(Permit::new(inquiry, &rule), rule),
    }
}

/// Judges a connection by host name or literal address. The addresses a name resolves to are
/// judged by [`Connect::judge`] before one is dialled.
pub fn connect(authority: &Authority, host: Host, port: u16) -> Verdict<Connect> {
    match judge_host(authority, &host, port) {
        Err(denial) => Verdict::Deny(denial),
        Ok(rule) => {
            let networks = authority.grant().networks.clone();
            Verdict::Allow(Permit::new(Connect { host, port, networks }, &rule), rule)
        }
    }
}

/// The permit of a registered server, peer or model for its own origin: authorised by being
/// registered. A private address only if it was written literally (`localhost` counts).
pub fn registered(host: Host, port: u16) -> Permit<Connect> {
    let networks = match &host {
        Host::Address(address) => Networks::new([(*address).into()]),
        Host::Domain(_) if host.is_loopback() => Networks::new([crate::net("127.0.0.0/8"), crate::net("::1/128")]),
        Host::Domain(_) => Networks::default(),
    };
    Permit::new(Connect { host, port, networks }, &unplaced("registered"))
}

fn unplaced(text: &str) -> Rule {
    Rule { text: text.to_owned(), place: None }
}

/// The permit for a host that a registered server or issuer names in its metadata (RFC 9728,
/// RFC 8414). It was not the operator who wrote it, so only public addresses may be dialled, and
/// loopback ones by their very name where `by` itself is there; `by`'s own host as it is
/// registered.
///
/// # Errors
/// When the host is a literal address that may not be dialled.
pub fn named_by(by: &Host, host: Host, port: u16) -> Result<Permit<Connect>, Denial> {
    if *by == host || (by.is_loopback() && host.is_loopback()) {
        return Ok(registered(host, port));
    }
    let connect = Connect { host, port, networks: Networks::default() };
    if connect.host.is_loopback() {
        return Err(Denial::plain(
            format!("{by} names {connect}, which is this machine"),
            "only public hosts may be named",
        ));
    }
    if let Host::Address(address) = connect.host
        && let Err(why) = connect.judge(&[address])
    {
        return Err(Denial::plain(format!("{by} names {why}"), "only public hosts may be named"));
    }
    Ok(Permit::new(connect, &unplaced("named by a registered server")))
}

/// Judges a model call.
pub fn complete(authority: &Authority, model: crate::names::Name) -> Verdict<Complete> {
    if authority.grant().models.allows(model.as_str()) {
        let rule = unplaced("models");
        return Verdict::Allow(Permit::new(Complete { model }, &rule), rule);
    }
    let ancestor = authority.refuser(|g| g.models.allows(model.as_str()));
    Verdict::Deny(Denial {
        rule: format!("model {model} is not in models"),
        who: Some(ancestor.who.to_owned()),
        allowed: "use a model of its list".into(),
        place: ancestor.sources.place("models").cloned(),
        fix: Some(format!("add {:?} to models there", model.as_str())),
    })
}

/// Judges a spawn: whether the agent is among those this run may start, and whether the tree
/// has room. How many children run at a time is the host's queue, not a refusal.
pub fn spawn(authority: &Authority, agent: crate::names::Name, facts: TreeFacts) -> Verdict<Spawn> {
    let grant = authority.grant();
    let denied = |allows: &dyn Fn(&Grant) -> bool, key: &str, rule: String, allowed: &dyn Fn(&Grant) -> String| {
        let ancestor = authority.refuser(allows);
        Verdict::Deny(Denial {
            rule,
            who: Some(ancestor.who.to_owned()),
            allowed: allowed(&ancestor.asked),
            place: ancestor.sources.place(key).cloned(),
            fix: Some(format!("change {key} of {}", ancestor.who)),
        })
    };
    if !grant.agents.allows(agent.as_str()) {
        let allowed = |g: &Grant| match &g.agents {
            crate::grant::Names::Only(set) if set.is_empty() => "it may start nobody".to_owned(),
            crate::grant::Names::Only(set) => {
                format!("it may start {}", set.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", "))
            }
            crate::grant::Names::All => "it may start anyone".to_owned(),
        };
        let rule = format!("subagents does not list {agent}");
        return denied(&|g| g.agents.allows(agent.as_str()), "subagents", rule, &allowed);
    }
    if grant.spawn.max_concurrent == 0 {
        let allowed = |_: &Grant| "no child may run; do the work in this run".to_owned();
        return denied(&|g| g.spawn.max_concurrent > 0, "spawn", "spawn.max_concurrent is 0".into(), &allowed);
    }
    let depth = facts.depth + 1;
    if depth > grant.spawn.max_depth {
        let rule = format!("spawn.max_depth is reached: a child would lie at depth {depth}");
        let allowed = |g: &Grant| format!("the tree goes to depth {}; do the work in this run", g.spawn.max_depth);
        return denied(&|g| depth <= g.spawn.max_depth, "spawn", rule, &allowed);
    }
    if facts.total >= grant.spawn.max_total {
        let rule = format!("spawn.max_total is reached: the tree had {} runs", facts.total);
        let allowed = |g: &Grant| format!("a tree has at most {} runs; do the work in this run", g.spawn.max_total);
        return denied(&|g| facts.total < g.spawn.max_total, "spawn", rule, &allowed);
    }
    let rule = unplaced("subagents");
    Verdict::Allow(Permit::new(Spawn { agent, depth }, &rule), rule)
}

/// What may be given to a run on another machine that would lie at `depth` of the tree. It lies at
/// 0 there, so what is left of the depth is all it is given: each hop leaves less, and none leads
/// in a circle for ever.
///
/// # Errors
/// When the tree goes no deeper.
pub fn hop(gives: &Authority, depth: u32) -> Result<Grant, Denial> {
    let mut grant = gives.grant().clone();
    // A hop is a step down, whoever makes it.
    let depth = depth.max(1);
    let Some(left) = grant.spawn.max_depth.checked_sub(depth) else {
        let ancestor = gives.refuser(|g| depth <= g.spawn.max_depth);
        return Err(Denial {
            rule: format!("spawn.max_depth is reached: the peer would work at depth {depth}"),
            who: Some(ancestor.who.to_owned()),
            allowed: format!("the tree goes to depth {}; do the work here", ancestor.asked.spawn.max_depth),
            place: ancestor.sources.place("spawn").cloned(),
            fix: Some(format!("change spawn of {}", ancestor.who)),
        });
    };
    grant.spawn.max_depth = left;
    Ok(grant)
}

impl Grant {
    fn tool_mode(&self, tool: &str) -> Mode {
        self.tools.mode(tool)
    }
    fn runtime_mode(&self, tool: &str) -> Mode {
        self.tools.runtime_mode(tool)
    }
}

fn over_ceiling(authority: &Authority, tool: &Tool) -> Option<Denial> {
    let ceiling = authority.grant().max_access;
    if tool.access <= ceiling {
        return None;
    }
    let ancestor = authority.refuser(|g| tool.access <= g.max_access);
    let up_to = ancestor.asked.max_access;
    let place = ancestor.sources.place("max_access").cloned();
    let (rule, fix) = match &tool.access_from {
        AccessFrom::Unclassified => (
            format!("{} has no access class and counts as destructive", tool.name),
            format!("pleach allow {} --as {up_to}", tool.name),
        ),
        from => (
            format!("{} is {} ({from})", tool.name, tool.access),
            match &place {
                Some(place) => format!("max_access = \"{}\" at {place}", tool.access),
                None => format!("max_access = \"{}\" at {}", tool.access, ancestor.who),
            },
        ),
    };
    Some(Denial {
        rule,
        who: Some(ancestor.who.to_owned()),
        allowed: format!("{} goes up to {up_to}", ancestor.who),
        place,
        fix: Some(fix),
    })
}

fn tool_denied(authority: &Authority, tool: &str, mode: fn(&Grant, &str) -> Mode) -> Denial {
    let ancestor = authority.refuser(|g| mode(g, tool) != Mode::Deny);
    let rule = ancestor.asked.tools.layers().find_map(|l| l.rule(tool).filter(|(m, _)| *m == Mode::Deny));
    match rule {
        Some((_, glob)) => {
            let place = ancestor.sources.place(&format!("tools.deny:{glob}")).cloned();
            Denial {
                rule: format!("tools.deny \"{glob}\" covers {tool}"),
                who: Some(ancestor.who.to_owned()),
                allowed: "no other arguments would pass; use another tool".into(),
                fix: place.as_ref().map(|p| format!("remove \"{glob}\" from tools.deny at {p}")),
                place,
            }
        }
        None => Denial {
            rule: format!("tools.allow does not cover {tool}"),
            who: Some(ancestor.who.to_owned()),
            allowed: "use another tool".into(),
            place: ancestor.sources.place("tools.allow").cloned(),
            fix: Some(format!("add \"{tool}\" to tools.allow of {}", ancestor.who)),
        },
    }
}

fn tool_rule(authority: &Authority, tool: &str, mode: Mode, of: fn(&Grant, &str) -> Mode) -> Rule {
    let word = match mode {
        Mode::Ask => "ask",
        _ => "allow",
    };
    // The rule shown is the one nearest the leaf: the last table that spoke about the tool.
    let ancestor = match mode {
        Mode::Ask => authority.refuser(|g| of(g, tool) == Mode::Allow),
        _ => authority.last_with_tools(),
    };
    let rule = ancestor.asked.tools.layers().find_map(|l| l.rule(tool).filter(|(m, _)| *m == mode));
    match rule {
        Some((_, glob)) => Rule {
            text: format!("tools.{word} \"{glob}\" at {}", ancestor.who),
            place: ancestor.sources.place(&format!("tools.{word}:{glob}")).cloned(),
        },
        None => Rule { text: format!("no rule against {tool}"), place: None },
    }
}

fn judge_touch(authority: &Authority, touch: &Touch) -> Result<(), Denial> {
    match &touch.what {
        Touched::Path(op, path) => judge_path(authority, path, *op),
        Touched::Host(host, port) => judge_host(authority, host, *port).map(drop),
        Touched::Unclear(why) => Err(Denial::plain(
            format!("argument {} ({:?}) is unclear: {why}", touch.pointer, shorten(&touch.written)),
            "write it plainly",
        )),
    }
}

/// Judges one path, for tools and for the built-in servers alike.
///
/// # Errors
/// The rule that does not cover it.
pub fn judge_path(authority: &Authority, path: &Path, op: FileOp) -> Result<(), Denial> {
    if authority.grant().filesystem.allows(path, op) {
        return Ok(());
    }
    let ancestor = authority.refuser(|g| g.filesystem.allows(path, op));
    let files = &ancestor.asked.filesystem;
    let denied = files.deny().iter().find(|d| path.starts_with(d));
    let shown = path.display();
    let (word, key) = match op {
        FileOp::Read => ("reading", "read"),
        FileOp::Write => ("writing", "read_write"),
    };
    if let Some(denied) = denied {
        return Err(Denial {
            rule: format!("filesystem.deny {} covers {shown}", denied.display()),
            who: Some(ancestor.who.to_owned()),
            allowed: "nothing beneath it is allowed".into(),
            place: ancestor.sources.place(&format!("filesystem.deny:{}", denied.display())).cloned(),
            fix: Some("remove it from filesystem.deny there".into()),
        });
    }
    if op == FileOp::Write
        && let Some(protected) = files.protects(path)
    {
        let name = protected.name.join("/");
        return Err(Denial {
            rule: format!("{name} is protected inside a writable folder, and {shown} is of it"),
            who: Some(ancestor.who.to_owned()),
            allowed: "it may be read; other programs obey what stands there".into(),
            place: ancestor.sources.place("filesystem").cloned(),
            fix: Some(format!("name it itself in filesystem.read_write of {}: {shown}", ancestor.who)),
        });
    }
    let prefixes = match op {
        FileOp::Read => files.read(),
        FileOp::Write => files.write(),
    };
    let allowed = match prefixes.len() {
        0 => format!("nothing is allowed for {word}"),
        _ => {
            let list: Vec<_> = prefixes.iter().take(5).map(|p| p.display().to_string()).collect();
            let more = if prefixes.len() > 5 { ", …" } else { "" };
            format!("allowed for {word}: {}{more}", list.join(", "))
        }
    };
    Err(Denial {
        rule: format!("filesystem.{key} does not cover {shown}"),
        who: Some(ancestor.who.to_owned()),
        allowed,
        place: ancestor.sources.place("filesystem").cloned(),
        fix: Some(format!("add {shown} to filesystem.{key} of {}", ancestor.who)),
    })
}

fn judge_host(authority: &Authority, host: &Host, port: u16) -> Result<Rule, Denial> {
    let allows = |g: &Grant| match host {
        Host::Domain(_) => g.domains.allows(host, port),
        Host::Address(address) => g.networks.allows(*address),
    };
    let key = match host {
        Host::Domain(_) => "domains",
        Host::Address(_) => "networks",
    };
    if allows(authority.grant()) {
        return Ok(Rule { text: format!("{key}.allow covers {host}:{port}"), place: None });
    }
    let ancestor = authority.refuser(allows);
    let list: Vec<String> = match host {
        Host::Domain(_) => ancestor.asked.domains.patterns(),
        Host::Address(_) => ancestor.asked.networks.blocks().iter().map(ToString::to_string).collect(),
    };
    Err(Denial {
        rule: format!("{key}.allow does not cover {host}:{port}"),
        who: Some(ancestor.who.to_owned()),
        allowed: if list.is_empty() { "nothing is allowed".into() } else { format!("allowed: {}", list.join(", ")) },
        place: ancestor.sources.place(key).cloned(),
        fix: Some(format!("add \"{host}\" to {key}.allow of {}", ancestor.who)),
    })
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
