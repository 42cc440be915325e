//! What must be true of a trial, whatever was killed when: judged by what reached the world, by
//! what the journal says, and by what the same scene came to undisturbed.

use super::scene::{self, TOKENS};
use super::tools::done;
use super::trial::Played;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a run came to: what tells two trials of a scene apart, and may not.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sum {
    prompt: String,
    agent: String,
    depth: u64,
    turns: u64,
    tool_calls: u64,
    tokens: u64,
    /// Billionths of a dollar.
    usd: u64,
    /// Its last words.
    text: String,
}

impl Sum {
    /// How often it asks the world for something.
    pub(super) fn steps(&self) -> u64 {
        self.turns.max(self.tool_calls)
    }
}

/// What was found besides that everything is in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    pub(super) calls: u64,
    pub(super) unknown: u64,
    pub(super) repeated: u64,
    pub(super) looked: u64,
    /// Requests to the model whose answer was lost.
    pub(super) lost: u64,
    pub(super) tokens: u64,
    /// Tokens that count as spent for those.
    pub(super) held: u64,
    pub(super) runs: u64,
    pub(super) events: u64,
    pub(super) once: u64,
    pub(super) sums: Vec<Sum>,
}

impl Found {
    pub(super) fn add(&mut self, other: &Found) {
        self.calls += other.calls;
        self.unknown += other.unknown;
        self.repeated += other.repeated;
        self.looked += other.looked;
        self.lost += other.lost;
        self.tokens += other.tokens;
        self.held += other.held;
        self.runs += other.runs;
        self.events += other.events;
        self.once += other.once;
    }
}

/// A call as its run's journal tells of it.
#[derive(Default)]
struct Call {
    name: String,
    n: String,
    /// The class, the key and the number of each attempt.
    sent: Vec<(String, String, u64)>,
    finished: Vec<(String, String)>,
}

/// A run as its journal tells of it.
#[derive(Default)]
struct Run {
    sum: Sum,
    state: String,
    ends: u32,
    calls: BTreeMap<String, Call>,
    /// What is held for a request that was not answered yet.
    asking: Option<u64>,
    /// Requests by turn.
    asked: BTreeMap<u64, u64>,
    lost: u64,
    held: u64,
    last: u64,
}

type Checked<T> = Result<T, String>;

fn holds(what: bool, or: impl FnOnce() -> String) -> Checked<()> {
    if what { Ok(()) } else { Err(or()) }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// How often a tool was used that had been used before for the same call, and must not have been.
pub(super) fn duplicates(played: &Played) -> u64 {
    let mut made: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for one in played.made.iter().filter(|made| matches!(made.tool.as_str(), "once" | "asked" | "veri")) {
        *made.entry((&one.tool, &one.n)).or_default() += 1;
    }
    made.values().map(|n| n - 1).sum()
}

/// Looks at a trial. `oracle` is what the scene comes to undisturbed.
pub(super) fn examine(played: &Played, events: &[Value], rows: &[Value], oracle: Option<&[Sum]>) -> Checked<Found> {
    let runs = fold(events)?;
    let mut found = Found { events: events.len() as u64, runs: runs.len() as u64, ..Found::default() };
    for (id, run) in &runs {
        row(id, run, rows)?;
        model(run, played)?;
        found.lost += run.lost;
        found.held += run.held;
        found.tokens += run.sum.tokens;
        for (call, of) in &run.calls {
            calls(&run.sum.prompt, call, of, played, &mut found).map_err(|why| format!("run {id}: {why}"))?;
        }
    }
    holds(found.tokens + found.held <= TOKENS, || format!("{} tokens are spent or held", found.tokens + found.held))?;
    outside(&runs, played)?;
    found.looked = played.book.looked as u64;
    found.sums = runs.values().map(|run| run.sum.clone()).collect();
    found.sums.sort();
    match oracle {
        Some(oracle) if played.plan.scene.is_steady() => holds(found.sums == oracle, || {
            format!("undisturbed it comes to\n  {oracle:?}\nand now to\n  {:?}", found.sums)
        })?,
        Some(oracle) => holds(
            found.sums.iter().map(|s| (&s.prompt, &s.text)).eq(oracle.iter().map(|s| (&s.prompt, &s.text))),
            || format!("it is {:?}, and was {oracle:?}", found.sums),
        )?,
        None => holds(found.unknown == 0 && found.repeated == 0 && found.lost == 0, || {
            format!("nothing was killed, and something was lost: {found:?}")
        })?,
    }
    Ok(found)
}

/// The journal of a tree, folded without any help of the program that wrote it.
fn fold(events: &[Value]) -> Checked<BTreeMap<String, Run>> {
    let mut runs: BTreeMap<String, Run> = BTreeMap::new();
    for event in events.iter().filter(|e| e["type"] != "model.delta") {
        let run = runs.entry(text(&event["run"])).or_default();
        run.last += 1;
        holds(event["seq"] == run.last, || format!("after event {} comes {event}", run.last - 1))?;
        holds(run.ends == 0, || format!("after its end comes {event}"))?;
        run.take(event)?;
    }
    for (id, run) in &runs {
        holds(run.ends == 1 && run.state == "completed", || format!("run {id} is {:?}, {} ends", run.state, run.ends))?;
    }
    Ok(runs)
}

impl Run {
    fn take(&mut self, event: &Value) -> Checked<()> {
        let n = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        let call = || text(&event["id"]);
        match event["type"].as_str().unwrap_or_default() {
            "run.started" => {
                let (prompt, agent) = (text(&event["prompt"]), text(&event["agent"]));
                self.sum = Sum { prompt, agent, depth: n("/depth"), ..Sum::default() };
            }
            "model.requested" => {
                *self.asked.entry(n("/turn")).or_default() += 1;
                self.sum.turns = n("/turn") + 1;
                if let Some(held) = self.asking.replace(n("/reserved/tokens")) {
                    self.lost += 1;
                    self.held += held;
                }
            }
            "model.replied" => {
                holds(self.asking.take().is_some(), || format!("nobody had asked: {event}"))?;
                self.sum.tokens += n("/usage/input") + n("/usage/output");
                self.sum.usd += n("/cost");
                for call in event["calls"].as_array().into_iter().flatten() {
                    let wanted = Call { name: text(&call["name"]), n: text(&call["input"]["n"]), ..Call::default() };
                    let twice = self.calls.insert(text(&call["id"]), wanted);
                    holds(twice.is_none(), || format!("a call has the id of another: {event}"))?;
                    self.sum.tool_calls += 1;
                }
            }
            "model.failed" => return Err(format!("the model did not fail: {event}")),
            "tool.dispatched" => {
                let sent = (text(&event["effect"]), text(&event["key"]), n("/attempt"));
                self.calls.entry(call()).or_default().sent.push(sent);
            }
            "tool.finished" => {
                let finished = (text(&event["outcome"]), text(&event["text"]));
                self.calls.entry(call()).or_default().finished.push(finished);
            }
            "run.finished" => {
                self.ends += 1;
                self.state = text(&event["state"]);
                self.sum.text = text(&event["text"]);
            }
            _ => {}
        }
        Ok(())
    }
}

/// What the list of runs says is what the journal adds up to.
fn row(id: &str, run: &Run, rows: &[Value]) -> Checked<()> {
    let row = rows.iter().find(|row| row["run"] == id).ok_or_else(|| format!("run {id} is in no list"))?;
    let sum = &run.sum;
    let usd = row["usd"].as_f64().map(|usd| (usd * 1e9).round());
    let same = row["state"] == run.state.as_str()
        && row["turns"] == sum.turns
        && row["tool_calls"] == sum.tool_calls
        && row["tokens"] == sum.tokens
        && row["depth"] == sum.depth
        && row["agent"] == sum.agent.as_str()
        && usd == Some(sum.usd as f64)
        && row["ended"].is_u64();
    holds(same, || format!("the journal adds up to {sum:?}, and the list says {row}"))
}

/// Nothing was asked that is not in the journal, and what was used is counted or held.
fn model(run: &Run, played: &Played) -> Checked<()> {
    let prompt = &run.sum.prompt;
    let mut reached: BTreeMap<u64, u64> = BTreeMap::new();
    let mut used = 0;
    for request in played.book.requests.iter().filter(|r| r.prompt == *prompt) {
        *reached.entry(request.turn as u64).or_default() += 1;
        let (input, output) = scene::usage(prompt, request.turn);
        used += input + output;
    }
    for (turn, reached) in &reached {
        let asked = run.asked.get(turn).copied().unwrap_or_default();
        holds(*reached <= asked, || format!("{prompt}: turn {turn} was asked {reached} times, and written {asked}"))?;
    }
    holds(run.asked.keys().all(|turn| reached.contains_key(turn)), || format!("{prompt}: a turn was never asked"))?;
    holds(used <= run.sum.tokens + run.held, || {
        format!("{prompt}: {used} tokens were used, {} counted and {} held", run.sum.tokens, run.held)
    })
}

/// One call of a tool.
fn calls(prompt: &str, id: &str, call: &Call, played: &Played, found: &mut Found) -> Checked<()> {
    found.calls += 1;
    let [(outcome, said)] = &call.finished[..] else {
        return Err(format!("call {id} of {} has {} outcomes", call.name, call.finished.len()));
    };
    let Some(tool) = call.name.strip_prefix("t__") else {
        return holds(outcome == "ok", || format!("call {id} of {} is {outcome}: {said}", call.name));
    };
    let made = played.made.iter().filter(|made| made.n == call.n && made.tool == tool);
    let keys: BTreeSet<&str> = made.clone().map(|made| made.key.as_str()).collect();
    let (made, attempts) = (made.count(), call.sent.len());
    let never = || format!("call {id} of {tool} never left; it is {outcome}: {said}");
    let (_, key, _) = call.sent.first().ok_or_else(never)?;
    let numbered = call.sent.iter().zip(1..).all(|((_, k, attempt), n)| k == key && *attempt == n);
    holds(numbered, || format!("call {id} of {tool} left as {:?}", call.sent))?;
    holds(keys.iter().all(|k| k == key), || format!("call {id} of {tool} arrived as {keys:?}, written as {key}"))?;
    holds(made <= attempts, || format!("call {id} of {tool} was made {made} times in {attempts} attempts"))?;
    found.repeated += attempts.saturating_sub(1) as u64;
    let dangerous = matches!(tool, "once" | "asked");
    if dangerous {
        found.once += 1;
        holds(made <= 1 && attempts == 1, || format!("{tool} {} was made {made} times: a duplicate", call.n))?;
    }
    if tool == "veri" {
        holds(made <= 1, || format!("veri {} was made {made} times: a duplicate", call.n))?;
    }
    match outcome.as_str() {
        "ok" if tool == "veri" && said.starts_with("it happened, as t__seen says") => {
            holds(made == 1, || format!("veri {} is said to have happened, and did not", call.n))
        }
        "ok" => holds(made >= 1 && *said == done(tool, &call.n), || {
            format!("{tool} {} is said to be done ({said}), and was made {made} times", call.n)
        }),
        "unknown" => {
            found.unknown += 1;
            holds(dangerous || attempts == 3, || format!("{tool} {} is unknown after {attempts} attempts", call.n))?;
            holds(said.starts_with("unknown:") && said.contains(&call.n), || format!("it is told as {said}"))?;
            let heard = played.book.requests.iter().filter(|r| r.prompt == prompt).flat_map(|r| &r.told);
            let mut heard = heard.filter(|(of, words)| of == id && words.starts_with("unknown:"));
            holds(heard.next().is_some(), || format!("the model was not told that {tool} {} is unknown", call.n))
        }
        other => Err(format!("{tool} {} is {other}: {said}", call.n)),
    }
}

/// Nothing reached the world that is in no journal; no two calls share a key.
fn outside(runs: &BTreeMap<String, Run>, played: &Played) -> Checked<()> {
    let mut keys: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (id, run) in runs {
        for (call, of) in &run.calls {
            for (_, key, _) in &of.sent {
                let before = keys.insert(key, (id, call));
                let own = before.is_none_or(|of| of == (id.as_str(), call.as_str()));
                holds(own, || format!("calls {before:?} and {call} of {id} share a key"))?;
            }
        }
    }
    for made in &played.made {
        holds(keys.contains_key(made.key.as_str()), || format!("{made:?} is in no journal"))?;
    }
    let prompts: BTreeSet<&str> = runs.values().map(|run| run.sum.prompt.as_str()).collect();
    holds(prompts.len() == runs.len(), || format!("of {} runs two were asked the same: {prompts:?}", runs.len()))?;
    let stray = played.book.requests.iter().find(|r| !prompts.contains(r.prompt.as_str()));
    holds(stray.is_none(), || format!("{stray:?} is of no run"))
}
