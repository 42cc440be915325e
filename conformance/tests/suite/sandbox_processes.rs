//! Processes under the sandbox: nothing survives, nothing leaks in, exit codes are a shell's.

use crate::sandbox_files::folder;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn exit_codes_are_the_commands() {
    let folder = folder();
    let code = |args: &[&str]| folder.run(&[&["exec", "--"], args].concat()).code;
    assert_eq!(code(&["true"]), 0);
    assert_eq!(code(&["sh", "-c", "exit 7"]), 7);
    assert_eq!(code(&["sh", "-c", "kill -TERM $$"]), 128 + 15);
    assert_eq!(code(&["sh", "-c", "kill -KILL $$"]), 128 + 9);
    assert_eq!(code(&["no-such-program"]), 127);
    assert_eq!(code(&["./docs/a.md"]), 126);
}

#[test]
fn only_the_commands_output_is_on_stdout() {
    let ran = folder().run(&["exec", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("out\n", "err\n"));
}

#[test]
fn the_environment_is_clean() {
    let folder = folder();
    let mut command = folder.command(&["exec", "--", "env"]);
    command.env("AWS_SECRET_ACCESS_KEY", "hunter2").env("LD_PRELOAD", "/nonexistent.so").env("BASH_ENV", "/x");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!text.contains("hunter2") && !text.contains("LD_PRELOAD") && !text.contains("BASH_ENV"), "{text}");
    assert!(text.contains("PATH=") && text.contains("HOME=") && text.contains("TMPDIR=/tmp/"), "{text}");
}

#[test]
fn no_descriptor_of_ours_is_open() {
    let ran = folder().run(&["exec", "--", "sh", "-c", "ls /proc/self/fd | tr '\\n' ' '"]);
    assert_eq!(ran.out.trim(), "0 1 2 3", "3 is ls reading the folder itself");
}

#[test]
fn no_capability_and_no_way_to_gain_one() {
    let ran = folder().run(&["exec", "--", "grep", "-E", "^(Cap|NoNewPrivs|Seccomp:)", "/proc/self/status"]);
    for line in ran.out.lines() {
        let value = line.split_whitespace().last().unwrap();
        let expected = match line {
            l if l.starts_with("NoNewPrivs") => "1",
            l if l.starts_with("Seccomp") => "2",
            _ => "0000000000000000",
        };
        assert_eq!(value, expected, "{line}");
    }
    assert_eq!(ran.out.lines().count(), 7);
}

#[test]
fn other_processes_cannot_be_seen_or_signalled() {
    let folder = folder();
    let ours = std::process::id();
    let ran = folder.run(&[
        "exec",
        "--",
        "sh",
        "-c",
        &format!("kill -0 {ours}; cat /proc/{ours}/cmdline; kill -9 1; echo alive"),
    ]);
    assert!(ran.out.ends_with("alive\n") && ran.code == 0, "{ran:?}");
    assert!(!ran.out.contains("suite"), "{ran:?}");
}

#[test]
fn forbidden_system_calls_fail_and_ordinary_ones_do_not() {
    let folder = folder();
    // Each line: a call by number would be more direct, but python names them for us.
    let script = r#"
import ctypes, socket, sys, os
libc = ctypes.CDLL(None, use_errno=True)
bad = []
def denied(name, result):
    if result != -1: bad.append(name)
denied("unshare", libc.unshare(0x10000000))
denied("ptrace", libc.ptrace(0, 0, 0, 0))
denied("mount", libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
denied("memfd", libc.syscall(319, b"x", 0))
denied("io_uring", libc.syscall(425, 1, 0))
denied("bpf", libc.syscall(321, 0, 0, 0))
denied("keyctl", libc.syscall(250, 0, 0, 0, 0, 0))
denied("userfaultfd", libc.syscall(323, 0))
for family, kind, protocol in [(socket.AF_UNIX, 1, 0), (16, 3, 0), (40, 1, 0), (17, 3, 0), (2, 3, 1), (2, 1, 262)]:
    try:
        socket.socket(family, kind, protocol); bad.append(f"socket {family} {kind} {protocol}")
    except OSError: pass
socket.socket(2, 1, 0); socket.socket(10, 2, 0); socket.socketpair()
try:
    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); bad.append("datagram pair")
except OSError: pass
master, slave = os.openpty()
if not os.ttyname(slave).startswith("/dev/pts/"): bad.append("pty")
if len([n for n in os.listdir("/dev/pts") if n != "ptmx"]) > 1: bad.append("terminals of others")
import threading, subprocess
t = threading.Thread(target=lambda: None); t.start(); t.join()
subprocess.run(["true"], check=True)
print("bad:", bad)
"#;
    folder.write("docs/probe.py", script);
    let ran = folder.run(&["exec", "--", "python3", "docs/probe.py"]);
    assert_eq!(ran.out.trim(), "bad: []", "{ran:?}");
}

/// `kill -9` of pleach takes everything with it, also what made its own session.
#[test]
fn nothing_outlives_pleach() {
    let folder = folder();
    let marker = format!("{}", 70_000_000 + std::process::id());
    let script = format!("setsid sleep {marker} & (sleep {marker} &) ; echo ready; sleep {marker}");
    let mut child = folder.command(&["exec", "--", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    wait_until("three sleepers", || sleepers(&marker) == 3);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("no sleeper", || sleepers(&marker) == 0);
}

/// A signal to pleach reaches the command, which may end in its own way.
#[test]
fn signals_are_forwarded() {
    let folder = folder();
    let script = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = folder.command(&["exec", "--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    // SAFETY is kill(1)'s: the pid is our own child's.
    std::process::Command::new("kill").arg("-TERM").arg(child.id().to_string()).status().unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("got\n", Some(3)));
}

pub(crate) fn sleepers(marker: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let cmdlines = processes.filter_map(|p| std::fs::read(p.path().join("cmdline")).ok());
    cmdlines.filter(|c| c.starts_with(b"sleep\0") && String::from_utf8_lossy(c).contains(marker)).count()
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_killed_pleach_leaves_nothing_under_any_profile() {
    for profile in ["full", "no-namespaces", "off"] {
        let folder = conformance::pleach::Folder::new(&format!(
            "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n\
             [policy.sandbox]\nprofile = \"{profile}\"\n[agents.a]\nprompt = \"\"\n"
        ));
        // Two of them: the program, and what it started in the background.
        let mut command = folder.command(&["exec", "--", "sh", "-c", "sleep 600 & echo ready; sleep 600"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{profile}");
        child.kill().unwrap();
        child.wait().unwrap();
        // The pipe ends with the last of them.
        let (tell, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(out.read_to_end(&mut Vec::new()).map(drop)));
        assert!(ended.recv_timeout(Duration::from_secs(30)).is_ok_and(|end| end.is_ok()), "{profile}: it goes on");
    }
}
