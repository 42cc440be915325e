//! A `pleach` that is watched while it lives, and can be killed by anybody at any moment.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The process that is to die, while there is one.
#[derive(Default)]
pub(super) struct Victim(Mutex<Option<Child>>);

impl Victim {
    /// SIGKILL.
    pub(super) fn kill(&self) {
        if let Some(child) = self.lock().as_mut() {
            let _ = child.kill();
        }
    }
    /// Runs a command and hands on what it prints, line by line, until it ends.
    pub(super) fn run(&self, command: &mut Command, mut line: impl FnMut(&str)) -> Result<ExitStatus, String> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
        let out = child.stdout.take();
        *self.lock() = Some(child);
        for text in out.map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
            line(&text);
        }
        self.ended()
    }
    /// Begins a command that serves until it is killed; gives what it prints to standard error.
    pub(super) fn begin(&self, command: &mut Command) -> Result<impl BufRead + use<>, String> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| e.to_string())?;
        let err = child.stderr.take().ok_or("its standard error is not piped")?;
        *self.lock() = Some(child);
        Ok(BufReader::new(err))
    }
    /// Waits for its end.
    pub(super) fn ended(&self) -> Result<ExitStatus, String> {
        let mut slot = self.lock();
        let status = slot.as_mut().ok_or("nothing runs")?.wait().map_err(|e| e.to_string());
        *slot = None;
        status
    }
    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
