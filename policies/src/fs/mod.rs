//! Filesystem grants: canonical folders (or files) and what may be done beneath them.
//!
//! A grant allows a path when one of its prefixes covers it and no denied prefix does.
//! Comparison is by path component, so `/allow` does not cover `/allow_evil`.
//!
//! Normal form, unique for what is granted: each prefix set is an antichain of shortest
//! prefixes, nothing lies beneath a denied prefix, and a denied prefix lies beneath some
//! granted one. `write` is always within `read`. A prefix beneath another stays where the outer one
//! does not reach: a protected name that was granted by itself ([`PROTECTED`]).

mod protected;

pub use protected::{Kind, Obeyed, PROTECTED, Protected, protecting};

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What may be done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileOp {
    /// Read, list, execute.
    Read,
    /// Create, change, delete.
    Write,
}

/// A set of files, as prefixes. Paths are canonical and absolute; this type trusts that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FsGrant {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
    deny: BTreeSet<PathBuf>,
}

impl FsGrant {
    /// Grants `read` for reading, `read_write` for reading and writing, nothing beneath `deny`.
    pub fn new(
        read: impl IntoIterator<Item = PathBuf>,
        read_write: impl IntoIterator<Item = PathBuf>,
        deny: impl IntoIterator<Item = PathBuf>,
    ) -> Self {
        let write: BTreeSet<_> = read_write.into_iter().collect();
        let read = read.into_iter().chain(write.iter().cloned()).collect();
        Self { read, write, deny: deny.into_iter().collect() }.normal()
    }
    /// Prefixes that may be read.
    pub fn read(&self) -> &BTreeSet<PathBuf> {
        &self.read
    }
    /// Prefixes that may be written; each is readable too.
    pub fn write(&self) -> &BTreeSet<PathBuf> {
        &self.write
    }
    /// Denied prefixes beneath granted ones.
    pub fn deny(&self) -> &BTreeSet<PathBuf> {
        &self.deny
    }
    /// Whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.read.is_empty()
    }
    /// Whether `op` on `path` (canonical) is granted.
    pub fn allows(&self, path: &Path, op: FileOp) -> bool {
        op.covered(self.prefixes(op), path) && !covered(&self.deny, path)
    }
    /// The protected name that keeps `path` from being written though a granted folder holds it.
    pub fn protects(&self, path: &Path) -> Option<&'static Protected> {
        let (protected, _) = protecting(path)?;
        let held = covered(&self.write, path) && !FileOp::Write.covered(&self.write, path);
        held.then_some(protected)
    }
    /// The greatest grant within both.
    pub fn meet(&self, other: &Self) -> Self {
        Self {
            read: FileOp::Read.meet(&self.read, &other.read),
            write: FileOp::Write.meet(&self.write, &other.write),
            deny: self.deny.union(&other.deny).cloned().collect(),
        }
        .normal()
    }
    /// Whether everything granted here is granted there.
    pub fn within(&self, other: &Self) -> bool {
        [FileOp::Read, FileOp::Write].into_iter().all(|op| {
            self.prefixes(op).iter().all(|mine| {
                op.covered(other.prefixes(op), mine)
                    && other.deny.iter().all(|denied| {
                        !mine.starts_with(denied) && (!denied.starts_with(mine) || covered(&self.deny, denied))
                    })
            })
        })
    }
    fn prefixes(&self, op: FileOp) -> &BTreeSet<PathBuf> {
        match op {
            FileOp::Read => &self.read,
            FileOp::Write => &self.write,
        }
    }
    fn normal(self) -> Self {
        let deny = FileOp::Read.shortest(self.deny);
        let live = |op: FileOp, set: BTreeSet<PathBuf>| -> BTreeSet<PathBuf> {
            op.shortest(set.into_iter().filter(|p| !covered(&deny, p)).collect())
        };
        let (read, write) = (live(FileOp::Read, self.read), live(FileOp::Write, self.write));
        let deny = deny.into_iter().filter(|d| covered(&read, d)).collect();
        Self { read, write, deny }
    }
}

fn covered(prefixes: &BTreeSet<PathBuf>, path: &Path) -> bool {
    path.ancestors().any(|ancestor| prefixes.contains(ancestor))
}

/// Prefixes as far as an operation goes: everything beneath one is covered by it, but what is
/// protected there is not covered for writing.
impl FileOp {
    fn covered(self, prefixes: &BTreeSet<PathBuf>, path: &Path) -> bool {
        self.covering(prefixes, path, path.ancestors())
    }
    fn covering<'a>(self, prefixes: &BTreeSet<PathBuf>, path: &Path, mut by: impl Iterator<Item = &'a Path>) -> bool {
        let least = match self {
            FileOp::Read => 0,
            FileOp::Write => protected::depth(path),
        };
        by.any(|ancestor| prefixes.contains(ancestor) && ancestor.iter().count() >= least)
    }
    fn shortest(self, set: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        set.iter().filter(|p| !self.covering(&set, p, p.ancestors().skip(1))).cloned().collect()
    }
    fn meet(self, a: &BTreeSet<PathBuf>, b: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let of_a = a.iter().filter(|p| self.covered(b, p));
        let of_b = b.iter().filter(|p| self.covered(a, p));
        of_a.chain(of_b).cloned().collect()
    }
}
