//! A message to an address a client gave: judged when it is registered and again, with every
//! address its name has by then, when the message goes out. No redirect is followed.

use super::{DialError, client, judged, origin};
use policies::action::Connect;
use policies::permit::Permit;
use std::time::Duration;

/// How long one try may take.
pub const DELIVERY_LIMIT: Duration = Duration::from_secs(15);

/// Whether the addresses of a host may be dialled, as far as that can be known now: a name that
/// does not resolve yet is judged when it does.
///
/// # Errors
/// Which address may not.
pub async fn screen(permit: Permit<Connect>) -> Result<(), String> {
    match judged(&permit.redeem()).await {
        Err(DialError::Denied(why)) => Err(why),
        _ => Ok(()),
    }
}

/// Posts a message; gives the status.
///
/// # Errors
/// Why it did not arrive; the address is named by its origin only, for its path may be a secret.
pub async fn deliver(
    url: &url::Url,
    permit: Permit<Connect>,
    headers: &[(&'static str, String)],
    body: String,
) -> Result<u16, String> {
    let shown = url.origin().ascii_serialization();
    let (host, port) = origin(url)?;
    // A literal address never meets the resolver, which would hold the client to its permit.
    if permit.what().host != host || permit.what().port != port {
        return Err(format!("{shown} is not what {} was permitted for", permit.what()));
    }
    let client = client(permit).map_err(|e| e.to_string())?;
    let mut request = client.post(url.clone()).timeout(DELIVERY_LIMIT).body(body);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    // What the receiver says besides the status is nobody's business, and not read.
    let response = request.send().await.map_err(|e| format!("{shown}: {}", super::reasons(&e.without_url())))?;
    Ok(response.status().as_u16())
}
