//! `check` and `schema` as scripts see them.

use conformance::pleach::Folder;

#[test]
fn a_broken_file_is_refused_with_places_and_exit_2_by_every_command() {
    let folder = Folder::new("version = 1\n[policy]\nmax_acces = \"read-only\"\n");
    let expected = "pleach.toml:3:1: unknown key \"max_acces\" in [policy]; did you mean \"max_access\"?";
    let check = folder.run(&["check"]);
    assert_eq!((check.code, check.out.trim()), (2, expected));
    let exec = folder.run(&["exec", "--", "true"]);
    assert_eq!(exec.code, 2);
    assert!(exec.err.contains(expected), "{}", exec.err);
}

#[test]
fn check_speaks_sentences_and_json() {
    let folder = Folder::new(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy]\nfilesystem = { read = [\"docs\"] }\n[agents.reader]\nprompt = \"p\"\n",
    );
    folder.write("docs/a", "");
    let check = folder.run(&["check"]);
    assert_eq!(check.code, 0, "{}", check.out);
    assert!(
        check.out.contains("reader may read docs, write nothing, reach no network. It calls no tools."),
        "{}",
        check.out
    );
    let json: serde_json::Value = serde_json::from_str(&folder.run(&["check", "--json"]).out).unwrap();
    assert_eq!(json["ok"], true);
}

#[test]
fn a_missing_file_says_how_to_get_one() {
    let folder = Folder::new("");
    std::fs::remove_file(folder.join("pleach.toml")).unwrap();
    let ran = folder.run(&["exec", "--", "true"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("pleach init"), "{}", ran.err);
}

#[test]
fn schema_is_json() {
    let folder = Folder::new("version = 1");
    let schema: serde_json::Value = serde_json::from_str(&folder.run(&["schema"]).out).unwrap();
    assert_eq!(schema["required"][0], "version");
}
