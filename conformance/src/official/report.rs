//! What the suite says, and what it should have said.

use std::process::Command;

/// Which side was under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Servers,
    Clients,
}

#[derive(Debug)]
struct Scenario {
    name: String,
    passed: u32,
    failed: u32,
    scored: bool,
}

/// The outcome of one run.
#[derive(Debug)]
pub(super) struct Report {
    scenarios: Vec<Scenario>,
    wanted: usize,
}

impl Report {
    /// Runs the suite and reads its summary.
    pub(super) fn run(command: &mut Command, suite: &str, side: Wanted) -> Result<Self, String> {
        let ran = command.output().map_err(|e| format!("{command:?}: {e}"))?;
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        let Some((_, summary)) = text.split_once("SUMMARY ===") else {
            return Err(format!("the suite said nothing: {text}{}", String::from_utf8_lossy(&ran.stderr)));
        };
        let unscored: Vec<&str> = summary.lines().filter_map(unscored).collect();
        let scenarios: Vec<Scenario> = summary.lines().filter_map(|l| scenario(l, &unscored)).collect();
        // How many the frozen requirement sets score.
        let wanted = match (side, suite) {
            (Wanted::Servers, "2025-11-25") => 30,
            (Wanted::Servers, _) => 37,
            (Wanted::Clients, "2025-11-25") => 18,
            (Wanted::Clients, _) => 32,
        };
        Ok(Self { scenarios, wanted })
    }

    /// In one line.
    pub(super) fn summary(&self) -> String {
        let scored: Vec<&Scenario> = self.scenarios.iter().filter(|s| s.scored).collect();
        let good = scored.iter().filter(|s| s.failed == 0).count();
        let others = self.scenarios.len() - scored.len();
        let other_good = self.scenarios.iter().filter(|s| !s.scored && s.failed == 0).count();
        let checks: u32 = self.scenarios.iter().map(|s| s.passed).sum();
        let failed: u32 = self.scenarios.iter().map(|s| s.failed).sum();
        format!(
            "{good}/{} scored scenarios, {other_good}/{others} unscored; {checks} checks passed, {failed} failed",
            scored.len()
        )
    }

    /// What is not as it should be: a scenario that failed without excuse, an excuse that no
    /// longer excuses anything, a scenario that was not run.
    pub(super) fn judge(&self, excused: impl Fn(&str) -> Option<&'static str>) -> Vec<String> {
        let mut wrong = Vec::new();
        let scored = self.scenarios.iter().filter(|s| s.scored).count();
        if scored != self.wanted {
            wrong.push(format!("{scored} scored scenarios were run, not {}", self.wanted));
        }
        for scenario in &self.scenarios {
            match (scenario.failed, excused(&scenario.name)) {
                (0, None) => {}
                (failed, Some(why)) if failed > 0 => println!("  - {}: {why}", scenario.name),
                (0, Some(_)) if !scenario.scored => {}
                (0, Some(_)) => wrong.push(format!("{} passes; strike its excuse", scenario.name)),
                (failed, _) => wrong.push(format!("{}: {failed} checks failed", scenario.name)),
            }
        }
        wrong
    }
}

/// `✓ name: 2 passed, 0 failed`
fn scenario(line: &str, unscored: &[&str]) -> Option<Scenario> {
    let rest = line.strip_prefix("✓ ").or_else(|| line.strip_prefix("✗ "))?;
    let (name, counts) = rest.split_once(": ")?;
    let (passed, failed) = counts.split_once(" passed, ")?;
    Some(Scenario {
        name: name.to_owned(),
        passed: passed.parse().ok()?,
        failed: failed.split(' ').next()?.parse().ok()?,
        scored: !unscored.contains(&name),
    })
}

/// `  ✓ name (pending)`
fn unscored(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("  ✓ ").or_else(|| line.strip_prefix("  ✗ "))?;
    rest.split_once(" (").map(|(name, _)| name)
}
