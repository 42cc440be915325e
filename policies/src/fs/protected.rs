//! Names whose content other programs obey: hooks, settings, start files. Whoever writes one of
//! them has somebody else's hands at the next commit, shell or editor start, so a writable folder
//! does not include them. They are writable only where a grant names them, or a folder inside
//! them, itself.
//!
//! A protected name is a run of path components (`.git/hooks`) wherever it stands in a path, and
//! all beneath it. That `.git` is not replaced as a whole, though its objects and references may
//! be written, is for the kernel to hold.

use std::ffi::OsStr;
use std::path::Path;

/// What stands at a protected name, where something does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file.
    File,
}

/// Whose start would obey it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obeyed {
    /// A program started in that folder, or above it.
    Anywhere,
    /// A program of the user whose home it lies in.
    AtHome,
}

/// One protected name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protected {
    /// Its components.
    pub name: &'static [&'static str],
    /// What it usually is.
    pub kind: Kind,
    /// Where it matters.
    pub obeyed: Obeyed,
}

const fn anywhere(name: &'static [&'static str], kind: Kind) -> Protected {
    Protected { name, kind, obeyed: Obeyed::Anywhere }
}
const fn at_home(name: &'static [&'static str], kind: Kind) -> Protected {
    Protected { name, kind, obeyed: Obeyed::AtHome }
}

/// Every protected name.
pub const PROTECTED: [Protected; 27] = [
    anywhere(&[".git", "hooks"], Kind::Folder),
    anywhere(&[".git", "config"], Kind::File),
    anywhere(&[".git", "config.worktree"], Kind::File),
    anywhere(&[".git", "modules"], Kind::Folder),
    anywhere(&[".mcp.json"], Kind::File),
    anywhere(&[".claude"], Kind::Folder),
    anywhere(&[".vscode"], Kind::Folder),
    anywhere(&[".cursor"], Kind::Folder),
    anywhere(&[".codex"], Kind::Folder),
    anywhere(&[".idea"], Kind::Folder),
    anywhere(&[".envrc"], Kind::File),
    at_home(&[".gitconfig"], Kind::File),
    at_home(&[".ssh"], Kind::Folder),
    at_home(&[".bashrc"], Kind::File),
    at_home(&[".bash_profile"], Kind::File),
    at_home(&[".bash_login"], Kind::File),
    at_home(&[".bash_logout"], Kind::File),
    at_home(&[".profile"], Kind::File),
    at_home(&[".zshrc"], Kind::File),
    at_home(&[".zshenv"], Kind::File),
    at_home(&[".zprofile"], Kind::File),
    at_home(&[".zlogin"], Kind::File),
    at_home(&[".zlogout"], Kind::File),
    at_home(&[".config", "fish"], Kind::Folder),
    at_home(&[".config", "git"], Kind::Folder),
    at_home(&[".config", "autostart"], Kind::Folder),
    at_home(&[".config", "systemd"], Kind::Folder),
];

/// The protected name a path lies at or beneath, with the number of components, from the root
/// on, up to its end. Of several the one that ends last: only a grant that reaches so far allows
/// the path to be written.
pub fn protecting(path: &Path) -> Option<(&'static Protected, usize)> {
    let parts: Vec<&OsStr> = path.iter().collect();
    let mut found: Option<(&'static Protected, usize)> = None;
    for protected in &PROTECTED {
        let length = protected.name.len();
        let ends = (length..=parts.len())
            .rev()
            .find(|end| parts[end - length..*end].iter().zip(protected.name).all(|(part, name)| same(part, name)));
        if let Some(end) = ends
            && found.is_none_or(|(_, last)| end > last)
        {
            found = Some((protected, end));
        }
    }
    found
}

/// Where the filesystem folds case, `.GIT/hooks` is `.git/hooks`; where it does not, nobody
/// misses the other spelling.
fn same(part: &OsStr, name: &str) -> bool {
    part.as_encoded_bytes().eq_ignore_ascii_case(name.as_bytes())
}

/// How many components must a granted prefix have at least, to allow writing at `path`.
pub(super) fn depth(path: &Path) -> usize {
    protecting(path).map_or(0, |(_, end)| end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(path: &str) -> usize {
        depth(Path::new(path))
    }

    #[test]
    fn names_are_found_wherever_they_stand() {
        for (path, expected) in [
            ("/w/a", 0),
            ("/w/.git", 0),
            ("/w/.git/HEAD", 0),
            ("/w/.git/hooks", 4),
            ("/w/.git/hooks/pre-commit", 4),
            ("/w/.GIT/Hooks/x", 4),
            ("/w/sub/.git/config", 5),
            ("/w/.git/config.lock", 0),
            ("/w/.git/modules/m/config", 4),
            ("/w/.claude/a/.claude/b", 5),
            ("/w/.claude/.git/objects", 3),
            ("/w/.claude/.git/hooks", 5),
            ("/w/x.git/hooks/a", 0),
            ("/w/.config/fish/config.fish", 4),
            ("/w/.config/other", 0),
        ] {
            assert_eq!(end(path), expected, "{path}");
        }
    }
}
