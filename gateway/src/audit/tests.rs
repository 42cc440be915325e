//! Laws of the chain: whatever one thing is done to a log, verify says so.

use super::log::{Log, name, numbers};
use super::verify::{Noted, verify};
use policies::action::{Touch, Touched};
use policies::fs::FileOp;
use policies::resolve::AuditSpec;
use proptest::prelude::*;
use std::path::Path;

fn spec(folder: &Path, segment: u64, keep: Option<u32>) -> AuditSpec {
    AuditSpec { folder: folder.to_owned(), segment, keep }
}

/// A log of `n` records; their bodies differ in length. Gives its head.
fn chain(folder: &Path, n: u64, segment: u64) -> Noted {
    let mut log = Log::open(&spec(folder, segment, None)).unwrap();
    let mut head = None;
    for i in 0..n {
        let body = format!("\"what\":\"call\",\"n\":{i},\"pad\":\"{}\"", "x".repeat((i as usize * 37) % 90));
        head = Some(log.append(&[(i, body.as_str())], i).unwrap().0);
    }
    Noted { seq: None, hash: head.unwrap().hash }
}

fn lines(folder: &Path) -> Vec<(u32, Vec<Vec<u8>>)> {
    let split = |number: &u32| {
        let text = std::fs::read(folder.join(name(*number))).unwrap();
        (*number, text.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect())
    };
    numbers(folder).unwrap().iter().map(split).collect()
}

fn put(folder: &Path, number: u32, lines: &[Vec<u8>]) {
    std::fs::write(folder.join(name(number)), lines.concat()).unwrap();
}

#[derive(Debug, Clone)]
enum Harm {
    /// Another byte at a place.
    Edit(prop::sample::Index, u8),
    Delete(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
    /// The last file, cut anywhere.
    Cut(prop::sample::Index),
    DropFile(prop::sample::Index),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(i, b)| Harm::Edit(i, b)),
        2 => at().prop_map(Harm::Delete),
        2 => (at(), at()).prop_map(|(a, b)| Harm::Swap(a, b)),
        1 => (at(), at()).prop_map(|(a, b)| Harm::Repeat(a, b)),
        2 => at().prop_map(Harm::Cut),
        1 => at().prop_map(Harm::DropFile),
    ]
}

/// Does it; `false` where it changes nothing.
fn inflict(folder: &Path, harm: &Harm) -> bool {
    let before = lines(folder);
    let all: Vec<(usize, usize)> =
        before.iter().enumerate().flat_map(|(f, (_, lines))| (0..lines.len()).map(move |l| (f, l))).collect();
    let mut after = before.clone();
    match harm {
        Harm::Edit(at, byte) => {
            let (f, l) = all[at.index(all.len())];
            let line = &mut after[f].1[l];
            let i = at.index(line.len() * 7919) % line.len();
            line[i] = *byte;
        }
        Harm::Delete(at) => {
            let (f, l) = all[at.index(all.len())];
            after[f].1.remove(l);
        }
        Harm::Swap(a, b) => {
            let ((f, l), (g, m)) = (all[a.index(all.len())], all[b.index(all.len())]);
            let (one, other) = (after[f].1[l].clone(), after[g].1[m].clone());
            (after[f].1[l], after[g].1[m]) = (other, one);
        }
        Harm::Repeat(a, b) => {
            let ((f, l), (g, m)) = (all[a.index(all.len())], all[b.index(all.len())]);
            let line = after[f].1[l].clone();
            after[g].1.insert(m, line);
        }
        Harm::Cut(at) => {
            let (_, last) = after.last_mut().unwrap();
            let mut bytes = last.concat();
            bytes.truncate(at.index(bytes.len()));
            *last = vec![bytes];
        }
        Harm::DropFile(at) => {
            let (number, _) = before[at.index(before.len())];
            std::fs::remove_file(folder.join(name(number))).unwrap();
            return true;
        }
    }
    after.iter().for_each(|(number, lines)| put(folder, *number, lines));
    before.iter().map(|(_, l)| l.concat()).ne(after.iter().map(|(_, l)| l.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any one edit, deletion, swap, repetition, cut or lost file is found, against a head that
    /// was noted before. The untouched log is whole.
    #[test]
    fn one_harm_is_found(n in 1u64..25, segment in 500u64..4_000, harm in harm()) {
        let dir = tempfile::tempdir().unwrap();
        let head = chain(dir.path(), n, segment);
        let whole = verify(dir.path(), Some(&head)).unwrap();
        prop_assert!(whole.broken.is_none() && whole.torn.is_empty(), "{:?}", whole.broken);
        prop_assert!(whole.records >= n);
        if inflict(dir.path(), &harm) {
            let report = verify(dir.path(), Some(&head)).unwrap();
            prop_assert!(report.broken.is_some(), "{harm:?} was not found: {report:?}");
        }
    }

    /// A crash may leave any part of the last record: the next start tells of it, goes on, and the
    /// chain is whole. What was finished before is all there.
    #[test]
    fn a_torn_record_is_no_tampering(n in 2u64..12, cut in any::<prop::sample::Index>()) {
        let dir = tempfile::tempdir().unwrap();
        chain(dir.path(), n, 1 << 20);
        let file = dir.path().join(name(1));
        let text = std::fs::read(&file).unwrap();
        let last = text[..text.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
        // From one byte of the last record to all of it but the newline.
        let keep = last + 1 + cut.index(text.len() - 1 - last);
        std::fs::write(&file, &text[..keep]).unwrap();
        let report = verify(dir.path(), None).unwrap();
        prop_assert!(report.broken.is_none() && report.torn.len() == 1 && !report.torn[0].told);
        let mut log = Log::open(&spec(dir.path(), 1 << 20, None)).unwrap();
        log.append(&[(9, "\"what\":\"call\"")], 9).unwrap();
        let report = verify(dir.path(), None).unwrap();
        prop_assert!(report.broken.is_none(), "{:?}", report.broken);
        // Of the chain the file's own first record is one. What lacked its newline only is whole.
        if keep == text.len() - 1 {
            prop_assert_eq!((report.torn.len(), report.records), (0, n + 2));
        } else {
            prop_assert!(report.torn.len() == 1 && report.torn[0].told);
            prop_assert_eq!(report.records, n + 2);
        }
    }
}

/// Retired files leave a whole chain; the same files deleted by hand do not.
#[test]
fn retirement_is_on_record_and_deletion_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(&spec(dir.path(), 400, Some(3))).unwrap();
    for i in 0..60 {
        log.append(&[(i, "\"what\":\"call\"")], i).unwrap();
    }
    let left = numbers(dir.path()).unwrap();
    assert!(left.len() <= 3 && left[0] > 5, "{left:?}");
    let report = verify(dir.path(), None).unwrap();
    assert!(report.broken.is_none(), "{:?}", report.broken);
    std::fs::remove_file(dir.path().join(name(left[0]))).unwrap();
    let report = verify(dir.path(), None).unwrap();
    assert!(report.broken.unwrap().what.contains("missing"));
}

/// A noted head in a file that is kept no more is told from one that was never written: by its
/// number. One that was written anew has another hash under its number.
#[test]
fn a_head_that_was_retired_is_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(&spec(dir.path(), 400, Some(2))).unwrap();
    let mut noted = Vec::new();
    for i in 0..60 {
        let (head, _) = log.append(&[(i, "\"what\":\"call\"")], i).unwrap();
        noted.push(Noted { seq: Some(head.seq), hash: head.hash });
    }
    let first = verify(dir.path(), Some(&noted[3])).unwrap();
    assert!(first.broken.is_none() && first.retired && first.found.is_none(), "{first:?}");
    let hash_alone = verify(dir.path(), Some(&Noted { seq: None, ..noted[3].clone() })).unwrap();
    assert!(hash_alone.broken.unwrap().what.contains("give its number too"));
    let last = noted.last().unwrap();
    let found = verify(dir.path(), Some(last)).unwrap();
    assert!(found.broken.is_none() && !found.retired && found.found == last.seq, "{found:?}");
    let anew = Noted { hash: "0".repeat(64), ..last.clone() };
    assert!(verify(dir.path(), Some(&anew)).unwrap().broken.unwrap().what.contains("written anew"));
    let beyond = Noted { seq: last.seq.map(|seq| seq + 1), hash: "0".repeat(64) };
    assert!(verify(dir.path(), Some(&beyond)).unwrap().broken.unwrap().what.contains("the chain was cut"));
}

/// Whatever is asked for, its record can be read again.
#[test]
fn no_wish_makes_a_record_too_long() {
    use super::Entry;
    use policies::json::{Json, Limits};
    let wide = |inner: &str| {
        let entries: Vec<String> = (0..60).map(|i| format!("\"{}{i}\":{inner}", "\\u0001".repeat(70))).collect();
        format!("{{{}}}", entries.join(","))
    };
    let text = wide(&wide("1"));
    let arguments = Json::parse(text.as_bytes(), Limits::default()).unwrap();
    let touch = |i: usize| Touch {
        pointer: format!("/{i}"),
        written: String::new(),
        what: Touched::Path(FileOp::Read, format!("/{i}{}", "\u{1}".repeat(4_000)).into()),
    };
    let touches: Vec<Touch> = (0..300).map(touch).collect();
    let body = Entry::new("call").shaped("digest", &arguments).touching(&touches).into_body();
    assert!(body.len() < super::log::MAX_LINE / 2, "{}", body.len());
    assert!(body.contains("more"), "what is left out is told");
    let dir = tempfile::tempdir().unwrap();
    Log::open(&spec(dir.path(), 1 << 20, None)).unwrap().append(&[(1, body.as_str())], 1).unwrap();
    assert!(verify(dir.path(), None).unwrap().broken.is_none());
}

/// Several processes (each with a log of its own) write one chain.
#[test]
fn many_writers_make_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..6 {
            let folder = dir.path();
            scope.spawn(move || {
                let mut log = Log::open(&spec(folder, 3_000, None)).unwrap();
                for i in 0..40 {
                    let body = format!("\"what\":\"call\",\"writer\":{writer},\"n\":{i}");
                    log.append(&[(i, body.as_str()), (i, "\"what\":\"outcome\"")], i).unwrap();
                }
            });
        }
    });
    let report = verify(dir.path(), None).unwrap();
    assert!(report.broken.is_none(), "{:?}", report.broken);
    assert_eq!(report.records, 6 * 80 + report.segments as u64);
}

/// A log that is cut while somebody writes to it says so for good.
#[test]
fn a_cut_under_the_writer_is_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::open(&spec(dir.path(), 1 << 20, None)).unwrap();
    for i in 0..5 {
        log.append(&[(i, "\"what\":\"call\"")], i).unwrap();
    }
    let (number, all) = lines(dir.path()).remove(0);
    put(dir.path(), number, &all[..3]);
    log.append(&[(9, "\"what\":\"call\"")], 9).unwrap();
    let broken = verify(dir.path(), None).unwrap().broken.unwrap();
    assert!(broken.what.contains("the end was cut off"), "{}", broken.what);
}
