//! A connection that was allowed: counted, bounded, and put on record when it ends.

use crate::audit::{Audit, Entry};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What one connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    /// Bytes to the outside.
    pub(super) up: u64,
    /// Bytes from there.
    pub(super) down: u64,
    /// How long nothing may go either way.
    pub(super) idle: Duration,
    /// How long it may stand.
    pub(super) life: Duration,
}

/// Room for a large package or repository, an end for what was forgotten.
pub(super) const CAPS: Caps =
    Caps { up: 1 << 30, down: 8 << 30, idle: Duration::from_secs(10 * 60), life: Duration::from_secs(6 * 60 * 60) };

/// The end of a connection on record, whatever ends it.
struct Account {
    audit: Audit,
    seq: u64,
    begun: Instant,
    up: AtomicU64,
    down: AtomicU64,
    /// Milliseconds after `begun` at which something went through last.
    last: AtomicU64,
}

impl Account {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
    fn count(&self, what: &AtomicU64, bytes: usize) {
        self.last.store(self.now(), Ordering::Relaxed);
        what.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let (up, down) = (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed));
        self.audit.note(Entry::outcome(self.seq, "ok", self.now()).with("up", up).with("down", down));
    }
}

/// The stream to the outside.
pub(super) struct Metered {
    stream: TcpStream,
    account: Arc<Account>,
    caps: Caps,
}

/// Watches it while somebody else uses it.
pub(super) struct Watch(Arc<Account>, Caps);

impl Metered {
    pub(super) fn new(stream: TcpStream, audit: &Audit, seq: u64, caps: Caps) -> Self {
        let zero = AtomicU64::default;
        let account =
            Account { audit: audit.clone(), seq, begun: Instant::now(), up: zero(), down: zero(), last: zero() };
        Self { stream, account: Arc::new(account), caps }
    }
    pub(super) fn watch(&self) -> Watch {
        Watch(self.account.clone(), self.caps)
    }
}

impl Watch {
    /// Returns when the connection stood long enough, or did nothing for long enough.
    pub(super) async fn over(&self) -> &'static str {
        let Self(account, caps) = self;
        loop {
            let (now, last) = (account.now(), account.last.load(Ordering::Relaxed));
            let (stood, quiet) = (Duration::from_millis(now), Duration::from_millis(now.saturating_sub(last)));
            let (Some(life), Some(idle)) = (caps.life.checked_sub(stood), caps.idle.checked_sub(quiet)) else {
                return if stood > caps.life {
                    "it stood for too long"
                } else {
                    "nothing went through it for too long"
                };
            };
            // Past the moment, so that the next look is not before it.
            tokio::time::sleep(life.min(idle) + Duration::from_millis(1)).await;
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A read that gave something cannot fail as well, so the one after it does.
        if self.account.down.load(Ordering::Relaxed) > self.caps.down {
            return Poll::Ready(Err(io::Error::other(format!(
                "more than {} bytes down one connection",
                self.caps.down
            ))));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let (account, read) = (&self.account, buf.filled().len() - before);
        account.count(&account.down, read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // What would go over the cap does not leave.
        let left = self.caps.up.saturating_sub(self.account.up.load(Ordering::Relaxed));
        if left == 0 && !buf.is_empty() {
            return Poll::Ready(Err(io::Error::other(format!("more than {} bytes up one connection", self.caps.up))));
        }
        let part = &buf[..buf.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, part))?;
        let account = &self.account;
        account.count(&account.up, written);
        Poll::Ready(Ok(written))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn pair(caps: Caps) -> (Metered, TcpStream, Audit, tempfile::TempDir) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let far = listener.accept().await.unwrap().0;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pleach.toml");
        let loaded = crate::settings::understand("pleach.toml", "version = 1", &file).unwrap();
        let audit = Audit::open(&loaded);
        (Metered::new(near, &audit, 1, caps), far, audit, folder)
    }

    #[tokio::test]
    async fn no_byte_goes_over_a_cap_and_all_below_it_do() {
        let (mut near, mut far, ..) = pair(Caps { up: 5, down: 5, ..CAPS }).await;
        near.write_all(b"12345").await.unwrap();
        assert!(near.write_all(b"6").await.is_err());
        let mut came = [0; 5];
        far.read_exact(&mut came).await.unwrap();
        far.write_all(b"abcdef").await.unwrap();
        let mut read = Vec::new();
        assert!(near.read_to_end(&mut read).await.is_err());
        drop(near);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.ok();
        assert_eq!((&came[..], rest.len()), (&b"12345"[..], 0));
    }

    #[tokio::test]
    async fn what_does_nothing_or_stands_too_long_is_over() {
        let short = Duration::from_millis(20);
        let (near, ..) = pair(Caps { idle: short, ..CAPS }).await;
        assert_eq!(near.watch().over().await, "nothing went through it for too long");
        let (near, ..) = pair(Caps { life: short, ..CAPS }).await;
        assert_eq!(near.watch().over().await, "it stood for too long");
    }
}
