//! Whoever a request is made for: hears what the server says of it, and answers what the
//! server asks meanwhile.

use super::wire::RpcError;
use async_trait::async_trait;
use policies::json::{Json, Object};
use policies::resolve::Secret;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The other end of a request.
#[async_trait]
pub trait Party: Send + Sync {
    /// A notification that belongs to the request: progress, a log line.
    fn notify(&self, method: &str, params: Object);
    /// The server asks something before it answers: elicitation, sampling, roots.
    ///
    /// # Errors
    /// What the server is told instead of an answer.
    async fn ask(&self, method: &str, params: Object) -> Result<Json, RpcError>;
    /// What it can be asked, as MCP client capabilities.
    fn capabilities(&self) -> Object;
    /// Whether progress is wanted.
    fn wants_progress(&self) -> bool;
    /// The least severe log message wanted, if any is.
    fn log_level(&self) -> Option<String>;
    /// The client behind the request, where it can be asked beyond it. One of 2026-07-28 cannot.
    fn client(&self) -> Option<Arc<dyn Client>> {
        None
    }
}

/// The client of a legacy conversation, beyond any one request. It is held as a name is: it may
/// leave at any time.
#[async_trait]
pub trait Client: Send + Sync {
    /// Tells clients apart.
    fn number(&self) -> u64;
    /// Whether it is still there, and has roots.
    fn has_roots(&self) -> bool;
    /// Whether it listens to a stream on which it can be asked beyond its requests.
    fn listens(&self) -> bool;
    /// Asks it for its roots there.
    ///
    /// # Errors
    /// What the server is told instead of an answer.
    async fn roots(&self, params: Object) -> Result<Json, RpcError>;
}

/// What happens to a modern server's `input_required`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounds {
    /// The caller gets it as it is, and comes again itself.
    Relay,
    /// The party is asked, and the request repeated with its answers.
    #[default]
    Drive,
}

/// What a request may take and who it is for.
#[derive(Clone)]
pub struct Exchange {
    /// The time it may take, progress or not. The time a person takes to answer does not count.
    pub limit: Duration,
    /// Takes it back.
    pub cancel: CancellationToken,
    /// Who it is for; `None` for Pleach's own requests.
    pub party: Option<Arc<dyn Party>>,
    /// What happens to `input_required`.
    pub rounds: Rounds,
    /// What is given along, to a gateway that takes grants.
    pub gives: Option<Arc<Gives>>,
}

/// Where what is done over there may call back, with what, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// The MCP endpoint.
    pub url: String,
    /// Good there and nowhere else.
    pub token: Secret,
    /// Seconds since 1970.
    pub until: u64,
}

impl Callback {
    /// As it is written beside a message.
    pub fn to_json(&self) -> Json {
        let token = self.token.expose();
        let callback = [("url", self.url.as_str().into()), ("token", token.into()), ("until", self.until.into())];
        Json::object([("callback", Json::object(callback))])
    }
    /// What was written beside a message; `None` where it is no such thing.
    pub fn read(along: &serde_json::Value) -> Option<Self> {
        let callback = along.get("callback")?;
        let text = |key: &str| callback.get(key).and_then(serde_json::Value::as_str);
        let (url, token) = (text("url")?.to_owned(), Secret::new(text("token")?));
        Some(Self { url, token, until: callback.get("until")?.as_u64()? })
    }
}

/// A grant that goes along with what is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gives {
    /// As `policies::claims` writes it.
    pub grant: String,
    /// From whom it comes down, for people.
    pub chain: String,
    /// What may come back, if anything may.
    pub callback: Option<Callback>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            limit: Duration::from_secs(60),
            cancel: CancellationToken::new(),
            party: None,
            rounds: Rounds::Drive,
            gives: None,
        }
    }
}

/// What a server says unasked, to nobody in particular.
pub trait Events: Send + Sync {
    /// A notification.
    fn notified(&self, method: &str, params: Object);
    /// It was not heard for a while: lists may have changed, watched resources too.
    fn resumed(&self);
    /// A line of its standard error, or of noise.
    fn log(&self, line: &str);
    /// It is gone.
    fn ended(&self);
}
