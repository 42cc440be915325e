//! Which arguments are paths and hosts.
//!
//! Where the operator declared `path_args` or `url_args`, that list is complete for its kind.
//! Otherwise: schema formats, well-known argument names, and any string anywhere that reads as
//! an absolute path, a `file:` URL or a network URL. Guessing wide is the safe side: a string
//! wrongly taken for a path is judged, and the operator can declare what is meant.

use super::ToolWords;
use crate::domain::Host;
use crate::json::Json;

/// A path or host among arguments, before the filesystem was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawTouch {
    /// The JSON pointer of the argument.
    pub pointer: String,
    /// The argument as written.
    pub written: String,
    /// What it means.
    pub what: RawTouched,
}

/// What an argument means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawTouched {
    /// A path, to be resolved against the server's `cwd`.
    Path(String),
    /// A host and port.
    Host(Host, u16),
    /// Neither can be read from it.
    Unclear(String),
}

/// Argument names that mean a path in servers people use.
const PATH_NAMES: [&str; 28] = [
    "path",
    "paths",
    "file",
    "files",
    "file_path",
    "filepath",
    "filePath",
    "file_paths",
    "filename",
    "file_name",
    "dir",
    "directory",
    "folder",
    "cwd",
    "working_directory",
    "workdir",
    "root",
    "repo_path",
    "repo",
    "repository_path",
    "source",
    "destination",
    "src",
    "dest",
    "output_path",
    "input_path",
    "target_path",
    "notebook_path",
];
/// Argument names that mean a URL.
const URL_NAMES: [&str; 10] =
    ["url", "urls", "uri", "uris", "link", "href", "endpoint", "base_url", "webhook_url", "callback_url"];

#[derive(Debug, Clone)]
pub(super) struct Pointers {
    paths: Option<Vec<String>>,
    urls: Option<Vec<String>>,
    formats: Vec<(String, bool)>,
}

impl Pointers {
    pub(super) fn new(words: Option<&ToolWords>, builtin: bool, schema: &Json) -> Self {
        let mut paths = words.and_then(|w| w.path_args.clone());
        let mut urls = words.and_then(|w| w.url_args.clone());
        if builtin {
            // Declared by us: a built-in tool marks its paths and URLs by format.
            let marked = |want: bool| {
                formats(schema)
                    .into_iter()
                    .filter(|(_, path)| *path == want)
                    .map(|(name, _)| format!("/{name}"))
                    .collect()
            };
            paths = paths.or_else(|| Some(marked(true)));
            urls = urls.or_else(|| Some(marked(false)));
        }
        Self { paths, urls, formats: formats(schema) }
    }

    pub(super) fn find(&self, arguments: &Json) -> Vec<RawTouch> {
        let mut found = Vec::new();
        for (declared, path) in [(&self.paths, true), (&self.urls, false)] {
            for pointer in declared.iter().flatten() {
                if let Some(value) = arguments.pointer(pointer) {
                    each_string(value, pointer, &mut |text, at| found.push(declared_touch(text, at, path)));
                }
            }
        }
        if self.paths.is_none() || self.urls.is_none() {
            self.guess(arguments, "", None, &mut found);
        }
        found
    }

    fn guess(&self, value: &Json, pointer: &str, name: Option<&str>, found: &mut Vec<RawTouch>) {
        match value {
            Json::String(text) => self.guess_text(text, pointer, name, found),
            Json::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.guess(item, &format!("{pointer}/{i}"), name, found);
                }
            }
            Json::Object(object) => {
                for (key, item) in object.iter() {
                    let at = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                    self.guess(item, &at, Some(key), found);
                    // Keys can be paths too: {"/etc/passwd": "…"}.
                    if self.paths.is_none() && (key.starts_with('/') || key.starts_with("file:")) {
                        found.push(declared_touch(key, &at, true));
                    }
                }
            }
            _ => {}
        }
    }

    fn guess_text(&self, text: &str, pointer: &str, name: Option<&str>, found: &mut Vec<RawTouch>) {
        let named = |names: &[&str]| name.is_some_and(|n| names.contains(&n));
        let format = |path| name.is_some_and(|n| self.formats.iter().any(|(f, p)| f == n && *p == path));
        let network = is_network_url(text);
        let path_like = looks_like_path(text);
        // A URL-named argument that is a path is a path, whatever was declared for the others.
        if self.urls.is_none() && self.paths.is_some() && path_like && (named(&URL_NAMES) || format(false)) {
            found.push(declared_touch(text, pointer, true));
        } else if self.urls.is_none() && (network || (named(&URL_NAMES) || format(false)) && !path_like) {
            found.push(declared_touch(text, pointer, false));
        } else if self.paths.is_none() && !network && (path_like || named(&PATH_NAMES) || format(true)) {
            found.push(declared_touch(text, pointer, true));
        }
    }
}

/// The paths and hosts among arguments nobody described: whatever reads as one.
pub fn guess(arguments: &Json) -> Vec<RawTouch> {
    Pointers { paths: None, urls: None, formats: Vec::new() }.find(arguments)
}

/// What the address of a resource touches: a path or a host where its scheme says so, else
/// nothing but the server itself.
pub fn of_uri(uri: &str) -> Option<RawTouch> {
    let path = looks_like_path(uri);
    (path || is_network_url(uri)).then(|| declared_touch(uri, "/uri", path))
}

fn formats(schema: &Json) -> Vec<(String, bool)> {
    let Some(properties) = schema.get("properties").and_then(Json::as_object) else { return Vec::new() };
    let of = |property: &Json| property.get("format").and_then(Json::as_str).map(str::to_owned);
    properties
        .iter()
        .filter_map(|(name, property)| {
            let format = of(property).or_else(|| property.get("items").and_then(of))?;
            match format.as_str() {
                "path" | "file-path" | "directory-path" => Some((name.to_owned(), true)),
                "uri" | "url" | "iri" | "uri-reference" | "hostname" | "idn-hostname" => Some((name.to_owned(), false)),
                _ => None,
            }
        })
        .collect()
}

fn each_string(value: &Json, pointer: &str, visit: &mut impl FnMut(&str, &str)) {
    match value {
        Json::String(text) => visit(text, pointer),
        Json::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                each_string(item, &format!("{pointer}/{i}"), visit);
            }
        }
        Json::Object(object) => {
            for (key, item) in object.iter() {
                each_string(item, &format!("{pointer}/{key}"), visit);
            }
        }
        _ => {}
    }
}

/// The text as URL parsers read it: leading controls and spaces dropped, tabs and line ends
/// removed wherever they stand (WHATWG URL section 4.4).
fn as_parsed(text: &str) -> String {
    let text = text.trim_matches(|c: char| c <= ' ');
    text.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect()
}

/// The first characters of it: a long text is not copied to look at its beginning.
fn head_as_parsed(text: &str) -> String {
    let text = text.trim_matches(|c: char| c <= ' ');
    text.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).take(32).collect()
}

fn looks_like_path(text: &str) -> bool {
    let text = head_as_parsed(text);
    text.starts_with('/')
        || text.starts_with("~/")
        || text == "~"
        || text.starts_with("../")
        || text == ".."
        || text.get(..5).is_some_and(|s| s.eq_ignore_ascii_case("file:"))
}

fn is_network_url(text: &str) -> bool {
    // No scheme known here is longer.
    let head = head_as_parsed(text);
    let Some((scheme, _)) = head.split_once(':') else { return false };
    let scheme = scheme.to_ascii_lowercase();
    match scheme.as_str() {
        "http" | "https" => true,
        "ws" | "wss" | "ftp" | "ftps" | "sftp" | "git" | "ssh" | "git+ssh" | "git+https" => {
            as_parsed(text).contains("://")
        }
        _ => false,
    }
}

fn declared_touch(text: &str, pointer: &str, path: bool) -> RawTouch {
    let what = if path { path_of(text) } else { host_of(text) };
    RawTouch { pointer: pointer.to_owned(), written: text.to_owned(), what }
}

fn path_of(text: &str) -> RawTouched {
    let trimmed = text.trim_start();
    let parsed = as_parsed(text);
    let file_url = parsed.get(..5).is_some_and(|s| s.eq_ignore_ascii_case("file:"));
    if file_url && (parsed != text.trim() || parsed.contains(['?', '#', '\\'])) {
        return RawTouched::Unclear("a file: URL that two parsers read differently".into());
    }
    if trimmed.get(..5).is_some_and(|s| s.eq_ignore_ascii_case("file:")) {
        return match url::Url::parse(trimmed) {
            Ok(url) if url.host_str().is_none_or(|h| h.is_empty() || h == "localhost") => match url.to_file_path() {
                Ok(path) => match path.to_str() {
                    Some(path) => RawTouched::Path(path.to_owned()),
                    None => RawTouched::Unclear("the path of the file: URL is not UTF-8".into()),
                },
                Err(()) => RawTouched::Unclear("the file: URL has no path".into()),
            },
            Ok(_) => RawTouched::Unclear("a file: URL with a host".into()),
            Err(e) => RawTouched::Unclear(format!("not a URL: {e}")),
        };
    }
    if text.contains('\0') {
        return RawTouched::Unclear("a path cannot hold NUL".into());
    }
    // What a server might trim is judged trimmed; the untrimmed text names nothing else.
    RawTouched::Path(trimmed.trim_end_matches(['\n', '\r']).to_owned())
}

fn host_of(text: &str) -> RawTouched {
    let trimmed = text.trim();
    if trimmed.contains(|c: char| c == '\\' || c.is_control()) {
        return RawTouched::Unclear("a URL with a backslash or a control character".into());
    }
    let with_scheme = if trimmed.contains("://") || is_network_url(trimmed) {
        trimmed.strip_prefix("git+").unwrap_or(trimmed).to_owned()
    } else if trimmed.contains(':') && url::Url::parse(trimmed).is_ok_and(|u| u.cannot_be_a_base()) {
        return RawTouched::Unclear("a URL without a host".into());
    } else {
        format!("http://{trimmed}")
    };
    let url = match url::Url::parse(&with_scheme) {
        Ok(url) => url,
        Err(e) => return RawTouched::Unclear(format!("not a URL: {e}")),
    };
    if url.scheme() == "file" {
        return path_of(trimmed);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return RawTouched::Unclear("a URL with user information".into());
    }
    let port = url.port_or_known_default().unwrap_or(match url.scheme() {
        "ssh" | "sftp" => 22,
        "git" => 9418,
        _ => 0,
    });
    match url.host_str().map(Host::parse) {
        Some(Ok(host)) if port > 0 => RawTouched::Host(host, port),
        Some(Ok(_)) => RawTouched::Unclear("a URL of unknown port".into()),
        Some(Err(e)) => RawTouched::Unclear(e.to_string()),
        None => RawTouched::Unclear("a URL without a host".into()),
    }
}
