//! Pleach's own HTTP where calls are many: one permitted origin whose connections are kept, and
//! nothing between a request and the pool but the pool. What [`super::client`] does besides (forms,
//! redirects that are off, repeats) costs each call as much as the guard does; the judging, the
//! limits and TLS are the same.
//!
//! ```text
//!   request ─▶ pool ─┬─ a connection that rests ─▶ sent
//!                    └─ none ─▶ name resolved and judged ─▶ dialled ─▶ TLS ─▶ sent
//! ```

use super::{install_tls, judged, reasons};
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use policies::action::Connect;
use policies::domain::Host;
use policies::permit::Permit;
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;

/// So long a connection may take to come about, with its name and TLS.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// So long one that nobody uses is kept.
const REST_LIMIT: Duration = Duration::from_secs(60);
/// A peer that is gone without a word is found out: asked after so long, so often, given up after.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 3;
const UNHEARD_LIMIT: Duration = Duration::from_secs(30);

type Doing<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The way to one origin.
#[derive(Clone)]
pub struct Line(Client<Bounded, Full<Bytes>>);

/// A request that was not answered.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Unanswered {
    /// No connection came about: nobody can have received anything.
    pub unsent: bool,
    /// Why, with all causes; no address.
    pub why: String,
}

impl Line {
    /// The way to the origin of a permit. A host that is a literal address was judged with it.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn to(permit: Permit<Connect>) -> Result<Self, String> {
        let tls = tls()?;
        let mut tcp = HttpConnector::new_with_resolver(Judging(Arc::new(permit.redeem())));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_TRIES));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNHEARD_LIMIT));
        let mut pool = Client::builder(TokioExecutor::new());
        pool.pool_idle_timeout(REST_LIMIT).pool_timer(TokioTimer::new());
        Ok(Self(pool.build(Bounded(HttpsConnector::from((tcp, tls))))))
    }

    /// Sends a request; one whose connection was closed meanwhile and that never left is sent on
    /// another.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unanswered> {
        let sent = self.0.request(request).await;
        sent.map_err(|e| Unanswered { unsent: e.is_connect(), why: reasons(&e) })
    }
}

/// The trust of this machine, read once.
fn tls() -> Result<Arc<ClientConfig>, String> {
    static TLS: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(known) = TLS.get() {
        return Ok(known.clone());
    }
    install_tls();
    let trusting = ClientConfig::builder().with_platform_verifier().map_err(|e| e.to_string())?;
    let mut config = trusting.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TLS.get_or_init(|| Arc::new(config)).clone())
}

/// Resolves the permitted host and no other, and judges every answer.
#[derive(Clone)]
struct Judging(Arc<Connect>);

impl Service<Name> for Judging {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Failure;
    type Future = Doing<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, name: Name) -> Self::Future {
        let target = self.0.clone();
        Box::pin(async move {
            if Host::parse(name.as_str()).ok().as_ref() != Some(&target.host) {
                return Err(format!("denied: this client may reach {} only", target.host).into());
            }
            Ok(judged(&target).await?.into_iter())
        })
    }
}

/// A connection comes about in time, or not at all.
#[derive(Clone)]
struct Bounded(HttpsConnector<HttpConnector<Judging>>);

impl Service<Uri> for Bounded {
    type Response = <HttpsConnector<HttpConnector<Judging>> as Service<Uri>>::Response;
    type Error = Failure;
    type Future = Doing<Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.0.poll_ready(cx)
    }
    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.0.call(to);
        Box::pin(async move {
            let connected = tokio::time::timeout(CONNECT_LIMIT, connecting).await;
            connected.map_err(|_| format!("no connection within {} seconds", CONNECT_LIMIT.as_secs()))?
        })
    }
}
