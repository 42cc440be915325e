//! Logs on standard error, quiet unless `PLEACH_LOG` asks (`PLEACH_LOG=debug`).

use adapters::hidden;
use std::io::{self, Write};
use tracing_subscriber::EnvFilter;

/// `usual` is what is logged when nobody asks: a command says itself what went wrong, a server
/// has only its log.
pub(crate) fn start(usual: &str) {
    let filter = EnvFilter::try_from_env("PLEACH_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Clean).without_time().try_init();
}

/// Standard error without the values of secrets, whichever library wrote the line. A line comes
/// in one piece.
struct Clean;

impl Write for Clean {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(hidden::in_text(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
