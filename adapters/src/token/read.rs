//! What a token says to whoever is shown it. The signature is looked at first, so nothing that a
//! stranger wrote is evaluated; then everything that the holders of the token added, within limits.

use super::MAX;
use biscuit_auth::builder::Term;
use biscuit_auth::{AuthorizerBuilder, AuthorizerLimits, Biscuit, PublicKey, UnverifiedBiscuit, error};
use std::collections::HashMap;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// Most blocks of a token: the hops it may have made.
pub(super) const MAX_BLOCKS: usize = 16;
/// The library's own limit is a millisecond of the clock on the wall, which a loaded machine
/// passes with a good token.
const PATIENCE: Duration = Duration::from_millis(250);
const MAX_FACTS: u64 = 500;
const MAX_ITERATIONS: u64 = 50;

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It cannot be read.
    #[error("it is no grant: {0}")]
    Form(String),
    /// None of the keys signed it.
    #[error("no key that is known here signed it")]
    Stranger,
    /// Its own checks: another audience, too late, or what a holder added.
    #[error("{0}")]
    Checks(String),
    /// More than anybody needs.
    #[error("it has {0} blocks; {MAX_BLOCKS} are the most")]
    Blocks(usize),
    /// Longer than a header is.
    #[error("it has {0} characters; {MAX} are the most")]
    Length(usize),
    /// Reading it takes more than a grant does.
    #[error("it takes more to read than a grant does")]
    Limits,
}

impl Flaw {
    pub(super) fn form(e: impl std::fmt::Display) -> Self {
        Flaw::Form(e.to_string())
    }
    fn of(e: error::Token) -> Self {
        match e {
            error::Token::RunLimit(_) => Flaw::Limits,
            error::Token::Format(
                error::Format::Signature(_) | error::Format::SealedSignature | error::Format::UnknownPublicKey,
            ) => Flaw::Stranger,
            error::Token::FailedLogic(
                error::Logic::Unauthorized { checks, .. } | error::Logic::NoMatchingPolicy { checks },
            ) => {
                let failed: Vec<String> = checks.iter().map(rule).collect();
                Flaw::Checks(format!("it does not hold here and now: {}", failed.join("; ")))
            }
            other => Flaw::form(other),
        }
    }
}

/// A check that failed, as it was written.
fn rule(check: &error::FailedCheck) -> String {
    match check {
        error::FailedCheck::Block(check) => check.rule.clone(),
        error::FailedCheck::Authorizer(check) => check.rule.clone(),
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
    /// The one message it goes with.
    pub message: Option<String>,
    /// Of whom it is a part.
    pub principal: Option<String>,
    /// The run it is good as long as.
    pub run: Option<String>,
}

/// Whether a text is such a token at all, whoever signed it.
pub fn is_token(text: &str) -> bool {
    // The shortest has two keys and two signatures.
    (200..=MAX).contains(&text.len()) && !text.contains('.') && UnverifiedBiscuit::from_base64(text).is_ok()
}

/// Reads the tokens of some keys.
#[derive(Debug, Clone, Default)]
pub struct Reader(Vec<(String, PublicKey)>);

impl Reader {
    /// Of these keys, as [`super::Granter::public`] writes them; what is no key is passed over.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self(keys.into_iter().filter_map(|key| Some((key.to_owned(), PublicKey::from_str(key).ok()?))).collect())
    }

    /// What a token says at `audience`, now.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn read(&self, token: &str, audience: &str, now: SystemTime) -> Result<Presented, Flaw> {
        if token.len() > MAX {
            return Err(Flaw::Length(token.len()));
        }
        let unverified = UnverifiedBiscuit::from_base64(token).map_err(Flaw::form)?;
        // The first block is everybody's; the others are hops.
        if unverified.block_count() > MAX_BLOCKS {
            return Err(Flaw::Blocks(unverified.block_count()));
        }
        let signed = |key: &PublicKey| -> Option<Biscuit> { unverified.clone().verify(*key).ok() };
        let (by, token) = self.0.iter().find_map(|(by, key)| Some((by, signed(key)?))).ok_or(Flaw::Stranger)?;
        let mut params = HashMap::from([("audience".to_owned(), Term::Str(audience.to_owned()))]);
        params.insert("now".into(), super::seconds(now));
        let code = "audience({audience}); time({now}); allow if grant($g);";
        let limits = AuthorizerLimits { max_facts: MAX_FACTS, max_iterations: MAX_ITERATIONS, max_time: PATIENCE };
        let mut authorizer = AuthorizerBuilder::new()
            .code_with_params(code, params, HashMap::new())
            .map_err(Flaw::of)?
            .set_limits(limits)
            .build(&token)
            .map_err(Flaw::of)?;
        authorizer.authorize().map_err(Flaw::of)?;
        let grants: Vec<(String,)> = authorizer.query_all("data($g) <- grant($g)").map_err(Flaw::of)?;
        // What the first block says, and nobody else's word.
        let mut first = |rule: &str| -> Result<Option<String>, Flaw> {
            let found: Vec<(String,)> = authorizer.query(rule).map_err(Flaw::of)?;
            match found.len() {
                0 | 1 => Ok(found.into_iter().next().map(|(text,)| text)),
                _ => Err(Flaw::Form("it says two things of one kind".into())),
            }
        };
        Ok(Presented {
            by: by.clone(),
            chain: first("data($c) <- chain($c)")?.unwrap_or_default(),
            message: first("data($m) <- message($m)")?,
            principal: first("data($p) <- principal($p)")?,
            run: first("data($r) <- run($r)")?,
            grants: grants.into_iter().map(|(grant,)| grant).collect(),
        })
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
            let source = token.print_block_source(at).map_err(Flaw::form)?;
            let id = ids.get(at).map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()).unwrap_or_default();
            Ok(Block { source, id })
        })
        .collect()
}
