//! `Read(…)` and `Edit(…)`: gitignore patterns with four anchors, as folders and files.
//!
//! | pattern | means beneath |
//! |---|---|
//! | `//abs` | the root of the filesystem |
//! | `~/x` | the home |
//! | `/x` | the folder that holds the settings (the one with `.claude` in it) |
//! | `x`, `./x` | the policy file's folder, where its relative paths are too |
//!
//! A grant knows folders and files, no patterns. What ends in `/**` is a folder. Any other
//! wildcard is looked up: a deny holds for what is there, an allow cannot be carried over.

use crate::resolve::Surroundings;
use std::path::{Path, PathBuf};

/// Entries looked at for one pattern; beyond it the pattern is refused rather than half held.
const MAX_ENTRIES: usize = 20_000;

/// What a pattern covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Covers {
    /// These folders and files, all of it.
    Exactly(PathBuf),
    /// What matches now; more may come.
    Found(Vec<PathBuf>),
}

/// The folders a pattern may be relative to.
pub(super) struct Anchors<'a> {
    pub(super) around: &'a dyn Surroundings,
    pub(super) project: &'a Path,
}

impl Anchors<'_> {
    /// What a pattern of a deny covers: a bare name does so at any depth.
    ///
    /// # Errors
    /// Why it cannot be held.
    pub(super) fn deny(&self, pattern: &str) -> Result<Covers, String> {
        let (base, rest, bare) = self.anchored(pattern)?;
        let parts = parts(&rest)?;
        let any_depth = bare && parts.len() == 1;
        let first_wild = parts.iter().position(|p| p.contains(['*', '?']));
        if !any_depth && first_wild.is_none() {
            return self.real(&parts.iter().fold(base, |path, part| path.join(part))).map(Covers::Exactly);
        }
        let literal = first_wild.unwrap_or(parts.len());
        let (start, parts) = match any_depth {
            true => (base.clone(), vec!["**", parts[0]]),
            false => (parts[..literal].iter().fold(base.clone(), |p, part| p.join(part)), parts[literal..].to_vec()),
        };
        let mut found = Vec::new();
        if any_depth && first_wild.is_none() {
            // It need not exist to be denied where it would first be looked for.
            found.push(self.real(&base.join(parts[1]))?);
        }
        let mut left = MAX_ENTRIES;
        self.walk(&self.real(&start)?, &parts, &mut left, &mut found)?;
        found.sort();
        found.dedup();
        Ok(Covers::Found(found))
    }

    /// The folder or file a pattern of an allow is; no wildcard inside.
    ///
    /// # Errors
    /// Why it cannot be said.
    pub(super) fn allow(&self, pattern: &str) -> Result<PathBuf, String> {
        let (base, rest, _) = self.anchored(pattern)?;
        let parts = parts(&rest)?;
        if parts.iter().any(|p| p.contains(['*', '?'])) {
            return Err("only whole folders and files can be granted".into());
        }
        self.real(&parts.iter().fold(base, |path, part| path.join(part)))
    }

    /// The anchor's folder, the rest, and whether it had no anchor.
    fn anchored(&self, pattern: &str) -> Result<(PathBuf, String, bool), String> {
        if pattern.starts_with('!') {
            return Err("an exception to another rule cannot be said".into());
        }
        if pattern.contains('[') || pattern.contains('\\') {
            return Err("classes of characters and escapes in patterns are not served".into());
        }
        if let Some(rest) = pattern.strip_prefix("//") {
            return Ok((PathBuf::from("/"), rest.to_owned(), false));
        }
        if pattern == "~" || pattern.starts_with("~/") {
            let home = self.around.home().ok_or("there is no home here")?;
            return Ok((home, pattern.trim_start_matches('~').trim_start_matches('/').to_owned(), false));
        }
        if let Some(rest) = pattern.strip_prefix('/') {
            return Ok((self.project.to_owned(), rest.to_owned(), false));
        }
        let folder = self.around.folder().to_owned();
        match pattern.strip_prefix("./") {
            Some(rest) => Ok((folder, rest.to_owned(), false)),
            None => Ok((folder, pattern.to_owned(), pattern != ".")),
        }
    }

    fn real(&self, path: &Path) -> Result<PathBuf, String> {
        self.around.canonical(path)
    }

    /// Collects what matches `parts` beneath `folder`.
    fn walk(&self, folder: &Path, parts: &[&str], left: &mut usize, found: &mut Vec<PathBuf>) -> Result<(), String> {
        let Some((first, rest)) = parts.split_first() else { return Ok(()) };
        let Some(names) = self.around.entries(folder)? else { return Ok(()) };
        if *first == "**" {
            // `**` stands for no folder at all, or for one and again itself.
            self.walk(folder, rest, left, found)?;
        }
        for name in names {
            *left = left
                .checked_sub(1)
                .ok_or_else(|| format!("more than {MAX_ENTRIES} entries lie beneath {}", folder.display()))?;
            let path = folder.join(&name);
            if *first == "**" {
                self.walk(&path, parts, left, found)?;
            } else if fits(first, &name) {
                match rest.is_empty() {
                    true => found.push(self.real(&path)?),
                    false => self.walk(&path, rest, left, found)?,
                }
            }
        }
        Ok(())
    }
}

/// The parts of a path pattern; a `/**` or `/` at its end means the folder itself.
fn parts(rest: &str) -> Result<Vec<&str>, String> {
    let mut parts: Vec<&str> = rest.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    while parts.last().is_some_and(|p| *p == "**") {
        parts.pop();
    }
    if parts.contains(&"..") {
        return Err("`..` leads out of its folder; name the folder itself".into());
    }
    Ok(parts)
}

/// Whether a name fits one part of a pattern.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn names_fit_parts() {
        for (pattern, name) in
            [("*", "a"), ("*.pem", "k.pem"), (".env.*", ".env.local"), ("a?c", "abc"), ("a*b*c", "aXbYbc")]
        {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.pem", "pem"), ("a?c", "ac"), (".env.*", ".env"), ("a*b", "abc")] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }
}
