//! Logs on standard error, quiet unless `PLEACH_LOG` asks (`PLEACH_LOG=debug`).

use tracing_subscriber::EnvFilter;

/// `usual` is what is logged when nobody asks: a command says itself what went wrong, a server
/// has only its log.
pub(crate) fn start(usual: &str) {
    let filter = EnvFilter::try_from_env("PLEACH_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().try_init();
}
