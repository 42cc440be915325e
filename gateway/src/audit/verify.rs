//! Reading the log from its first record to its last, and saying what does not fit.

use super::log::{self, MAX_LINE};
use super::record::{self, Flaw, GENESIS, Head, Record};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Records that fit.
    pub(crate) records: u64,
    /// Files that were read.
    pub(crate) segments: usize,
    /// The last record.
    pub(crate) head: Option<Head>,
    /// What crashes left, and whether a record tells of it yet.
    pub(crate) torn: Vec<Torn>,
    /// The record that was asked for, by its hash.
    pub(crate) found: Option<u64>,
    /// It was in a file that is kept no more, as its number says: nothing can be compared.
    pub(crate) retired: bool,
    /// The first thing that does not fit.
    pub(crate) broken: Option<Broken>,
}

/// The remains of a record that was being written when its process died.
#[derive(Debug)]
pub(crate) struct Torn {
    pub(crate) at: At,
    pub(crate) bytes: u64,
    pub(crate) told: bool,
}

/// A line of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) file: String,
    pub(crate) line: u64,
}

/// Where the chain breaks, and how.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) at: At,
    pub(crate) seq: Option<u64>,
    pub(crate) what: String,
}

/// A head that was noted earlier.
#[derive(Debug, Clone)]
pub(crate) struct Noted {
    /// Its number, if that was noted too.
    pub(crate) seq: Option<u64>,
    pub(crate) hash: String,
}

impl Noted {
    /// Reads what `pleach audit head` prints, or its hash alone.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (seq, hash) = match text.trim().split_once(char::is_whitespace) {
            Some((seq, hash)) => (Some(seq.parse().ok()?), hash.trim()),
            None => (None, text.trim()),
        };
        let hex = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| Self { seq, hash: hash.to_ascii_lowercase() })
    }
}

/// Reads everything in `folder`. With `head`, which was noted earlier, that record must be there:
/// only so is a cut at the end found.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn verify(folder: &Path, head: Option<&Noted>) -> io::Result<Report> {
    walk(folder, head, |_| {})
}

/// The same, showing each record that fits to `see`.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn walk(folder: &Path, head: Option<&Noted>, mut see: impl FnMut(&Record)) -> io::Result<Report> {
    let mut walk = Walk { wanted: head.cloned(), ..Walk::default() };
    for (number, len) in lengths(folder)? {
        let name = log::name(number);
        if walk.number.is_some_and(|before| before + 1 != number) {
            walk.at = At { file: name, line: 1 };
            walk.breaks(None, "a file of the audit before this one is missing");
            break;
        }
        (walk.number, walk.report.segments) = (Some(number), walk.report.segments + 1);
        walk.at = At { file: name.clone(), line: 0 };
        let file = File::open(folder.join(name))?;
        walk.file(&mut BufReader::new(file.take(len)), &mut see)?;
        if walk.report.broken.is_some() {
            break;
        }
    }
    Ok(walk.end())
}

/// How far each file reaches now: taken under the lock, so that no record is seen half written.
fn lengths(folder: &Path) -> io::Result<Vec<(u32, u64)>> {
    let lock = File::open(folder.join("lock")).ok();
    if let Some(lock) = &lock {
        log::hold(lock)?;
    }
    let numbers = match log::numbers(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let len = |number: u32| Ok((number, std::fs::metadata(folder.join(log::name(number)))?.len()));
    let lengths = numbers.into_iter().map(len).collect();
    if let Some(lock) = &lock {
        let _ = lock.unlock();
    }
    lengths
}

#[derive(Default)]
struct Walk {
    report: Report,
    wanted: Option<Noted>,
    number: Option<u32>,
    at: At,
    /// Lines that are no records, not yet told of, and where they begin.
    region: Option<(At, Vec<u8>)>,
    /// What the first record follows, where that is no longer there.
    before: Option<(At, Head)>,
    retired: BTreeSet<(u64, String)>,
}

impl Walk {
    fn breaks(&mut self, seq: Option<u64>, what: impl Into<String>) {
        let broken = Broken { at: self.at.clone(), seq, what: what.into() };
        self.report.broken.get_or_insert(broken);
    }

    fn file(&mut self, file: &mut impl BufRead, see: &mut impl FnMut(&Record)) -> io::Result<()> {
        let mut line = Vec::new();
        while self.report.broken.is_none() {
            line.clear();
            let read = file.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            self.at.line += 1;
            let whole = line.strip_suffix(b"\n");
            match whole.map(record::read) {
                Some(Ok(record)) => self.record(&record, see),
                Some(Err(Flaw::Edited(seq))) => self.breaks(seq, "its text does not fit its hash: it was edited"),
                Some(Err(Flaw::NoRecord)) | None => {
                    let at = self.at.clone();
                    let (_, region) = self.region.get_or_insert_with(|| (at, Vec::new()));
                    region.extend_from_slice(&line);
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &Record, see: &mut impl FnMut(&Record)) {
        let what = record.text("what").to_owned();
        match self.region.take() {
            None if what == "torn" => return self.breaks(Some(record.seq), "the bytes it tells of are gone"),
            None => {}
            Some((at, region)) => {
                let bytes = region.len() as u64;
                let told = what == "torn"
                    && record.number("bytes") == Some(bytes)
                    && record.text("sha256") == record::hash_of(&region);
                if !told {
                    self.at = at;
                    return self.breaks(self.next(), "it is no record any more: it was edited");
                }
                self.report.torn.push(Torn { at, bytes, told: true });
            }
        }
        match &self.report.head {
            None if record.seq == 1 && record.prev == GENESIS => {}
            None => {
                let before = Head { seq: record.seq.saturating_sub(1), hash: record.prev.clone() };
                self.before = Some((self.at.clone(), before));
            }
            Some(head) if head.seq + 1 == record.seq && head.hash == record.prev => {}
            Some(head) => {
                let (last, seq) = (head.seq, record.seq);
                let why = match seq {
                    s if s > last + 1 => format!("it follows record {last}: {} to {} were deleted", last + 1, s - 1),
                    s if s <= last => format!("it follows record {last}: it was moved or repeated"),
                    _ => format!("it does not follow record {last} as that stands: one of them was replaced"),
                };
                return self.breaks(Some(seq), why);
            }
        }
        self.report.head = Some(record.head());
        self.report.records += 1;
        match &self.wanted {
            Some(noted) if noted.hash == record.hash => self.report.found = Some(record.seq),
            Some(noted) if noted.seq == Some(record.seq) => {
                let why = "its hash is not the one that was noted: the chain was written anew";
                return self.breaks(Some(record.seq), why);
            }
            _ => {}
        }
        match what.as_str() {
            "retired" => {
                let last = record.number("last_seq").unwrap_or(0);
                if self.wanted.as_ref().is_some_and(|noted| noted.hash == record.text("last_hash")) {
                    self.report.found = Some(last);
                }
                self.retired.insert((last, record.text("last_hash").to_owned()));
            }
            "shorter" => {
                let (left, now) = (record.number("left_seq").unwrap_or(0), record.seq - 1);
                let why = format!(
                    "the process {} had written up to record {left} and then found only {now}: the end was cut off",
                    record.number("pid").unwrap_or(0)
                );
                return self.breaks(Some(record.seq), why);
            }
            _ => {}
        }
        see(record);
    }

    fn next(&self) -> Option<u64> {
        Some(self.report.head.as_ref().map_or(1, |head| head.seq + 1))
    }

    fn end(mut self) -> Report {
        if self.report.broken.is_some() {
            return self.report;
        }
        if let Some((at, region)) = self.region.take() {
            // A crash leaves no newline at the very end; an editor does.
            if region.last() == Some(&b'\n') {
                self.at = at;
                self.breaks(self.next(), "it is no record any more: it was edited");
                return self.report;
            }
            self.report.torn.push(Torn { at, bytes: region.len() as u64, told: false });
        }
        let kept_after = self.before.as_ref().map_or(0, |(_, before)| before.seq);
        if let Some((at, before)) = self.before.take()
            && !self.retired.contains(&(before.seq, before.hash.clone()))
        {
            self.at = at;
            let why = format!("records 1 to {} are missing, and no record tells of their retirement", before.seq);
            self.breaks(Some(before.seq + 1), why);
            return self.report;
        }
        if let Some(Noted { seq, hash }) = &self.wanted
            && self.report.found.is_none()
        {
            if seq.is_some_and(|seq| seq <= kept_after) {
                self.report.retired = true;
                return self.report;
            }
            let mut why = format!("no record has the hash {hash}: the chain was cut before it, or written anew");
            if seq.is_none() && kept_after > 0 {
                why.push_str(", or it was in a file that is kept no more (give its number too)");
            }
            self.breaks(self.report.head.as_ref().map(|h| h.seq), why);
        }
        self.report
    }
}
