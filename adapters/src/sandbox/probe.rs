//! Probes: each layer by trying it, not by trusting a version number.

use super::layers::{landlock, limits, namespaces};
use super::{Pipes, Spec, group, launch};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a probe found.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The layer.
    pub layer: &'static str,
    /// Whether it holds here.
    pub ok: bool,
    /// What was seen.
    pub seen: String,
    /// What to do when it does not hold.
    pub cure: Option<String>,
}

/// A spec that grants nothing, for trying things in it.
fn bare(profile: &str, home: PathBuf, script: &str) -> Spec {
    Spec {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        arg0: None,
        env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
        cwd: "/".into(),
        read: Vec::new(),
        write: Vec::new(),
        deny: Vec::new(),
        own: Vec::new(),
        runtime: Vec::new(),
        home,
        user_home: None,
        profile: profile.into(),
        own_loopback: true,
        terminal: false,
        #[cfg(test)]
        memory: None,
        #[cfg(test)]
        without: Vec::new(),
    }
}

/// What `no-namespaces` has not that `full` has.
const LOST: &str = "; not held by it: protected names and Pleach's own files inside folders that may be written, and a \
filesystem.deny inside a granted folder (it does not start there); the modes, owners and times of files; the machine's \
processes and System V segments are seen, its /dev/shm is used; there is no network at all, not even the proxy";

/// Tries every layer. `home` is an existing folder to use as the private home.
pub async fn probe(home: PathBuf) -> Vec<Probe> {
    let mut out = vec![abi()];
    // The secret lies where nothing is granted; what is tried is what an attacker would.
    let secret = home.with_extension("secret");
    let _ = std::fs::write(&secret, "secret");
    let attempts = [
        ("landlock: files outside the grant", format!("cat {} 2>/dev/null && echo LEAK", secret.display())),
        ("namespaces: other processes", "[ \"$(ls /proc 2>/dev/null | grep -c '^[0-9]')\" -gt 8 ] && echo LEAK".into()),
        ("network namespace: no way out", "(echo > /dev/tcp/1.1.1.1/53) 2>/dev/null && echo LEAK".into()),
        ("seccomp: no new namespaces", "unshare -U true 2>/dev/null && echo LEAK".into()),
        ("capabilities: none", "[ \"$(grep -s CapEff /proc/self/status | tr -d '\\t 0:CapEf')\" ] && echo LEAK".into()),
    ];
    for profile in ["full", "no-namespaces"] {
        match launch(&bare(profile, home.clone(), "exit 0"), Pipes::piped()).await {
            Err(e) => out.push(Probe {
                layer: if profile == "full" { "profile full" } else { "profile no-namespaces" },
                ok: false,
                seen: e.to_string(),
                cure: (profile == "full").then(|| namespaces::CURE.to_owned()),
            }),
            Ok(mut instance) => {
                let _ = instance.child.wait().await;
                let mut seen = instance.layers.join("; ");
                for note in &instance.notes {
                    seen.push_str(&format!("; note: {note}"));
                }
                if profile != "full" {
                    seen.push_str(LOST);
                }
                out.push(Probe {
                    layer: if profile == "full" { "profile full" } else { "profile no-namespaces" },
                    ok: true,
                    seen,
                    cure: None,
                });
            }
        }
    }
    if out.iter().any(|p| p.layer == "profile full" && p.ok) {
        for (layer, script) in attempts {
            out.push(attempt(layer, &bare("full", home.clone(), &script)).await);
        }
    }
    let _ = std::fs::remove_file(&secret);
    out.push(limited());
    out
}

/// What of a machine an instance may take. Said plainly, since without a cgroup much of it is not
/// bounded.
fn limited() -> Probe {
    let each = format!(
        "at most {} processes and threads an instance, {} MiB a process, 8 GiB a file, 8192 descriptors; when memory \
         runs out an instance goes before anything else",
        limits::TASKS,
        limits::memory() >> 20
    );
    let house = group::house();
    let (whole, cure) = match house {
        Ok(house) => {
            let memory = house.memory().map(|most| format!(", {} MiB an instance as a whole", most >> 20));
            let memory = memory.unwrap_or_default();
            let missing = house.missing();
            let cure = (!missing.is_empty()).then(|| format!("{} not delegated; {DELEGATE}", missing.join(" and ")));
            (format!("{memory}; cgroup v2: {}", house.controllers().join(", ")), cure)
        }
        Err(why) => (
            format!(
                "; the memory and the processor time of an instance as a whole are not bounded: no cgroup is used, {why}"
            ),
            Some(DELEGATE.to_owned()),
        ),
    };
    Probe { layer: "limits", ok: true, seen: each + &whole, cure }
}

/// How a cgroup comes to be this process's own.
const DELEGATE: &str = "to bound instances as a whole, start pleach in a group that is delegated to it: Delegate=yes in \
its systemd unit, or `systemd-run --user --scope -p Delegate=yes pleach serve` (the memory, pids and cpu controllers); \
in a container a cgroup namespace of its own with /sys/fs/cgroup writable; elsewhere, in a child of a group that holds no \
process itself and is marked with `setfattr -n user.delegate -v 1`";

async fn attempt(layer: &'static str, spec: &Spec) -> Probe {
    let failed = |seen: String| Probe { layer, ok: false, seen, cure: None };
    let mut instance = match launch(spec, Pipes::piped()).await {
        Ok(instance) => instance,
        Err(e) => return failed(e.to_string()),
    };
    let mut output = Vec::new();
    if let Some(mut stdout) = instance.child.stdout.take() {
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stdout, &mut output).await;
    }
    let _ = instance.child.wait().await;
    if String::from_utf8_lossy(&output).contains("LEAK") {
        return failed("the attempt succeeded; please report this with your kernel version".into());
    }
    Probe { layer, ok: true, seen: "tried and refused".into(), cure: None }
}

fn abi() -> Probe {
    let abi = landlock::abi();
    Probe {
        layer: "landlock abi",
        ok: abi >= 3,
        seen: format!("ABI {abi}"),
        cure: (abi < 3).then(|| {
            "Landlock ABI 3 needs Linux 6.2 with landlock enabled; add landlock to the lsm= kernel parameter".to_owned()
        }),
    }
}

/// The AppArmor profile that lets `binary` make user namespaces on Ubuntu 23.10 and later.
pub fn apparmor_profile(binary: &std::path::Path) -> String {
    format!(
        "# /etc/apparmor.d/pleach, then: sudo apparmor_parser -r /etc/apparmor.d/pleach\n\
         abi <abi/4.0>,\ninclude <tunables/global>\n\
         profile pleach {} flags=(unconfined) {{\n  userns,\n}}\n",
        binary.display()
    )
}
