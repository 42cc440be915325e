//! The law of standing rules: whatever people said yes to, nothing is allowed that the grant does
//! not allow or leave to a person.

use crate::universe::{filesystem, grant, narrowing, path};
use crate::world::load;
use policies::action::{Call, Touch, Touched};
use policies::authority::Authority;
use policies::decide;
use policies::domain::Host;
use policies::fs::FileOp;
use policies::grant::Grant;
use policies::json::{Json, Limits};
use policies::manifest::{Tool, import};
use policies::permit::Verdict;
use policies::standing::{Asker, Standing, Whose, answered};
use policies::tools::{Glob, Layer, Mode, ToolRules};
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

/// Three tools of a server, one of each class.
static TOOLS: LazyLock<Vec<Arc<Tool>>> = LazyLock::new(|| {
    let file = "version = 1\n[servers.s]\ncommand = \"s\"\n[servers.s.tools]\na = { access = \"read-only\" }\n\
                b = { access = \"read-write\" }\nab = { access = \"destructive\" }\n";
    let policy = load(file).unwrap();
    let list = r#"[{"name":"a","inputSchema":{"type":"object"}},{"name":"b","inputSchema":{"type":"object"}},
                   {"name":"ab","inputSchema":{"type":"object"}}]"#;
    let list = Json::parse(list.as_bytes(), Limits::default()).unwrap();
    let server = policy.servers.values().next().unwrap();
    import(&server.name, &server.words, list.as_array().unwrap()).tools.into_iter().map(Arc::new).collect()
});

const CHAIN: [&str; 2] = ["root policy", "client ci"];

#[derive(Debug, Clone)]
struct Wish {
    tool: usize,
    touches: Vec<Touched>,
}

impl Wish {
    fn call(&self) -> Call {
        let touch = |what: &Touched| Touch { pointer: "/x".into(), written: "x".into(), what: what.clone() };
        let arguments = Json::parse(b"{}", Limits::default()).unwrap();
        Call { tool: TOOLS[self.tool].clone(), arguments, touches: self.touches.iter().map(touch).collect() }
    }
    /// Whether the grant allows it, or leaves it to a person: asked part by part.
    fn granted(&self, grant: &Grant) -> bool {
        let tool = &TOOLS[self.tool];
        grant.tools.mode(&tool.name) >= Mode::Ask
            && tool.access <= grant.max_access
            && self.touches.iter().all(|touch| match touch {
                Touched::Path(op, path) => grant.filesystem.allows(path, *op),
                Touched::Host(host, port) => grant.domains.allows(host, *port),
                Touched::Unclear(_) => false,
            })
    }
}

fn wish() -> impl Strategy<Value = Wish> {
    let touched = prop_oneof![
        path().prop_map(|path| Touched::Path(FileOp::Read, path)),
        path().prop_map(|path| Touched::Path(FileOp::Write, path)),
        Just(Touched::Host(Host::parse("a.d.com").unwrap(), 443)),
        Just(Touched::Unclear("of two minds".into())),
    ];
    (0..3usize, prop::collection::vec(touched, 0..3)).prop_map(|(tool, touches)| Wish { tool, touches })
}

/// Rules that fit now and then, and rules that miss in one way or another.
fn rule() -> impl Strategy<Value = Standing> {
    let paths = prop::option::of(prop::collection::vec(path(), 0..3));
    let chain =
        prop::sample::select(vec![CHAIN.to_vec(), vec!["root policy"], vec!["root policy", "client ci", "agent a"]]);
    let run = prop::sample::select(vec![None, Some("r-1"), Some("r-2")]);
    let run = (run, prop::sample::select(vec![Whose::Client, Whose::Run]));
    let who = prop::sample::select(vec!["ci", "ci", "other"]);
    (0..3usize, paths, chain, run, who, prop::bool::weighted(0.9)).prop_map(
        |(tool, paths, chain, (run, whose), who, same)| {
            let tool = &TOOLS[tool];
            Standing {
                id: "a-1".into(),
                principal: who.into(),
                whose,
                run: run.map(str::to_owned),
                chain: chain.into_iter().map(str::to_owned).collect(),
                tool: tool.name.clone(),
                manifest: if same { tool.hash.clone() } else { "changed".into() },
                server: tool.identity.clone(),
                paths,
                by: "boss".into(),
                at: 1,
                question: "q-1".into(),
            }
        },
    )
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Short {
    Allow,
    Ask,
    Deny,
}

fn short(verdict: &Verdict<Call>) -> Short {
    match verdict {
        Verdict::Allow(..) => Short::Allow,
        Verdict::Ask(_) => Short::Ask,
        Verdict::Deny(_) => Short::Deny,
    }
}

fn judge(grant: &Grant, wish: &Wish) -> Verdict<Call> {
    decide::call(&Authority::root(Arc::new(grant.clone()), Arc::default(), None), wish.call())
}

fn asker(run: Option<&str>) -> Asker<'_> {
    Asker { principal: "ci", run, chain: &CHAIN }
}

/// A grant in which much is asked about, so that rules have something to say.
fn asking() -> impl Strategy<Value = Grant> {
    let globs = || {
        prop::collection::vec(prop::sample::select(vec!["*", "s__a", "s__b", "s__*", "*b"]), 0..2)
            .prop_map(|g| g.into_iter().map(|g| Glob::try_from(g).unwrap()).collect::<Vec<_>>())
    };
    let rules = (globs(), globs())
        .prop_map(|(ask, deny)| ToolRules::of(Layer::new(vec![Glob::try_from("*").unwrap()], ask, deny)));
    (grant(), rules, filesystem(), any::<bool>()).prop_map(|(mut grant, tools, files, all)| {
        grant.tools = tools;
        if all {
            grant.filesystem = files;
            grant.max_access = policies::permission::Access::Destructive;
        }
        grant
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Deny stays deny, allow stays allow, and what is asked about is at most allowed.
    #[test]
    fn no_rule_goes_beyond_the_grant(
        grant in prop_oneof![grant(), asking()], wish in wish(), rules in prop::collection::vec(rule(), 0..6),
        run in prop::sample::select(vec![None, Some("r-1")]),
    ) {
        let before = short(&judge(&grant, &wish));
        let after = answered(judge(&grant, &wish), asker(run), &rules);
        match (before, short(&after)) {
            (Short::Ask, Short::Allow) => {
                prop_assert!(rules.iter().any(|rule| rule.answers(asker(run), &wish.call())));
                let Verdict::Allow(permit, rule) = &after else { unreachable!() };
                prop_assert!(rule.text.contains("standing rule a-1 by boss"), "the record names it: {}", rule.text);
                prop_assert_eq!(permit.rule(), rule);
                prop_assert!(permit.asked(), "somebody said yes");
            }
            (before, after) => prop_assert_eq!(before, after),
        }
        if let (Short::Allow, Verdict::Allow(permit, _)) = (before, &after) {
            prop_assert!(!permit.asked(), "nobody was asked");
        }
        if short(&after) == Short::Allow {
            prop_assert!(wish.granted(&grant));
        }
        prop_assert_eq!(short(&answered(judge(&grant, &wish), asker(run), &[])), before, "nothing stands, nothing changes");
    }

    /// A policy that narrows wins over every rule that stands.
    #[test]
    fn narrowing_wins(
        grant in asking(), narrower in narrowing(), wish in wish(), rules in prop::collection::vec(rule(), 1..6),
    ) {
        let narrow = grant.narrow(&narrower);
        if short(&answered(judge(&narrow, &wish), asker(None), &rules)) == Short::Allow {
            prop_assert!(wish.granted(&narrow) && wish.granted(&grant));
        }
        if short(&judge(&narrow, &wish)) == Short::Deny {
            prop_assert_eq!(short(&answered(judge(&narrow, &wish), asker(None), &rules)), Short::Deny);
        }
    }
}

fn fits() -> Standing {
    Standing {
        id: "a-1".into(),
        principal: "ci".into(),
        whose: Whose::Client,
        run: None,
        chain: CHAIN.map(str::to_owned).to_vec(),
        tool: TOOLS[1].name.clone(),
        manifest: TOOLS[1].hash.clone(),
        server: TOOLS[1].identity.clone(),
        paths: Some(vec!["/out/a".into()]),
        by: "boss".into(),
        at: 1,
        question: "q-1".into(),
    }
}

fn writes(paths: &[&str]) -> Call {
    let touches = paths.iter().map(|path| Touched::Path(FileOp::Write, PathBuf::from(path))).collect();
    Wish { tool: 1, touches }.call()
}

/// Each part of a rule counts, and a rule of which all parts fit says yes.
#[test]
fn each_part_of_a_rule_counts() {
    let rule = fits();
    for within in [&["/out/a"][..], &["/out/a/b"], &["/out/a/b", "/out/a/c/d"]] {
        assert!(rule.answers(asker(None), &writes(within)), "{within:?}");
    }
    for outside in [&[][..], &["/out"], &["/out/ab"], &["/out/a/b", "/out/b"], &["/"]] {
        assert!(!rule.answers(asker(None), &writes(outside)), "{outside:?}");
    }
    let mut connects = writes(&["/out/a/b"]);
    let host = Touched::Host(Host::parse("d.com").unwrap(), 443);
    connects.touches.push(Touch { pointer: "/u".into(), written: "u".into(), what: host });
    assert!(!rule.answers(asker(None), &connects), "something besides");
    let call = || writes(&["/out/a/b"]);
    let other = |change: &dyn Fn(&mut Standing)| {
        let mut rule = fits();
        change(&mut rule);
        rule.answers(asker(None), &call())
    };
    assert!(!other(&|r| r.principal = "other".into()), "another client");
    assert!(!other(&|r| r.chain.push("agent a".into())), "an agent of it");
    assert!(!other(&|r| drop(r.chain.pop())), "whoever is above it");
    assert!(!other(&|r| r.tool = "s__a".into()), "another tool");
    assert!(!other(&|r| r.manifest = "changed".into()), "the tool as it was");
    assert!(!other(&|r| r.server = "another".into()), "the same words of another server");
    assert!(!other(&|r| r.run = Some("r-1".into())), "a run's");
    assert!(other(&|r| r.paths = None), "of any path");
    assert!(!other(&|r| r.whose = Whose::Run), "its runs'");
    let runs = Standing { whose: Whose::Run, run: Some("r-1".into()), ..fits() };
    assert!(runs.answers(asker(Some("r-1")), &call()) && !runs.answers(asker(Some("r-2")), &call()));
    let any = Standing { whose: Whose::Run, ..fits() };
    assert!(any.answers(asker(Some("r-2")), &call()) && !any.answers(asker(None), &call()), "no client's own");
    assert!(!fits().answers(asker(Some("r-1")), &call()), "a client's own is no run's, under the same chain");
}
