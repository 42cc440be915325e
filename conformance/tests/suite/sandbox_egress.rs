//! The way out, scored by what reached the listener.

use conformance::ledger::Ledger;
use conformance::pleach::{Folder, Ran};

fn folder(grants: &str) -> Folder {
    Folder::new(&format!(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy]\nmax_access = \"destructive\"\n{grants}\n[agents.a]\nprompt = \"\"\n"
    ))
}
fn curl(folder: &Folder, args: &[&str]) -> Ran {
    folder.run(&[&["exec", "--", "curl", "-sS", "-m", "10"], args].concat())
}

#[test]
fn what_is_granted_arrives_and_nothing_else_does() {
    let ledger = Ledger::start();
    let url = format!("http://{}/x", ledger.address);
    let granted = folder("networks = { allow = [\"127.0.0.1/32\"] }");
    let ran = curl(&granted, &[&url]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "pong"), "{ran:?}");
    assert!(ledger.seen()[0].starts_with("GET /x HTTP/1.1\r\n"), "{:?}", ledger.seen());
    // A tunnel to the same place.
    let ran = curl(&granted, &["-p", &url]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "pong"), "{ran:?}");

    let before = ledger.seen().len();
    let nothing = folder("");
    for args in [vec![url.as_str()], vec!["-p", url.as_str()], vec!["--noproxy", "*", url.as_str()]] {
        let ran = curl(&nothing, &args);
        assert!(!ran.out.contains("pong"), "{args:?}: {ran:?}");
    }
    let port = ledger.address.port();
    let raw = nothing.run(&["exec", "--", "bash", "-c", &format!("echo hi > /dev/tcp/127.0.0.1/{port}")]);
    assert_ne!(raw.code, 0);
    assert_eq!(ledger.seen().len(), before, "not one byte more");
}

/// The denial says what would be allowed, in the answer's body.
#[test]
fn a_refused_host_is_told_why() {
    let ran = curl(&folder("domains = { allow = [\"api.example.com\"] }"), &["http://evil.example.com/"]);
    assert!(
        ran.out.contains(
            "denied: domains.allow does not cover evil.example.com:80 at root policy; allowed: api.example.com"
        ),
        "{ran:?}"
    );
}

/// A granted *name* that resolves to a private address is still refused; a network rule for
/// that address is what makes the benign twin pass.
#[test]
fn a_name_that_points_inward_is_refused() {
    let ledger = Ledger::start();
    let url = format!("http://localhost:{}/", ledger.address.port());
    // Without a network rule `localhost` is the instance's own, so the proxy is asked by name.
    let ran = curl(&folder("domains = { allow = [\"localhost\"] }"), &["--noproxy", "", &url]);
    assert!(ran.out.contains("loopback, and no network rule grants it"), "{ran:?}");
    assert!(ledger.seen().is_empty());
    let ran = curl(
        &folder("domains = { allow = [\"localhost\"] }\nnetworks = { allow = [\"127.0.0.0/8\", \"::1/128\"] }"),
        &[&url],
    );
    assert_eq!(ran.out, "pong", "{ran:?}");
}

/// The Host header is what was judged, whatever the client wrote.
#[test]
fn the_host_header_is_the_judged_target() {
    let ledger = Ledger::start();
    let granted = folder("networks = { allow = [\"127.0.0.1/32\"] }");
    let url = format!("http://{}/", ledger.address);
    assert_eq!(curl(&granted, &["-H", "Host: evil.example.com", &url]).out, "pong");
    let seen = ledger.seen().remove(0).to_lowercase();
    assert!(seen.contains(&format!("host: {}\r\n", ledger.address)) && !seen.contains("evil"), "{seen}");
}
