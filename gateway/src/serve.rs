//! The HTTP server: listens, checks where a request comes from, and hands it to its door.

use crate::auth;
use crate::compose::App;
use crate::mcp::http::Door;
use crate::settings::Loaded;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves the doors on `listener` until `stop`.
///
/// # Errors
/// When the listener breaks.
pub(crate) async fn serve(listener: TcpListener, app: &App, stop: CancellationToken) -> std::io::Result<()> {
    let app = Router::new()
        // Alive, and ready once listening: neither waits for a server.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ready\n" }))
        .merge(Door::new(app).router())
        .layer(middleware::from_fn_with_state(app.loaded.clone(), check_source));
    axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

async fn check_source(State(loaded): State<Arc<Loaded>>, request: Request, next: Next) -> Response {
    match auth::check_source(request.headers(), &loaded.policy.gateway) {
        Ok(()) => next.run(request).await,
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
