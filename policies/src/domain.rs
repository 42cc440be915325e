//! Which hosts and addresses may be reached: domain patterns, networks, and the judgement of
//! a destination before and after its name is resolved.
//!
//! Patterns: `host` (exact), `*.d` (strict subdomains), `**.d` (the apex and subdomains), each
//! with an optional `:port`. A host is canonical after [`Host::parse`] (WHATWG rules: IDNA to
//! ASCII, `0x7f.1` is an address), so that policy and dialler read the same name.
//!
//! Judgement: a name is matched against domains only, a literal address against networks only;
//! then *every* resolved address of a name passes [`screen`], which refuses what no public name
//! should point at, unless a network rule grants it.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A canonical host: a lower-case ASCII domain or an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A domain name without trailing dot.
    Domain(Box<str>),
    /// A literal address; v4-mapped v6 is v4.
    Address(IpAddr),
}

/// Why a text is not a host or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// Not a host name or address.
    #[error("{0:?} is not a host name")]
    NotAHost(String),
    /// A wildcard over a single label, such as `*.com`.
    #[error("{0:?} would cover a whole top-level domain; name at least two labels")]
    TooWide(String),
    /// `*` anywhere but in front.
    #[error("{0:?}: `*` stands only in front, as `*.d` (subdomains) or `**.d` (apex and subdomains)")]
    Wildcard(String),
    /// A literal address among domains.
    #[error("{0:?} is an address; addresses belong in `networks`")]
    Address(String),
    /// A port that is none.
    #[error("{0:?}: a port is 1 to 65535")]
    Port(String),
}

impl Host {
    /// Canonicalises a host as a URL parser would: one reading, used for the decision and the dial.
    ///
    /// # Errors
    /// Whatever WHATWG host parsing refuses, empty labels and control characters.
    pub fn parse(text: &str) -> Result<Host, DomainError> {
        let bad = || DomainError::NotAHost(text.to_owned());
        if text.contains(['%', '@', '/', '\\', '\0']) || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(bad());
        }
        let bracketed = match text.parse::<Ipv6Addr>() {
            Ok(_) => format!("[{text}]"),
            Err(_) => text.to_owned(),
        };
        match url::Host::parse(&bracketed).map_err(|_| bad())? {
            url::Host::Domain(name) => {
                let name = name.strip_suffix('.').unwrap_or(&name);
                let label_ok = |l: &str| !l.is_empty() && l.len() <= 63;
                if name.len() > 253 || !name.split('.').all(label_ok) {
                    return Err(bad());
                }
                Ok(Host::Domain(name.to_ascii_lowercase().into()))
            }
            url::Host::Ipv4(address) => Ok(Host::Address(address.into())),
            url::Host::Ipv6(address) => Ok(Host::Address(IpAddr::V6(address).to_canonical())),
        }
    }
}
impl Host {
    /// The host of an address.
    ///
    /// # Errors
    /// When it has none that could be dialled.
    pub fn of(url: &url::Url) -> Result<Host, DomainError> {
        Self::parse(url.host_str().unwrap_or_default().trim_matches(['[', ']']))
    }
    /// Whether it is this machine by its very name: `localhost`, or a loopback address.
    pub fn is_loopback(&self) -> bool {
        match self {
            Host::Domain(name) => &**name == "localhost" || name.ends_with(".localhost"),
            Host::Address(address) => address.is_loopback(),
        }
    }
}
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Domain(name) => f.write_str(name),
            Host::Address(IpAddr::V6(a)) => write!(f, "[{a}]"),
            Host::Address(a) => write!(f, "{a}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Reach {
    Exact(Box<str>),
    Subdomains(Box<str>),
}

/// A set of (host, port) pairs, closed under intersection. `**.d` is kept as its two atoms
/// `d` and `*.d`, which makes inclusion a matter of single atoms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Domains(BTreeSet<(Reach, Option<u16>)>);

impl Domains {
    /// Reads patterns as the policy file writes them.
    ///
    /// # Errors
    /// The first pattern that is none.
    pub fn parse<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, DomainError> {
        let mut set = BTreeSet::new();
        for pattern in patterns {
            atoms(pattern, &mut set)?;
        }
        Ok(Self(set).normal())
    }
    /// Whether nothing may be reached.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Whether `host` (a domain) at `port` is in the set. Addresses never are.
    pub fn allows(&self, host: &Host, port: u16) -> bool {
        let Host::Domain(name) = host else { return false };
        self.0.iter().any(|(reach, p)| p.is_none_or(|p| p == port) && reach.covers(name))
    }
    /// The intersection.
    pub fn meet(&self, other: &Self) -> Self {
        let mut out = BTreeSet::new();
        for (a, pa) in &self.0 {
            for (b, pb) in &other.0 {
                let port = match (pa, pb) {
                    (Some(x), Some(y)) if x != y => continue,
                    (Some(x), _) | (None, Some(x)) => Some(*x),
                    (None, None) => None,
                };
                if a.within(b) {
                    out.insert((a.clone(), port));
                } else if b.within(a) {
                    out.insert((b.clone(), port));
                }
            }
        }
        Self(out).normal()
    }
    /// Whether everything reachable here is reachable there.
    pub fn within(&self, other: &Self) -> bool {
        self.0.iter().all(|mine| other.0.iter().any(|theirs| atom_within(mine, theirs)))
    }
    /// The patterns, `**.d` joined again where both atoms stand.
    pub fn patterns(&self) -> Vec<String> {
        let port = |p: &Option<u16>| p.map(|p| format!(":{p}")).unwrap_or_default();
        let mut out = Vec::new();
        for (reach, p) in &self.0 {
            match reach {
                Reach::Exact(d) if self.0.contains(&(Reach::Subdomains(d.clone()), *p)) => {
                    out.push(format!("**.{d}{}", port(p)));
                }
                Reach::Exact(d) => out.push(format!("{d}{}", port(p))),
                Reach::Subdomains(d) if self.0.contains(&(Reach::Exact(d.clone()), *p)) => {}
                Reach::Subdomains(d) => out.push(format!("*.{d}{}", port(p))),
            }
        }
        out
    }
    fn normal(self) -> Self {
        let keep = self.0.iter().filter(|a| !self.0.iter().any(|b| *a != b && atom_within(a, b)));
        Self(keep.cloned().collect())
    }
}

impl Reach {
    fn covers(&self, name: &str) -> bool {
        match self {
            Reach::Exact(d) => **d == *name,
            Reach::Subdomains(d) => strictly_below(name, d),
        }
    }
    fn within(&self, other: &Reach) -> bool {
        match (self, other) {
            (Reach::Exact(a), _) => other.covers(a),
            (Reach::Subdomains(_), Reach::Exact(_)) => false,
            (Reach::Subdomains(a), Reach::Subdomains(b)) => a == b || strictly_below(a, b),
        }
    }
}

fn strictly_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}
fn atom_within(a: &(Reach, Option<u16>), b: &(Reach, Option<u16>)) -> bool {
    (b.1.is_none() || a.1 == b.1) && a.0.within(&b.0)
}

fn atoms(pattern: &str, into: &mut BTreeSet<(Reach, Option<u16>)>) -> Result<(), DomainError> {
    let (host, port) = split_port(pattern)?;
    let (stars, base) = match host {
        h if h.starts_with("**.") => (2, &h[3..]),
        h if h.starts_with("*.") => (1, &h[2..]),
        h => (0, h),
    };
    if base.contains('*') {
        return Err(DomainError::Wildcard(pattern.to_owned()));
    }
    let Host::Domain(name) = Host::parse(base)? else {
        return Err(DomainError::Address(pattern.to_owned()));
    };
    if stars > 0 && !name.contains('.') {
        return Err(DomainError::TooWide(pattern.to_owned()));
    }
    if stars != 1 {
        into.insert((Reach::Exact(name.clone()), port));
    }
    if stars > 0 {
        into.insert((Reach::Subdomains(name), port));
    }
    Ok(())
}

fn split_port(pattern: &str) -> Result<(&str, Option<u16>), DomainError> {
    let Some((host, port)) = pattern.rsplit_once(':') else { return Ok((pattern, None)) };
    if host.contains(':') {
        return Err(DomainError::Address(pattern.to_owned()));
    }
    let bad = || DomainError::Port(pattern.to_owned());
    if !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok((host, Some(port))),
        _ => Err(bad()),
    }
}

/// A set of addresses as aggregated CIDR blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// The union of `nets`, aggregated: equal sets have equal forms.
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> Self {
        Self(IpNet::aggregate(&nets.into_iter().map(|n| n.trunc()).collect()))
    }
    /// Every address.
    pub fn everything() -> Self {
        Self::new([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())])
    }
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Whether `address` is in the set; a v4-mapped v6 address is judged as v4.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }
    /// The intersection: of two related blocks the smaller.
    pub fn meet(&self, other: &Self) -> Self {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a, b)));
        Self::new(pairs.filter_map(|(a, b)| match (a.contains(b), b.contains(a)) {
            (true, _) => Some(*b),
            (_, true) => Some(*a),
            _ => None,
        }))
    }
    /// Whether every address here is there.
    pub fn within(&self, other: &Self) -> bool {
        self.0.iter().all(|mine| other.0.iter().any(|theirs| theirs.contains(mine)))
    }
    /// The blocks.
    pub fn blocks(&self) -> &[IpNet] {
        &self.0
    }
}

/// Why a resolved address may not be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {what}")]
pub struct Screened {
    /// The address, after unwrapping embedded v4.
    pub address: IpAddr,
    /// What kind of address it is.
    pub what: &'static str,
}

/// Refuses an address a public name should not resolve to: private, shared, link-local,
/// metadata, loopback, multicast, reserved; and v4 embedded in v6 (mapped, compatible, NAT64,
/// 6to4, Teredo is refused whole). Networks granted by policy are judged by the caller.
///
/// # Errors
/// The kind of address it is.
pub fn screen(address: IpAddr) -> Result<(), Screened> {
    let address = unwrap_embedded(address);
    let what = match address {
        IpAddr::V4(v4) => screen_v4(v4),
        IpAddr::V6(v6) => screen_v6(v6),
    };
    what.map_or(Ok(()), |what| Err(Screened { address, what }))
}

fn unwrap_embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    let s = v6.segments();
    let v4 = |hi: u16, lo: u16| {
        let [a, b] = hi.to_be_bytes();
        let [c, d] = lo.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        // ::a.b.c.d, deprecated but still dialled by some stacks; ::1 and :: stay v6.
        [0, 0, 0, 0, 0, 0, hi, lo] if hi != 0 => v4(hi, lo),
        // NAT64, well-known and local-use prefixes.
        [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] | [0x64, 0xff9b, 1, _, _, _, hi, lo] => v4(hi, lo),
        // 6to4.
        [0x2002, hi, lo, ..] => v4(hi, lo),
        _ => IpAddr::V6(v6),
    }
}

fn screen_v4(a: Ipv4Addr) -> Option<&'static str> {
    let o = a.octets();
    Some(match o {
        [0, ..] => "this host (0.0.0.0/8)",
        [127, ..] => "loopback",
        [10, ..] | [192, 168, ..] => "a private address",
        [172, b, ..] if (16..32).contains(&b) => "a private address",
        [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => "a cloud metadata address",
        [169, 254, ..] => "link-local (cloud metadata lives there)",
        [100, b, ..] if (64..128).contains(&b) => "shared address space (100.64.0.0/10)",
        [192, 0, 0, _] => "a protocol assignment (192.0.0.0/24)",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "a documentation address",
        [198, 18 | 19, ..] => "a benchmarking address",
        [192, 88, 99, _] => "a 6to4 relay",
        [224..=239, ..] => "multicast",
        [240..=255, ..] => "reserved",
        _ => return None,
    })
}

fn screen_v6(a: Ipv6Addr) -> Option<&'static str> {
    let s = a.segments();
    Some(match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => "unspecified",
        [0, 0, 0, 0, 0, 0, 0, 1] => "loopback",
        [first, ..] if first & 0xfe00 == 0xfc00 => "a unique local address",
        [first, ..] if first & 0xffc0 == 0xfe80 => "link-local",
        [first, ..] if first & 0xffc0 == 0xfec0 => "site-local",
        [first, ..] if first & 0xff00 == 0xff00 => "multicast",
        [0x2001, 0, ..] => "Teredo",
        [0x2001, 0xdb8, ..] | [0x3fff, ..] => "a documentation address",
        [0x100, 0, 0, 0, ..] => "the discard prefix",
        // Only 2000::/3 is assigned to the public internet.
        [first, ..] if first & 0xe000 != 0x2000 => "not a global unicast address",
        _ => return None,
    })
}
