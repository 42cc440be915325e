//! The web server: WebFetch. It runs in the sandbox like every other, so it reaches the world by
//! the proxy alone, under the domains of whoever called it: each redirect is a connection of its
//! own there, judged like the first.

mod text;

use super::{Arguments, Effect, Outcome, tool};
use crate::net::{self, Proxied};
use crate::sandbox::PROXY_PORT;
use futures_util::StreamExt;
use rmcp::model::Tool;
use serde_json::json;
use std::time::{Duration, Instant};
use url::Url;

/// A document may have this many bytes.
const MAX_BODY: usize = 5 << 20;
/// How long all of it may take, redirects included.
const LIMIT: Duration = Duration::from_secs(30);
/// Redirects of one call.
const MAX_REDIRECTS: usize = 5;
/// Characters of one answer.
const USUAL: usize = 20_000;
const MOST: usize = 200_000;

pub(super) fn tools() -> Vec<Tool> {
    let count = |doc: String, least: u64| json!({ "type": "integer", "minimum": least, "description": doc });
    vec![tool(
        "WebFetch",
        "Fetches a web page by GET and gives its text: HTML without its markup, other text as it is. Long pages are \
         read in pieces with start_index.",
        json!({ "url": { "type": "string", "format": "uri", "description": "The address: http or https." },
                "max_length": count(format!("Characters to give; default {USUAL}, at most {MOST}."), 1),
                "start_index": count("The character to begin with; default 0.".into(), 0),
                "raw": { "type": "boolean", "description": "Give HTML as it is." } }),
        &["url"],
        Effect::Reads,
    )]
}

pub(super) async fn fetch(args: Arguments) -> Outcome {
    let url = address(args.need("url")?)?;
    let Some(proxy) = Proxied::new(PROXY_PORT).map_err(|e| e.to_string())? else {
        return Err("this server reaches nothing outside the full sandbox: its proxy is the only way out, and the \
                    sandbox profile has none; use profile = \"full\""
            .into());
    };
    let (raw, until) = (args.flag("raw"), Instant::now() + LIMIT);
    let (start, most) = (args.number("start_index").unwrap_or(0), args.number("max_length").unwrap_or(USUAL).min(MOST));
    let all = async {
        let document = get(&proxy, url).await?;
        // On a thread of its own, which ends by itself: whoever wrote the page says how long it is read.
        let read = move || Ok(piece(&document.url, &document.shown(raw, until)?, start, most));
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|e| Err(format!("the page could not be read: {e}")))
    };
    let fetched = tokio::time::timeout(LIMIT, all).await;
    fetched.unwrap_or_else(|_| Err(format!("no whole answer within {} s", LIMIT.as_secs())))
}

/// An address that can be fetched at all; whether it may be is the proxy's to say.
fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|e| format!("{text:?} is no address: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("{text:?} is no http or https address"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address with a user or password is not fetched".into());
    }
    Ok(url)
}

struct Document {
    url: Url,
    kind: String,
    body: Vec<u8>,
}

async fn get(proxy: &Proxied, mut url: Url) -> Result<Document, String> {
    for _ in 0..=MAX_REDIRECTS {
        url.set_fragment(None);
        let response = proxy.get(&url).await.map_err(|why| format!("{url}: {why}"))?;
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        if status.is_redirection() && !header("location").is_empty() {
            let to = url.join(&header("location")).map_err(|e| format!("{url} leads to no address: {e}"))?;
            let to = address(to.as_str()).map_err(|why| format!("{url} leads elsewhere: {why}"))?;
            if url.scheme() == "https" && to.scheme() == "http" {
                return Err(format!("{url} leads to {to}, which is not encrypted; fetch that if it is what you want"));
            }
            url = to;
            continue;
        }
        if !matches!(header("content-encoding").as_str(), "" | "identity") {
            return Err(format!("{url} is compressed though it was asked not to be"));
        }
        let kind = header("content-type");
        if !status.is_success() {
            let said = body(response, 2_000).await.unwrap_or_else(|(start, _)| start);
            let said = String::from_utf8_lossy(&said).into_owned();
            let page = |said: &str| text::read(said, &url, Instant::now() + LIMIT).unwrap_or_default().text;
            let said = if is_html(&kind) { page(&said) } else { said };
            let said: String = said.trim().chars().take(500).collect();
            let said = if said.is_empty() { said } else { format!(": {said}") };
            return Err(format!("{url}: HTTP {status}{said}"));
        }
        let body = body(response, MAX_BODY).await.map_err(|(_, why)| format!("{url}: {why}"))?;
        return Ok(Document { url, kind, body });
    }
    Err(format!("{url}: more than {MAX_REDIRECTS} redirects"))
}

/// A body up to a size; what came of one that is larger or breaks off, and why.
async fn body(response: reqwest::Response, most: usize) -> Result<Vec<u8>, (Vec<u8>, String)> {
    let mut body = Vec::new();
    let mut bytes = response.bytes_stream();
    while let Some(chunk) = bytes.next().await {
        match chunk {
            Ok(chunk) => body.extend_from_slice(&chunk),
            Err(e) => return Err((body, net::reasons(&e.without_url()))),
        }
        if body.len() > most {
            return Err((body, format!("it is larger than {most} bytes")));
        }
    }
    Ok(body)
}

impl Document {
    /// What a person would read of it, if that is known in time.
    fn shown(&self, raw: bool, until: Instant) -> Result<String, String> {
        let text = decoded(&self.body, &self.kind);
        if is_html(&self.kind) || (self.kind.is_empty() && text.trim_start().starts_with('<')) {
            if raw {
                return Ok(text);
            }
            let page = text::read(&text, &self.url, until);
            let page = page.ok_or_else(|| format!("{} takes too long to read; fetch it raw", self.url))?;
            return Ok(if page.title.is_empty() { page.text } else { format!("{}\n\n{}", page.title, page.text) });
        }
        let essence = essence(&self.kind);
        let readable = essence.is_empty()
            || essence.starts_with("text/")
            || ["json", "xml", "javascript", "yaml", "toml", "csv", "x-ndjson", "x-sh", "sql", "graphql"]
                .iter()
                .any(|kind| essence.ends_with(kind));
        match readable && !text.contains('\0') {
            true => Ok(text),
            false => Err(format!("{} is {}, which is no text ({} bytes)", self.url, shown(&essence), self.body.len())),
        }
    }
}

fn shown(essence: &str) -> &str {
    if essence.is_empty() { "of no known type" } else { essence }
}

fn essence(kind: &str) -> String {
    kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

fn is_html(kind: &str) -> bool {
    matches!(essence(kind).as_str(), "text/html" | "application/xhtml+xml")
}

/// UTF-8, unless the server says Latin-1 and it is none.
fn decoded(body: &[u8], kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    let latin = ["iso-8859-1", "iso-8859-15", "windows-1252", "latin1"].iter().any(|name| kind.contains(name));
    match std::str::from_utf8(body) {
        Ok(text) => text.trim_start_matches('\u{feff}').to_owned(),
        Err(_) if latin => body.iter().map(|b| char::from(*b)).collect(),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    }
}

/// Some characters of a text, with where they stand in it.
fn piece(url: &Url, text: &str, start: usize, most: usize) -> String {
    let total = text.chars().count();
    if total == 0 {
        return format!("{url}\n\n(no text)");
    }
    if start >= total {
        return format!("{url}\n\n(it has {total} characters; there are none from {start} on)");
    }
    let some: String = text.chars().skip(start).take(most).collect();
    let end = start + some.chars().count();
    let note = match (start, end == total) {
        (0, true) => String::new(),
        (_, true) => format!("\n\n(characters {start} to {end}, the last)"),
        (_, false) => format!("\n\n(characters {start} to {end} of {total}; go on with start_index = {end})"),
    };
    format!("{url}\n\n{some}{note}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_say_where_they_stand_and_never_cut_a_character() {
        let url = Url::parse("https://a.example/").unwrap();
        assert_eq!(piece(&url, "häß", 0, 10), "https://a.example/\n\nhäß");
        assert!(piece(&url, "häß", 1, 1).contains("\n\nä\n\n(characters 1 to 2 of 3; go on with start_index = 2)"));
        assert!(piece(&url, "häß", 2, 9).ends_with("ß\n\n(characters 2 to 3, the last)"));
        assert!(piece(&url, "häß", 3, 9).contains("there are none from 3 on"));
    }

    #[test]
    fn addresses_that_are_none_are_refused() {
        for wrong in ["", "x", "file:///etc/passwd", "ftp://a/", "http://u:p@a/", "javascript:1", "data:text/plain,x"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        assert!(address(" https://a.example/x?y#z ").is_ok());
    }

    #[test]
    fn what_is_no_text_is_not_shown() {
        let document = |kind: &str, body: &[u8]| {
            Document { url: Url::parse("https://a.example/").unwrap(), kind: kind.into(), body: body.into() }
                .shown(false, Instant::now() + LIMIT)
        };
        assert_eq!(document("text/html; charset=utf-8", b"<title>t</title><p>x"), Ok("t\n\nx".into()));
        assert_eq!(document("application/problem+json", b"{}"), Ok("{}".into()));
        assert_eq!(document("text/plain; charset=iso-8859-1", b"\xe4"), Ok("ä".into()));
        assert!(document("image/png", b"\x89PNG").unwrap_err().contains("is image/png, which is no text (4 bytes)"));
        assert!(document("text/plain", b"a\0b").is_err());
    }
}
