//! Standing rules: what a person said yes to for more than one call. A rule answers a question that
//! would otherwise be put to a person, and nothing else:
//!
//! ```text
//!  decide ─┬─ deny ──────────────────────────▶ deny
//!          ├─ allow ─────────────────────────▶ allow
//!          └─ ask ─▶ a rule for this asker, ─┬─ yes ▶ allow, and the record names the rule
//!                    this tool as it was,    └─ no ─▶ ask
//!                    these paths?
//! ```
//!
//! So whatever rules stand, nothing is allowed that the grant does not allow or leave to a person.
//! A rule belongs to the chain it was given to, and to whoever asked: a client's own calls are not
//! its runs', even where both come under the same agent's policy, and a parent's are not its child's.

use crate::action::{Call, Touched};
use crate::permit::Verdict;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Whose calls a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// The client's own, through a door.
    Client,
    /// Its runs'.
    Run,
}

/// A rule that a person made by an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// `a-…`
    pub id: String,
    /// The client whose calls it is about, or whose runs'.
    pub principal: String,
    /// Who of them asked: it is good for such calls and no others.
    pub whose: Whose,
    /// The one run it is good for; `None`: any of this chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Who asked, from the root policy down: it is good for this chain and no other.
    pub chain: Vec<String>,
    /// The tool.
    pub tool: String,
    /// The hash of its manifest: a tool that changed is asked about again.
    pub manifest: String,
    /// The hash of who its server is: so is the same tool of another command or address.
    pub server: String,
    /// Where every path of a call must lie; `None`: whatever it touches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<PathBuf>>,
    /// Who made it.
    pub by: String,
    /// When, milliseconds since 1970 UTC.
    pub at: u64,
    /// The question it answered.
    pub question: String,
}

/// Who would be asking.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The client.
    pub principal: &'a str,
    /// The run, if it is one.
    pub run: Option<&'a str>,
    /// From the root policy down.
    pub chain: &'a [&'a str],
}

impl Asker<'_> {
    /// Whose call it would be.
    fn whose(&self) -> Whose {
        if self.run.is_some() { Whose::Run } else { Whose::Client }
    }
}

impl Standing {
    /// Whether it says yes to this call of this asker.
    pub fn answers(&self, asker: Asker<'_>, call: &Call) -> bool {
        let asked = self.principal == asker.principal
            && self.whose == asker.whose()
            && self.run.as_deref().is_none_or(|run| asker.run == Some(run))
            && self.chain.iter().map(String::as_str).eq(asker.chain.iter().copied());
        let Call { tool, .. } = call;
        let tool = self.tool == tool.name && self.manifest == tool.hash && self.server == tool.identity;
        asked && tool && self.paths.as_deref().is_none_or(|paths| lie_within(call, paths))
    }
    /// What it is good for, in words.
    pub fn in_words(&self) -> String {
        let run = match (&self.run, self.whose) {
            (Some(run), _) => format!(" in {run}"),
            (None, Whose::Run) => " in any run".into(),
            (None, Whose::Client) => " by the client itself".into(),
        };
        let paths = self.paths.as_ref().map(|paths| {
            let shown: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
            format!(" within {}", shown.join(", "))
        });
        format!("{}{}{run} for {}", self.tool, paths.unwrap_or_default(), self.chain.join(" > "))
    }
}

/// Whether a call touches paths, all of them within these, and nothing else.
fn lie_within(call: &Call, paths: &[PathBuf]) -> bool {
    let lies = |what: &Touched| match what {
        Touched::Path(_, path) => paths.iter().any(|folder| path.starts_with(folder)),
        Touched::Host(..) | Touched::Unclear(_) => false,
    };
    !call.touches.is_empty() && call.touches.iter().all(|touch| lies(&touch.what))
}

/// The verdict with what stands: a question that a rule answers is none any more. Deny stays deny.
pub fn answered(verdict: Verdict<Call>, asker: Asker<'_>, rules: &[Standing]) -> Verdict<Call> {
    let Verdict::Ask(question) = verdict else { return verdict };
    match rules.iter().find(|rule| rule.answers(asker, question.what())) {
        None => Verdict::Ask(question),
        Some(rule) => {
            let permit = question.approve(&format!("standing rule {} by {}", rule.id, rule.by));
            let rule = permit.rule().clone();
            Verdict::Allow(permit, rule)
        }
    }
}
