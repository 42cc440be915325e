//! The HTTP server: listens, checks where a request comes from, and hands it to its door.

use crate::auth;
use crate::compose::App;
use crate::live::Live;
use crate::mcp::http::Door;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long calls in flight may take once the end was asked for.
const GRACE: std::time::Duration = std::time::Duration::from_secs(10);

/// Serves the doors on `listener` until `stop`.
///
/// # Errors
/// When the listener breaks.
pub(crate) async fn serve(listener: TcpListener, app: &App, stop: CancellationToken) -> std::io::Result<()> {
    let (app_end, listens) = (app.servers.stop.clone(), listener.local_addr()?);
    let door = Door::new(app, listens);
    let rest = crate::rest::Door::new(app, door.doorman())?;
    let a2a = crate::a2a::Door::new(app, door.doorman())?;
    let router = Router::new()
        // Alive, and ready once listening: neither waits for a server.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ready\n" }))
        .merge(door.router())
        .merge(rest.router())
        .merge(a2a.router())
        .layer(middleware::from_fn_with_state(app.live.clone(), check_source));
    let (end, stopped, host) = (app_end, stop.clone(), app.host.clone());
    // Streams of changes end with the servers, or they would hold the door open for ever.
    // Events of a stream are small and wait for nobody's acknowledgement.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let graceful = axum::serve(listener, router).with_graceful_shutdown(async move {
        stop.cancelled().await;
        // First of all: a run goes on at the next start, and must not take the end of its server
        // or of its client for an outcome.
        host.suspend().await;
        end.cancel();
    });
    tokio::select! {
        served = graceful => served,
        () = async { stopped.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}

async fn check_source(State(live): State<Arc<Live>>, request: Request, next: Next) -> Response {
    match auth::check_source(request.headers(), &live.now().policy.gateway) {
        Ok(()) => next.run(request).await,
        Err((_, why)) if crate::a2a::is_mine(request.uri().path()) => crate::a2a::foreign(why),
        Err((_, why)) if crate::rest::is_mine(request.uri().path()) => crate::rest::foreign(why),
        Err((status, why)) => {
            let mut response = Response::new(Body::from(format!("{why}\n")));
            *response.status_mut() = status;
            response
        }
    }
}

/// Binds the address, with the cure when it is taken.
///
/// # Errors
/// Why it cannot be listened on.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => format!("{address} is in use; end the other program, or use --listen"),
        _ => format!("{address}: {e}"),
    })
}
