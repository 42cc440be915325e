//! The house rules, held by a test: who may depend on whom, who may name what, how large a
//! file may be.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The line of crates: each may use those before it.
const LINE: [&str; 4] = ["policies", "subagents", "adapters", "gateway"];

fn manifest(krate: &str) -> toml::Table {
    std::fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap().parse().unwrap()
}

/// Dependency names of a crate, `name.workspace = true` and `[target]` tables included.
fn dependencies(krate: &str, dev: bool) -> Vec<String> {
    fn collect(table: &toml::Table, dev: bool, out: &mut Vec<String>) {
        for (key, value) in table {
            let Some(inner) = value.as_table() else { continue };
            match key.as_str() {
                "dependencies" | "build-dependencies" => out.extend(inner.keys().cloned()),
                "dev-dependencies" if dev => out.extend(inner.keys().cloned()),
                "target" => inner.values().filter_map(|v| v.as_table()).for_each(|t| collect(t, dev, out)),
                _ => {}
            }
        }
    }
    let mut out = Vec::new();
    collect(&manifest(krate), dev, &mut out);
    out
}

#[test]
fn dependencies_point_down() {
    for (i, krate) in LINE.iter().enumerate() {
        for dependency in dependencies(krate, true) {
            if let Some(at) = LINE.iter().position(|k| *k == dependency) {
                assert!(at < i, "{krate} may not use {dependency}: dependencies point down");
            }
            assert_ne!(dependency, "conformance", "{krate} may not use conformance");
        }
    }
    let outside: Vec<String> =
        dependencies("conformance", true).into_iter().filter(|d| LINE.contains(&d.as_str())).collect();
    assert_eq!(outside, ["policies"], "conformance looks through the doors");
}

#[test]
fn folder_names_are_package_names_and_all_are_members() {
    let workspace: toml::Table = std::fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    for member in members.iter().map(|m| m.as_str().unwrap()) {
        assert_eq!(manifest(member)["package"]["name"].as_str(), Some(member));
    }
    assert_eq!(members.len(), LINE.len() + 1);
}

/// Which crate may name what. Only normal dependencies: tests may use more.
#[test]
fn each_crate_names_only_what_is_its_business() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("tokio", &["subagents", "adapters", "gateway"][..]),
        ("tokio-util", &["subagents", "adapters", "gateway"][..]),
        ("sqlx", &["adapters"][..]),
        ("rmcp", &["adapters"][..]),
        ("landlock", &["adapters"][..]),
        ("seccompiler", &["adapters"][..]),
        ("reqwest", &["adapters"][..]),
        ("axum", &["gateway"][..]),
        ("hyper", &["adapters", "gateway"][..]),
        ("clap", &["gateway"][..]),
        ("jsonschema", &["policies"][..]),
        ("jsonwebtoken", &["adapters"][..]),
    ]);
    for krate in LINE {
        for dependency in dependencies(krate, false) {
            if let Some(who) = allowed.get(dependency.as_str()) {
                assert!(who.contains(&krate), "{krate} may not name {dependency}");
            }
        }
    }
}

#[test]
fn the_lock_file_is_small_and_floats_are_not_broken() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let packages = lock.matches("[[package]]").count();
    assert!(packages <= 450, "{packages} packages are locked; at most 450");
    for krate in LINE.iter().chain(&["conformance"]) {
        let text = std::fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
        assert!(!text.contains("arbitrary_precision") && !text.contains("arbitrary-precision"), "{krate}");
    }
    let text = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(!text.contains("arbitrary"), "arbitrary_precision is workspace-wide and breaks floats elsewhere");
    // What was really compiled in: with the feature on, this would keep the text.
    let value: serde_json::Value = serde_json::from_str("1E2").unwrap();
    assert_eq!(value.to_string(), "100.0", "some dependency turned arbitrary_precision on");
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn files_are_small_and_unsafe_stays_in_its_room() {
    let mut files = Vec::new();
    LINE.iter().chain(&["conformance"]).for_each(|krate| sources(&root().join(krate), &mut files));
    assert!(files.len() > 50);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let shown = file.strip_prefix(root()).unwrap().display().to_string();
        let lines = text.lines().count();
        assert!(lines <= 800, "{shown} has {lines} lines; redesign the room");
        let uses_unsafe = text.lines().any(|l| {
            let code = l.split("//").next().unwrap_or("");
            code.contains(concat!("unsafe", " {")) || code.contains(concat!("unsafe", " fn"))
        });
        assert!(!uses_unsafe || shown.starts_with("adapters/src/sandbox/"), "{shown} uses unsafe");
        assert!(!text.contains(concat!("serde", "(flatten")) && !text.contains(concat!("unt", "agged")), "{shown}");
        if shown.starts_with("policies/src") {
            for word in ["std::fs", "std::env", "std::net::Tcp", "SystemTime", "Instant::now"] {
                assert!(!text.contains(word), "{shown} names {word}; policies are pure");
            }
        }
    }
}

/// Every task belongs to a tracker or is named here with the reason it needs none.
#[test]
fn every_spawned_task_is_accounted_for() {
    let known = [
        ("adapters/src/mcp/stdio.rs", 4, "end with the process they serve, whose end they are told"),
        ("adapters/src/mcp/connection.rs", 1, "tells a server of a cancellation, within some seconds"),
        ("adapters/src/mcp/standing.rs", 1, "ends with the connection it listens for"),
        ("adapters/src/store/writer.rs", 1, "awaited by close"),
        ("adapters/src/store/watch.rs", 1, "awaited by close; ends with the writer otherwise"),
        ("adapters/src/store/closing.rs", 1, "ends when nobody waits, or with the store"),
        ("adapters/src/builtin/bash.rs", 2, "awaited by run"),
        ("gateway/src/oauth/mod.rs", 1, "finishes what an issuer may have done already; whoever needs it waits"),
        ("gateway/src/mcp/stdio.rs", 1, "awaited when input closes"),
        ("gateway/src/mcp/framework/agent.rs", 1, "aborted with its call"),
        ("gateway/src/cli/serve.rs", 1, "waits for a signal as long as the process lives"),
        ("gateway/src/cli/exec.rs", 1, "follows the terminal's size as long as the process lives"),
    ];
    let mut files = Vec::new();
    LINE.iter().for_each(|krate| sources(&root().join(krate).join("src"), &mut files));
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let shown = file.strip_prefix(root()).unwrap().display().to_string();
        let count = text.matches("tokio::spawn(").count() + text.matches("runtime.spawn(").count();
        let expected = known.iter().find(|(name, ..)| *name == shown).map_or(0, |(_, n, _)| *n);
        assert_eq!(
            count, expected,
            "{shown}: tokio::spawn without a tracker; use the tracker, or name the reason here"
        );
    }
}

/// Each example is a folder with its five-line README, its policy and what it prints.
#[test]
fn examples_are_whole() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("examples")).unwrap().flatten() {
        let folder = entry.path();
        count += 1;
        for file in ["pleach.toml", "README.md", "expected.txt"] {
            assert!(folder.join(file).is_file(), "{} lacks {file}", folder.display());
        }
        let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
        assert!(readme.lines().count() <= 5, "{}: the README has five lines at most", folder.display());
        let policy = std::fs::read_to_string(folder.join("pleach.toml")).unwrap();
        if let Err(errors) = policies::file::read("pleach.toml", &policy) {
            panic!("{}:\n{errors}", folder.display());
        }
    }
    assert!(count >= 3);
}
