use super::Context;
use super::words::say;
use crate::error::{Exit, Outcome};
use crate::settings;
use policies::resolve::Transport;
use serde_json::json;
use std::path::PathBuf;

/// Read a policy file and say in sentences what it allows.
///
/// Exits 0 when the file holds, 2 with every error (file:line:column, what is wrong, what would
/// be right) when it does not. Nothing is started.
///
/// Example: pleach check
#[derive(clap::Args)]
pub(super) struct Args {
    /// The file; default: --config.
    file: Option<PathBuf>,
    /// Print one JSON object: `ok`, `errors`, `warnings`, `sentences`, `imported`, `pins`.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: Args) -> Outcome {
    let path = args.file.unwrap_or_else(|| context.config.clone());
    let shown = path.display().to_string();
    let source = std::fs::read_to_string(&path)
        .map_err(|e| crate::error::Failure::usage(format!("{shown}: {e}; `pleach init` writes one")))?;
    let file = path.canonicalize()?;
    let loaded = match settings::understand(&shown, &source, &file) {
        Ok(loaded) => loaded,
        Err(errors) => {
            if args.json {
                let errors: Vec<_> = errors.0.iter().map(error_json).collect();
                say!("{}", json!({ "ok": false, "errors": errors, "warnings": [], "sentences": [], "imported": [] }));
            } else {
                say!("{errors}");
            }
            return Ok(Exit::Usage as u8);
        }
    };
    let sentences = policies::explain::sentences(&loaded.policy, &loaded.folder);
    let warnings = &loaded.policy.warnings;
    if args.json {
        let warnings: Vec<_> = warnings.iter().map(error_json).collect();
        let imported: Vec<_> = loaded.policy.imported.iter().map(super::import::note_json).collect();
        say!(
            "{}",
            json!({ "ok": true, "errors": [], "warnings": warnings, "sentences": sentences, "imported": imported,
                    "pins": pins(&loaded) })
        );
        return Ok(0);
    }
    for sentence in sentences {
        say!("{sentence}\n");
    }
    for note in &loaded.policy.imported {
        say!("{}", super::import::note_line(note));
    }
    for warning in warnings {
        say!("warning: {warning}");
    }
    for line in pins(&loaded) {
        say!("{line}");
    }
    say!("{shown} holds.");
    Ok(0)
}

/// What the lock file holds back, or that there is none.
fn pins(loaded: &settings::Loaded) -> Vec<String> {
    let servers = loaded.policy.servers.values().filter(|s| !matches!(s.transport, Transport::Builtin(_)));
    match &loaded.policy.pins {
        None if servers.clone().next().is_none() => Vec::new(),
        None => {
            vec!["not pinned: what servers list is taken as it comes; `pleach pin` approves it as it is now".into()]
        }
        Some(pins) => {
            let held = servers.filter_map(|s| Some(format!("held: server {}: {}", s.name, s.unapproved.as_ref()?)));
            let near = super::pin::near_names(pins).into_iter().map(|line| format!("warning: {line}"));
            held.chain(near).collect()
        }
    }
}

pub(super) fn error_json(error: &policies::file::FileError) -> serde_json::Value {
    json!({
        "file": &*error.place.file,
        "line": error.place.line,
        "column": error.place.column,
        "message": error.message,
        "not_in_this_version": error.not_in_this_version,
    })
}
