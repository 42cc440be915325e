use super::Context;
use super::words::say;
use crate::audit::{self, Noted, Record, Report};
use crate::error::{Exit, Failure, Outcome};
use crate::settings;
use policies::json::Json;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Read the record of decisions: what was wanted, by whom, what was decided, what came of it.
///
/// Every decision is on record before what was decided happens; each record holds the hash of
/// the one before it. Note `pleach audit head` elsewhere from time to time: with it, verify finds
/// even a log that was cut off or written anew.
///
/// Example: pleach audit verify
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// The folder of the record; default: as the policy file says.
    #[arg(long, global = true, value_name = "DIR")]
    folder: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Find edits, deletions and reordering; with --head, a cut at the end too.
    ///
    /// Exits 0 when the chain is whole, 1 with the record that does not fit when it is not.
    Verify {
        /// What `pleach audit head` printed earlier, or the hash of it alone.
        #[arg(long, value_name = "HEAD")]
        head: Option<String>,
        /// Print one JSON object: `ok`, `records`, `files`, `seq`, `head`, `found` (the record of
        /// --head), `retired` (that one is in no file that is kept), `torn` (what crashes left), `broken` (`file`, `line`, `seq`, `what`).
        #[arg(long)]
        json: bool,
    },
    /// Print the number and the hash of the last record.
    Head {
        /// Print one JSON object: `seq`, `head`.
        #[arg(long)]
        json: bool,
    },
    /// Show what is on record, oldest first.
    Show {
        /// Only what this run wanted (its id, or the end of it).
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
        /// Only what was denied.
        #[arg(long)]
        denied: bool,
        /// Print each record as it stands, one JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(context: &Context, args: Args) -> Outcome {
    let folder = match args.folder {
        Some(folder) => folder,
        None => settings::look(&context.config)?.policy.audit.folder.clone(),
    };
    let unreadable = |e: std::io::Error| Failure::new(Exit::Failed, format!("{}: {e}", folder.display()));
    match args.command {
        Command::Verify { head, json } => {
            let wrong = || Failure::usage("--head is what `pleach audit head` prints, or the 64 hex digits of it");
            let head = head.map(|text| Noted::parse(&text).ok_or_else(wrong)).transpose()?;
            verdict(&audit::verify(&folder, head.as_ref()).map_err(unreadable)?, json)
        }
        Command::Head { json } => {
            let report = audit::verify(&folder, None).map_err(unreadable)?;
            if report.broken.is_some() {
                return verdict(&report, json);
            }
            match (&report.head, json) {
                (None, _) => return Err(Failure::new(Exit::Failed, "nothing is on record yet")),
                (Some(head), true) => say!("{}", json!({ "seq": head.seq, "head": head.hash })),
                (Some(head), false) => say!("{} {}", head.seq, head.hash),
            }
            Ok(0)
        }
        Command::Show { run, denied, json } => {
            let mut shown = Shown { run, denied, json, lines: Vec::new(), at: BTreeMap::new() };
            let report = audit::walk(&folder, None, |record| shown.see(record)).map_err(unreadable)?;
            shown.lines.iter().for_each(|line| say!("{line}"));
            match &report.broken {
                None => Ok(0),
                Some(_) => verdict(&report, false),
            }
        }
    }
}

fn verdict(report: &Report, json: bool) -> Outcome {
    let head = report.head.as_ref();
    if json {
        let torn = report
            .torn
            .iter()
            .map(|t| json!({ "file": t.at.file, "line": t.at.line, "bytes": t.bytes, "told": t.told }));
        let torn: Vec<_> = torn.collect();
        let broken = report
            .broken
            .as_ref()
            .map(|b| json!({ "file": b.at.file, "line": b.at.line, "seq": b.seq, "what": b.what }));
        say!(
            "{}",
            json!({
                "ok": report.broken.is_none(), "records": report.records, "files": report.segments,
                "seq": head.map(|h| h.seq), "head": head.map(|h| &h.hash), "found": report.found,
                "retired": report.retired, "torn": torn, "broken": broken,
            })
        );
        return Ok(if report.broken.is_some() { Exit::Failed as u8 } else { 0 });
    }
    for torn in &report.torn {
        let told = if torn.told { "" } else { "; the next start tells of it" };
        say!("{}:{}: {} bytes of a record that a crash cut short{told}", torn.at.file, torn.at.line, torn.bytes);
    }
    if let Some(broken) = &report.broken {
        let place =
            if broken.at.file.is_empty() { String::new() } else { format!("{}:{}: ", broken.at.file, broken.at.line) };
        let seq = broken.seq.map(|seq| format!("record {seq}: ")).unwrap_or_default();
        say!("broken at {place}{seq}{}", broken.what);
        say!("{} records before it are whole.", report.records);
        return Ok(Exit::Failed as u8);
    }
    match head {
        None => say!("nothing is on record yet."),
        Some(head) => {
            say!("whole: {} records in {} files; head {} {}", report.records, report.segments, head.seq, head.hash)
        }
    }
    if report.retired {
        say!("the head that was noted was in a file that is kept no more: it cannot be compared.");
    }
    if let (Some(found), Some(head)) = (report.found, head) {
        say!("the head that was noted is record {found}; {} followed it.", head.seq.saturating_sub(found));
    }
    Ok(0)
}

/// The records that are to be shown, as lines; what came of a call is put to its line.
struct Shown {
    run: Option<String>,
    denied: bool,
    json: bool,
    lines: Vec<String>,
    /// Lines by the number of their record.
    at: BTreeMap<u64, usize>,
}

impl Shown {
    fn see(&mut self, record: &Record) {
        if record.text("what") == "outcome" {
            if let Some(line) = record.number("of").and_then(|of| self.at.get(&of)) {
                if self.json {
                    self.lines.push(record.json.to_text());
                } else {
                    self.lines[*line].push_str(&format!(
                        "  → {}, {} ms",
                        record.text("outcome"),
                        record.number("ms").unwrap_or(0)
                    ));
                }
            }
            return;
        }
        let of_run = self
            .run
            .as_ref()
            .is_none_or(|run| !record.text("run").is_empty() && record.text("run").ends_with(run.as_str()));
        if !of_run || (self.denied && record.text("verdict") != "deny") {
            return;
        }
        self.at.insert(record.seq, self.lines.len());
        self.lines.push(if self.json { record.json.to_text() } else { line(record) });
    }
}

fn line(record: &Record) -> String {
    let at = record.number("at").and_then(|ms| jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
    let at = at.map(|t| t.strftime("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default();
    let subject = ["tool", "target", "model", "agent", "program", "method", "file", "segment"];
    let subject = subject.iter().find_map(|key| match record.json.get(key)? {
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_text()),
    });
    let touches = record.json.get("touches").and_then(Json::as_array).unwrap_or_default();
    let mut line = format!("{:>6} {at} {:<5} {:<8}", record.seq, record.text("verdict"), record.text("what"));
    let place = match record.text("place") {
        "" => String::new(),
        place => format!("({place})"),
    };
    let parts = [subject.unwrap_or_default(), record.text("who").to_owned(), record.text("rule").to_owned(), place];
    let touched = touches.iter().filter_map(Json::as_str).map(|t| format!("[{t}]"));
    for part in parts.into_iter().chain(touched).filter(|part| !part.is_empty()) {
        line.push_str("  ");
        line.push_str(&part);
    }
    line
}
