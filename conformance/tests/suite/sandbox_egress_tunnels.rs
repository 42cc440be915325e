//! Tunnels out of the sandbox: what their own bytes name must be what they were allowed for.
//! Scored by the bytes that reached a listener; every attack has its twin that arrives.

use crate::audit::records;
use conformance::ledger::Ledger;
use conformance::pleach::{Folder, Ran};
use conformance::served::{Served, text};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// Speaks to the proxy as bytes: `probe.py connect|socks HOST PORT PIECE…`. A piece is text, or a
/// TLS greeting (`hello:NAME`, in single bytes with `drip:NAME`). Prints all that comes back.
const PROBE: &str = r#"
import os, socket, ssl, sys
mode, host, port, pieces = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
proxy = os.environ["http_proxy"].rsplit(":", 1)[1].strip("/")
s = socket.create_connection(("127.0.0.1", int(proxy)))
s.settimeout(20)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def line():
    got = b""
    while not got.endswith(b"\r\n\r\n"):
        more = s.recv(1)
        if not more: break
        got += more
    return got
if mode == "connect":
    s.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = line()
    if b" 200 " not in head:
        print("refused", head, s.recv(4096)); sys.exit(3)
elif mode == "plain":
    s.sendall(f"GET http://{host}:{port}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
else:
    name = host.encode("latin-1").decode("unicode_escape").encode("latin-1")
    s.sendall(b"\x05\x01\x02" if mode == "password" else b"\x05\x01\x00")
    if mode == "password":
        assert s.recv(2) == b"\x05\x02"
        s.sendall(b"\x01\x04user\x04pass")
        assert s.recv(2) == b"\x01\x00"
    else:
        assert s.recv(2) == b"\x05\x00"
    command = {"bind": 2, "udp": 3}.get(mode, 1)
    s.sendall(bytes([5, command, 0, 3, len(name)]) + name + port.to_bytes(2, "big"))
    code = s.recv(10)[1]
    if code:
        print("refused", code); sys.exit(3)
def hello(name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    out = ssl.MemoryBIO()
    try: context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name or None).do_handshake()
    except ssl.SSLWantReadError: pass
    return out.read()
try:
    for piece in pieces:
        kind, _, name = piece.partition(":")
        if kind == "hello": s.sendall(hello(name))
        elif kind == "drip":
            for byte in hello(name): s.sendall(bytes([byte]))
        elif kind == "wait": print("waited", s.recv(4096))
        else: s.sendall(piece.encode().decode("unicode_escape").encode("latin-1"))
    while more := s.recv(4096): print("back", more)
except ConnectionError as e:
    print("broke", e)
"#;

/// What localhost is allowed as: a name, and the addresses behind it.
const NAMED: &str = "domains = { allow = [\"localhost\"] }\nnetworks = { allow = [\"127.0.0.0/8\", \"::1/128\"] }";

fn folder(grants: &str) -> Folder {
    let folder = Folder::new(&format!(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy]\nmax_access = \"destructive\"\nfilesystem = {{ read = [\"probe.py\"] }}\n{grants}\n[agents.a]\nprompt = \"\"\n"
    ));
    folder.write("probe.py", PROBE);
    folder
}
fn probe(folder: &Folder, mode: &str, host: &str, port: u16, pieces: &[&str]) -> Ran {
    let port = port.to_string();
    folder.run(&[&["exec", "--", "python3", "probe.py", mode, host, &port], pieces].concat())
}

/// A listener that keeps connections: it notes every byte and answers each request. It may speak
/// first.
struct Keeper {
    address: SocketAddr,
    came: Arc<Mutex<Vec<u8>>>,
}

impl Keeper {
    fn start(first: &'static [u8], answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, came) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let kept = came.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, kept) = (stream.unwrap(), kept.clone());
                std::thread::spawn(move || {
                    stream.write_all(first).unwrap();
                    let (mut bytes, mut request) = ([0; 4096], Vec::new());
                    while let Ok(n @ 1..) = stream.read(&mut bytes) {
                        kept.lock().unwrap().extend_from_slice(&bytes[..n]);
                        request.extend_from_slice(&bytes[..n]);
                        if request.ends_with(b"\r\n\r\n") || request.ends_with(b"bye\r\n") {
                            request.clear();
                            let _ = stream.write_all(answer);
                        }
                    }
                });
            }
        });
        Self { address, came }
    }
    fn came(&self) -> String {
        String::from_utf8_lossy(&self.came.lock().unwrap()).to_lowercase()
    }
}

fn arrived(ledger: &Ledger) -> usize {
    ledger.seen().iter().filter(|bytes| !bytes.is_empty()).count()
}

#[test]
fn a_tls_greeting_must_ask_for_the_host_of_the_tunnel() {
    let ledger = Ledger::start();
    let port = ledger.address.port();
    let folder = folder(NAMED);
    for mode in ["connect", "socks"] {
        for piece in ["hello:evil.example.com", "drip:evil.example.com", "hello:localhost.evil.example.com", "hello:"] {
            let ran = probe(&folder, mode, "localhost", port, &[piece]);
            // The alert says unrecognized_name.
            assert!(ran.out.contains(r"back b'\x15\x03\x03\x00\x02\x02p'"), "{mode} {piece}: {ran:?}");
            assert_eq!(arrived(&ledger), 0, "{mode} {piece}");
        }
    }
    for (nth, (mode, piece)) in
        [("connect", "hello:localhost"), ("connect", "drip:LOCALHOST"), ("socks", "hello:localhost")].iter().enumerate()
    {
        let ran = probe(&folder, mode, "localhost", port, &[piece]);
        assert!(ran.out.contains("pong"), "{mode} {piece}: {ran:?}");
        assert_eq!(arrived(&ledger), nth + 1, "{mode} {piece}");
    }
    // An address is allowed as such, whether a name is asked for or not; a name told to it is
    // judged as a name.
    assert!(probe(&folder, "connect", "127.0.0.1", port, &["hello:"]).out.contains("pong"));
    assert!(probe(&folder, "connect", "127.0.0.1", port, &["hello:localhost"]).out.contains("pong"));
    let before = arrived(&ledger);
    assert!(!probe(&folder, "connect", "127.0.0.1", port, &["hello:evil.example.com"]).out.contains("pong"));
    assert_eq!(arrived(&ledger), before);
    let all = records(&folder, &[]);
    let denied = all.iter().find(|r| r["verdict"] == "deny" && r.to_string().contains("names evil.example.com"));
    assert!(denied.is_some_and(|r| r["target"].as_str().unwrap().contains("localhost:")), "{all:#?}");
}

#[test]
fn every_request_in_a_tunnel_must_be_for_its_host() {
    let keeper = Keeper::start(b"", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npong");
    let port = keeper.address.port();
    let folder = folder(NAMED);
    let good = format!("GET /good HTTP/1.1\\r\\nHost: localhost:{port}\\r\\n\\r\\n");
    let evil = "GET /evil HTTP/1.1\\r\\nHost: evil.example.com\\r\\n\\r\\n";
    for attack in [
        vec![evil],
        // On a connection that was good so far, in pieces and at once.
        vec![&good, "wait:", evil],
        vec![&good, evil],
        vec!["\\r\\n\\r\\n", evil],
        vec!["get /evil http/1.1\\r\\nhost: evil.example.com\\r\\n\\r\\n"],
        vec!["GET http://evil.example.com/evil HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"],
        vec!["GET /evil HTTP/1.1\\r\\nHost: localhost\\r\\nHost: evil.example.com\\r\\n\\r\\n"],
        vec!["GET /evil HTTP/1.1\\r\\n\\r\\n"],
        vec!["GET /evil HTTP/1.1\\r\\nHost: localhost:1\\r\\n\\r\\n"],
        vec!["CONNECT evil.example.com:80 HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"],
        vec!["PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n"],
        vec![
            "POST /good HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 5\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n",
            evil,
        ],
    ] {
        for mode in ["connect", "socks"] {
            let ran = probe(&folder, mode, "localhost", port, &attack);
            let came = keeper.came();
            assert!(!came.contains("evil") && !came.contains("pri *"), "{mode} {attack:?}: {came} {ran:?}");
        }
    }
    keeper.came.lock().unwrap().clear();
    let last = "GET /last HTTP/1.1\\r\\nHost: LOCALHOST\\r\\nConnection: close\\r\\n\\r\\n";
    let ran = probe(&folder, "connect", "localhost", port, &[&good, "wait:", last]);
    assert_eq!(ran.out.matches("pong").count(), 2, "{ran:?}");
    assert!(keeper.came().contains("get /good") && keeper.came().contains("get /last"), "{}", keeper.came());
    let refused = probe(&folder, "connect", "localhost", port, &[evil]);
    assert!(refused.out.contains("421") && refused.out.contains("names evil.example.com"), "{refused:?}");
}

#[test]
fn other_protocols_go_through_whoever_speaks_first() {
    let keeper = Keeper::start(b"220 ready\r\n", b"221 done\r\n");
    let folder = folder(NAMED);
    for mode in ["connect", "socks"] {
        let pieces = ["wait:", "EHLO me\\r\\n", "bye\\r\\n", "wait:"];
        let ran = probe(&folder, mode, "localhost", keeper.address.port(), &pieces);
        assert!(ran.out.contains("220 ready") && ran.out.contains("221 done"), "{ran:?}");
    }
    assert_eq!(keeper.came().matches("ehlo me\r\nbye").count(), 2);
}

#[test]
fn a_websocket_goes_through_a_tunnel() {
    let keeper =
        Keeper::start(b"", b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    let port = keeper.address.port();
    let upgrade = format!(
        "GET /s HTTP/1.1\\r\\nHost: localhost:{port}\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n"
    );
    let ran = probe(&folder(NAMED), "connect", "localhost", port, &[&upgrade, "wait:", "frames bye\\r\\n", "wait:"]);
    assert!(ran.out.contains("101 Switching") && keeper.came().contains("frames bye"), "{ran:?} {}", keeper.came());
}

#[test]
fn socks_is_judged_like_everything_else() {
    let ledger = Ledger::start();
    let (port, address) = (ledger.address.port(), ledger.address.to_string());
    let curl = |grants: &str, proxy: &str, url: &str| {
        folder(grants).run(&["exec", "--", "bash", "-c", &format!("curl -sS -m 10 --noproxy '' -x {proxy} {url}")])
    };
    let url = format!("http://localhost:{port}/");
    assert_eq!(curl(NAMED, "$SOCKS_PROXY", &url).out, "pong");
    assert_eq!(curl(NAMED, "${SOCKS_PROXY/socks5h:\\/\\//socks5h://user:pass@}", &url).out, "pong");
    assert_eq!(curl(NAMED, "${SOCKS_PROXY/socks5h/socks5}", &format!("http://{address}/")).out, "pong");
    let before = arrived(&ledger);
    let refused = curl("", "$SOCKS_PROXY", &url);
    assert!(refused.code == 97 && refused.out.is_empty(), "{refused:?}");
    let folder = folder(NAMED);
    for (mode, host, code) in [
        ("socks", "evil.example.com", 2),
        ("socks", "localhost\\x00.evil.example.com", 2),
        ("socks", "evil.example.com\\x00localhost", 2),
        ("socks", "localhost\\xff", 8),
        ("socks", "localhost%00", 2),
        ("socks", "a@localhost", 2),
        ("socks", "", 2),
        ("bind", "localhost", 7),
        ("udp", "localhost", 7),
    ] {
        let ran = probe(&folder, mode, host, port, &["GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"]);
        assert_eq!(ran.out.trim(), format!("refused {code}"), "{mode} {host}: {ran:?}");
    }
    assert_eq!(arrived(&ledger), before);
    let ran = probe(&folder, "password", "localhost", port, &["GET / HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"]);
    assert!(ran.out.contains("pong"), "{ran:?}");
}

/// Whatever an address is written as, it is that address: allowed by its network, and by no name.
#[test]
fn an_address_is_one_in_every_notation() {
    let ledger = Ledger::start();
    let port = ledger.address.port();
    let (named, granted) = (
        folder("domains = { allow = [\"localhost\", \"**.example.com\"] }"),
        folder("networks = { allow = [\"127.0.0.1/32\"] }"),
    );
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "0177.0.0.01",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ] {
        for mode in ["connect", "plain", "socks"] {
            let host = if mode == "socks" { host.trim_matches(['[', ']']) } else { host };
            let request = format!("GET / HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\n\\r\\n");
            let pieces: &[&str] = if mode == "plain" { &[] } else { &[&request] };
            let before = arrived(&ledger);
            let ran = probe(&named, mode, host, port, pieces);
            assert!(!ran.out.contains("pong") && arrived(&ledger) == before, "{mode} {host}: {ran:?}");
            let ran = probe(&granted, mode, host, port, pieces);
            assert!(ran.out.contains("pong") && arrived(&ledger) == before + 1, "{mode} {host}: {ran:?}");
        }
    }
    let before = arrived(&ledger);
    for host in ["[::1%25lo]", "[fe80::1%lo]", "0", "0.0.0.0", "[::]", "127.0.0.1.", "1.2.3.4.5", "0x7f.0.0.0.1"] {
        for mode in ["connect", "plain"] {
            let ran = probe(&granted, mode, host, port, &["GET / HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\n\\r\\n"]);
            let same = host == "127.0.0.1." && ran.out.contains("pong");
            assert!(same || !ran.out.contains("pong"), "{mode} {host}: {ran:?}");
        }
    }
    let dotted = arrived(&ledger) - before;
    assert!(dotted == 0 || dotted == 2, "only 127.0.0.1 with a dot may be 127.0.0.1: {dotted}");
}

/// Names are compared as the wire spells them: another script is another name.
#[test]
fn a_name_is_one_in_every_spelling() {
    let folder = folder("domains = { allow = [\"bücher.invalid\"] }");
    for host in ["xn--bcher-kva.invalid", "XN--BCHER-KVA.invalid", "xn--bcher-kva.invalid."] {
        let ran = probe(&folder, "plain", host, 80, &[]);
        // It is allowed, and nobody has that name.
        assert!(ran.out.contains("502") && ran.out.contains("cannot be resolved"), "{host}: {ran:?}");
    }
    for host in ["xn--bchr-1na1d.invalid", "bucher.invalid", "xn--bcher-kva.invalid.evil.invalid", "xn--.invalid"] {
        let ran = probe(&folder, "plain", host, 80, &[]);
        assert!(ran.out.contains(" 403 ") || ran.out.contains(" 400 "), "{host}: {ran:?}");
    }
    let ran = probe(&folder, "socks", "b\\xc3\\xbccher.invalid", 80, &[]);
    assert_eq!(ran.out.trim(), "refused 4", "allowed in its own letters too, and not resolved: {ran:?}");
}

#[test]
fn what_a_connection_carried_is_on_record() {
    let ledger = Ledger::start();
    let folder = folder("networks = { allow = [\"127.0.0.1/32\"] }");
    let url = format!("http://{}/x", ledger.address);
    assert_eq!(folder.run(&["exec", "--", "curl", "-sS", "-m", "10", &url]).out, "pong");
    assert_eq!(folder.run(&["exec", "--", "curl", "-sS", "-m", "10", "-p", &url]).out, "pong");
    let all = records(&folder, &[]);
    let connects: Vec<_> =
        all.iter().filter(|r| r["what"] == "connect" && r["target"] == ledger.address.to_string()).collect();
    assert_eq!(connects.len(), 2, "{all:#?}");
    for connect in connects {
        let ended = all.iter().find(|r| r["what"] == "outcome" && r["of"] == connect["seq"]);
        let ended = ended.unwrap_or_else(|| panic!("{connect} has no end: {all:#?}"));
        let sent = ledger.seen()[0].len() as u64;
        assert!(ended["up"].as_u64().unwrap().abs_diff(sent) < 100, "{ended} of {sent}");
        assert!(ended["down"].as_u64().unwrap() >= 4, "{ended}");
    }
}

/// A door lets whoever is on this machine in with the root grant, so no sandbox reaches it, by
/// whatever address of this machine.
#[tokio::test]
async fn the_gateways_own_doors_are_not_reached_from_a_sandbox() {
    let ledger = Ledger::start();
    let folder = Folder::new(
        "version = 1\n[servers.files]\nbuiltin = \"workspace\"\n[policy]\nmax_access = \"destructive\"\n\
         networks = { allow = [\"127.0.0.0/8\"] }\ntools = { allow = [\"*\"] }\n",
    );
    let served = Served::start(&folder);
    let bash = |address: String| {
        let arguments = json!({ "command": format!("curl -sS -m 10 http://{address}/healthz; curl -sS -m 10 -p http://{address}/healthz") });
        let params = json!({ "name": "files__Bash", "arguments": arguments });
        async { text(&served.modern("/mcp", "tools/call", params, &[]).await) }
    };
    let door = served.base.trim_start_matches("http://").to_owned();
    assert!(served.get("/healthz", &[]).await.status == 200);
    let port = door.rsplit(':').next().unwrap().to_owned();
    for address in [door, format!("127.1:{port}")] {
        let said = bash(address.clone()).await;
        assert!(said.contains("a door of pleach itself") && !said.contains("\"ok\""), "{address}: {said}");
    }
    assert_eq!(bash(ledger.address.to_string()).await.matches("pong").count(), 2);
}
