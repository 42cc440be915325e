//! Tools as people have them, through the way out: each with what it needs, and refused with one
//! grant fewer. Scored by what the servers were asked and what lies in the folder after.

use crate::audit::records;
use conformance::pleach::{Folder, Ran};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Serves a folder's files, over TLS where there is a certificate; says its port, then each path.
const SERVER: &str = r#"
import functools, http.server, os, ssl, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): print("asked", self.path, flush=True)
address, folder, certificate = sys.argv[1], sys.argv[2], sys.argv[3:]
server = http.server.ThreadingHTTPServer((address, 0), functools.partial(Handler, directory=folder))
if certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[0], certificate[1])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// Files on the network, ended when dropped.
struct Files {
    child: Child,
    port: u16,
    asked: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Files {
    fn start(address: &str, folder: &Path, certificate: &[&Path]) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", SERVER, address]).arg(folder).args(certificate);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.next().unwrap().parse().unwrap();
        let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let kept = asked.clone();
        std::thread::spawn(move || lines.for_each(|line| kept.lock().unwrap().push(line)));
        Self { child, port, asked }
    }
    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn outside(program: &str, args: &[&str], at: &Path) {
    let mut command = Command::new(program);
    let identity = [
        ("GIT_AUTHOR_NAME", "t"),
        ("GIT_AUTHOR_EMAIL", "t@t"),
        ("GIT_COMMITTER_NAME", "t"),
        ("GIT_COMMITTER_EMAIL", "t@t"),
    ];
    let ran = Ran::of(command.args(args).current_dir(at).envs(identity).output().unwrap());
    assert_eq!(ran.code, 0, "{program} {args:?}: {ran:?}");
}

fn folder(grants: &str) -> Folder {
    Folder::new(&format!(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy]\n\
         max_access = \"destructive\"\nfilesystem = {{ read = [\"tls/ca.pem\"], read_write = [\"out\"] }}\n{grants}\n[agents.a]\nprompt = \"\"\n"
    ))
}

/// A name for the name, and the network behind it, since it is a private one.
fn allows(names: &[&str], networks: &[&str]) -> String {
    format!("domains = {{ allow = {} }}\nnetworks = {{ allow = {} }}", json!(names), json!(networks))
}

/// git over HTTPS: its TLS, its Host, a tunnel.
#[test]
fn git_clones_over_https_what_is_granted() {
    let kept = tempfile::tempdir().unwrap();
    let at = kept.path();
    outside("git", &["init", "-q", "-b", "main", "work"], at);
    std::fs::write(at.join("work/a.md"), "cloned").unwrap();
    outside("git", &["add", "."], &at.join("work"));
    outside("git", &["commit", "-q", "-m", "one"], &at.join("work"));
    outside("git", &["clone", "-q", "--bare", "work", "repo.git"], at);
    outside("git", &["update-server-info"], &at.join("repo.git"));
    let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "key.pem", "-out", "ca.pem"];
    outside("openssl", &[&new[..], &subject].concat(), at);
    let (certificate, key) = (at.join("ca.pem"), at.join("key.pem"));
    let files = Files::start("127.0.0.1", at, &[&certificate, &key]);
    let clone = |grants: &str| {
        let folder = folder(grants);
        std::fs::create_dir_all(folder.join("tls")).unwrap();
        std::fs::create_dir_all(folder.join("out")).unwrap();
        std::fs::copy(&certificate, folder.join("tls/ca.pem")).unwrap();
        let ca = format!("http.sslCAInfo={}", folder.join("tls/ca.pem").display());
        let url = format!("https://localhost:{}/repo.git", files.port);
        let ran = folder.run(&["exec", "--", "git", "-c", &ca, "clone", "-q", &url, "out/clone"]);
        (folder, ran)
    };
    let target = format!("localhost:{}", files.port);
    for fewer in [allows(&["other.example.com"], &["127.0.0.0/8", "::1/128"]), allows(&["localhost"], &[])] {
        let (folder, ran) = clone(&fewer);
        assert!(ran.code != 0 && folder.read("out/clone/a.md").is_none(), "{fewer}: {ran:?}");
        assert_eq!(files.asked(), 0);
    }
    let (folder, ran) = clone(&allows(&["localhost"], &["127.0.0.1/32", "::1/128"]));
    assert_eq!((ran.code, folder.read("out/clone/a.md").as_deref()), (0, Some("cloned")), "{ran:?}");
    let all = records(&folder, &[]);
    assert!(all.iter().any(|r| r["what"] == "connect" && r["target"] == target && r["verdict"] == "allow"), "{all:#?}");
    assert!(files.asked() > 0);
}

/// npm from a registry that keeps its packages elsewhere: two places, and both are needed.
#[test]
fn npm_installs_from_a_registry_and_where_it_keeps_its_packages() {
    let kept = tempfile::tempdir().unwrap();
    let at = kept.path();
    std::fs::create_dir_all(at.join("package")).unwrap();
    let about = json!({ "name": "pleached", "version": "1.0.0", "main": "index.js" });
    std::fs::write(at.join("package/package.json"), about.to_string()).unwrap();
    std::fs::write(at.join("package/index.js"), "module.exports = 'installed'\n").unwrap();
    std::fs::create_dir_all(at.join("packages")).unwrap();
    outside("tar", &["-czf", "packages/pleached-1.0.0.tgz", "package"], at);
    let packages = Files::start("127.0.0.2", &at.join("packages"), &[]);
    let tarball = format!("http://127.0.0.2:{}/pleached-1.0.0.tgz", packages.port);
    let version = json!({ "name": "pleached", "version": "1.0.0", "dist": { "tarball": tarball } });
    let document = json!({ "name": "pleached", "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": version } });
    std::fs::create_dir_all(at.join("registry")).unwrap();
    std::fs::write(at.join("registry/pleached"), document.to_string()).unwrap();
    let registry = Files::start("127.0.0.1", &at.join("registry"), &[]);
    let install = |networks: &[&str]| {
        let folder = folder(&allows(&[], networks));
        std::fs::create_dir_all(folder.join("tls")).unwrap();
        folder.write("tls/ca.pem", "");
        folder.write("out/package.json", "{}");
        let command = format!(
            "cd out && npm install --no-audit --no-fund --fetch-retries=0 --registry=http://127.0.0.1:{}/ pleached",
            registry.port
        );
        let ran = folder.run(&["exec", "--", "bash", "-c", &command]);
        (folder, ran)
    };
    for (fewer, asked) in [(&["127.0.0.2/32"][..], 0), (&["127.0.0.1/32"], 1)] {
        let (folder, ran) = install(fewer);
        assert!(ran.code != 0 && folder.read("out/node_modules/pleached/index.js").is_none(), "{fewer:?}: {ran:?}");
        assert_eq!((registry.asked() > 0, packages.asked()), (asked > 0, 0), "{fewer:?}");
    }
    let (folder, ran) = install(&["127.0.0.1/32", "127.0.0.2/32"]);
    let installed = folder.read("out/node_modules/pleached/index.js");
    assert_eq!((ran.code, installed.as_deref()), (0, Some("module.exports = 'installed'\n")), "{ran:?}");
    assert_eq!(packages.asked(), 1);
}
