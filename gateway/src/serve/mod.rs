//! The HTTP server: listens, checks where a request comes from, and hands it to its door.

mod connection;
mod linger;
mod seats;
#[cfg(feature = "grpc")]
mod second;
mod streaming;
#[cfg(test)]
mod tests;
mod turn;
mod wire;

use crate::auth;
use crate::compose::App;
use crate::live::Live;
use crate::mcp::http::Door;
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use connection::House;
use http::HeaderMap;
use hyper_util::service::TowerToHyperService;
use seats::Seats;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long calls in flight may take once the end was asked for.
const GRACE: Duration = Duration::from_secs(10);
/// So long is waited when no connection can be taken, for want of descriptors most likely.
const BREATH: Duration = Duration::from_secs(1);

/// Serves the doors on `listener` until `stop`.
///
/// # Errors
/// When the listener breaks.
pub(crate) async fn serve(listener: TcpListener, app: &App, stop: CancellationToken) -> std::io::Result<()> {
    let door = Door::new(app, listener.local_addr()?);
    let rest = crate::rest::Door::new(app, door.doorman())?;
    let a2a = crate::a2a::Door::new(app, door.doorman())?;
    crate::webhook::start(app, Arc::new(rest.clone()), a2a.voice());
    let router = Router::new()
        // Alive, and ready once listening: neither waits for a server.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ready\n" }))
        .merge(door.router())
        .merge(rest.router())
        .merge(a2a.clone().router());
    let (doors, closing, connections) =
        (TowerToHyperService::new(router), CancellationToken::new(), TaskTracker::new());
    if let Err(e) = adapters::sandbox::raise_descriptors() {
        tracing::warn!("the limit of open files stays as it is: {e}");
    }
    let live = app.live.clone();
    let screen = Arc::new(move |headers: &HeaderMap, path: &str| check_source(&live, headers, path));
    let house = House {
        doors,
        screen,
        seats: Seats::here(),
        closing: closing.clone(),
        #[cfg(feature = "grpc")]
        second: TowerToHyperService::new(a2a.grpc()),
    };
    let house = Arc::new(house);
    let end = async {
        stop.cancelled().await;
        // First of all: a run goes on at the next start, and must not take the end of its server
        // or of its client for an outcome.
        app.host.suspend().await;
        // Streams of changes end with the servers, or they would hold the door open for ever.
        app.servers.stop.cancel();
    };
    let graceful = async {
        tokio::select! {
            () = end => {}
            () = receive(&listener, &house, &connections) => {}
        }
        drop(listener);
        closing.cancel();
        connections.close();
        connections.wait().await;
    };
    tokio::select! {
        () = graceful => {}
        () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => {}
    }
    Ok(())
}

/// Gives every client that comes a seat and a task.
async fn receive(listener: &TcpListener, house: &Arc<House>, connections: &TaskTracker) {
    loop {
        let socket = accept(listener, &house.seats).await;
        let (seat, house) = (house.seats.take().await, house.clone());
        connections.spawn(async move {
            connection::keep(socket, house).await;
            drop(seat);
        });
    }
}

/// The next connection.
async fn accept(listener: &TcpListener, seats: &Seats) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                // Events of a stream are small and wait for nobody's acknowledgement.
                drop(socket.set_nodelay(true));
                return socket;
            }
            // The client's own doing.
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset
                ) => {}
            Err(e) => {
                tracing::error!("no connection can be taken: {e}");
                seats.give_way();
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// Where a request comes from is looked at before any door sees it; why it may not come in.
fn check_source(live: &Live, headers: &HeaderMap, path: &str) -> Result<(), Response> {
    auth::check_source(headers, &live.now().policy.gateway).map_err(|(status, why)| {
        if crate::a2a::is_mine(path) {
            return crate::a2a::foreign(why);
        }
        if crate::rest::is_mine(path) {
            return crate::rest::foreign(why);
        }
        let mut response = Response::new(Body::from(format!("{why}\n")));
        *response.status_mut() = status;
        response
    })
}

/// Binds the address, with the cure when it is taken.
///
/// # Errors
/// Why it cannot be listened on.
pub(crate) fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    listen(address).map_err(|e| match e.kind() {
        ErrorKind::AddrInUse => format!("{address} is in use; end the other program, or use --listen"),
        _ => format!("{address}: {e}"),
    })
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As tokio does by itself: a port is free again as soon as nobody listens there.
    socket.set_reuseaddr(true)?;
    // Whoever is gone without a word (asleep, or behind a router that forgot it) is found out. The
    // kernel gives this to every connection that is taken.
    socket.set_keepalive(true)?;
    socket.bind(address)?;
    socket.listen(1_024)
}
