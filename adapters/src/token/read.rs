//! What a token says to whoever is shown it. The signature is looked at first, so nothing that a
//! stranger wrote is read any further. And nothing is evaluated, whoever wrote it: a block holds
//! grants, an audience and times, in the forms written here, or the whole token is refused. A check
//! of any other kind could take for ever, and one that is passed over would not hold.

use super::{MAX, PATIENCE, plain};
use biscuit_auth::builder::{Binary, Check, CheckKind, Expression, Fact, Op, Term};
use biscuit_auth::{BlockBuilder, PublicKey, UnverifiedBiscuit, error};
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Most blocks of a token, the first one included: the hands it may have gone through.
pub(super) const MAX_BLOCKS: usize = 16;

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It cannot be read.
    #[error("it is no grant: {0}")]
    Form(String),
    /// None of the keys signed it.
    #[error("no key that is known here signed it")]
    Stranger,
    /// It is over, or good for too long.
    #[error("{0}")]
    Time(&'static str),
    /// More than anybody needs.
    #[error("it has {0} blocks; {MAX_BLOCKS} are the most")]
    Blocks(usize),
    /// Longer than a header is.
    #[error("it has {0} characters; {MAX} are the most")]
    Length(usize),
}

impl Flaw {
    pub(super) fn form(e: impl std::fmt::Display) -> Self {
        Flaw::Form(e.to_string())
    }
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Whose key signed it.
    pub by: String,
    /// What it grants: all of these together.
    pub grants: Vec<String>,
    /// From whom it came down.
    pub chain: String,
    /// Where it is good.
    pub audience: String,
    /// What it goes with.
    pub message: Option<String>,
    /// Of whom it is a part.
    pub principal: Option<String>,
    /// When it is good no more, seconds since 1970.
    pub until: u64,
}

/// Whether a text is such a token at all, whoever signed it.
pub fn is_token(text: &str) -> bool {
    // The shortest has two keys and two signatures.
    (200..=MAX).contains(&text.len()) && !text.contains('.') && UnverifiedBiscuit::from_base64(text).is_ok()
}

/// Reads the tokens of some keys.
#[derive(Debug, Clone, Default)]
pub struct Reader(Vec<(String, PublicKey)>);

/// What a block says.
#[derive(Default)]
struct Said {
    facts: Vec<(String, String)>,
    audiences: Vec<String>,
    untils: Vec<u64>,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.facts.iter().try_for_each(|(name, value)| writeln!(f, "{name} {value}"))?;
        self.audiences.iter().try_for_each(|audience| writeln!(f, "audience {audience}"))?;
        self.untils.iter().try_for_each(|until| writeln!(f, "until {until} (seconds since 1970)"))
    }
}

impl Reader {
    /// Of these keys, as [`super::Granter::public`] writes them; what is no key is passed over.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self(keys.into_iter().filter_map(|key| Some((key.to_owned(), PublicKey::from_str(key).ok()?))).collect())
    }

    /// What a token says now. Whether it is good where it is shown is for whoever is there to say.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn read(&self, token: &str, now: SystemTime) -> Result<Presented, Flaw> {
        if token.len() > MAX {
            return Err(Flaw::Length(token.len()));
        }
        let token = UnverifiedBiscuit::from_base64(token).map_err(Flaw::form)?;
        let count = token.block_count();
        if count > MAX_BLOCKS {
            return Err(Flaw::Blocks(count));
        }
        let signed = |key: &PublicKey| token.clone().verify(*key).is_ok();
        let (by, _) = self.0.iter().find(|(_, key)| signed(key)).ok_or(Flaw::Stranger)?;
        if token.external_public_keys().iter().any(Option::is_some) {
            return Err(Flaw::Form("a third party wrote a block of it".into()));
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let first = block(&token, 0)?;
        let one = |name: &str| -> Result<Option<String>, Flaw> {
            let mut found = first.facts.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone());
            match (found.next(), found.next()) {
                (found, None) => Ok(found),
                _ => Err(Flaw::Form(format!("it says {name} twice"))),
            }
        };
        let [audience] = first.audiences.as_slice() else {
            return Err(Flaw::Form("its first block names one audience".into()));
        };
        // Whatever a stranger's clock says, a grant is not for ever.
        if first.untils.iter().min().is_none_or(|until| until.saturating_sub(now) > PATIENCE.as_secs()) {
            return Err(Flaw::Time("a grant is good for a day at most"));
        }
        let mut presented = Presented {
            by: by.clone(),
            grants: Vec::new(),
            chain: one("chain")?.unwrap_or_default(),
            audience: audience.clone(),
            message: one("message")?,
            principal: one("principal")?,
            until: u64::MAX,
        };
        for at in 0..count {
            let said = block(&token, at)?;
            if said.untils.iter().any(|until| *until < now) {
                return Err(Flaw::Time("it is not good any more"));
            }
            presented.until = said.untils.iter().copied().fold(presented.until, u64::min);
            if said.audiences.iter().any(|other| other != audience) {
                return Err(Flaw::Form("it names two audiences".into()));
            }
            for (name, value) in said.facts {
                match name.as_str() {
                    "grant" => presented.grants.push(value),
                    // Of whom it is and what it goes with, only who gave it says.
                    _ if at == 0 => {}
                    _ => return Err(Flaw::Form(format!("a holder of it says {name}, which is not theirs to say"))),
                }
            }
        }
        match presented.grants.len() {
            0 => Err(Flaw::Form("it grants nothing".into())),
            1..=MAX_BLOCKS => Ok(presented),
            more => Err(Flaw::Blocks(more)),
        }
    }
}

/// What a block says, where that is in the forms of [`super::code`].
fn block(token: &UnverifiedBiscuit, at: usize) -> Result<Said, Flaw> {
    let source = token.print_block_source(at).map_err(Flaw::form)?;
    let block = BlockBuilder::new().code(&source).map_err(|e: error::Token| Flaw::form(e))?;
    let other = || Flaw::Form(format!("block {at} says more than grants, an audience and times"));
    if !block.rules.is_empty() || !block.scopes.is_empty() {
        return Err(other());
    }
    let mut said = Said::default();
    for fact in &block.facts {
        said.facts.push(named(fact).ok_or_else(other)?);
    }
    for check in &block.checks {
        match limit(check).ok_or_else(other)? {
            Limit::Audience(audience) => said.audiences.push(audience),
            Limit::Until(until) => said.untils.push(until),
        }
    }
    Ok(said)
}

/// `name("text")`, of the names that are known.
fn named(fact: &Fact) -> Option<(String, String)> {
    let name = fact.predicate.name.as_str();
    let known = ["grant", "chain", "message", "principal"].contains(&name);
    match fact.predicate.terms.as_slice() {
        [Term::Str(value)] if known => Some((name.to_owned(), plain(value)?)),
        _ => None,
    }
}

enum Limit {
    Audience(String),
    Until(u64),
}

/// `check if audience("…")` and `check if time($t), $t <= DATE`.
fn limit(check: &Check) -> Option<Limit> {
    let [query] = check.queries.as_slice() else { return None };
    let [predicate] = query.body.as_slice() else { return None };
    if check.kind != CheckKind::One || !query.scopes.is_empty() {
        return None;
    }
    match (predicate.name.as_str(), predicate.terms.as_slice(), query.expressions.as_slice()) {
        ("audience", [Term::Str(audience)], []) => Some(Limit::Audience(audience.clone())),
        ("time", [Term::Variable(time)], [Expression { ops }]) => match ops.as_slice() {
            [Op::Value(Term::Variable(compared)), Op::Value(Term::Date(until)), Op::Binary(Binary::LessOrEqual)]
                if compared == time =>
            {
                Some(Limit::Until(*until))
            }
            _ => None,
        },
        _ => None,
    }
}

/// A block of a token as it was written, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its facts, rules and checks.
    pub source: String,
    /// Its revocation id, in hexadecimal.
    pub id: String,
}

/// All blocks of a token, unverified.
///
/// # Errors
/// When it is no token.
pub fn show(token: &str) -> Result<Vec<Block>, Flaw> {
    let token = UnverifiedBiscuit::from_base64(token).map_err(Flaw::form)?;
    let ids = token.revocation_identifiers();
    (0..token.block_count())
        .map(|at| {
            let source = match block(&token, at) {
                Ok(said) => said.to_string(),
                Err(_) => token.print_block_source(at).map_err(Flaw::form)?,
            };
            let id = ids.get(at).map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()).unwrap_or_default();
            Ok(Block { source, id })
        })
        .collect()
}
