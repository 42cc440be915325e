//! The law of importing: whatever stands in the files, nobody gets more than the root grant.

use crate::world::load_with;
use policies::authority::RunAuthority;
use proptest::prelude::*;

const POLICY: &str = "version = 1
import = [\".claude/agents\", \".claude/settings.json\"]
[models]
default = { provider = \"scripted\", script = \"r.toml\" }
[servers]
files = { builtin = \"workspace\" }
git = { command = \"git\" }
[policy]
max_access = \"read-write\"
filesystem = { read = [\"docs\"], read_write = [\"src\"], deny = [\"src/secret\"] }
domains = { allow = [\"api.example.com\", \"*.docs.example.com\"] }
tools = { allow = [\"files__*\", \"git__git_log\"], ask = [\"files__Write\"], deny = [\"files__Bash\"] }
spawn = { max_depth = 2 }
[agents.boss]
prompt = \"p\"
subagents = [\"one\", \"two\"]
";

fn tool() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "Read",
        "Write",
        "Edit",
        "Bash",
        "Bash(rm *)",
        "Glob",
        "mcp__git",
        "mcp__git__git_push",
        "mcp__git__*",
        "*",
        "Agent",
        "Agent(two)",
        "Agent(boss, one)",
        "WebFetch",
        "Task",
    ])
}

fn tools(field: &'static str) -> impl Strategy<Value = String> {
    prop::option::of(prop::collection::vec(tool(), 1..5)).prop_map(move |list| match list {
        // YAML reads a star in front as an alias, so each stands in quotes.
        Some(list) => format!("{field}: [{}]\n", list.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(", ")),
        None => String::new(),
    })
}

fn agent(name: &'static str) -> impl Strategy<Value = String> {
    let mode = prop::sample::select(vec!["default", "acceptEdits", "plan", "dontAsk", "bypassPermissions", "auto"]);
    (tools("tools"), tools("disallowedTools"), prop::option::of(mode), prop::option::of(1u32..2_000)).prop_map(
        move |(tools, denied, mode, turns)| {
            let mode = mode.map(|m| format!("permissionMode: {m}\n")).unwrap_or_default();
            let turns = turns.map(|t| format!("maxTurns: {t}\n")).unwrap_or_default();
            format!("---\nname: {name}\ndescription: d\n{tools}{denied}{mode}{turns}---\nP.\n")
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<&'static str>> {
    let rules = vec![
        "Bash",
        "Bash(git *)",
        "Read",
        "Read(./docs/**)",
        "Read(//etc/**)",
        "Edit(/src/**)",
        "Edit(/)",
        "Edit",
        "*",
        "mcp__git",
        "mcp__git__git_push",
        "WebFetch(domain:api.example.com)",
        "WebFetch(domain:evil.example.com)",
        "WebFetch(domain:*)",
        "Agent(two)",
        "Agent",
        "Read(.env)",
        "WebFetch",
        "Read(~/x)",
    ];
    prop::collection::vec(prop::sample::select(rules), 0..5)
}

fn settings() -> impl Strategy<Value = String> {
    let mode = prop::sample::select(vec!["default", "acceptEdits", "plan", "dontAsk", "bypassPermissions", "auto"]);
    (rules(), rules(), rules(), any::<bool>(), prop::option::of(mode)).prop_map(|(allow, ask, deny, open, mode)| {
        let mut permissions = serde_json::json!({ "ask": ask, "deny": deny, "additionalDirectories": ["/", "~/y"] });
        if !open {
            permissions["allow"] = serde_json::json!(allow);
        }
        if let Some(mode) = mode {
            permissions["defaultMode"] = mode.into();
        }
        serde_json::json!({ "permissions": permissions }).to_string()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn nothing_imported_exceeds_the_root_grant(one in agent("one"), two in agent("two"), settings in settings()) {
        let without = load_with(&POLICY.replace(", \".claude/settings.json\"", ""), &[
            (".claude/agents/one.md", &one), (".claude/agents/two.md", &two),
        ]);
        // Frontmatter that names nothing there is here is an error, and grants nothing at all.
        let Ok(without) = without else { return Ok(()) };
        let policy = load_with(POLICY, &[
            (".claude/agents/one.md", &one), (".claude/agents/two.md", &two), (".claude/settings.json", &settings),
        ]);
        let policy = policy.unwrap_or_else(|e| panic!("{e}"));
        // Settings only take away from what the file itself grants.
        prop_assert!(policy.root.within(&without.root), "{settings}\n{:?}", policy.root.exceeds(&without.root));
        let door = policy.door(None);
        for agent in policy.agents.values() {
            let own = RunAuthority::spawn(&door, &agent.policy, None).unwrap();
            prop_assert!(own.use_.grant().within(&policy.root));
            prop_assert!(own.delegate.grant().within(&policy.root));
            for child in agent.subagents.iter().filter_map(|n| policy.agents.get(n)) {
                let below = RunAuthority::spawn(&own.delegate, &child.policy, None).unwrap();
                prop_assert!(below.use_.grant().within(own.delegate.grant()));
            }
        }
    }
}
