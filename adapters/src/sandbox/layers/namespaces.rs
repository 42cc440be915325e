//! User, mount, pid, ipc, uts and network namespaces, with an identity map: the program keeps
//! its user id and loses every power that came with it outside.

use super::Part;
use crate::sandbox::PROXY_PORT;
use crate::sandbox::enter::Refusal;
use crate::sandbox::spec::Spec;
use crate::sandbox::sys;
use policies::grant::Profile;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// The namespaces every instance is in, and those of which one can be told what it stops.
const ALWAYS: libc::c_int = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWUTS;
const PARTS: [(Part, libc::c_int); 3] =
    [(Part::ProcessIds, libc::CLONE_NEWPID), (Part::Ipc, libc::CLONE_NEWIPC), (Part::Network, libc::CLONE_NEWNET)];

/// What to do where user namespaces are forbidden.
pub(crate) const CURE: &str = "this system forbids user namespaces to pleach. On Ubuntu 23.10 and later put an AppArmor \
profile that allows `userns` on the pleach binary (pleach doctor prints it), or set \
kernel.apparmor_restrict_unprivileged_userns=0; in a container run with --security-opt seccomp=unconfined \
--security-opt apparmor=unconfined; or name the weaker profile: [policy.sandbox] profile = \"no-namespaces\"";

/// Which namespaces a spec is run in: all, or none under a weaker profile.
pub(crate) fn wanted(spec: &Spec) -> libc::c_int {
    match spec.profile() {
        Profile::Full => PARTS.iter().filter(|(part, _)| spec.stands(*part)).fold(ALWAYS, |all, (_, flag)| all | flag),
        _ => 0,
    }
}

/// All there are: what a spec of profile `full` wants.
pub(crate) const ALL: libc::c_int = ALWAYS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWNET;

pub(crate) fn enter(flags: libc::c_int) -> Result<(), Refusal> {
    // SAFETY: these cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    sys::unshare(flags).map_err(|e| Refusal::new("namespaces", format!("unshare: {e}; {CURE}")))?;
    let map = |file: &str, text: String| {
        fs::write(file, text).map_err(|e| Refusal::new("namespaces", format!("{file}: {e}; {CURE}")))
    };
    map("/proc/self/setgroups", "deny".into())?;
    map("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    map("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Brings `lo` up in the empty network namespace and opens the proxy's listener on it. Its
/// descriptor goes to pleach, which serves it from outside: nothing else crosses.
pub(crate) fn open_proxy_listener() -> Result<TcpListener, Refusal> {
    let refuse = |e: io::Error| Refusal::new("network namespace", e.to_string());
    loopback_up().map_err(refuse)?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, PROXY_PORT)).map_err(refuse)
}

fn loopback_up() -> io::Result<()> {
    // SAFETY: ifreq is plain data, the name fits with its NUL, the socket is closed again.
    unsafe {
        let socket = sys::check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).into())? as i32;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let result = sys::check(libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &request).into());
        libc::close(socket);
        result.map(drop)
    }
}
