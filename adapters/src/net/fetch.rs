//! One document from one address: bounded in size and time, no redirect followed.

use super::client;
use futures_util::StreamExt;
use policies::action::Connect;
use policies::domain::Host;
use policies::permit::Permit;
use std::time::Duration;

/// A document may have this many bytes.
const MAX_DOCUMENT: usize = 1 << 20;
/// How long it may take.
const LIMIT: Duration = Duration::from_secs(15);

/// The host and port of an address, as permits are asked for.
///
/// # Errors
/// When it has none that could be dialled.
pub fn origin(url: &url::Url) -> Result<(Host, u16), String> {
    let host = Host::of(url).map_err(|e| e.to_string())?;
    let port = url.port_or_known_default().ok_or_else(|| format!("{} has no port", url.scheme()))?;
    Ok((host, port))
}

/// Gets a document.
///
/// # Errors
/// Why there is none; the address is named by its origin and path only.
pub async fn fetch(url: &url::Url, permit: Permit<Connect>) -> Result<Vec<u8>, String> {
    let shown = format!("{}{}", url.origin().ascii_serialization(), url.path());
    let (host, port) = origin(url)?;
    // A literal address never meets the resolver, which would hold the client to its permit.
    if permit.what().host != host || permit.what().port != port {
        return Err(format!("{shown} is not what {} was permitted for", permit.what()));
    }
    let client = client(permit).map_err(|e| e.to_string())?;
    let failed = |e: reqwest::Error| format!("{shown}: {}", super::reasons(&e.without_url()));
    let request = client.get(url.clone()).timeout(LIMIT).header("accept", "application/json");
    let response = request.send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(format!("{shown}: HTTP {}", response.status()));
    }
    bounded(response, MAX_DOCUMENT).await.map_err(|why| format!("{shown}: {why}"))
}

/// The body of a response, up to a size.
pub(crate) async fn bounded(response: reqwest::Response, limit: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let mut bytes = response.bytes_stream();
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(|e| super::reasons(&e.without_url()))?;
        body.extend_from_slice(&chunk);
        if body.len() > limit {
            return Err(format!("it is larger than {limit} bytes"));
        }
    }
    Ok(body)
}
