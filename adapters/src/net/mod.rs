//! The only dialler. Every connection that leaves, ours or a sandboxed process's, is opened
//! here, for a [`Permit`] and for nothing else: the name is resolved once, every answer is
//! judged, and an address that was judged is the one dialled.

mod deliver;
mod fetch;
mod http;
mod line;
mod proxied;

pub use deliver::{DELIVERY_LIMIT, deliver, screen};
pub(crate) use fetch::bounded;
pub use fetch::{fetch, origin};
pub use http::{client, install_tls};
pub use line::{Line, Unanswered};
pub use proxied::Proxied;

use policies::action::Connect;
use policies::domain::Host;
use policies::permit::Permit;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a name may take to resolve, and each address to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long all of its addresses may take: whoever answers for a name decides how many there are.
const DIAL_LIMIT: Duration = Duration::from_secs(30);

/// Why a connection was not opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name resolved to something that may not be dialled.
    #[error("denied: {0}")]
    Denied(String),
    /// The name does not resolve.
    #[error("{0} cannot be resolved: {1}")]
    Resolve(String, String),
    /// Nobody answers.
    #[error("{0} cannot be reached: {1}")]
    Unreachable(String, io::Error),
}

/// Opens the connection a permit allows.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(permit: Permit<Connect>) -> Result<TcpStream, DialError> {
    let target = permit.redeem();
    let addresses = judged(&target).await?;
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    let end = tokio::time::Instant::now() + DIAL_LIMIT;
    for address in addresses {
        let Some(left) = end.checked_duration_since(tokio::time::Instant::now()) else { break };
        match tokio::time::timeout(DIAL_TIMEOUT.min(left), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(e)) => last = e,
            Err(_) => {}
        }
    }
    Err(DialError::Unreachable(target.to_string(), last))
}

/// An error with all its causes.
pub(crate) fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Resolves once and judges every answer.
async fn judged(target: &Connect) -> Result<Vec<SocketAddr>, DialError> {
    let addresses: Vec<IpAddr> = match &target.host {
        Host::Address(address) => vec![*address],
        Host::Domain(name) => {
            let failed = |why: String| DialError::Resolve(name.to_string(), why);
            let lookup = tokio::net::lookup_host((name.as_ref(), target.port));
            match tokio::time::timeout(DIAL_TIMEOUT, lookup).await {
                Ok(Ok(found)) => found.map(|a| a.ip()).collect(),
                Ok(Err(e)) => return Err(failed(e.to_string())),
                Err(_) => return Err(failed("the resolver did not answer".into())),
            }
        }
    };
    target.judge(&addresses).map_err(DialError::Denied)
}
