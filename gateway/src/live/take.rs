//! From what a file holds now to the policy in force, or to the reason why not.

use super::Live;
use super::look::links;
use crate::audit::{self, Decision, Entry};
use crate::compose::{App, ByName};
use crate::servers::Servers;
use crate::settings::{self, Digests, Loaded};
use policies::diff::{self, Change};
use policies::fs::{FileOp, FsGrant};
use policies::json::Json;
use policies::names::Name;
use policies::permit::{Denial, Rule};
use policies::resolve::{AuditSpec, GatewaySpec, ModelSpec, Policy, Provider, check_listen, check_public};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subagents::ports::{Model, Sampler};

/// Differences that one record names.
const MAX_CHANGES: usize = 100;

/// What a change reaches.
#[derive(Clone)]
pub(super) struct Reach {
    pub(super) live: Arc<Live>,
    servers: Arc<Servers>,
    models: Arc<ByName>,
    sampler: Arc<dyn Sampler>,
    /// Where the doors are open, if they are.
    listens: Option<SocketAddr>,
}

/// A policy that holds and is not in force yet.
pub(super) struct Next {
    loaded: Loaded,
    /// Models, where they are others than before.
    models: Option<BTreeMap<Name, Arc<dyn Model>>>,
    pub(super) changes: Vec<Change>,
    /// What waits for the next start.
    pub(super) waits: Vec<&'static str>,
}

impl Reach {
    pub(super) fn new(app: &App, listens: Option<SocketAddr>) -> Self {
        let (live, servers, models) = (app.live.clone(), app.servers.clone(), app.models.clone());
        Self { live, servers, models, sampler: Arc::new(app.sampling.clone()), listens }
    }

    /// Checks what was read in full.
    ///
    /// # Errors
    /// Why it cannot be put in force.
    pub(super) fn check(&self, loaded: Loaded, rescripted: bool) -> Result<Next, String> {
        let before = self.live.now();
        self.can_be_trusted(&loaded)?;
        let mut policy = (*loaded.policy).clone();
        let (mut waits, mut kept_out) = (Vec::new(), Vec::new());
        if policy.gateway.listen != before.policy.gateway.listen {
            waits.push("[gateway] listen");
            policy.gateway = GatewaySpec { listen: before.policy.gateway.listen, ..policy.gateway };
        }
        // Where no folder is named it lies beside the store, and moves when that does.
        let beside = |policy: &Policy| policy.audit.folder == AuditSpec::beside(&policy.store);
        let follows = policy.store != before.policy.store && beside(&policy) && beside(&before.policy);
        if policy.store != before.policy.store {
            waits.push("[store] url");
            policy.store = before.policy.store.clone();
            let store = policy.store.display().to_string();
            kept_out.extend(["", "-wal", "-shm", "-journal"].map(|end| PathBuf::from(format!("{store}{end}"))));
        }
        if policy.audit != before.policy.audit {
            let AuditSpec { segment, keep, .. } = before.policy.audit;
            if !follows || (policy.audit.segment, policy.audit.keep) != (segment, keep) {
                waits.push("[audit]");
            }
            // It is in no grant already, and only what is there can be masked.
            audit::make(&policy.audit.folder).map_err(|e| format!("{}: {e}", policy.audit.folder.display()))?;
            policy.audit = before.policy.audit.clone();
            kept_out.push(policy.audit.folder.clone());
        }
        if !kept_out.is_empty() {
            // What is in use stays out of every grant.
            let kept_out = FsGrant::new([], [PathBuf::from("/")], kept_out);
            let mut root = (*policy.root).clone();
            root.filesystem = root.filesystem.meet(&kept_out);
            policy.root = Arc::new(root);
        }
        if let Some(listens) = self.listens {
            check_listen(listens, policy.clients.is_some())?;
            check_public(listens, &policy)?;
        }
        settings::create(&policy)?;
        let models = match !rescripted && same_models(&before.policy, &policy) {
            true => None,
            false => Some(adapters::model::build(&policy, &self.sampler).map_err(|e| e.to_string())?),
        };
        let changes = diff::diff(&before.policy, &policy, &loaded.folder);
        Ok(Next { loaded: Loaded { policy: Arc::new(policy), ..loaded }, models, changes, waits })
    }

    /// Puts on record that what stands in the file is not taken.
    pub(super) async fn refuse(&self, digests: &Digests, why: &str, asked: bool) {
        let before = self.live.now();
        let entry = changed(&before, (&before.path, digests), asked);
        let rule = Denial::plain("it does not hold; the policy in force stays", "mend the file");
        let entry = entry.decided(Decision::Deny(&rule));
        let entry = match first_place(why) {
            Some(place) => entry.with("place", place),
            None => entry,
        };
        self.servers.audit.owe(entry).await;
    }

    /// Whoever may write a link on the way to the policy file could put another in its place.
    fn can_be_trusted(&self, loaded: &Loaded) -> Result<(), String> {
        let now = self.live.now();
        let writable = |link: &PathBuf| {
            [&now.policy.root, &loaded.policy.root].iter().any(|root| root.filesystem.allows(link, FileOp::Write))
        };
        match links(&loaded.named).into_iter().find(writable) {
            None => Ok(()),
            Some(link) => Err(format!(
                "{} leads to it and lies where agents may write, so a change of it is not taken; \
                 deny that path to agents, or name the file itself, and restart",
                link.display()
            )),
        }
    }

    /// Puts it in force, once that is on record: what is decided by it stands behind it there.
    pub(super) async fn take(&self, next: Next, asked: bool) {
        let before = self.live.now();
        if next.loaded.digests != before.digests {
            let wider = next.changes.iter().filter(|c| c.way.is_wider()).count();
            let rule = match wider {
                0 => "it holds, and nobody gets wider".to_owned(),
                _ => format!("it holds; {wider} of {} differences widen", next.changes.len()),
            };
            let entry = changed(&before, (&next.loaded.path, &next.loaded.digests), asked);
            let entry = entry.decided(Decision::Allow(&Rule { text: rule, place: None }));
            let entry = entry.with("changes", next.changes.iter().take(MAX_CHANGES).map(said).collect::<Vec<_>>());
            let entry = match next.waits.is_empty() {
                true => entry,
                false => entry.with("waits", next.waits.join(" and ")),
            };
            self.servers.audit.owe(entry).await;
        }
        let (servers, models) = (&self.servers, next.models);
        self.live.swap(Arc::new(next.loaded), |before, after| {
            if let Some(models) = models {
                self.models.replace(models);
            }
            servers.adopt(before, after);
        });
    }
}

/// The record of a policy file that was changed: who owns it now, and what stood there before. No
/// word of it: it may hold what is nobody's business.
fn changed(before: &Loaded, (file, digests): (&Path, &Digests), asked: bool) -> Entry {
    let entry = Entry::policy(file, digests);
    let entry = entry.with("before", before.digests.get(&before.path).map_or("", String::as_str));
    let entry = entry.with("by", if asked { "SIGHUP" } else { "the watch" });
    match std::fs::metadata(file) {
        Ok(about) => entry.with("owner", u64::from(about.uid())),
        Err(_) => entry,
    }
}

/// A difference without what it says: paths and addresses stand in the files.
fn said(change: &Change) -> Json {
    format!("{}: {}, {}", change.way.as_str(), change.who, change.what).into()
}

/// The place of the first thing that is wrong.
fn first_place(why: &str) -> Option<&str> {
    let place = why.lines().next()?.split(": ").next()?;
    let mut ends = place.rsplitn(3, ':');
    let number = |end: Option<&str>| end.is_some_and(|n| n.parse::<u32>().is_ok());
    (number(ends.next()) && number(ends.next()) && ends.next().is_some()).then_some(place)
}

/// Whether the same models answer; a script that says something else is told of by its file.
fn same_models(old: &Policy, new: &Policy) -> bool {
    let bare = |policy: &Policy| -> Vec<ModelSpec> {
        let somewhere = policies::place::Place { file: "".into(), line: 0, column: 0 };
        policy.models.values().map(|m| ModelSpec { place: somewhere.clone(), ..m.clone() }).collect()
    };
    bare(old) == bare(new)
}

/// The scripts of scripted models.
pub(super) fn scripts(policy: &Policy) -> std::collections::BTreeSet<PathBuf> {
    let script = |model: &ModelSpec| match &model.provider {
        Provider::Scripted { script } => Some(script.clone()),
        _ => None,
    };
    policy.models.values().filter_map(script).collect()
}
