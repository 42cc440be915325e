//! From a client's configuration to a guarded call: `init`, `allow`, `connect`.

use conformance::pleach::Folder;
use serde_json::Value;

fn empty() -> Folder {
    let folder = Folder::new("");
    std::fs::remove_file(folder.join("pleach.toml")).unwrap();
    folder
}

#[test]
fn every_clients_configuration_is_understood() {
    let cases = [
        (
            ".mcp.json",
            r#"{ "mcpServers": { "git": { "command": "uvx", "args": ["mcp-server-git"] }, "web": { "type": "http", "url": "https://mcp.example.com/mcp", "headers": { "Authorization": "Bearer ${WEB_TOKEN:-none}" } } } }"#,
        ),
        (
            ".cursor/mcp.json",
            r#"{ "mcpServers": { "git": { "command": "uvx", "args": ["mcp-server-git"], "env": { "A": "${env:HOME}" } }, "web": { "url": "https://mcp.example.com/mcp" } } }"#,
        ),
        (
            ".vscode/mcp.json",
            "{ // a comment\n \"servers\": { \"git\": { \"type\": \"stdio\", \"command\": \"uvx\", \"args\": [\"mcp-server-git\",], \"sandbox\": { \"filesystem\": { \"allowWrite\": [\"${workspaceFolder}/out\"] }, \"network\": { \"allowedDomains\": [\"*.example.com\"] } } }, \"web\": { \"type\": \"http\", \"url\": \"https://mcp.example.com/mcp\" } }, }",
        ),
        (
            "claude_desktop_config.json",
            r#"{ "mcpServers": { "git": { "command": "uvx", "args": ["mcp-server-git"] }, "web": { "url": "https://mcp.example.com/mcp" }, "off": { "command": "x", "disabled": true } } }"#,
        ),
    ];
    for (file, text) in cases {
        let folder = empty();
        folder.write(file, text);
        let init = folder.run(&["init"]);
        assert_eq!(init.code, 0, "{file}: {init:?}");
        assert!(init.out.contains("pleach.toml: 2 servers"), "{file}: {}", init.out);
        let check = folder.run(&["check"]);
        assert_eq!(check.code, 0, "{file}: {}\n{}", check.out, folder.read("pleach.toml").unwrap());
        assert!(check.out.contains("It calls read-only tools: git__*, web__*"), "{file}: {}", check.out);
        if file.starts_with(".vscode") {
            assert!(check.out.contains("reach *.example.com"), "{}", check.out);
        }
        let again = folder.run(&["init"]);
        assert_eq!(again.code, 2, "it replaces nothing unasked");
    }
}

#[test]
fn bad_configurations_are_said_so() {
    for (text, expected) in
        [("{", "EOF"), ("{}", "neither mcpServers nor servers"), ("[]", "neither mcpServers nor servers")]
    {
        let folder = empty();
        folder.write(".mcp.json", text);
        let ran = folder.run(&["init", "--from", ".mcp.json"]);
        assert_eq!(ran.code, 2);
        assert!(ran.err.contains(expected), "{text}: {}", ran.err);
        assert!(!folder.join("pleach.toml").exists());
    }
}

const POLICY: &str = "# my policy\nversion = 1\n\n[servers.files] # the workspace\nbuiltin = \"workspace\"\n\n[policy]\nfilesystem = { read_write = [\"out\"] }\ntools = { allow = [\"files__*\"] }\n";

#[test]
fn allow_writes_the_operators_word_and_keeps_the_file() {
    let folder = Folder::new(POLICY);
    let ran = folder.run(&["allow", "files__Write", "--as", "read-only"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = folder.read("pleach.toml").unwrap();
    assert!(text.starts_with("# my policy\nversion = 1\n\n[servers.files] # the workspace\n"), "{text}");
    assert!(text.contains("[servers.files.tools.Write]\naccess = \"read-only\""), "{text}");
    let tools = folder.run(&["tools", "--json"]);
    let write: Value = tools
        .out
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap())
        .find(|t| t["tool"] == "files__Write")
        .unwrap();
    assert_eq!((&write["access"], &write["verdict"]), (&"read-only".into(), &"allowed".into()));
    let wrong = folder.run(&["allow", "files__Wrte", "--as", "read-only"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("did you mean files__Write?"), "{}", wrong.err);
}

#[test]
fn connect_puts_pleach_before_the_servers_it_serves() {
    let folder = Folder::new(POLICY);
    folder.write(".mcp.json", r#"{ "mcpServers": { "files": { "command": "x" }, "other": { "command": "y" } } }"#);
    let printed: Value = serde_json::from_str(&folder.run(&["connect", "claude-code"]).out).unwrap();
    assert_eq!(printed["mcpServers"]["pleach"]["args"][0], "serve");
    assert_eq!(folder.run(&["connect", "claude-code", "--write"]).code, 0);
    let written: Value = serde_json::from_str(&folder.read(".mcp.json").unwrap()).unwrap();
    let names: Vec<&String> = written["mcpServers"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["other", "pleach"]);
    assert!(folder.read(".mcp.json.before-pleach").unwrap().contains("files"));
    assert_eq!(folder.run(&["connect", "vscode", "--write"]).code, 0);
    let vscode: Value = serde_json::from_str(&folder.read(".vscode/mcp.json").unwrap()).unwrap();
    assert_eq!(vscode["servers"]["pleach"]["type"], "stdio");
}

#[test]
fn explain_names_the_rule_and_the_ancestor() {
    let folder = Folder::new(POLICY);
    let denied = folder.run(&["explain", "--tool", "files__Read", "--args", "{\"file_path\":\"/etc/passwd\"}"]);
    assert_eq!(denied.code, 1);
    assert!(
        denied.out.contains("filesystem.read does not cover /etc/passwd at root policy")
            && denied.out.contains("Fix: "),
        "{}",
        denied.out
    );
    let allowed = folder.run(&["explain", "--tool", "files__Read", "--args", "{\"file_path\":\"out/a\"}"]);
    assert_eq!(allowed.code, 0, "{}", allowed.out);
    let unclear =
        folder.run(&["explain", "--tool", "files__Read", "--args", "{\"file_path\":\"out/nothing/../../x\"}"]);
    assert!(unclear.out.contains("unclear"), "{}", unclear.out);
}
