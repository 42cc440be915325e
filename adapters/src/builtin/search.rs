//! Glob and Grep.

use super::{Arguments, Outcome};
use globset::{GlobBuilder, GlobMatcher};
use grep_regex::RegexMatcherBuilder;
use grep_searcher::{Searcher, SearcherBuilder, Sink, SinkContext, SinkMatch};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const MAX_FILES: usize = 1_000;
const MAX_OUTPUT: usize = 30_000;

fn matcher(pattern: &str) -> Result<GlobMatcher, String> {
    if pattern.starts_with('/') || pattern.split('/').any(|part| part == "..") {
        return Err("the pattern is relative to path; put the folder into path".into());
    }
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map(|g| g.compile_matcher()).map_err(|e| e.to_string())
}

fn walk(root: &Path, ignore_files: bool) -> impl Iterator<Item = ignore::DirEntry> {
    let mut walk = ignore::WalkBuilder::new(root);
    walk.hidden(false).follow_links(false).git_ignore(ignore_files).git_exclude(ignore_files).ignore(ignore_files);
    walk.git_global(false).require_git(false).parents(false);
    walk.filter_entry(|e| e.file_name() != ".git");
    walk.build().flatten().filter(|e| e.file_type().is_some_and(|t| t.is_file()))
}

pub(super) fn glob(args: &Arguments) -> Outcome {
    let root = args.path_or_folder("path");
    let matcher = matcher(args.need("pattern")?)?;
    if !root.is_dir() {
        return Err(format!("{} is not a folder", root.display()));
    }
    let mut found: Vec<(SystemTime, PathBuf)> = walk(&root, false)
        .filter(|e| e.path().strip_prefix(&root).is_ok_and(|p| matcher.is_match(p)))
        .map(|e| (e.metadata().ok().and_then(|m| m.modified().ok()).unwrap_or(SystemTime::UNIX_EPOCH), e.into_path()))
        .collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let total = found.len();
    let mut lines: Vec<String> = found.into_iter().take(MAX_FILES).map(|(_, p)| p.display().to_string()).collect();
    if total == 0 {
        return Ok("No files found".into());
    }
    if total > MAX_FILES {
        lines.push(format!("… and {} more; narrow the pattern", total - MAX_FILES));
    }
    Ok(lines.join("\n"))
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Files,
    Content,
    Count,
}

pub(super) fn grep(args: &Arguments) -> Outcome {
    let root = args.path_or_folder("path");
    let multiline = args.flag("multiline");
    let pattern = RegexMatcherBuilder::new()
        .case_insensitive(args.flag("-i"))
        .multi_line(true)
        .dot_matches_new_line(multiline)
        .build(args.need("pattern")?)
        .map_err(|e| format!("the pattern is no regular expression: {e}"))?;
    let glob = args.text("glob").map(matcher).transpose()?;
    let mode = match args.text("output_mode") {
        Some("content") => Mode::Content,
        Some("count") => Mode::Count,
        _ => Mode::Files,
    };
    let around = args.number("-C").unwrap_or(0);
    let mut searcher = SearcherBuilder::new()
        .multi_line(multiline)
        .line_number(true)
        .before_context(args.number("-B").unwrap_or(around))
        .after_context(args.number("-A").unwrap_or(around))
        .binary_detection(grep_searcher::BinaryDetection::quit(0))
        .build();
    let numbers = args.values.get("-n").and_then(serde_json::Value::as_bool).unwrap_or(true);
    let limit = args.number("head_limit").filter(|n| *n > 0).unwrap_or(usize::MAX);
    let mut lines: Vec<String> = Vec::new();
    let mut size = 0;
    let mut files: Vec<PathBuf> = walk(&root, true).map(ignore::DirEntry::into_path).collect();
    files.sort();
    for path in files {
        let name = path.strip_prefix(&root).ok().filter(|p| !p.as_os_str().is_empty()).map(Path::to_owned);
        let name = name.unwrap_or_else(|| path.file_name().map(PathBuf::from).unwrap_or_default());
        if glob.as_ref().is_some_and(|g| !g.is_match(&name) && !name.file_name().is_some_and(|f| g.is_match(f))) {
            continue;
        }
        let mut found = Found {
            path: &path,
            mode,
            numbers,
            matches: 0,
            lines: Vec::new(),
            limit: limit.saturating_sub(lines.len()),
        };
        // A file that cannot be read is not an answer to a search.
        let _ = searcher.search_path(&pattern, &path, &mut found);
        match mode {
            Mode::Files if found.matches > 0 => lines.push(path.display().to_string()),
            Mode::Count if found.matches > 0 => lines.push(format!("{}:{}", path.display(), found.matches)),
            Mode::Content => lines.append(&mut found.lines),
            _ => {}
        }
        size = lines.iter().map(String::len).sum();
        if lines.len() >= limit || size > MAX_OUTPUT {
            break;
        }
    }
    if lines.is_empty() {
        return Ok("No matches found".into());
    }
    lines.truncate(limit);
    if size > MAX_OUTPUT {
        lines.push("… output cut; narrow the search".into());
    }
    Ok(lines.join("\n"))
}

struct Found<'a> {
    path: &'a Path,
    mode: Mode,
    numbers: bool,
    matches: usize,
    lines: Vec<String>,
    limit: usize,
}

impl Found<'_> {
    fn line(&mut self, number: Option<u64>, mark: char, bytes: &[u8]) -> bool {
        for (i, text) in String::from_utf8_lossy(bytes).lines().enumerate() {
            let number = number.map(|n| n + i as u64).filter(|_| self.numbers);
            let number = number.map(|n| format!("{n}{mark}")).unwrap_or_default();
            let text: String = text.chars().take(500).collect();
            self.lines.push(format!("{}{mark}{number}{text}", self.path.display()));
        }
        self.lines.len() < self.limit
    }
}

impl Sink for Found<'_> {
    type Error = io::Error;
    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        self.matches += 1;
        match self.mode {
            Mode::Files => Ok(false),
            Mode::Count => Ok(true),
            Mode::Content => Ok(self.line(found.line_number(), ':', found.bytes())),
        }
    }
    fn context(&mut self, _: &Searcher, context: &SinkContext<'_>) -> io::Result<bool> {
        Ok(self.mode != Mode::Content || self.line(context.line_number(), '-', context.bytes()))
    }
}
