//! The laws of the lattice, on random grants and exhaustively on a small universe.

use crate::universe::*;
use policies::fs::{FileOp, FsGrant};
use policies::grant::Grant;
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::LazyLock;

static WANTS: LazyLock<Vec<Want>> = LazyLock::new(wants);

fn included(a: &Grant, b: &Grant) -> bool {
    WANTS.iter().all(|w| !w.granted(a) || w.granted(b))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn meet_is_associative_commutative_idempotent(a in grant(), b in grant(), c in grant()) {
        prop_assert_eq!(a.meet(&b).meet(&c), a.meet(&b.meet(&c)));
        prop_assert_eq!(a.meet(&b), b.meet(&a));
        prop_assert_eq!(a.meet(&a), a);
    }

    /// allows(p ⊓ q, x) == allows(p, x) && allows(q, x)
    #[test]
    fn meet_grants_what_both_grant(p in grant(), q in grant()) {
        let met = p.meet(&q);
        for want in WANTS.iter() {
            prop_assert_eq!(want.granted(&met), want.granted(&p) && want.granted(&q), "{:?}", want);
        }
    }

    /// The order decided on the rules implies inclusion of what is granted …
    #[test]
    fn within_implies_inclusion(p in grant(), q in grant()) {
        if p.within(&q) {
            prop_assert!(included(&p, &q));
        }
        prop_assert!(p.meet(&q).within(&p));
        prop_assert!(p.meet(&q).within(&q));
        prop_assert!(p.within(&p));
    }

    /// … and p ⊑ q exactly when p ⊓ q grants the same as p.
    #[test]
    fn order_and_meet_agree(p in grant(), q in grant()) {
        let met = p.meet(&q);
        prop_assert_eq!(p.within(&q), p.within(&met));
    }

    #[test]
    fn narrowing_never_widens(p in grant(), n in narrowing(), m in narrowing()) {
        let narrowed = p.narrow(&n);
        prop_assert!(narrowed.within(&p));
        prop_assert!(narrowed.narrow(&m).within(&narrowed));
    }

    #[test]
    fn files_order_is_inclusion(p in filesystem(), q in filesystem()) {
        let semantic = WANTS.iter().all(|w| match w {
            Want::File(path, op) => !p.allows(path, *op) || q.allows(path, *op),
            _ => true,
        });
        prop_assert_eq!(p.within(&q), semantic, "{:?} {:?}", p, q);
    }

    #[test]
    fn domains_order_is_inclusion(p in domains(), q in domains()) {
        let semantic = WANTS.iter().all(|w| match w {
            Want::Host(host, port) => {
                let host = policies::domain::Host::parse(host).unwrap();
                !p.allows(&host, *port) || q.allows(&host, *port)
            }
            _ => true,
        });
        prop_assert!(!p.within(&q) || semantic);
        // The universe has no host for every pattern's every corner, so the other direction is
        // the lattice's: within exactly when the meet is unchanged.
        prop_assert_eq!(p.within(&q), p.meet(&q) == p);
    }

    #[test]
    fn tools_order_is_inclusion(p in tools(), q in tools()) {
        let semantic = WANTS.iter().all(|w| match w {
            Want::Tool(tool, _) => p.mode(tool) <= q.mode(tool),
            Want::Runtime(tool, _) => p.runtime_mode(tool) <= q.runtime_mode(tool),
            _ => true,
        });
        if p.within(&q) {
            prop_assert!(semantic, "{:?} {:?}", p, q);
        }
    }
}

/// Every pair of filesystem grants over two levels of two names: 4 × 4 × 4 list choices a side.
#[test]
fn files_exhaustively() {
    exhaustively(["/a", "/a/b", "/b"], &["/", "/a", "/a/b", "/a/b/z", "/a/z", "/b", "/b/z", "/z"]);
}

/// The same where the inner name is protected, and so no part of the outer one for writing.
#[test]
fn files_exhaustively_with_protected_names() {
    exhaustively(
        ["/a", "/a/.git", "/a/.git/hooks"],
        &["/", "/a", "/a/z", "/a/.git", "/a/.git/z", "/a/.git/hooks", "/a/.git/hooks/z", "/a/.git/hooks/.git/hooks"],
    );
}

fn exhaustively(paths: [&str; 3], universe: &[&str]) {
    let paths: Vec<PathBuf> = paths.map(PathBuf::from).to_vec();
    let subsets: Vec<Vec<PathBuf>> = (0..8u32)
        .map(|mask| paths.iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0).map(|(_, p)| p.clone()).collect())
        .collect();
    let mut grants = Vec::new();
    for r in &subsets {
        for w in &subsets {
            for d in &subsets {
                grants.push(FsGrant::new(r.clone(), w.clone(), d.clone()));
            }
        }
    }
    grants.sort_by_key(|g| format!("{g:?}"));
    grants.dedup();
    let universe: Vec<(PathBuf, FileOp)> =
        universe.iter().flat_map(|p| [FileOp::Read, FileOp::Write].map(|op| (PathBuf::from(p), op))).collect();
    let row = |g: &FsGrant| universe.iter().map(|(p, op)| g.allows(p, *op)).collect::<Vec<bool>>();
    let rows: Vec<Vec<bool>> = grants.iter().map(row).collect();
    for (i, p) in grants.iter().enumerate() {
        for (j, q) in grants.iter().enumerate() {
            let semantic = rows[i].iter().zip(&rows[j]).all(|(a, b)| !a || *b);
            assert_eq!(p.within(q), semantic, "{p:?} within {q:?}");
            let met: Vec<bool> = rows[i].iter().zip(&rows[j]).map(|(a, b)| *a && *b).collect();
            assert_eq!(row(&p.meet(q)), met, "{p:?} meet {q:?}");
            assert_eq!(rows[i] == rows[j], p == q, "normal form is unique: {p:?} {q:?}");
        }
    }
}

/// The tool order, exhaustively over layers of one pattern a list, against every name up to
/// four characters of a small alphabet.
#[test]
fn tools_exhaustively() {
    use policies::tools::{Glob, Layer, ToolRules};
    let globs = ["", "*", "a*", "*b", "a*b", "ab"];
    let one = |g: &str| (!g.is_empty()).then(|| Glob::try_from(g).unwrap());
    let mut rules = Vec::new();
    for allow in globs {
        for ask in globs {
            for deny in globs {
                rules.push(ToolRules::of(Layer::new(one(allow), one(ask), one(deny))));
            }
        }
    }
    let mut names = vec![String::new()];
    let mut all: Vec<String> = Vec::new();
    for _ in 0..4 {
        names = names.iter().flat_map(|n| ["a", "b", "c"].map(|c| format!("{n}{c}"))).collect();
        all.extend(names.clone());
    }
    let rows: Vec<Vec<(_, _)>> =
        rules.iter().map(|r| all.iter().map(|n| (r.mode(n), r.runtime_mode(n))).collect()).collect();
    for (i, p) in rules.iter().enumerate().step_by(3) {
        for (j, q) in rules.iter().enumerate() {
            let semantic = rows[i].iter().zip(&rows[j]).all(|(a, b)| a.0 <= b.0 && a.1 <= b.1);
            assert_eq!(p.within(q), semantic, "{p:?} within {q:?}");
        }
    }
}

/// What needs an allow is not asked for by leaving out a deny; what needs none is.
#[test]
fn a_deny_is_left_out_where_nothing_is_allowed() {
    use policies::tools::{Glob, Layer, ToolRules};
    let rules = |allow: &[&str], deny: &[&str]| {
        let globs = |list: &[&str]| list.iter().map(|g| Glob::try_from(*g).unwrap()).collect::<Vec<_>>();
        ToolRules::of(Layer::new(globs(allow), [], globs(deny)))
    };
    let reads = rules(&["files__Read"], &[]);
    for deny in ["files__Edit", "*__delete_*", "git__*"] {
        assert!(reads.within(&rules(&["files__*"], &[deny])), "{deny}");
    }
    for deny in ["files__Read", "*__Read", "Agent", "ask_*", "files__elicitation/create", "*__sampling/*", "files__*/*"]
    {
        assert!(!reads.within(&rules(&["files__*"], &[deny])), "{deny}");
        assert!(rules(&["files__Read"], &[deny]).within(&rules(&["files__*"], &[deny])), "{deny}");
    }
}

/// A grant that travelled: written and read back it takes away exactly what a meet with it does.
mod travelled {
    use super::*;
    use policies::claims;
    use policies::permission::Access;
    use policies::price::Usd;
    use policies::resolve::Limits;
    use std::time::Duration;

    fn limits() -> impl Strategy<Value = Limits> {
        let most = || prop_oneof![Just(u32::MAX), 0u32..9];
        let long = || prop_oneof![Just(u64::MAX), 0u64..9];
        let wall = prop_oneof![Just(None), (1u64..9).prop_map(|s| Some(Duration::from_secs(s)))];
        (most(), most(), long(), long(), wall).prop_map(|(turns, tool_calls, usd, tokens, wall)| Limits {
            turns,
            tool_calls,
            usd: Usd(usd),
            tokens,
            wall,
        })
    }

    proptest! {
        #[test]
        fn a_written_grant_is_the_grant(g in grant(), held in grant(), counted in limits()) {
            let text = claims::write(&g, &counted).unwrap();
            let (asks, limits) = claims::read(&text).unwrap();
            prop_assert_eq!(held.narrow(&asks), held.meet(&g));
            prop_assert!(held.narrow(&asks).within(&g));
            prop_assert_eq!(limits, counted);
            // And it is its own normal form.
            prop_assert_eq!(claims::write(&held.narrow(&asks), &limits), claims::write(&held.meet(&g), &counted));
        }
        #[test]
        fn nothing_is_nothing(held in grant()) {
            let (nothing, _) = claims::read(claims::NOTHING).unwrap();
            let left = held.narrow(&nothing);
            for want in WANTS.iter().filter(|want| want.granted(&left)) {
                // What is no right: the tools of the runtime itself, and the layers it works under.
                let idle = matches!(want, Want::Class(Access::ReadOnly) | Want::Runtime(..) | Want::Depth(0) | Want::Profile(_));
                prop_assert!(idle, "{:?}", want);
            }
        }
        #[test]
        fn a_torn_one_is_none_or_no_wider(g in grant(), at in 0usize..400, with in any::<u8>()) {
            let mut text = claims::write(&g, &Limits::NONE).unwrap().into_bytes();
            let at = at % text.len();
            text[at] = with;
            let Ok(text) = String::from_utf8(text) else { return Ok(()) };
            // Whatever it says by now, it only ever takes away.
            if let Ok((asks, _)) = claims::read(&text) {
                prop_assert!(g.narrow(&asks).within(&g));
            }
        }
    }

    #[test]
    fn what_is_not_understood_is_no_grant() {
        for wrong in [
            "",
            "null",
            "[]",
            "{\"tool\":[]}",
            "{\"max_access\":\"all\"}",
            "{\"sandbox\":\"none\"}",
            "{\"filesystem\":{\"read\":[\"a/b\"]}}",
            "{\"filesystem\":{\"read\":[\"/a/../b\"]}}",
            "{\"filesystem\":{\"read\":[\"/a//b\"]}}",
            "{\"filesystem\":{\"deny\":[\"\"]}}",
            "{\"tools\":[{\"allow\":[\"a b\"]}]}",
            "{\"tools\":[{\"otherwise\":\"maybe\"}]}",
            "{\"networks\":[\"10.0.0.0/99\"]}",
            "{\"domains\":[\"*.com\"]}",
            "{\"models\":[\"a b\"]}",
            "{\"spawn\":{\"max_depth\":-1}}",
            "{\"max_access\":\"read-only\",\"max_access\":\"destructive\"}",
        ] {
            assert!(claims::read(wrong).is_err(), "{wrong}");
        }
        assert!(claims::read(&format!("{{\"domains\":[\"{}.x.test\"]}}", "a".repeat(claims::MAX))).is_err());
        assert_eq!(claims::read("{}").unwrap(), (policies::grant::Narrowing::default(), Limits::NONE));
    }
}
