//! A TCP listener that remembers what reached it: the ground truth of egress tests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// A small HTTP server on loopback. Every request that arrives is kept; every answer is `pong`.
pub struct Ledger {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Ledger {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// When loopback cannot be listened on.
    #[allow(clippy::unwrap_used)]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        // Ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), kept) = (stream, kept.clone()) else { continue };
                std::thread::spawn(move || {
                    let mut head = [0u8; 8192];
                    let n = stream.read(&mut head).unwrap_or(0);
                    kept.lock().unwrap().push(String::from_utf8_lossy(&head[..n]).into_owned());
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\npong");
                });
            }
        });
        Self { address, seen }
    }
    /// What arrived so far.
    ///
    /// # Panics
    /// Never in practice: the lock is held for a push only.
    #[allow(clippy::unwrap_used)]
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}
