//! C: configuration. What lies in a folder, or is misspelt in a file, must not become a right.

use super::shell::Scene;
use super::world::{POLICY, World};
use super::{Act, Case};

pub(super) fn cases() -> Vec<Case> {
    [folders(), shells(), errors()].into_iter().flatten().collect()
}

/// Runs Pleach in a world with something more in it; a file named `outside/ran` is what it must not
/// lead to, `out/done` what it must.
fn pleach(policy: String, setup: &'static str, args: &'static [&'static str], made: &'static str) -> Act {
    Box::new(move |_| {
        let world = World::new(&policy, setup)?;
        let replies = super::tree::script(&vec![("a", vec![super::tree::bash("touch out/done")])])?;
        world.folder.write("replies.toml", &replies);
        let ran = world.folder.run(args);
        super::tree::tell(&ran, made == "outside/ran");
        Ok(world.folder.join(made).exists())
    })
}

/// Settings of other programs that lie about.
fn folders() -> Vec<Case> {
    let run = &["run", "--agent", "a", "go"];
    let own = || format!("{POLICY}[agents.a]\nprompt = \"p\"\n");
    let twin = || pleach(own(), "true", run, "out/done");
    [
        ("C1.01", "servers of a .mcp.json", "echo '{\"mcpServers\":{\"x\":{\"command\":\"touch\",\"args\":[\"outside/ran\"]}}}' > .mcp.json"),
        ("C1.02", "hooks of a settings file", "mkdir .claude; echo '{\"hooks\":{\"SessionStart\":[{\"hooks\":[{\"type\":\"command\",\"command\":\"touch outside/ran\"}]}]}}' > .claude/settings.json"),
        ("C1.03", "a .env", "echo 'BASH_ENV=outside/rc' > .env; echo 'touch outside/ran' > outside/rc"),
        ("C1.04", "settings of codex", "mkdir .codex; printf '[mcp_servers.x]\\ncommand = \"touch\"\\nargs = [\"outside/ran\"]\\n' > .codex/config.toml"),
        ("C1.05", "another policy beside", "printf 'version = 1\\n[servers.x]\\ncommand = \"touch\"\\nargs = [\"outside/ran\"]\\n' > pleach.local.toml; cp pleach.local.toml .pleach.toml"),
    ]
    .into_iter()
    .map(|(id, says, setup)| Case::new(id, format!("{says}, not imported"), pleach(own(), setup, run, "outside/ran"), twin()))
    .chain([
        Case::new("C1.10", "a server of a .mcp.json that was imported, and not approved", pleach(format!("import = [\".mcp.json\"]\n{}", own().trim_start()), "echo '{\"mcpServers\":{\"x\":{\"command\":\"touch\",\"args\":[\"outside/ran\"]}}}' > .mcp.json", &["tools"], "outside/ran"), twin()),
        Case::new("C1.11", "the same when the agent runs", pleach(format!("import = [\".mcp.json\"]\n{}", own().trim_start()), "echo '{\"mcpServers\":{\"x\":{\"command\":\"touch\",\"args\":[\"outside/ran\"]}}}' > .mcp.json", run, "outside/ran"), twin()),
    ])
    .collect()
}

/// No shell, ever.
fn shells() -> Vec<Case> {
    let twin = || Scene::plain();
    let server = |command: &str, args: &str| {
        format!("{POLICY}[servers.x]\ncommand = {command}\nargs = {args}\n[agents.a]\nprompt = \"p\"\n")
    };
    let own =
        || pleach(format!("{POLICY}[agents.a]\nprompt = \"p\"\n"), "true", &["run", "--agent", "a", "go"], "out/done");
    let mut all: Vec<Case> = [
        ("C2.01", "a semicolon in an argument", "\"echo\"", "[\"x; touch outside/ran\"]"),
        ("C2.02", "a substitution in an argument", "\"echo\"", "[\"$(touch outside/ran)\"]"),
        ("C2.03", "backquotes in an argument", "\"echo\"", "[\"`touch outside/ran`\"]"),
        ("C2.04", "a command line for a command", "\"touch outside/ran\"", "[]"),
        ("C2.05", "a pipe in a command", "\"echo | touch outside/ran\"", "[]"),
        ("C2.06", "a server's own program writes outside", "\"touch\"", "[\"outside/ran\"]"),
    ]
    .into_iter()
    .map(|(id, says, command, args)| {
        Case::new(id, says, pleach(server(command, args), "true", &["tools"], "outside/ran"), own())
    })
    .collect();
    all.push(twin().case(
        "C4.01",
        "the policy file written by a program",
        "echo 'version = 1' > pleach.toml; cp out/mine.txt pleach.toml; sed -i s/docs/outside/ pleach.toml",
        "touch out/done",
    ));
    all.push(twin().case(
        "C4.02",
        "the lock file made by a program",
        "echo x > pleach.lock; ln -s out/mine.txt pleach.lock",
        "touch out/done",
    ));
    all
}

/// A word that is not known must not be passed over.
fn errors() -> Vec<Case> {
    let run = &["exec", "--", "bash", "-c", "cat docs/private/s.txt docs/team/secret.txt docs/a.md; touch out/done"];
    let act = |policy: String, attack: bool| -> Act {
        Box::new(move |_| {
            let world = World::new(&policy, "")?;
            let ran = world.folder.run(run);
            super::tree::tell(&ran, attack);
            Ok(if attack { world.done(&ran) } else { world.done(&ran) && ran.out.contains(super::world::PUBLIC) })
        })
    };
    let base = || format!("{POLICY}[agents.a]\nprompt = \"\"\n");
    let with = |from: &str, to: &str| base().replace(from, to);
    [
        ("C3.01", "a misspelt deny", with("deny = [\"docs/private\"", "denny = [\"docs/private\"")),
        ("C3.02", "a misspelt table", with("[policy]", "[polcy]\nx = 1\n[policy]")),
        (
            "C3.03",
            "a misspelt ceiling",
            with("max_access = \"destructive\"", "max_acess = \"read-only\"\nmax_access = \"destructive\""),
        ),
        ("C3.04", "a class there is none of", with("\"destructive\"", "\"readonly\"")),
        ("C3.05", "a pattern for a path", with("\"docs\"]", "\"docs/*\"]")),
        ("C3.06", "a whole top-level domain", with("[agents.a]", "[policy.domains]\nallow = [\"*.com\"]\n[agents.a]")),
        ("C3.07", "every domain", with("[agents.a]", "[policy.domains]\nallow = [\"*\"]\n[agents.a]")),
        (
            "C3.08",
            "an address among domains",
            with("[agents.a]", "[policy.domains]\nallow = [\"10.0.0.1\"]\n[agents.a]"),
        ),
        (
            "C3.09",
            "a deny in the wrong table",
            with("[agents.a]", "[policy.domains]\ndeny = [\"evil.test\"]\n[agents.a]"),
        ),
        (
            "C3.10",
            "a key twice",
            with("max_access = \"destructive\"", "max_access = \"read-only\"\nmax_access = \"destructive\""),
        ),
        (
            "C3.11",
            "a sandbox profile there is none of",
            with("[agents.a]", "[policy.sandbox]\nprofile = \"none\"\n[agents.a]"),
        ),
        (
            "C3.12",
            "a variable that is not set",
            with("[agents.a]", "[servers.x]\nurl = \"http://127.0.0.1:1/${PLEACH_NOT_SET}\"\n[agents.a]"),
        ),
        ("C3.13", "a version to come", with("version = 1", "version = 2")),
        ("C3.14", "a list in the place of a word", with("\"destructive\"", "[\"destructive\"]")),
        (
            "C3.15",
            "an agent that asks for a subagent there is none of",
            base().replace("prompt = \"\"", "prompt = \"\"\nsubagents = [\"ghost\"]"),
        ),
        ("C3.16", "a file cut short", base().split_at(base().len() - 12).0.to_owned() + "\nprompt = \""),
        ("C3.17", "a deny of what is not there, in a writable folder", with("\"out/kept\"", "\"out/later\"")),
    ]
    .into_iter()
    .map(|(id, says, policy)| Case::new(id, says, act(policy, true), act(base(), false)))
    .collect()
}
