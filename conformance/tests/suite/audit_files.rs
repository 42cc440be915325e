//! The files of the record: how they follow each other, which are kept, and what harm to them is
//! found.

use crate::audit::{POLICY, call, denied, records, verify};
use conformance::pleach::Folder;
use conformance::served::Served;
use serde_json::{Value, json};

/// Arguments whose record is long; what they ask for is denied.
fn long() -> Value {
    let keys = |inner: Value| {
        let entries = (0..60).map(|n| (format!("{n:0>60}"), inner.clone()));
        Value::Object(entries.collect())
    };
    json!({ "file_path": format!("/{}", "x".repeat(3_000)), "more": keys(keys(json!(1))) })
}

fn files(folder: &Folder) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("pleach.audit.d")).unwrap().flatten();
    let mut names: Vec<_> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.retain(|name| name.ends_with(".ndjson"));
    names.sort();
    names
}

/// Calls until the record has so many files behind it.
async fn until_file(served: &Served, folder: &Folder, number: u32) {
    let name = format!("{number:06}.ndjson");
    for _ in 0..600 {
        if files(folder).contains(&name) {
            return;
        }
        assert!(denied(&call(served, "files__Read", long()).await));
    }
    panic!("{name} is not begun: {:?}", files(folder));
}

fn folder(keep: &str) -> Folder {
    let folder = Folder::new(&format!("{POLICY}[audit]\nsegment_mb = 1\n{keep}"));
    folder.write("docs/a.md", "hello");
    folder
}

#[tokio::test]
async fn old_files_are_retired_and_that_is_on_record() {
    let folder = folder("keep = 2\n");
    let served = Served::start(&folder);
    assert!(!denied(&call(&served, "files__Read", json!({ "file_path": "docs/a.md" })).await));
    let head = || folder.run(&["audit", "head"]).out.trim().to_owned();
    let early = head();
    until_file(&served, &folder, 4).await;
    let late = head();
    assert!(!denied(&call(&served, "files__Write", json!({ "file_path": "out/x", "content": "x" })).await));
    served.end();
    assert_eq!(files(&folder), ["000003.ndjson", "000004.ndjson"]);
    let whole = verify(&folder, &[]);
    assert!(whole.code == 0 && whole.out.contains("in 2 files"), "{whole:?}");
    let retired: Vec<Value> = records(&folder, &[]).into_iter().filter(|r| r["what"] == "retired").collect();
    // That of the first is in the file that was retired since.
    assert_eq!(retired.iter().map(|r| r["segment"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2], "{retired:#?}");
    // A head that was noted long ago is told from a chain that was cut.
    let old = verify(&folder, &["--head", &early]);
    assert!(old.code == 0 && old.out.contains("in a file that is kept no more"), "{old:?}");
    let new = verify(&folder, &["--head", &late]);
    assert!(new.code == 0 && new.out.contains("the head that was noted is record"), "{new:?}");
    let forged = format!("{} {}", late.split(' ').next().unwrap(), "0".repeat(64));
    let anew = verify(&folder, &["--head", &forged]);
    assert!(anew.code == 1 && anew.out.contains("written anew"), "{anew:?}");
    let usage = verify(&folder, &["--head", "7"]);
    assert_eq!(usage.code, 2, "{usage:?}");
    // Deleted by hand is another thing.
    std::fs::remove_file(folder.join("pleach.audit.d/000003.ndjson")).unwrap();
    assert_eq!(verify(&folder, &[]).code, 1);
}

#[tokio::test]
async fn without_keep_all_files_are_kept_and_each_harm_to_them_is_found() {
    let folder = folder("");
    let served = Served::start(&folder);
    until_file(&served, &folder, 3).await;
    served.end();
    assert_eq!(files(&folder), ["000001.ndjson", "000002.ndjson", "000003.ndjson"]);
    let head = folder.run(&["audit", "head"]).out;
    let path = |n: u32| folder.join(&format!("pleach.audit.d/{n:06}.ndjson"));
    let whole: Vec<Vec<u8>> = (1..=3).map(|n| std::fs::read(path(n)).unwrap()).collect();
    assert_eq!(verify(&folder, &["--head", &head]).code, 0);
    let restore = || (1..=3).zip(&whole).for_each(|(n, bytes)| std::fs::write(path(n), bytes).unwrap());
    let found = |what: &str, code: i32, args: &[&str]| {
        let ran = verify(&folder, args);
        assert_eq!(ran.code, code, "{what}: {ran:?}");
        restore();
        assert_eq!(verify(&folder, args).code, 0, "{what}: as it was");
    };
    for n in 1..=2 {
        std::fs::remove_file(path(n)).unwrap();
        found("a file deleted", 1, &[]);
    }
    std::fs::write(path(1), &whole[1]).unwrap();
    std::fs::write(path(2), &whole[0]).unwrap();
    found("two files exchanged", 1, &[]);
    let at = whole[1].len() / 2;
    let mut edited = whole[1].clone();
    edited[at] = if edited[at] == b'0' { b'1' } else { b'0' };
    std::fs::write(path(2), edited).unwrap();
    found("a byte edited", 1, &[]);
    let cut = whole[1].iter().take(at).rposition(|b| *b == b'\n').unwrap() + 1;
    std::fs::write(path(2), &whole[1][..cut]).unwrap();
    found("the end of a file in the middle cut", 1, &[]);
    // The last file: only who noted the head sees it.
    std::fs::remove_file(path(3)).unwrap();
    assert_eq!(verify(&folder, &[]).code, 0);
    found("the last file deleted", 1, &["--head", &head]);
}
