//! Pleach's own HTTP: one client for one permitted origin. Redirects are off, proxies of the
//! environment are ignored, and the client's resolver is the judging one.

use super::judged;
use policies::action::Connect;
use policies::domain::Host;
use policies::permit::Permit;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::sync::{Arc, Once};
use std::time::Duration;

/// Resolves the permitted host and no other.
struct Judging(Arc<Connect>);

impl Resolve for Judging {
    fn resolve(&self, name: Name) -> Resolving {
        let target = self.0.clone();
        Box::pin(async move {
            if Host::parse(name.as_str()).ok().as_ref() != Some(&target.host) {
                return Err(format!("denied: this client may reach {} only", target.host).into());
            }
            let addresses = judged(&target).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// The client for one origin. A host that is a literal address was judged with the permit.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client(permit: Permit<Connect>) -> Result<reqwest::Client, reqwest::Error> {
    install_tls();
    let target = Arc::new(permit.redeem());
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(Duration::from_secs(10))
        .pool_idle_timeout(Duration::from_secs(60))
        .tcp_nodelay(true)
        .dns_resolver(Arc::new(Judging(target)))
        .build()
}

/// Chooses the one TLS implementation of the process.
pub fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that another is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
