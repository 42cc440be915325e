//! What `--help` teaches: every command has an example, and each is understood as it stands.

use conformance::pleach::{Folder, binary};
use std::process::Command;

/// The commands `pleach --help` lists.
fn commands(help: &str) -> Vec<&str> {
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = list.lines().filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    names.filter_map(|l| l.split_whitespace().next()).filter(|name| *name != "help").collect()
}

/// `Example: pleach …` or ``Examples: `pleach …`, then `pleach …` ``.
fn examples(help: &str) -> Vec<String> {
    let lines = help.lines().filter(|l| l.starts_with("Example"));
    let of = |line: &str| match line.split_once(": ").unwrap() {
        ("Example", command) => vec![command.to_owned()],
        (_, several) => several.split('`').filter(|part| part.starts_with("pleach")).map(str::to_owned).collect(),
    };
    lines.flat_map(of).collect()
}

#[test]
fn each_command_has_an_example_that_is_understood() {
    let folder = Folder::new("");
    std::fs::remove_file(folder.join("pleach.toml")).unwrap();
    let help = folder.run(&["--help"]).out;
    let names = commands(&help);
    assert!(names.len() >= 22, "{help}");
    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    for name in names {
        let help = folder.run(&[name, "--help"]).out;
        let examples = examples(&help);
        assert!(!examples.is_empty(), "{name} teaches no example:\n{help}");
        for example in examples {
            assert!(example.starts_with("pleach ") && example.contains(name), "{example}");
            // `pleach resume $(pleach fork …)`: here the inner one finds no run to name.
            let example = example.split_once("$(").map_or(example.as_str(), |(_, inner)| inner.trim_end_matches(')'));
            let mut command = Command::new("bash");
            command
                .args(["-c", example])
                .current_dir(folder.path())
                .env("PATH", &path)
                .stdin(std::process::Stdio::null());
            command.env("XDG_STATE_HOME", folder.join(".state")).env("XDG_DATA_HOME", folder.join(".data"));
            let told = String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned();
            // Here is no policy file, which is what nearly all of them say; none is misspelt.
            assert!(!told.contains("Usage:") && !told.contains("error: "), "{example}: {told}");
        }
    }
}
