//! A tree of files, a grant over parts of it, and what `policies` decides of an act there.

use super::acts::{Act, What};
use policies::action::{Call, Touch, Touched};
use policies::authority::{Authority, Sources};
use policies::decide;
use policies::fs::{FileOp, FsGrant};
use policies::grant::Grant;
use policies::json::{Json, Limits};
use policies::manifest::{ServerWords, Tool, import};
use policies::names::Name;
use policies::permission::Access;
use policies::permit::Verdict;
use policies::tools::{Glob, Layer, ToolRules};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// A sequence that depends on its seed alone (splitmix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }
    pub(super) fn under(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
    pub(super) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.under(of.len())]
    }
}

const FILES: [&str; 21] = [
    "a/f",
    "a/x",
    "a/d/g",
    "a/d/e/h",
    "a/d/e/.git/config",
    "a/d/e/.git/hooks/pre-commit",
    "a/d/e/.git/HEAD",
    "a/.mcp.json",
    "a_evil/f",
    "b/f",
    "b/x",
    "b/d/g",
    "b/d/e/h",
    "b/.git/hooks/pre-commit",
    "b/.git/objects/o",
    "b/.vscode/settings.json",
    "b/d/.claude/settings.json",
    "c/f",
    "c/x",
    "c/d/g",
    "f",
];
/// Where what links point to lies.
const LINKS: [(&str, &str); 9] = [
    ("a/to_file", "../b/f"),
    ("a/to_folder", "../c"),
    ("a/d/up", "../.."),
    ("b/to_a", "../a/d"),
    ("b/loop", "loop"),
    ("b/to_hooks", ".git/hooks"),
    ("c/nowhere", "../a/not_yet"),
    ("c/chain", "../a/to_folder/f"),
    ("to_b", "b"),
];
/// What may come to be.
const NEW: [&str; 14] = [
    "a/not_yet",
    "a/n",
    "a/d/n",
    "a/d/e/n",
    "a/.claude",
    "a/d/.mcp.json",
    "a/.git/hooks",
    "a/.git",
    "b/n",
    "b/.git/config",
    "b/d/n",
    "b/.git/n",
    "c/n",
    "n",
];

/// The tree on disk.
pub(super) fn build(root: &Path) {
    for (name, target) in LINKS {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }
    symlink(root.join("b/d"), root.join("a/absolute")).unwrap();
    let program = fs::read("/bin/true").unwrap();
    for name in FILES {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text: &[u8] = if name.ends_with("/x") { &program } else { name.as_bytes() };
        fs::write(&path, text).unwrap();
        // Nobody is kept out by a mode: what is refused, the sandbox refuses.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// All names there are or may be, files and the folders around them.
pub(super) fn names() -> Vec<&'static str> {
    let mut all: Vec<&str> = FILES.into_iter().chain(LINKS.map(|l| l.0)).chain(NEW).chain(["a/absolute"]).collect();
    let folders: Vec<&str> = all.iter().copied().flat_map(before).collect();
    all.extend(folders);
    all.sort_unstable();
    all.dedup();
    all
}

/// The folders around a name.
fn before(name: &'static str) -> impl Iterator<Item = &'static str> {
    name.match_indices('/').map(move |(at, _)| &name[..at])
}

/// How each file is, so that a change can be seen.
pub(super) fn state(root: &Path) -> Vec<(PathBuf, String)> {
    let look = |name: &&str| {
        let path = root.join(name);
        let of =
            path.symlink_metadata().map(|m| format!("{:o} {} {}.{}", m.mode(), m.uid(), m.mtime(), m.mtime_nsec()));
        let shown = format!("{of:?} {:?}", fs::read(&path).map(|bytes| bytes.len()));
        (path, shown)
    };
    FILES.iter().map(look).collect()
}

/// A random grant over the tree.
pub(super) fn grant(root: &Path, dice: &mut Dice) -> Grant {
    let there: Vec<PathBuf> = names()
        .into_iter()
        .map(|name| root.join(name))
        .filter(|path| path.canonicalize().is_ok_and(|real| real == *path))
        .chain([root.to_owned()])
        .collect();
    let some = |most: usize, dice: &mut Dice| -> Vec<PathBuf> {
        (0..dice.under(most + 1)).map(|_| dice.one(&there).clone()).collect()
    };
    let (read, write, mut deny) = (some(3, dice), some(3, dice), some(3, dice));
    if dice.under(20) == 0 {
        deny.push(root.join(dice.one(&NEW)));
    }
    let mut grant = Grant::nothing();
    grant.filesystem = FsGrant::new(read, write, deny);
    grant.max_access = *dice.one(&[Access::ReadOnly, Access::ReadWrite, Access::ReadWrite, Access::Destructive]);
    grant.tools = ToolRules::of(Layer::new([Glob::try_from("s__*").unwrap()], [], []));
    grant
}

/// What a path means, links followed, `..` after them: as the kernel reads it.
fn resolve(path: &Path, last_too: bool) -> Option<PathBuf> {
    let mut left: Vec<PathBuf> = path.components().rev().map(|c| PathBuf::from(c.as_os_str())).collect();
    let (mut at, mut hops) = (PathBuf::from("/"), 0);
    while let Some(part) = left.pop() {
        match part.components().next()? {
            Component::RootDir => at = PathBuf::from("/"),
            Component::CurDir => {}
            Component::ParentDir => {
                at.pop();
            }
            _ => {
                let next = at.join(&part);
                match fs::read_link(&next) {
                    Ok(target) if !left.is_empty() || last_too => {
                        hops += 1;
                        if hops > 40 {
                            return None;
                        }
                        left.extend(target.components().rev().map(|c| PathBuf::from(c.as_os_str())));
                    }
                    Ok(_) => at = next,
                    // What is not there may come to be, but nothing beneath it.
                    Err(_) if left.is_empty() || next.is_dir() => at = next,
                    Err(_) => return None,
                }
            }
        }
    }
    Some(at)
}

/// What an act does to which path.
pub(super) struct Need {
    pub(super) op: FileOp,
    pub(super) path: PathBuf,
}

/// What `policies` decides.
pub(super) struct Model {
    authority: Authority,
    tools: [Arc<Tool>; 2],
}

impl Model {
    pub(super) fn new(grant: &Grant) -> Self {
        let list = br#"[{"name":"t","inputSchema":{"type":"object"}}]"#;
        let list = Json::parse(list, Limits::default()).unwrap();
        let tool = |access| {
            let words = ServerWords { default_access: Some((access, None)), ..ServerWords::default() };
            Arc::new(import(&Name::try_from("s").unwrap(), &words, list.as_array().unwrap()).tools.remove(0))
        };
        let tools = [tool(Access::ReadOnly), tool(Access::ReadWrite)];
        Self { authority: Authority::root(Arc::new(grant.clone()), Arc::new(Sources::default()), None), tools }
    }
    /// Which of these is denied first.
    pub(super) fn denied<'a>(&self, needs: &'a [Need]) -> Option<&'a Need> {
        needs.iter().find(|need| {
            let call = Call {
                tool: self.tools[usize::from(need.op == FileOp::Write)].clone(),
                arguments: Json::parse(b"{}", Limits::default()).unwrap(),
                touches: vec![Touch {
                    pointer: "/path".into(),
                    written: need.path.display().to_string(),
                    what: Touched::Path(need.op, need.path.clone()),
                }],
            };
            !matches!(decide::call(&self.authority, call), Verdict::Allow(..))
        })
    }
}

/// What an act needs, as the tree is now; `None` where a path means nothing.
pub(super) fn needs(act: &Act) -> Option<Vec<Need>> {
    let (one, two) = (Path::new(&act.one), Path::new(&act.two));
    let read = |path: &Path, last| Some(vec![Need { op: FileOp::Read, path: resolve(path, last)? }]);
    let write = |path: &Path, last| Some(vec![Need { op: FileOp::Write, path: resolve(path, last)? }]);
    match act.what {
        What::Read | What::ReadAgain | What::List | What::Execute | What::Stat | What::OpenPath | What::Enter => {
            read(one, true)
        }
        What::ReadLink => read(one, false),
        What::Write
        | What::ReadWrite
        | What::Append
        | What::Cut
        | What::WriteAgain
        | What::Create
        | What::Nameless
        | What::Truncate
        | What::Mode
        | What::Times
        | What::Owner
        | What::Attribute => write(one, true),
        What::CreateNew | What::Unlink | What::RemoveFolder | What::MakeFolder | What::Fifo | What::Device => {
            write(one, false)
        }
        What::SymbolicLink => write(two, false),
        What::Rename => match (resolve(one, false)?, resolve(two, false)?) {
            // One name for another of the same: nothing is moved.
            (from, to) if from == to => Some(Vec::new()),
            (from, to) => moved(&from, &to),
        },
        What::Exchange => {
            let (one, two) = (resolve(one, false)?, resolve(two, false)?);
            if one == two {
                return Some(Vec::new());
            }
            Some([moved(&one, &two)?, moved(&two, &one)?].into_iter().flatten().collect())
        }
        // A second name is a second way to write it.
        What::Link => Some([write(one, false)?, write(two, false)?].into_iter().flatten().collect()),
    }
}

/// Whoever moves a folder removes everything in it here, and makes it there.
fn moved(from: &Path, to: &Path) -> Option<Vec<Need>> {
    let mut needs = Vec::new();
    let mut left = vec![from.to_owned()];
    while let Some(path) = left.pop() {
        if path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            left.extend(fs::read_dir(&path).ok()?.flatten().map(|entry| entry.path()));
        }
        let there = match path.strip_prefix(from).ok()? {
            rest if rest.as_os_str().is_empty() => to.to_owned(),
            rest => to.join(rest),
        };
        needs.push(Need { op: FileOp::Write, path });
        needs.push(Need { op: FileOp::Write, path: there });
    }
    Some(needs)
}
