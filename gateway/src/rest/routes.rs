//! The one table of routes: it mounts them, and the OpenAPI document is made of it.

use super::request::{Answered, Call};
use super::{approvals, events, metrics, openapi, rules, runs, start};
use axum::routing::MethodFilter;
use futures_util::future::BoxFuture;

/// The methods there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
}

impl Method {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
}

/// A parameter of the query, or a header.
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    /// `string` or `integer`.
    pub(super) kind: &'static str,
}

/// What comes when it goes well.
pub(super) struct Good {
    pub(super) status: &'static str,
    pub(super) text: &'static str,
    /// The media type and, for JSON, the schema's name.
    pub(super) content: Option<(&'static str, Option<&'static str>)>,
}

/// A route.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// Its operation's id.
    pub(super) id: &'static str,
    pub(super) text: &'static str,
    pub(super) query: &'static [Param],
    pub(super) headers: &'static [Param],
    /// The schema's name of its body.
    pub(super) body: Option<&'static str>,
    pub(super) good: &'static [Good],
    /// The statuses of its problems, besides those any route has.
    pub(super) bad: &'static [u16],
    /// Whether everybody may read it.
    pub(super) open: bool,
    pub(super) handler: fn(Call) -> BoxFuture<'static, Answered>,
}

impl Route {
    pub(super) fn filter(&self) -> MethodFilter {
        match self.method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
        }
    }
    /// What stands at `{id}` of a path of this route; empty where it has none.
    pub(super) fn captures<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (mut ours, mut theirs) = (self.path.split('/'), path.split('/'));
        let mut captured = "";
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return Some(captured),
                (Some("{id}"), Some(given)) if !given.is_empty() => captured = given,
                (Some(one), Some(other)) if one == other => {}
                _ => return None,
            }
        }
    }
}

const JSON: &str = "application/json";
const RUN: Option<(&str, Option<&str>)> = Some((JSON, Some("Run")));
const CURSOR: Param = Param { name: "cursor", text: "next_cursor of the page before.", kind: "string" };
const LIMIT: Param = Param { name: "limit", text: "Entries of a page, 1 to 200; default 50.", kind: "integer" };

/// All routes.
pub(super) static ROUTES: [Route; 14] = [
    Route {
        method: Method::Post,
        path: "/v1/runs",
        id: "startRun",
        text: "Starts an agent. With an Idempotency-Key, the same request again gives the same run.",
        query: &[],
        headers: &[Param { name: "Idempotency-Key", text: "A text of your own, kept for 30 days.", kind: "string" }],
        body: Some("StartRun"),
        good: &[Good { status: "202", text: "It is under way; Location names it.", content: RUN }],
        bad: &[400, 403, 409, 413, 415, 422, 429],
        open: false,
        handler: |call| Box::pin(start::start(call)),
    },
    Route {
        method: Method::Get,
        path: "/v1/runs",
        id: "listRuns",
        text: "Your runs, newest first; roots only, unless parent says otherwise.",
        query: &[
            Param { name: "state", text: "Only those in this state.", kind: "string" },
            Param { name: "agent", text: "Only those of this agent.", kind: "string" },
            Param { name: "parent", text: "Those started by this run, or `any`.", kind: "string" },
            CURSOR,
            LIMIT,
        ],
        headers: &[],
        body: None,
        good: &[Good { status: "200", text: "A page.", content: Some((JSON, Some("RunPage"))) }],
        bad: &[422],
        open: false,
        handler: |call| Box::pin(runs::list(call)),
    },
    Route {
        method: Method::Get,
        path: "/v1/runs/{id}",
        id: "getRun",
        text: "A run: how it stands, what it asks, what it said in the end.",
        query: &[],
        headers: &[],
        body: None,
        good: &[Good { status: "200", text: "The run.", content: RUN }],
        bad: &[404],
        open: false,
        handler: |call| Box::pin(runs::get(call)),
    },
    Route {
        method: Method::Get,
        path: "/v1/runs/{id}/events",
        id: "watchRun",
        text: "What happened and happens in a run and below it, each event once and in order; ends after the run's \
               run.finished. `id` is for Last-Event-ID; pieces of replies (model.delta) have none.",
        query: &[],
        headers: &[Param { name: "Last-Event-ID", text: "Begin after this event.", kind: "string" }],
        body: None,
        good: &[
            Good { status: "200", text: "Server-sent events.", content: Some(("text/event-stream", None)) },
            Good { status: "204", text: "The run has ended, and nothing follows that event.", content: None },
        ],
        bad: &[404, 422, 429],
        open: false,
        handler: |call| Box::pin(events::stream(call)),
    },
    Route {
        method: Method::Post,
        path: "/v1/runs/{id}/cancel",
        id: "cancelRun",
        text: "Ends a run and all it started.",
        query: &[],
        headers: &[],
        body: None,
        good: &[Good { status: "202", text: "It ends.", content: RUN }],
        bad: &[404, 409],
        open: false,
        handler: |call| Box::pin(runs::cancel(call)),
    },
    Route {
        method: Method::Post,
        path: "/v1/runs/{id}/messages",
        id: "sendMessage",
        text: "Says something to a run: one that works hears it before its next request, one that ended goes on.",
        query: &[],
        headers: &[],
        body: Some("Message"),
        good: &[Good { status: "202", text: "It was said.", content: RUN }],
        bad: &[400, 404, 409, 413, 415, 422, 429],
        open: false,
        handler: |call| Box::pin(runs::message(call)),
    },
    Route {
        method: Method::Post,
        path: "/v1/runs/{id}/fork",
        id: "forkRun",
        text: "A new run whose past is this one's up to an event, and which goes on from there.",
        query: &[],
        headers: &[],
        body: Some("Fork"),
        good: &[Good { status: "201", text: "The new run; Location names it.", content: RUN }],
        bad: &[400, 404, 413, 415, 422, 429],
        open: false,
        handler: |call| Box::pin(runs::fork(call)),
    },
    Route {
        method: Method::Get,
        path: "/v1/approvals",
        id: "listApprovals",
        text: "What runs and clients' own calls ask people, oldest first: yours, or all where you may approve.",
        query: &[Param { name: "root", text: "Only of this run's tree.", kind: "string" }, CURSOR, LIMIT],
        headers: &[],
        body: None,
        good: &[Good { status: "200", text: "A page.", content: Some((JSON, Some("ApprovalPage"))) }],
        bad: &[422],
        open: false,
        handler: |call| Box::pin(approvals::list(call)),
    },
    Route {
        method: Method::Get,
        path: "/v1/approvals/{id}",
        id: "getApproval",
        text: "One of them, open or answered.",
        query: &[],
        headers: &[],
        body: None,
        good: &[Good { status: "200", text: "The question.", content: Some((JSON, Some("Approval"))) }],
        bad: &[404],
        open: false,
        handler: |call| Box::pin(approvals::get(call)),
    },
    Route {
        method: Method::Post,
        path: "/v1/approvals/{id}",
        id: "answerApproval",
        text: "Answers it, once. What the policy asks takes decision, what an agent asks takes either. With always, \
               allow makes a rule besides.",
        query: &[],
        headers: &[],
        body: Some("Answer"),
        good: &[
            Good { status: "200", text: "It is answered.", content: Some((JSON, Some("Approval"))) },
            Good {
                status: "202",
                text: "The process that has the run will hear it.",
                content: Some((JSON, Some("Approval"))),
            },
        ],
        bad: &[400, 403, 404, 409, 413, 415, 422],
        open: false,
        handler: |call| Box::pin(approvals::answer(call)),
    },
    Route {
        method: Method::Get,
        path: "/v1/rules",
        id: "listRules",
        text: "The standing rules, newest first: about your calls, or all where you may approve. A rule allows what the \
               policy would ask about, and nothing it denies.",
        query: &[LIMIT],
        headers: &[],
        body: None,
        good: &[Good { status: "200", text: "They.", content: Some((JSON, Some("RulePage"))) }],
        bad: &[422],
        open: false,
        handler: |call| Box::pin(rules::list(call)),
    },
    Route {
        method: Method::Post,
        path: "/v1/rules/{id}/revoke",
        id: "revokeRule",
        text: "Takes a rule back: from now on a person is asked again.",
        query: &[],
        headers: &[],
        body: None,
        good: &[Good { status: "200", text: "It stands no more.", content: Some((JSON, Some("Rule"))) }],
        bad: &[403, 404, 409],
        open: false,
        handler: |call| Box::pin(rules::revoke(call)),
    },
    Route {
        method: Method::Get,
        path: "/openapi.json",
        id: "getOpenApi",
        text: "This document.",
        query: &[],
        headers: &[],
        body: None,
        good: &[Good { status: "200", text: "OpenAPI 3.1.", content: Some((JSON, None)) }],
        bad: &[],
        open: true,
        handler: |call| Box::pin(openapi::get(call)),
    },
    Route {
        method: Method::Get,
        path: "/metrics",
        id: "getMetrics",
        text: "Counters and gauges for Prometheus.",
        query: &[],
        headers: &[],
        body: None,
        good: &[Good { status: "200", text: "Text.", content: Some(("text/plain", None)) }],
        bad: &[],
        open: false,
        handler: |call| Box::pin(metrics::get(call)),
    },
];
