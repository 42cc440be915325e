//! The built-in web server: what it gives, and what it does not reach. Scored by what arrived at
//! the sites.

use conformance::pleach::Folder;
use conformance::served::{Answer, Served, text};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// A site on loopback: for each path a status line with headers, and a body.
struct Site {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Site {
    fn start(at: &str, does: impl Fn(&str) -> (String, Vec<u8>) + Send + 'static) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let kept = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let Some(first) = lines.next() else { continue };
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let path = first.split(' ').nth(1).unwrap_or("").to_owned();
                let (head, body) = does(&path);
                kept.lock().unwrap().push(path);
                let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = (&stream).write_all(head.as_bytes()).and_then(|()| (&stream).write_all(&body));
            }
        });
        Self { address, asked }
    }
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn page(path: &str) -> (String, Vec<u8>) {
    let html = "200 OK\r\ncontent-type: text/html; charset=utf-8".to_owned();
    match path {
        "/page" => (
            html,
            "<title>A title</title><script>steal()</script><h1>Head</h1><p>Wörds &amp; <a href=\"/more\">more</a>"
                .into(),
        ),
        "/json" => ("200 OK\r\ncontent-type: application/json".into(), b"{\"a\": 1}".to_vec()),
        "/image" => ("200 OK\r\ncontent-type: image/png".into(), vec![0x89, b'P', 0, 1]),
        "/large" => ("200 OK\r\ncontent-type: text/plain".into(), vec![b'x'; 6 << 20]),
        "/long" => ("200 OK\r\ncontent-type: text/plain".into(), "0123456789".repeat(5_000).into_bytes()),
        "/loop" => ("302 Found\r\nlocation: /loop".into(), Vec::new()),
        "/moved" => ("301 Moved\r\nlocation: /page#part".into(), Vec::new()),
        "/file" => ("302 Found\r\nlocation: file:///etc/passwd".into(), Vec::new()),
        "/named" => ("302 Found\r\nlocation: http://u:p@localhost/".into(), Vec::new()),
        _ => ("404 Not Found\r\ncontent-type: text/html".into(), b"<p>nothing <b>here</b>".to_vec()),
    }
}

fn folder(grants: &str) -> Folder {
    Folder::new(&format!(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[servers.web]\n\
         builtin = \"web\"\n[policy]\nmax_access = \"read-only\"\n{grants}\ntools = {{ allow = [\"web__*\"] }}\n\
         [agents.free]\nprompt = \"\"\n[agents.fenced]\nprompt = \"\"\npolicy.networks.allow = [\"127.0.0.3/32\"]\n"
    ))
}

async fn fetch(served: &Served, door: &str, arguments: Value) -> (bool, String) {
    let params = json!({ "name": "web__WebFetch", "arguments": arguments });
    let answer: Answer = served.modern(door, "tools/call", params, &[]).await;
    let wrong = answer.json()["result"]["isError"] == true || answer.json().get("error").is_some();
    (!wrong, if text(&answer).is_empty() { answer.body.clone() } else { text(&answer) })
}

#[tokio::test]
async fn pages_are_given_as_text_and_in_pieces() {
    let site = Site::start("127.0.0.1:0", page);
    let place = folder("networks = { allow = [\"127.0.0.1/32\"] }");
    let served = Served::start(&place);
    let get = |more: Value| {
        let mut arguments = more;
        let path = arguments["url"].as_str().unwrap().to_owned();
        arguments["url"] = site.url(&path).into();
        let served = &served;
        async move { fetch(served, "/mcp", arguments).await }
    };
    let (url, more) = (site.url("/page"), site.url("/more"));
    let whole = (true, format!("{url}\n\nA title\n\n# Head\n\nWörds & more ({more})"));
    assert_eq!(get(json!({ "url": "/page" })).await, whole);
    assert_eq!(get(json!({ "url": "/moved" })).await, whole, "a redirect within what is allowed");
    assert!(get(json!({ "url": "/page", "raw": true })).await.1.contains("<script>steal()"));
    assert_eq!(get(json!({ "url": "/json" })).await, (true, format!("{}\n\n{{\"a\": 1}}", site.url("/json"))));
    let (_, piece) = get(json!({ "url": "/long", "start_index": 49_990, "max_length": 5 })).await;
    assert!(
        piece.contains("\n\n01234\n\n(characters 49990 to 49995 of 50000; go on with start_index = 49995)"),
        "{piece}"
    );
    let (_, first) = get(json!({ "url": "/long" })).await;
    assert!(first.contains("(characters 0 to 20000 of 50000;") && first.len() < 20_200, "{}", first.len());
    for (path, why) in [
        ("/image", "is image/png, which is no text"),
        ("/large", "larger than"),
        ("/loop", "more than 5 redirects"),
        ("/file", "no http or https address"),
        ("/named", "user or password"),
        ("/missing", "HTTP 404 Not Found: nothing here"),
    ] {
        let (ok, said) = get(json!({ "url": path })).await;
        assert!(!ok && said.contains(why), "{path}: {said}");
    }
    for url in ["file:///etc/passwd", "ftp://127.0.0.1/", "http://u:p@127.0.0.1/", "127.0.0.1"] {
        let (ok, said) = fetch(&served, "/mcp", json!({ "url": url })).await;
        assert!(!ok, "{url}: {said}");
    }
}

/// The caller's own grant counts, at the first address and at each one it leads to.
#[tokio::test]
async fn it_reaches_what_its_caller_may_reach() {
    let inner = Site::start("127.0.0.2:0", page);
    let to = inner.url("/page");
    let outer = Site::start("127.0.0.1:0", move |path| match path {
        "/out" => (format!("302 Found\r\nlocation: {to}"), Vec::new()),
        other => page(other),
    });
    let place = folder("networks = { allow = [\"127.0.0.1/32\"] }");
    let served = Served::start(&place);
    let (ok, said) = fetch(&served, "/mcp", json!({ "url": inner.url("/page") })).await;
    assert!(!ok && said.contains("127.0.0.2") && said.contains("denied"), "{said}");
    let (ok, said) = fetch(&served, "/mcp", json!({ "url": outer.url("/out") })).await;
    assert!(!ok && said.contains("127.0.0.2") && said.contains("denied: networks.allow"), "{said}");
    assert_eq!((inner.asked().len(), outer.asked()), (0, vec!["/out".to_owned()]));
    // An agent with less is a caller with less, though another's instance could.
    assert!(fetch(&served, "/mcp/agents/free", json!({ "url": outer.url("/page") })).await.0);
    let (ok, said) = fetch(&served, "/mcp/agents/fenced", json!({ "url": outer.url("/page") })).await;
    assert!(!ok && said.contains("denied"), "{said}");
    assert_eq!(outer.asked().len(), 2);

    let place = folder("networks = { allow = [\"127.0.0.0/30\"] }");
    let served = Served::start(&place);
    let (ok, said) = fetch(&served, "/mcp", json!({ "url": outer.url("/out") })).await;
    assert!(ok && said.starts_with(&inner.url("/page")), "{said}");
    assert_eq!(inner.asked(), ["/page"]);
}

/// Without the sandbox's proxy there is no judge on the way, so there is no way.
#[tokio::test]
async fn without_the_proxy_it_reaches_nothing() {
    let site = Site::start("127.0.0.1:0", page);
    for profile in ["off", "no-namespaces"] {
        let grants = format!("networks = {{ allow = [\"127.0.0.1/32\"] }}\nsandbox = {{ profile = \"{profile}\" }}");
        let place = folder(&grants);
        let served = Served::start(&place);
        let (ok, said) = fetch(&served, "/mcp", json!({ "url": site.url("/page") })).await;
        assert!(!ok && said.contains("profile = \"full\""), "{profile}: {said}");
        assert!(site.asked().is_empty());
    }
}
