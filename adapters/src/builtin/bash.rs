//! Bash: a command in the working folder, with a time limit and bounded output.

use super::{Arguments, Outcome};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

const DEFAULT_TIMEOUT: usize = 120_000;
const MAX_TIMEOUT: usize = 600_000;
/// Bytes kept of each stream; the middle of longer output is dropped.
const MAX_OUTPUT: usize = 30_000;

pub(super) async fn run(args: Arguments, cancelled: CancellationToken) -> Outcome {
    let command = args.need("command")?;
    let limit = args.number("timeout").unwrap_or(DEFAULT_TIMEOUT).min(MAX_TIMEOUT);
    let mut child = Command::new("/bin/bash")
        .args(["-c", command])
        .current_dir(&args.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("bash could not be started: {e}"))?;
    let group = child.id();
    let out = tokio::spawn(keep(child.stdout.take()));
    let err = tokio::spawn(keep(child.stderr.take()));
    let ended = tokio::select! {
        status = child.wait() => Some(status),
        () = tokio::time::sleep(Duration::from_millis(limit as u64)) => None,
        () = cancelled.cancelled() => { kill(group); return Err("cancelled".into()); }
    };
    if ended.is_none() {
        kill(group);
    }
    let mut text = out.await.unwrap_or_default();
    let err = err.await.unwrap_or_default();
    if !err.is_empty() {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&err);
    }
    match ended {
        None => Err(format!("{text}\nThe command ran longer than {limit} ms and was ended.")),
        Some(Ok(status)) if status.success() => Ok(if text.is_empty() { "(no output)".into() } else { text }),
        Some(Ok(status)) => Err(format!("{text}\n{status}")),
        Some(Err(e)) => Err(e.to_string()),
    }
}

fn kill(group: Option<u32>) {
    if let Some(group) = group {
        crate::sandbox::signal_group(group, libc::SIGKILL);
    }
}

/// Reads to the end, keeping the first and the last half of what is too long.
async fn keep(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let (mut head, mut tail, mut dropped) = (Vec::new(), Vec::new(), 0);
    let mut buffer = vec![0; 16 << 10];
    while let Ok(n) = stream.read(&mut buffer).await {
        if n == 0 {
            break;
        }
        let room = (MAX_OUTPUT / 2).saturating_sub(head.len()).min(n);
        head.extend_from_slice(&buffer[..room]);
        tail.extend_from_slice(&buffer[room..n]);
        if tail.len() > MAX_OUTPUT {
            let cut = tail.len() - MAX_OUTPUT / 2;
            tail.drain(..cut);
            dropped += cut;
        }
    }
    let mut text = String::from_utf8_lossy(&head).into_owned();
    if dropped > 0 {
        text.push_str(&format!("\n… {dropped} bytes left out …\n"));
    }
    text.push_str(&String::from_utf8_lossy(&tail));
    text
}
