//! The clients whose own models runs ask (`provider = "sampling"`): whoever started a tree by
//! `pleach__Agent` answers for all of it, as long as it is there.
//!
//! ```text
//!   call stands ──▶ asked on it: a request on its stream (legacy), `input_required` (modern)
//!       │ became a task
//!       ▼
//!   task ─────────▶ asked in `inputRequests` of tasks/get, answered by tasks/update
//!       ▲
//!       │ tasks/get, within 10 s
//!   nobody (answered, restarted) ── else: an error of the run, with the reason
//! ```

use crate::auth::door_of;
use crate::guard::MCP;
use crate::mcp::conversation::QUESTION_LIMIT;
use crate::servers::Abilities;
use adapters::mcp::Party;
use adapters::store::Store;
use async_trait::async_trait;
use policies::json::{Json, Object};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use subagents::ports::{Journal, Lender, Sampler};
use subagents::run::RunId;
use tokio::sync::{Notify, broadcast, oneshot};
use tokio_util::sync::CancellationToken;

const METHOD: &str = "sampling/createMessage";
/// How long a client of a task may take to ask for it again before it counts as gone.
const COMING: Duration = Duration::from_secs(10);

const NOT_HERE: &str = "it is the model of the MCP client that starts the run by pleach__Agent, and this run has \
    none; start it there, or give the agent another model";
const GONE: &str = "the client that started the run is not there any more, and its model was to answer";
const CANNOT: &str = "the client that started the run does not lend its model: it has no capability \"sampling\"";

/// The clients of the trees worked on here.
#[derive(Clone, Default)]
pub(crate) struct Sampling(Arc<Inner>);

struct Inner {
    /// Set where there is a door that clients come by.
    store: OnceLock<Store>,
    trees: Mutex<HashMap<RunId, Slot>>,
    /// Somebody came.
    came: Notify,
    /// A task asks something.
    asked: broadcast::Sender<RunId>,
}

impl Default for Inner {
    fn default() -> Self {
        let asked = broadcast::channel(256).0;
        Self { store: OnceLock::new(), trees: Mutex::default(), came: Notify::new(), asked }
    }
}

/// The client of one tree.
struct Slot {
    client: Client,
    /// What the task asks, by key.
    open: BTreeMap<String, Open>,
}

#[derive(Clone)]
enum Client {
    Call { party: Arc<dyn Party>, gone: CancellationToken },
    Task(Abilities),
}

struct Open {
    params: Object,
    answer: oneshot::Sender<Json>,
}

/// A call that stands for a tree; dropped, its client is gone.
pub(super) struct Standing {
    sampling: Sampling,
    root: RunId,
    gone: CancellationToken,
    handed_over: bool,
}

impl Standing {
    /// The call ends as a task, which asks from now on.
    pub(super) fn hand_over(mut self, capabilities: &Object) {
        self.handed_over = true;
        if let Some(slot) = lock(&self.sampling.0.trees).get_mut(&self.root) {
            slot.client = Client::Task(Abilities::of(capabilities));
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if !self.handed_over {
            lock(&self.sampling.0.trees).remove(&self.root);
            self.gone.cancel();
        }
    }
}

impl Sampling {
    /// From now on clients come.
    pub(crate) fn open(&self, store: Store) {
        let _ = self.0.store.set(store);
    }
    /// A call stands for a tree that is about to begin.
    pub(super) fn stand(&self, root: &RunId, party: Arc<dyn Party>) -> Standing {
        let gone = CancellationToken::new();
        let client = Client::Call { party, gone: gone.clone() };
        lock(&self.0.trees).insert(root.clone(), Slot { client, open: BTreeMap::new() });
        self.0.came.notify_waiters();
        Standing { sampling: self.clone(), root: root.clone(), gone, handed_over: false }
    }
    /// The client of a task is there. Trees that nobody works on are forgotten with their clients.
    pub(super) fn comes(&self, root: &RunId, capabilities: &Object, works: impl Fn(&RunId) -> bool) {
        let mut trees = lock(&self.0.trees);
        trees.retain(|tree, slot| matches!(slot.client, Client::Call { .. }) || works(tree));
        if works(root) {
            let client = Client::Task(Abilities::of(capabilities));
            let slot = trees.entry(root.clone());
            let slot = slot.or_insert_with(|| Slot { client: client.clone(), open: BTreeMap::new() });
            if matches!(slot.client, Client::Task(_)) {
                slot.client = client;
            }
            drop(trees);
            self.0.came.notify_waiters();
        }
    }
    /// What a task asks, as `inputRequests`.
    pub(super) fn requests(&self, root: &RunId) -> Object {
        let trees = lock(&self.0.trees);
        let open = trees.get(root).into_iter().flat_map(|slot| &slot.open);
        open.map(|(key, open)| {
            (key.clone(), Json::object([("method", METHOD.into()), ("params", open.params.clone().into())]))
        })
        .collect()
    }
    /// An answer to one of these; `false` when it is to none.
    pub(super) fn answer(&self, root: &RunId, key: &str, said: &Json) -> bool {
        let open = lock(&self.0.trees).get_mut(root).and_then(|slot| slot.open.remove(key));
        open.is_some_and(|open| open.answer.send(said.clone()).is_ok())
    }
    /// The trees whose tasks ask something, from now on.
    pub(super) fn asked(&self) -> broadcast::Receiver<RunId> {
        self.0.asked.subscribe()
    }
    fn of(&self, root: &RunId) -> Option<Client> {
        lock(&self.0.trees).get(root).map(|slot| slot.client.clone())
    }
}

#[async_trait]
impl Sampler for Sampling {
    async fn client(&self, root: &RunId) -> Result<Arc<dyn Lender>, String> {
        let waited = async {
            let mut known = false;
            loop {
                let mut came = std::pin::pin!(self.0.came.notified());
                came.as_mut().enable();
                if let Some(client) = self.of(root) {
                    return Ok(client);
                }
                if !known {
                    let store = self.0.store.get().ok_or(NOT_HERE)?;
                    let row = store.row(root).await.map_err(|e| e.to_string())?;
                    if row.and_then(|row| row.door).as_deref().map(door_of) != Some(MCP) {
                        return Err(NOT_HERE.to_owned());
                    }
                    known = true;
                    continue;
                }
                came.await;
            }
        };
        let client = tokio::time::timeout(COMING, waited).await.unwrap_or_else(|_| Err(GONE.into()))?;
        let abilities = match &client {
            Client::Call { party, .. } => Abilities::of(&party.capabilities()),
            Client::Task(abilities) => *abilities,
        };
        match abilities.samples() {
            true => Ok(Arc::new(Lending { sampling: self.clone(), root: root.clone(), client, abilities })),
            false => Err(CANNOT.into()),
        }
    }
}

/// A client that was found.
struct Lending {
    sampling: Sampling,
    root: RunId,
    client: Client,
    abilities: Abilities,
}

#[async_trait]
impl Lender for Lending {
    fn takes_tools(&self) -> bool {
        self.abilities.samples_with_tools()
    }
    async fn create_message(&self, params: Value) -> Result<Value, String> {
        let Json::Object(params) = Json::from(params) else { return Err("the request is no object".into()) };
        match &self.client {
            Client::Call { party, gone } => tokio::select! {
                biased;
                () = gone.cancelled() => Err(GONE.into()),
                said = party.ask(METHOD, params) => {
                    let said = said.map_err(|e| format!("the client that was asked says: {}", e.message()))?;
                    Ok(said.to_serde())
                }
            },
            Client::Task(_) => self.through_the_task(params).await,
        }
    }
}

impl Lending {
    async fn through_the_task(&self, params: Object) -> Result<Value, String> {
        // Never the same twice: an answer to a question of before a restart is to none of now.
        let key = RunId::fresh().map_err(|e| e.to_string())?.as_str().replacen("r-", "s-", 1);
        let (answer, answered) = oneshot::channel();
        {
            let mut trees = lock(&self.sampling.0.trees);
            let slot = trees.get_mut(&self.root).ok_or(GONE)?;
            slot.open.insert(key.clone(), Open { params, answer });
        }
        let _asked = Asked { of: self, key };
        let _ = self.sampling.0.asked.send(self.root.clone());
        match tokio::time::timeout(QUESTION_LIMIT, answered).await {
            Ok(Ok(said)) => Ok(said.to_serde()),
            Ok(Err(_)) => Err(GONE.into()),
            Err(_) => Err(format!("the client of the task did not answer within {} s", QUESTION_LIMIT.as_secs())),
        }
    }
}

/// A question of a task on its way; dropped without an answer, it is no longer asked.
struct Asked<'a> {
    of: &'a Lending,
    key: String,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(slot) = lock(&self.of.sampling.0.trees).get_mut(&self.of.root) {
            slot.open.remove(&self.key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
