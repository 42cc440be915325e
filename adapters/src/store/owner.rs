//! Who works on a tree: the boot, the process, when it started, and where. A pid alone can be
//! used again, and means something else in another container.

use std::fs;
use std::sync::OnceLock;

/// What can be said of the process a mark names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is there.
    Alive,
    /// It is certainly not.
    Dead,
    /// It ran where this process cannot look: another machine or container.
    Elsewhere,
}

struct Here {
    boot: String,
    /// The machine's id and the process namespace.
    machine: String,
    namespace: String,
}

fn here() -> &'static Here {
    static HERE: OnceLock<Here> = OnceLock::new();
    HERE.get_or_init(|| {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default().display().to_string();
        Here { boot: text("/proc/sys/kernel/random/boot_id"), machine: text("/etc/machine-id"), namespace }
    })
}

/// This process.
pub(super) fn own() -> String {
    let pid = std::process::id();
    let Here { boot, machine, namespace } = here();
    format!("{boot} {pid} {} {machine} {namespace}", start_time(pid).unwrap_or_default())
}

/// What can be said of the process a mark names.
pub(super) fn standing(mark: &str) -> Standing {
    let mut parts = mark.split(' ');
    let (Some(boot), Some(pid), Some(start)) = (parts.next(), parts.next(), parts.next()) else {
        return Standing::Dead;
    };
    let Ok(pid) = pid.parse::<u32>() else { return Standing::Dead };
    let here = here();
    // Older versions wrote neither; their stores never left the machine.
    let machine = parts.next().unwrap_or(&here.machine);
    let namespace = parts.next().unwrap_or(&here.namespace);
    if boot.is_empty() {
        // No /proc to look into.
        return if mark == own() { Standing::Alive } else { Standing::Elsewhere };
    }
    if boot != here.boot {
        let rebooted = machine == here.machine && (!machine.is_empty() || mark.split(' ').count() == 3);
        return if rebooted { Standing::Dead } else { Standing::Elsewhere };
    }
    if namespace != here.namespace {
        return Standing::Elsewhere;
    }
    if start_time(pid).as_deref() == Some(start) { Standing::Alive } else { Standing::Dead }
}

/// Whether a tree's owner still has it, as far as can be seen at `now`.
pub(super) fn holds(mark: &str, lease_until: u64, now: u64) -> bool {
    match standing(mark) {
        Standing::Alive => true,
        Standing::Dead => false,
        Standing::Elsewhere => lease_until > now,
    }
}

/// The process, for people.
pub(super) fn in_words(mark: &str) -> String {
    let pid = mark.split(' ').nth(1).unwrap_or("?");
    match standing(mark) {
        Standing::Elsewhere => format!("process {pid} of another machine or container"),
        _ => format!("process {pid}"),
    }
}

/// Field 22 of `/proc/PID/stat`, counted after the command's name, which may hold anything; none
/// for one that is dead and only waits to be reaped.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.rsplit_once(')')?.1;
    let mut fields = after.split_whitespace();
    let ended = matches!(fields.next(), None | Some("Z" | "X" | "x"));
    fields.nth(18).filter(|_| !ended).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_who_is_alive() {
        let own = own();
        assert_eq!(standing(&own), Standing::Alive);
        let old: Vec<&str> = own.split(' ').take(3).collect();
        assert_eq!(standing(&old.join(" ")), Standing::Alive, "as older versions wrote it");
        let [boot, pid, start] = old[..] else { panic!("{own}") };
        assert_eq!(standing(&format!("{boot} {pid} 1")), Standing::Dead, "the pid was used again");
        assert_eq!(standing(&format!("other {pid} {start}")), Standing::Dead, "the machine was started again");
        assert_eq!(standing(&format!("{boot} {pid} {start} {} pid:[1]", here().machine)), Standing::Elsewhere);
        let far = format!("other {pid} {start} another-machine pid:[1]");
        assert_eq!(standing(&far), Standing::Elsewhere);
        assert!(holds(&far, 2, 1) && !holds(&far, 1, 1), "only its lease speaks for it");
        assert_eq!(standing(""), Standing::Dead);
    }
}
