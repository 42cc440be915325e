//! `.claude/settings.json` on the lattice: what each rule takes away, and what is told of it.

use crate::world::load_with;
use policies::domain::Host;
use policies::fs::FileOp::{Read, Write};
use policies::import::Kind;
use policies::permission::Access;
use policies::resolve::Policy;
use policies::tools::Mode::{Allow, Ask, Deny};
use std::path::Path;

const POLICY: &str = "version = 1
import = [\".claude/settings.json\"]
[servers]
files = { builtin = \"workspace\" }
git = { command = \"git\" }
[policy]
max_access = \"destructive\"
filesystem = { read = [\"/data\"], read_write = [\".\"] }
domains = { allow = [\"api.example.com\", \"**.docs.com\"] }
tools = { allow = [\"*\"] }
";

fn load(permissions: &str) -> Policy {
    let settings = format!("{{ \"permissions\": {permissions} }}");
    let files = [
        (".claude/settings.json", settings.as_str()),
        (".env.local", ""),
        ("app/.env", ""),
        ("keys/a.pem", ""),
        ("keys/b.txt", ""),
    ];
    load_with(POLICY, &files).unwrap_or_else(|e| panic!("{e}"))
}

fn notes(policy: &Policy, kind: Kind) -> Vec<&str> {
    policy.imported.iter().filter(|n| n.kind == kind).map(|n| n.what.as_str()).collect()
}

#[test]
fn a_deny_is_always_a_deny() {
    let policy = load(r#"{ "deny": ["Bash", "mcp__git__git_push", "WebFetch(domain:docs.com)", "Agent"] }"#);
    let tools = &policy.root.tools;
    assert_eq!(tools.mode("files__Bash"), Deny);
    assert_eq!(tools.mode("git__git_push"), Deny);
    assert_eq!(tools.mode("git__git_log"), Allow, "what is not named stays as the file has it");
    assert_eq!(tools.runtime_mode("Agent"), Deny);
    let reaches = |host: &str| policy.root.domains.allows(&Host::parse(host).unwrap(), 443);
    assert!(reaches("api.example.com") && !reaches("docs.com") && !reaches("x.docs.com"));
    assert_eq!(notes(&policy, Kind::Narrowed).len(), 1, "{:#?}", policy.imported);
}

/// Denied tools went on under names that no pattern of the rule covers.
#[test]
fn a_deny_that_patterns_cannot_hold_is_refused_or_carried_over() {
    let server =
        |words: &str| POLICY.replace("git = { command = \"git\" }", &format!("git = {{ command = \"git\", {words} }}"));
    let load = |policy: &str, permissions: &str| {
        let settings = format!("{{ \"permissions\": {permissions} }}");
        load_with(policy, &[(".claude/settings.json", settings.as_str())])
    };
    for prefix in ["none", "auto"] {
        let policy = server(&format!("prefix = \"{prefix}\""));
        for rule in ["mcp__git", "mcp__git__*", "mcp__git__git_*", "mcp__*"] {
            for list in ["deny", "ask"] {
                let errors = load(&policy, &format!("{{ \"{list}\": [\"{rule}\"] }}")).expect_err(rule).to_string();
                assert!(errors.contains("cannot be held here") && errors.contains("prefix = "), "{rule}: {errors}");
            }
        }
        // One tool has one name, or two.
        let one = load(&policy, r#"{ "deny": ["mcp__git__git_push"] }"#).unwrap().root.tools.clone();
        assert_eq!((one.mode("git_push"), one.mode("git_log")), (Deny, Allow));
    }
    // A renamed tool is denied under the name it has here.
    let renamed = server("tools = { git_push = { rename = \"send\" } }");
    let rules = load(&renamed, r#"{ "deny": ["mcp__git__git_*"] }"#).unwrap().root.tools.clone();
    assert_eq!(["git__send", "git__git_log", "git__other"].map(|t| rules.mode(t)), [Deny, Deny, Allow]);
    let whole = load(&renamed, r#"{ "deny": ["mcp__git"] }"#).unwrap().root.tools.clone();
    assert_eq!(["git__send", "git__git_log"].map(|t| whole.mode(t)), [Deny, Deny]);
    // What has a matching name only here was not meant.
    let errors = load(&renamed, r#"{ "deny": ["mcp__git__s*"] }"#).expect_err("it means another").to_string();
    assert!(errors.contains("git_push of git is called send here"), "{errors}");
    for pattern in ["mcp__g*__git_push", "Ba*"] {
        let errors = load(POLICY, &format!("{{ \"deny\": [\"{pattern}\"] }}")).expect_err(pattern).to_string();
        assert!(errors.contains("cannot be held here"), "{errors}");
    }
    assert!(load(POLICY, r#"{ "deny": ["mcp__git__git_*", "mcp__*"] }"#).is_ok());
}

#[test]
fn a_scope_that_cannot_be_held_is_made_narrower() {
    let policy = load(r#"{ "deny": ["Bash(curl *)"] }"#);
    assert_eq!(policy.root.tools.mode("files__Bash"), Deny);
    let told = notes(&policy, Kind::Narrowed);
    assert!(
        told[0].starts_with("deny Bash(curl *): a scope of Bash cannot be held by name, so all of it is denied"),
        "{told:?}"
    );
    let policy = load(r#"{ "ask": ["Bash(git push *)"] }"#);
    assert_eq!(policy.root.tools.mode("files__Bash"), Ask);
    let policy = load(r#"{ "allow": ["Bash(npm run *)"] }"#);
    assert_eq!(policy.root.tools.mode("files__Bash"), Ask);
}

#[test]
fn what_an_allow_list_does_not_name_is_asked_about() {
    let policy = load(r#"{ "allow": ["Bash", "mcp__git__git_log"] }"#);
    let mode = |tool: &str| policy.root.tools.mode(tool);
    assert_eq!([mode("files__Bash"), mode("git__git_log"), mode("files__Read")], [Allow; 3]);
    assert_eq!([mode("files__Write"), mode("git__git_push"), mode("new__tool")], [Ask; 3]);
    let policy = load(r#"{ "allow": ["Bash"], "defaultMode": "dontAsk" }"#);
    assert_eq!(policy.root.tools.mode("files__Write"), Deny);
    let policy = load(r#"{ "allow": ["Bash"], "defaultMode": "acceptEdits" }"#);
    assert_eq!(policy.root.tools.mode("files__Write"), Allow);
    let policy = load(r#"{ "defaultMode": "plan" }"#);
    assert_eq!(policy.root.max_access, Access::ReadOnly);
}

#[test]
fn paths_have_four_anchors() {
    let policy = load(r#"{ "deny": ["Read(//data/private/**)", "Read(~/x)", "Read(/sub)", "Read(./own/)"] }"#);
    let files = &policy.root.filesystem;
    for (path, readable) in [
        ("/data/private/a", false),
        ("/data/public", true),
        ("/work/sub/a", false),
        ("/work/own/a", false),
        ("/work/owner", true),
    ] {
        assert_eq!(files.allows(Path::new(path), Read), readable, "{path}");
    }
}

#[test]
fn patterns_hold_what_is_there_and_say_so() {
    let policy = load(r#"{ "deny": ["Read(./.env.*)", "Read(.env)", "Read(keys/*.pem)"] }"#);
    let files = &policy.root.filesystem;
    for (path, readable) in [
        ("/work/.env.local", false),
        ("/work/.env", false),
        ("/work/app/.env", false),
        ("/work/keys/a.pem", false),
        ("/work/keys/b.txt", true),
    ] {
        assert_eq!(files.allows(Path::new(path), Read), readable, "{path}");
    }
    assert_eq!(notes(&policy, Kind::Left).len(), 3);
}

#[test]
fn edits_by_folder_close_the_rest_to_writing() {
    let policy = load(r#"{ "allow": ["Edit(/src/**)"] }"#);
    let files = &policy.root.filesystem;
    assert!(files.allows(Path::new("/work/src/a"), Write) && !files.allows(Path::new("/work/b"), Write));
    assert!(files.allows(Path::new("/work/b"), Read) && files.allows(Path::new("/data/b"), Read));
    let policy = load(r#"{ "deny": ["Edit(/src/**)", "Edit(//data/**)"] }"#);
    assert!(!policy.root.filesystem.allows(Path::new("/work/src/a"), Write));
    assert!(policy.root.filesystem.allows(Path::new("/data/a"), Read), "nothing is writable there");
    let policy = load(r#"{ "allow": ["Read(//etc/**)"], "additionalDirectories": ["/data", "/etc"] }"#);
    assert!(!policy.root.filesystem.allows(Path::new("/etc/passwd"), Read), "no rule adds a folder");
    assert!(policy.root.filesystem.allows(Path::new("/data/a"), Read));
}

#[test]
fn domains_of_rules_only_narrow() {
    let policy = load(r#"{ "allow": ["WebFetch(domain:api.example.com)", "WebFetch(domain:evil.com)"] }"#);
    assert_eq!(policy.root.domains.patterns(), ["api.example.com"]);
    let policy = load(r#"{ "allow": ["WebFetch(domain:*)"] }"#);
    assert_eq!(policy.root.domains.patterns().len(), 2);
}

#[test]
fn nothing_is_skipped_in_silence() {
    let settings = r#"{ "model": "opus", "hooks": {}, "permissions": {
        "deny": ["WebSearch", "mcp__gone__x", "Skill(x)"], "somethingNew": 1, "disableBypassPermissionsMode": "disable"
    } }"#;
    let policy = load_with(POLICY, &[(".claude/settings.json", settings)]).unwrap();
    let told: Vec<String> =
        policy.imported.iter().map(|n| format!("{}:{} {}", n.place.line, n.place.column, n.what)).collect();
    for part in [
        "1:3 model: a setting of the client",
        "1:20 hooks are not run here",
        "2:18 deny WebSearch: there is no such tool here",
        "2:31 deny mcp__gone__x: no server is named \"gone\"",
        "2:47 deny Skill(x): there is no such tool here",
        "2:60 permissions.somethingNew has no counterpart",
        "disableBypassPermissionsMode: neither mode exists here",
    ] {
        assert!(told.iter().any(|t| t.contains(part)), "{part}\n{told:#?}");
    }
}

#[test]
fn wrong_settings_are_errors_at_their_place() {
    for (permissions, error) in [
        ("7", "1:18: permissions is an object"),
        ("{ \"deny\": \"Bash\" }", "1:28: a list of rules, such as [\"Bash\", \"Read(./docs/**)\"]"),
        ("{ \"deny\": [\"Bash(x\"] }", "1:29: \"Bash(x\" has no `)` at its end; a rule is Tool or Tool(scope)"),
        (
            "{ \"defaultMode\": \"yolo\" }",
            "1:35: defaultMode is one of plan, dontAsk, default, manual, auto, acceptEdits, bypassPermissions",
        ),
        (
            "{ \"deny\": [\"Read(../x)\"] }",
            "1:29: deny Read(../x): `..` leads out of its folder; name the folder itself; name a folder here, or in [policy.filesystem] deny",
        ),
    ] {
        let settings = format!("{{ \"permissions\": {permissions} }}");
        let errors = load_with(POLICY, &[(".claude/settings.json", &settings)]).unwrap_err();
        assert_eq!(errors.to_string(), format!(".claude/settings.json:{error}"));
    }
}
