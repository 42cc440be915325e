//! From what a file holds now to the policy in force, or to the reason why not.

use super::Live;
use super::look::links;
use crate::compose::{App, ByName};
use crate::servers::Servers;
use crate::settings::{self, Loaded};
use policies::diff::{self, Change};
use policies::fs::{FileOp, FsGrant};
use policies::names::Name;
use policies::resolve::{GatewaySpec, ModelSpec, Policy, Provider, check_listen, check_public};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use subagents::ports::{Model, Sampler};

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
        let mut waits = Vec::new();
        if policy.gateway.listen != before.policy.gateway.listen {
            waits.push("[gateway] listen");
            policy.gateway = GatewaySpec { listen: before.policy.gateway.listen, ..policy.gateway };
        }
        if policy.store != before.policy.store {
            waits.push("[store] url");
            policy.store = before.policy.store.clone();
            // The one in use stays out of every grant.
            let store = policy.store.display().to_string();
            let files = ["", "-wal", "-shm", "-journal"].map(|end| PathBuf::from(format!("{store}{end}")));
            let kept_out = FsGrant::new([], [PathBuf::from("/")], files);
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

    /// Puts it in force.
    pub(super) fn take(&self, next: Next) {
        let (servers, models) = (&self.servers, next.models);
        self.live.swap(Arc::new(next.loaded), |before, after| {
            if let Some(models) = models {
                self.models.replace(models);
            }
            servers.adopt(before, after);
        });
    }
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
