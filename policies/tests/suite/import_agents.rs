//! `.claude/agents/*.md` and `.mcp.json`: what they mean, and every error at its place.

use crate::world::load_with;
use policies::file::FileErrors;
use policies::import::{FIELDS, Kind, Outcome};
use policies::names::Name;
use policies::permission::Access;
use policies::resolve::Policy;
use policies::tools::Mode;
use std::path::Path;

const POLICY: &str = "version = 1
import = [\".claude/agents\"]
[models]
default = { provider = \"scripted\", script = \"r.toml\" }
sonnet = { provider = \"scripted\", script = \"r.toml\" }
[servers]
files = { builtin = \"workspace\" }
git = { command = \"git\", tools = { log = { rename = \"git_log\" } } }
#
[servers.docs]
url = \"https://docs.example.com/\"
[policy]
max_access = \"read-write\"
filesystem = { read_write = [\".\"] }
tools = { allow = [\"*\"] }
";

/// One sample, with the agent `helper` that others name.
fn load(sample: &str, text: &str) -> Result<Policy, FileErrors> {
    let helper = "---\nname: helper\ndescription: h\n---\nHelp.\n";
    let reviewer = "---\nname: reviewer\ndescription: r\n---\nReview.\n";
    let mut files = vec![(".claude/agents/sample.md", text)];
    // A sample may be one of the two, or clash with a table of the file on purpose.
    let own = sample == "also_in_the_file";
    if sample != "least" && !own {
        files.push((".claude/agents/x/helper.md", helper));
    }
    if sample != "everything" {
        files.push((".claude/agents/x/reviewer.md", reviewer));
    }
    let policy = match own {
        true => POLICY.replace("#\n", "[agents.helper]\nprompt = \"p\"\n"),
        false => POLICY.to_owned(),
    };
    load_with(&policy, &files)
}

fn samples(kind: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/import").join(kind);
    let mut out: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap()))
        .collect();
    out.sort();
    out
}

#[test]
fn invalid_samples_fail_with_exactly_their_errors() {
    let mut wrong = Vec::new();
    for (name, text) in samples("invalid") {
        let found = match load(&name, &text) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.0.iter().map(ToString::to_string).collect(),
        };
        let expected: Vec<String> = text
            .lines()
            .filter_map(|l| l.strip_prefix("# error: "))
            .map(|l| format!(".claude/agents/sample.md:{l}"))
            .collect();
        assert!(!expected.is_empty(), "{name} names no error");
        if found != expected {
            wrong.push(format!("{name}:\n  found    {found:#?}\n  expected {expected:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn agent<'a>(policy: &'a Policy, name: &str) -> &'a policies::resolve::AgentSpec {
    &policy.agents[&Name::try_from(name).unwrap()]
}

fn tools(policy: &Policy, name: &str, tool: &str) -> Mode {
    agent(policy, name).policy.policy.tools.as_ref().map_or(Mode::Allow, |t| t.mode(tool))
}

#[test]
fn valid_samples_mean_what_they_say() {
    for (name, text) in samples("valid") {
        if let Err(errors) = load(&name, &text) {
            panic!("{name}:\n{errors}");
        }
    }
    let sample = |wanted: &str| {
        let (name, text) = samples("valid").into_iter().find(|(name, _)| name == wanted).unwrap();
        load(&name, &text).unwrap()
    };
    let policy = sample("everything");
    let reviewer = agent(&policy, "reviewer");
    assert_eq!(reviewer.description, "Reads a change and says what is wrong with it.");
    assert_eq!(reviewer.prompt, "You review.\n\n- Be brief.");
    assert_eq!(reviewer.initial_prompt.as_deref(), Some("Review what isn't committed."));
    assert_eq!(reviewer.model.as_str(), "sonnet");
    assert_eq!(reviewer.limits.turns, 12);
    assert_eq!(reviewer.policy.policy.max_access, Some(Access::ReadOnly));
    assert_eq!(reviewer.subagents.iter().map(|n| n.as_str()).collect::<Vec<_>>(), ["helper"]);
    assert_eq!(reviewer.place.to_string(), ".claude/agents/sample.md:2");
    for (tool, mode) in [
        ("files__Read", Mode::Allow),
        ("files__Glob", Mode::Deny),
        ("files__Bash", Mode::Deny),
        ("git__git_log", Mode::Allow),
        ("git__git_push", Mode::Deny),
        ("docs__page", Mode::Allow),
        ("docs__delete_page", Mode::Deny),
    ] {
        assert_eq!(tools(&policy, "reviewer", tool), mode, "{tool}");
    }
    let policy = sample("list_of_tools");
    assert_eq!(agent(&policy, "writer").description, "Writes: what it is \"told\".");
    assert_eq!(tools(&policy, "writer", "files__Edit"), Mode::Allow);
    assert_eq!(tools(&policy, "writer", "files__Write"), Mode::Deny);
    assert_eq!(tools(&policy, "writer", "files__Bash"), Mode::Ask, "a scoped Bash is asked about");
    let policy = sample("least");
    assert_eq!(agent(&policy, "helper").description, "Helps, on two lines.");
    assert!(agent(&policy, "helper").subagents.is_empty());
    let policy = sample("denies_only");
    assert_eq!(agent(&policy, "careful").description, "All but commands.\nOf two lines.");
    assert_eq!(tools(&policy, "careful", "files__Bash"), Mode::Deny);
    assert_eq!(tools(&policy, "careful", "git__x"), Mode::Deny);
    assert_eq!(tools(&policy, "careful", "files__Write"), Mode::Allow);
    let policy = sample("flow_over_lines");
    assert_eq!(agent(&policy, "flow").subagents.len(), 2);
    assert_eq!(tools(&policy, "flow", "files__Grep"), Mode::Allow);
}

/// Every field of the frontmatter, with what becomes of it.
#[test]
fn every_field_is_served_told_or_refused() {
    let value = |field: &str| match field {
        "name" | "description" => "x",
        "tools" | "disallowedTools" => "Read",
        "model" => "sonnet",
        "permissionMode" => "plan",
        "maxTurns" => "3",
        "mcpServers" => "git",
        "background" => "true",
        "effort" => "high",
        _ => "something",
    };
    for (field, outcome) in FIELDS {
        let more = if matches!(field, "name" | "description") {
            String::new()
        } else {
            format!("{field}: {}\n", value(field))
        };
        let found = load("one", &format!("---\nname: one\ndescription: d\n{more}---\nP.\n"));
        let noted =
            |policy: &Policy| policy.imported.iter().any(|n| n.what.starts_with(&format!("agent one: {field}")));
        match (outcome, found) {
            (Outcome::Served, Ok(policy)) => assert!(!noted(&policy), "{field}"),
            (Outcome::Told, Ok(policy)) => assert!(noted(&policy), "{field}"),
            (Outcome::Refused, Err(errors)) => assert!(errors.to_string().contains(field), "{field}: {errors}"),
            (_, found) => panic!("{field}: {outcome:?}, but {found:?}"),
        }
    }
    assert_eq!(FIELDS.len(), 16);
}

#[test]
fn modes_never_widen_and_say_so() {
    for mode in ["acceptEdits", "bypassPermissions", "auto"] {
        let policy = load("a", &format!("---\nname: a\ndescription: d\npermissionMode: {mode}\n---\n")).unwrap();
        assert_eq!(agent(&policy, "a").policy.policy.max_access, None);
        let note = policy.imported.iter().find(|n| n.what.contains(mode)).unwrap();
        assert_eq!((note.kind, note.place.line), (Kind::Narrowed, 4));
    }
}

#[test]
fn servers_are_registered_but_wait_for_approval() {
    let json = r#"{ "mcpServers": {
        "git": { "command": "git-mcp", "args": ["-v", 1], "env": { "A": "b" }, "alwaysLoad": true },
        "mine": { "command": "x" },
        "far": { "type": "http", "url": "https://far.example.com/mcp" },
        "old": { "type": "sse", "url": "https://old.example.com/" },
        "pleach": { "command": "pleach" }
    } }"#;
    let source = "version = 1\nimport = [\".mcp.json\"]\n[servers.mine]\ncommand = \"y\"\n";
    let policy = load_with(source, &[(".mcp.json", json)]).unwrap();
    let server = |name: &str| policy.servers.get(&Name::try_from(name).unwrap());
    for name in ["git", "far"] {
        let why = server(name).unwrap().unapproved.as_deref().unwrap();
        assert!(why.contains("not approved") && why.contains("pleach import --write"), "{why}");
    }
    assert!(server("mine").unwrap().unapproved.is_none(), "the file's own table is its approval");
    assert!(server("old").is_none() && server("pleach").is_none());
    assert_eq!(server("git").unwrap().place.to_string(), ".mcp.json:2");
    let told: Vec<String> = policy.imported.iter().map(|n| n.what.clone()).collect();
    for part in ["\"alwaysLoad\" has no counterpart", "own table at pleach.toml:3", "HTTP+SSE", "Pleach itself"] {
        assert!(told.iter().any(|t| t.contains(part)), "{part}: {told:#?}");
    }
}

#[test]
fn what_cannot_be_read_is_an_error_at_its_place() {
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 8] = [
        (
            "a.txt",
            &[],
            "pleach.toml:2:11: import \"a.txt\": takes .mcp.json, an agent's .md or a folder of them, and .claude/settings.json",
        ),
        ("a.json", &[("a.json", "{}")], "a.json:1:1: neither mcpServers nor permissions stands in it"),
        ("a.json", &[("a.json", "{\n  \"a\": 1,\n}")], "a.json:3:1: not JSON: a key in quotes is expected here"),
        (
            "a.json",
            &[("a.json", "{\"a\": 1, \"a\": 2}")],
            "a.json:1:10: the key \"a\" stands here a second time; the first is in line 1",
        ),
        ("a.json", &[("a.json", "// x")], "a.json:1:1: not JSON: a comment; remove it"),
        ("agents", &[("agents/a.txt", "")], "pleach.toml:2:11: import \"agents\": no agent stands in it"),
        (
            ".mcp.json",
            &[(".mcp.json", r#"{"mcpServers":{"a b":{"command":"x"}}}"#)],
            ".mcp.json:1:16: \"a b\" is no name for a server: a name holds letters, digits, `_` and `-`; ' ' is none of them",
        ),
        (
            ".mcp.json",
            &[(".mcp.json", r#"{"mcpServers":{"a":{}}}"#)],
            ".mcp.json:1:16: server a needs one of builtin, command or url",
        ),
    ];
    for (path, files, error) in cases {
        let errors = load_with(&format!("version = 1\nimport = [{path:?}]\n"), files).unwrap_err();
        assert_eq!(errors.to_string(), error);
    }
}

#[test]
fn two_files_with_one_name_are_both_named() {
    let a = "---\nname: a\ndescription: d\n---\nP.\n";
    let errors = load_with(POLICY, &[(".claude/agents/one.md", a), (".claude/agents/two.md", a)]).unwrap_err();
    let message = ".claude/agents/two.md:2:7: agent a is defined at .claude/agents/one.md:2 already; rename or remove one of them";
    assert_eq!(errors.to_string(), message);
}

#[test]
fn imported_files_are_in_no_grant() {
    let policy = load("a", "---\nname: a\ndescription: d\n---\n").unwrap();
    let files = &policy.root.filesystem;
    assert!(files.allows(Path::new("/work/src"), policies::fs::FileOp::Write));
    assert!(!files.allows(Path::new("/work/.claude/agents/a.md"), policies::fs::FileOp::Read));
}
