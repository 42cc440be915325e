//! System calls no tool needs and every escape wants. A deny list: the program's own calls stay
//! as they are, so that node, python and git run unchanged.

use crate::sandbox::enter::Refusal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule, TargetArch,
};
use std::collections::BTreeMap;

/// Compiled filters, applied in order.
pub(crate) struct Filters(Vec<BpfProgram>);

/// Namespaces, mounts, tracing, kernel interfaces: denied whatever the arguments.
const DENIED: [libc::c_long; 59] = [
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_bpf,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_set_mempolicy,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_personality,
];

/// The kernel's numbers that libc does not name.
const IPPROTO_MPTCP: u64 = 262;
/// `open_tree_attr(2)`, Linux 6.15: `mount_setattr` by another name.
const SYS_OPEN_TREE_ATTR: libc::c_long = 467;
const MSG_FASTOPEN: u64 = 0x2000_0000;

/// With `network`, TCP and UDP sockets may be made (there is only an empty namespace to use
/// them in); without, no socket at all.
pub(crate) fn compile(network: bool) -> Result<Filters, Refusal> {
    build(network).map(Filters).map_err(|e| Refusal::new("seccomp", e))
}

fn build(network: bool) -> Result<Vec<BpfProgram>, String> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(|e| format!("{e:?}"))?;
    let mut deny: BTreeMap<i64, Vec<Rule>> = DENIED.into_iter().map(|call| (call, Vec::new())).collect();
    #[cfg(target_arch = "x86_64")]
    for call in [libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_kexec_file_load, libc::SYS_uselib] {
        deny.insert(call, Vec::new());
    }
    deny.insert(SYS_OPEN_TREE_ATTR, Vec::new());
    // PER_LINUX is what python and node ask for; anything else is refused.
    deny.insert(libc::SYS_personality, vec![rule(&[(0, Op::Ne, 0), (0, Op::Ne, 0xffff_ffff)])?]);
    deny.insert(libc::SYS_socket, sockets(network)?);
    // A datagram socket of a pair could still be pointed at any socket file.
    let pairs = [libc::SOCK_DGRAM, libc::SOCK_RAW].map(|kind| rule(&[(1, Op::MaskedEq(0xf), kind as u64)]));
    deny.insert(libc::SYS_socketpair, pairs.into_iter().collect::<Result<_, _>>()?);
    if !network {
        deny.insert(libc::SYS_connect, Vec::new());
    }
    for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        deny.insert(call, vec![rule(&[(flags, Op::MaskedEq(MSG_FASTOPEN), MSG_FASTOPEN)])?]);
    }
    let namespaces = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    let clones = namespaces.iter().map(|flag| *flag as u64).map(|flag| rule(&[(0, Op::MaskedEq(flag), flag)]));
    deny.insert(libc::SYS_clone, clones.collect::<Result<_, _>>()?);
    let ioctls = [libc::TIOCSTI, libc::TIOCLINUX];
    let ioctls = ioctls.iter().map(|request| rule(&[(1, Op::Eq, *request)]));
    deny.insert(libc::SYS_ioctl, ioctls.collect::<Result<_, _>>()?);

    // clone3 hides its flags behind a pointer, which a filter cannot follow; ENOSYS makes the C
    // library fall back to clone.
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    [(deny, libc::EPERM), (absent, libc::ENOSYS)]
        .into_iter()
        .map(|(rules, errno)| {
            let action = SeccompAction::Errno(errno as u32);
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).map_err(|e| e.to_string())?;
            BpfProgram::try_from(filter).map_err(|e| e.to_string())
        })
        .collect()
}

/// Denied: every family but IPv4 and IPv6; raw sockets; MPTCP, which slips past port rules.
fn sockets(network: bool) -> Result<Vec<Rule>, String> {
    if !network {
        return Ok(Vec::new());
    }
    let (v4, v6) = (libc::AF_INET as u64, libc::AF_INET6 as u64);
    let kind = 0xf;
    Ok(vec![
        rule(&[(0, Op::Ne, v4), (0, Op::Ne, v6)])?,
        rule(&[(1, Op::MaskedEq(kind), libc::SOCK_RAW as u64)])?,
        rule(&[(1, Op::MaskedEq(kind), libc::SOCK_SEQPACKET as u64)])?,
        rule(&[(2, Op::Eq, IPPROTO_MPTCP)])?,
    ])
}

fn rule(conditions: &[(u8, Op, u64)]) -> Result<Rule, String> {
    let conditions = conditions.iter().map(|(arg, op, value)| Condition::new(*arg, Len::Dword, op.clone(), *value));
    let conditions: Vec<Condition> = conditions.collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    Rule::new(conditions).map_err(|e| e.to_string())
}

pub(crate) fn restrict(filters: &Filters) -> Result<(), String> {
    // seccomp(2) is not denied, so the second filter can follow the first.
    filters.0.iter().try_for_each(|filter| seccompiler::apply_filter(filter).map_err(|e| e.to_string()))
}
