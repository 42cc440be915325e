//! The web as an authorization flow sees it: every address in it was written by a server, so
//! each is judged before it is dialled, nothing is followed, and nothing is read without end.

use super::OAuthError;
use crate::net;
use http::{Request, Response};
use policies::action::Connect;
use policies::decide;
use policies::domain::Host;
use policies::permit::Permit;
use rmcp::transport::auth::{OAuthHttpClient, OAuthHttpClientFuture, OAuthHttpRequest};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// One answer may have this many bytes.
const MAX_BODY: usize = 1 << 20;
/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(20);

/// HTTP for the authorization of one server.
pub(super) struct Web {
    server: Url,
    host: Host,
    /// The host of the issuer the operator wrote.
    issuer: Option<Host>,
    clients: Mutex<HashMap<(Host, u16), reqwest::Client>>,
}

impl Web {
    /// For a registered server, and the issuer that the operator wrote beside it.
    pub(super) fn new(server: &Url, issuer: Option<&str>) -> Result<Self, OAuthError> {
        let host = Host::of(server).map_err(OAuthError::of)?;
        let issuer = issuer.and_then(|text| Url::parse(text).ok()).and_then(|url| Host::of(&url).ok());
        Ok(Self { server: server.clone(), host, issuer, clients: Mutex::default() })
    }

    /// Whether an address may be used at all; the permit to dial it.
    ///
    /// TLS is asked of everybody but the server itself, as it is registered, and of loopback
    /// where the server is there.
    pub(super) fn may(&self, url: &Url) -> Result<Permit<Connect>, OAuthError> {
        let (host, port) = net::origin(url).map_err(OAuthError::Failed)?;
        let near = self.host.is_loopback() && host.is_loopback();
        match url.scheme() {
            "https" => {}
            "http" if near || url.origin() == self.server.origin() => {}
            _ => return Err(OAuthError::Failed(format!("{} is not https", shown(url)))),
        }
        // A host that the operator wrote is authorised by that.
        if self.issuer.as_ref() == Some(&host) {
            return Ok(decide::registered(host, port));
        }
        decide::named_by(&self.host, host, port).map_err(|denial| OAuthError::Failed(denial.for_model()))
    }

    /// Whether an issuer is on the server's own host, or both are this machine.
    pub(super) fn is_own(&self, issuer: &str) -> bool {
        let host = Url::parse(issuer).ok().and_then(|url| Host::of(&url).ok());
        host.is_some_and(|host| host == self.host || (host.is_loopback() && self.host.is_loopback()))
    }

    fn client(&self, url: &Url) -> Result<reqwest::Client, OAuthError> {
        let permit = self.may(url)?;
        let key = (permit.what().host.clone(), permit.what().port);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = net::client(permit).map_err(OAuthError::of)?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    /// One request; redirects are answers like others.
    pub(super) async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, OAuthError> {
        let mut request = reqwest::Request::try_from(request).map_err(OAuthError::of)?;
        let url = request.url().clone();
        let failed = |why: String| OAuthError::Failed(format!("{}: {why}", shown(&url)));
        let client = self.client(&url)?;
        *request.timeout_mut() = Some(LIMIT);
        let response = client.execute(request).await.map_err(|e| failed(net::reasons(&e.without_url())))?;
        let mut built = Response::builder().status(response.status());
        if let Some(headers) = built.headers_mut() {
            headers.clone_from(response.headers());
        }
        // Discovery asks the server itself, which may answer with a stream that never ends.
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        let body = match kind.starts_with("text/event-stream") {
            true => Vec::new(),
            false => net::bounded(response, MAX_BODY).await.map_err(failed)?,
        };
        built.body(body).map_err(OAuthError::of)
    }

    /// Posts a form or a document.
    pub(super) async fn post(&self, url: &str, kind: &str, body: String) -> Result<Response<Vec<u8>>, OAuthError> {
        let request = Request::post(url).header("content-type", kind).header("accept", "application/json");
        self.send(request.body(body.into_bytes()).map_err(OAuthError::of)?).await
    }

    /// Asks an address and tells where it points, without going there.
    pub(super) async fn pointed(&self, url: &Url) -> Result<Url, OAuthError> {
        let request = Request::get(url.as_str()).body(Vec::new()).map_err(OAuthError::of)?;
        let response = self.send(request).await?;
        let location = response.headers().get("location").and_then(|v| v.to_str().ok());
        let location = location.filter(|_| response.status().is_redirection()).and_then(|l| url.join(l).ok());
        location.ok_or_else(|| {
            OAuthError::Failed(format!("{}: HTTP {}, which wants a person", shown(url), response.status()))
        })
    }
}

impl OAuthHttpClient for Web {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        // Whatever it says of redirects: none is followed.
        Box::pin(async move { self.send(request.request).await.map_err(Into::into) })
    }
}

/// An address without its query, which may hold a secret.
pub(super) fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(server: &str, issuer: Option<&str>, url: &str) -> bool {
        let web = Web::new(&Url::parse(server).unwrap(), issuer).unwrap();
        web.may(&Url::parse(url).unwrap()).is_ok()
    }

    #[test]
    fn what_a_server_names_is_public_and_encrypted() {
        let server = "https://mcp.example.com/mcp";
        assert!(may(server, None, "https://login.example.net/token"));
        for bad in [
            "http://login.example.net/token",
            "https://127.0.0.1/token",
            "https://localhost/token",
            "https://10.0.0.5/token",
            "https://169.254.169.254/latest",
            "https://[::1]/token",
            "https://[::ffff:10.0.0.5]/token",
            "ftp://login.example.net/token",
        ] {
            assert!(!may(server, None, bad), "{bad}");
        }
    }

    #[test]
    fn loopback_names_loopback_and_what_was_written_is_authorised() {
        for server in ["http://localhost:1/mcp", "http://127.0.0.1:1/mcp"] {
            assert!(may(server, None, "http://localhost:2/token"));
            assert!(may(server, None, "http://127.0.0.1:2/token"));
            assert!(may(server, None, "https://login.example.net/token"));
            assert!(!may(server, None, "http://login.example.net/token"));
            assert!(!may(server, None, "https://10.0.0.5/token"));
        }
        assert!(may("http://10.0.0.5/mcp", None, "http://10.0.0.5/.well-known/x"), "its own origin, as registered");
        assert!(!may("http://10.0.0.5/mcp", None, "https://10.0.0.6/token"));
        assert!(may("https://mcp.example.com/", Some("https://10.0.0.6/"), "https://10.0.0.6/token"));
    }
}
