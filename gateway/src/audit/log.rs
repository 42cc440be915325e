//! The files of the log, and appending to them: one chain for all processes of a policy file.
//!
//! ```text
//!   lock ─▶ catch up ─▶ torn? tell of it ─▶ full? next file, retire the oldest ─▶ write ─▶ unlock ─▶ sync
//!            │ others wrote: take over their head
//!            └ shorter than I left it: tell of it
//! ```
//!
//! Whoever appends holds the lock of the folder, and first reads what others appended since. A
//! write that fails is taken back by cutting the file to where it stood. What a crash leaves
//! behind stays where it is: it is ended with a newline, and the next record names its length and
//! its hash, so that it can be told from a finished record somebody spoiled.

use super::record::{self, Head};
use policies::resolve::AuditSpec;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another process may hold the lock; it holds it for one write.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// A record has at most so many bytes; what is longer was not written by us.
pub(super) const MAX_LINE: usize = 1 << 20;

/// The log as one process sees it.
pub(super) struct Log {
    spec: AuditSpec,
    lock: File,
    /// The lock is held already, and nobody wrote since this process did.
    held: bool,
    open: Option<Segment>,
}

struct Segment {
    number: u32,
    file: File,
    inode: u64,
    len: u64,
    head: Head,
}

/// What stands at the end of a file.
struct Tail {
    /// The last record, and where it ends.
    last: Option<(Head, u64)>,
    /// What follows it and is no record.
    torn: Vec<u8>,
}

impl Log {
    /// Opens the folder; it is made if it is missing.
    pub(super) fn open(spec: &AuditSpec) -> io::Result<Self> {
        make(&spec.folder)?;
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(false).mode(0o600);
        let lock = options.open(spec.folder.join("lock"))?;
        Ok(Self { spec: spec.clone(), lock, held: false, open: None })
    }

    /// Appends records, each the inside of a JSON object with its time; gives the new head and
    /// the numbers they got.
    pub(super) fn append(&mut self, bodies: &[(u64, &str)], now: u64) -> io::Result<(Head, Vec<u64>)> {
        let ready = std::mem::take(&mut self.held);
        if !ready {
            hold(&self.lock)?;
        }
        let done = if ready { Ok(()) } else { self.make_ready(now) }.and_then(|()| self.put(bodies));
        let _ = self.lock.unlock();
        if done.is_err() {
            // What is there is looked at anew: another process may have gone on.
            self.open = None;
        }
        done
    }

    fn make_ready(&mut self, now: u64) -> io::Result<()> {
        self.catch_up(now)?;
        if self.segment()?.len >= self.spec.segment { self.rotate(now) } else { Ok(()) }
    }
    fn put(&mut self, bodies: &[(u64, &str)]) -> io::Result<(Head, Vec<u64>)> {
        let segment = self.segment()?;
        let long = bodies.iter().map(|(_, body)| body.len() + record::FRAME).sum();
        let (mut text, mut head, mut seqs) =
            (String::with_capacity(long), segment.head.clone(), Vec::with_capacity(bodies.len()));
        for (at, body) in bodies {
            head = record::write(&mut text, &head, *at, body);
            seqs.push(head.seq);
        }
        segment.put(text.as_bytes(), head.clone())?;
        Ok((head, seqs))
    }

    /// Takes hold of the folder for the next [`Log::append`], if that will be quick: nobody else
    /// has it or wrote in it, and the file is not full.
    pub(super) fn take_hold(&mut self) -> bool {
        self.held = self.held || self.lock.try_lock().is_ok();
        let quick = self.held
            && self.open.as_ref().is_some_and(|segment| segment.len < self.spec.segment && self.is_current(segment));
        if self.held && !quick {
            let _ = self.lock.unlock();
            self.held = false;
        }
        quick
    }
    /// Whether nobody else wrote, and no other file follows.
    fn is_current(&self, segment: &Segment) -> bool {
        let there = std::fs::metadata(self.path(segment.number));
        there.is_ok_and(|m| m.ino() == segment.inode && m.len() == segment.len)
            && !self.path(segment.number + 1).exists()
    }

    /// What was appended is on the disk when this returns.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.open.as_ref().map_or(Ok(()), |segment| segment.file.sync_data())
    }

    fn segment(&mut self) -> io::Result<&mut Segment> {
        self.open.as_mut().ok_or_else(|| io::Error::other("no file of the audit is open"))
    }
    fn path(&self, number: u32) -> PathBuf {
        self.spec.folder.join(name(number))
    }

    /// Takes over what others wrote since, and tells of what a crash or a stranger left.
    fn catch_up(&mut self, now: u64) -> io::Result<()> {
        let mut short = None;
        if let Some(segment) = &self.open {
            let there = std::fs::metadata(self.path(segment.number)).ok().filter(|m| m.ino() == segment.inode);
            match there.map(|m| m.len()) {
                Some(len) if len == segment.len && !self.path(segment.number + 1).exists() => return Ok(()),
                Some(len) if len >= segment.len => {}
                // Retired by another process is no offence: its own next file tells.
                None if self.path(segment.number + 1).exists() || self.later(segment.number)? => {}
                _ => short = Some(segment.head.clone()),
            }
        }
        self.reopen(now)?;
        let Some(expected) = short else { return Ok(()) };
        let body = format!(
            "\"what\":\"shorter\",\"pid\":{},\"left_seq\":{},\"left_hash\":\"{}\"",
            std::process::id(),
            expected.seq,
            expected.hash
        );
        self.segment()?.add(now, &body)
    }
    fn later(&self, number: u32) -> io::Result<bool> {
        Ok(numbers(&self.spec.folder)?.last().is_some_and(|last| *last > number))
    }

    /// Opens the newest file where it ends.
    fn reopen(&mut self, now: u64) -> io::Result<()> {
        self.open = None;
        let all = numbers(&self.spec.folder)?;
        let Some(newest) = all.last().copied() else { return self.begin(1, Head::genesis(), now) };
        let tail = tail(&self.path(newest))?;
        let head = match &tail.last {
            Some((head, _)) => head.clone(),
            // Its first record never got there: it goes on where the file before ends.
            None => match all.iter().rev().nth(1) {
                Some(before) => self::tail(&self.path(*before))?.last.map_or_else(Head::genesis, |(head, _)| head),
                None => Head::genesis(),
            },
        };
        let file = OpenOptions::new().append(true).open(self.path(newest))?;
        let meta = file.metadata()?;
        let mut segment = Segment { number: newest, file, inode: meta.ino(), len: meta.len(), head };
        if !tail.torn.is_empty() {
            segment.tell_torn(&tail.torn, now)?;
        }
        self.open = Some(segment);
        Ok(())
    }

    fn begin(&mut self, number: u32, head: Head, now: u64) -> io::Result<()> {
        let new = OpenOptions::new().append(true).create_new(true).mode(0o600).open(self.path(number));
        let file = new?;
        let inode = file.metadata()?.ino();
        let mut segment = Segment { number, file, inode, len: 0, head };
        let written = segment.add(now, &format!("\"what\":\"segment\",\"segment\":{number}"));
        if written.is_err() && segment.len == 0 {
            // Nothing is better than an empty file.
            let _ = std::fs::remove_file(self.path(number));
        }
        written?;
        self.sync_folder()?;
        self.open = Some(segment);
        Ok(())
    }

    /// Begins the next file, and retires those beyond what is kept: first the record that tells
    /// of it, then the file.
    fn rotate(&mut self, now: u64) -> io::Result<()> {
        self.sync()?;
        let (number, head) = {
            let full = self.segment()?;
            (full.number, full.head.clone())
        };
        self.begin(number + 1, head, now)?;
        let Some(keep) = self.spec.keep else { return Ok(()) };
        let all = numbers(&self.spec.folder)?;
        let gone = all.len().saturating_sub(keep as usize);
        for old in &all[..gone] {
            let Some((last, _)) = tail(&self.path(*old))?.last else { continue };
            let body = format!(
                "\"what\":\"retired\",\"segment\":{old},\"last_seq\":{},\"last_hash\":\"{}\"",
                last.seq, last.hash
            );
            self.segment()?.add(now, &body)?;
            self.sync()?;
            std::fs::remove_file(self.path(*old))?;
        }
        self.sync_folder()
    }
    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.spec.folder)?.sync_all()
    }
}

impl Segment {
    fn add(&mut self, at: u64, body: &str) -> io::Result<()> {
        let mut text = String::new();
        let head = record::write(&mut text, &self.head, at, body);
        self.put(text.as_bytes(), head)
    }
    /// Writes all of it or nothing.
    fn put(&mut self, text: &[u8], head: Head) -> io::Result<()> {
        if let Err(e) = self.file.write_all(text) {
            // Cutting needs no room. Where even that fails, the next look finds it torn.
            let _ = self.file.set_len(self.len);
            return Err(e);
        }
        self.len += text.len() as u64;
        self.head = head;
        Ok(())
    }
    fn tell_torn(&mut self, torn: &[u8], at: u64) -> io::Result<()> {
        let last = torn.rsplit(|b| *b == b'\n').next().unwrap_or(torn);
        // It got there but for its newline: then it is a record like any other.
        if let Ok(record) = record::read(last)
            && record.prev == self.head.hash
        {
            return self.put(b"\n", record.head());
        }
        let (mut region, mut text) = (torn.to_vec(), String::new());
        if region.last() != Some(&b'\n') {
            region.push(b'\n');
            text.push('\n');
        }
        let body = format!("\"what\":\"torn\",\"bytes\":{},\"sha256\":\"{}\"", region.len(), record::hash_of(&region));
        let head = record::write(&mut text, &self.head, at, &body);
        self.put(text.as_bytes(), head)
    }
}

/// Makes the folder, for nobody else to read.
pub(crate) fn make(folder: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Waits for the lock, but not for ever: a process that was stopped while it holds it must not
/// leave callers without an answer.
pub(super) fn hold(lock: &File) -> io::Result<()> {
    let end = Instant::now() + LOCK_LIMIT;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(std::fs::TryLockError::Error(e)) => return Err(e),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() >= end => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds its lock"));
            }
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// The files of a folder, by number.
pub(super) fn numbers(folder: &Path) -> io::Result<Vec<u32>> {
    let mut out: Vec<u32> = std::fs::read_dir(folder)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".ndjson")?.parse().ok())
        .collect();
    out.sort_unstable();
    Ok(out)
}

pub(super) fn name(number: u32) -> String {
    format!("{number:06}.ndjson")
}

/// The end of a file: its last record and what follows it.
fn tail(path: &Path) -> io::Result<Tail> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut window = 64 << 10;
    loop {
        let start = len.saturating_sub(window);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        Read::by_ref(&mut file).take(len - start).read_to_end(&mut bytes)?;
        // The first line of a window may have begun before it.
        let mut at = match start {
            0 => 0,
            _ => bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |p| p + 1),
        };
        let mut last = None;
        while let Some(line) = bytes[at..].iter().position(|b| *b == b'\n') {
            if let Ok(record) = record::read(&bytes[at..at + line]) {
                last = Some((record.head(), at + line + 1));
            }
            at += line + 1;
        }
        match last {
            Some((head, end)) => {
                let torn = bytes.split_off(end);
                return Ok(Tail { last: Some((head, start + end as u64)), torn });
            }
            None if start == 0 => return Ok(Tail { last: None, torn: bytes }),
            None => window *= 4,
        }
    }
}
