//! The live tree, and what was allowed and stopped when it is over.

use crate::cli::words;
use serde_json::Value;
use std::collections::HashMap;
use std::io::IsTerminal;
use subagents::event::{Event, Outcome, Record, Seen};
use subagents::host::Ended;

pub(super) struct View {
    json: bool,
    config: String,
    colour: bool,
    runs: HashMap<String, Shown>,
    calls: HashMap<(String, String), Call>,
    allowed: u32,
    stopped: Vec<Stopped>,
    spawned: u32,
    /// Of what was already shown nothing is printed.
    muted: bool,
}

struct Shown {
    agent: String,
    depth: u32,
    order: usize,
}

struct Call {
    what: String,
    tool: String,
    input: Value,
    denied: Option<(String, Option<String>)>,
}

/// One thing that was stopped: by which layer, whose, what, and the rule.
struct Stopped {
    order: (usize, String),
    layer: &'static str,
    agent: String,
    tool: String,
    input: Value,
    what: String,
    rule: String,
    fix: Option<String>,
}

impl Stopped {
    /// Whether `pleach explain` says the same of it. It asks for the agent by itself; what an
    /// ancestor of the run or a request to spawn it said is in `show` alone.
    fn is_explained(&self) -> bool {
        let own = [" at root policy".to_owned(), format!(" at agent {}", self.agent)];
        let by = |who: &String| {
            self.rule.find(who).is_some_and(|at| matches!(self.rule[at + who.len()..].chars().next(), None | Some(' ')))
        };
        self.layer == "guard" && self.tool.contains("__") && own.iter().any(by)
    }
}

impl View {
    pub(super) fn new(json: bool, config: String) -> Self {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            json,
            config,
            colour,
            runs: HashMap::new(),
            calls: HashMap::new(),
            allowed: 0,
            stopped: Vec::new(),
            spawned: 0,
            muted: false,
        }
    }

    /// What happened before: known, counted, and not shown again.
    pub(super) fn recall(&mut self, records: &[Record]) {
        self.muted = true;
        records.iter().for_each(|record| self.record(record));
        self.muted = false;
    }

    pub(super) fn show(&mut self, seen: &Seen) {
        if self.json {
            return super::foreground::print_json(seen);
        }
        if let Seen::Record(record) = seen {
            self.record(record);
        }
    }

    fn record(&mut self, record: &Record) {
        let run = record.run.as_str().to_owned();
        match &record.event {
            Event::Started(started) => {
                let (agent, depth) = (started.agent.clone(), started.depth);
                let prompt = words::first_line(&started.prompt, 90);
                let line = format!("{agent} ({}): {prompt}", record.run.short());
                self.runs.insert(run.clone(), Shown { agent, depth, order: self.runs.len() });
                self.spawned += u32::from(depth > 0);
                self.line(&run, "•", "1", &line);
            }
            Event::ModelReplied { text, .. } if !text.trim().is_empty() => {
                self.line(&run, "…", "2", &words::first_line(text, 100));
            }
            Event::ToolRequested { id, name, input } => {
                let what = words::call(name, input);
                let call = Call { what, tool: name.clone(), input: input.clone(), denied: None };
                self.calls.insert((run, id.clone()), call);
            }
            Event::ToolDecided { id, verdict, rule, fix, .. } => {
                let call = self.calls.get_mut(&(run, id.clone()));
                match (verdict.as_str(), call) {
                    ("allow", _) => self.allowed += 1,
                    ("deny", Some(call)) => call.denied = Some((rule.clone(), fix.clone())),
                    _ => {}
                }
            }
            Event::ToolFinished { id, outcome, text } => self.finished(&run, id, *outcome, text),
            Event::Finished { state, text, .. } if state != "completed" => {
                self.line(&run, "■", "31", &format!("{state}: {}", words::first_line(text, 200)));
            }
            Event::Waiting(w) if !w.id.is_empty() => {
                self.line(&run, "?", "33", &format!("{} ({})", words::first_line(&w.question, 160), w.id));
            }
            event => {
                if let Some(text) = words::event(event) {
                    self.line(&run, "·", "2", &text);
                }
            }
        }
    }

    fn finished(&mut self, run: &str, id: &str, outcome: Outcome, text: &str) {
        let Some(call) = self.calls.remove(&(run.to_owned(), id.to_owned())) else { return };
        let agent = self.runs.get(run).map(|r| r.agent.clone()).unwrap_or_default();
        let kernel = outcome == Outcome::Error && call.tool.contains("__") && words::kernel_refused(text);
        let (sign, colour, tail) = match (&call.denied, outcome) {
            (Some((rule, _)), _) => ("✗", "31", format!("  stopped by the guard: {rule}")),
            (None, Outcome::Ok) => ("✓", "32", String::new()),
            (None, _) if kernel => ("✗", "31", format!("  stopped by the kernel: {}", words::refusal_line(text))),
            (None, _) => ("!", "33", format!("  {}", words::first_line(text, 120))),
        };
        let line = format!("{}{tail}", call.what);
        self.line(run, sign, colour, &line);
        let stopped = match call.denied {
            Some((rule, fix)) => Some(("guard", rule, fix)),
            None if kernel => Some(("kernel", words::refusal_line(text), None)),
            None => None,
        };
        if let Some((layer, rule, fix)) = stopped {
            let (tool, input, what) = (call.tool, call.input, call.what);
            let order = (self.runs.get(run).map_or(0, |r| r.order), id.to_owned());
            self.stopped.push(Stopped { order, layer, agent, tool, input, what, rule, fix });
        }
    }

    fn line(&self, run: &str, sign: &str, colour: &str, text: &str) {
        if self.muted || self.json {
            return;
        }
        let (indent, agent) = match self.runs.get(run) {
            Some(shown) => ("  ".repeat(shown.depth as usize), shown.agent.as_str()),
            None => (String::new(), ""),
        };
        let name = if sign == "•" { String::new() } else { format!("{agent}  ") };
        match self.colour {
            true => eprintln!("{indent}\x1b[{colour}m{sign}\x1b[0m \x1b[2m{name}\x1b[0m{text}"),
            false => eprintln!("{indent}{sign} {name}{text}"),
        }
    }

    pub(super) fn summary(&mut self, ended: &Ended) {
        // Siblings run at once; what they were stopped at is told in the order they began.
        self.stopped.sort_by(|a, b| a.order.cmp(&b.order));
        let children = match self.spawned {
            0 => String::new(),
            1 => ", 1 subagent".to_owned(),
            n => format!(", {n} subagents"),
        };
        eprintln!("\n{} allowed, {} stopped{children}", self.allowed, self.stopped.len());
        for stopped in &self.stopped {
            eprintln!("  {:<7} {}: {}", stopped.layer, stopped.agent, stopped.what);
            eprintln!("          {}", stopped.rule);
            if let Some(fix) = &stopped.fix {
                eprintln!("          to allow it: {fix}");
            }
        }
        let config = &self.config;
        eprintln!("next: pleach show {}{config}    (every turn, call, verdict and rule)", ended.run.short());
        if let Some(s) = self.stopped.iter().find(|s| s.is_explained()) {
            let input = s.input.to_string().replace('\'', r"'\''");
            eprintln!("      pleach explain{config} --agent {} --tool {} --args '{input}'", s.agent, s.tool);
        }
        eprintln!();
    }
}
