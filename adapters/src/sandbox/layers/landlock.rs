//! Landlock: which files the program may open. At least ABI 3 (truncation) is required; newer
//! rights and scopes are used where the kernel has them.

use crate::sandbox::enter::Refusal;
use crate::sandbox::spec::Spec;
use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

/// A ruleset ready to bind this process.
pub(crate) struct Compiled(RulesetCreated);

/// What every program needs merely to run.
const SYSTEM: [&str; 11] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/bin",
    "/sbin",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/alternatives",
];
const SYSTEM_FILES: [&str; 14] = [
    "/etc/ld.so.cache",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/localtime",
    "/etc/gitconfig",
    "/etc/mime.types",
    "/etc/protocols",
    "/etc/services",
    "/etc/ld.so.preload",
    "/etc/host.conf",
    "/etc/gai.conf",
];
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// The newest ABI whose rights are asked for; the kernel may have less.
const NEWEST: ABI = ABI::V7;

/// The kernel's ABI, by asking it; 0 when there is none.
pub(crate) fn abi() -> i64 {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no pointer and returns a number.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    abi.max(0)
}

pub(crate) fn compile(spec: &Spec) -> Result<(Compiled, i64), Refusal> {
    let abi = abi();
    if abi < 3 {
        return Err(Refusal::new(
            "landlock",
            format!("the kernel offers ABI {abi}, at least 3 is needed (Linux 6.2, with landlock in the lsm= list)"),
        ));
    }
    build(spec).map(|created| (Compiled(created), abi)).map_err(|e| Refusal::new("landlock", e))
}

fn build(spec: &Spec) -> Result<RulesetCreated, String> {
    let text = |e: landlock::RulesetError| e.to_string();
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(all(ABI::V3))
        .map_err(text)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all(NEWEST))
        .map_err(text)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)
        .map_err(text)?
        .create()
        .map_err(text)?;
    let read = AccessFs::from_read(NEWEST);
    // Devices are never made, and with AF_UNIX denied neither are sockets.
    let write = all(NEWEST) & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeSock);
    let tmpdir = spec.tmpdir();
    let fixed = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
    const GROUPS: usize = 6;
    let groups: [(Vec<PathBuf>, BitFlags<AccessFs>); GROUPS] = [
        (fixed(&SYSTEM), read),
        (fixed(&SYSTEM_FILES), AccessFs::ReadFile.into()),
        (fixed(&DEVICES), AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev),
        ([spec.runtime.clone(), spec.read.clone(), vec![spec.program.clone(), PathBuf::from("/proc")]].concat(), read),
        ([spec.write.clone(), vec![spec.home.clone(), tmpdir, PathBuf::from("/dev/shm")]].concat(), write),
        (
            vec![PathBuf::from("/dev/pts"), PathBuf::from("/dev/ptmx")],
            AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::ReadDir | AccessFs::IoctlDev,
        ),
    ];
    let granted: Vec<&PathBuf> = spec.read.iter().chain(&spec.write).collect();
    for (i, (paths, access)) in groups.into_iter().enumerate() {
        // Terminals are the instance's own only where it has a mount namespace.
        if i + 1 == GROUPS && spec.profile() != policies::grant::Profile::Full {
            continue;
        }
        for path in paths {
            let exact = granted.contains(&&path);
            ruleset = allow(ruleset, &path, access, exact)?;
        }
    }
    Ok(ruleset)
}

fn all(abi: ABI) -> BitFlags<AccessFs> {
    AccessFs::from_read(abi) | AccessFs::from_write(abi)
}

/// File rules carry file rights only. A path that is not there grants nothing. A granted path is
/// canonical; if what was opened is something else, it was swapped for a link meanwhile.
fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
    exact: bool,
) -> Result<RulesetCreated, String> {
    let Ok(metadata) = path.metadata() else { return Ok(ruleset) };
    let access = if metadata.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    if access.is_empty() {
        return Ok(ruleset);
    }
    let Ok(fd) = PathFd::new(path) else { return Ok(ruleset) };
    if exact {
        let opened =
            std::fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())).or_else(|_| path.canonicalize());
        if opened.ok().as_deref() != Some(path) {
            return Err(format!(
                "{} is not what it was when the policy was read; it was swapped for a link",
                path.display()
            ));
        }
    }
    ruleset.add_rule(PathBeneath::new(fd, access)).map_err(|e| format!("{}: {e}", path.display()))
}

pub(crate) fn restrict(compiled: Compiled) -> Result<(), String> {
    let status = compiled.0.restrict_self().map_err(|e| e.to_string())?;
    // Required rights are hard requirements above; what may be missing is newer than ABI 3.
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel did not enforce the ruleset".into()),
        _ => Ok(()),
    }
}
