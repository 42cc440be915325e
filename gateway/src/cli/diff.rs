use super::Context;
use super::words::say;
use crate::error::{Exit, Failure, Outcome};
use crate::settings::{self, Loaded};
use policies::diff::{self, Change};
use policies::place::Place;
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Say who gets wider and who narrower from one policy file to another.
///
/// Effective grants are compared, not texts: the root's, every client's at the door, for every
/// agent what it may do and what it may give; and servers, tools, models and the door by what
/// they mean. What cannot be compared, such as another command, counts as wider.
///
/// OLD is read as if it stood where NEW stands, so that a copy from elsewhere compares; "-" reads
/// it from standard input: git show HEAD:pleach.toml | pleach diff -
///
/// Exits 3 when anybody gets wider, 0 when nobody does, 2 when a file does not hold.
///
/// Example: pleach diff old.toml pleach.toml
#[derive(clap::Args)]
pub(super) struct Args {
    /// The policy file as it was.
    old: PathBuf,
    /// The policy file as it is to be; default: --config.
    new: Option<PathBuf>,
    /// Print one JSON object: `ok`, `errors`, `wider`, and `changes` with `way` (wider, narrower,
    /// wider and narrower, changed), `who`, `what`, `says`, `before` and `after`.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: Args) -> Outcome {
    let path = args.new.unwrap_or_else(|| context.config.clone());
    let at = path.canonicalize().map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    let (old, new) = (read(&args.old, &at), read(&path, &at));
    let (old, new) = match (old?, new?) {
        (Ok(old), Ok(new)) => (old, new),
        (old, new) => {
            let errors = [old.err(), new.err()].into_iter().flatten().flat_map(|errors| errors.0);
            let errors: Vec<_> = errors.collect();
            if args.json {
                let errors: Vec<Value> = errors.iter().map(super::check::error_json).collect();
                say!("{}", json!({ "ok": false, "errors": errors, "wider": false, "changes": [] }));
            } else {
                errors.iter().for_each(|error| say!("{error}"));
            }
            return Ok(Exit::Usage as u8);
        }
    };
    let changes = diff::diff(&old.policy, &new.policy, &new.folder);
    let wider = diff::is_wider(&changes);
    if args.json {
        let changes: Vec<Value> = changes.iter().map(change_json).collect();
        say!("{}", json!({ "ok": true, "errors": [], "wider": wider, "changes": changes }));
    } else {
        changes.iter().for_each(|change| say!("{change}"));
        say!("{}", sum(&changes));
    }
    Ok(if wider { Exit::Held as u8 } else { 0 })
}

type Understood = Result<Loaded, policies::file::FileErrors>;

fn read(path: &Path, at: &Path) -> Result<Understood, Failure> {
    let shown = path.display().to_string();
    if shown == "-" {
        let mut source = String::new();
        std::io::stdin().read_to_string(&mut source).map_err(|e| Failure::usage(format!("standard input: {e}")))?;
        return Ok(settings::understand("<stdin>", &source, at));
    }
    let source = std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("{shown}: {e}")))?;
    Ok(settings::understand(&shown, &source, at))
}

/// `2 wider, 1 narrower.`
fn sum(changes: &[Change]) -> String {
    let wider = changes.iter().filter(|c| c.way.is_wider()).count();
    let narrower = changes.iter().filter(|c| c.way == diff::Way::Narrower).count();
    match (wider, narrower, changes.len()) {
        (0, 0, 0) => "Nothing differs.".into(),
        (0, 0, _) => "Nobody gets wider or narrower.".into(),
        (wider, narrower, _) => format!("{wider} wider, {narrower} narrower."),
    }
}

fn change_json(change: &Change) -> Value {
    let place =
        |place: &Option<Place>| place.as_ref().map(|p| json!({ "file": &*p.file, "line": p.line, "column": p.column }));
    json!({
        "way": change.way.as_str(),
        "who": change.who,
        "what": change.what,
        "says": change.says,
        "before": place(&change.before),
        "after": place(&change.after),
    })
}
