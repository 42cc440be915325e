//! The REST door: runs, their events, what they ask people, webhooks. A projection of the host's
//! verbs; what may happen the guard decides, as at every door.
//!
//! ```text
//!  request ─▶ doorman ─▶ body, query: read and checked ─▶ handler ─▶ host's verb ─▶ run object
//!                 └ 401, 403      └ 400, 413, 415, 422      └ 404 (absent or a stranger's), 409, 429
//!
//!  store ─▶ history ─┐
//!                    ├▶ one stream of events, each once, by its position in the tree
//!  host.watch: hints ┘
//! ```
//!
//! [`routes::ROUTES`] is the one table: it mounts the routes, and `/openapi.json` is made of it.

mod approvals;
mod events;
mod metrics;
mod object;
mod openapi;
mod problem;
mod request;
mod routes;
mod rules;
mod runs;
mod schema;
mod start;
mod webhook;

use crate::auth::Doorman;
use crate::compose::App;
use crate::guard::Guard;
use crate::hosted::{Crowd, Lanes};
use crate::live::Live;
use crate::mcp::seal::Seal;
use adapters::store::Store;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use problem::{Kind, Problem};
use std::sync::Arc;
use subagents::host::Host;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Door(Arc<Inner>);

struct Inner {
    live: Arc<Live>,
    guard: Arc<Guard>,
    host: Arc<Host>,
    store: Store,
    doorman: Arc<Doorman>,
    seal: Seal,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Root runs begun or gone on with here that are worked on, by client.
    working: Arc<Crowd>,
    /// Streams that stand, by client.
    watching: Arc<Crowd>,
    lanes: Lanes,
    counts: metrics::Counts,
}

impl Door {
    /// The door, and its tasks.
    ///
    /// # Errors
    /// When the key in the state folder can be neither read nor written.
    pub(crate) fn new(app: &App, doorman: Arc<Doorman>) -> std::io::Result<Self> {
        let door = Self(Arc::new(Inner {
            live: app.live.clone(),
            guard: app.guard.clone(),
            host: app.host.clone(),
            store: app.store.clone(),
            doorman,
            seal: Seal::load(&app.live.now().state)?,
            tasks: app.servers.tasks.clone(),
            stop: app.servers.stop.clone(),
            working: Arc::default(),
            watching: Arc::default(),
            lanes: Lanes::default(),
            counts: metrics::Counts::default(),
        }));
        metrics::start(&door);
        Ok(door)
    }
    /// Its routes.
    pub(crate) fn router(self) -> Router {
        let mut router = Router::new();
        for route in &routes::ROUTES {
            let serve = move |State(door): State<Door>, request: Request| request::serve(door, route, request);
            router = router.route(route.path, axum::routing::on(route.filter(), serve));
        }
        router.route("/v1/{*rest}", any(nothing)).method_not_allowed_fallback(not_allowed).with_state(self)
    }
}

/// Whether a path is this door's.
pub(crate) fn is_mine(path: &str) -> bool {
    path.starts_with("/v1/") || routes::ROUTES.iter().any(|r| r.captures(path).is_some())
}

/// What a request from a foreign Host or Origin is told here.
pub(crate) fn foreign(why: String) -> Response {
    Problem::new(Kind::Forbidden, why, "call it by a name that is allowed, and from no other site's page").response()
}

async fn nothing(request: Request) -> Response {
    let detail = format!("nothing is served at {}", request.uri().path());
    Problem::new(Kind::NotFound, detail, "see /openapi.json").response()
}

async fn not_allowed(request: Request) -> Response {
    let path = request.uri().path();
    let served: Vec<&str> =
        routes::ROUTES.iter().filter(|r| r.captures(path).is_some()).map(|r| r.method.as_str()).collect();
    let allow = served.join(", ");
    let detail = format!("{} is not served at {path}", request.method());
    Problem::new(Kind::NotAllowed, detail, format!("use {allow}")).with("allow", allow).response()
}
