//! Grants that travel as tokens (Biscuit: a chain of signed blocks, of which each can only take
//! away). What a grant is, is `policies::claims`' business: here it is a text among facts.
//!
//! ```text
//!  authority block, signed with the key of whoever gives
//!    grant("{…}") chain("root policy > …") [message("…")] [principal("…") run("…")]
//!    check if audience("https://peer"); check if time($t), $t <= …
//!  each further block, signed by whoever held the token
//!    grant("{…}")                        met with all the others
//!    check if …                          what has to hold besides
//! ```
//!
//! Facts of a further block say nothing of who gives what to whom: only its grants are read, and
//! those can only take away. A block cannot be taken off again: the key that could is not in the
//! token any more.

mod key;
mod read;

pub use key::{Granter, is_key};
pub use read::{Block, Flaw, Presented, Reader, is_token, show};

use biscuit_auth::builder::Term;
use biscuit_auth::{BlockBuilder, UnverifiedBiscuit};
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest token that is read or written, characters: an HTTP header has to hold it.
pub const MAX: usize = 48 * 1024;

/// What a token says.
#[derive(Debug, Clone, Default)]
pub struct Says<'a> {
    /// The grant, as `policies::claims` writes it.
    pub grant: &'a str,
    /// From whom it comes down, for people.
    pub chain: &'a str,
    /// The origin it is shown at, and nowhere else: `https://host[:port]`.
    pub audience: &'a str,
    /// The one message it goes with: its name and its digest.
    pub message: Option<&'a str>,
    /// Of whom it is a part, where it comes back to whoever gave it.
    pub principal: Option<&'a str>,
    /// The run it is good as long as.
    pub run: Option<&'a str>,
}

type Params = HashMap<String, Term>;

fn text(params: &mut Params, key: &str, value: &str) {
    params.insert(key.into(), Term::Str(value.into()));
}

/// Facts and checks of an authority block.
fn code(says: &Says<'_>, until: SystemTime) -> (String, Params) {
    let mut code = String::from("grant({grant}); chain({chain});\n");
    let mut params = Params::new();
    text(&mut params, "grant", says.grant);
    text(&mut params, "chain", says.chain);
    for (name, value) in [("message", says.message), ("principal", says.principal), ("run", says.run)] {
        if let Some(value) = value {
            code.push_str(&format!("{name}({{{name}}});\n"));
            text(&mut params, name, value);
        }
    }
    code.push_str("check if audience({audience});\ncheck if time($t), $t <= {until};\n");
    text(&mut params, "audience", says.audience);
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
    use std::time::Duration;

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
        let got = reader(&a).read(&token, HERE, SystemTime::now()).unwrap();
        assert_eq!(got.by, a.public());
        assert_eq!(got.grants, ["{\"max_access\":\"read-only\"}"]);
        assert_eq!((got.message.as_deref(), got.principal, got.run), (Some("m-1"), None, None));
        assert_eq!(got.chain, "root policy > run r-1 (a)");
    }

    #[test]
    fn every_other_hand_place_and_time_is_refused() {
        let (_folder, a) = granter("grants.key");
        let (_other, stranger) = granter("grants.key");
        let now = SystemTime::now();
        let token = a.mint(&says("{}"), soon()).unwrap();
        let refused =
            |token: &str, reader: &Reader, at: &str, now: SystemTime| reader.read(token, at, now).unwrap_err();
        assert!(matches!(refused(&token, &reader(&stranger), HERE, now), Flaw::Stranger));
        assert!(matches!(refused(&token, &reader(&a), "https://c.test", now), Flaw::Checks(_)));
        assert!(matches!(refused(&token, &reader(&a), HERE, now + Duration::from_secs(90)), Flaw::Checks(_)));
        // One that names the right key and was signed with another.
        let forged = stranger.mint(&says("{}"), soon()).unwrap();
        assert!(matches!(refused(&forged, &reader(&a), HERE, now), Flaw::Stranger));
        // Any byte of it changed.
        for at in 0..token.len() {
            let mut torn = token.clone().into_bytes();
            torn[at] = if torn[at] == b'A' { b'B' } else { b'A' };
            if let Ok(got) = reader(&a).read(std::str::from_utf8(&torn).unwrap(), HERE, now) {
                // Bits of base64 that stand for nothing, at its very end.
                assert!(at + 4 > token.len() && got.grants == ["{}"], "byte {at}");
            }
        }
    }

    #[test]
    fn whoever_holds_it_can_only_take_away() {
        let (_folder, a) = granter("grants.key");
        let now = SystemTime::now();
        let token = a.mint(&says("{\"max_access\":\"read-only\"}"), soon()).unwrap();
        let less = attenuate(&token, Some("{\"domains\":[]}"), Some(now + Duration::from_secs(5))).unwrap();
        let got = reader(&a).read(&less, HERE, now).unwrap();
        let mut grants = got.grants.clone();
        grants.sort();
        assert_eq!(grants, ["{\"domains\":[]}", "{\"max_access\":\"read-only\"}"]);
        assert!(reader(&a).read(&less, HERE, now + Duration::from_secs(10)).is_err());
        // Facts of a holder's own block are nobody's word: no other message, principal or chain.
        let block = BlockBuilder::new()
            .code("message(\"m-2\"); principal(\"root\"); chain(\"me\"); audience(\"https://b.test\"); run(\"r-9\")")
            .unwrap();
        let said = UnverifiedBiscuit::from_base64(&token).unwrap().append(block).unwrap().to_base64().unwrap();
        let got = reader(&a).read(&said, HERE, now).unwrap();
        assert_eq!((got.message.as_deref(), got.principal, got.run), (Some("m-1"), None, None));
        assert_eq!(got.chain, "root policy > run r-1 (a)");
        assert!(reader(&a).read(&said, "https://c.test", now).is_err());
        // What a rule of such a block makes up is a grant like one it says: met with the others.
        let rule = BlockBuilder::new().code("grant(\"{}\") <- chain($c)").unwrap();
        let made = UnverifiedBiscuit::from_base64(&token).unwrap().append(rule).unwrap().to_base64().unwrap();
        let got = reader(&a).read(&made, HERE, now).unwrap();
        assert!(got.grants.contains(&"{\"max_access\":\"read-only\"}".to_owned()));
    }

    #[test]
    fn a_block_that_would_not_end_is_refused_in_time() {
        let (_folder, a) = granter("grants.key");
        let token = a.mint(&says("{}"), soon()).unwrap();
        let mut rules = String::from("n(0);");
        rules.push_str("n($y) <- n($x), $x < 1000000000, $y == $x + 1;");
        // Numbers without end, if the engine makes any of them at all.
        let block = BlockBuilder::new()
            .code("n(0); n(1); n(2); n(3); p($a,$b,$c,$d,$e,$f) <- n($a),n($b),n($c),n($d),n($e),n($f)");
        let loud = UnverifiedBiscuit::from_base64(&token).unwrap().append(block.unwrap()).unwrap().to_base64().unwrap();
        let begun = std::time::Instant::now();
        assert!(matches!(reader(&a).read(&loud, HERE, SystemTime::now()), Err(Flaw::Limits)));
        assert!(begun.elapsed() < Duration::from_secs(5));
        // So many blocks are no delegation either.
        let mut long = token;
        for _ in 0..read::MAX_BLOCKS {
            long = attenuate(&long, Some("{}"), None).unwrap();
        }
        assert!(matches!(reader(&a).read(&long, HERE, SystemTime::now()), Err(Flaw::Blocks(_))));
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        for text in ["", "abc", "pleach_0123456789abcdef0123456789abcdef", "a.b.c", &"A".repeat(400)] {
            assert!(!is_token(text), "{text}");
        }
    }
}
