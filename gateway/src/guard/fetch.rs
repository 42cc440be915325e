//! Resources, prompts, completions and tasks: found by their outside name, judged, asked in
//! the server's own names, answered in ours.

use super::{Guard, ledger, touches};
use crate::audit::Decision;
use crate::servers::{Abilities, Watch};
use adapters::mcp::{Exchange, McpError, Reply, RpcError, Watched};
use policies::action::Fetch;
use policies::decide;
use policies::json::{Json, Object};
use policies::manifest::{self, Resource};
use policies::names::Name;
use policies::permit::{Denial, Permit, Verdict};
use policies::tools::Mode;
use std::sync::Arc;
use subagents::run::Caller;

/// How long a name nobody knows is looked for in servers that were not listed yet.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Why something was not fetched.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Not there, or not for this caller: both look the same.
    Unknown,
    /// There, but not like this.
    Denied(Denial),
    /// Asked, and failed.
    Failed(McpError),
}

impl Guard {
    /// Whether a caller sees the resources of a server.
    pub(crate) fn sees_resources(&self, caller: &Caller, server: &Name) -> bool {
        let Ok(caller) = self.servers.live.current(caller) else { return false };
        caller.authority.grant().tools.mode(&Resource::rule(server)) != Mode::Deny
    }
    /// Whether a caller sees a prompt.
    pub(crate) fn sees_prompt(&self, caller: &Caller, prompt: &manifest::Prompt) -> bool {
        let Ok(caller) = self.servers.live.current(caller) else { return false };
        caller.authority.grant().tools.mode(&prompt.rule()) != Mode::Deny
    }

    /// Reads a resource (`resources/read`).
    ///
    /// # Errors
    /// See [`Refused`].
    pub(crate) async fn read(
        &self,
        caller: &Caller,
        uri: &str,
        rest: Object,
        exchange: Exchange,
    ) -> Result<Reply, Refused> {
        let permit = self.resource(caller, uri, "resources/read").await?;
        self.fetch(caller, permit, rest, exchange).await
    }

    /// Watches a resource for changes.
    ///
    /// # Errors
    /// See [`Refused`].
    pub(crate) async fn watch(
        &self,
        caller: &Caller,
        uri: &str,
        abilities: Abilities,
    ) -> Result<(Watch, Json), Refused> {
        let permit = self.resource(caller, uri, "resources/subscribe").await?;
        let server = permit.what().server.clone();
        self.follow(caller, &server, abilities, permit).await
    }

    /// Watches what was permitted, once that is on record.
    async fn follow(
        &self,
        caller: &Caller,
        server: &Name,
        abilities: Abilities,
        permit: Permit<Fetch>,
    ) -> Result<(Watch, Json), Refused> {
        let leaving = Self::fetching(&permit);
        let watched = Watched::new(permit).ok_or(Refused::Unknown)?;
        let left = self.leaves(caller, leaving).await.map_err(Refused::Failed)?;
        let watch = self.servers.watch(server, caller, abilities, watched).await;
        left.came(ledger::word(&watch, |_| false), None);
        watch.map_err(|e| self.failed(caller, server, e))
    }

    async fn resource(&self, caller: &Caller, uri: &str, method: &'static str) -> Result<Permit<Fetch>, Refused> {
        let (server, inner) = self.find_resource(caller, uri).await?;
        let rule = Resource::rule(&server);
        let cwd = self.servers.spec(&server).map(|s| s.cwd.clone()).ok_or(Refused::Unknown)?;
        let raw = manifest::of_uri(&inner).into_iter().collect();
        let mut params = Object::new();
        params.set("uri", inner);
        let touches = touches::read(raw, &cwd);
        self.judge(caller, Fetch { server, rule, method, params, touches })
    }

    /// Whose a resource is, and what it is there.
    async fn find_resource(&self, caller: &Caller, uri: &str) -> Result<(Name, String), Refused> {
        let found = || self.servers.offered.of(caller).uris.inside(uri);
        if let Some(found) = found() {
            return Ok(found);
        }
        self.servers.ensure_offered(caller, PATIENCE).await;
        found().ok_or(Refused::Unknown)
    }

    /// Gets a prompt (`prompts/get`).
    ///
    /// # Errors
    /// See [`Refused`].
    pub(crate) async fn prompt(
        &self,
        caller: &Caller,
        name: &str,
        arguments: Option<Json>,
        rest: Object,
        exchange: Exchange,
    ) -> Result<Reply, Refused> {
        let prompt = self.find_prompt(caller, name).await?;
        let cwd = self.servers.spec(&prompt.server).map(|s| s.cwd.clone()).ok_or(Refused::Unknown)?;
        let raw = arguments.as_ref().map(manifest::guess).unwrap_or_default();
        let mut params = Object::new();
        params.set("name", prompt.upstream.as_str());
        if let Some(arguments) = arguments {
            params.set("arguments", arguments);
        }
        let touches = touches::read(raw, &cwd);
        let fetch =
            Fetch { server: prompt.server.clone(), rule: prompt.rule(), method: "prompts/get", params, touches };
        let permit = self.judge(caller, fetch)?;
        self.fetch(caller, permit, rest, exchange).await
    }

    async fn find_prompt(&self, caller: &Caller, name: &str) -> Result<Arc<manifest::Prompt>, Refused> {
        let found = || self.servers.offered.of(caller).prompts.get(name).cloned();
        if let Some(prompt) = found() {
            return Ok(prompt);
        }
        self.servers.ensure_offered(caller, PATIENCE).await;
        found().ok_or(Refused::Unknown)
    }

    /// Completes an argument (`completion/complete`); `params` hold `ref`, `argument`, `context`.
    ///
    /// # Errors
    /// See [`Refused`].
    pub(crate) async fn complete(
        &self,
        caller: &Caller,
        mut params: Object,
        rest: Object,
        exchange: Exchange,
    ) -> Result<Reply, Refused> {
        let mut raw: Vec<_> =
            ["argument", "context"].iter().filter_map(|k| params.get(k)).flat_map(manifest::guess).collect();
        let Some(Json::Object(reference)) = params.get_mut("ref") else { return Err(Refused::Unknown) };
        let text = |key: &str| reference.get(key).and_then(Json::as_str).unwrap_or("").to_owned();
        let (server, rule) = match text("type").as_str() {
            "ref/prompt" => {
                let prompt = self.find_prompt(caller, &text("name")).await?;
                reference.set("name", prompt.upstream.as_str());
                (prompt.server.clone(), prompt.rule())
            }
            "ref/resource" => {
                self.servers.ensure_offered(caller, PATIENCE).await;
                let uri = text("uri");
                let template = self.servers.offered.of(caller).templates.get(&uri).cloned();
                let (server, inner) = match template {
                    Some(template) => (template.server.clone(), template.uri.clone()),
                    None => self.find_resource(caller, &uri).await?,
                };
                raw.extend(manifest::of_uri(&inner));
                reference.set("uri", inner);
                let rule = Resource::rule(&server);
                (server, rule)
            }
            _ => return Err(Refused::Unknown),
        };
        let cwd = self.servers.spec(&server).map(|s| s.cwd.clone()).ok_or(Refused::Unknown)?;
        let touches = touches::read(raw, &cwd);
        let fetch = Fetch { server, rule, method: "completion/complete", params, touches };
        let permit = self.judge(caller, fetch)?;
        self.fetch(caller, permit, rest, exchange).await
    }

    /// Follows a task of the extension (`tasks/get`, `tasks/update`, `tasks/cancel`) that a call
    /// of `tool` became. The call was judged when it was made; the tool must still be allowed.
    ///
    /// # Errors
    /// See [`Refused`].
    pub(crate) async fn task(
        &self,
        caller: &Caller,
        method: &'static str,
        (server, tool, id): (Name, String, String),
        rest: Object,
        exchange: Exchange,
    ) -> Result<Reply, Refused> {
        let permit = self.task_permit(caller, method, (server, tool, task_named(id)))?;
        self.fetch(caller, permit, rest, exchange).await
    }

    /// Has changes of such a task reported.
    ///
    /// # Errors
    /// See [`Refused`].
    pub(crate) async fn watch_task(&self, caller: &Caller, task: (Name, String, String)) -> Result<Watch, Refused> {
        let (server, tool, id) = task;
        let permit = self.task_permit(caller, "tasks/get", (server.clone(), tool, task_named(id)))?;
        self.follow(caller, &server, Abilities::default(), permit).await.map(|(watch, _)| watch)
    }

    /// What a server says of a task of `tool`, in the names of the outside; `None` where this
    /// caller is not to be told.
    pub(crate) fn task_said(&self, caller: &Caller, server: &Name, tool: &str, task: Object) -> Option<Object> {
        let caller = &*self.servers.live.current(caller).ok()?;
        if caller.authority.grant().tools.mode(tool) == Mode::Deny {
            return None;
        }
        let mut task = Json::Object(task);
        let offers = self.servers.offered.of(caller);
        super::outside::Outside { uris: &offers.uris, server }.result(&mut task);
        super::inquiry::judge_all(self, caller, server, &task).ok()?;
        match task {
            Json::Object(task) => Some(task),
            _ => None,
        }
    }

    pub(super) fn task_permit(
        &self,
        caller: &Caller,
        method: &'static str,
        (server, tool, params): (Name, String, Object),
    ) -> Result<Permit<Fetch>, Refused> {
        let fetch = Fetch { server, rule: tool, method, params, touches: Vec::new() };
        let caller = self.servers.live.current(caller).map_err(Refused::Denied)?;
        let entry = Self::request(&caller, &fetch);
        match decide::fetch(&caller.authority, fetch) {
            Verdict::Allow(permit, _) => Ok(permit),
            // Whoever was asked said yes when the call was made.
            Verdict::Ask(question) => Ok(question.approve("approved when the call was made")),
            Verdict::Deny(denial) => {
                self.servers.audit.note(entry.decided(Decision::Deny(&denial)));
                Err(Refused::Unknown)
            }
        }
    }

    fn judge(&self, caller: &Caller, fetch: Fetch) -> Result<Permit<Fetch>, Refused> {
        let now = self.servers.live.current(caller);
        let caller = match &now {
            Ok(now) => now,
            Err(denial) => {
                self.servers.audit.note(Self::request(caller, &fetch).decided(Decision::Deny(denial)));
                return Err(Refused::Denied(denial.clone()));
            }
        };
        // What its tools show, its other offers show: a hidden server looks like none.
        let hidden = caller.authority.grant().tools.mode(&fetch.rule) == Mode::Deny;
        let entry = Self::request(caller, &fetch);
        match decide::fetch(&caller.authority, fetch) {
            Verdict::Allow(permit, rule) => {
                tracing::debug!(caller = %caller.who, what = permit.what().rule, "allowed by {rule}");
                Ok(permit)
            }
            Verdict::Ask(question) => {
                Self::answer(self.approve, question).map(|(permit, _)| permit).map_err(|denial| {
                    self.servers.audit.note(entry.decided(Decision::Deny(&denial)));
                    Refused::Denied(denial)
                })
            }
            Verdict::Deny(denial) => {
                self.servers.audit.note(entry.decided(Decision::Deny(&denial)));
                tracing::warn!(caller = %caller.who, "{}", denial.for_person());
                Err(if hidden { Refused::Unknown } else { Refused::Denied(denial) })
            }
        }
    }

    async fn fetch(
        &self,
        caller: &Caller,
        permit: Permit<Fetch>,
        rest: Object,
        exchange: Exchange,
    ) -> Result<Reply, Refused> {
        let Fetch { server, rule, touches, .. } = permit.what();
        let (server, rule, touches) = (server.clone(), rule.clone(), touches.clone());
        let leaving = Self::fetching(&permit);
        let send =
            async |attachment: Arc<adapters::mcp::Attachment>, exchange| attachment.fetch(permit, rest, exchange).await;
        let still = |now: &Caller| {
            if self.servers.spec(&server).is_none() {
                return Err(Denial::plain(format!("there is no server {server} any more"), "use another"));
            }
            decide::still_fetched(&now.authority, &rule, &touches)
        };
        let reply = self.relay(caller, &server, exchange, leaving, still, send).await;
        reply.map_err(|e| self.failed(caller, &server, e))
    }

    /// An error in the names of the outside.
    pub(super) fn failed(&self, caller: &Caller, server: &Name, error: McpError) -> Refused {
        let offers = self.servers.offered.of(caller);
        let outside = super::outside::Outside { uris: &offers.uris, server };
        Refused::Failed(match error {
            McpError::Rpc(mut error) => {
                outside.error(&mut error);
                McpError::Rpc(error)
            }
            other => other,
        })
    }
}

fn task_named(id: String) -> Object {
    let mut params = Object::new();
    params.set("taskId", id);
    params
}

/// The questions of a reply, wherever it holds some, judged.
pub(super) fn judged(guard: &Guard, caller: &Caller, server: &Name, reply: Reply) -> Result<Reply, McpError> {
    match super::inquiry::judge_all(guard, caller, server, &reply.result) {
        Ok(()) => Ok(reply),
        Err(denial) => {
            tracing::warn!(caller = %caller.who, %server, "{}", denial.for_person());
            Err(McpError::Rpc(RpcError::new(-32602, denial.for_model())))
        }
    }
}
