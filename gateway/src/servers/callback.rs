//! A server that takes what came along with a task from another gateway to call back with: most
//! often that gateway's own /mcp. What a task brought is shown for its own runs and for nobody
//! else's, so such a server has instances and lists for each task.

use super::manifest::Whose;
use super::slot::lock;
use super::{Entry, Servers};
use crate::auth::Came;
use crate::oauth::Vault;
use adapters::mcp::{Callback, Refusal, Retry, Tokens};
use adapters::store::Store;
use async_trait::async_trait;
use policies::names::Name;
use policies::resolve::{Flow, Secret, ServerSpec, Transport};
use std::collections::BTreeSet;
use std::sync::Arc;
use subagents::run::Caller;

/// What is kept of a task's is sealed for this.
pub(crate) const CALLBACK: &str = "callback";

/// Whose a list is that nobody has who brought nothing along. No principal has such a name.
const NOBODY: &str = "task:";

/// The address of such a server.
pub(super) fn address(spec: &ServerSpec) -> Option<&url::Url> {
    match &spec.transport {
        Transport::Http { url, auth: Some(auth), .. } if auth.flow == Flow::Grant => Some(url),
        _ => None,
    }
}

/// What came along with a caller's task, good at this address.
pub(super) fn came(caller: &Caller, url: &url::Url) -> Option<Came> {
    let came = Came::at(&caller.origin.as_ref()?.place)?;
    (came.url == url.as_str()).then_some(came)
}

/// Whose list of such a server a caller is shown.
pub(super) fn whose(caller: &Caller, url: &url::Url) -> Whose {
    came(caller, url).map_or_else(|| NOBODY.into(), |came| format!("{NOBODY}{}", came.id).into())
}

/// What one task brought along.
pub(super) struct Brought {
    server: Name,
    came: Came,
    store: Store,
    vault: Arc<Vault>,
}

impl Brought {
    /// For a caller's task.
    ///
    /// # Errors
    /// Where it brought nothing that is good there.
    pub(super) fn by(servers: &Servers, spec: &ServerSpec, caller: &Caller) -> Result<Self, String> {
        let came = address(spec).and_then(|url| came(caller, url));
        let came = came.ok_or("nothing to call back with came along with this task")?;
        let store = servers.kept.get().cloned().ok_or("there is no store here")?;
        Ok(Self { server: spec.name.clone(), came, store, vault: servers.vault.clone() })
    }
    async fn read(&self) -> Result<Secret, String> {
        let over = || format!("what came along with the task for server {} is over", self.server);
        let kept = self.store.callback(&self.came.id).await.map_err(|e| e.to_string())?.ok_or_else(over)?;
        let opened = self.vault.open(CALLBACK, &self.came.id, &kept).map_err(|e| e.to_string())?;
        let callback = opened.and_then(|opened| Callback::read(&opened.to_serde())).ok_or_else(over)?;
        let there = url::Url::parse(&callback.url).is_ok_and(|url| url.as_str() == self.came.url);
        if there { Ok(callback.token) } else { Err(over()) }
    }
}

#[async_trait]
impl Tokens for Brought {
    // Read each time: a later message to the task brings a later one.
    async fn bearer(&self) -> Result<Option<Secret>, String> {
        self.read().await.map(Some)
    }
    async fn refused(&self, refusal: Refusal) -> Retry {
        match self.read().await {
            Ok(now) if refusal.shown.as_ref() != Some(&now) => Retry::Again,
            _ => Retry::No(format!(
                "server {} takes what came along with the task no longer: the task is over there, or was taken back",
                self.server
            )),
        }
    }
}

impl Servers {
    /// The server a tool's name points at, where it takes what comes along with a task and nothing
    /// came with the caller's.
    pub(crate) fn lacks_callback(&self, tool: &str, caller: &Caller) -> Option<Name> {
        let entry = self.owner(tool)?;
        entry.lacks_callback(caller).then(|| entry.name.clone())
    }
    /// Forgets what was listed for tasks that have no instance any more.
    pub(super) fn forget_tasks(&self) {
        for entry in self.entries().values().filter(|entry| address(&entry.spec()).is_some()) {
            let tasks: BTreeSet<Whose> = lock(&entry.slots).values().map(|slot| slot.task.clone()).collect();
            self.manifests.keep_only(&entry.name, &tasks);
            lock(&entry.progress).retain(|whose, _| tasks.contains(whose));
        }
    }
}

impl Entry {
    /// Whether it takes what comes along with a task and nothing came with the caller's.
    pub(super) fn lacks_callback(&self, caller: &Caller) -> bool {
        address(&self.spec()).is_some_and(|url| came(caller, url).is_none())
    }
    /// The task an instance is for, where that matters.
    pub(super) fn task(&self, caller: &Caller) -> Whose {
        address(&self.spec()).map(|url| whose(caller, url)).unwrap_or_default()
    }
}
