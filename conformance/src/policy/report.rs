//! What came of each case, and the table at the end.

use super::arena::Arena;
use super::{Act, Case, FAMILIES, Happened};
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// What came of a case.
pub(super) struct Verdict {
    attack: Happened,
    twin: Happened,
}

/// How a case counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Held,
    Gap,
    Missed,
}

impl Verdict {
    /// Of a case that was not judged.
    pub(super) fn lost() -> Self {
        let lost = || Err("it was not judged".to_owned());
        Self { attack: lost(), twin: lost() }
    }
    fn word(&self, case: &Case) -> Word {
        match (&self.attack, &self.twin, case.gap) {
            (Ok(false), Ok(true), None) => Word::Held,
            (Ok(true), Ok(true), Some(_)) => Word::Gap,
            _ => Word::Missed,
        }
    }
    fn why(&self, case: &Case) -> String {
        let attack = match (&self.attack, case.gap) {
            (Ok(false), None) => None,
            (Ok(true), None) => Some("the attack HAPPENED".to_owned()),
            (Ok(true), Some(_)) => None,
            (Ok(false), Some(_)) => Some("a listed gap is closed; take it off the list".to_owned()),
            (Err(why), _) => Some(format!("the attack could not be tried: {why}")),
        };
        let twin = match &self.twin {
            Ok(true) => None,
            Ok(false) => Some("the twin was STOPPED".to_owned()),
            Err(why) => Some(format!("the twin could not be tried: {why}")),
        };
        [attack, twin].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// Tries both halves of a case.
pub(super) fn judge(case: &Case, arena: &Arena) -> Verdict {
    Verdict { attack: attempt(&case.attack, arena), twin: attempt(&case.twin, arena) }
}

fn attempt(act: &Act, arena: &Arena) -> Happened {
    let told = |panic: Box<dyn std::any::Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(_) => "it panicked".to_owned(),
    };
    catch_unwind(AssertUnwindSafe(|| act(arena))).unwrap_or_else(|panic| Err(told(panic)))
}

/// One line as soon as it is known: every case as JSON, else only what did not hold.
pub(super) fn line(case: &Case, verdict: &Verdict, json: bool) {
    let word = verdict.word(case);
    if json {
        let word = match word {
            Word::Held => "held",
            Word::Gap => "gap",
            Word::Missed => "missed",
        };
        let line = json!({
            "id": case.id, "family": case.family(), "says": case.says, "outcome": word, "why": verdict.why(case),
            "stopped": verdict.attack.as_ref().ok().map(|happened| !happened),
            "passed": verdict.twin.as_ref().ok(),
            "gap": case.gap.map(|gap| json!({ "why": gap.why, "closes": gap.closes, "kernel": kernel() })),
        });
        println!("{line}");
    } else if word == Word::Missed {
        println!("{} {}: {}", case.id, case.says, verdict.why(case));
    }
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// The table, and the gaps.
///
/// # Errors
/// How many cases did not hold.
pub(super) fn tell(cases: &[Case], verdicts: &[Verdict], took: Duration, json: bool) -> Result<(), String> {
    let all: Vec<(&Case, &Verdict)> = cases.iter().zip(verdicts).collect();
    let missed = all.iter().filter(|(case, verdict)| verdict.word(case) == Word::Missed).count();
    if !json {
        println!("\n  family               cases  attacks stopped   twins passed   gaps");
        let mut sum = [0; 4];
        for (letter, name, _) in FAMILIES {
            let own: Vec<_> = all.iter().filter(|(case, _)| case.family() == letter).collect();
            if own.is_empty() {
                continue;
            }
            let stopped = own.iter().filter(|(_, v)| matches!(v.attack, Ok(false))).count();
            let passed = own.iter().filter(|(_, v)| matches!(v.twin, Ok(true))).count();
            let gaps = own.iter().filter(|(c, _)| c.gap.is_some()).count();
            row(&format!("{letter} {name}"), [own.len(), stopped, passed, gaps]);
            sum = [sum[0] + own.len(), sum[1] + stopped, sum[2] + passed, sum[3] + gaps];
        }
        row("all", sum);
        for (case, _) in all.iter().filter(|(case, _)| case.gap.is_some()) {
            let Some(gap) = case.gap else { continue };
            println!("  gap {} {} (kernel {}): {}. Closed by: {}.", case.id, case.says, kernel(), gap.why, gap.closes);
        }
        println!("  {} s", took.as_secs());
    }
    if missed == 0 { Ok(()) } else { Err(format!("{missed} of {} cases did not hold", all.len())) }
}

fn row(name: &str, [cases, stopped, passed, gaps]: [usize; 4]) {
    println!(
        "  {name:20} {cases:>5}  {:>15}  {:>13}  {gaps:>5}",
        format!("{stopped}/{}", cases - gaps),
        format!("{passed}/{cases}")
    );
}
