//! Machines that forbid what the sandbox is made of: a container under a seccomp profile like
//! Docker's default, and a system that forbids user namespaces. `full` refuses, says the cure, and
//! nothing runs; the weaker profile has to be named, and holds what it says it does.

use conformance::pleach::{Folder, Ran, binary};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Command, Stdio};

/// What Docker's default profile refuses to a container without CAP_SYS_ADMIN, of what a sandbox
/// could want; there it is an allow list.
const REFUSED: [libc::c_long; 33] = [
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kcmp,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_init_module,
    libc::SYS_delete_module,
];
/// Of `clone`, any new namespace.
const NAMESPACES: u64 = 0x7E02_0000;

fn filters() -> Vec<BpfProgram> {
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let mut refused: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    let bits = (0..64).map(|bit| 1u64 << bit).filter(|bit| NAMESPACES & bit != 0);
    let rules = bits.map(|bit| {
        let asked = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), bit).unwrap();
        SeccompRule::new(vec![asked]).unwrap()
    });
    refused.insert(libc::SYS_clone, rules.collect());
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    [(refused, libc::EPERM), (absent, libc::ENOSYS)]
        .into_iter()
        .map(|(rules, errno)| {
            let action = SeccompAction::Errno(errno as u32);
            SeccompFilter::new(rules, SeccompAction::Allow, action, arch).unwrap().try_into().unwrap()
        })
        .collect()
}

/// A filter holds for the thread that puts it on, and whatever that thread starts.
fn in_a_container(folder: &Folder, args: &[&str]) -> Ran {
    let mut command = folder.command(args);
    command.stdin(Stdio::null());
    let contained = std::thread::spawn(move || {
        filters().iter().for_each(|filter| seccompiler::apply_filter(filter).unwrap());
        command.output().unwrap()
    });
    Ran::of(contained.join().unwrap())
}

/// Inside a user namespace that may have no other: what a system that forbids them looks like.
fn where_user_namespaces_are_forbidden(folder: &Folder, args: &[&str]) -> Ran {
    let inner = folder.command(args);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c"]);
    command.args(["echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"", "sh"]).arg(binary()).args(args);
    command.current_dir(folder.path()).envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ran::of(command.stdin(Stdio::null()).output().unwrap())
}

type Machine = fn(&Folder, &[&str]) -> Ran;
const MACHINES: [(&str, Machine); 2] =
    [("container", in_a_container), ("no user namespaces", where_user_namespaces_are_forbidden)];

fn folder(profile: &str) -> Folder {
    let folder = Folder::new(&format!(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy]\n\
         max_access = \"destructive\"\nfilesystem = {{ read = [\"./docs\"], read_write = [\"./out\"] }}\n\
         sandbox = {{ profile = \"{profile}\" }}\n[agents.a]\nprompt = \"\"\n"
    ));
    folder.write("docs/a.md", "granted");
    folder.write("private/s", "S3CR3T");
    folder
}

#[test]
fn full_refuses_with_the_cure_and_nothing_runs() {
    for (name, machine) in MACHINES {
        let folder = folder("full");
        let args = ["exec", "--", "sh", "-c", "echo ran > out/ran"];
        let ran = machine(&folder, &args);
        assert_eq!(ran.code, 125, "{name}: {ran:?}");
        for part in ["namespaces", "--security-opt", "AppArmor", "profile = \"no-namespaces\""] {
            assert!(ran.err.contains(part), "{name}: {part}: {ran:?}");
        }
        assert_eq!(folder.read("out/ran"), None, "{name}: it ran");
        // The twin: elsewhere it does.
        assert_eq!(folder.run(&args).code, 0);
        assert_eq!(folder.read("out/ran").as_deref(), Some("ran\n"));
    }
}

#[test]
fn the_weaker_profile_holds_files_and_has_no_network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("import socket; socket.create_connection((\"127.0.0.1\", {port})).sendall(b\"x\")");
    for (name, machine) in MACHINES {
        for (profile, held) in [("no-namespaces", true), ("off", false)] {
            let folder = folder(profile);
            let outside = folder.join("private/s").display().to_string();
            let script = "echo ran > out/ran; cat docs/a.md; cat \"$0\"; echo x > docs/a.md; true";
            let ran = machine(&folder, &["exec", "--", "sh", "-c", script, &outside]);
            assert!(ran.code == 0 && ran.out.contains("granted"), "{name}, {profile}: {ran:?}");
            assert_eq!(folder.read("out/ran").as_deref(), Some("ran\n"), "{name}, {profile}");
            assert_eq!(ran.out.contains("S3CR3T"), !held, "{name}, {profile}: {ran:?}");
            assert_eq!(folder.read("docs/a.md").as_deref() == Some("granted"), held, "{name}, {profile}");
            let ran = machine(&folder, &["exec", "--", "python3", "-c", &connect]);
            assert_eq!(listener.accept().is_err(), held, "{name}, {profile}: {ran:?}");
        }
    }
}

#[test]
fn doctor_says_what_is_missing_and_what_the_weaker_profile_loses() {
    for (name, machine) in MACHINES {
        let ran = machine(&folder("full"), &["doctor"]);
        assert_eq!(ran.code, 1, "{name}: {ran:?}");
        for part in ["FAIL profile full", "cure: ", "ok   profile no-namespaces", "not held by it: "] {
            assert!(ran.out.contains(part), "{name}: {part}: {ran:?}");
        }
    }
}
