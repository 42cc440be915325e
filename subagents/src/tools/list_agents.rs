//! `list_agents`: the run's own descendants, and what each has used and may still use.

use super::{Asked, At, Flow, HostError, ToolCall};
use serde_json::{Value, json};

pub(super) fn spec() -> (&'static str, Value, Value) {
    ("Lists the subagents you started and those they started.", json!({}), json!([]))
}

pub(super) async fn call(at: &At, call: &ToolCall, asked: Option<&Asked>, rule: String) -> Result<Flow, HostError> {
    let mut agents = Vec::new();
    for run in at.tree.below(&at.run.id) {
        let (phase, turns) = run.seen().await;
        let spent = at.tree.ledger.spent(&run.id);
        let (tokens, usd) = at.tree.ledger.left(&run.id);
        let some = |n: u64| (n != u64::MAX).then_some(n);
        let dollars = |n: u64| policies::price::Usd(n).as_dollars();
        agents.push(json!({
            "run": run.id.as_str(),
            "parent": run.parent.as_ref().map(crate::run::RunId::as_str),
            "agent": run.agent(),
            "state": phase.as_str(),
            "turns": turns,
            "spent": { "tokens": spent.tokens, "usd": dollars(spent.usd) },
            "left": { "tokens": some(tokens), "usd": some(usd).map(dollars) },
        }));
    }
    at.at_once(call, asked, rule, Ok(Value::Array(agents).to_string())).await
}
