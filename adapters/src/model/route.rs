//! A model of the policy file as the tree sees it: itself, and when it cannot answer, its
//! fallbacks in their order.

use super::anthropic::Anthropic;
use super::estimate;
use super::format::Format;
use super::openai::OpenAi;
use super::remote::{Remote, Shared};
use super::sampling::Sampling;
use super::scripted::{ScriptError, Scripted};
use crate::crash;
use async_trait::async_trait;
use policies::action::Complete;
use policies::names::Name;
use policies::permit::Permit;
use policies::resolve::{ModelSpec, Policy, Provider, RemoteModel, Wire};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use subagents::event::Usage;
use subagents::ports::{Delta, Model, ModelError, ModelFacts, ModelFailure, Reply, Request, Sampler};

/// Why a model of the policy file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Its script is wrong.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// It cannot be reached.
    #[error("model {0}: {1}")]
    Remote(Name, String),
}

/// The models of a policy file; `sampler` knows the clients that lend theirs. Nothing is dialled
/// before one is asked.
///
/// # Errors
/// See [`SetupError`].
pub fn build(policy: &Policy, sampler: &Arc<dyn Sampler>) -> Result<BTreeMap<Name, Arc<dyn Model>>, SetupError> {
    let mut shared: BTreeMap<String, Arc<Shared>> = BTreeMap::new();
    let mut one: BTreeMap<Name, Arc<Backend>> = BTreeMap::new();
    for (name, spec) in &policy.models {
        let backend = match &spec.provider {
            Provider::Scripted { script } => Backend::Scripted(name.clone(), Scripted::of(spec, script)?),
            Provider::Sampling { model } => Backend::Client(Sampling::new(spec, model.as_deref(), sampler.clone())),
            Provider::Remote(remote) => {
                let shared = shared.entry(credential(remote)).or_default().clone();
                let failed = |why: String| SetupError::Remote(name.clone(), why);
                Backend::Remote(Remote::new(spec, remote, format(remote), shared).map_err(failed)?)
            }
        };
        one.insert(name.clone(), Arc::new(backend));
    }
    let route = |spec: &ModelSpec| -> Arc<dyn Model> {
        let chain = policy.chain(&spec.name).into_iter().filter_map(|s| one.get(&s.name).cloned()).collect();
        Arc::new(Route { chain })
    };
    Ok(policy.models.iter().map(|(name, spec)| (name.clone(), route(spec))).collect())
}

fn format(remote: &RemoteModel) -> Box<dyn Format> {
    match &remote.wire {
        Wire::Anthropic { version } => Box::new(Anthropic::new(version)),
        Wire::OpenAi => Box::new(OpenAi::default()),
    }
}

/// Whose limits count together: those of a credential, at an address, for a family of models.
fn credential(remote: &RemoteModel) -> String {
    let key = remote.api_key.as_ref().map_or("", |k| k.expose());
    format!("{}\n{}\n{key}\n{}", remote.provider(), remote.base_url, family(remote))
}

/// `claude-opus` of `claude-opus-5-5`; elsewhere each model has limits of its own.
fn family(remote: &RemoteModel) -> &str {
    let model = remote.model.as_str();
    match model.find(|c: char| c.is_ascii_digit()) {
        Some(at) if model.starts_with("claude-") => model[..at].trim_end_matches('-'),
        _ => model,
    }
}

/// Who answers.
enum Backend {
    Remote(Remote),
    Scripted(Name, Scripted),
    Client(Sampling),
}

impl Backend {
    fn facts(&self) -> ModelFacts {
        match self {
            Backend::Remote(remote) => remote.facts(),
            Backend::Scripted(_, scripted) => scripted.facts(),
            Backend::Client(client) => client.facts(),
        }
    }
    fn model(&self) -> &str {
        match self {
            Backend::Remote(remote) => remote.model(),
            Backend::Scripted(name, _) => name.as_str(),
            Backend::Client(client) => client.model(),
        }
    }
    async fn answer(&self, request: &Request<'_>, delta: Delta<'_>) -> Result<Reply, ModelError> {
        crash::point("model.ask.before");
        let reply = match self {
            Backend::Remote(remote) => remote.answer(request, delta).await,
            Backend::Scripted(name, scripted) => scripted.answer(name, request, delta).await,
            Backend::Client(client) => client.answer(request, delta).await,
        };
        crash::point("model.ask.after");
        reply
    }
}

/// A model and its fallbacks.
struct Route {
    chain: Vec<Arc<Backend>>,
}

#[async_trait]
impl Model for Route {
    fn facts(&self) -> ModelFacts {
        // A chain always holds the model itself.
        self.chain.first().map_or(ModelFacts { context: 0, max_output: 0, price: None }, |first| first.facts())
    }
    async fn count(&self, request: &Request<'_>) -> u64 {
        match self.chain.first().map(Arc::as_ref) {
            Some(Backend::Remote(remote)) => remote.count(request).await,
            Some(Backend::Scripted(_, scripted)) => scripted.counted(request),
            Some(Backend::Client(_)) => estimate::of(request),
            None => 0,
        }
    }
    fn counts_outside(&self) -> bool {
        matches!(self.chain.first().map(Arc::as_ref), Some(Backend::Remote(remote)) if remote.counts())
    }
    async fn complete(
        &self,
        permit: Permit<Complete>,
        request: Request<'_>,
        delta: Delta<'_>,
    ) -> Result<Reply, ModelError> {
        let Complete { model } = permit.redeem();
        let told = AtomicBool::new(false);
        let delta = |text: &str| {
            told.store(true, Ordering::Relaxed);
            delta(text);
        };
        let mut failed: Vec<ModelError> = Vec::new();
        for (i, backend) in self.chain.iter().enumerate() {
            match backend.answer(&request, &delta).await {
                Ok(mut reply) => {
                    reply.usage = failed.iter().fold(reply.usage, |sum, e| sum.plus(&e.usage));
                    if i > 0 {
                        reply.answered_by.get_or_insert_with(|| backend.model().to_owned());
                    }
                    return Ok(reply);
                }
                Err(e) => {
                    // What a fallback cannot do says nothing of the one that was asked; only what
                    // is wrong with the first, and stays so, ends it at once.
                    let next = i > 0 || matches!(e.kind, ModelFailure::Unavailable | ModelFailure::Gone);
                    failed.push(e);
                    if !next || told.load(Ordering::Relaxed) {
                        break;
                    }
                    if let Some(next) = self.chain.get(i + 1) {
                        tracing::warn!(%model, next = next.model(), run = request.run.as_str(), "a model is out of reach");
                    }
                }
            }
        }
        Err(together(failed))
    }
}

/// All that was tried, in one error: its kind is that of the first.
fn together(failed: Vec<ModelError>) -> ModelError {
    let usage = failed.iter().fold(Usage::default(), |sum, e| sum.plus(&e.usage));
    let kind = failed.first().map_or(ModelFailure::Unavailable, |e| e.kind);
    let why: Vec<String> = failed.into_iter().map(|e| e.why).collect();
    ModelError { kind, why: why.join("; then "), usage }
}
