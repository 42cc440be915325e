//! The only place that names concrete adapters and joins them to the ports.

use crate::error::Failure;
use crate::guard::{Approve, Guard};
use crate::live::Live;
use crate::mcp::framework::Ground;
use crate::mcp::sampling::Sampling;
use crate::servers::Servers;
use crate::settings::Loaded;
use adapters::store::Store;
use policies::names::Name;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use subagents::host::{Host, Ports};
use subagents::ports::{Gate, Model, Models, Sampler};

/// Everything a door needs, joined.
pub(crate) struct App {
    pub(crate) live: Arc<Live>,
    pub(crate) servers: Arc<Servers>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) host: Arc<Host>,
    /// What the MCP doors share.
    pub(crate) shared: crate::mcp::Shared,
    pub(crate) store: Store,
    /// The clients that lend their models.
    pub(crate) sampling: Sampling,
    pub(crate) models: Arc<ByName>,
}

/// Joins everything for a policy.
///
/// # Errors
/// A model that cannot be used, such as by its script (exit 2), a store that cannot be written (exit 1).
pub(crate) async fn app(loaded: Arc<Loaded>, approve: Approve) -> Result<App, Failure> {
    let sampling = Sampling::default();
    let sampler: Arc<dyn Sampler> = Arc::new(sampling.clone());
    let models = adapters::model::build(&loaded.policy, &sampler).map_err(Failure::usage)?;
    let models = Arc::new(ByName(RwLock::new(models)));
    let store = Store::open(&loaded.policy.store).await?;
    let live = Live::new(loaded.clone());
    let servers = Servers::new(live.clone());
    servers.keep(store.clone());
    let guard = Arc::new(Guard::new(servers.clone(), approve).with(store.clone()));
    let gate: Arc<dyn Gate> = guard.clone();
    live.worked_out_by(Arc::downgrade(&gate));
    let host = Host::new(Ports {
        gate: guard.clone(),
        toolbox: guard.clone(),
        models: models.clone(),
        journal: Arc::new(store.clone()),
        bus: Arc::new(store.clone()),
    });
    let ground = Ground::new(host.clone(), store.clone(), sampling.clone());
    let shared = crate::mcp::Shared::new(&loaded.state, ground)
        .map_err(|e| Failure::new(crate::error::Exit::Failed, format!("{}: {e}", loaded.state.display())))?;
    Ok(App { live, servers, guard, host, shared, store, sampling, models })
}

impl App {
    /// Puts the trees down, ends every server and closes the journal. What was under way goes on
    /// at the next start: the trees are put down first, so that no end of a server is taken for
    /// the end of a call.
    pub(crate) async fn shutdown(&self) {
        self.host.suspend().await;
        self.guard.note_ended().await;
        self.servers.shutdown().await;
        self.store.close().await;
    }
}

/// The models of the policy in force.
pub(crate) struct ByName(RwLock<BTreeMap<Name, Arc<dyn Model>>>);

impl ByName {
    /// Others answer from now on; who is being asked answers.
    pub(crate) fn replace(&self, models: BTreeMap<Name, Arc<dyn Model>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = models;
    }
}

impl Models for ByName {
    fn get(&self, name: &Name) -> Option<Arc<dyn Model>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}
