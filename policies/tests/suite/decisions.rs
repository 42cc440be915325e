//! The decision, end to end over a policy file: every denial has its benign twin.

use crate::world::load;
use policies::action::{Call, Touch, Touched};
use policies::authority::{Authority, RunAuthority};
use policies::decide;
use policies::domain::Host;
use policies::fs::FileOp;
use policies::json::{Json, Limits};
use policies::manifest::import;
use policies::permit::{Denial, Verdict};
use policies::resolve::Policy;
use std::sync::Arc;

const FILE: &str = r#"
version = 1
[models.default]
provider = "scripted"
script = "r.toml"
[servers.git]
command = "git"
[servers.git.tools.log]
access = "read-only"
[servers.git.tools.push]
access = "destructive"
[policy]
max_access = "read-write"
filesystem = { read = ["/docs"], read_write = ["/out"], deny = ["/docs/private"] }
domains = { allow = ["api.example.com"] }
networks = { allow = ["10.1.0.0/16"] }
tools = { allow = ["git__*"], ask = ["git__ask_me"], deny = ["git__delete*"] }
[agents.reader]
prompt = ""
tools = ["git__log"]
[agents.reader.policy]
filesystem = { read = ["/docs/papers"] }
"#;

fn policy() -> Policy {
    load(FILE).unwrap()
}

fn call(
    policy: &Policy,
    authority: &Authority,
    tool: &str,
    arguments: &str,
    touches: Vec<Touched>,
) -> Result<&'static str, Denial> {
    let definition =
        format!(r#"[{{"name":"{tool}","inputSchema":{{"type":"object","properties":{{"n":{{"type":"integer"}}}}}}}}]"#);
    let list = Json::parse(definition.as_bytes(), Limits::default()).unwrap();
    let server = policy.servers.values().next().unwrap();
    let tool = import(&server.name, &server.words, list.as_array().unwrap()).tools.remove(0);
    let touch = |what| Touch { pointer: "/x".into(), written: "x".into(), what };
    let call = Call {
        tool: Arc::new(tool),
        arguments: Json::parse(arguments.as_bytes(), Limits::default()).unwrap(),
        touches: touches.into_iter().map(touch).collect(),
    };
    match decide::call(authority, call) {
        Verdict::Allow(permit, _) => {
            permit.redeem();
            Ok("allow")
        }
        Verdict::Ask(_) => Ok("ask"),
        Verdict::Deny(denial) => Err(denial),
    }
}

#[test]
fn each_rule_decides_and_says_so() {
    let policy = policy();
    let door = policy.door(None);
    let read = |p: &str| vec![Touched::Path(FileOp::Read, p.into())];
    let write = |p: &str| vec![Touched::Path(FileOp::Write, p.into())];
    let go = |tool: &str, touches| call(&policy, &door, tool, "{}", touches);

    assert_eq!(go("log", vec![]), Ok("allow"));
    assert_eq!(go("log", read("/docs/a")), Ok("allow"));
    assert_eq!(go("log", write("/out/a")), Ok("allow"));
    let denied = |tool: &str, touches| go(tool, touches).unwrap_err().for_person();
    assert_eq!(
        denied("log", read("/docs_evil/a")),
        "denied: filesystem.read does not cover /docs_evil/a at root policy; allowed for reading: /docs, /out \
         (pleach.toml:14). Fix: add /docs_evil/a to filesystem.read of root policy"
    );
    assert!(denied("log", read("/docs/private/a")).contains("filesystem.deny /docs/private covers /docs/private/a"));
    assert!(denied("log", write("/docs/a")).contains("filesystem.read_write does not cover /docs/a"));
    assert!(denied("delete_all", vec![]).contains("git__delete_all has no access class and counts as destructive"));
    assert_eq!(
        denied("commit", vec![]),
        "denied: git__commit has no access class and counts as destructive at root policy; root policy goes up to \
         read-write (pleach.toml:13). Fix: pleach allow git__commit --as read-write"
    );
    assert!(denied("push", vec![]).contains("git__push is destructive (by the operator, pleach.toml:11)"));
    assert!(denied("log", vec![Touched::Unclear("why".into())]).contains("unclear: why"));
}

#[test]
fn deny_beats_ask_beats_allow() {
    let source = FILE.replace("[servers.git.tools.log]", "default_access = \"read-only\"\n[servers.git.tools.log]");
    let policy = load(&source).unwrap();
    let door = policy.door(None);
    assert_eq!(call(&policy, &door, "ask_me", "{}", vec![]), Ok("ask"));
    assert_eq!(call(&policy, &door, "anything", "{}", vec![]), Ok("allow"));
    let denial = call(&policy, &door, "delete_all", "{}", vec![]).unwrap_err();
    assert!(
        denial.for_model().starts_with("denied: tools.deny \"git__delete*\" covers git__delete_all at root policy")
    );
}

#[test]
fn the_model_never_sees_the_fix() {
    let policy = policy();
    let denial = call(&policy, &policy.door(None), "commit", "{}", vec![]).unwrap_err();
    assert!(denial.fix.is_some());
    assert!(!denial.for_model().contains("Fix") && !denial.for_model().contains("pleach allow"));
}

#[test]
fn the_ancestor_that_refuses_is_named() {
    let policy = policy();
    let agent = policy.agents.values().next().unwrap();
    let run = RunAuthority::spawn(&policy.door(None), &agent.policy, None).unwrap();
    let read = |p: &str| vec![Touched::Path(FileOp::Read, p.into())];
    assert_eq!(call(&policy, &run.use_, "log", "{}", read("/docs/papers/a")), Ok("allow"));
    let denial = call(&policy, &run.use_, "log", "{}", read("/docs/a")).unwrap_err();
    assert_eq!(denial.who.as_deref(), Some("agent reader"));
    let denial = call(&policy, &run.use_, "log", "{}", read("/etc/passwd")).unwrap_err();
    assert_eq!(denial.who.as_deref(), Some("root policy"), "the first that refuses, from the root");
}

#[test]
fn arguments_are_checked_against_the_schema() {
    let policy = policy();
    let door = policy.door(None);
    assert_eq!(call(&policy, &door, "log", r#"{"n":3}"#, vec![]), Ok("allow"));
    let denial = call(&policy, &door, "log", r#"{"n":"3"}"#, vec![]).unwrap_err();
    assert!(denial.for_model().contains("/n: "), "{}", denial.for_model());
}

#[test]
fn connections_are_judged_by_name_then_by_address() {
    let policy = policy();
    let door = policy.door(None);
    let connect = |host: &str| decide::connect(&door, Host::parse(host).unwrap(), 443);
    let Verdict::Allow(permit, _) = connect("api.example.com") else { panic!("denied") };
    let target = permit.redeem();
    assert!(target.judge(&["93.184.216.34".parse().unwrap()]).is_ok());
    assert!(target.judge(&["10.1.0.9".parse().unwrap()]).is_ok(), "networks grants this private range");
    assert!(target.judge(&["169.254.169.254".parse().unwrap()]).is_err());
    assert!(target.judge(&["93.184.216.34".parse().unwrap(), "127.0.0.1".parse().unwrap()]).is_err(), "mixed answers");
    assert!(target.judge(&[]).is_err());
    assert!(matches!(connect("example.com"), Verdict::Deny(_)));
    assert!(matches!(connect("10.1.2.3"), Verdict::Allow(..)));
    assert!(matches!(connect("10.2.2.3"), Verdict::Deny(_)));
    assert!(matches!(connect("127.0.0.1"), Verdict::Deny(_)));
}

#[test]
fn a_registered_origin_may_be_private_only_when_written_so() {
    let judge = |host: &str, address: &str| {
        decide::registered(Host::parse(host).unwrap(), 80).what().judge(&[address.parse().unwrap()]).is_ok()
    };
    assert!(judge("127.0.0.1", "127.0.0.1"));
    assert!(judge("localhost", "::1"));
    assert!(!judge("localhost", "10.0.0.1"));
    assert!(judge("mcp.example.com", "93.184.216.34"));
    assert!(!judge("mcp.example.com", "127.0.0.1"), "a name that points inward");
}

#[test]
fn runtime_tools_need_no_allow_but_obey_deny() {
    let policy = load("version = 1").unwrap();
    assert!(matches!(decide::runtime(&policy.door(None), "Agent"), Verdict::Allow(..)));
    let policy = load("version = 1\n[policy.tools]\ndeny = [\"Agent\"]").unwrap();
    assert!(matches!(decide::runtime(&policy.door(None), "Agent"), Verdict::Deny(_)));
}

#[test]
fn what_a_server_names_is_public_unless_it_is_loopback_itself() {
    let judged = |by: &str, host: &str, address: &str| {
        let (by, host) = (Host::parse(by).unwrap(), Host::parse(host).unwrap());
        decide::named_by(&by, host, 443).is_ok_and(|p| p.what().judge(&[address.parse().unwrap()]).is_ok())
    };
    assert!(judged("mcp.example.com", "login.example.net", "93.184.215.14"));
    assert!(!judged("mcp.example.com", "login.example.net", "10.0.0.5"), "a name may not lead inside");
    assert!(!judged("mcp.example.com", "10.0.0.5", "10.0.0.5"));
    assert!(!judged("mcp.example.com", "localhost", "127.0.0.1"));
    assert!(judged("localhost", "127.0.0.1", "127.0.0.1") && judged("127.0.0.1", "localhost", "127.0.0.1"));
    assert!(!judged("localhost", "login.example.net", "127.0.0.1"), "only by its very name");
    assert!(judged("10.0.0.5", "10.0.0.5", "10.0.0.5"), "its own host, as it is registered");
    assert!(!judged("10.0.0.5", "10.0.0.6", "10.0.0.6"));
}
