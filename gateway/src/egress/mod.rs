//! The way out for sandboxed processes: a proxy whose listener lies inside the instance's own,
//! otherwise empty network namespace. One listener, one instance, one authority: whoever
//! connects is known by where they connect.
//!
//! ```text
//!  connection ─┬─ 0x05 ─▶ socks ──┐
//!              └─ else ─▶ http ───┼─ CONNECT ─▶ open ─▶ first bytes ─┬─ TLS: the name it asks for ─▶ copied
//!                                 │                                  ├─ HTTP: Host of each request ─▶ relayed
//!                                 │                                  └─ neither, on another port ───▶ copied
//!                                 └─ http://… ─▶ open, Host written anew ──────────────────────────▶ relayed
//!  open: host canonical ─▶ decide ─▶ on record ─▶ resolved once, every address judged, dialled (adapters::net)
//! ```
//!
//! A tunnel is for the host it was allowed for: what its own first bytes name must be that host.
//! What connects by address may name another host only where that is allowed too.

mod first;
mod hello;
mod http;
mod meter;
mod socks;
mod tunnel;

use crate::audit::{Audit, Before, Decision, Entry};
use adapters::net;
use meter::{CAPS, Metered};
use policies::authority::Authority;
use policies::decide;
use policies::domain::Host;
use policies::permit::{Denial, Verdict};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

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
/// How long somebody who connected may take to say what they want.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where this gateway's own doors are. A door lets whoever is on this machine in with the root
/// grant, so it is not reached from a sandbox.
static DOORS: RwLock<Vec<SocketAddr>> = RwLock::new(Vec::new());

/// Keeps sandboxed processes away from a door.
pub(crate) fn keep_from(door: SocketAddr) {
    let mut doors = DOORS.write().unwrap_or_else(PoisonError::into_inner);
    if !doors.contains(&door) {
        doors.push(door);
    }
}

/// Whether a connection leads back to one of them, whatever address of this machine it was made to.
fn leads_home(stream: &TcpStream) -> bool {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return true };
    let here = peer.ip().to_canonical().is_loopback() || peer.ip() == local.ip();
    let doors = DOORS.read().unwrap_or_else(PoisonError::into_inner);
    doors.iter().any(|door| door.port() == peer.port() && (here || door.ip() == peer.ip()))
}

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
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let way = Way { owner: owner.clone(), tasks: tracker.clone(), slot: Arc::new(slot), stop: stop.clone() };
            tracker.spawn(async move {
                let cut = way.stop.clone();
                tokio::select! {
                    () = cut.cancelled() => {}
                    () = accepted_by(stream, way) => {}
                }
            });
        }
    });
    Ok(())
}

/// Whose a connection is, and what its tunnel takes along: a tunnel outlives its handler and
/// keeps the slot as long.
#[derive(Clone)]
struct Way {
    owner: Arc<dyn Owner>,
    tasks: TaskTracker,
    slot: Arc<tokio::sync::OwnedSemaphorePermit>,
    stop: CancellationToken,
}

/// Tells the two protocols apart by their first byte.
async fn accepted_by(stream: TcpStream, way: Way) {
    let mut first = [0u8];
    match tokio::time::timeout(PATIENCE, stream.peek(&mut first)).await {
        Ok(Ok(1)) if first == [socks::VERSION] => socks::serve(stream, way).await,
        Ok(Ok(1)) => http::serve(stream, way).await,
        _ => {}
    }
}

/// Where a connection may go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    host: Host,
    port: u16,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A connection that was allowed.
struct Opened {
    stream: Metered,
    target: Target,
}

/// Why there is none, in the kinds that both protocols have words for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It was not asked for in a way that can be judged.
    Bad,
    /// It is not allowed.
    Denied,
    /// The name does not resolve.
    Unresolved,
    /// Nobody answers.
    Unreachable,
}

/// Why there is no connection.
struct Refused {
    kind: Kind,
    why: String,
}

fn refused(kind: Kind, why: impl Into<String>) -> Refused {
    Refused { kind, why: why.into() }
}

/// The one judgement: who asks, for which host and port.
async fn open(owner: &dyn Owner, host: &str, port: u16) -> Result<Opened, Refused> {
    let host = Host::parse(host).map_err(|e| refused(Kind::Bad, e.to_string()))?;
    if port == 0 {
        return Err(refused(Kind::Bad, "port 0 is none"));
    }
    let target = Target { host: host.clone(), port };
    let entry = owner.entry("connect").with("target", target.to_string());
    let Some(authority) = owner.authority() else {
        let denial = Denial::plain("the run this process belongs to has ended", "");
        let _ = owner.audit().record(entry.decided(Decision::Deny(&denial)), Before::Reading).await;
        return Err(refused(Kind::Denied, format!("denied: {}", denial.rule)));
    };
    match decide::connect(&authority, host, port) {
        Verdict::Allow(permit, rule) => {
            let entry = entry.decided(Decision::Allow(&rule));
            let recorded = owner.audit().record(entry, Before::Acting).await;
            let seq = recorded.map_err(|failed| refused(Kind::Denied, failed.to_string()))?;
            debug!(owner = owner.name(), target = %permit.what(), "egress allowed by {rule}");
            let stream = dialled(owner, seq, permit).await?;
            Ok(Opened { stream: Metered::new(stream, owner.audit(), seq, CAPS), target })
        }
        Verdict::Ask(question) => {
            let denial = question.refuse("a connection cannot wait");
            owner.audit().note(entry.decided(Decision::Deny(&denial)));
            Err(refused(Kind::Denied, denial.for_model()))
        }
        Verdict::Deny(denial) => {
            let _ = owner.audit().record(entry.decided(Decision::Deny(&denial)), Before::Reading).await;
            info!(owner = owner.name(), "egress {}", denial.for_person());
            Err(refused(Kind::Denied, denial.for_model()))
        }
    }
}

/// Dials what was permitted; how that ended is on record where it did not succeed.
async fn dialled(
    owner: &dyn Owner,
    seq: u64,
    permit: policies::permit::Permit<policies::action::Connect>,
) -> Result<TcpStream, Refused> {
    let begun = std::time::Instant::now();
    let failed = match net::dial(permit).await {
        Ok(stream) if leads_home(&stream) => {
            refused(Kind::Denied, "denied: that is a door of pleach itself; agents call tools, not doors")
        }
        Ok(stream) => return Ok(stream),
        Err(e) => {
            let kind = match e {
                net::DialError::Denied(_) => Kind::Denied,
                net::DialError::Resolve(..) => Kind::Unresolved,
                net::DialError::Unreachable(..) => Kind::Unreachable,
            };
            refused(kind, e.to_string())
        }
    };
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let outcome = if failed.kind == Kind::Denied { "denied" } else { "error" };
    owner.audit().note(Entry::outcome(seq, outcome, ms));
    Err(failed)
}

/// Whether what a connection says of whom it is for fits what it was allowed for; else it is on
/// record.
fn fits(owner: &dyn Owner, target: &Target, said: Result<Host, String>) -> Result<(), String> {
    let denial = match said {
        Ok(said) if said == target.host => return Ok(()),
        Ok(said) => {
            // An address is allowed as such; a name that is told to it is judged as a name.
            let also = matches!(target.host, Host::Address(_)) && matches!(said, Host::Domain(_));
            let authority = owner.authority().filter(|_| also);
            if authority.is_some_and(|a| matches!(decide::connect(&a, said.clone(), target.port), Verdict::Allow(..))) {
                return Ok(());
            }
            Denial::plain(
                format!("this connection was allowed for {target} and names {said}"),
                format!("connect to {said} itself"),
            )
        }
        Err(why) => {
            Denial::plain(format!("this connection was allowed for {target}, but {why}"), "say which host it is for")
        }
    };
    let entry = owner.entry("connect").with("target", target.to_string());
    owner.audit().note(entry.decided(Decision::Deny(&denial)));
    info!(owner = owner.name(), "egress {}", denial.for_person());
    Err(denial.for_model())
}
