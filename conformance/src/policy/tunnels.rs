//! D12, D15: what a tunnel says of whom it is for, and how much goes through one.

use super::proxy::Way;
use super::world::World;
use super::{Act, Case};
use std::io::Read;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) fn cases() -> Vec<Case> {
    let sized = Case::new("D15.01", "more than a connection may carry out", carried(true), carried(false));
    greetings().into_iter().chain([sized]).collect()
}

/// Opens a tunnel to a host and says something in it: `tunnel(host)`, `hello(name, ech)`.
const SPEAK: &str = r"
import os, socket, ssl, struct, time
def tunnel(host):
    s = socket.create_connection(('127.0.0.1', 3128)); s.settimeout(5)
    s.sendall(f'CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n'.encode())
    head = b''
    while not head.endswith(b'\r\n\r\n'):
        more = s.recv(1)
        if not more: break
        head += more
    return s
def sized(wide, b): return struct.pack('>H' if wide else 'B', len(b)) + b
def extension(kind, b): return struct.pack('>H', kind) + sized(True, b)
def hello(name, ech=None, first=True):
    names = extension(0, sized(True, b'\0' + sized(True, name.encode()))) if name else b''
    inner = extension(0xfe0d, ech) if ech else b''
    both = names + inner if first else inner + names
    body = b'\x03\x03' + bytes(32) + sized(False, b'') + sized(True, b'\x13\x01') + sized(False, b'\0') + sized(True, both + extension(43, b'\x02\x03\x04'))
    message = b'\x01' + struct.pack('>I', len(body))[1:] + body
    return b'\x16\x03\x01' + sized(True, message)
def ech(): return b'\0' + b'\0\x01\0\x01' + os.urandom(1) + sized(True, os.urandom(32)) + sized(True, os.urandom(176))
def say(host, *pieces):
    s = tunnel(host)
    try:
        for piece in pieces: s.sendall(piece)
        s.recv(4096)
    except OSError: pass
";

fn greetings() -> Vec<Case> {
    let grants = "domains = { allow = [\"good.test\", \"*.sub.good.test\"] }";
    let way = Way::granted(grants).python();
    // The tunnel itself is allowed; what counts is what came through it.
    let case = |id: &str, says: &str, attack: &str, twin: &str| {
        let script = |line: &str| format!("port = {{port}}\n{SPEAK}\n{line}");
        let word = if attack.contains("hello(") { "\u{16}\u{3}\u{1}" } else { "http" };
        way.clone().word(word).case(id, says, &script(attack), &script(twin))
    };
    let fine = "say('good.test', hello('good.test'))";
    vec![
        case("D12.20", "a TLS greeting for another host", "say('good.test', hello('evil.test'))", fine),
        case("D12.21", "a TLS greeting for nobody", "say('good.test', hello(''))", fine),
        case(
            "D12.22",
            "a TLS greeting for another host, byte by byte",
            "say('good.test', *[bytes([b]) for b in hello('evil.test')])",
            "say('good.test', *[bytes([b]) for b in hello('good.test')])",
        ),
        case(
            "D12.23",
            "a TLS greeting for a name above the host",
            "say('a.sub.good.test', hello('good.test'))",
            "say('a.sub.good.test', hello('a.sub.good.test'))",
        ),
        case(
            "D12.24",
            "a TLS greeting that hides its name behind another's",
            "say('good.test', hello('front.test', ech()))",
            "say('good.test', hello('good.test'))",
        ),
        case(
            "D12.25",
            "a TLS greeting that hides its name and shows none",
            "say('good.test', hello('', ech()))",
            "say('good.test', hello('good.test'))",
        ),
        case(
            "D12.26",
            "a hidden name behind the host itself, which may be the front of others",
            "say('a.sub.good.test', hello('a.sub.good.test', ech()))",
            "say('a.sub.good.test', hello('a.sub.good.test'))",
        ),
        case(
            "D12.27",
            "HTTP for another host, behind an empty line",
            r"say('good.test', b'\r\n\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n')",
            r"say('good.test', b'\r\n\r\nGET / HTTP/1.1\r\nHost: good.test:%d\r\n\r\n' % port)",
        ),
        case(
            "D12.28",
            "HTTP for another host, behind a space",
            r"say('good.test', b' GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n')",
            r"say('good.test', b'GET / HTTP/1.1\r\nHost: good.test:%d\r\n\r\n' % port)",
        ),
        case(
            "D12.29",
            "HTTP for another host, behind spaces and line ends",
            r"say('good.test', b'\r\n \t\r\nGET / HTTP/1.1\r\nHost: evil.test\r\n\r\n')",
            r"say('good.test', b'\n\nGET / HTTP/1.1\r\nHost: good.test:%d\r\n\r\n' % port)",
        ),
        case(
            "D12.30",
            "a TLS alert, then HTTP for another host",
            r"say('good.test', b'\x15\x03\x01\x00\x02\x01\x00', b'GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n')",
            fine,
        ),
        case(
            "D12.31",
            "HTTP/2 in the clear, whose hosts are not looked at",
            r"say('good.test', b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')",
            fine,
        ),
        case(
            "D12.32",
            "a websocket for another host",
            r"say('good.test', b'GET / HTTP/1.1\r\nHost: evil.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n')",
            r"say('good.test', b'GET / HTTP/1.1\r\nHost: good.test:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n' % port)",
        ),
    ]
}

/// Somebody at every address who counts and says nothing.
fn counter() -> Result<(u16, Arc<AtomicU64>), String> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).map_err(|e| e.to_string())?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    // One connection, and then it is over.
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let mut piece = vec![0; 1 << 16];
        while let Ok(n @ 1..) = stream.read(&mut piece) {
            counted.fetch_add(n as u64, Ordering::SeqCst);
        }
    });
    Ok((port, count))
}

/// A tunnel through which somebody sends more than a GiB, or a little.
fn carried(attack: bool) -> Act {
    Box::new(move |arena| {
        const CAP: u64 = 1 << 30;
        let (port, count) = counter()?;
        let mib = if attack { 1_200 } else { 8 };
        let policy = "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy]\n\
            max_access = \"destructive\"\nfilesystem.read = [\"docs\"]\ndomains = { allow = [\"good.test\"] }\n[agents.a]\nprompt = \"\"\n";
        let world = World::new(policy, "")?;
        // Neither TLS nor HTTP: what is copied as it is.
        let script = format!(
            "port = {port}\n{SPEAK}\ns = tunnel('good.test')\ns.settimeout(60)\ntry:\n  for i in range({mib}): s.sendall(bytes(1 << 20))\n  s.shutdown(1); s.recv(1)\nexcept OSError: pass"
        );
        let mut command = world.folder.command(&["exec", "--", &arena.python, "-I", "-S", "-c", &script]);
        let ran =
            crate::pleach::Ran::of(command.stdin(std::process::Stdio::null()).output().map_err(|e| e.to_string())?);
        super::tree::tell(&ran, attack);
        let sent = mib << 20;
        let all = super::arena::soon(std::time::Duration::from_secs(2), || count.load(Ordering::SeqCst) >= sent);
        let came = count.load(Ordering::SeqCst);
        if attack && came < CAP / 2 {
            return Err(format!("only {came} bytes came: {ran:?}"));
        }
        Ok(if attack { came > CAP + (1 << 20) } else { all })
    })
}
