//! What must not be read where others read: the values of secrets, and the text they are taken
//! out of before it is written down or told.
//!
//! A value is known again as it stands and as it is written elsewhere (`forms`): in JSON, in a URL, in
//! hexadecimal, in base64 with whatever before and behind it. Of one with several lines each long line
//! counts, of a key each line. A text is looked through once, and once more as URLs and as JSON read
//! it where it has their escapes, however many values there are. Not known again is what was wrapped
//! over lines, cut, compressed, enciphered or written in yet another way.

mod forms;

use crate::json::Json;
use crate::names::Name;
use crate::resolve::Secret;
use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use forms::{Form, Read};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

/// A shorter value stands in many a text by chance, and is not looked for.
pub const SHORTEST: usize = 8;
/// Lines of a value that count by themselves.
const LONG_LINE: usize = 16;
/// How a key begins and ends; the lines that say so are no secret.
const KEY: &str = "-----";

/// Values that are looked for.
#[derive(Debug, Clone, Default)]
pub struct Hidden {
    /// Each with what stands there instead.
    values: Vec<(Secret, String)>,
    /// Made of all of them when the first text is looked through.
    finder: OnceLock<Arc<Finder>>,
}

impl PartialEq for Hidden {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}
impl Eq for Hidden {}

/// Finds them all in one pass.
struct Finder {
    /// None where there are too many for one: each is looked for by itself then.
    machine: Option<AhoCorasick>,
    /// The longest first, each with the place of its value.
    forms: Vec<(Form, usize)>,
}

impl std::fmt::Debug for Finder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Finder of {} forms", self.forms.len())
    }
}

impl Finder {
    fn of(values: &[(Secret, String)]) -> Self {
        let mut forms: Vec<(Form, usize)> = Vec::new();
        for (at, (value, _)) in values.iter().enumerate() {
            forms.extend(forms::of(value.expose()).into_iter().map(|form| (form, at)));
        }
        forms.retain(|(form, _)| form.text.len() >= SHORTEST);
        forms.sort_by_key(|(form, _)| std::cmp::Reverse(form.text.len()));
        // Of two values that begin alike the longer is the one that stands there.
        let machine = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(forms.iter().map(|(form, _)| form.text.as_bytes()))
            .ok();
        Self { machine, forms }
    }
    /// Each that stands there, from left to right, with all that holds a part of its value.
    fn each(&self, bytes: &[u8], mut found: impl FnMut(usize, usize, usize)) {
        let mut tell = |at: usize, start: usize, end: usize| {
            let (form, value) = &self.forms[at];
            let (start, end) = whole(bytes, form, (start, end));
            found(start, end, *value);
        };
        if let Some(machine) = &self.machine {
            machine.find_iter(bytes).for_each(|m| tell(m.pattern().as_usize(), m.start(), m.end()));
            return;
        }
        let mut from = 0;
        while from < bytes.len() {
            let here = self.forms.iter().position(|(form, _)| bytes[from..].starts_with(form.text.as_bytes()));
            match here {
                Some(at) => {
                    let end = from + self.forms[at].0.text.len();
                    tell(at, from, end);
                    from = end;
                }
                None => from += 1,
            }
        }
    }
}

/// Of either alphabet.
fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

/// A match with what beside it holds a part of the value, and with its padding.
fn whole(bytes: &[u8], form: &Form, (start, end): (usize, usize)) -> (usize, usize) {
    let before = bytes[..start].iter().rev().take(form.before).take_while(|b| is_base64(**b)).count();
    let mut end = end + bytes[end..].iter().take(form.after).take_while(|b| is_base64(**b)).count();
    if form.padded {
        end += bytes[end..].iter().take(2).take_while(|b| **b == b'=').count();
    }
    (start - before, end)
}

impl Hidden {
    /// Has a value looked for from now on.
    pub fn hide(&mut self, name: &Name, value: &str) {
        let instead = format!("[secret {name}]");
        let least = if value.trim_start().starts_with(KEY) { SHORTEST } else { LONG_LINE };
        let lines = value.lines().map(str::trim);
        let lines = lines.filter(|line| line.len() >= least && *line != value && !line.starts_with(KEY));
        for part in [value].into_iter().chain(lines).filter(|part| part.len() >= SHORTEST) {
            self.insert(Secret::new(part), instead.clone());
        }
    }
    /// All of another one too.
    pub fn add(&mut self, other: &Self) {
        for (value, instead) in &other.values {
            self.insert(value.clone(), instead.clone());
        }
    }
    fn insert(&mut self, value: Secret, instead: String) {
        if !self.values.iter().any(|(known, _)| *known == value) {
            self.values.push((value, instead));
            self.finder = OnceLock::new();
        }
    }
    /// Whether nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
    /// A text without them.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.values.is_empty() {
            return Cow::Borrowed(text);
        }
        let finder = self.finder.get_or_init(|| Arc::new(Finder::of(&self.values)));
        let mut found: Vec<(usize, usize, usize)> = Vec::new();
        finder.each(text.as_bytes(), |start, end, value| found.push((start, end, value)));
        // One after the other: of a long text each is several times as long.
        let readings: [fn(&str) -> Option<Read>; 2] = [Read::url, Read::json];
        for read in readings.into_iter().filter_map(|reading| reading(text)) {
            finder.each(&read.bytes, |start, end, value| found.push((read.place(start), read.place(end), value)));
        }
        // The longest first where several begin: it is the one that stands there.
        found.sort_by_key(|(start, end, _)| (*start, std::cmp::Reverse(*end)));
        let (mut out, mut told) = (String::new(), 0);
        for (start, end, value) in found {
            if start >= told {
                out.push_str(&text[told..start]);
                out.push_str(&self.values[value].1);
            }
            // Of what overlaps, one word stands for all.
            told = told.max(end);
        }
        if told == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[told..]);
        Cow::Owned(out)
    }
    /// A value without them: in its texts and in its keys.
    pub fn redact_json(&self, value: &mut Json) {
        match value {
            Json::String(text) => {
                if let Cow::Owned(without) = self.redact(text) {
                    *text = without;
                }
            }
            Json::Array(items) => items.iter_mut().for_each(|item| self.redact_json(item)),
            Json::Object(object) => {
                object.rename(|key| match self.redact(key) {
                    Cow::Owned(without) => Some(without),
                    Cow::Borrowed(_) => None,
                });
                object.iter_mut().for_each(|(_, value)| self.redact_json(value));
            }
            // A value of digits only may have become a number.
            Json::Number(number) => {
                if let Cow::Owned(without) = self.redact(number.lexeme()) {
                    *value = Json::String(without);
                }
            }
            Json::Null | Json::Bool(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Limits;
    use std::sync::LazyLock;

    fn hidden(value: &str) -> Hidden {
        let mut hidden = Hidden::default();
        hidden.hide(&Name::try_from("key").unwrap(), value);
        hidden
    }

    #[test]
    fn a_value_is_found_in_every_usual_form() {
        let of = hidden("p@ss \"w\"/word");
        assert_eq!(of.redact("Bearer p@ss \"w\"/word."), "Bearer [secret key].");
        assert_eq!(of.redact(r#"{"a":"p@ss \"w\"/word"}"#), r#"{"a":"[secret key]"}"#);
        assert_eq!(of.redact("?t=p%40ss%20%22w%22%2Fword&b"), "?t=[secret key]&b");
        assert_eq!(of.redact("p@ss w/word"), "p@ss w/word", "its benign twin");
        assert_eq!(hidden("short").redact("short"), "short", "too short to be told from a word");
    }

    #[test]
    fn each_long_line_of_a_value_counts() {
        let of = hidden("-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END KEY-----");
        assert_eq!(of.redact("it read MIIEvQIBADANBgkqhkiG there"), "it read [secret key] there");
    }

    #[test]
    fn values_keys_and_nested_texts_are_cleaned_and_nothing_else() {
        let of = hidden("canary-0123");
        let twice = r#"{"canary-0123":1,"CANARY":2,"[secret key]":3}"#;
        let mut value = Json::parse(twice.as_bytes(), Limits::default()).unwrap();
        of.redact_json(&mut value);
        assert_eq!(value.to_text(), r#"{"[secret key] 2":1,"CANARY":2,"[secret key]":3}"#, "no key is lost");
        let text = r#"{"canary-0123":1E2,"a":["x canary-0123 y",{"b":"canary-0123"}],"c":1.0}"#;
        let mut value = Json::parse(text.as_bytes(), Limits::default()).unwrap();
        of.redact_json(&mut value);
        let expected = r#"{"[secret key]":1E2,"a":["x [secret key] y",{"b":"[secret key]"}],"c":1.0}"#;
        assert_eq!(value.to_text(), expected);
    }

    fn base64(text: &str) -> String {
        let bits = text.bytes().flat_map(|b| (0..8).rev().map(move |n| b >> n & 1)).collect::<Vec<u8>>();
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let sixth = |six: &[u8]| six.iter().chain([0; 6].iter()).take(6).fold(0, |n, bit| n << 1 | usize::from(*bit));
        bits.chunks(6).map(|six| char::from(alphabet[sixth(six)])).collect()
    }

    #[test]
    fn a_value_is_found_in_other_alphabets() {
        let value = "p@ss~word?>42";
        let of = hidden(value);
        for ahead in ["", "a", "ab", "user:", "123456789"] {
            for behind in ["", "x", "yz", "!!!"] {
                let code = base64(&format!("{ahead}{value}{behind}"));
                let padding = "=".repeat((4 - code.len() % 4) % 4);
                for code in [code.clone(), code.replace('+', "-").replace('/', "_"), format!("{code}{padding}")] {
                    let without = of.redact(&code);
                    assert!(without.contains("[secret key]"), "{ahead} {behind} {code}: {without}");
                    // No character that holds a bit of the value is left.
                    let left = without.len() - "[secret key]".len();
                    assert!(
                        left <= ahead.len() * 8 / 6 + behind.len() * 8 / 6 + 3,
                        "{ahead} {behind} {code}: {without}"
                    );
                }
            }
        }
        assert_eq!(of.redact(&format!("Basic {}==.", base64("me:p@ss~word?>42"))), "Basic bWU6[secret key].");
        let hex: String = value.bytes().map(|b| format!("{b:02x}")).collect();
        assert_eq!(of.redact(&format!("0x{hex} 0X{}", hex.to_uppercase())), "0x[secret key] 0X[secret key]");
        for url in [
            "p%40ss~word%3F%3E42",
            "p%40ss~word%3f%3e42",
            "p%40ss%7Eword%3F%3E42",
            "p@ss~word?%3E42",
            "%70@ss%7eword?>4%32",
        ] {
            assert_eq!(of.redact(&format!("?t={url}&u=1")), "?t=[secret key]&u=1", "{url}");
        }
        assert_eq!(
            of.redact(
                &hex.as_bytes().chunks(2).map(|b| format!("%{}", str::from_utf8(b).unwrap())).collect::<String>()
            ),
            "[secret key]"
        );
        let quoted = hidden("a/<b>&\u{e9}\"x");
        for json in [r#"a\/<b>&é\"x"#, r#"a/\u003cb\u003e\u0026é\"x"#, r#"a/<b>&\u00e9\"x"#, r#"a/<b>&é\\\"x"#] {
            assert_eq!(quoted.redact(&format!("{{\"a\":\"{json}\"}}")), r#"{"a":"[secret key]"}"#, "{json}");
        }
    }

    #[test]
    fn the_longer_of_two_is_what_stands_there() {
        let mut both = hidden("canary-0123");
        both.hide(&Name::try_from("longer").unwrap(), "canary-0123-and-more");
        assert_eq!(both.redact("canary-0123-and-more canary-0123-and"), "[secret longer] [secret key]-and");
        let mut again = hidden("canary-0123-and-more");
        again.add(&both);
        assert_eq!(again.redact("xcanary-0123x"), "x[secret key]x", "what is added later is found as well");
    }

    #[test]
    fn each_line_of_a_key_counts_but_what_every_key_says() {
        let of = hidden("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\nab12cd34==\n-----END PRIVATE KEY-----\n");
        assert_eq!(of.redact("ab12cd34== MIIEvQIBADANBgkqhkiG"), "[secret key] [secret key]");
        assert_eq!(of.redact("-----BEGIN PRIVATE KEY-----\nxyz"), "-----BEGIN PRIVATE KEY-----\nxyz");
        let json = r"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\nab12cd34==\n-----END PRIVATE KEY-----\n";
        assert_eq!(of.redact(json), "[secret key]");
    }

    #[test]
    fn a_value_of_digits_is_found_as_a_number() {
        let mut value = Json::parse(br#"{"a":1234567890123,"b":7}"#, Limits::default()).unwrap();
        hidden("1234567890123").redact_json(&mut value);
        assert_eq!(value.to_text(), r#"{"a":"[secret key]","b":7}"#);
    }

    /// With or without the machine.
    static BOTH: LazyLock<[Hidden; 2]> = LazyLock::new(|| {
        let mut of = hidden("canary-01");
        of.hide(&Name::try_from("longer").unwrap(), "canary-0123");
        of.hide(&Name::try_from("letters").unwrap(), "abcabcab/");
        let mut slow = Finder::of(&of.values);
        slow.machine = None;
        let slow = Hidden { values: of.values.clone(), finder: OnceLock::from(Arc::new(slow)) };
        [of, slow]
    });

    proptest::proptest! {
        /// What is left is the same, and nothing of a value.
        #[test]
        fn one_pass_finds_what_many_do(pieces in proptest::collection::vec("canary-01|[a-c/]{8,12}|canary-0123|Y2FuYXJ5LTAx|[ -~]{0,6}", 0..12)) {
            let text = pieces.concat();
            let [fast, slow] = &*BOTH;
            let without = fast.redact(&text).into_owned();
            proptest::prop_assert_eq!(&without, &slow.redact(&text));
            proptest::prop_assert!(!without.contains("canary-01") && !without.contains("Y2FuYXJ5LTAx"));
        }
    }
}
