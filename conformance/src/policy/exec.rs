//! X: processes. Other ways to run, to trace, to signal, to outlive, and to gain a right.

use super::Case;
use super::shell::Scene;

pub(super) fn cases() -> Vec<Case> {
    [programs(), environment(), rights(), survivors(), others(), calls()].into_iter().flatten().collect()
}

const CTYPES: &str = "import ctypes, os, socket, sys\nl = ctypes.CDLL(None, use_errno=True)\ndef got(): open('outside/got', 'w').close() if 0 else print('S3CR3T-canary-9f41')\n";

/// A system call that must fail; the twin is one that must not.
fn call(id: &str, says: &str, attack: &str, twin: &str) -> Case {
    Scene::python().case(id, says, &format!("{CTYPES}{attack}"), &format!("{CTYPES}{twin}\nopen('out/done', 'w')"))
}

/// Running something other than what is granted.
fn programs() -> Vec<Case> {
    let case = |id: &str, says: &str, attack: &str, twin: &str| Scene::plain().case(id, says, attack, twin);
    let memfd = "fd = l.syscall(319, b'x', 0)\nif fd >= 0:\n  os.write(fd, open('/bin/cat', 'rb').read()); os.execv('/proc/self/fd/%d' % fd, ['cat', 'outside/secret.txt', 'docs/a.md']) if 0 else got()";
    vec![
        case(
            "X1.01",
            "the loader as a trampoline reads no more",
            "$(ls /lib64/ld-linux* /lib/ld-linux* 2>/dev/null | head -1) /bin/cat outside/secret.txt",
            "$(ls /lib64/ld-linux* /lib/ld-linux* 2>/dev/null | head -1) /bin/cat docs/a.md",
        ),
        case(
            "X1.02",
            "a copy of a program reads no more",
            "cp /bin/cat out/c; out/c outside/secret.txt",
            "cp /bin/cat out/c; out/c docs/a.md",
        ),
        case(
            "X1.03",
            "a script with an interpreter reads no more",
            "printf '#!/bin/sh\\ncat outside/secret.txt' > out/s; chmod +x out/s; out/s",
            "printf '#!/bin/sh\\ncat docs/a.md' > out/s; chmod +x out/s; out/s",
        ),
        case(
            "X1.04",
            "shells within shells read no more",
            "sh -c \"sh -c 'bash -c \\\"cat outside/secret.txt\\\"'\"",
            "sh -c \"sh -c 'bash -c \\\"cat docs/a.md\\\"'\"",
        ),
        case("X1.05", "a program that lies outside", "outside/run", "cat docs/a.md"),
        call("X1.06", "a program in memory only", memfd, "os.write(os.open('out/x', os.O_CREAT | os.O_WRONLY), b'x')"),
        case(
            "X1.07",
            "exec by find",
            "find docs -name a.md -exec cat outside/secret.txt \\;",
            "find docs -name a.md -exec cat {} \\;",
        ),
        case(
            "X1.08",
            "Pleach itself, run inside under another policy",
            "printf 'version = 1\\n[policy]\\nmax_access = \"destructive\"\\nfilesystem.read = [\"/\"]\\n[policy.sandbox]\\nprofile = \"off\"\\n[models.default]\\nprovider = \"scripted\"\\nscript = \"r.toml\"\\n[agents.a]\\nprompt = \"\"\\n' > out/pleach.toml; touch out/r.toml; $(readlink -f /proc/1/exe) exec --config out/pleach.toml -- cat outside/secret.txt; /proc/1/exe exec --config out/pleach.toml -- cat outside/secret.txt",
            "cat docs/a.md",
        ),
        case(
            "X1.09",
            "a symlink swapped for a program",
            "ln -s /bin/cat out/c; out/c outside/secret.txt",
            "ln -s /bin/cat out/c; out/c docs/a.md",
        ),
    ]
}

/// What Pleach was started with must not decide what a program runs.
fn environment() -> Vec<Case> {
    let mut all = Vec::new();
    for (i, name) in [
        "BASH_ENV",
        "ENV",
        "LD_BIND_NOT",
        "PYTHONSTARTUP",
        "NODE_OPTIONS",
        "GIT_SSH_COMMAND",
        "PERL5OPT",
        "GIT_EXTERNAL_DIFF",
        "PAGER",
        "PROMPT_COMMAND",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "AWS_SECRET_ACCESS_KEY",
        "ANTHROPIC_API_KEY",
        "SSH_AUTH_SOCK",
        "GITHUB_TOKEN",
        "IFS_SECRET",
        "XDG_CONFIG_HOME",
    ]
    .into_iter()
    .enumerate()
    {
        let scene = Scene::plain().with(name, "S3CR3T-canary-9f41").with("LANG", "PUBLIC-canary-27ab");
        all.push(scene.case(
            &format!("X2.{:02}", i + 1),
            &format!("{name} of whoever started Pleach"),
            &format!("printenv {name}"),
            "printenv LANG",
        ));
    }
    let poisoned = Scene::plain()
        .after("echo 'echo S3CR3T-canary-9f41; touch outside/ran' > outside/rc; chmod +x outside/rc")
        .with("BASH_ENV", "outside/rc");
    all.push(poisoned.case("X2.30", "a start file named by the environment", "bash -c true", "cat docs/a.md"));
    all.push(Scene::plain().case(
        "X2.31",
        "the environment of the launcher",
        "cat /proc/1/environ | tr '\\0' '\\n' | grep -q . && echo S3CR3T-canary-9f41",
        "cat /proc/self/environ > /dev/null && cat docs/a.md",
    ));
    all
}

/// Gaining a right.
fn rights() -> Vec<Case> {
    let case = |id: &str, says: &str, attack: &str, twin: &str| Scene::plain().case(id, says, attack, twin);
    vec![
        Scene::plain().after("cp /bin/bash out/suid; chown 0:0 out/suid; chmod 4755 out/suid").case(
            "X3.01",
            "a set-user-id program",
            "out/suid -p -c 'cat outside/secret.txt'; setpriv --reuid=1 true && echo S3CR3T-canary-9f41",
            "out/suid -c 'cat docs/a.md'",
        ),
        case(
            "X3.02",
            "making one",
            "cp /bin/cat out/c; chmod 4755 out/c; out/c outside/secret.txt",
            "cp /bin/cat out/c; out/c docs/a.md",
        ),
        case(
            "X3.03",
            "a capability in the sets",
            "grep -E '^Cap(Prm|Eff|Bnd|Amb|Inh)' /proc/self/status | grep -qv 0000000000000000 && echo S3CR3T-canary-9f41",
            "grep -qE '^CapEff.*0000000000000000' /proc/self/status && cat docs/a.md",
        ),
        case(
            "X3.04",
            "new privileges at exec",
            "grep -q 'NoNewPrivs:.0' /proc/self/status && echo S3CR3T-canary-9f41",
            "cat docs/a.md",
        ),
        call("X3.05", "another user's id", "if l.setuid(12345) == 0: got()", "assert l.setuid(os.getuid()) == 0"),
        call("X3.06", "another group's id", "if l.setgroups(1, (ctypes.c_uint * 1)(0)) == 0: got()", "os.getgroups()"),
        call(
            "X3.07",
            "raising a hard limit",
            "import resource\ntry:\n  resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20)); got()\nexcept (ValueError, PermissionError): pass",
            "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
        ),
        call(
            "X3.08",
            "a core file with memory in it",
            "import resource\nif resource.getrlimit(resource.RLIMIT_CORE)[1] != 0: got()",
            "import resource\nresource.getrlimit(resource.RLIMIT_CORE)",
        ),
        call(
            "X3.09",
            "a higher priority",
            "if l.setpriority(0, 0, os.getpriority(0, 0) - 1) == 0: got()",
            "l.setpriority(0, 0, 15)",
        ),
        call(
            "X3.10",
            "the clock",
            "class T(ctypes.Structure): _fields_ = [('s', ctypes.c_long), ('n', ctypes.c_long)]\nif l.clock_settime(0, ctypes.byref(T(0, 0))) == 0: got()",
            "import time\ntime.time()",
        ),
        call("X3.11", "the host's name", "if l.sethostname(b'evil', 4) == 0: got()", "socket.gethostname()"),
    ]
}

/// Outliving the command.
fn survivors() -> Vec<Case> {
    let scene = Scene::plain().lives_on();
    let twin = "bash -c 'exec -a {tag} sleep 0' & wait; touch out/done";
    [
        ("X4.01", "a background process", "(exec -a {tag} sleep 600) > /dev/null 2>&1 & true"),
        (
            "X4.02",
            "one with a session of its own",
            "setsid bash -c 'exec -a {tag} sleep 600' > /dev/null 2>&1 & sleep 0.1",
        ),
        ("X4.03", "a double fork", "(( exec -a {tag} sleep 600 ) > /dev/null 2>&1 &) & sleep 0.1"),
        (
            "X4.04",
            "one that ignores signals",
            "(trap '' TERM HUP INT; exec -a {tag} sleep 600) > /dev/null 2>&1 & sleep 0.1",
        ),
        ("X4.05", "nohup", "nohup bash -c 'exec -a {tag} sleep 600' > /dev/null 2>&1 & sleep 0.1"),
        ("X4.06", "one that is stopped", "(exec -a {tag} sleep 600) > /dev/null 2>&1 & sleep 0.1; kill -STOP $!"),
        (
            "X4.07",
            "a hundred of them",
            "for i in $(seq 100); do (exec -a {tag} sleep 600) > /dev/null 2>&1 & done; sleep 0.2",
        ),
    ]
    .into_iter()
    .map(|(id, says, attack)| scene.case(id, says, attack, twin))
    .collect()
}

/// Reaching other processes.
fn others() -> Vec<Case> {
    let victim = Scene::plain();
    let case = |id: &str, says: &str, attack: &str, twin: &str| victim.case(id, says, attack, twin);
    vec![
        case(
            "X5.01",
            "the list of other processes",
            "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; done 2>/dev/null | grep -q '[c]onformance policy' && echo S3CR3T-canary-9f41",
            "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; done 2>/dev/null | grep -q bash && cat docs/a.md",
        ),
        case(
            "X5.02",
            "the environment of other processes",
            "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -q PLEACH_POLICY_INSIDE && echo S3CR3T-canary-9f41",
            "cat docs/a.md",
        ),
        case(
            "X5.03",
            "the memory of the launcher",
            "head -c1 /proc/1/mem > /dev/null 2>&1 && echo S3CR3T-canary-9f41; cat /proc/1/maps 2>/dev/null | grep -q . && echo S3CR3T-canary-9f41",
            "cat /proc/self/maps | grep -q . && cat docs/a.md",
        ),
        case(
            "X5.04",
            "the descriptors of the launcher",
            "readlink /proc/1/fd/* | grep -q . && echo S3CR3T-canary-9f41",
            "ls /proc/self/fd | grep -q . && cat docs/a.md",
        ),
        case(
            "X5.05",
            "the launcher's root",
            "ls /proc/1/root/ 2>/dev/null | grep -q . && echo S3CR3T-canary-9f41",
            "ls docs | grep -q a.md && cat docs/a.md",
        ),
        case(
            "X6.01",
            "killing the launcher",
            "kill -KILL 1; kill -STOP 1; sleep 0.1; kill -TERM $PPID 2>/dev/null; grep -q T /proc/1/stat && echo S3CR3T-canary-9f41; true",
            "sleep 60 & kill $! && cat docs/a.md",
        ),
        case(
            "X6.02",
            "signals to everybody",
            "kill -0 -1 2>/dev/null; for i in $(seq 2 400); do kill -0 $i 2>/dev/null && [ $i != $$ ] && [ ! -d /proc/$i ] && echo S3CR3T-canary-9f41; done; true",
            "kill -0 $$ && cat docs/a.md",
        ),
        call(
            "X7.01",
            "typing into the terminal",
            "import fcntl\ntry:\n  fcntl.ioctl(0, 0x5412, b'x'); got()\nexcept OSError: pass\nm, s = os.openpty()\ntry:\n  fcntl.ioctl(s, 0x5412, b'x'); got()\nexcept OSError: pass",
            "m, s = os.openpty(); os.write(m, b'x')",
        ),
        call(
            "X7.02",
            "typing into it by the high bits of the request",
            "m, s = os.openpty()\nif l.syscall(16, s, ctypes.c_ulong(0x100005412), b'x') == 0: got()",
            "m, s = os.openpty(); os.ttyname(s)",
        ),
        case(
            "X7.03",
            "other terminals",
            "ls /dev/pts | grep -q '^[0-9]' && for t in /dev/pts/[0-9]*; do echo evil > $t && echo S3CR3T-canary-9f41; done 2>/dev/null; true",
            "cat docs/a.md",
        ),
    ]
}

/// System calls no tool needs. By number: x86-64's.
fn calls() -> Vec<Case> {
    let fine = "l.getpid()";
    let number = |id: &str, says: &str, call: &str| {
        super::exec::call(id, says, &format!("if l.syscall({call}) >= 0: got()"), fine)
    };
    let socket = |id: &str, says: &str, three: &str| {
        super::exec::call(
            id,
            says,
            &format!("try:\n  socket.socket({three}); got()\nexcept OSError: pass"),
            "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
        )
    };
    vec![
        number("X5.10", "tracing", "101, 0, 0, 0, 0"),
        call(
            "X5.11",
            "tracing a child of its own",
            "p = os.fork()\nif p == 0:\n  import time; time.sleep(1); os._exit(0)\nif l.syscall(101, 0x4206, p, 0, 0) == 0: got()\nos.kill(p, 9)",
            "p = os.fork()\nif p == 0: os._exit(0)\nos.waitpid(p, 0)",
        ),
        call(
            "X5.12",
            "reading another's memory",
            "b = ctypes.create_string_buffer(8); v = (ctypes.c_size_t * 2)(ctypes.addressof(b), 8)\nif l.syscall(310, 1, v, 1, v, 1, 0) > 0 or l.syscall(310, os.getpid(), v, 1, v, 1, 0) > 0: got()",
            "b = ctypes.create_string_buffer(8)",
        ),
        call(
            "X5.13",
            "writing another's memory",
            "b = ctypes.create_string_buffer(8); v = (ctypes.c_size_t * 2)(ctypes.addressof(b), 8)\nif l.syscall(311, os.getpid(), v, 1, v, 1, 0) > 0: got()",
            "b = ctypes.create_string_buffer(8)",
        ),
        call(
            "X5.14",
            "taking another's descriptor",
            "fd = l.syscall(434, 1, 0)\nif fd >= 0 and l.syscall(438, fd, 0, 0) >= 0: got()",
            "l.syscall(434, os.getpid(), 0)",
        ),
        call(
            "X5.15",
            "taking a child's descriptor",
            "p = os.fork()\nif p == 0:\n  import time; time.sleep(1); os._exit(0)\nfd = l.syscall(434, p, 0)\nif fd >= 0 and l.syscall(438, fd, 0, 0) >= 0: got()\nos.kill(p, 9)",
            "p = os.fork()\nif p == 0: os._exit(0)\nos.waitpid(p, 0)",
        ),
        number("X7.10", "a user namespace", "272, 0x10000000"),
        number("X7.11", "a mount namespace", "272, 0x20000"),
        number("X7.12", "a network namespace", "272, 0x40000000"),
        call(
            "X7.13",
            "a namespace by clone",
            "r = l.syscall(56, 0x10000011, 0, 0, 0, 0)\nif r == 0: os._exit(0)\nif r > 0: got()",
            "p = os.fork()\nif p == 0: os._exit(0)\nos.waitpid(p, 0)",
        ),
        call(
            "X7.14",
            "a namespace by clone3",
            "a = (ctypes.c_ulonglong * 11)(); a[0] = 0x10000000; a[4] = 17\nr = l.syscall(435, a, 88)\nif r == 0: os._exit(0)\nif r > 0: got()",
            "import threading\nt = threading.Thread(target=lambda: None); t.start(); t.join()",
        ),
        call(
            "X7.15",
            "joining another's namespace",
            "fd = os.open('/proc/1/ns/net', os.O_RDONLY) if os.access('/proc/1/ns/net', os.R_OK) else -1\nif l.syscall(308, fd if fd >= 0 else os.open('/proc/self/ns/net', os.O_RDONLY), 0) == 0: got()",
            fine,
        ),
        number("X7.16", "io_uring, which has sockets of its own", "425, 1, ctypes.create_string_buffer(120)"),
        number("X7.17", "bpf", "321, 0, ctypes.create_string_buffer(128), 128"),
        number("X7.18", "a key of the kernel's ring", "248, b'user', b'x', b'y', 1, -3"),
        number("X7.19", "the kernel's ring of keys", "250, 0, -3, 1"),
        number("X7.20", "userfaultfd", "323, 0"),
        number("X7.21", "performance counters", "298, ctypes.create_string_buffer(128), 0, -1, -1, 0"),
        number("X7.22", "the kernel's log", "103, 10, 0, 0"),
        number("X7.23", "opening a tree of mounts", "428, -100, b'/', 1"),
        number("X7.24", "a new file system", "430, b'tmpfs', 0"),
        number("X7.25", "watching all of the file system", "300, 0, 0"),
        number("X7.26", "another personality", "135, 0x0040000"),
        number("X7.27", "a secret memory area", "447, 0"),
        number("X7.28", "comparing processes", "312, os.getpid(), os.getpid(), 2, 0, 0"),
        call(
            "X7.29",
            "the 32-bit way to a socket",
            "r = l.syscall(0x40000029, 1, 1, 0)\nif r >= 0: got()",
            "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
        ),
        socket("X7.40", "a unix socket", "1, 1, 0"),
        socket("X7.41", "a unix datagram socket", "1, 2, 0"),
        socket("X7.42", "a netlink socket", "16, 3, 0"),
        socket("X7.43", "a socket to the hypervisor", "40, 1, 0"),
        socket("X7.44", "a packet socket", "17, 3, 0"),
        socket("X7.45", "a raw socket", "2, 3, 1"),
        socket("X7.46", "an MPTCP socket", "2, 1, 262"),
        socket("X7.47", "an MPTCP socket over IPv6", "10, 1, 262"),
        socket("X7.48", "a crypto socket", "38, 5, 0"),
        socket("X7.49", "a bluetooth socket", "31, 3, 0"),
        socket("X7.50", "a CAN socket", "29, 3, 1"),
        socket("X7.51", "an SCTP socket", "2, 5, 132"),
        call(
            "X7.52",
            "a pair of datagram sockets, which could be pointed elsewhere",
            "try:\n  socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); got()\nexcept OSError: pass",
            "a, b = socket.socketpair(); a.send(b'x')",
        ),
        call(
            "X7.53",
            "a unix socket by the high bits of its family",
            "if l.syscall(41, ctypes.c_ulong(0x100000001), 1, 0) >= 0: got()",
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        ),
    ]
}
