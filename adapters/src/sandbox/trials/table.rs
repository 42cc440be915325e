//! The table of layers: each part of the sandbox with an attack that it stops. With everything in
//! place nothing happens; without that part alone it really does, or, where a second one stops it
//! too, without both. What an attack did is looked for outside.

use super::attacks::EVIL;
use super::raw::{Segment, leak};
use super::{ATTACK, folder, launch, output, program};
use crate::net;
use crate::sandbox::layers::Part;
use crate::sandbox::{Pipes, Spec, divide, pty};
use policies::authority::{Authority, Sources};
use policies::decide;
use policies::domain::Host;
use policies::fs::FsGrant;
use policies::grant::Grant;
use policies::permission::Access;
use policies::permit::Verdict;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

const SECRET: &str = "S3CR3T-7d20";

/// A part, what somebody does, which other parts stop that too, and how it is seen.
struct Row {
    part: Part,
    says: &'static str,
    also: &'static [Part],
    attack: fn(&Stage) -> Vec<String>,
    seen: fn(&Stage, &str) -> bool,
}

fn told(_: &Stage, said: &str) -> bool {
    said.contains(SECRET)
}

fn words<const N: usize>(words: [&dyn std::fmt::Display; N]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

const TABLE: [Row; 19] = [
    Row {
        part: Part::Landlock,
        says: "reads a file outside every grant",
        also: &[],
        attack: |s| words([&"read", &s.at("outside/secret.txt")]),
        seen: told,
    },
    Row {
        part: Part::Masks,
        says: "reads what is denied inside a granted folder",
        also: &[],
        attack: |s| words([&"read", &s.at("docs/private/s")]),
        seen: told,
    },
    Row {
        part: Part::Pins,
        says: "moves the folder around a denied one away, and puts another in its place",
        also: &[],
        attack: |s| words([&"replace", &s.at("out/deep"), &"kept/k"]),
        seen: |s, _| s.evil("out/deep/kept/k"),
    },
    Row {
        part: Part::Seal,
        says: "changes the mode of a file outside every grant",
        also: &[],
        attack: |s| words([&"mode", &s.at("outside/target")]),
        seen: |s, _| s.mode("outside/target") == 0o777,
    },
    Row {
        part: Part::Protected,
        says: "leaves a hook in a repository it may write",
        also: &[],
        attack: |s| words([&"write", &s.at("out/.git/hooks/pre-commit")]),
        seen: |s, _| s.evil("out/.git/hooks/pre-commit"),
    },
    Row {
        part: Part::Tmp,
        says: "learns how large somebody's file in /tmp is",
        also: &[],
        attack: |s| words([&"size", &s.tmp.display()]),
        seen: |_, said| said.contains("4321 bytes"),
    },
    Row {
        part: Part::SharedMemory,
        says: "reads somebody's shared memory by its name",
        also: &[],
        attack: |s| words([&"read", &s.shm.display()]),
        seen: told,
    },
    Row {
        part: Part::Ipc,
        says: "reads somebody's System V segment",
        also: &[],
        attack: |s| words([&"segment", &s.key]),
        seen: told,
    },
    Row {
        part: Part::Terminals,
        says: "writes on somebody's terminal",
        also: &[],
        attack: |s| words([&"write", &s.terminal()]),
        seen: |s, _| s.on_terminal(),
    },
    Row {
        part: Part::Processes,
        says: "reads the arguments of a process outside",
        also: &[],
        attack: |s| words([&"read", &format!("/proc/{}/cmdline", s.stranger.id())]),
        seen: told,
    },
    Row {
        part: Part::ProcessIds,
        says: "leaves a process that outlives it",
        also: &[Part::Group],
        attack: |s| words([&"stay", &s.marker]),
        seen: |s, _| s.sleeper().is_some(),
    },
    Row {
        part: Part::Lifeline,
        says: "goes on when pleach is gone",
        also: &[Part::Group],
        attack: |s| words([&"sleep", &s.marker]),
        seen: |s, _| s.sleeper().is_some(),
    },
    Row {
        part: Part::Network,
        says: "connects to a service of this machine",
        also: &[],
        attack: |s| words([&"connect", &s.tcp.local_addr().unwrap()]),
        seen: |s, _| s.tcp.accept().is_ok_and(|(stream, _)| evil(stream)),
    },
    Row {
        part: Part::Seccomp,
        says: "talks to a service through its socket file",
        also: &[],
        attack: |s| words([&"unix", &s.at("outside/service.sock")]),
        seen: |s, _| s.unix.accept().is_ok_and(|(stream, _)| evil(stream)),
    },
    Row {
        part: Part::Capabilities,
        says: "takes the seal off, and changes a mode outside",
        also: &[Part::Seccomp],
        attack: |s| words([&"unseal", &s.at("outside/target")]),
        seen: |s, _| s.mode("outside/target") == 0o777,
    },
    Row {
        part: Part::Limits,
        says: "makes a file of nine gigabytes",
        also: &[],
        attack: |s| words([&"large", &s.at("out/large")]),
        seen: |s, _| fs::metadata(s.at("out/large")).is_ok_and(|m| m.len() == 9 << 30),
    },
    Row {
        part: Part::Descriptors,
        says: "reads through a descriptor that was left open",
        also: &[],
        attack: |s| words([&"descriptor", &s.open.as_raw_fd()]),
        seen: told,
    },
    Row {
        part: Part::Environment,
        says: "reads a secret of pleach's own environment",
        also: &[],
        attack: |_| words([&"environment"]),
        seen: told,
    },
    Row {
        part: Part::Group,
        says: "takes more memory than it may have, in three processes",
        also: &[],
        attack: |_| words([&"hoard", &HOARD]),
        seen: |_, said| said.contains("3 hold"),
    },
];

/// What three processes hold each, and what an instance may have, in MiB.
const HOARD: u64 = 64;
const BOUND: u64 = 128;

/// Where an attack takes place: what is granted, and everything around it.
struct Stage {
    root: PathBuf,
    home: PathBuf,
    tmp: PathBuf,
    shm: PathBuf,
    key: i32,
    marker: i32,
    open: fs::File,
    tcp: TcpListener,
    unix: UnixListener,
    pty: pty::Pty,
    stranger: Child,
    _kept: (tempfile::TempDir, tempfile::NamedTempFile, tempfile::NamedTempFile, Segment),
}

/// Each stage has words of its own: many tests run side by side, of several checkouts too.
static NEXT: AtomicI32 = AtomicI32::new(0);

impl Stage {
    fn new() -> Self {
        let (kept, root) = folder(Path::new("/var/tmp"));
        for (name, text) in [
            ("docs/private/s", SECRET),
            ("out/deep/kept/k", "kept"),
            ("out/.git/hooks/sample", ""),
            ("outside/secret.txt", SECRET),
            ("outside/target", ""),
            ("home/x", ""),
        ] {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), text).unwrap();
        }
        let number = std::process::id() as i32 * 64 + NEXT.fetch_add(1, Ordering::SeqCst);
        let mut tmp = tempfile::NamedTempFile::new_in("/tmp").unwrap();
        tmp.write_all(&[b'x'; 4321]).unwrap();
        let mut shm = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        shm.write_all(SECRET.as_bytes()).unwrap();
        let open = fs::File::open(root.join("outside/secret.txt")).unwrap();
        leak(&open).unwrap();
        let (tcp, unix) = (TcpListener::bind("127.0.0.1:0"), UnixListener::bind(root.join("outside/service.sock")));
        let (tcp, unix) = (tcp.unwrap(), unix.unwrap());
        tcp.set_nonblocking(true).unwrap();
        unix.set_nonblocking(true).unwrap();
        let pty = pty::open(fs::File::open("/dev/null").unwrap().as_fd()).unwrap();
        let stranger = Command::new("/bin/sh").args(["-c", "read x", SECRET]).stdin(Stdio::piped()).spawn().unwrap();
        Self {
            home: root.join("home"),
            tmp: tmp.path().to_owned(),
            shm: shm.path().to_owned(),
            key: number,
            marker: number,
            open,
            tcp,
            unix,
            pty,
            stranger,
            _kept: (kept, tmp, shm, Segment::new(number, SECRET.as_bytes()).unwrap()),
            root,
        }
    }
    fn at(&self, name: &str) -> String {
        self.root.join(name).display().to_string()
    }
    fn evil(&self, name: &str) -> bool {
        fs::read_to_string(self.at(name)).is_ok_and(|text| text == EVIL)
    }
    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.at(name)).unwrap().mode() & 0o7777
    }
    fn terminal(&self) -> String {
        fs::read_link(format!("/proc/self/fd/{}", self.pty.slave.as_raw_fd())).unwrap().display().to_string()
    }
    /// Whether anything came to the terminal before what we write there now.
    fn on_terminal(&self) -> bool {
        let mut slave = fs::File::from(self.pty.slave.try_clone().unwrap());
        slave.write_all(b"the end\n").unwrap();
        let mut master = fs::File::from(self.pty.master.try_clone().unwrap());
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("the end") {
            let mut room = [0; 256];
            let n = master.read(&mut room).unwrap();
            seen.extend_from_slice(&room[..n]);
        }
        String::from_utf8_lossy(&seen).contains(EVIL)
    }
    /// The process of this stage that sleeps.
    fn sleeper(&self) -> Option<u32> {
        let wanted = format!("sleep\0{}\0", self.marker);
        let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let lines = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        pids.into_iter().find(|pid| String::from_utf8_lossy(&lines(pid)).ends_with(&wanted))
    }
    fn spec(&self, attack: &[String], without: &[Part]) -> Spec {
        let mut spec = program(ATTACK, attack, Path::new("/"), &self.home);
        spec.without = without.to_vec();
        spec.memory = Some(BOUND << 20).filter(|_| attack.first().is_some_and(|word| word == "hoard"));
        let mut grant = Grant::nothing();
        let paths = |names: &[&str]| names.iter().map(|name| self.root.join(name)).collect::<Vec<_>>();
        let deny = paths(&["docs/private", "out/deep/kept"]);
        grant.filesystem = FsGrant::new(paths(&["docs"]), paths(&["out"]), deny);
        grant.max_access = Access::Destructive;
        spec.grant(&grant, &[]);
        let ours = [("PATH", "/usr/bin:/bin"), ("OUR_TOKEN", SECRET)];
        spec.standard_env(ours.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        spec
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.stranger.kill();
        let _ = self.stranger.wait();
        while let Some(pid) = self.sleeper() {
            crate::sandbox::signal(pid, libc::SIGKILL);
        }
    }
}

fn evil(mut stream: impl Read) -> bool {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text == EVIL
}

/// Whether an attack happened without these parts.
async fn happened(row: &Row, without: &[Part]) -> bool {
    let stage = Stage::new();
    let spec = stage.spec(&(row.attack)(&stage), without);
    if row.part == Part::Lifeline {
        return outlived(&stage, &spec, without).await;
    }
    let said = output(&spec).await.unwrap_or_else(|e| panic!("{:?} without {without:?}: {e}", row.part));
    (row.seen)(&stage, &said)
}

/// Pleach is gone as far as the instance can tell: its end of the lifeline closes.
async fn outlived(stage: &Stage, spec: &Spec, without: &[Part]) -> bool {
    let mut instance = launch(spec, Pipes::piped()).await.unwrap();
    let mut line = String::new();
    BufReader::new(instance.child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    assert_eq!(line, "ready\n");
    let until = Instant::now() + Duration::from_secs(20);
    while stage.sleeper().is_none() {
        assert!(Instant::now() < until, "it never slept");
        tokio::task::yield_now().await;
    }
    drop(instance);
    // Whoever has no lifeline would be waited for in vain; whoever has one is, on a busy machine, slow.
    let until = Instant::now() + Duration::from_secs(if without.is_empty() { 20 } else { 1 });
    while stage.sleeper().is_some() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage.sleeper().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_stops_what_no_other_does() {
    let mut wrong = Vec::new();
    let delegated = divide();
    for row in &TABLE {
        if let (Part::Group, Err(why)) = (row.part, &delegated) {
            println!("Group: SKIPPED, no cgroup is delegated to this test: {why}");
            continue;
        }
        let there = |part: &Part| *part != Part::Group || delegated.is_ok();
        let also: Vec<Part> = row.also.iter().copied().filter(there).collect();
        let all = happened(row, &[]).await;
        let alone = happened(row, &[row.part]).await;
        let with = [&[row.part][..], &also].concat();
        let both = if also.is_empty() { alone } else { happened(row, &with).await };
        let word = |happened| if happened { "HAPPENED" } else { "stopped" };
        println!(
            "{:?}: {}; all {}, without it {}, without {:?} {}",
            row.part,
            row.says,
            word(all),
            word(alone),
            with,
            word(both)
        );
        if all || !both || (alone != also.is_empty()) {
            wrong.push(format!("{:?}: all {all}, without it {alone}, without {with:?} {both}", row.part));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The judgement of a connection is not the namespace's but the dialler's: what a program asks
/// for through the one way out there is.
#[tokio::test(flavor = "multi_thread")]
async fn the_judgement_of_the_way_out_stops_what_the_namespace_lets_through() {
    for judged in [true, false] {
        let stage = Stage::new();
        let target = stage.tcp.local_addr().unwrap();
        let mut instance = launch(&stage.spec(&words([&"through", &target]), &[]), Pipes::piped()).await.unwrap();
        let listener = tokio::net::TcpListener::from_std(instance.proxy.take().unwrap()).unwrap();
        let (mut asked, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        asked.read_to_string(&mut text).await.unwrap();
        let (wanted, rest) = text.split_once('\n').unwrap();
        let wanted: std::net::SocketAddr = wanted.parse().unwrap();
        let out = match judged {
            true => {
                let authority = Authority::root(Arc::new(Grant::nothing()), Arc::new(Sources::default()), None);
                match decide::connect(&authority, Host::Address(wanted.ip()), wanted.port()) {
                    Verdict::Allow(permit, _) => net::dial(permit).await.ok(),
                    _ => None,
                }
            }
            false => tokio::net::TcpStream::connect(wanted).await.ok(),
        };
        if let Some(mut out) = out {
            out.write_all(rest.as_bytes()).await.unwrap();
            out.shutdown().await.unwrap();
        }
        drop((asked, listener));
        let _ = instance.child.wait().await;
        let arrived = stage.tcp.accept().is_ok_and(|(stream, _)| evil(stream));
        assert_eq!(arrived, !judged);
    }
}
