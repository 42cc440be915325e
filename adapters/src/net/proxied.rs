//! HTTP from inside a sandbox: by its proxy, which is where connections are judged, or not at all.

use super::install_tls;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a connection may take to come about; what it judges and resolves takes part of it.
const CONNECT: Duration = Duration::from_secs(25);

/// A client that knows no other way than the proxy.
pub struct Proxied(reqwest::Client);

impl Proxied {
    /// By the proxy of this network namespace; `None` where there is none.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(port: u16) -> Result<Option<Self>, reqwest::Error> {
        // Outside a sandbox something else could be there, and the way out would be open anyway.
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let told = std::env::var("http_proxy").is_ok_and(|proxy| proxy == format!("http://{here}"));
        if !told || TcpStream::connect(here).is_err() {
            return Ok(None);
        }
        install_tls();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .proxy(reqwest::Proxy::all(format!("http://{here}"))?)
            .connect_timeout(CONNECT)
            .user_agent(concat!("pleach/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Some(Self(client)))
    }
    /// Gets a document, redirects not followed.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn get(&self, url: &url::Url) -> Result<reqwest::Response, String> {
        let request = self.0.get(url.clone());
        let request = request.header("accept", "text/html, text/plain, application/json, */*;q=0.1");
        let request = request.header("accept-encoding", "identity");
        request.send().await.map_err(|e| {
            let why = super::reasons(&e.without_url());
            // The proxy's words do not come through a tunnel that it did not open.
            match why.contains("tunnel") || why.contains("unsuccessful") {
                true => format!("the proxy does not let it through; its domains must allow that host ({why})"),
                false => why,
            }
        })
    }
}
