//! Files under the sandbox: each deny with its benign twin, judged by what is on disk.

use conformance::pleach::{Folder, Ran, binary};
use std::os::unix::fs::symlink;
use std::process::Command;

const POLICY: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[policy]
max_access = "destructive"
filesystem = { read = ["docs"], read_write = ["out"], deny = ["docs/private", "docs/secret.txt", "out/kept"] }
[agents.a]
prompt = ""
"#;

pub(crate) fn folder() -> Folder {
    let folder = Folder::new(POLICY);
    folder.write("docs/a.md", "public");
    folder.write("docs/private/s", "secret");
    folder.write("docs/secret.txt", "secret");
    folder.write("out/kept/k", "kept");
    folder.write("outside.txt", "secret");
    folder.write("docs_evil/e", "secret");
    folder
}

fn sh(folder: &Folder, script: &str) -> Ran {
    folder.run(&["exec", "--", "sh", "-c", script])
}

#[test]
fn granted_files_are_readable_and_writable_as_granted() {
    let folder = folder();
    assert_eq!(sh(&folder, "cat docs/a.md").out, "public");
    assert_eq!(sh(&folder, "echo new > out/f && cat out/f").out, "new\n");
    assert_eq!(folder.read("out/f").as_deref(), Some("new\n"));
    assert_eq!(sh(&folder, "mkdir out/d && mv out/f out/d/g && cat out/d/g && rm -r out/d").code, 0);
}

#[test]
fn nothing_else_can_be_read() {
    let folder = folder();
    let root = folder.path().display().to_string();
    symlink(folder.join("outside.txt"), folder.join("docs/link")).unwrap();
    let secrets = [
        format!("{root}/outside.txt"),
        "docs/private/s".into(),
        "docs/secret.txt".into(),
        "docs/link".into(),
        "docs/../outside.txt".into(),
        "docs_evil/e".into(),
        format!("/proc/self/root{root}/outside.txt"),
        "/proc/1/environ".into(),
        "/etc/shadow".into(),
        "pleach.toml".into(),
        "/proc/self/cwd/outside.txt".to_string(),
    ];
    for secret in secrets {
        let ran = sh(&folder, &format!("cat '{secret}'"));
        assert!(ran.code != 0 && !ran.out.contains("secret"), "{secret}: {ran:?}");
    }
}

#[test]
fn nothing_else_can_be_written() {
    let folder = folder();
    for script in [
        "echo x > docs/a.md",
        "echo x > outside.txt",
        "rm docs/a.md",
        "mv out ../moved",
        "echo x > docs/private/n",
        "echo x > out/kept/k",
        "rm -r out/kept",
        "ln docs/a.md out/hard",
        "truncate -s 0 docs/a.md",
        "echo x > pleach.toml",
        "ln -s ../outside.txt out/l && echo x > out/l",
        "mkdir docs/new",
        "mknod out/dev b 8 0",
    ] {
        let ran = sh(&folder, script);
        assert_ne!(ran.code, 0, "{script}: {ran:?}");
    }
    assert_eq!(folder.read("docs/a.md").as_deref(), Some("public"));
    assert_eq!(folder.read("outside.txt").as_deref(), Some("secret"));
    assert_eq!(folder.read("out/kept/k").as_deref(), Some("kept"));
    assert_eq!(folder.read("pleach.toml").as_deref(), Some(POLICY));
    assert!(!folder.join("docs/private/n").exists() && !folder.join("out/hard").exists());
}

/// The parent of a masked folder cannot be renamed: the mask would move along, and the next
/// instance would mask a name that means something else.
#[test]
fn the_parent_of_a_masked_folder_is_pinned() {
    let folder = Folder::new(&POLICY.replace("\"out/kept\"", "\"out/deep/kept\""));
    folder.write("docs/private/s", "");
    folder.write("docs/secret.txt", "");
    folder.write("out/deep/kept/k", "kept");
    let ran = sh(&folder, "mv out/deep out/moved; cat out/moved/kept/k out/deep/kept/k; echo x > out/deep/kept/k");
    assert!(!ran.out.contains("kept") && ran.code != 0, "{ran:?}");
    assert_eq!(folder.read("out/deep/kept/k").as_deref(), Some("kept"));
    assert_eq!(sh(&folder, "mkdir out/deep/new && mv out/deep/new out/deep/other").code, 0, "beside it all is free");
}

/// A policy file in a writable folder of its own, and a store that is not there yet.
#[test]
fn pleachs_own_files_cannot_be_replaced_or_made() {
    let folder = Folder::new("");
    let policy = POLICY.replace(
        "read = [\"docs\"], read_write = [\"out\"], deny = [\"docs/private\", \"docs/secret.txt\", \"out/kept\"]",
        "read_write = [\"..\"]",
    );
    let policy = policy.replace("replies.toml", "../replies.toml");
    folder.write("conf/pleach.toml", &policy);
    let script = "mv conf c2; mkdir -p conf; echo x > conf/pleach.toml; echo x > conf/pleach.db; echo x > conf/pleach.db-wal; echo fine > free";
    let ran = folder.run(&["exec", "--config", "conf/pleach.toml", "--", "sh", "-c", script]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(folder.read("conf/pleach.toml").as_deref(), Some(policy.as_str()));
    assert_eq!(folder.read("conf/pleach.db").as_deref(), Some(""));
    assert_eq!(folder.read("conf/pleach.db-wal").as_deref(), Some(""));
    assert_eq!(folder.read("free").as_deref(), Some("fine\n"));
}

/// What an earlier process wrote does not decide what a later one may read.
#[test]
fn runtime_discovery_follows_programs_only() {
    let folder = folder();
    let root = folder.path().display().to_string();
    folder.write("out/venv/bin/tool", "#!/bin/sh\ncat outside.txt\n");
    folder.write("out/venv/pyvenv.cfg", &format!("home = {root}/out/h\n"));
    std::fs::create_dir_all(folder.join("out/h")).unwrap();
    symlink(folder.join("outside.txt"), folder.join("out/h/tool")).unwrap();
    sh(&folder, "true");
    std::process::Command::new("chmod").args(["755", "out/venv/bin/tool"]).current_dir(folder.path()).status().unwrap();
    let ran = folder.run(&["exec", "--", "out/venv/bin/tool"]);
    assert!(!ran.out.contains("secret") && ran.code != 0, "{ran:?}");
    let ran = folder.run(&["exec", "--", "sh", "-c", "cat docs_evil/e", "x", "docs_evil/e"]);
    assert!(!ran.out.contains("secret"), "an argument after -c is no script: {ran:?}");
}

#[test]
fn a_deny_the_kernel_cannot_hold_is_refused_with_the_reason() {
    let folder = Folder::new(&POLICY.replace("\"out/kept\"", "\"out/not-there\""));
    folder.write("docs/a.md", "");
    std::fs::create_dir(folder.join("out")).unwrap();
    let ran = sh(&folder, "true");
    assert_eq!(ran.code, 125);
    assert!(ran.err.contains("out/not-there does not exist, so the kernel cannot mask it"), "{}", ran.err);
}

#[test]
fn tmp_is_private_and_granted_paths_under_it_are_bound_back() {
    let folder = folder();
    assert!(folder.path().starts_with("/tmp"), "this test wants its folder below /tmp");
    let stray = tempfile::NamedTempFile::new().unwrap();
    let ran =
        sh(&folder, "ls /tmp; echo t > $TMPDIR/mine && cat $TMPDIR/mine; cat docs/a.md; echo h > ~/note && cat ~/note");
    assert!(ran.out.ends_with("t\npublich\n"), "{ran:?}");
    assert!(!ran.out.contains(stray.path().file_name().unwrap().to_str().unwrap()), "{ran:?}");
    assert!(!std::path::Path::new("/tmp/mine").exists());
}

/// The same as an ordinary user.
#[test]
fn an_ordinary_user_gets_the_same_sandbox() {
    let folder = folder();
    let root = folder.path();
    // The ordinary user needs a copy of the binary it may read, and a folder of its own.
    let pleach = root.join("pleach");
    std::fs::copy(binary(), &pleach).unwrap();
    let status = Command::new("chown").args(["-R", "65534:65534"]).arg(root).status().unwrap();
    assert!(status.success(), "tests run as root");
    let run = |script: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&pleach);
        command.args(["exec", "--", "sh", "-c", script]).current_dir(root).env("XDG_STATE_HOME", root.join(".state"));
        Ran::of(command.output().unwrap())
    };
    let ran = run("id -u; cat docs/a.md; echo n > out/n");
    assert_eq!((ran.code, ran.out.as_str()), (0, "65534\npublic"), "{ran:?}");
    assert_eq!(folder.read("out/n").as_deref(), Some("n\n"));
    for script in ["cat outside.txt", "cat docs/private/s", "cat docs/secret.txt", "echo x > outside.txt"] {
        assert_ne!(run(script).code, 0, "{script}");
    }
    assert_eq!(folder.read("outside.txt").as_deref(), Some("secret"));
}

#[test]
fn a_weaker_profile_says_so_and_still_holds_files() {
    let policy = POLICY.replace(", deny = [\"docs/private\", \"docs/secret.txt\", \"out/kept\"]", "");
    let folder = Folder::new(&format!("{policy}\n[policy.sandbox]\nprofile = \"no-namespaces\"\n"));
    folder.write("docs/a.md", "public");
    folder.write("outside.txt", "secret");
    let check = folder.run(&["check"]);
    assert!(check.out.contains("The sandbox profile \"no-namespaces\" loses:"), "{}", check.out);
    assert_eq!(sh(&folder, "cat docs/a.md").out, "public");
    assert_ne!(sh(&folder, "cat outside.txt").code, 0);
    assert_ne!(sh(&folder, "echo > /dev/tcp/127.0.0.1/80").code, 0);
}

/// Where user namespaces are forbidden, `full` refuses and names the cure.
#[test]
fn a_missing_layer_refuses_and_names_the_cure() {
    let folder = folder();
    let script =
        format!("echo 0 > /proc/sys/user/max_user_namespaces && exec '{}' exec -- cat docs/a.md", binary().display());
    let mut command = Command::new("unshare");
    command.args(["-U", "-r", "-m", "sh", "-c", &script]).current_dir(folder.path());
    let ran = Ran::of(command.env("XDG_STATE_HOME", folder.join(".state")).output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (125, ""), "{ran:?}");
    assert!(ran.err.contains("profile = \"no-namespaces\""), "{}", ran.err);
}
