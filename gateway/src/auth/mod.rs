//! Who a request comes from, and whether it may come from there at all: bearer tokens to
//! clients, those of the policy file ([`identify`]) and those of issuers ([`Doorman`]); and the
//! Host and Origin checks that keep web pages and rebound names out.

mod carried;
mod doorman;
mod hops;
mod issuers;

pub(crate) use carried::{Came, Carried, door_of};
pub(crate) use doorman::{Doorman, METADATA};
pub(crate) use hops::{Hop, Hops};

use crate::guard::LOCAL;
use crate::live::Live;
use http::{HeaderMap, StatusCode};
use policies::authority::Authority;
use policies::names::Name;
use policies::resolve::{ClientSpec, GatewaySpec, Limits, Policy, Proof};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use subagents::run::{Caller, Origin};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

/// The caller of a request: a client, or the anonymous one where no clients are named.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The policy that names it.
    pub(crate) policy: Arc<Policy>,
    client: Option<Name>,
    /// The grant it came with, if it came with one.
    pub(crate) carried: Option<Arc<Carried>>,
    ends: Ends,
}

/// When somebody is nobody any more, whatever the policy says.
#[derive(Debug, Clone, Default)]
struct Ends {
    /// The token is over, seconds since 1970. Not that of a grant that goes with one message: that
    /// one was shown in time.
    token: Option<u64>,
    /// What a token goes with, and the end of it.
    task: Option<(Arc<str>, CancellationToken)>,
}

impl Identity {
    /// Of a client of this policy, or of the anonymous one.
    pub(crate) fn new(policy: &Arc<Policy>, client: Option<&ClientSpec>) -> Self {
        Self { policy: policy.clone(), client: client.map(|c| c.name.clone()), carried: None, ends: Ends::default() }
    }
    /// The same with the grant it came with.
    pub(crate) fn with(self, carried: Carried) -> Self {
        Self { carried: Some(Arc::new(carried)), ..self }
    }
    /// The same without the grant it came with.
    pub(crate) fn bare(&self) -> Self {
        Self { carried: None, ..self.clone() }
    }
    /// The same until its token is over, seconds since 1970.
    pub(crate) fn until(mut self, token: Option<u64>) -> Self {
        self.ends.token = token;
        self
    }
    /// The same as long as that goes on which its token goes with.
    pub(crate) fn during(mut self, task: Option<(&str, CancellationToken)>) -> Self {
        self.ends.task = task.map(|(name, end)| (name.into(), end));
        self
    }
    /// What its token goes with, if it is good for that only.
    pub(crate) fn goes_with(&self) -> Option<&str> {
        self.ends.task.as_ref().map(|(name, _)| &**name)
    }
    /// The client's table.
    pub(crate) fn client(&self) -> Option<&ClientSpec> {
        self.policy.clients.as_ref()?.get(self.client.as_ref()?)
    }
    /// The principal's name.
    pub(crate) fn principal(&self) -> &str {
        self.client.as_ref().map_or(LOCAL, Name::as_str)
    }
    /// The same one under another policy; `None` where it is gone, or known by another token.
    pub(crate) fn again(&self, policy: &Arc<Policy>) -> Option<Identity> {
        let client = match (&self.client, &policy.clients) {
            (None, None) => None,
            (Some(name), Some(clients)) => Some(clients.get(name)?),
            _ => return None,
        };
        // Another gateway may change its key: what came under one that is still known goes on.
        let key = self.carried.as_ref().map(|carried| &carried.by);
        let known = |client: &ClientSpec| client.proof.grants().zip(key).is_some_and(|(keys, key)| keys.contains(key));
        let same = client.is_some_and(known) || client.map(|c| &c.proof) == self.client().map(|c| &c.proof);
        let (carried, ends) = (self.carried.clone(), self.ends.clone());
        same.then(|| Identity { carried, ends, ..Identity::new(policy, client) })
    }
    /// Waits until its token is over, or it is nobody any more: whatever it listens to ends then.
    pub(crate) async fn over(&self, live: &Live) {
        tokio::select! {
            () = self.gone(live) => {}
            () = self.expired() => {}
        }
    }
    /// Waits until its token is over.
    pub(crate) async fn expired(&self) {
        let Some(until) = self.ends.token else { return std::future::pending().await };
        // A token is good to the end of its last second.
        let left = |end: Duration| end.saturating_sub(UNIX_EPOCH.elapsed().unwrap_or_default());
        tokio::time::sleep(left(Duration::from_secs(until.saturating_add(1)))).await;
    }
    /// Waits until that is over which its token goes with.
    pub(crate) async fn done(&self) {
        match &self.ends.task {
            Some((_, end)) => end.cancelled().await,
            None => std::future::pending().await,
        }
    }
    /// Waits until it is nobody any more.
    pub(crate) async fn gone(&self, live: &Live) {
        tokio::select! {
            () = self.unknown(live) => {}
            () = self.done() => {}
        }
    }
    async fn unknown(&self, live: &Live) {
        let mut changes = live.changes();
        loop {
            let policy = changes.borrow_and_update().policy.clone();
            if self.again(&policy).is_none() {
                return;
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
    /// A door's word for where it stands.
    pub(crate) fn place(&self, door: &str) -> String {
        self.carried.as_ref().map_or_else(|| door.to_owned(), |carried| carried.at(door))
    }
    /// What it holds, and may use.
    pub(crate) fn holds(&self) -> (Authority, Limits) {
        let client = self.client();
        let held = (self.policy.door(client), client.map_or(Limits::NONE, |c| c.limits));
        let Some(carried) = &self.carried else { return held };
        carried.narrows(&self.who(), held)
    }
    /// Whether it may answer for people. Whoever comes with a grant is a part of somebody else, and
    /// no child approves.
    pub(crate) fn can_approve(&self) -> bool {
        self.carried.is_none() && self.client().is_none_or(|client| client.can_approve)
    }
    fn who(&self) -> String {
        self.client.as_ref().map_or_else(|| "anonymous local client".to_owned(), |c| format!("client {c}"))
    }
    /// The caller it is at a door that allows what the main one does.
    pub(crate) fn caller(&self, door: &str) -> Caller {
        let (authority, rest) = self.holds();
        let caller = Caller { rest, ..Caller::new(self.principal(), &self.who(), authority) };
        caller.from(Origin::new(&self.policy, &self.place(door), &[]))
    }
}

/// Names the caller by a token of the policy file.
///
/// # Errors
/// For whoever is unknown, where clients are named.
pub(crate) fn identify(policy: &Arc<Policy>, token: Option<&str>) -> Result<Identity, &'static str> {
    let Some(clients) = &policy.clients else { return Ok(Identity::new(policy, None)) };
    let Some(token) = token else { return Err("a bearer token is needed: Authorization: Bearer …") };
    // Every token is compared, in constant time each, so that timing tells nothing.
    let digest = policies::json::digest(token);
    let mut found = None;
    for client in clients.values() {
        let same = match &client.proof {
            Proof::Token(known) => known.expose().as_bytes().ct_eq(token.as_bytes()),
            Proof::Digest(known) => known.as_bytes().ct_eq(digest.as_bytes()),
            Proof::OAuth(_) | Proof::Grants(_) => continue,
        };
        if bool::from(same) {
            found = Some(client);
        }
    }
    found.map(|client| Identity::new(policy, Some(client))).ok_or("the token names no client")
}

/// The bearer token of a request (RFC 6750 section 2.1; never from the query).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("authorization").iter();
    // Of two, none is believed.
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let value = value.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Refuses a foreign Host (DNS rebinding) and a foreign Origin (a web page), on every route.
///
/// # Errors
/// 403 with the setting that would allow it.
pub(crate) fn check_source(headers: &HeaderMap, gateway: &GatewaySpec) -> Result<(), (StatusCode, String)> {
    let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    let host = text("host").unwrap_or("");
    if !is_local(host_only(host)) && !matches_any(host, &gateway.allowed_hosts) {
        return Err((
            StatusCode::FORBIDDEN,
            format!("Host {host:?} is not served here; add it to [gateway] allowed_hosts"),
        ));
    }
    match text("origin") {
        None => Ok(()),
        Some(origin) => {
            let local =
                url::Url::parse(origin).ok().and_then(|u| u.host_str().map(|h| is_local(h.trim_matches(['[', ']']))));
            if local == Some(true) || matches_any(origin, &gateway.allowed_origins) {
                return Ok(());
            }
            Err((StatusCode::FORBIDDEN, format!("Origin {origin:?} may not call; add it to [gateway] allowed_origins")))
        }
    }
}

fn matches_any(value: &str, allowed: &[String]) -> bool {
    allowed.iter().any(|a| a.eq_ignore_ascii_case(value) || a.eq_ignore_ascii_case(host_only(value)))
}

fn host_only(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host })
}

fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_origins() {
        let gateway = GatewaySpec {
            listen: "127.0.0.1:0".parse().unwrap(),
            public_url: None,
            allowed_hosts: vec!["pleach.internal".into()],
            allowed_origins: vec!["https://app.example.com".into()],
            default_agent: None,
            framework_tools: false,
        };
        let check = |host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert("host", host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert("origin", origin.parse().unwrap());
            }
            check_source(&headers, &gateway).is_ok()
        };
        for host in [
            "localhost",
            "localhost:7420",
            "127.0.0.1:7420",
            "[::1]:7420",
            "LOCALHOST",
            "pleach.internal:1",
            "127.0.0.2",
        ] {
            assert!(check(host, None), "{host}");
        }
        for host in ["evil.com", "localhost.evil.com", "127.0.0.1.nip.io", "", "localhost:80:80", "evil.com:7420"] {
            assert!(!check(host, None), "{host}");
        }
        for origin in ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:80", "https://app.example.com"] {
            assert!(check("localhost", Some(origin)), "{origin}");
        }
        for origin in
            ["null", "http://evil.com", "http://localhost.evil.com", "https://app.example.com.evil.com", "file://"]
        {
            assert!(!check("localhost", Some(origin)), "{origin}");
        }
    }
}
