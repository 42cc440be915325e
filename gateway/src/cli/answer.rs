use super::Context;
use super::run::foreground::{self, Foreground};
use super::words::{self, say};
use crate::error::{Exit, Failure, Outcome};
use crate::guard::{Approve, CLI, LOCAL};
use crate::settings::Loaded;
use crate::shown;
use adapters::store::Store;
use policies::manifest::visible;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subagents::approval;
use subagents::host::{By, Then};
use subagents::ports::{Always, Answer, Journal, Of, Question, QuestionFilter};
use subagents::run::RunId;

/// Answer what a run or a client's call asks a person; without an ID, list what is asked.
///
/// A list says what a call would run and touch, who asks, and its arguments; what is long is cut in
/// the middle there, and whole with --json.
///
/// An approval takes allow or deny and is good for that call alone; --always makes a rule besides,
/// which stands until `pleach approvals revoke` takes it back, for the tool, the run, or the paths
/// of the call (--within: a folder above them). A run's call also takes --input with the whole
/// input it is to have instead, which the policy judges like any other. A question takes
/// --input: a text, or JSON where the question has a schema. The run then goes on here, as with
/// `resume`, unless another process works on it; a client's call goes on if it still waits, and
/// else when it is made again.
///
/// Examples: `pleach answer`, then `pleach answer q-x7k2 allow --always path --within out`
#[derive(clap::Args)]
pub(super) struct Args {
    /// The question: an id or its last characters.
    id: Option<String>,
    /// The answer to an approval.
    #[arg(value_enum, conflicts_with = "input")]
    verdict: Option<Verdict>,
    /// The answer to a question, or other arguments for a call.
    #[arg(long, value_name = "JSON")]
    input: Option<String>,
    /// A word to the agent.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Allow such calls from now on: those of this run, all of this tool, or those on these paths.
    #[arg(long, value_enum, value_name = "WHAT")]
    always: Option<What>,
    /// With --always path: a folder above the paths, instead of those alone.
    #[arg(long, value_name = "FOLDER", requires = "always")]
    within: Option<PathBuf>,
    /// Of a list: how many at most, oldest first.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// Do not go on with the run here; `pleach resume` or a `pleach serve` does.
    #[arg(long)]
    no_wait: bool,
    /// Of a list: one question a line. Else every event from now on, one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Whoever is at the command line.
const BY: By<'static> = By { who: LOCAL, door: CLI };

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Verdict {
    Allow,
    Deny,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum What {
    Run,
    Tool,
    Path,
}

/// The rule that is wanted besides.
fn always(args: &Args) -> Result<Option<Always>, Failure> {
    let Some(what) = args.always else { return Ok(None) };
    if !matches!(args.verdict, Some(Verdict::Allow)) {
        return Err(Failure::usage("--always goes with allow"));
    }
    let of = match what {
        What::Run => Of::Run,
        What::Tool => Of::Tool,
        What::Path => Of::Path,
    };
    let within = args.within.as_deref().map(|folder| {
        // What a call touches is compared without links and dots.
        let real = folder.canonicalize().map_err(|e| Failure::usage(format!("--within {}: {e}", folder.display())))?;
        Ok::<_, Failure>(real.display().to_string())
    });
    Ok(Some(Always { of, within: within.transpose()? }))
}

pub(super) async fn run(context: &Context, args: Args) -> Outcome {
    let loaded = foreground::load(context)?;
    let Some(id) = args.id.clone() else {
        return list(&loaded.policy.store, context, args.limit, args.json).await;
    };
    let question = known(&loaded.policy.store, &id).await?;
    let always = always(&args)?;
    let (verdict, note) = (args.verdict, args.note);
    let answer = match (verdict, args.input) {
        (Some(Verdict::Allow), _) => Answer::Allow { note, always },
        (Some(Verdict::Deny), _) => Answer::Deny { note },
        (None, Some(input)) => Answer::Input { value: value(&question, input)?, note },
        (None, None) => {
            let shown = in_words(&question, &context.suffix());
            return Err(Failure::usage(format!("what is the answer?\n{shown}")));
        }
    };
    if question.run.is_empty() {
        return settle(context, loaded, &question, answer).await;
    }
    let mut foreground = Foreground::open(context, loaded, Approve::Park, args.json).await?;
    let root = RunId::known(&question.root);
    foreground.recall(&root).await?;
    let then = if args.no_wait { Then::Leave } else { Then::Drive };
    let host = foreground.app.host.clone();
    let work = host.answer(&question.id, answer, BY, then);
    Box::pin(foreground.command(&root, "answered", work)).await
}

/// Answers the question of a client's own call: no run goes on with it.
async fn settle(context: &Context, loaded: Arc<Loaded>, question: &Question, answer: Answer) -> Outcome {
    let foreground = Foreground::open(context, loaded, Approve::Park, false).await?;
    let settled = foreground.app.host.answer(&question.id, answer.clone(), BY, Then::Leave).await;
    foreground.app.shutdown().await;
    settled?;
    let next = match answer {
        Answer::Allow { always: Some(always), .. } => {
            format!("allowed, {}; pleach approvals{} shows the rule", always.in_words(), context.suffix())
        }
        Answer::Allow { .. } => "allowed once; if the call waits no more, make it again within the hour".into(),
        _ => "denied".into(),
    };
    eprintln!("{next}");
    Ok(0)
}

async fn list(store: &Path, context: &Context, limit: u32, json: bool) -> Outcome {
    let filter = QuestionFilter { limit: Some(limit.saturating_add(1)), ..QuestionFilter::default() };
    let mut open = match Store::look(store).await? {
        Some(store) => store.open_questions(&filter).await?,
        None => Vec::new(),
    };
    let more = open.len() > limit as usize;
    open.truncate(limit as usize);
    for question in &open {
        match json {
            true => say!("{}", serde_json::to_value(question).unwrap_or_default()),
            false => say!("{}", in_words(question, &context.suffix())),
        }
    }
    if more {
        eprintln!("more is asked; --limit shows more than {limit}");
    }
    if open.is_empty() && !more && !json {
        say!("nobody asks anything");
    }
    Ok(0)
}

/// The question of an id or of its end; one that was answered is found by its whole id.
async fn known(store: &Path, id: &str) -> Result<Question, Failure> {
    let missing =
        || Failure::new(Exit::Failed, format!("no question is named {id}; `pleach answer` lists the open ones"));
    let store = Store::look(store).await?.ok_or_else(missing)?;
    if let Some(row) = store.question(id).await? {
        return match row.closed {
            None => Ok(row.question),
            Some((by, _)) => {
                let run = &row.question.run;
                let how = if run.is_empty() { String::new() } else { format!("; `pleach show {run}` tells how") };
                let why = format!("question {id} {}{how}", approval::over(&by));
                Err(Failure::new(Exit::Failed, why))
            }
        };
    }
    let mut open = store.questions_named(id, 2).await?;
    match open.len() {
        0 => Err(missing()),
        1 => Ok(open.remove(0)),
        _ => Err(Failure::usage(format!("{id} is meant for several questions; give more of it"))),
    }
}

/// The input as the question takes it: a text, unless it has a schema.
fn value(question: &Question, input: String) -> Result<Value, Failure> {
    let read = serde_json::from_str::<Value>(&input);
    if question.kind == "approval" {
        return read.ok().filter(Value::is_object).ok_or_else(|| {
            let arguments = question.detail.get("arguments").map(Value::to_string).unwrap_or_default();
            Failure::usage(format!("--input is no JSON object; the call has these arguments now: {arguments}"))
        });
    }
    if question.detail.get("schema").is_some_and(|s| !s.is_null()) {
        return read.map_err(|e| {
            let schema = question.detail.get("schema").map(Value::to_string).unwrap_or_default();
            Failure::usage(format!("--input is not JSON ({e}); the answer has this schema: {schema}"))
        });
    }
    Ok(match read {
        Ok(Value::String(text)) => Value::String(text),
        _ => Value::String(input),
    })
}

/// A question and the command that answers it.
pub(super) fn in_words(question: &Question, config: &str) -> String {
    let Question { id, kind, text, detail, chain, .. } = question;
    let who = if chain.is_empty() { String::new() } else { format!("\n      asked by {}", shown::chain(question)) };
    let text = shown::text(text, "      ");
    let detailed = |key: &str| detail.get(key).filter(|v| !v.is_null());
    let (more, answer) = if kind == "approval" {
        let effects: String = shown::effects(question).iter().map(|e| format!("\n      would {e}")).collect();
        let arguments = shown::arguments(question).map(|a| format!("\n      with {a}")).unwrap_or_default();
        let rule = detailed("rule").and_then(Value::as_str).map(|r| format!("\n      because of {}", visible(r)));
        (format!("{effects}{who}{arguments}{}", rule.unwrap_or_default()), "allow".to_owned())
    } else {
        let options = detailed("options").and_then(Value::as_array).map(|options| {
            let options: Vec<String> =
                options.iter().map(|o| visible(&o.as_str().map_or(o.to_string(), str::to_owned))).collect();
            format!("\n      one of: {}", options.join(" · "))
        });
        let schema = detailed("schema")
            .map(|s| format!("\n      as JSON of {}", visible(&words::first_line(&s.to_string(), 300))));
        let input = if schema.is_some() { "JSON" } else { "TEXT" };
        let more = format!("{}{}{who}", options.unwrap_or_default(), schema.unwrap_or_default());
        (more, format!("--input '{input}'"))
    };
    let or = match (kind.as_str(), question.run.is_empty()) {
        ("approval", true) => "      (or deny)",
        ("approval", false) => "      (or deny, or --input JSON)",
        _ => "",
    };
    format!("  {id}  {text}{more}\n      pleach answer {id} {answer}{config}{or}")
}
