//! A small universe to try laws on: paths over names of which two make a protected one, a few hosts,
//! tools and ports.

use policies::domain::{Domains, Host, Networks};
use policies::fs::{FileOp, FsGrant};
use policies::grant::{Grant, Names, Narrowing, Profile, SpawnLimits};
use policies::names::Name;
use policies::permission::Access;
use policies::tools::{Glob, Layer, Mode, ToolRules};
use proptest::prelude::*;
use std::path::PathBuf;

pub(crate) fn path() -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", ".git", "hooks"]), 0..4)
        .prop_map(|parts| parts.iter().fold(PathBuf::from("/"), |p, part| p.join(part)))
}
pub(crate) fn filesystem() -> impl Strategy<Value = FsGrant> {
    let paths = || prop::collection::vec(path(), 0..4);
    (paths(), paths(), paths()).prop_map(|(r, w, d)| FsGrant::new(r, w, d))
}
const HOSTS: [&str; 7] = ["d.com", "a.d.com", "b.a.d.com", "e.com", "ad.com", "x.e.com", "com.d"];
const PATTERNS: [&str; 12] = [
    "d.com",
    "*.d.com",
    "**.d.com",
    "a.d.com",
    "*.a.d.com",
    "**.e.com",
    "e.com:80",
    "*.d.com:443",
    "**.d.com:80",
    "ad.com",
    "d.com:80",
    "**.a.d.com:443",
];
pub(crate) fn domains() -> impl Strategy<Value = Domains> {
    prop::collection::vec(prop::sample::select(PATTERNS.to_vec()), 0..5).prop_map(|p| Domains::parse(p).unwrap())
}
const NETS: [&str; 6] = ["10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16", "fd00::/8", "0.0.0.0/0"];
pub(crate) fn networks() -> impl Strategy<Value = Networks> {
    prop::collection::vec(prop::sample::select(NETS.to_vec()), 0..4)
        .prop_map(|n| Networks::new(n.iter().map(|n| n.parse().unwrap())))
}
const GLOBS: [&str; 10] = ["*", "a*", "*b", "a*b", "ab", "s__a", "s__*", "*__a", "*a*b*", "b"];
pub(crate) fn layer() -> impl Strategy<Value = Layer> {
    let globs = || {
        prop::collection::vec(prop::sample::select(GLOBS.to_vec()), 0..3)
            .prop_map(|g| g.into_iter().map(|g| Glob::try_from(g).unwrap()).collect::<Vec<_>>())
    };
    (globs(), globs(), globs()).prop_map(|(a, k, d)| Layer::new(a, k, d))
}
pub(crate) fn tools() -> impl Strategy<Value = ToolRules> {
    prop::collection::vec(layer(), 0..3)
        .prop_map(|layers| layers.into_iter().map(ToolRules::of).fold(ToolRules::default(), |a, b| a.meet(&b)))
}
pub(crate) fn names() -> impl Strategy<Value = Names> {
    let name = prop::sample::select(vec!["x", "y", "z"]).prop_map(|n| Name::try_from(n).unwrap());
    prop_oneof![Just(Names::All), prop::collection::btree_set(name, 0..3).prop_map(Names::Only)]
}
pub(crate) fn spawn() -> impl Strategy<Value = SpawnLimits> {
    (0u32..4, 0u32..4, 1u32..4).prop_map(|(max_depth, max_concurrent, max_total)| SpawnLimits {
        max_depth,
        max_concurrent,
        max_total,
    })
}
pub(crate) fn grant() -> impl Strategy<Value = Grant> {
    let access = prop::sample::select(Access::ALL.to_vec());
    let profile = prop::sample::select(Profile::ALL.to_vec());
    (filesystem(), domains(), networks(), access, tools(), names(), names(), spawn(), profile).prop_map(
        |(filesystem, domains, networks, max_access, tools, models, agents, spawn, sandbox)| Grant {
            filesystem,
            domains,
            networks,
            max_access,
            tools,
            models,
            agents,
            spawn,
            sandbox,
        },
    )
}
pub(crate) fn narrowing() -> impl Strategy<Value = Narrowing> {
    (grant(), prop::array::uniform9(any::<bool>())).prop_map(|(g, keep)| Narrowing {
        filesystem: keep[0].then_some(g.filesystem),
        domains: keep[1].then_some(g.domains),
        networks: keep[2].then_some(g.networks),
        max_access: keep[3].then_some(g.max_access),
        tools: keep[4].then_some(g.tools),
        models: keep[5].then_some(g.models),
        agents: keep[6].then_some(g.agents),
        spawn: keep[7].then_some(g.spawn),
        sandbox: keep[8].then_some(g.sandbox),
    })
}

/// One thing somebody might want, with the grant's plain answer to it.
#[derive(Debug, Clone)]
pub(crate) enum Want {
    File(PathBuf, FileOp),
    Host(&'static str, u16),
    Address(&'static str),
    Class(Access),
    Tool(&'static str, Mode),
    Runtime(&'static str, Mode),
    Model(&'static str),
    Agent(&'static str),
    Depth(u32),
    Profile(Profile),
}

impl Want {
    pub(crate) fn granted(&self, g: &Grant) -> bool {
        match self {
            Want::File(path, op) => g.filesystem.allows(path, *op),
            Want::Host(host, port) => g.domains.allows(&Host::parse(host).unwrap(), *port),
            Want::Address(address) => g.networks.allows(address.parse().unwrap()),
            Want::Class(access) => *access <= g.max_access,
            Want::Tool(tool, mode) => g.tools.mode(tool) >= *mode,
            Want::Runtime(tool, mode) => g.tools.runtime_mode(tool) >= *mode,
            Want::Model(name) => g.models.allows(name),
            Want::Agent(name) => g.agents.allows(name),
            Want::Depth(depth) => *depth <= g.spawn.max_depth,
            Want::Profile(profile) => *profile >= g.sandbox,
        }
    }
}

/// Everything one might want in the small universe.
pub(crate) fn wants() -> Vec<Want> {
    let mut all = Vec::new();
    let mut paths = vec![PathBuf::from("/")];
    for _ in 0..3 {
        let deeper: Vec<PathBuf> =
            paths.iter().flat_map(|p| ["a", "b", "ab", "zz", ".git", "hooks"].map(|n| p.join(n))).collect();
        paths.extend(deeper);
        paths.sort();
        paths.dedup();
    }
    for path in paths {
        all.extend([FileOp::Read, FileOp::Write].map(|op| Want::File(path.clone(), op)));
    }
    for host in HOSTS {
        all.extend([80, 443, 9].map(|port| Want::Host(host, port)));
    }
    all.extend(["z.z.a.d.com", "z.d.com", "z.e.com"].map(|h| Want::Host(h, 443)));
    all.extend(["10.0.0.1", "10.129.0.1", "10.1.0.1", "11.0.0.1", "fd00::1", "fe80::1"].map(Want::Address));
    all.extend(Access::ALL.map(Want::Class));
    for tool in
        ["a", "b", "ab", "aab", "s__a", "s__b", "t__a", "axb", "bab", "zabz", "z", "xaybz", "aa", "bb", "ba", "s__ab"]
    {
        all.extend([Mode::Ask, Mode::Allow].map(|m| Want::Tool(tool, m)));
        // The runtime's own tools have no `__`.
        if !tool.contains("__") {
            all.extend([Mode::Ask, Mode::Allow].map(|m| Want::Runtime(tool, m)));
        }
    }
    all.extend(["x", "y", "z", "w"].map(Want::Model));
    all.extend(["x", "y", "z", "w"].map(Want::Agent));
    all.extend((0..5).map(Want::Depth));
    all.extend(Profile::ALL.map(Want::Profile));
    all
}
