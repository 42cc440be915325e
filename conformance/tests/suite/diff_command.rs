//! `pleach diff`: exit codes, sentences with their places, JSON.

use conformance::pleach::{Folder, Ran};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

const NEW: &str = "version = 1\n[policy]\nmax_access = \"read-only\"\nfilesystem = { read = [\"docs\"] }\n";

fn folder() -> Folder {
    let folder = Folder::new(NEW);
    folder.write("docs/a.md", "a");
    folder
}

#[test]
fn wider_is_three_and_narrower_is_none() {
    let folder = folder();
    // The copy may lie anywhere: it is read as if it stood where the new one stands.
    let narrow = folder.write("elsewhere/old.toml", &NEW.replace("read = [\"docs\"]", "read = []"));
    let old = narrow.display().to_string();
    let wider = folder.run(&["diff", &old]);
    assert_eq!(wider.code, 3, "{wider:?}");
    assert!(wider.out.contains("wider: root policy may now read docs (pleach.toml:4)"), "{wider:?}");
    assert!(wider.out.ends_with("1 wider, 0 narrower.\n"), "{wider:?}");
    let narrower = folder.run(&["diff", "pleach.toml", &old]);
    assert_eq!(narrower.code, 0, "{narrower:?}");
    assert!(narrower.out.contains("narrower: root policy may no longer read"), "{narrower:?}");
    let same = folder.run(&["diff", "pleach.toml"]);
    assert_eq!((same.code, same.out.as_str()), (0, "Nothing differs.\n"), "{same:?}");
}

#[test]
fn it_reads_from_a_pipe_and_answers_in_json() {
    let folder = folder();
    let mut child =
        folder.command(&["diff", "-", "--json"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let old = NEW.replace("read-only", "read-write");
    child.stdin.take().unwrap().write_all(old.as_bytes()).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&json["ok"], &json["wider"]), (&true.into(), &false.into()));
    let change = &json["changes"][0];
    assert_eq!(
        (&change["who"], &change["what"], &change["way"]),
        (&"root policy".into(), &"max_access".into(), &"narrower".into())
    );
    assert_eq!((&change["before"]["line"], &change["after"]["line"]), (&3.into(), &3.into()), "{change}");
}

#[test]
fn a_broken_file_is_two() {
    let folder = folder();
    folder.write("old.toml", "version = 1\nbogus = 2\n");
    let ran = folder.run(&["diff", "old.toml"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.out.contains("old.toml:2"), "{ran:?}");
    let json = folder.run(&["diff", "old.toml", "--json"]);
    assert_eq!(json.code, 2);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(folder.run(&["diff", "missing.toml"]).code, 2);
}
