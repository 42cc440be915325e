//! What all cases share: a resolver that knows every name, listeners at every address, and the
//! processes that are alive.

use super::gate::Gates;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Set where the namespaces are entered.
pub(super) const INSIDE: &str = "PLEACH_POLICY_INSIDE";
/// Set to see which attacks of programs work when Pleach is not there.
const BARE: &str = "PLEACH_POLICY_BARE";

/// What all cases share.
pub(super) struct Arena {
    pub(super) python: String,
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) names: Names,
    pub(super) gates: Gates,
    pub(super) bare: bool,
    next: AtomicU64,
}

impl Arena {
    pub(super) fn open() -> Result<Self, String> {
        let found = Command::new("python3")
            .args(["-c", "import os,sys; print(os.path.realpath(sys.executable))"])
            .output()
            .map_err(|e| format!("python3: {e}"))?;
        Ok(Self {
            python: String::from_utf8_lossy(&found.stdout).trim().to_owned(),
            runtime: tokio::runtime::Runtime::new().map_err(|e| e.to_string())?,
            names: Names::start()?,
            gates: Gates::default(),
            bare: std::env::var_os(BARE).is_some(),
            next: AtomicU64::new(0),
        })
    }
    /// A word that belongs to one act and to no other.
    pub(super) fn tag(&self) -> String {
        format!("tag{}x{}", std::process::id(), self.next.fetch_add(1, Ordering::SeqCst))
    }
}

/// Whether a process with this word among its arguments lives.
pub(super) fn alive(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
    lines.into_iter().any(|line| String::from_utf8_lossy(&line).contains(word))
}

/// Waits until something is so, for a while; gives whether it was.
pub(super) fn soon(limit: Duration, mut so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    while !so() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody who listens on one port of every address, TCP and UDP, and keeps what came: the
/// address it was sent to, and the bytes.
pub(super) struct Everywhere {
    pub(super) port: u16,
    seen: Arc<Mutex<Vec<(IpAddr, String)>>>,
    over: Arc<AtomicBool>,
}

impl Drop for Everywhere {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = std::net::TcpStream::connect(("127.0.0.1", self.port));
        if let Ok(socket) = UdpSocket::bind("127.0.0.1:0") {
            let _ = socket.send_to(b"", ("127.0.0.1", self.port));
        }
    }
}

impl Everywhere {
    /// Listens; `answer` is what every connection is told after its first bytes.
    pub(super) fn listen(answer: &str) -> Result<Self, String> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).map_err(|e| e.to_string())?;
        let port = listener.local_addr().map_err(|e| e.to_string())?.port();
        let datagrams = UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).map_err(|e| e.to_string())?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let answer = answer.replace("{port}", &port.to_string());
        let (kept, ended) = (seen.clone(), over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (kept, answer) = (kept.clone(), answer.clone());
                std::thread::spawn(move || heard(stream, &kept, &answer));
            }
        });
        let (kept, ended) = (seen.clone(), over.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((n, from)) = datagrams.recv_from(&mut buffer) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                lock(&kept).push((from.ip().to_canonical(), String::from_utf8_lossy(&buffer[..n]).into_owned()));
            }
        });
        Ok(Self { port, seen, over })
    }
    /// What came so far.
    pub(super) fn seen(&self) -> Vec<(IpAddr, String)> {
        lock(&self.seen).clone()
    }
}

fn heard(mut stream: std::net::TcpStream, kept: &Mutex<Vec<(IpAddr, String)>>, answer: &str) {
    let at = stream.local_addr().map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |a| a.ip().to_canonical());
    let place = {
        // The connection alone is a byte too many.
        let mut seen = lock(kept);
        seen.push((at, String::new()));
        seen.len() - 1
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let mut buffer = [0; 8192];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 {
            return;
        }
        lock(kept)[place].1.push_str(&String::from_utf8_lossy(&buffer[..n]));
        if stream.write_all(answer.as_bytes()).is_err() || stream.shutdown(std::net::Shutdown::Write).is_err() {
            return;
        }
    }
}

/// The resolver. Names end in `.test`: what they mean is in [`Names::meaning`].
pub(super) struct Names {
    asked: Arc<Mutex<Vec<String>>>,
}

/// A stranger on the internet.
pub(super) const STRANGER: &str = "93.184.216.34";
/// A friend there.
pub(super) const FRIEND: &str = "151.101.1.6";

impl Names {
    fn start() -> Result<Self, String> {
        let socket = UdpSocket::bind("127.0.0.99:53").map_err(|e| format!("the resolver's port: {e}"))?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = asked.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                let query = &buffer[..n];
                if let Some((name, kind, end)) = question(query) {
                    let before = {
                        let mut all = lock(&kept);
                        all.push(format!("{kind} {name}"));
                        all.iter().filter(|n| **n == format!("{kind} {name}")).count() - 1
                    };
                    let _ = socket.send_to(&reply(query, end, &name, kind, before), from);
                }
            }
        });
        Ok(Self { asked })
    }
    /// Whether a name with this word in it was asked for.
    pub(super) fn asked(&self, word: &str) -> bool {
        lock(&self.asked).iter().any(|name| name.contains(word))
    }
    /// What a name means at its so-many-th asking: its other name, and its addresses.
    /// `ip-10-0-0-5.…` and `six-00…01.…` mean what they say.
    fn meaning(name: &str, before: usize) -> (Option<&'static str>, Vec<IpAddr>) {
        let label = name.split('.').next().unwrap_or("");
        let four = |list: &[&str]| list.iter().filter_map(|text| text.parse().ok()).collect();
        if let Some(text) = label.strip_prefix("ip-") {
            return (None, four(&[&text.replace('-', ".")]));
        }
        if let Some(text) = label.strip_prefix("six-") {
            let address = u128::from_str_radix(text, 16).map(|bits| IpAddr::V6(Ipv6Addr::from(bits)));
            return (None, address.into_iter().collect());
        }
        match label.split('-').next().unwrap_or("") {
            "loopback" => (None, four(&["127.0.0.1"])),
            "private" => (None, four(&["10.0.0.5"])),
            "metadata" => (None, four(&["169.254.169.254"])),
            "shared" => (None, four(&["100.64.1.1"])),
            "mixed" => (None, four(&[FRIEND, "10.0.0.5"])),
            "mixedlast" => (None, four(&["10.0.0.5", FRIEND])),
            "mixedsix" => (None, four(&[FRIEND, "fd12::1"])),
            "aliasmixed" => (Some("inner.lan.test"), four(&[FRIEND, "10.0.0.5"])),
            "rebind" if before == 0 => (None, four(&[FRIEND])),
            "rebind" => (None, four(&["10.0.0.5"])),
            "alias" => (Some("inner.lan.test"), four(&["10.0.0.5"])),
            "friend" => (Some("cdn.elsewhere.test"), four(&[FRIEND])),
            "zero" => (None, four(&["0.0.0.0"])),
            _ if name.contains("good") || name.contains("names") => (None, four(&[FRIEND])),
            _ => (None, four(&[STRANGER])),
        }
    }
}

/// The name asked for, its kind, and where the question ends.
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

fn wire(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).unwrap_or(0));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

fn reply(query: &[u8], end: usize, name: &str, kind: u16, before: usize) -> Vec<u8> {
    let (alias, addresses) = Names::meaning(name, before);
    let addresses: Vec<IpAddr> = addresses.into_iter().filter(|a| kind == if a.is_ipv4() { 1 } else { 28 }).collect();
    let alias = alias.filter(|_| !addresses.is_empty());
    let count = u16::try_from(addresses.len() + usize::from(alias.is_some())).unwrap_or(0);
    let mut out = query[..2].to_vec();
    out.extend_from_slice(&[0x81, 0x80, 0, 1]);
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0]);
    out.extend_from_slice(&query[12..end]);
    let mut owner = vec![0xc0, 12];
    let mut record = |owner: &[u8], kind: u16, data: &[u8]| {
        out.extend_from_slice(owner);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
        out.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(data);
    };
    if let Some(alias) = alias {
        record(&owner, 5, &wire(alias));
        owner = wire(alias);
    }
    for address in addresses {
        match address {
            IpAddr::V4(address) => record(&owner, 1, &address.octets()),
            IpAddr::V6(address) => record(&owner, 28, &address.octets()),
        }
    }
    out
}
