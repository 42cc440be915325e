//! What the launcher is told and what it answers.

use super::layers::Part;
use policies::grant::{Grant, Profile};
use policies::permission::Access;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Everything the launcher needs; it reads no configuration of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// The program, absolute.
    pub program: PathBuf,
    /// Its arguments, without the program.
    pub args: Vec<String>,
    /// The program's name as it sees it.
    pub arg0: Option<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Its working folder.
    pub cwd: PathBuf,
    /// Granted for reading and executing.
    pub read: Vec<PathBuf>,
    /// Granted for writing too.
    pub write: Vec<PathBuf>,
    /// Masked: nothing beneath these, though a granted folder holds them.
    pub deny: Vec<PathBuf>,
    /// Pleach's own files: masked where they exist.
    pub own: Vec<PathBuf>,
    /// What the program needs merely to run: readable and executable, no part of a grant.
    pub runtime: Vec<PathBuf>,
    /// Its private home; writable.
    pub home: PathBuf,
    /// The home of the user who runs pleach, where programs look for start files.
    pub user_home: Option<PathBuf>,
    /// The layers: `full`, `no-namespaces` or `off`.
    pub profile: String,
    /// Whether `localhost` means the instance's own: unless the grant covers the host's.
    pub own_loopback: bool,
    /// Whether the program gets its own session with standard input as controlling terminal.
    pub terminal: bool,
    /// What a trial bounds its memory to, as a whole.
    #[cfg(test)]
    #[serde(default)]
    pub(super) memory: Option<u64>,
    /// What a trial leaves out.
    #[cfg(test)]
    #[serde(default)]
    pub(super) without: Vec<Part>,
}

impl Spec {
    /// Whether a part of the sandbox is entered: always.
    #[cfg(not(test))]
    pub(super) const fn stands(&self, _: Part) -> bool {
        true
    }
    /// Whether a part of the sandbox is entered: unless a trial leaves it out.
    #[cfg(test)]
    pub(super) fn stands(&self, part: Part) -> bool {
        !self.without.contains(&part)
    }
    /// How much memory the instance may have as a whole, if not what all have.
    #[cfg(not(test))]
    pub(super) const fn memory(&self) -> Option<u64> {
        None
    }
    /// How much memory the instance may have as a whole, if not what all have.
    #[cfg(test)]
    pub(super) const fn memory(&self) -> Option<u64> {
        self.memory
    }
    /// Fills in what comes from a grant: paths and profile.
    pub fn grant(&mut self, grant: &Grant, own: &[PathBuf]) {
        let files = &grant.filesystem;
        self.read = files.read().iter().cloned().collect();
        // Under a read-only ceiling nothing is written, whatever folders are inherited for it.
        self.write = match grant.max_access {
            Access::ReadOnly => Vec::new(),
            _ => files.write().iter().cloned().collect(),
        };
        self.own = own.to_vec();
        self.deny = files.deny().iter().filter(|d| !own.contains(d)).cloned().collect();
        self.profile = grant.sandbox.as_str().to_owned();
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        self.own_loopback = !loopback.iter().any(|a| grant.networks.allows(*a));
    }
    /// The profile, or the strongest one if the word is none.
    pub fn profile(&self) -> Profile {
        Profile::from_word(&self.profile).unwrap_or(Profile::Full)
    }
    /// Whether `/tmp` is replaced by a private one: unless a grant covers it whole.
    pub(super) fn private_tmp(&self) -> bool {
        let tmp = std::path::Path::new("/tmp");
        let full = self.profile() == Profile::Full && self.stands(Part::Tmp);
        full && !self.read.iter().chain(&self.write).any(|p| tmp.starts_with(p))
    }
    /// What lies below `/tmp` and must be there all the same.
    pub(super) fn below_tmp(&self) -> Vec<&PathBuf> {
        let tmp = std::path::Path::new("/tmp");
        let all =
            self.read.iter().chain(&self.write).chain(&self.runtime).chain([&self.home, &self.cwd, &self.program]);
        all.filter(|p| p.starts_with(tmp) && p.as_path() != tmp && p.exists()).collect()
    }
    /// Where the program's temporary files go. Not `/tmp` itself when something is bound back
    /// below it: Landlock's right to a folder reaches through the mounts beneath.
    pub(super) fn tmpdir(&self) -> PathBuf {
        match (self.private_tmp(), self.below_tmp().is_empty()) {
            (true, true) => PathBuf::from("/tmp"),
            (true, false) => PathBuf::from("/tmp/.pleach"),
            (false, _) => self.home.join("tmp"),
        }
    }
}

/// What the launcher did, or why it refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The program runs under these layers.
    Enforced {
        /// The layers, in words.
        layers: Vec<String>,
        /// What a layer could not do, in words; nothing named by the profile is missing.
        notes: Vec<String>,
    },
    /// A layer of the profile could not be entered, or a grant not be held; nothing ran.
    Refused {
        /// Which.
        layer: String,
        /// Why, and the cure.
        why: String,
    },
    /// The sandbox stands, but the program could not be executed.
    NotStarted {
        /// The system's error number.
        errno: i32,
        /// In words.
        why: String,
    },
}

/// Variables that name the proxy for HTTP and for whatever can be tunnelled through it.
const PROXIED: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "npm_config_proxy",
    "npm_config_https_proxy",
];

/// Variables of ours a program may see; everything else is left out.
const KEPT: [&str; 8] = ["PATH", "LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "USER", "LOGNAME"];

impl Spec {
    /// A spec that grants nothing yet.
    pub fn new(runtime: super::runtime::Runtime, args: Vec<String>, cwd: PathBuf, home: PathBuf) -> Self {
        Self {
            program: runtime.program,
            args,
            arg0: None,
            env: BTreeMap::new(),
            cwd,
            read: Vec::new(),
            write: Vec::new(),
            deny: Vec::new(),
            own: Vec::new(),
            runtime: runtime.paths.into_iter().collect(),
            home,
            user_home: None,
            profile: Profile::Full.as_str().to_owned(),
            own_loopback: true,
            terminal: false,
            #[cfg(test)]
            memory: None,
            #[cfg(test)]
            without: Vec::new(),
        }
    }
    /// The clean environment: what is kept of ours, private HOME and TMPDIR, and the proxy
    /// variables that curl, git, pip, npm, Node and Python obey.
    pub fn standard_env(&mut self, ours: impl Iterator<Item = (String, String)>) {
        for (name, value) in ours {
            if name == "HOME" {
                self.user_home = PathBuf::from(value).canonicalize().ok();
            } else if KEPT.contains(&name.as_str()) || name.starts_with("LC_") || !self.stands(Part::Environment) {
                self.env.insert(name, value);
            }
        }
        let home = self.home.display().to_string();
        self.env.insert("HOME".into(), home);
        self.env.insert("TMPDIR".into(), self.tmpdir().display().to_string());
        if self.profile() == Profile::Full {
            let proxy = format!("http://127.0.0.1:{}", super::PROXY_PORT);
            for name in PROXIED {
                self.env.insert(name.into(), proxy.clone());
            }
            // The same listener speaks SOCKS5. Not in ALL_PROXY: Python's httpx, for one, fails to
            // start over a SOCKS address there without a package more, and speaks HTTP well.
            for name in ["socks_proxy", "SOCKS_PROXY"] {
                self.env.insert(name.into(), format!("socks5h://127.0.0.1:{}", super::PROXY_PORT));
            }
            self.env.insert("NODE_USE_ENV_PROXY".into(), "1".into());
            if self.own_loopback {
                for name in ["no_proxy", "NO_PROXY"] {
                    self.env.insert(name.into(), "localhost,127.0.0.1,::1".into());
                }
            }
        }
    }
}
