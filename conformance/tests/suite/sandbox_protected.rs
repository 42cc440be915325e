//! Names that other programs obey, inside a writable folder: judged by what is on disk, while a
//! program tries and after it is gone.

use crate::sandbox_processes::wait_until;
use conformance::pleach::{Folder, Ran};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};

const POLICY: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "../replies.toml"
[policy]
max_access = "destructive"
filesystem = { read_write = ["../work"] }
[agents.a]
prompt = ""
"#;

/// A folder with a repository in `work`, and the policy file elsewhere.
fn folder(policy: &str) -> Folder {
    let folder = Folder::new("");
    folder.write("conf/pleach.toml", policy);
    folder.write("work/.git/HEAD", "ref: refs/heads/main\n");
    folder.write("work/.git/config", "[core]\n");
    folder.write("work/.git/hooks/pre-commit.sample", "#!/bin/sh\n");
    folder.write("work/.mcp.json", "{}");
    folder.write("work/sub/.git/config", "[core]\n");
    folder.write("work/sub/.claude/settings.json", "{}");
    folder
}

fn sh(folder: &Folder, script: &str) -> Ran {
    folder.run(&["exec", "--config", "conf/pleach.toml", "--", "sh", "-c", &format!("cd work; {script}")])
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        folder.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn protected_names_cannot_be_written_replaced_or_made() {
    let folder = folder(POLICY);
    let before = (names(&folder.join("work")), names(&folder.join("work/.git")));
    for attack in [
        "echo evil > .git/hooks/pre-commit",
        "echo evil >> .git/config",
        "mv .git old",
        "mv .git/hooks .git/h",
        "rm -rf .git/hooks",
        "ln -sf /tmp/x .git/hooks",
        "mv .git/config .git/c",
        "cp .git/HEAD .git/config",
        "echo '{\"mcpServers\":{}}' > .mcp.json",
        "rm .mcp.json",
        "mv HOME .mcp.json; echo x > n && mv n .mcp.json",
        "chmod 777 .mcp.json",
        // What is not there is not made either.
        "mkdir -p .claude && echo x > .claude/settings.json",
        "rmdir .claude && mkdir .claude && echo x > .claude/settings.json",
        "mv .claude c && mkdir .claude && echo x > .claude/s",
        "echo x > .vscode/tasks.json",
        "ln -s .. .cursor/x",
        "mkdir .git/modules/m",
        "echo x > .git/config.worktree",
        "echo evil > sub/.claude/settings.json",
        "echo evil >> sub/.git/config",
        "mv sub/.git sub/old",
        "mv sub away",
    ] {
        let ran = sh(&folder, attack);
        assert_ne!(ran.code, 0, "{attack}: {ran:?}");
        assert_eq!(folder.read("work/.git/config").as_deref(), Some("[core]\n"), "{attack}");
        assert_eq!(folder.read("work/.mcp.json").as_deref(), Some("{}"), "{attack}");
        assert_eq!(folder.read("work/sub/.git/config").as_deref(), Some("[core]\n"), "{attack}");
        assert_eq!(folder.read("work/sub/.claude/settings.json").as_deref(), Some("{}"), "{attack}");
        assert!(!folder.join("work/.git/hooks/pre-commit").exists() && !folder.join("work/old").exists(), "{attack}");
        let _ = std::fs::remove_file(folder.join("work/n"));
        let now = (names(&folder.join("work")), names(&folder.join("work/.git")));
        assert_eq!(now, before, "{attack}: nothing is left behind");
    }
    // Their twins: reading them, and everything beside them.
    for twin in [
        "cat .git/config .mcp.json sub/.claude/settings.json",
        "echo x > .git/index && mv .git/index .git/index2 && rm .git/index2",
        "mkdir -p .git/objects/ab && echo x > .git/objects/ab/c && rm -r .git/objects",
        "echo x > claude && mkdir d && mv claude d/ && rm -r d",
        "mkdir sub/d && echo x > sub/d/f && mv sub/d sub/e && rm -r sub/e",
        "echo x > .gitignore && rm .gitignore",
        "mkdir other && mv other other2 && rmdir other2",
    ] {
        let ran = sh(&folder, twin);
        assert_eq!(ran.code, 0, "{twin}: {ran:?}");
    }
    assert_eq!((names(&folder.join("work")), names(&folder.join("work/.git"))), before);
}

/// A repository that is not there cannot be made, unless it is granted by its name; its hooks
/// stay protected even then.
#[test]
fn a_name_granted_by_itself_may_be_written() {
    let folder =
        folder(&POLICY.replace("[\"../work\"]", "[\"../work\", \"../work/.claude\", \"../free/.git\", \"../free\"]"));
    std::fs::create_dir_all(folder.join("free")).unwrap();
    assert_eq!(sh(&folder, "mkdir .claude/agents && echo x > .claude/agents/a.md").code, 0);
    assert_eq!(folder.read("work/.claude/agents/a.md").as_deref(), Some("x\n"));
    assert_ne!(sh(&folder, "echo x > .vscode/a").code, 0, "it was granted one name");
    let ran = sh(
        &folder,
        "cd ../free; echo 'ref: refs/heads/main' > .git/HEAD && mkdir .git/objects .git/refs; cat .git/HEAD",
    );
    assert_eq!(ran.out, "ref: refs/heads/main\n", "{ran:?}");
    assert_ne!(sh(&folder, "echo x > ../free/.git/hooks/pre-commit").code, 0);
    let other = self::folder(POLICY);
    std::fs::remove_dir_all(other.join("work/.git")).unwrap();
    for attack in ["mkdir .git/objects", "rmdir .git", "mv .git g", "echo gitdir: /tmp/x > .git"] {
        assert_ne!(sh(&other, attack).code, 0, "{attack}");
    }
    assert!(!other.join("work/.git").exists());
}

/// Placeholders last as long as somebody needs them and no longer, whoever is killed.
#[test]
fn placeholders_are_shared_and_go_with_the_last() {
    let folder = folder(POLICY);
    let before = names(&folder.join("work"));
    let start = |name: &str| {
        let script = format!("cd work; touch {name}; read x; echo evil > .claude/s; touch {name}-tried; read x");
        let mut command = folder.command(&["exec", "--config", "conf/pleach.toml", "--", "sh", "-c", &script]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let (mut first, mut second) = (start("first"), start("second"));
    wait_until("both run", || folder.join("work/first").exists() && folder.join("work/second").exists());
    assert!(folder.join("work/.claude").is_dir(), "it is held");
    // Held until the end: a closed stdin would let the scripts go on by themselves.
    let (_first_stdin, mut second_stdin) = (first.stdin.take().unwrap(), second.stdin.take().unwrap());
    // The first is killed outright: the second is still held.
    first.kill().unwrap();
    first.wait().unwrap();
    std::io::Write::write_all(&mut second_stdin, b"go\n").unwrap();
    wait_until("the second tried", || folder.join("work/second-tried").exists());
    assert!(names(&folder.join("work/.claude")).is_empty());
    second.kill().unwrap();
    second.wait().unwrap();
    for name in ["first", "second", "second-tried"] {
        std::fs::remove_file(folder.join("work").join(name)).unwrap();
    }
    wait_until("nothing is left", || names(&folder.join("work")) == before);
    // What a whole dead machine left is taken over and removed, and an empty folder of the
    // user's own is not.
    std::fs::create_dir(folder.join("work/.idea")).unwrap();
    let made = Command::new("sh").args(["-c", "mkdir -m 1555 work/.vscode"]).current_dir(folder.path()).status();
    assert!(made.unwrap().success());
    assert_ne!(sh(&folder, "echo x > .vscode/x").code, 0);
    assert!(!folder.join("work/.vscode").exists() && folder.join("work/.idea").is_dir());
}

/// The guard says the same before anything is started, with the rule and the cure.
#[test]
fn the_guard_says_which_name_is_protected() {
    let policy =
        POLICY.replace("[policy]", "[servers.files]\nbuiltin = \"workspace\"\n[policy]\ntools = { allow = [\"*\"] }");
    let folder = folder(&policy);
    let explain = |path: &str| {
        let args = format!("{{\"file_path\":\"../work/{path}\",\"content\":\"x\"}}");
        let ran = folder.run(&["explain", "--config", "conf/pleach.toml", "--tool", "files__Write", "--args", &args]);
        ran.out + &ran.err
    };
    let told = explain(".git/hooks/pre-commit");
    assert!(told.contains(".git/hooks is protected inside a writable folder"), "{told}");
    assert!(told.contains("name it itself in filesystem.read_write"), "{told}");
    let told = explain("sub/deep/.MCP.json");
    assert!(told.contains(".mcp.json is protected"), "{told}");
    for twin in [".git/HEAD", "src/claude.rs", ".gitignore"] {
        let told = explain(twin);
        assert!(!told.contains("protected"), "{twin}: {told}");
    }
}

/// A child cannot be given what its parent's grant does not reach, though it names it.
#[test]
fn a_child_is_not_given_a_protected_name_its_parent_lacks() {
    let policy = POLICY.replace(
        "[agents.a]\nprompt = \"\"\n",
        "tools = { allow = [\"*\"] }\n[servers.files]\nbuiltin = \"workspace\"\n[agents.a]\nprompt = \"\"\nsubagents = [\"b\"]\nexpose = true\n[agents.b]\ndescription = \"b\"\nprompt = \"\"\n",
    );
    let folder = folder(&policy);
    let spawn = |path: &str| {
        format!(
            "[[reply]]\nagent = \"a\"\ntext = \"s\"\n[[reply.tool]]\nname = \"Agent\"\ninput = {{ description = \"b\", prompt = \"go\", subagent_type = \"b\", policy = {{ filesystem = {{ read_write = [\"{path}\"] }} }} }}\n[[reply]]\nagent = \"a\"\ntext = \"{{{{results}}}}\"\n[[reply]]\nagent = \"b\"\ntext = \"w\"\n[[reply.tool]]\nname = \"files__Write\"\ninput = {{ file_path = \"{path}/x\", content = \"x\" }}\n[[reply]]\nagent = \"b\"\ntext = \"{{{{results}}}}\"\n"
        )
    };
    folder.write("replies.toml", &spawn("../work/.git/hooks"));
    let ran = folder.run(&["run", "--config", "conf/pleach.toml", "--agent", "a", "--json", "go"]);
    assert!(!folder.join("work/.git/hooks/x").exists(), "{ran:?}");
    let events: Vec<Value> = ran.out.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let denied = events.iter().find(|e| e["type"] == "tool.decided" && e["verdict"] == "deny").unwrap();
    assert!(denied["rule"].as_str().unwrap().contains("filesystem"), "{denied}");
    folder.write("replies.toml", &spawn("../work/sub"));
    let ran = folder.run(&["run", "--config", "conf/pleach.toml", "--agent", "a", "--json", "go"]);
    assert_eq!(folder.read("work/sub/x").as_deref(), Some("x"), "{ran:?}");
}
