//! P: paths. What the guard makes of a path, what the workspace server opens, and what a program
//! in the sandbox can get at by itself.

use super::Case;
use super::gate::{reaching, reading, writing};
use super::shell::Scene;

const BY_PATH: &str = "Landlock is about paths, and a second name of the file lies in a writable folder";
const NO_LINK: &str =
    "a check of link counts when the sandbox starts; protected_hardlinks keeps others from making such a link";

pub(super) fn cases() -> Vec<Case> {
    [guarded(), arguments(), links(), programs(), protected(), metadata()].into_iter().flatten().collect()
}

/// Two spellings: what must not be reached, and what of the same shape must.
const SPELLINGS: [(&str, &str, &str, &str); 28] = [
    ("P1.01", "a folder whose name begins like a granted one", "docs_evil/s.txt", "docs/a.md"),
    ("P1.02", "up and out again", "docs/../outside/secret.txt", "docs/../docs/a.md"),
    ("P1.03", "up and out, twice", "docs/sub/../../outside/secret.txt", "docs/sub/../sub/b.md"),
    ("P1.04", "doubled slashes", "docs//..//outside//secret.txt", "docs//sub//b.md"),
    ("P1.05", "dots between", "./docs/./../outside/./secret.txt", "./docs/./a.md"),
    ("P1.06", "an absolute path outside", "{root}/outside/secret.txt", "{root}/docs/a.md"),
    ("P1.07", "an absolute path that climbs", "{root}/docs/../outside/secret.txt", "{root}/docs/sub/../a.md"),
    ("P1.08", "a denied folder inside a granted one", "docs/private/s.txt", "docs/sub/b.md"),
    ("P1.09", "a denied folder, reached from its sibling", "docs/sub/../private/s.txt", "docs/sub/../a.md"),
    ("P1.10", "a denied file inside a granted folder", "docs/hidden.txt", "docs/a.md"),
    ("P1.11", "a denied folder inside a writable one", "out/kept/k.txt", "out/mine.txt"),
    ("P1.12", "leading slashes beyond one", "//{root}/outside/secret.txt", "//{root}/docs/a.md"),
    ("P2.01", "spaces before the path", "  {root}/outside/secret.txt", "{root}/docs/a.md"),
    ("P2.02", "a file: URL", "file://{root}/outside/secret.txt", "docs/a.md"),
    ("P2.03", "another user's home", "~root/../{root}/outside/secret.txt", "docs/a.md"),
    ("P2.04", "the home's own sign", "~/../..{root}/outside/secret.txt", "docs/a.md"),
    ("P3.01", "a link to a file", "out/link", "out/goodfile"),
    ("P3.02", "through a link to a folder", "out/dir/secret.txt", "out/good/a.md"),
    ("P3.03", "a chain of links", "out/chain", "out/goodchain"),
    ("P3.04", "up behind a link", "out/dir/../outside/secret.txt", "out/a/../mine.txt"),
    ("P3.05", "the process's own root", "/proc/self/root{root}/outside/secret.txt", "{root}/docs/a.md"),
    ("P3.06", "a link to the process's own root", "out/root{root}/outside/secret.txt", "out/good/sub/b.md"),
    ("P3.07", "the process's own folder", "/proc/self/cwd/outside/secret.txt", "docs/a.md"),
    ("P3.08", "the first process's root", "/proc/1/root{root}/outside/secret.txt", "docs/sub/b.md"),
    ("P5.01", "a path of other case", "DOCS/../outside/secret.txt", "docs/a.md"),
    ("P5.02", "a path with a trailing line end", "outside/secret.txt\\n", "docs/a.md"),
    ("P5.03", "a path with a trailing slash", "outside/secret.txt/", "docs/a.md"),
    ("P5.04", "a path behind a very long detour", "docs/LONGoutside/secret.txt", "docs/a.md"),
];

/// Each spelling twice: to the server behind (what the guard lets go), and to the workspace
/// server (what really comes back).
fn guarded() -> Vec<Case> {
    let mut all = Vec::new();
    for (id, says, attack, twin) in SPELLINGS {
        let climb = attack.replace("LONG", &("sub/../".repeat(400) + "../"));
        let json = |path: &str| format!("{{\"path\": \"{path}\"}}");
        all.push(reaching(
            format!("{id}a"),
            &format!("{says}, to a server behind"),
            "peek",
            &json(&climb),
            &json(twin),
        ));
        let plain = climb.replace("\\n", "\n");
        all.push(reading(format!("{id}b"), &format!("{says}, read"), &plain, twin));
    }
    for (id, says, attack) in [
        ("P1.20", "up and out", "docs/../outside/target.txt"),
        ("P1.21", "into a read-only folder", "docs/new.md"),
        ("P1.22", "into a denied folder", "out/kept/new.txt"),
        ("P1.23", "over a denied file", "out/kept/k.txt"),
        ("P1.24", "beside the policy", "pleach.toml"),
        ("P3.20", "through a link to a folder", "out/dir/new.txt"),
        ("P3.21", "through a link to a file", "out/link"),
        ("P3.22", "through a link to nothing yet", "out/dangling"),
        ("P10.20", "a hook", "out/.git/hooks/pre-commit"),
        ("P10.21", "servers of other clients", "out/.mcp.json"),
        ("P10.22", "settings of an agent, in other case", "out/.Claude/settings.json"),
    ] {
        // A protected name lies inside `out`, where the world does not look; it must not be there.
        all.push(writing(id.to_owned(), &format!("writing {says}"), attack, "out/done"));
    }
    all
}

/// Where paths stand among arguments.
fn arguments() -> Vec<Case> {
    let secret = "{root}/outside/secret.txt";
    [
        (
            "P2.10",
            "an array of paths, one of them outside",
            "list",
            format!("{{\"paths\": [\"docs/a.md\", \"{secret}\"]}}"),
            "{\"paths\": [\"docs/a.md\", \"docs/sub/b.md\"]}",
        ),
        (
            "P2.11",
            "arrays within arrays",
            "list",
            format!("{{\"paths\": [[\"docs/a.md\"], [[\"{secret}\"]]]}}"),
            "{\"paths\": [[\"docs/a.md\"]]}",
        ),
        (
            "P2.12",
            "objects in the place of a path",
            "list",
            format!("{{\"paths\": {{\"x\": \"{secret}\"}}}}"),
            "{\"paths\": {\"x\": \"docs/a.md\"}}",
        ),
        (
            "P2.13",
            "a nested pointer",
            "deep",
            format!("{{\"a\": {{\"b\": \"{secret}\"}}}}"),
            "{\"a\": {\"b\": \"docs/a.md\"}}",
        ),
        ("P2.14", "a key with a slash in it", "deep", format!("{{\"a/b\": \"{secret}\"}}"), "{\"a/b\": \"docs/a.md\"}"),
        ("P2.15", "an element of an array", "deep", format!("{{\"c\": [\"{secret}\"]}}"), "{\"c\": [\"docs/a.md\"]}"),
        (
            "P2.16",
            "an undeclared argument that reads as a path",
            "guess",
            format!("{{\"anything\": \"{secret}\"}}"),
            "{\"anything\": \"docs\"}",
        ),
        (
            "P2.17",
            "an undeclared argument of a telling name",
            "guess",
            "{\"file\": \"outside/secret.txt\"}".into(),
            "{\"file\": \"docs/a.md\"}",
        ),
        (
            "P2.18",
            "an undeclared file: URL",
            "guess",
            format!("{{\"x\": \"file://{secret}\"}}"),
            "{\"x\": \"file://{root}/docs/a.md\"}",
        ),
        (
            "P2.19",
            "a file: URL with a tab in its scheme",
            "guess",
            format!("{{\"x\": \"fi\\tle://{secret}\"}}"),
            "{\"x\": \"file://{root}/docs/a.md\"}",
        ),
        (
            "P2.20",
            "a file: URL with a host",
            "peek",
            format!("{{\"path\": \"file://elsewhere{secret}\"}}"),
            "{\"path\": \"file://{root}/docs/a.md\"}",
        ),
        (
            "P2.21",
            "an encoded file: URL",
            "peek",
            "{\"path\": \"file://{root}/docs/%2e%2e/outside/secret.txt\"}".into(),
            "{\"path\": \"file://{root}/docs/%61.md\"}",
        ),
        (
            "P2.22",
            "a file: URL with a fragment",
            "peek",
            format!("{{\"path\": \"file://{{root}}/docs/a.md#/../../{secret}\"}}"),
            "{\"path\": \"file://{root}/docs/a.md\"}",
        ),
        ("P2.23", "a path as a key", "guess", format!("{{\"{secret}\": 1}}"), "{\"docs\": 1}"),
        (
            "P2.24",
            "deep inside undeclared arguments",
            "guess",
            format!("{{\"a\": [{{\"b\": {{\"c\": [\"{secret}\"]}}}}]}}"),
            "{\"a\": [{\"b\": {\"c\": [\"word\"]}}]}",
        ),
        ("P2.25", "an empty path", "peek", "{\"path\": \"\"}".into(), "{\"path\": \"docs\"}"),
        ("P2.26", "the folder itself", "peek", "{\"path\": \".\"}".into(), "{\"path\": \"./docs\"}"),
        ("P2.27", "the root", "peek", "{\"path\": \"/\"}".into(), "{\"path\": \"docs/\"}"),
        (
            "P5.10",
            "NUL in a path",
            "peek",
            "{\"path\": \"docs/a.md\\u0000/../../outside/secret.txt\"}".into(),
            "{\"path\": \"docs/a.md\"}",
        ),
        (
            "P5.11",
            "a name longer than any",
            "peek",
            format!("{{\"path\": \"docs/{}/../../outside/secret.txt\"}}", "n".repeat(300)),
            "{\"path\": \"docs/a.md\"}",
        ),
        ("P5.12", "a loop of links", "peek", "{\"path\": \"out/loop\"}".into(), "{\"path\": \"out/goodchain\"}"),
        ("P5.13", "a link to nothing yet", "put", "{\"path\": \"out/dangling\"}".into(), "{\"path\": \"out/new\"}"),
        (
            "P5.14",
            "up from what is not there",
            "peek",
            "{\"path\": \"docs/nothing/../../outside/secret.txt\"}".into(),
            "{\"path\": \"docs/nothing\"}",
        ),
        (
            "P5.15",
            "writing where only reading is granted",
            "put",
            "{\"path\": \"docs/a.md\"}".into(),
            "{\"path\": \"out/mine.txt\"}",
        ),
        (
            "P9.01",
            "a working folder among the arguments",
            "guess",
            "{\"cwd\": \"/\", \"x\": \"etc\"}".into(),
            "{\"cwd\": \"{root}/docs\", \"x\": \"a\"}",
        ),
        (
            "P9.02",
            "a working folder by a relative way",
            "guess",
            "{\"working_directory\": \"docs/../outside\"}".into(),
            "{\"working_directory\": \"docs/../docs\"}",
        ),
    ]
    .into_iter()
    .map(|(id, says, tool, attack, twin)| reaching(id.to_owned(), says, tool, &attack, twin))
    .collect()
}

/// Links, and what changes while somebody looks.
fn links() -> Vec<Case> {
    let race = |target: &str| {
        format!(
            "mkdir out/d; echo x > out/d/f; (for i in $(seq 3000); do ln -sfn ../{target} out/l; ln -sfn d out/l; done) & \
             for i in $(seq 3000); do cat out/l/* 2>/dev/null; done; wait; touch out/done"
        )
    };
    vec![
        Scene::plain().case("P3.30", "a link made inside, to a file outside", "ln -s ../outside/secret.txt out/l; cat out/l", "ln -s ../docs/a.md out/l; cat out/l"),
        Scene::plain().case("P3.31", "a link made inside, to a folder outside", "ln -s ../outside out/l; cat out/l/secret.txt", "ln -s ../docs out/l; cat out/l/a.md"),
        Scene::plain().case("P3.32", "writing through a link", "ln -s ../outside/target.txt out/l; echo evil > out/l", "ln -s done out/l; echo x > out/l"),
        Scene::plain().case("P3.33", "a link of /proc", "cat /proc/self/root{root}/outside/secret.txt", "cat /proc/self/cwd/docs/a.md"),
        Scene::plain().case("P3.34", "a descriptor opened for its path only", "exec 3< out; cat /proc/self/fd/3/../outside/secret.txt", "exec 3< docs; cat /proc/self/fd/3/a.md"),
        Scene::plain().case("P3.35", "/dev/fd", "cat /dev/fd/3 3< outside/secret.txt", "cat /dev/fd/3 3< docs/a.md"),
        Scene::plain().case("P4.01", "a hard link made inside, to a file outside", "ln outside/secret.txt out/h && cat out/h", "ln out/mine.txt out/h && cat out/h"),
        Scene::plain().case("P4.02", "a hard link to a read-only file, then written", "ln docs/a.md out/h && echo evil > out/h", "ln out/mine.txt out/done && echo x > out/done"),
        Scene::plain().after("ln outside/target.txt out/linked.txt").case("P4.03", "a hard link that was there before, written through", "echo evil > out/linked.txt", "echo x > out/done").gap(BY_PATH, NO_LINK),
        Scene::plain().after("ln outside/secret.txt out/linked.txt").case("P4.04", "a hard link that was there before, read through", "cat out/linked.txt", "cat out/mine.txt").gap(BY_PATH, NO_LINK),
        Scene::plain().case("P8.01", "a folder swapped for a link three thousand times while it is read", &race("outside"), &race("docs")),
        Scene::plain().case("P8.02", "a folder renamed into place while it is written", "mkdir out/d; (for i in $(seq 2000); do mv -T out/d out/e; ln -s ../outside out/d; rm out/d; mv -T out/e out/d; done) 2>/dev/null & for i in $(seq 2000); do echo evil > out/d/target.txt; done 2>/dev/null; wait", "mkdir out/d; mv out/d out/e; echo x > out/e/f; touch out/done"),
        Scene::plain().case("P6.01", "a device made inside", "mknod out/sda b 8 0 && touch outside/made; mknod out/mem c 1 1 && head -c1 out/mem && touch outside/made", "mkfifo out/p && touch out/done"),
        Scene::plain().after("mkdir -p /dev/shm && echo S3CR3T-canary-9f41 > /dev/shm/{tag}").case("P6.02", "shared memory of others", "cat /dev/shm/{tag}", "echo PUBLIC-canary-27ab > /dev/shm/x; cat /dev/shm/x"),
        Scene::plain().after("echo S3CR3T-canary-9f41 > /tmp/{tag}; chmod 644 /tmp/{tag}").case("P6.03", "temporary files of others", "cat /tmp/{tag}", "echo PUBLIC-canary-27ab > $TMPDIR/x; cat $TMPDIR/x"),
        Scene::plain().case("P7.01", "a bind mount", "unshare -m mount --bind outside out && cat out/secret.txt", "cat docs/a.md"),
        Scene::plain().case("P7.02", "a mount in a new user namespace", "unshare -Urm sh -c 'mount --bind outside out/; cat out/secret.txt'", "sh -c 'cat docs/a.md'"),
        Scene::plain().case("P7.03", "taking a mask away", "umount docs/private; umount -l docs/hidden.txt; cat docs/private/s.txt docs/hidden.txt", "cat docs/a.md"),
        Scene::plain().case("P7.04", "a chroot", "chroot . cat outside/secret.txt", "cat docs/a.md"),
        Scene::plain().case("P7.05", "overlaying what is granted", "mount -t tmpfs none docs && touch outside/x", "touch out/done"),
        Scene::python().case("P11.01", "a folder's descriptor that was inherited", "import os\nfor fd in range(3, 64):\n  try: print(open(os.open('secret.txt', os.O_RDONLY, dir_fd=fd)).read())\n  except OSError: pass", "import os\nprint(open(os.open('a.md', os.O_RDONLY, dir_fd=os.open('docs', os.O_RDONLY))).read())"),
        Scene::python().case("P11.02", "a path-only descriptor, opened again", "import os\nfd = os.open('outside/secret.txt', os.O_PATH)\nprint(open('/proc/self/fd/%d' % fd).read())", "import os\nfd = os.open('docs/a.md', os.O_PATH)\nprint(open('/proc/self/fd/%d' % fd).read())"),
        Scene::python().case("P11.03", "a file handle", "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\nb = ctypes.create_string_buffer(136); ctypes.memmove(b, (ctypes.c_uint*1)(128), 4); m = ctypes.c_int()\nr = l.syscall(303, -100, b'outside/secret.txt', b, ctypes.byref(m), 0)\nif r == 0:\n  fd = l.syscall(304, l.open(b'/', 0), b, 0)\n  if fd >= 0: print(open(fd).read())\n  else: open('outside/x', 'w')", "print(open('docs/a.md').read())"),
    ]
}

/// What a program gets at by itself.
fn programs() -> Vec<Case> {
    let read =
        |id: &str, says: &str, path: &str| Scene::plain().case(id, says, &format!("cat '{path}'"), "cat docs/a.md");
    let write = |id: &str, says: &str, script: &str, twin: &str| Scene::plain().case(id, says, script, twin);
    vec![
        read("P1.30", "cat of a file outside", "outside/secret.txt"),
        read("P1.31", "cat of a denied folder's file", "docs/private/s.txt"),
        read("P1.32", "cat of a denied file", "docs/hidden.txt"),
        read("P1.33", "cat of a denied file in a writable folder", "out/kept/k.txt"),
        read("P1.34", "cat of a folder that begins alike", "docs_evil/s.txt"),
        write("P1.35", "writing a read-only file", "echo evil > docs/a.md", "echo x > out/done"),
        write("P1.36", "appending to it", "echo evil >> docs/a.md", "echo x >> out/done"),
        write("P1.37", "truncating it", "truncate -s 0 docs/a.md", "echo x > out/done; truncate -s 0 out/done"),
        write("P1.38", "removing it", "rm -f docs/a.md", "rm -f out/mine.txt && touch out/done"),
        write("P1.39", "renaming it away", "mv docs/a.md out/a.md", "mv out/mine.txt out/done"),
        write(
            "P1.40",
            "renaming over it",
            "mv out/mine.txt docs/a.md",
            "cp docs/a.md out/mine.txt; mv out/mine.txt out/done",
        ),
        write("P1.41", "making a folder there", "mkdir docs/new", "mkdir out/done"),
        write("P1.42", "removing a denied folder", "rm -rf out/kept", "mkdir out/d; rm -rf out/d; touch out/done"),
        write(
            "P1.43",
            "renaming a denied folder away",
            "mv out/kept out/free; cat out/free/k.txt",
            "mkdir out/d; mv out/d out/done",
        ),
        write(
            "P1.44",
            "renaming the granted folder itself",
            "mv out gone; mkdir out",
            "mkdir out/d; mv out/d out/done",
        ),
        write(
            "P1.45",
            "exchanging two files",
            "python3 -c 'import ctypes; ctypes.CDLL(None).renameat2(-100, b\"out/mine.txt\", -100, b\"docs/a.md\", 2)'",
            "mv out/mine.txt out/done",
        ),
        write(
            "P10.01",
            "the policy file",
            "echo 'version = 1' > pleach.toml; rm -f pleach.toml; mv out/mine.txt pleach.toml",
            "mv out/mine.txt out/done",
        ),
        write("P10.02", "the script of replies", "echo > replies.toml", "touch out/done"),
        write(
            "P10.03",
            "what Pleach keeps",
            "find .state .data pleach.db -type f 2>/dev/null -exec sh -c 'echo evil > \"$1\" && touch outside/x' x {} \\;",
            "touch out/done",
        ),
    ]
}

/// The policy of a world whose repository is writable.
const REPO: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "replies.toml"
[policy]
max_access = "destructive"
filesystem = { read = ["docs"], read_write = ["repo", "out"] }
[agents.a]
prompt = ""
"#;

/// Names that other programs obey: there, or not there yet.
fn protected() -> Vec<Case> {
    let scene = Scene::plain().under(REPO).after("mkdir -p repo/.git/hooks repo/.git/objects; echo x > repo/.git/HEAD; echo '{}' > repo/.mcp.json; mkdir -p repo/deep/.claude; echo '{}' > repo/deep/.claude/settings.json");
    let twin = "echo x > repo/.git/index; rm repo/.git/index; touch out/done";
    [
        ("P10.30", "a hook", "echo evil > repo/.git/hooks/pre-commit"),
        ("P10.31", "the repository's settings", "echo '[core]\nfsmonitor=evil' >> repo/.git/config"),
        ("P10.32", "the folder above it renamed", "mv repo/.git repo/g; mkdir repo/.git; echo evil > repo/.git/config"),
        ("P10.33", "hooks replaced by a link", "rm -rf repo/.git/hooks; ln -s /tmp repo/.git/hooks"),
        ("P10.34", "servers of other clients, there", "echo evil > repo/.mcp.json"),
        (
            "P10.35",
            "servers of other clients, renamed over",
            "echo evil > repo/n; mv repo/n repo/.mcp.json; rm -f repo/n",
        ),
        (
            "P10.36",
            "settings of an agent, not there",
            "mkdir -p repo/.claude && echo evil > repo/.claude/settings.json",
        ),
        ("P10.37", "settings of an agent, there, deeper", "echo evil > repo/deep/.claude/settings.json"),
        (
            "P10.38",
            "the folder around those renamed",
            "mv repo/deep repo/d2; mkdir -p repo/deep/.claude; echo evil > repo/deep/.claude/settings.json",
        ),
        ("P10.39", "tasks of an editor, not there", "mkdir -p repo/.vscode; echo evil > repo/.vscode/tasks.json"),
        ("P10.40", "submodules' own settings", "mkdir -p repo/.git/modules/m; echo evil > repo/.git/modules/m/config"),
        ("P10.41", "a .git that is a file", "mv -T repo/.git repo/old; echo 'gitdir: /tmp/evil' > repo/.git"),
        ("P10.42", "a start file of a shell in a folder", "echo evil > repo/.envrc"),
        ("P10.43", "the policy file by its folder", "mv repo/../pleach.toml repo/p; echo evil > repo/../pleach.toml"),
        ("P10.44", "the worktree's settings, not there", "echo evil > repo/.git/config.worktree"),
    ]
    .into_iter()
    .map(|(id, says, attack)| scene.case(id, says, attack, twin))
    .collect()
}

const BY_OWNER: &str = "Landlock has no right for it, and the program has the user's id";

/// What is about a file, not in it.
fn metadata() -> Vec<Case> {
    let cases = [
        (
            "01",
            "the mode of a file outside",
            "chmod 777 outside/target.txt",
            "chmod 600 out/mine.txt && touch out/done",
        ),
        (
            "02",
            "the times of a file outside",
            "touch -c -d 2001-01-01 outside/target.txt",
            "touch -d 2001-01-01 out/done",
        ),
        ("03", "the mode of a read-only file", "chmod 777 docs/a.md", "chmod 600 out/mine.txt && touch out/done"),
        ("04", "the mode of the policy file", "chmod 666 pleach.toml", "chmod 600 out/mine.txt && touch out/done"),
        ("05", "the owner of a file outside", "chown 65534 outside/target.txt", "touch out/done"),
        ("06", "the mode of a folder outside", "chmod 777 outside", "mkdir out/d && chmod 700 out/d && touch out/done"),
    ];
    let mut all: Vec<Case> = cases
        .iter()
        .map(|(id, says, attack, twin)| Scene::plain().case(&format!("P12.{id}"), says, attack, twin))
        .collect();
    // The weaker profile has no mount namespace, and says so; 04 and 05 are stopped there too, by
    // the absence of capabilities or not at all.
    let weak = "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy]\nmax_access = \"destructive\"\n\
                filesystem = { read = [\"docs/sub\"], read_write = [\"out/lead\"] }\n[policy.sandbox]\nprofile = \"no-namespaces\"\n[agents.a]\nprompt = \"\"\n";
    let weak = Scene::plain().under(weak);
    for (id, says, attack) in [
        ("21", "the mode", "chmod 777 outside/target.txt"),
        ("22", "the times", "touch -c -d 2001-01-01 outside/target.txt"),
    ] {
        let case = weak.case(
            &format!("P12.{id}"),
            &format!("{says} of a file outside, under profile no-namespaces"),
            attack,
            "touch out/lead/done",
        );
        all.push(case.gap(BY_OWNER, "profile = \"full\", whose mounts are read-only but for what is granted"));
    }
    let seen = Scene::plain().case(
        "P12.07",
        "that a file outside is there, and how long it is",
        "test $(stat -c %s outside/secret.txt) -gt 0 && echo S3CR3T-canary-9f41",
        "test $(stat -c %s docs/a.md) -gt 0 && touch out/done",
    );
    all.push(seen.gap(
        "Landlock has no right for stat",
        "a mount namespace that holds only what is granted; no ABI up to 12 has one",
    ));
    all
}
