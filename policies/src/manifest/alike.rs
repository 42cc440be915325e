//! Names that look alike: the same to the eye (UTS 39), or a letter apart.

use std::collections::{BTreeMap, BTreeSet};
use unicode_normalization::UnicodeNormalization;

/// Names shorter than this differ by a letter all the time.
const MIN_NEAR: usize = 5;

/// What a name looks like, as it is written and in small letters: two names that share one of
/// these are taken for each other. In two forms, since a capital `I` looks like an `l` and is an `i`.
pub fn looks(name: &str) -> [String; 2] {
    let small = match name.is_ascii() {
        true => name.to_ascii_lowercase(),
        false => name.nfkc().flat_map(char::to_lowercase).collect(),
    };
    [skeleton(name), skeleton(&small)]
}

/// Two names with one skeleton cannot be told apart (UTS 39 section 4, after NFKC).
fn skeleton(name: &str) -> String {
    // Nearly every name is plain, and a list may hold thousands.
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./:".contains(&b)) {
        let mut out = String::with_capacity(name.len() + 2);
        for c in name.chars() {
            match c {
                'I' | '1' => out.push('l'),
                '0' => out.push('O'),
                'm' => out.push_str("rn"),
                plain => out.push(plain),
            }
        }
        return out;
    }
    by_table(name)
}

fn by_table(name: &str) -> String {
    let composed: String = name.nfkc().collect();
    unicode_security::skeleton(&composed).collect()
}

/// Pairs of different names, of different owners, that are one letter apart: left out, added,
/// another, or swapped with its neighbour. A differing digit is a number, not a slip.
pub fn near<'a>(names: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<[(&'a str, &'a str); 2]> {
    // Names one letter apart agree once a letter is left out of one or both.
    let mut without: BTreeMap<String, Vec<(&str, &str)>> = BTreeMap::new();
    for (owner, name) in names.into_iter().filter(|(_, name)| name.chars().count() >= MIN_NEAR) {
        let mut forms: BTreeSet<String> = BTreeSet::from([name.to_owned()]);
        for (at, left_out) in name.char_indices() {
            forms.insert(format!("{}{}", &name[..at], &name[at + left_out.len_utf8()..]));
        }
        for form in forms {
            without.entry(form).or_default().push((owner, name));
        }
    }
    let mut found = BTreeSet::new();
    for group in without.values().filter(|g| g.len() > 1) {
        for (i, one) in group.iter().enumerate() {
            for other in group.iter().skip(i + 1).filter(|other| other.0 != one.0) {
                if strsim::osa_distance(one.1, other.1) == 1 && !differ_in_digits(one.1, other.1) {
                    found.insert(if one < other { [*one, *other] } else { [*other, *one] });
                }
            }
        }
    }
    found.into_iter().collect()
}

fn differ_in_digits(one: &str, other: &str) -> bool {
    let letters = |name: &str| name.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    letters(one) == letters(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_skeleton_for_what_looks_the_same() {
        for (one, other) in [
            ("git_commit", "git_соmmit"),
            ("read", "ｒｅａｄ"),
            ("list", "Iist"),
            ("list", "1ist"),
            ("modern", "rnodern"),
            ("pleach__run", "pIeach__run"),
            ("alpha", "αlpha"),
            ("read", "re\u{200B}ad"),
        ] {
            assert_eq!(skeleton(one), skeleton(other), "{one} {other}");
        }
        for (one, other) in [("read_file", "read_files"), ("v1", "v2"), ("get", "set"), ("a_b", "a-b")] {
            assert_ne!(skeleton(one), skeleton(other), "{one} {other}");
        }
    }

    #[test]
    fn small_and_capital_letters_are_the_same() {
        let alike = |one: &str, other: &str| looks(one).iter().any(|form| looks(other).contains(form));
        for (one, other) in [
            ("add", "ADD"),
            ("list", "LIST"),
            ("list", "Iist"),
            ("readFile", "ReadFile"),
            ("readFile", "readfile"),
            ("Modern", "rnodern"),
            ("ADD", "\u{430}dd"),
            ("\u{3b1}dd", "\u{391}DD"),
        ] {
            assert!(alike(one, other), "{one} {other}");
        }
        for (one, other) in [("mail", "mall"), ("Read", "Write"), ("readFile", "read_file"), ("V1", "v2")] {
            assert!(!alike(one, other), "{one} {other}");
        }
    }

    #[test]
    fn plain_names_are_read_as_the_table_has_it() {
        for c in (0..0x80u8).map(char::from).filter(|c| c.is_ascii_alphanumeric() || "_-./:".contains(*c)) {
            let name = format!("a{c}b");
            assert_eq!(skeleton(&name), by_table(&name), "{c}");
        }
    }

    #[test]
    fn a_letter_apart_and_of_somebody_else() {
        let pairs = |names: &[(&'static str, &'static str)]| near(names.iter().copied()).len();
        assert_eq!(pairs(&[("a", "search"), ("b", "serach")]), 1);
        assert_eq!(pairs(&[("a", "search"), ("b", "searchh")]), 1);
        assert_eq!(pairs(&[("a", "search"), ("b", "zearch")]), 1);
        for fine in [
            [("a", "search"), ("a", "searchh")],
            [("a", "search"), ("b", "search")],
            [("a", "read"), ("b", "head")],
            [("a", "step_1"), ("b", "step_2")],
            [("a", "search"), ("b", "research")],
        ] {
            assert_eq!(pairs(&fine), 0, "{fine:?}");
        }
        let many: Vec<(String, String)> =
            (0..5_000).map(|n| (format!("s{}", n % 7), format!("some_longer_tool_name_{n:04}"))).collect();
        assert!(near(many.iter().map(|(o, n)| (o.as_str(), n.as_str()))).is_empty());
    }
}
