//! Who calls: a principal with the authority it holds here.

use policies::authority::Authority;
use std::fmt::Write;
use std::sync::Arc;

/// A caller of tools. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The client, not its session; a run acts for the client that owns its root.
    pub(crate) principal: Arc<str>,
    /// For people: `client ci`, `run r-7 (researcher)`.
    pub(crate) who: Arc<str>,
    /// What it may do.
    pub(crate) authority: Authority,
    /// Identifies the sandbox its grant compiles to: equal texts, equal sandboxes.
    pub(crate) sandbox: Arc<str>,
}

impl Caller {
    pub(crate) fn new(principal: &str, who: &str, authority: Authority) -> Self {
        let grant = authority.grant();
        let mut sandbox = String::new();
        // Writing to a String cannot fail. Only what the sandbox and its way out depend on.
        let _ = write!(
            sandbox,
            "{:?} {:?} {:?} {:?} {:?}",
            grant.filesystem, grant.domains, grant.networks, grant.sandbox, grant.max_access
        );
        Self { principal: principal.into(), who: who.into(), authority, sandbox: sandbox.into() }
    }
}
