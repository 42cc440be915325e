//! What is passed on to a peer as it is: a message under the rules of the skill it is for, as a call
//! of that skill is; what is asked of its task under the same rules, once more each time.

use super::{Guard, Refused};
use crate::servers::{Abilities, Enough};
use adapters::a2a::{How, Passage, Passed};
use adapters::mcp::{Attachment, Exchange, Kind, McpError, Reply};
use policies::action::Call;
use policies::decide;
use policies::json::{Json, Object};
use policies::manifest::{PASSED, Tool};
use policies::names::Name;
use policies::permit::{Denial, Permit};
use std::sync::Arc;
use std::time::Duration;
use subagents::run::Caller;

/// How long a peer may take to say what it makes of a message, unless its `timeout` says less.
const CALL_LIMIT: Duration = Duration::from_secs(24 * 3600);

impl Guard {
    /// The skills of a peer a caller may see, as tools.
    pub(crate) async fn skills(&self, caller: &Caller, peer: &Name) -> Vec<Arc<Tool>> {
        Box::pin(self.servers.ensure_listed_for(&format!("{peer}__"), caller, Enough::Attempt)).await;
        let mut tools = self.visible(caller);
        tools.retain(|tool| tool.server == *peer);
        tools
    }
    /// All skills of a peer, seen or not.
    pub(crate) fn all_skills(&self, caller: &Caller, peer: &Name) -> Vec<Arc<Tool>> {
        let Ok(caller) = self.servers.live.current(caller) else { return Vec::new() };
        let map = self.servers.manifests.map(&caller);
        map.tools.values().filter(|tool| tool.server == *peer).cloned().collect()
    }
    /// Whether a peer has skills that nobody may use just now: held back until they are approved.
    pub(crate) fn holds_skills(&self, caller: &Caller, peer: &Name) -> bool {
        let Ok(caller) = self.servers.live.current(caller) else { return true };
        let map = self.servers.manifests.map(&caller);
        map.held.values().any(|held| held.tool.server == *peer)
    }

    /// The card of a peer, as it wrote it.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(crate) async fn card(&self, caller: &Caller, peer: &Name) -> Result<Arc<Json>, McpError> {
        let attachment = self.servers.instance(peer, caller, Abilities::default()).await;
        attachment.map_err(McpError::Unreachable)?.card().await
    }

    /// Passes the message on that a permit owns.
    ///
    /// # Errors
    /// See [`McpError`].
    pub(crate) async fn say(&self, caller: &Caller, permit: Permit<Call>, how: How) -> Result<Passage, McpError> {
        let (tool, touches) = (permit.what().tool.clone(), permit.what().touches.clone());
        let asked = permit.asked();
        let given = super::hop::given(caller, self.servers.spec(&tool.server).as_deref());
        let still = |now: &Caller| {
            let _held = self.servers.live.hold();
            if self.servers.spec(&tool.server).is_none() {
                return Err(Denial::plain(format!("there is no peer {} any more", tool.server), "use another"));
            }
            super::hop::still(given.as_ref(), now)?;
            let known = self.servers.manifests.tool(&tool.server, &tool.upstream, now);
            decide::still(&now.authority, known.as_ref().unwrap_or(&tool), &touches, asked)
        };
        let leaving = self.leaving(&permit);
        let mut passage = None;
        let send = async |attachment: Arc<Attachment>, exchange| {
            let said = attachment.say(permit, how, exchange).await;
            said.map(|said| {
                passage = Some(said);
                nothing()
            })
        };
        // As long as a call may take: a peer that does not stream answers when it is done.
        let exchange = Exchange { limit: CALL_LIMIT, ..Exchange::default() };
        self.relay(caller, &tool.server, exchange, leaving, still, send).await?;
        passage.ok_or(McpError::Cancelled)
    }

    /// Asks about a task of a peer that a message for these tools became. The message was judged
    /// when it was passed on; the tools must still be allowed.
    ///
    /// # Errors
    /// See [`Refused`].
    pub(crate) async fn pass(
        &self,
        caller: &Caller,
        method: &'static str,
        (peer, tools): (&Name, &[String]),
        params: Object,
    ) -> Result<Passed, Refused> {
        let mut permit = None;
        for tool in tools {
            permit = Some(self.task_permit(caller, method, (peer.clone(), tool.clone(), params.clone()))?);
        }
        let permit = permit.ok_or(Refused::Unknown)?;
        let leaving = Self::fetching(&permit);
        let mut passed = None;
        let send = async |attachment: Arc<Attachment>, exchange| {
            let answer = attachment.pass(permit, exchange).await;
            answer.map(|answer| {
                passed = Some(answer);
                nothing()
            })
        };
        let still = |now: &Caller| {
            if self.servers.spec(peer).is_none() {
                return Err(Denial::plain(format!("there is no peer {peer} any more"), "use another"));
            }
            tools.iter().try_for_each(|tool| decide::still_fetched(&now.authority, tool, &[]))
        };
        let done = self.relay(caller, peer, Exchange::default(), leaving, still, send).await;
        done.map_err(Refused::Failed)?;
        passed.ok_or(Refused::Unknown)
    }
}

/// The arguments a message is judged by: those of the skill's tool, and the message itself.
pub(crate) fn arguments(text: String, data: Option<Json>, passed: Json) -> Json {
    let mut arguments = Object::new();
    arguments.set("message", text);
    if let Some(data) = data {
        arguments.set("data", data);
    }
    arguments.set(PASSED, passed);
    arguments.into()
}

/// What is passed on is no result of a tool.
fn nothing() -> Reply {
    Reply { kind: Kind::Complete, modern: true, result: Json::Object(Object::new()) }
}
