//! What servers say unasked, for whoever of the doors has a listener: log lines and changes of
//! watched resources. A listener hears only what instances of its own principal *and* sandbox
//! say: what a process under a wider grant logs is not for a narrower view.

use adapters::mcp::{Connection, McpError};
use policies::json::{Json, Object};
use policies::names::Name;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use subagents::run::Caller;
use tokio::sync::broadcast;

/// Things said before a slow listener misses some.
const QUEUE: usize = 1024;

/// How long a request waits for servers to take its log level.
const LEVEL_PATIENCE: std::time::Duration = std::time::Duration::from_millis(300);

/// Something a server said.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) server: Name,
    who: Who,
    pub(crate) what: What,
}

/// What it said.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// `notifications/message`
    Log(Object),
    /// `notifications/resources/updated`; the server's own address, with what else it said.
    Updated(Object),
    /// `notifications/tasks`; the task as the server says it.
    Task(Object),
    /// Something Pleach has no part in.
    Other(String, Object),
}

impl Said {
    /// Whether it is for this caller. An HTTP server is called by all of a client over one connection:
    /// what it logs may be of calls that whoever holds a part of the client may not make.
    pub(crate) fn is_for(&self, caller: &Caller) -> bool {
        let place = caller.origin.as_ref().map_or("", |origin| &*origin.place);
        self.reaches((&caller.principal, &caller.sandbox, place))
    }
    fn reaches(&self, (principal, sandbox, place): (&str, &str, &str)) -> bool {
        let of_all = self.who.1.is_empty() && matches!(self.what, What::Log(_) | What::Other(..));
        let hears = *self.who.0 == *principal && (self.who.1.is_empty() || *self.who.1 == *sandbox);
        hears && !(of_all && place.contains(' '))
    }
}

/// Severities of log messages (RFC 5424), least severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Level(u8);

const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

impl Level {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        LEVELS.iter().position(|l| *l == word).map(|at| Self(at as u8))
    }
    pub(crate) fn as_str(self) -> &'static str {
        LEVELS[usize::from(self.0)]
    }
    /// Whether a log message is at least this severe; one without a level is.
    pub(crate) fn admits(self, message: &Object) -> bool {
        let level = message.get("level").and_then(Json::as_str).and_then(Level::parse);
        level.is_none_or(|l| l >= self)
    }
}

/// A principal and a sandbox; an HTTP server is no process of ours, so its sandbox is empty.
pub(super) type Who = (Arc<str>, Arc<str>);

pub(super) struct Board {
    out: broadcast::Sender<Arc<Said>>,
    /// The least severe level somebody wanted, by principal and sandbox.
    levels: Mutex<HashMap<Who, Level>>,
}

impl Default for Board {
    fn default() -> Self {
        Self { out: broadcast::channel(QUEUE).0, levels: Mutex::default() }
    }
}

impl Board {
    pub(super) fn say(&self, server: &Name, who: &Who, what: What) {
        // Nobody listening is no failure.
        let _ = self.out.send(Arc::new(Said { server: server.clone(), who: who.clone(), what }));
    }
    pub(super) fn updated(&self, server: &Name, who: &Who, uri: &str) {
        let mut params = Object::new();
        params.set("uri", uri);
        self.say(server, who, What::Updated(params));
    }
    pub(super) fn level(&self, caller: &Caller) -> Option<Level> {
        lock(&self.levels).get(&(caller.principal.clone(), caller.sandbox.clone())).copied()
    }
}

pub(super) async fn set_level(connection: &Connection, level: Level) -> Result<Json, McpError> {
    let mut params = Object::new();
    params.set("level", level.as_str());
    let limits =
        adapters::mcp::Exchange { limit: std::time::Duration::from_secs(10), ..adapters::mcp::Exchange::default() };
    connection.request("logging/setLevel", params, &[], limits).await.map(|reply| reply.result)
}

impl super::Servers {
    /// Everything said from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<Said>> {
        self.said.out.subscribe()
    }
    /// Has legacy servers log from `level` up for this caller; never less than somebody else
    /// under the same grant wanted. Each listener filters for itself.
    pub(crate) async fn want_level(&self, caller: &Caller, level: Level) {
        let key = (caller.principal.clone(), caller.sandbox.clone());
        {
            let mut levels = lock(&self.said.levels);
            match levels.get(&key) {
                Some(known) if *known <= level => return,
                _ => drop(levels.insert(key, level)),
            }
        }
        let entries = self.entries();
        let told = entries.values().flat_map(|e| e.live_for(caller)).map(|attachment| {
            self.tasks.spawn(async move {
                let connection = attachment.connection();
                if connection.era() == adapters::mcp::Era::Legacy && connection.can("logging") {
                    let _ = set_level(connection, level).await;
                }
            })
        });
        // One that does not answer holds up nobody.
        let told: Vec<_> = told.collect();
        let _ = tokio::time::timeout(LEVEL_PATIENCE, futures_util::future::join_all(told)).await;
    }
}

impl super::Servers {
    /// A legacy client's roots are others than before: those legacy servers hear of it that it
    /// called and that were told of roots.
    pub(crate) fn roots_changed(&self, caller: &Caller, client: u64) {
        let entries = self.entries();
        let own = entries.values().flat_map(|e| e.live_of(&caller.principal));
        for attachment in own.filter(|a| a.connection().is_told_of_roots(client)) {
            // A storm of changes is one change, and one more where it goes on meanwhile.
            if attachment.connection().roots_changed() {
                self.tasks.spawn(async move { while attachment.connection().tell_of_roots().await {} });
            }
        }
    }
}

impl super::Entry {
    /// Of a principal, whatever the sandbox: an HTTP server has none.
    fn live_of(&self, principal: &str) -> Vec<Arc<adapters::mcp::Attachment>> {
        let slots = lock(&self.slots);
        slots.values().filter(|s| *s.caller.principal == *principal).filter_map(|s| s.live()).collect()
    }
    fn live_for(&self, caller: &Caller) -> Vec<Arc<adapters::mcp::Attachment>> {
        let slots = lock(&self.slots);
        let own =
            slots.values().filter(|s| *s.caller.principal == *caller.principal && *s.caller.sandbox == *caller.sandbox);
        own.filter_map(|s| s.live()).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_of_a_client_may_hear_is_not_for_a_part_of_it() {
        let said = |sandbox: &str, what: What| Said {
            server: Name::try_from("s").unwrap(),
            who: ("ci".into(), sandbox.into()),
            what,
        };
        let (whole, part) = (("ci", "box", "mcp"), ("ci", "box", "mcp {\"by\":\"k\"}"));
        let log = || What::Log(Object::new());
        assert!(said("", log()).reaches(whole) && !said("", log()).reaches(part));
        assert!(!said("", What::Other("x".into(), Object::new())).reaches(part));
        // What it watches itself, and what its own process says.
        assert!(said("", What::Updated(Object::new())).reaches(part));
        assert!(said("box", log()).reaches(part));
        assert!(!said("another", log()).reaches(whole) && !said("", log()).reaches(("cd", "box", "mcp")));
    }
}
