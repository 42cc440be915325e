//! Grants: the root's, and those of agents.

use super::{About, Change, Places, Way};
use crate::authority::{RunAuthority, Sources};
use crate::domain::{Domains, Networks};
use crate::explain::{describe, spends};
use crate::fs::{FileOp, FsGrant};
use crate::grant::{Component, Grant, Names, Narrowing};
use crate::resolve::{AgentSpec, Limits, Policy};
use crate::tools::{Mode, ToolRules};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// A table a grant came from. The root's own has no narrowing: it is what is narrowed.
#[derive(Clone)]
pub(super) struct Table {
    pub(super) asks: Option<Arc<Narrowing>>,
    pub(super) sources: Arc<Sources>,
}

/// A grant and the tables it came from, the nearest first.
pub(super) struct Stance {
    pub(super) grant: Grant,
    pub(super) tables: Vec<Table>,
}

pub(super) fn root_table(policy: &Policy) -> Table {
    Table { asks: None, sources: policy.root_sources.clone() }
}

pub(super) fn root(old: &Policy, new: &Policy, folder: &Path, out: &mut Vec<Change>) {
    let stance = |policy: &Policy| Stance { grant: (*policy.root).clone(), tables: vec![root_table(policy)] };
    let mut about = About { who: "root policy".into(), out };
    compare(&stance(old), &stance(new), folder, &mut about);
    let places = (old.root_sources.place("budget").cloned(), new.root_sources.place("budget").cloned());
    spending(&old.root_limits, &new.root_limits, places, &mut about);
}

pub(super) fn agents(old: &Policy, new: &Policy, folder: &Path, out: &mut Vec<Change>) {
    let names: BTreeSet<_> = old.agents.keys().chain(new.agents.keys()).collect();
    for name in names {
        let mut about = About { who: format!("agent {name}"), out };
        match (old.agents.get(name), new.agents.get(name)) {
            (None, Some(agent)) => {
                let may = own(new, agent).map(|own| describe(own.use_.grant(), folder)).unwrap_or_default();
                about.note(Way::Wider, "itself", format!("is new: {may}"), (None, Some(agent.place.clone())));
            }
            (Some(agent), None) => {
                about.note(Way::Narrower, "itself", "is gone".into(), (Some(agent.place.clone()), None));
            }
            (Some(before), Some(after)) => {
                one(old, before, new, after, folder, &mut about);
                let who = format!("children of agent {name}");
                beneath((old, before), (new, after), folder, &mut About { who, out: about.out });
            }
            (None, None) => {}
        }
    }
}

fn own(policy: &Policy, agent: &AgentSpec) -> Option<RunAuthority> {
    RunAuthority::spawn(&policy.door(None), &agent.policy, None).ok()
}

fn one(old: &Policy, before: &AgentSpec, new: &Policy, after: &AgentSpec, folder: &Path, about: &mut About<'_>) {
    let stance = |policy: &Policy, agent: &AgentSpec| {
        let table = Table { asks: Some(agent.policy.policy.clone()), sources: agent.policy.sources.clone() };
        let grant = own(policy, agent).map_or_else(Grant::nothing, |own| own.use_.grant().clone());
        Stance { grant, tables: vec![table, root_table(policy)] }
    };
    compare(&stance(old, before), &stance(new, after), folder, about);
    let at = || (Some(before.place.clone()), Some(after.place.clone()));
    spending(&old.root_limits.meet(before.limits), &new.root_limits.meet(after.limits), at(), about);
    if before.model != after.model {
        let says = format!("is answered by model {} and was by {}", after.model, before.model);
        about.note(Way::Neutral, "model", says, at());
    }
    let texts = [
        ("prompt", before.prompt != after.prompt),
        ("description", before.description != after.description),
        ("initial_prompt", before.initial_prompt != after.initial_prompt),
        ("output_schema", before.output_schema != after.output_schema),
    ];
    for (what, _) in texts.into_iter().filter(|(_, changed)| *changed) {
        about.note(Way::Neutral, what, format!("has another {what}"), at());
    }
}

fn beneath(
    (old, before): (&Policy, &AgentSpec),
    (new, after): (&Policy, &AgentSpec),
    folder: &Path,
    about: &mut About<'_>,
) {
    let stance = |policy: &Policy, agent: &AgentSpec| {
        let table = |asks: &Arc<Narrowing>, sources: &Arc<Sources>| Table {
            asks: Some(asks.clone()),
            sources: sources.clone(),
        };
        let mut tables = Vec::new();
        if let Some(over) = &agent.policy.subagent_policy {
            tables.push(table(over, &agent.policy.subagent_sources));
        }
        tables.push(table(&agent.policy.policy, &agent.policy.sources));
        tables.push(root_table(policy));
        let grant = own(policy, agent).map_or_else(Grant::nothing, |own| own.delegate.grant().clone());
        Stance { grant, tables }
    };
    // Of whoever starts nobody, what it may give is nobody's.
    if before.subagents.is_empty() && after.subagents.is_empty() {
        return;
    }
    compare(&stance(old, before), &stance(new, after), folder, about);
    let limits = |policy: &Policy, agent: &AgentSpec| policy.root_limits.meet(agent.limits).meet(agent.subagent_limits);
    let at = (Some(before.place.clone()), Some(after.place.clone()));
    spending(&limits(old, before), &limits(new, after), at, about);
}

/// Component by component.
pub(super) fn compare(old: &Stance, new: &Stance, folder: &Path, about: &mut About<'_>) {
    let (wider, narrower) = (new.grant.exceeds(&old.grant), old.grant.exceeds(&new.grant));
    let all: BTreeSet<Component> = wider.iter().chain(&narrower).copied().collect();
    for component in all {
        let (gained, lost) = (wider.contains(&component), narrower.contains(&component));
        let Some(way) = Way::of(gained, lost) else { continue };
        let mut parts = Vec::new();
        if gained {
            parts.push(gains(component, &old.grant, &new.grant, folder, "may now"));
        }
        if lost {
            parts.push(gains(component, &new.grant, &old.grant, folder, "may no longer"));
        }
        about.note(way, component.as_str(), parts.join("; "), places(component, old, new));
    }
}

/// Where the nearest table that says something else about a component stands; else the nearest
/// that says something.
fn places(component: Component, old: &Stance, new: &Stance) -> Places {
    let key = component.as_str();
    let says = |table: &Table| table.asks.as_ref().map(|n| named(component, n));
    let same_shape = old.tables.len() == new.tables.len();
    for (before, after) in old.tables.iter().zip(&new.tables).filter(|_| same_shape) {
        let (was, is) = (before.sources.place(key), after.sources.place(key));
        if says(before) != says(after) || before.asks.is_none() {
            return (was.cloned(), is.cloned());
        }
    }
    let first = |stance: &Stance| stance.tables.iter().find_map(|t| t.sources.place(key)).cloned();
    (first(old), first(new))
}

/// What a table says about a component, to compare.
fn named(component: Component, n: &Narrowing) -> String {
    match component {
        Component::Filesystem => format!("{:?}", n.filesystem),
        Component::Domains => format!("{:?}", n.domains),
        Component::Networks => format!("{:?}", n.networks),
        Component::MaxAccess => format!("{:?}", n.max_access),
        Component::Tools => format!("{:?}", n.tools),
        Component::Models => format!("{:?}", n.models),
        Component::Agents => format!("{:?}", n.agents),
        Component::Spawn => format!("{:?}", n.spawn),
        Component::Sandbox => format!("{:?}", n.sandbox),
    }
}

/// What `more` has in a component that `less` has not.
fn gains(component: Component, less: &Grant, more: &Grant, folder: &Path, may: &str) -> String {
    let verbs = match component {
        Component::Filesystem => files(&less.filesystem, &more.filesystem, folder),
        Component::Domains => hosts(&less.domains, &more.domains),
        Component::Networks => networks(&less.networks, &more.networks),
        Component::MaxAccess => vec![format!("call {} tools", more.max_access)],
        Component::Tools => tools(&less.tools, &more.tools),
        Component::Models => names("ask model", &less.models, &more.models),
        Component::Agents => names("start", &less.agents, &more.agents),
        Component::Spawn => spawns(less, more),
        Component::Sandbox => vec![format!("work under the profile \"{}\", not \"{}\"", more.sandbox, less.sandbox)],
    };
    match verbs.as_slice() {
        [] => format!("{may} do more by its {component} rules"),
        verbs => format!("{may} {}", verbs.join(", ")),
    }
}

fn files(less: &FsGrant, more: &FsGrant, folder: &Path) -> Vec<String> {
    let short = |path: &Path| match path.strip_prefix(folder) {
        Ok(rest) if rest.as_os_str().is_empty() => ".".to_owned(),
        Ok(rest) => rest.display().to_string(),
        Err(_) => path.display().to_string(),
    };
    let mut out = Vec::new();
    for (op, word, prefixes) in [(FileOp::Read, "read", more.read()), (FileOp::Write, "write", more.write())] {
        let new = prefixes.iter().filter(|p| !less.allows(p, op));
        out.extend(new.map(|p| format!("{word} {}", short(p))));
        // What was kept out of a folder that is granted in both.
        let freed = less.deny().iter().filter(|d| more.allows(d, op) && !prefixes.contains(*d));
        out.extend(freed.map(|d| format!("{word} {}", short(d))));
    }
    out
}

fn hosts(less: &Domains, more: &Domains) -> Vec<String> {
    let new = more.patterns().into_iter().filter(|pattern| {
        let alone = Domains::parse([pattern.as_str()]);
        alone.is_ok_and(|alone| !alone.within(less))
    });
    new.map(|pattern| format!("reach {pattern}")).collect()
}

fn networks(less: &Networks, more: &Networks) -> Vec<String> {
    let new = more.blocks().iter().filter(|block| !Networks::new([**block]).within(less));
    new.map(|block| format!("reach {block}")).collect()
}

fn tools(less: &ToolRules, more: &ToolRules) -> Vec<String> {
    let listed = |rules: &ToolRules, mode: Mode| -> BTreeSet<String> {
        rules.layers().flat_map(|layer| layer.list(mode)).map(|glob| glob.as_str().to_owned()).collect()
    };
    let only = |a: &ToolRules, b: &ToolRules, mode: Mode| -> Vec<String> {
        listed(a, mode).difference(&listed(b, mode)).cloned().collect()
    };
    let mut out: Vec<String> = only(more, less, Mode::Allow).into_iter().map(|t| format!("call {t}")).collect();
    let asked = only(more, less, Mode::Ask).into_iter().filter(|t| !listed(less, Mode::Allow).contains(t));
    out.extend(asked.map(|t| format!("ask to call {t}")));
    let unasked = only(less, more, Mode::Ask).into_iter().filter(|t| !listed(more, Mode::Allow).contains(t));
    out.extend(unasked.map(|t| format!("call {t} as its other rules say, without asking")));
    out.extend(only(less, more, Mode::Deny).into_iter().map(|t| format!("call {t}")));
    out
}

fn names(verb: &str, less: &Names, more: &Names) -> Vec<String> {
    match (more, less) {
        (Names::All, _) => vec![format!("{verb} any of them")],
        (Names::Only(more), less) => {
            more.iter().filter(|n| !less.allows(n.as_str())).map(|n| format!("{verb} {n}")).collect()
        }
    }
}

fn spawns(less: &Grant, more: &Grant) -> Vec<String> {
    let (a, b) = (less.spawn, more.spawn);
    let limits = [
        ("go to depth", a.max_depth, b.max_depth),
        ("have children at a time:", a.max_concurrent, b.max_concurrent),
        ("have runs in a tree:", a.max_total, b.max_total),
    ];
    limits.into_iter().filter(|(_, a, b)| b > a).map(|(what, _, n)| format!("{what} {n}")).collect()
}

/// Counted limits.
pub(super) fn spending(old: &Limits, new: &Limits, places: Places, about: &mut About<'_>) {
    let (gained, lost) = (new.meet(*old) != *new, old.meet(*new) != *old);
    if let Some(way) = Way::of(gained, lost) {
        let says = format!("{}; before: {}", lower(&spends("it", new)), lower(&spends("it", old)));
        about.note(way, "budget", says, places);
    }
}

fn lower(sentence: &str) -> String {
    sentence.trim_start_matches("it ").trim_end_matches('.').to_owned()
}
