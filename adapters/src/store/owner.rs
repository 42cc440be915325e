//! Who works on a run: the boot, the process and when it started. A pid alone can be reused.

use std::fs;

/// This process.
pub(super) fn own() -> String {
    let pid = std::process::id();
    format!("{} {pid} {}", boot_id(), start_time(pid).unwrap_or_default())
}

/// Whether the process a mark names is alive.
pub(super) fn alive(mark: &str) -> bool {
    let mut parts = mark.split(' ');
    let (Some(boot), Some(pid), Some(start)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let Ok(pid) = pid.parse::<u32>() else { return false };
    boot == boot_id() && start_time(pid).as_deref() == Some(start)
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Field 22 of `/proc/PID/stat`, counted after the command's name, which may hold anything.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.rsplit_once(')')?.1;
    after.split_whitespace().nth(19).map(str::to_owned)
}
