//! The way out for sandboxed processes: a proxy whose listener lies inside the instance's own,
//! otherwise empty network namespace. One listener, one instance, one authority: whoever
//! connects is known by where they connect.
//!
//! HTTP CONNECT and plain HTTP (absolute form). The host is judged by name, resolved once, every
//! address judged, and a judged address dialled (`adapters::net`).

use crate::audit::{Audit, Before, Decision, Entry};
use adapters::net;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use policies::authority::Authority;
use policies::decide;
use policies::domain::Host;
use policies::permit::{Denial, Verdict};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

type Body = BoxBody<Bytes, hyper::Error>;

/// Whose connections these are, and what they may reach. Asked at each connection; an instance
/// answers with the authority it was started under, because it serves that grant and no other.
pub(crate) trait Owner: Send + Sync {
    /// For the log.
    fn name(&self) -> String;
    /// The authority now; `None` when it has ended.
    fn authority(&self) -> Option<Authority>;
    /// Where its connections are put on record.
    fn audit(&self) -> &Audit;
    /// What the record says of whose they are.
    fn entry(&self, what: &str) -> Entry;
}

/// Connections of one instance at a time.
const MAX_CONNECTIONS: usize = 256;

/// Serves one instance until cancelled.
pub(crate) fn serve(
    listener: std::net::TcpListener,
    owner: Arc<dyn Owner>,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let tracker = tasks.clone();
    tasks.spawn(async move {
        let slots = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors, most likely: some will come back.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            };
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let (owner, stop, inner) = (owner.clone(), stop.clone(), tracker.clone());
            tracker.spawn(async move {
                // A tunnel outlives its connection's handler and keeps the slot as long.
                let slot = Arc::new(slot);
                let held = slot.clone();
                let cut = stop.clone();
                let service = hyper::service::service_fn(move |request| {
                    answer(
                        request,
                        owner.clone(),
                        Tunnels { tasks: inner.clone(), slot: held.clone(), stop: cut.clone() },
                    )
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .half_close(true)
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                tokio::select! {
                    () = stop.cancelled() => {}
                    result = connection => if let Err(e) = result { debug!("proxy connection: {e}") },
                }
                drop(slot);
            });
        }
    });
    Ok(())
}

/// What a tunnel takes along.
#[derive(Clone)]
struct Tunnels {
    tasks: TaskTracker,
    slot: Arc<tokio::sync::OwnedSemaphorePermit>,
    stop: CancellationToken,
}

fn answer(
    request: Request<Incoming>,
    owner: Arc<dyn Owner>,
    tunnels: Tunnels,
) -> BoxFuture<'static, Result<Response<Body>, hyper::Error>> {
    Box::pin(async move {
        let result = if request.method() == Method::CONNECT {
            connect(request, &*owner, tunnels).await
        } else {
            forward(request, &*owner, &tunnels.tasks).await
        };
        Ok(result.unwrap_or_else(|(status, why)| {
            info!(owner = owner.name(), "egress {why}");
            refuse(status, &why)
        }))
    })
}

type Refused = (StatusCode, String);

/// The one judgement: who asks, for which host and port.
async fn open(owner: &dyn Owner, host: &str, port: u16) -> Result<tokio::net::TcpStream, Refused> {
    let host = Host::parse(host).map_err(|e| (StatusCode::BAD_REQUEST, e.to_string()))?;
    let entry = owner.entry("connect").with("target", format!("{host}:{port}"));
    let Some(authority) = owner.authority() else {
        let denial = Denial::plain("the run this process belongs to has ended", "");
        let _ = owner.audit().record(entry.decided(Decision::Deny(&denial)), Before::Reading).await;
        return Err((StatusCode::FORBIDDEN, format!("denied: {}", denial.rule)));
    };
    match decide::connect(&authority, host, port) {
        Verdict::Allow(permit, rule) => {
            let entry = entry.decided(Decision::Allow(&rule));
            let recorded = owner.audit().record(entry, Before::Acting).await;
            let seq = recorded.map_err(|failed| (StatusCode::FORBIDDEN, failed.to_string()))?;
            let begun = std::time::Instant::now();
            debug!(owner = owner.name(), target = %permit.what(), "egress allowed by {rule}");
            let dialled = net::dial(permit).await;
            let outcome = match &dialled {
                Ok(_) => "ok",
                Err(net::DialError::Denied(_)) => "denied",
                Err(_) => "error",
            };
            let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            owner.audit().note(Entry::outcome(seq, outcome, ms));
            dialled.map_err(|e| match e {
                net::DialError::Denied(_) => (StatusCode::FORBIDDEN, e.to_string()),
                other => (StatusCode::BAD_GATEWAY, other.to_string()),
            })
        }
        Verdict::Ask(question) => {
            let denial = question.refuse("a connection cannot wait");
            owner.audit().note(entry.decided(Decision::Deny(&denial)));
            Err((StatusCode::FORBIDDEN, denial.for_model()))
        }
        Verdict::Deny(denial) => {
            let _ = owner.audit().record(entry.decided(Decision::Deny(&denial)), Before::Reading).await;
            info!(owner = owner.name(), "egress {}", denial.for_person());
            Err((StatusCode::FORBIDDEN, denial.for_model()))
        }
    }
}

async fn connect(request: Request<Incoming>, owner: &dyn Owner, tunnels: Tunnels) -> Result<Response<Body>, Refused> {
    let bad = |why: &str| (StatusCode::BAD_REQUEST, format!("CONNECT {}: {why}", request.uri()));
    let authority = request.uri().authority().ok_or_else(|| bad("no host"))?;
    if authority.as_str().contains('@') {
        return Err(bad("user information"));
    }
    let port = authority.port_u16().ok_or_else(|| bad("no port"))?;
    let mut upstream = open(owner, authority.host(), port).await?;
    let Tunnels { tasks, slot, stop } = tunnels;
    tasks.spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => {
                let mut client = TokioIo::new(upgraded);
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = tokio::io::copy_bidirectional(&mut client, &mut upstream) => {}
                }
                drop(slot);
            }
            Err(e) => debug!("CONNECT was not taken up: {e}"),
        }
    });
    Ok(Response::new(empty()))
}

/// Headers that belong to one connection (RFC 9110 section 7.6.1) or to the proxy.
const HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

async fn forward(
    request: Request<Incoming>,
    owner: &dyn Owner,
    tasks: &TaskTracker,
) -> Result<Response<Body>, Refused> {
    let uri = request.uri().clone();
    let bad = |why: &str| (StatusCode::BAD_REQUEST, format!("{uri}: {why}"));
    if uri.scheme_str() != Some("http") {
        return Err(bad("a proxy request names an http:// address; https goes through CONNECT"));
    }
    let authority = uri.authority().ok_or_else(|| bad("no host"))?;
    if authority.as_str().contains('@') {
        return Err(bad("user information"));
    }
    let port = authority.port_u16().unwrap_or(80);
    let stream = open(owner, authority.host(), port).await?;

    let gateway = |e: hyper::Error| (StatusCode::BAD_GATEWAY, format!("{uri}: {e}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(gateway)?;
    tasks.spawn(async move {
        let _ = connection.await;
    });
    let (mut parts, body) = request.into_parts();
    let listed: Vec<String> = parts
        .headers
        .get_all("connection")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(',').map(|h| h.trim().to_ascii_lowercase()))
        .collect();
    for name in HOP.iter().copied().map(str::to_owned).chain(listed) {
        parts.headers.remove(name.as_str());
    }
    // What was judged is what is sent: the Host header is the target, whatever it said.
    let host = authority.as_str().parse().map_err(|_| bad("a host no header can hold"))?;
    parts.headers.insert("host", host);
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    parts.uri = path.parse::<Uri>().map_err(|e| bad(&e.to_string()))?;
    let response = sender.send_request(Request::from_parts(parts, body)).await.map_err(gateway)?;
    let (mut parts, body) = response.into_parts();
    for name in HOP {
        parts.headers.remove(name);
    }
    Ok(Response::from_parts(parts, body.boxed()))
}

fn empty() -> Body {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}

fn refuse(status: StatusCode, why: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(format!("pleach: {why}\n"))).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
