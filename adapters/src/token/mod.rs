//! Grants that travel as tokens (Biscuit: a chain of signed blocks, of which each can only take
//! away). What a grant is, is `policies::claims`' business: here it is a text among facts.
//!
//! ```text
//!  authority block, signed with the key of whoever gives
//!    grant("{…}") chain("root policy > …") [message("…")] [principal("…")]
//!    check if audience("https://peer"); check if time($t), $t <= …
//!  each further block, signed by whoever held the token
//!    grant("{…}")                        met with all the others
//!    check if time($t), $t <= …          no longer than that either
//! ```
//!
//! Grants, chains and messages stand there as base64url: the library prints a text with the quotation
//! marks in it as they are, and blocks are read as they are printed.
//!
//! A further block has no word in who gives what to whom: it grants, and that can only take away.
//! A block cannot be taken off again: the key that could is not in the token any more.

mod key;
mod read;

pub use key::{Granter, is_key};
pub use read::{Block, Flaw, Presented, Reader, is_token, show};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use biscuit_auth::builder::Term;
use biscuit_auth::{BlockBuilder, UnverifiedBiscuit};
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest token that is read or written, characters: an HTTP header has to hold it.
pub const MAX: usize = 24 * 1024;
/// No grant is good for longer.
pub const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// What a token says.
#[derive(Debug, Clone, Default)]
pub struct Says<'a> {
    /// The grant, as `policies::claims` writes it.
    pub grant: &'a str,
    /// From whom it comes down, for people.
    pub chain: &'a str,
    /// The address it is shown at, and nowhere else.
    pub audience: &'a str,
    /// What it goes with: one message by its name and its digest, or one question about one task.
    pub message: Option<&'a str>,
    /// Of whom it is a part, where it comes back to whoever gave it.
    pub principal: Option<&'a str>,
}

type Params = HashMap<String, Term>;

/// A text of any characters, as it stands in a block.
fn text(params: &mut Params, key: &str, value: &str) {
    params.insert(key.into(), Term::Str(BASE64_URL_SAFE_NO_PAD.encode(value)));
}

/// A text out of a block.
fn plain(written: &str) -> Option<String> {
    BASE64_URL_SAFE_NO_PAD.decode(written).ok().and_then(|bytes| String::from_utf8(bytes).ok())
}

/// Facts and checks of an authority block.
fn code(says: &Says<'_>, until: SystemTime) -> (String, Params) {
    let mut code = String::from("grant({grant}); chain({chain});\n");
    let mut params = Params::new();
    text(&mut params, "grant", says.grant);
    text(&mut params, "chain", says.chain);
    for (name, value) in [("message", says.message), ("principal", says.principal)] {
        if let Some(value) = value {
            code.push_str(&format!("{name}({{{name}}});\n"));
            text(&mut params, name, value);
        }
    }
    code.push_str("check if audience({audience});\ncheck if time($t), $t <= {until};\n");
    params.insert("audience".into(), Term::Str(says.audience.into()));
    params.insert("until".into(), seconds(until));
    (code, params)
}

fn seconds(time: SystemTime) -> Term {
    Term::Date(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// A token with one more block: met with `grant`, and no longer than `until`. Needs no key: whoever
/// holds a token may take away from it.
///
/// # Errors
/// When it is no token, or was sealed.
pub fn attenuate(token: &str, grant: Option<&str>, until: Option<SystemTime>) -> Result<String, Flaw> {
    let token = UnverifiedBiscuit::from_base64(token).map_err(Flaw::form)?;
    let (mut code, mut params) = (String::new(), Params::new());
    if let Some(grant) = grant {
        code.push_str("grant({grant});\n");
        text(&mut params, "grant", grant);
    }
    if let Some(until) = until {
        code.push_str("check if time($t), $t <= {until};\n");
        params.insert("until".into(), seconds(until));
    }
    let block = BlockBuilder::new().code_with_params(code, params, HashMap::new()).map_err(Flaw::form)?;
    let longer = token.append(block).and_then(|token| token.to_base64()).map_err(Flaw::form)?;
    if longer.len() > MAX { Err(Flaw::Length(longer.len())) } else { Ok(longer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "https://b.test";

    fn granter(name: &str) -> (tempfile::TempDir, Granter) {
        let folder = tempfile::tempdir().unwrap();
        let granter = Granter::load(&folder.path().join(name)).unwrap();
        (folder, granter)
    }
    fn says(grant: &str) -> Says<'_> {
        Says { grant, chain: "root policy > run r-1 (a)", audience: HERE, message: Some("m-1"), ..Says::default() }
    }
    fn soon() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }
    fn reader(granter: &Granter) -> Reader {
        Reader::new([granter.public()])
    }

    #[test]
    fn a_token_says_what_it_was_given() {
        let (_folder, a) = granter("grants.key");
        let token = a.mint(&says("{\"max_access\":\"read-only\"}"), soon()).unwrap();
        assert!(is_token(&token));
        let got = reader(&a).read(&token, SystemTime::now()).unwrap();
        assert_eq!(got.by, a.public());
        assert_eq!(got.grants, ["{\"max_access\":\"read-only\"}"]);
        assert_eq!((got.message.as_deref(), got.principal, got.audience.as_str()), (Some("m-1"), None, HERE));
        assert_eq!(got.chain, "root policy > run r-1 (a)");
    }

    #[test]
    fn every_other_hand_and_time_is_refused() {
        let (_folder, a) = granter("grants.key");
        let (_other, stranger) = granter("grants.key");
        let now = SystemTime::now();
        let token = a.mint(&says("{}"), soon()).unwrap();
        let refused = |token: &str, reader: &Reader, now: SystemTime| reader.read(token, now).unwrap_err();
        assert_eq!(refused(&token, &reader(&stranger), now), Flaw::Stranger);
        assert_eq!(refused(&token, &reader(&a), now + Duration::from_secs(90)), Flaw::Time("it is not good any more"));
        // One for ever, whoever signed it.
        let long = a.mint(&says("{}"), now + PATIENCE * 2).unwrap();
        assert!(matches!(refused(&long, &reader(&a), now), Flaw::Time(_)));
        let forged = stranger.mint(&says("{}"), soon()).unwrap();
        assert_eq!(refused(&forged, &reader(&a), now), Flaw::Stranger);
        // Any byte of it changed.
        for at in 0..token.len() {
            let mut torn = token.clone().into_bytes();
            torn[at] = if torn[at] == b'A' { b'B' } else { b'A' };
            if let Ok(got) = reader(&a).read(std::str::from_utf8(&torn).unwrap(), now) {
                // Bits that stand for nothing, at its very end: it says what it said.
                assert_eq!(Ok(got), reader(&a).read(&token, now), "byte {at} of {}", token.len());
            }
        }
    }

    fn with(token: &str, code: &str) -> String {
        let block = BlockBuilder::new().code(code).unwrap();
        UnverifiedBiscuit::from_base64(token).unwrap().append(block).unwrap().to_base64().unwrap()
    }

    #[test]
    fn whoever_holds_it_can_only_take_away() {
        let (_folder, a) = granter("grants.key");
        let now = SystemTime::now();
        let token = a.mint(&says("{\"max_access\":\"read-only\"}"), soon()).unwrap();
        let less = attenuate(&token, Some("{\"domains\":[]}"), Some(now + Duration::from_secs(5))).unwrap();
        let got = reader(&a).read(&less, now).unwrap();
        assert_eq!(got.grants, ["{\"max_access\":\"read-only\"}", "{\"domains\":[]}"]);
        assert_eq!(got.message.as_deref(), Some("m-1"));
        assert!(reader(&a).read(&less, now + Duration::from_secs(10)).is_err());
        // A longer time beside the shorter one is no longer time.
        let longer = attenuate(&less, None, Some(now + Duration::from_secs(50))).unwrap();
        assert!(reader(&a).read(&longer, now).is_ok());
        assert!(reader(&a).read(&longer, now + Duration::from_secs(10)).is_err());
        // Nothing else is theirs to say, and nothing they say is evaluated.
        for code in [
            "message(\"bS0y\")",
            "principal(\"cm9vdA\")",
            "chain(\"bWU\")",
            "audience(\"https://c.test\")",
            "check if audience(\"https://c.test\")",
            "grant(\"e30\") <- chain($c)",
            "grant(1)",
            "grant(\"e30\", \"e30\")",
            "grant(\"{}\")",
            "check if true",
            "check if time($t), $t >= 2020-01-01T00:00:00Z",
            "check all time($t), $t <= 2099-01-01T00:00:00Z",
            "reject if time($t), $t <= 2099-01-01T00:00:00Z",
            "n(0); n(1); n(2); check if n($a), n($b), n($c), n($d), $a + $b + $c + $d < 0",
            "check if [1,2,3].all($x -> [1,2,3].any($y -> $x + $y > 9))",
        ] {
            let said = with(&token, code);
            assert!(matches!(reader(&a).read(&said, now), Err(Flaw::Form(_))), "{code}");
        }
        // The twin: a grant in their own words, without our code.
        assert!(reader(&a).read(&with(&token, "grant(\"e30\")"), now).is_ok());
        // What breaks out of its quotation marks is in a block of theirs all the same.
        for code in ["grant({x})", "check if audience({x})"] {
            let broken = "e30\"); message(\"bS0y\"); principal(\"cm9vdA";
            let params = HashMap::from([("x".to_owned(), Term::Str(broken.into()))]);
            let block = BlockBuilder::new().code_with_params(code, params, HashMap::new()).unwrap();
            let said = UnverifiedBiscuit::from_base64(&token).unwrap().append(block).unwrap().to_base64().unwrap();
            assert!(matches!(reader(&a).read(&said, now), Err(Flaw::Form(_))), "{code}");
        }
    }

    #[test]
    fn a_large_or_long_one_is_refused_in_time() {
        let (_folder, a) = granter("grants.key");
        let token = a.mint(&says("{}"), soon()).unwrap();
        // What is written once and meant often.
        let often = "\"".to_owned() + &"x".repeat(4_000) + "\",";
        let code = format!("grant([{}])", often.repeat(1_000).trim_end_matches(','));
        let begun = std::time::Instant::now();
        assert!(reader(&a).read(&with(&token, &code), SystemTime::now()).is_err());
        assert!(begun.elapsed() < Duration::from_secs(5));
        // So many blocks are no delegation either.
        let mut long = token;
        for _ in 0..read::MAX_BLOCKS {
            long = attenuate(&long, Some("{}"), None).unwrap();
        }
        assert!(matches!(reader(&a).read(&long, SystemTime::now()), Err(Flaw::Blocks(_) | Flaw::Length(_))));
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        for text in ["", "abc", "pleach_0123456789abcdef0123456789abcdef", "a.b.c", &"A".repeat(400)] {
            assert!(!is_token(text), "{text}");
        }
    }
}
