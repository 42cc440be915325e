//! The sample files are the specification: `valid/` resolves, `invalid/` fails with exactly the
//! errors its comments name.

use crate::world::{World, load};
use std::path::{Path, PathBuf};

fn samples(kind: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(kind);
    let mut out: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        .collect();
    out.sort();
    assert!(!out.is_empty());
    out
}

#[test]
fn valid_samples_resolve() {
    for (path, source) in samples("valid") {
        if let Err(errors) = load(&source) {
            panic!("{}:\n{errors}", path.display());
        }
    }
}

#[test]
fn invalid_samples_fail_with_exactly_their_errors() {
    for (path, source) in samples("invalid") {
        let found = match load(&source) {
            Ok(_) => panic!("{} resolved", path.display()),
            Err(errors) => errors.0,
        };
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        if let Some(prefix) = source.lines().find_map(|l| l.strip_prefix("# error-prefix: ")) {
            let prefix = format!("pleach.toml:{prefix}");
            assert!(found.iter().any(|f| f.starts_with(&prefix)), "{}: {found:#?}", path.display());
            continue;
        }
        let expected: Vec<String> =
            source.lines().filter_map(|l| l.strip_prefix("# error: ")).map(|l| format!("pleach.toml:{l}")).collect();
        assert!(!expected.is_empty(), "{} names no error", path.display());
        assert_eq!(found, expected, "{}", path.display());
    }
}

/// The design's own example: until every key is served, its only errors are "not in this
/// version", one for each unserved key, at its place.
#[test]
fn the_designs_example_lacks_only_what_is_not_served_yet() {
    let source =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/design.toml")).unwrap();
    let errors = load(&source).expect_err("some keys are not served yet").0;
    let unserved = [("[bus]", 2)];
    let expected: Vec<(usize, usize)> = unserved
        .iter()
        .map(|(text, column)| (source.lines().position(|l| l.starts_with(text)).unwrap() + 1, *column))
        .collect();
    let found: Vec<(usize, usize)> = errors.iter().map(|e| (e.place.line, e.place.column)).collect();
    assert_eq!(found, expected, "{errors:#?}");
    assert!(errors.iter().all(|e| e.not_in_this_version), "{errors:#?}");
}

#[test]
fn the_designs_example_without_those_keys_resolves() {
    let source =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/design.toml")).unwrap();
    let mut skip_table = false;
    let served: Vec<String> = source
        .lines()
        .filter(|line| {
            if line.starts_with('[') {
                skip_table = line.starts_with("[bus]");
            }
            !skip_table
        })
        .map(str::to_owned)
        .collect();
    let mut world = World::default();
    world.variables.insert("SEARCH_TOKEN".into(), "t".into());
    let agent = "---\nname: reviewer\ndescription: Reviews.\ntools: Read\n---\nReview.\n";
    world.files.insert("/work/.claude/agents/reviewer.md".into(), agent.into());
    world.files.insert("/work/.mcp.json".into(), "{ \"mcpServers\": {} }".into());
    world.variables.insert("ANTHROPIC_API_KEY".into(), "k".into());
    let node = policies::file::read("pleach.toml", &served.join("\n")).unwrap();
    let policy = policies::resolve::resolve(&node, &world).unwrap();
    let sentences = policies::explain::sentences(&policy, Path::new("/work")).join("\n");
    assert!(sentences.contains("researcher may read docs/papers, write nothing, reach no network"), "{sentences}");
    let model = "Model default is claude-sonnet-5-5 at https://api.anthropic.com: $2.00 per million tokens read and $10.00 written as of 2026-11-20.";
    assert!(sentences.contains(model), "{sentences}");
    assert!(sentences.contains("may give them more max_access than it has itself"), "{sentences}");
}

/// The schema names every key, and an editor that follows it accepts the valid samples.
#[test]
fn the_schema_accepts_the_valid_samples_and_refuses_unknown_keys() {
    let schema = policies::file::shapes::schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (path, source) in samples("valid") {
        let value: serde_json::Value = toml::from_str(&source).unwrap();
        assert!(validator.is_valid(&value), "{}", path.display());
    }
    let typo: serde_json::Value = toml::from_str("version = 1\n[polcy]\n").unwrap();
    assert!(!validator.is_valid(&typo));
    let later: serde_json::Value = toml::from_str("version = 1\n[bus]\n").unwrap();
    assert!(!validator.is_valid(&later));
}

#[test]
fn absent_means_nothing_at_the_root() {
    let policy = load("version = 1").unwrap();
    assert_eq!(*policy.root, policies::grant::Grant::nothing());
    assert_eq!(policy.root_limits.turns, 100);
    assert!(policy.clients.is_none());
}

#[test]
fn check_warns_of_what_cannot_work() {
    let source = "version = 1\n[servers.a]\ncommand = \"npx\"\n[servers.b]\ncommand = \"b\"\n[policy.tools]\nallow = [\"a__*\"]\n";
    let warnings: Vec<String> = load(source).unwrap().warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings[0].contains("pleach.toml:2:10: npx downloads at start"));
    assert!(warnings[1].contains("pleach.toml:4:10: b: 0 tools reachable"));
    let star = source.replace("a__*\"]", "*__x\"]");
    assert_eq!(load(&star).unwrap().warnings.len(), 1, "a pattern with a star in front may cover both");
}

#[test]
fn pleachs_own_files_are_in_no_grant() {
    let policy = load("version = 1\n[policy.filesystem]\nread_write = [\".\"]").unwrap();
    for own in ["/work/pleach.toml", "/work/pleach.db", "/work/pleach.db-wal"] {
        assert!(!policy.root.filesystem.allows(Path::new(own), policies::fs::FileOp::Read), "{own}");
    }
    assert!(policy.root.filesystem.allows(Path::new("/work/main.rs"), policies::fs::FileOp::Write));
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let policy = load(
        "version = 1\n[servers.s]\nurl = \"https://e.com/\"\nheaders = { A = \"hunter2-hunter2\" }\n[clients.c]\ntoken = \"hunter2-hunter2-x\"\n[models.m]\nprovider = \"openai\"\nmodel = \"gpt\"\napi_key = \"hunter2-hunter2-y\"",
    )
    .unwrap();
    assert!(!format!("{policy:?}").contains("hunter2"));
}

#[test]
fn models_cost_what_the_file_says_then_what_the_list_says_then_nobody_knows() {
    use policies::names::Name;
    let source = "version = 1\n[models.a]\nprovider = \"anthropic\"\nmodel = \"claude-opus-5-5\"\napi_key = \"k\"\n\
         fallback = [\"b\", \"d\"]\n[models.b]\nprovider = \"openai\"\nmodel = \"gpt\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
         price = { input = 1, output = 2.5, above = { tokens = 1000, input = 2, output = 5 } }\nfallback = [\"c\"]\n\
         [models.c]\nprovider = \"openai\"\nmodel = \"local\"\nbase_url = \"http://127.0.0.1:1/v1\"\ncontext = 32000\n\
         [models.d]\nprovider = \"anthropic\"\nmodel = \"claude-haiku-5-5\"\napi_key = \"k\"\nprice = { input = 0.2, output = 1 }";
    let policy = load(source).unwrap();
    let name = |n: &str| Name::try_from(n).unwrap();
    let chain: Vec<String> = policy.chain(&name("a")).iter().map(|m| m.name.to_string()).collect();
    assert_eq!(chain, ["a", "b", "c", "d"], "fallbacks of a fallback come before the next");
    let input = |by| policy.price(&name("a"), by).map(|p| (p.input, p.cache_read));
    assert_eq!(input(None), Some((4_000, 400)));
    assert_eq!(input(Some("gpt")), Some((1_000, 1_000)), "no discount is counted on that is not written");
    assert_eq!(input(Some("local")), None, "unknown, not free");
    assert_eq!(input(Some("claude-haiku-5-5-20261001")), Some((200, 20)));
    assert_eq!(input(Some("claude-sonnet-5-5")), Some((2_000, 200)), "the provider may answer with another of its own");
    let sizes = |n: &str| (policy.models[&name(n)].context, policy.models[&name(n)].max_output);
    assert_eq!((sizes("a"), sizes("b"), sizes("c")), ((1_000_000, 128_000), (128_000, 8_192), (32_000, 8_192)));
    let warnings: Vec<String> = policy.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].starts_with("pleach.toml:13:9: model c: cost unknown"), "{warnings:#?}");
}
