//! HTTP: CONNECT, requests that name an http:// address, and requests inside a tunnel. Whatever
//! is forwarded was parsed and is written anew, for the host that was judged.

use super::meter::{Metered, Watch};
use super::tunnel::Client;
use super::{Kind, Opened, PATIENCE, Refused, Target, Way, fits, open, refused, tunnel};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::{TokioIo, TokioTimer};
use policies::domain::Host;
use std::sync::Arc;
use tokio::sync::Mutex;
use tracing::{debug, info};

type Body = BoxBody<Bytes, hyper::Error>;

/// One client that speaks HTTP to the proxy.
pub(super) async fn serve(stream: tokio::net::TcpStream, way: Way) {
    let service = hyper::service::service_fn(move |request| answer(request, way.clone()));
    let connection = builder().serve_connection(TokioIo::new(stream), service).with_upgrades();
    if let Err(e) = connection.await {
        debug!("proxy connection: {e}");
    }
}

fn builder() -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.half_close(true).timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder
}

fn answer(request: Request<Incoming>, way: Way) -> BoxFuture<'static, Result<Response<Body>, hyper::Error>> {
    Box::pin(async move {
        let owner = way.owner.clone();
        let result = match *request.method() == Method::CONNECT {
            true => connect(request, way).await,
            false => forward(request, &way).await,
        };
        Ok(result.unwrap_or_else(|Refused { kind, why }| {
            info!(owner = owner.name(), "egress {why}");
            let status = match kind {
                Kind::Bad => StatusCode::BAD_REQUEST,
                Kind::Denied => StatusCode::FORBIDDEN,
                Kind::Unresolved | Kind::Unreachable => StatusCode::BAD_GATEWAY,
            };
            refuse(status, &why)
        }))
    })
}

async fn connect(request: Request<Incoming>, way: Way) -> Result<Response<Body>, Refused> {
    let bad = |why: &str| refused(Kind::Bad, format!("CONNECT {}: {why}", request.uri()));
    let authority = request.uri().authority().ok_or_else(|| bad("no host"))?;
    if authority.as_str().contains('@') {
        return Err(bad("user information"));
    }
    let port = authority.port_u16().ok_or_else(|| bad("no port"))?;
    let opened = open(&*way.owner, authority.host(), port).await?;
    way.tasks.clone().spawn(async move {
        let stop = way.stop.clone();
        let upgraded = tokio::select! {
            () = stop.cancelled() => return,
            upgraded = hyper::upgrade::on(request) => upgraded,
        };
        match upgraded {
            Ok(upgraded) => tunnel::run(TokioIo::new(upgraded), opened, way).await,
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

async fn forward(request: Request<Incoming>, way: &Way) -> Result<Response<Body>, Refused> {
    let uri = request.uri().clone();
    let bad = |why: &str| refused(Kind::Bad, format!("{uri}: {why}"));
    if uri.scheme_str() != Some("http") {
        return Err(bad("a proxy request names an http:// address; https goes through CONNECT"));
    }
    let authority = uri.authority().ok_or_else(|| bad("no host"))?;
    if authority.as_str().contains('@') {
        return Err(bad("user information"));
    }
    let Opened { stream, .. } = open(&*way.owner, authority.host(), authority.port_u16().unwrap_or(80)).await?;
    let gateway = |e: hyper::Error| refused(Kind::Unreachable, format!("{uri}: {e}"));
    let mut sender = sender(stream, way).await.map_err(gateway)?;
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

/// Speaks HTTP on a connection to the outside, for as long as it may stand.
async fn sender(stream: Metered, way: &Way) -> Result<SendRequest<Incoming>, hyper::Error> {
    let watch = stream.watch();
    let (sender, connection) =
        hyper::client::conn::http1::Builder::new().preserve_header_case(true).handshake(TokioIo::new(stream)).await?;
    let (stop, slot) = (way.stop.clone(), way.slot.clone());
    way.tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            why = watch.over() => info!("egress: a connection was ended, because {why}"),
            ended = connection.with_upgrades() => if let Err(e) = ended { debug!("egress: {e}") },
        }
        drop(slot);
    });
    Ok(sender)
}

/// HTTP in the clear inside a tunnel: every request on it must be for the host it was allowed for.
pub(super) async fn inside(client: impl Client, stream: Metered, target: Target, way: Way) {
    let watch = Arc::new(stream.watch());
    let sender = match sender(stream, &way).await {
        Ok(sender) => Arc::new(Mutex::new(sender)),
        Err(e) => return debug!("egress: {e}"),
    };
    let service = hyper::service::service_fn(move |request| {
        let (sender, target, way, watch) = (sender.clone(), target.clone(), way.clone(), watch.clone());
        async move { Ok::<_, hyper::Error>(relay(request, &sender, &target, &way, &watch).await) }
    });
    let mut builder = builder();
    let connection = builder.preserve_header_case(true).serve_connection(TokioIo::new(client), service);
    if let Err(e) = connection.with_upgrades().await {
        debug!("egress: {e}");
    }
}

async fn relay(
    mut request: Request<Incoming>,
    sender: &Mutex<SendRequest<Incoming>>,
    target: &Target,
    way: &Way,
    watch: &Arc<Watch>,
) -> Response<Body> {
    if let Err(why) = fits(&*way.owner, target, named(&request, target)) {
        let mut response = refuse(StatusCode::MISDIRECTED_REQUEST, &why);
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        return response;
    }
    for name in ["proxy-authorization", "proxy-connection"] {
        request.headers_mut().remove(name);
    }
    // What else a connection could become (h2c, TLS) would name other hosts, unseen.
    let socket = is_websocket(request.headers());
    if !socket {
        request.headers_mut().remove(header::UPGRADE);
        request.headers_mut().remove("http2-settings");
    }
    // Only where one is asked for: the promise of an upgrade holds the request.
    let upgrade = socket.then(|| hyper::upgrade::on(&mut request));
    let mut sender = sender.lock().await;
    let sent = match sender.ready().await {
        Ok(()) => sender.send_request(request).await,
        Err(e) => Err(e),
    };
    let mut response = match sent {
        Ok(response) => response,
        Err(e) => return refuse(StatusCode::BAD_GATEWAY, &format!("{target}: {e}")),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(upgrade) = upgrade
    {
        let outside = hyper::upgrade::on(&mut response);
        // Nobody else looks after the connection any more.
        let (stop, slot, watch) = (way.stop.clone(), way.slot.clone(), watch.clone());
        way.tasks.spawn(async move {
            let joined = async {
                if let (Ok(client), Ok(outside)) = tokio::join!(upgrade, outside) {
                    let (mut client, mut outside) = (TokioIo::new(client), TokioIo::new(outside));
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut outside).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                why = watch.over() => info!("egress: a WebSocket was ended, because {why}"),
                () = joined => {}
            }
            drop(slot);
        });
    }
    response.map(BodyExt::boxed)
}

/// Whether it asks for a WebSocket (RFC 6455) and for nothing else.
fn is_websocket(headers: &header::HeaderMap) -> bool {
    let mut asked = headers.get_all(header::UPGRADE).iter();
    let one = asked.next().and_then(|v| v.to_str().ok());
    asked.next().is_none() && one.is_some_and(|token| token.trim().eq_ignore_ascii_case("websocket"))
}

/// The host a request inside a tunnel is for.
fn named(request: &Request<Incoming>, target: &Target) -> Result<Host, String> {
    if *request.method() == Method::CONNECT {
        return Err("it asks for a tunnel inside the tunnel".into());
    }
    let of = |text: &str| -> Result<Host, String> {
        let (host, port) = split(text);
        if port.is_some_and(|port| port.parse() != Ok(target.port)) {
            return Err(format!("its request is for {text:?}"));
        }
        Host::parse(host.trim_matches(['[', ']'])).map_err(|e| format!("its request names no host: {e}"))
    };
    let mut hosts = hosts(request.headers());
    let (Some(Ok(host)), None) = (hosts.next(), hosts.next()) else {
        return Err("its request names no host, or several".into());
    };
    let host = of(host)?;
    // An absolute address counts for a server that takes it, and Host for one that does not.
    match request.uri().authority() {
        Some(authority) if of(authority.as_str())? != host => Err("its request is for two hosts".into()),
        _ => Ok(host),
    }
}

fn hosts(headers: &HeaderMap) -> impl Iterator<Item = Result<&str, header::ToStrError>> {
    headers.get_all(header::HOST).iter().map(|value| value.to_str())
}

/// `host:port`, `[v6]:port`, or without a port.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Audit, Entry};
    use crate::egress::Owner;
    use crate::egress::meter::{CAPS, Caps};
    use policies::authority::Authority;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    struct Nobody(Audit);
    impl Owner for Nobody {
        fn name(&self) -> String {
            "nobody".into()
        }
        fn authority(&self) -> Option<Authority> {
            None
        }
        fn audit(&self) -> &Audit {
            &self.0
        }
        fn entry(&self, what: &str) -> Entry {
            Entry::new(what)
        }
    }

    const ASKS: &str = "GET / HTTP/1.1\r\nhost: a.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    const TAKES: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

    async fn until(stream: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
        let mut heard = Vec::new();
        while !heard.ends_with(end.as_bytes()) {
            heard.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(heard).unwrap()
    }

    /// A WebSocket is still the connection it was: quiet for too long, or there for too long, it is over.
    #[tokio::test]
    async fn a_websocket_has_the_caps_of_its_connection() {
        let short = Duration::from_millis(300);
        for caps in [Caps { idle: short, ..CAPS }, Caps { life: short, ..CAPS }] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let mut far = listener.accept().await.unwrap().0;
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("pleach.toml");
            let audit = Audit::open(&crate::settings::understand("pleach.toml", "version = 1", &file).unwrap());
            let slot = Arc::new(Arc::new(tokio::sync::Semaphore::new(1)).acquire_owned().await.unwrap());
            let way = Way {
                owner: Arc::new(Nobody(audit.clone())),
                tasks: tokio_util::task::TaskTracker::new(),
                slot,
                stop: tokio_util::sync::CancellationToken::new(),
            };
            let (mut client, side) = tokio::io::duplex(4096);
            let target = Target { host: Host::parse("a.example").unwrap(), port: 80 };
            let began = std::time::Instant::now();
            let tasks = way.tasks.clone();
            tasks.spawn(inside(side, Metered::new(near, &audit, 1, caps), target, way));
            client.write_all(ASKS.as_bytes()).await.unwrap();
            assert!(until(&mut far, "\r\n\r\n").await.starts_with("GET / HTTP/1.1\r\n"));
            far.write_all(TAKES.as_bytes()).await.unwrap();
            assert!(until(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 101 "));
            // Its twin: what is said goes through, both ways.
            client.write_all(b"ping").await.unwrap();
            assert_eq!(until(&mut far, "ping").await, "ping");
            far.write_all(b"pong").await.unwrap();
            assert_eq!(until(&mut client, "pong").await, "pong");
            let mut rest = Vec::new();
            assert_eq!(far.read_to_end(&mut rest).await.unwrap_or(0), 0);
            assert_eq!(client.read_to_end(&mut rest).await.unwrap_or(0), 0);
            assert!(began.elapsed() >= short, "{:?}", began.elapsed());
        }
    }
}
