//! Whose tasks and conversations over there are whose here. All clients share what the operator
//! gave to be shown to a peer, so the peer cannot tell them apart: whoever goes on with a task or
//! a conversation must have been given it, by the same skill. It is kept in the store, so a restart
//! changes nothing; where there is no store, nothing is gone on with.

use super::tale::Tale;
use crate::mcp::McpError;
use crate::store::{Between, PeerCall, PeerDoor, PeerNews, PeerTask, Store, clock};
use policies::json::digest;
use std::time::Duration;

/// So long a question waits for whoever was asked, which is how long a `requestState` is good for;
/// then its task is cancelled.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A question that was put to somebody.
pub(super) struct Put {
    /// What it is known by: a peer may ask the same twice.
    pub(super) name: String,
    /// Until when it is waited for, milliseconds since 1970 UTC.
    pub(super) until: u64,
}

/// What one principal was given by one peer.
#[derive(Clone)]
pub(super) struct Mine {
    of: Between,
    store: Option<Store>,
}

impl Mine {
    pub(super) fn new(principal: &str, peer: &str, store: Option<Store>) -> Self {
        let of = Between { principal: principal.to_owned(), peer: peer.to_owned(), door: PeerDoor::Tool };
        Self { of, store }
    }

    /// It is told of the task and the conversation. With `asked` somebody is asked its question,
    /// which is given, and will come back.
    ///
    /// # Errors
    /// When that cannot be kept.
    pub(super) async fn note(&self, skill: &str, tale: &Tale, asked: bool) -> Result<Option<Put>, McpError> {
        let put = (asked && tale.message.is_none() && tale.state.is_paused())
            .then(|| Put { name: new_id(), until: clock().saturating_add(patience()) });
        self.keep(skill, tale, put.as_ref()).await?;
        Ok(put)
    }
    async fn keep(&self, skill: &str, tale: &Tale, put: Option<&Put>) -> Result<(), McpError> {
        let Some(store) = &self.store else { return Ok(()) };
        let asked = put.map(|put| (put.name.clone(), put.until));
        let state = format!("TASK_STATE_{}", tale.state.word().replace('-', "_").to_ascii_uppercase());
        let (task, context) = (tale.task.clone(), tale.context.clone());
        let call = PeerCall { skill: skill.to_owned(), task, context, state, asked };
        store.peer_called(&self.of, call).await.map_err(unkept)
    }

    /// A task of its own, as it was heard of last.
    ///
    /// # Errors
    /// When that cannot be looked up.
    pub(super) async fn task(&self, id: &str) -> Result<Option<PeerTask>, McpError> {
        let Some(store) = &self.store else { return Ok(None) };
        store.peer_task_of(&self.of, id).await.map_err(|e| McpError::Gone(format!("; what is yours: {e}")))
    }
    /// A question of a task that was handed over is put, under a name of its own.
    ///
    /// # Errors
    /// When that cannot be kept.
    pub(super) async fn put(&self, skill: &str, tale: &Tale, name: &str) -> Result<Option<Put>, McpError> {
        let put = Put { name: name.to_owned(), until: clock().saturating_add(patience()) };
        self.keep(skill, tale, Some(&put)).await?;
        Ok(Some(put))
    }
    /// This question of a task was answered last.
    ///
    /// # Errors
    /// When that cannot be kept.
    pub(super) async fn was_answered(&self, task: &PeerTask, question: &str) -> Result<(), McpError> {
        let Some(store) = &self.store else { return Ok(()) };
        let news = PeerNews { id: task.id.clone(), status: Some(question.to_owned()), ..PeerNews::default() };
        store.peer_heard(&self.of, news, None).await.map_err(unkept)
    }

    /// Whether it may go on with these.
    ///
    /// # Errors
    /// Why not, for whoever called.
    pub(super) async fn may_go_on(&self, skill: &str, task: Option<&str>, context: Option<&str>) -> Result<(), String> {
        let broken = |e: crate::store::StoreError| {
            tracing::error!("{e}");
            "what is yours cannot be looked up; if it stays so, ask the operator".to_owned()
        };
        if let Some(id) = context {
            let known = match &self.store {
                Some(store) => store.peer_context(&self.of, id).await.map_err(broken)?,
                None => None,
            };
            if known.is_none_or(|known| known.skill != skill) {
                return Err(format!("there is no conversation {id:?} of yours here; leave context out to begin one"));
            }
        }
        let Some(id) = task else { return Ok(()) };
        let known = match &self.store {
            Some(store) => store.peer_task_of(&self.of, id).await.map_err(broken)?,
            None => None,
        };
        match known.filter(|known| known.skill == skill) {
            None => Err(format!("there is no task {id:?} of yours here; leave task out to begin one")),
            Some(known) if known.state == "TASK_STATE_AUTH_REQUIRED" => {
                Err(format!("task {id:?} waits for a permission, which a person gives and no agent"))
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether a question of a task is answered for the first time; from now on it is answered.
    /// `None` is whichever is open.
    ///
    /// # Errors
    /// When that cannot be kept.
    pub(super) async fn answers(&self, task: &str, question: Option<&str>) -> Result<bool, McpError> {
        match &self.store {
            Some(store) => store.peer_answered(&self.of, task, question).await.map_err(unkept),
            None => Ok(true),
        }
    }
    /// The answer did not leave.
    pub(super) async fn unanswered(&self, task: &str, question: &str) {
        if let Some(store) = &self.store
            && let Err(e) = store.peer_unanswered(&self.of, task, question).await
        {
            tracing::warn!("{e}");
        }
    }
    /// Whether what is given out is kept, so that it can be asked for again.
    pub(super) fn is_kept(&self) -> bool {
        self.store.is_some()
    }
    /// Whether nobody came back in time; said once.
    pub(super) async fn is_over(&self, task: &str) -> bool {
        match &self.store {
            Some(store) => store.peer_expired(&self.of, task, clock()).await.unwrap_or(false),
            None => false,
        }
    }
    /// The questions somebody was asked, and until when.
    pub(super) async fn waiting(&self) -> Vec<(String, u64)> {
        match &self.store {
            Some(store) => store.peer_expiring(&self.of).await.unwrap_or_default(),
            None => Vec::new(),
        }
    }
    /// The peer's name for a message of this client: what two clients call the same is not the same.
    pub(super) fn named(&self, key: &str) -> String {
        scoped(&self.of.principal, &self.of.peer, key)
    }
}

fn patience() -> u64 {
    u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX)
}

fn unkept(e: subagents::ports::JournalError) -> McpError {
    McpError::Gone(format!("; what it gave cannot be kept: {e}"))
}

/// Between a name of a client and whose it is.
const MARK: &str = ".pleach-";

/// A name for a message that is only this client's and for this peer.
pub fn scoped(principal: &str, peer: &str, key: &str) -> String {
    format!("{key}{}", ending(principal, peer))
}
/// The client's own name of a message again.
pub fn unscoped<'k>(principal: &str, peer: &str, name: &'k str) -> &'k str {
    name.strip_suffix(&ending(principal, peer)).unwrap_or(name)
}
fn ending(principal: &str, peer: &str) -> String {
    format!("{MARK}{}", &digest(&format!("{principal}\0{peer}"))[..16])
}

/// A name for a message nobody named.
pub(super) fn new_id() -> String {
    let mut bytes = [0; 16];
    // Without it two messages may look like one; then the peer answers the first again.
    if getrandom::fill(&mut bytes).is_err() {
        tracing::warn!("the system gives no random bytes");
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("pleach-{hex}")
}

#[cfg(test)]
mod tests {
    use super::super::tale::State;
    use super::*;

    #[tokio::test]
    async fn what_one_was_given_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pleach.db");
        let store = Store::open(&path).await.unwrap();
        let mine = |store: &Store, who: &str, peer: &str| Mine::new(who, peer, Some(store.clone()));
        let tale = |state| Tale { task: Some("t".into()), context: Some("c".into()), state, ..Tale::default() };
        mine(&store, "alice", "p").note("act", &tale(State::InputRequired), false).await.unwrap();
        // Another process finds it as this one left it.
        store.close().await;
        let store = Store::open(&path).await.unwrap();
        let alice = mine(&store, "alice", "p");
        assert_eq!(alice.may_go_on("act", Some("t"), Some("c")).await, Ok(()));
        for (other, skill) in
            [(mine(&store, "bob", "p"), "act"), (mine(&store, "alice", "q"), "act"), (alice.clone(), "book")]
        {
            assert!(other.may_go_on(skill, Some("t"), None).await.unwrap_err().contains("no task"), "{skill}");
            assert!(other.may_go_on(skill, None, Some("c")).await.unwrap_err().contains("no conversation"), "{skill}");
            assert_eq!(other.may_go_on(skill, None, None).await, Ok(()));
        }
        alice.note("act", &tale(State::AuthRequired), true).await.unwrap();
        assert!(alice.may_go_on("act", Some("t"), None).await.unwrap_err().contains("no agent"));
        // An answer is given once, unless it did not leave.
        let question = alice.note("act", &tale(State::InputRequired), true).await.unwrap().unwrap().name;
        assert_eq!(alice.waiting().await.len(), 1);
        assert!(!mine(&store, "bob", "p").answers("t", Some(&question)).await.unwrap());
        assert!(alice.answers("t", Some(&question)).await.unwrap());
        assert!(!alice.answers("t", Some(&question)).await.unwrap());
        assert_eq!(alice.waiting().await.len(), 0, "who answered is not waited for");
        alice.unanswered("t", &question).await;
        assert!(alice.answers("t", Some(&question)).await.unwrap());
        // The same words asked again are another question.
        let again = alice.note("act", &tale(State::InputRequired), true).await.unwrap().unwrap().name;
        assert!(!alice.answers("t", Some(&question)).await.unwrap());
        assert!(!alice.is_over("t").await, "its time is not over");
        assert!(alice.answers("t", Some(&again)).await.unwrap());
        // Nobody came back: that is said once, to this process or the next.
        let of = Between { principal: "alice".into(), peer: "p".into(), door: PeerDoor::Tool };
        let (state, asked) = ("TASK_STATE_INPUT_REQUIRED".to_owned(), Some(("q".to_owned(), 1)));
        let call = PeerCall { skill: "act".into(), task: Some("t".into()), context: None, state, asked };
        store.peer_called(&of, call).await.unwrap();
        assert_eq!(alice.waiting().await, [("t".to_owned(), 1)]);
        assert!(alice.is_over("t").await);
        assert!(!alice.is_over("t").await);
    }

    #[test]
    fn a_name_is_one_clients_own() {
        let name = scoped("alice", "p", "m-1");
        assert!(name.starts_with("m-1"));
        assert_ne!(name, scoped("bob", "p", "m-1"));
        assert_ne!(name, scoped("alice", "q", "m-1"));
        assert_eq!((unscoped("alice", "p", &name), unscoped("bob", "p", &name)), ("m-1", name.as_str()));
    }
}
