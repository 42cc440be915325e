use super::Context;
use super::words::{duration, say};
use crate::compose;
use crate::error::{Exit, Failure, Outcome};
use crate::guard::{Approve, LOCAL};
use crate::settings;
use adapters::store::{Store, clock};
use clap::Subcommand;
use policies::standing::Standing;
use std::sync::Arc;
use subagents::ports::{Journal, QuestionFilter};

/// List the approvals that are asked for and the rules that stand, or take a rule back.
///
/// A rule comes from an answer with --always and allows what the policy would ask about: such calls
/// by whoever asked, of that tool as it was then. What the policy denies it cannot allow, and a
/// tool that changed is asked about again.
///
/// Examples: `pleach approvals`, `pleach approvals revoke a-x7k2m9`
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// How many of each at most.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// One JSON object a line: `type` is `approval` (asked for) or `rule` (stands).
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// Take a rule back: from now on a person is asked again.
    Revoke {
        /// The rule: an id or its last characters.
        rule: String,
    },
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    match args.what {
        Some(What::Revoke { rule }) => revoke(context, &rule).await,
        None => list(context, args.limit, args.json).await,
    }
}

async fn list(context: &Context, limit: u32, json: bool) -> Outcome {
    let loaded = settings::load(&context.config)?;
    let (mut open, mut rules) = (Vec::new(), Vec::new());
    if let Some(store) = Store::look(&loaded.policy.store).await? {
        let filter = QuestionFilter { limit: Some(limit), ..QuestionFilter::default() };
        open = store.open_questions(&filter).await?;
        open.retain(|question| question.kind == "approval");
        rules = store.rules(None, limit).await?;
    }
    if json {
        for question in &open {
            let mut shown = serde_json::to_value(question).unwrap_or_default();
            shown["type"] = "approval".into();
            say!("{shown}");
        }
        for rule in &rules {
            let mut shown = serde_json::to_value(rule).unwrap_or_default();
            shown["type"] = "rule".into();
            say!("{shown}");
        }
        return Ok(0);
    }
    match open.is_empty() {
        true => say!("asked for: nothing"),
        false => say!("asked for:"),
    }
    open.iter().for_each(|question| say!("{}", super::answer::in_words(question, &context.suffix())));
    match rules.is_empty() {
        true => say!("rules: none"),
        false => say!("rules:"),
    }
    rules.iter().for_each(|rule| say!("{}", in_words(rule, &context.suffix())));
    Ok(0)
}

fn in_words(rule: &Standing, config: &str) -> String {
    let age = duration(clock().saturating_sub(rule.at));
    let (id, by) = (&rule.id, &rule.by);
    format!(
        "  {id}  {}\n      by {by}, {age} ago, with {}\n      pleach approvals revoke {id}{config}",
        rule.in_words(),
        rule.question
    )
}

async fn revoke(context: &Context, part: &str) -> Outcome {
    let loaded = Arc::new(settings::load(&context.config)?);
    let app = compose::app(loaded, Approve::Park).await?;
    let done = take_back(&app, part).await;
    app.shutdown().await;
    let rule = done?;
    eprintln!("revoked: {}", rule.in_words());
    Ok(0)
}

async fn take_back(app: &compose::App, part: &str) -> Result<Standing, Failure> {
    let missing =
        || Failure::new(Exit::Failed, format!("no rule that stands is named {part}; `pleach approvals` lists them"));
    let mut rules = app.store.rules(None, u32::MAX).await?;
    rules.retain(|rule| rule.id.ends_with(part));
    if rules.len() > 1 {
        return Err(Failure::usage(format!("{part} is meant for several rules; give more of it")));
    }
    let rule = rules.pop().ok_or_else(missing)?;
    app.guard.revoke(&rule, LOCAL).await.map_err(|why| Failure::new(Exit::Failed, why))?;
    Ok(rule)
}
