//! `diff`: every component wider, narrower, incomparable and equal; and the law that it says
//! "wider" exactly when the new grant is not within the old.

use crate::universe::grant;
use crate::world::load;
use policies::diff::{Change, Way, diff, is_wider};
use policies::resolve::Policy;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

const HEAD: &str = "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n";

fn changes(old: &str, new: &str) -> Vec<Change> {
    let read = |text: &str| load(&format!("{HEAD}{text}")).unwrap_or_else(|e| panic!("{e}\n{text}"));
    diff(&read(old), &read(new), Path::new("/work"))
}

/// The way a component of somebody went, with the sentence.
fn way(all: &[Change], who: &str, what: &str) -> Option<(Way, String)> {
    all.iter().find(|c| c.who == who && c.what == what).map(|c| (c.way, c.to_string()))
}

/// From `less` to `more` is wider, back is narrower, `aside` is neither within the other, and
/// nothing is different from itself.
fn ladder(what: &str, less: &str, more: &str, aside: Option<&str>) {
    let root = |text: &str| format!("[policy]\n{text}\n");
    let look = |old: &str, new: &str| {
        let all = changes(&root(old), &root(new));
        (way(&all, "root policy", what), is_wider(&all))
    };
    let (up, wider) = look(less, more);
    assert_eq!(up.as_ref().map(|w| w.0), Some(Way::Wider), "{what}: {up:?}");
    assert!(wider && up.unwrap().1.contains("pleach.toml:"), "{what}");
    let (down, wider) = look(more, less);
    assert_eq!(down.as_ref().map(|w| w.0), Some(Way::Narrower), "{what}: {down:?}");
    assert!(!wider, "{what}");
    assert_eq!(look(more, more), (None, false), "{what}");
    if let Some(aside) = aside {
        let (both, wider) = look(more, aside);
        assert_eq!(both.map(|w| w.0), Some(Way::Other), "{what}");
        assert!(wider, "{what}");
    }
}

#[test]
fn every_component_goes_up_and_down_and_aside() {
    ladder(
        "filesystem",
        "filesystem = { read = [\"./a\"] }",
        "filesystem = { read = [\"./a\", \"./b\"] }",
        Some("filesystem = { read = [\"./a\", \"./c\"] }"),
    );
    ladder(
        "filesystem",
        "filesystem = { read = [\"./a\"], deny = [\"./a/secret\"] }",
        "filesystem = { read = [\"./a\"] }",
        None,
    );
    ladder(
        "domains",
        "domains = { allow = [\"d.com\"] }",
        "domains = { allow = [\"d.com\", \"**.e.com\"] }",
        Some("domains = { allow = [\"d.com\", \"f.com\"] }"),
    );
    ladder(
        "networks",
        "networks = { allow = [\"10.0.0.0/9\"] }",
        "networks = { allow = [\"10.0.0.0/8\"] }",
        Some("networks = { allow = [\"192.168.0.0/16\"] }"),
    );
    ladder("max_access", "max_access = \"read-only\"", "max_access = \"destructive\"", None);
    ladder(
        "tools",
        "tools = { allow = [\"*__a*\"] }",
        "tools = { allow = [\"*__a*\", \"*__bx\"] }",
        Some("tools = { allow = [\"*__a*\", \"*__cx\"] }"),
    );
    ladder("tools", "tools = { ask = [\"*__a*\"] }", "tools = { allow = [\"*__a*\"] }", None);
    ladder("tools", "tools = { allow = [\"*__a*\"], deny = [\"*__ax\"] }", "tools = { allow = [\"*__a*\"] }", None);
    ladder("spawn", "spawn = { max_depth = 1 }", "spawn = { max_depth = 2 }", None);
    ladder("sandbox", "sandbox = { profile = \"full\" }", "sandbox = { profile = \"off\" }", None);
    ladder(
        "budget",
        "budget = { turns = 10, tokens = 10 }",
        "budget = { turns = 20, tokens = 10 }",
        Some("budget = { turns = 5, tokens = 90 }"),
    );
}

#[test]
fn agents_and_clients_feel_what_the_root_loses() {
    let file = |read: &str| {
        format!(
            "[policy]\nfilesystem = {{ read = [{read}] }}\nmax_access = \"read-write\"\n\
             [clients.ci]\ntoken = \"${{CI_TOKEN}}\"\n\
             [agents.a]\nprompt = \"p\"\nsubagents = [\"b\"]\n[agents.a.policy]\nmax_access = \"read-only\"\n\
             [agents.a.subagent_policy]\nmax_access = \"read-write\"\n[agents.b]\nprompt = \"p\"\n"
        )
    };
    let all = changes(&file("\"./a\", \"./b\""), &file("\"./a\""));
    for who in ["root policy", "client ci", "agent a", "children of agent a", "agent b"] {
        let (way, says) = way(&all, who, "filesystem").unwrap_or_else(|| panic!("{who}: {all:?}"));
        assert_eq!(way, Way::Narrower);
        assert!(says.contains("may no longer read b") && says.contains("pleach.toml:"), "{says}");
    }
    // Who got narrower is everybody it reaches, and nobody else is told of.
    assert_eq!(all.len(), 5, "{all:?}");
}

#[test]
fn a_ceiling_that_was_not_reached_makes_nobody_wider() {
    let file = |access: &str| {
        format!(
            "[policy]\nmax_access = \"read-only\"\n[agents.a]\nprompt = \"p\"\n[agents.a.policy]\nmax_access = \"{access}\"\n"
        )
    };
    let all = changes(&file("read-only"), &file("destructive"));
    assert!(!is_wider(&all), "its grant is met with the root's, whatever it asks for: {all:?}");
}

#[test]
fn what_an_agent_may_give_is_compared_too() {
    let file = |give: &str| {
        format!(
            "[policy]\nmax_access = \"destructive\"\n[agents.a]\nprompt = \"p\"\nsubagents = [\"b\"]\n\
             [agents.a.policy]\nmax_access = \"read-only\"\n[agents.a.subagent_policy]\nmax_access = \"{give}\"\n\
             [agents.b]\nprompt = \"p\"\n"
        )
    };
    let all = changes(&file("read-only"), &file("read-write"));
    let (way_, says) = way(&all, "children of agent a", "max_access").unwrap();
    assert_eq!(way_, Way::Wider);
    assert!(says.contains("pleach.toml:13"), "{says}");
    assert_eq!(way(&all, "agent a", "max_access"), None);
}

#[test]
fn callers_come_and_go() {
    let clients = |text: &str| format!("[policy]\nmax_access = \"read-write\"\n{text}");
    let ci = "[clients.ci]\ntoken = \"${CI_TOKEN}\"\n";
    let narrow = "[clients.ci]\ntoken = \"${CI_TOKEN}\"\n[clients.ci.policy]\nmax_access = \"read-only\"\n";
    let open = changes(&clients(ci), &clients(""));
    assert_eq!(way(&open, "whoever calls without a token", "itself").map(|w| w.0), Some(Way::Wider));
    assert!(is_wider(&open));
    let shut = changes(&clients(""), &clients(narrow));
    assert_eq!(way(&shut, "whoever calls without a token", "itself").map(|w| w.0), Some(Way::Narrower));
    assert_eq!(way(&shut, "client ci", "max_access").map(|w| w.0), Some(Way::Narrower), "it was anybody before");
    assert!(!is_wider(&shut), "{shut:?}");
    let approves = format!("{ci}can_approve = true\n");
    assert_eq!(way(&changes(&clients(ci), &clients(&approves)), "client ci", "can_approve").unwrap().0, Way::Wider);
    assert!(!is_wider(&changes(&clients(&approves), &clients(ci))));
}

#[test]
fn agents_that_may_be_started() {
    let file = |may: &str| {
        format!(
            "[clients.ci]\ntoken = \"${{CI_TOKEN}}\"\nmay_start = [{may}]\n[agents.a]\nprompt = \"p\"\n[agents.b]\nprompt = \"p\"\n"
        )
    };
    let one = changes(&file("\"a\""), &file("\"a\", \"b\""));
    assert_eq!(way(&one, "client ci", "may_start").unwrap().0, Way::Wider);
    let other = changes(&file("\"a\""), &file("\"b\""));
    assert_eq!(way(&other, "client ci", "may_start").unwrap().0, Way::Other);
    assert_eq!(changes(&file("\"a\""), &file("\"a\"")), []);
}

#[test]
fn servers_and_tools() {
    let looks = |old: &str, new: &str, who: &str, what: &str| way(&changes(old, new), who, what).map(|w| w.0);
    let git = "[servers.git]\ncommand = \"mcp-server-git\"\n";
    let server = |more: &str| format!("{git}{more}\n");
    assert_eq!(looks("", git, "server git", "itself"), Some(Way::Wider));
    assert_eq!(looks(git, "", "server git", "itself"), Some(Way::Narrower));
    let other = "[servers.git]\ncommand = \"something-else\"\n";
    assert_eq!(looks(git, other, "server git", "command"), Some(Way::Other));
    let url = |url: &str| format!("[servers.s]\nurl = \"{url}\"\n");
    assert_eq!(looks(&url("https://a.com/mcp"), &url("https://b.com/mcp"), "server s", "url"), Some(Way::Other));
    let env = server("env = { CI = \"${CI_TOKEN}\" }");
    assert_eq!(looks(&server(""), &env, "server git", "env"), Some(Way::Wider));
    assert_eq!(looks(&env, &server(""), "server git", "env"), Some(Way::Narrower));
    let plain = server("env = { CI = \"x\" }");
    assert_eq!(looks(&plain, &env, "server git", "env"), Some(Way::Neutral));
    let told = format!("{:?}", changes(&plain, &env));
    assert!(!told.contains("0123456789abcdef0123"), "a secret is in the difference: {told}");
    let default = |class: &str| server(&format!("default_access = \"{class}\""));
    assert_eq!(looks(&default("destructive"), &default("read-only"), "server git", "default_access"), Some(Way::Wider));
    assert_eq!(
        looks(&default("read-only"), &default("read-write"), "server git", "default_access"),
        Some(Way::Narrower)
    );
    assert_eq!(looks(&default("destructive"), &default("destructive"), "server git", "default_access"), None);
    let trust = server("annotations = \"trust\"");
    assert_eq!(looks(&server(""), &trust, "server git", "annotations"), Some(Way::Wider));
    let tool = |words: &str| server(&format!("[servers.git.tools.git_log]\n{words}"));
    let who = "tool git_log of server git";
    assert_eq!(
        looks(&tool("access = \"destructive\""), &tool("access = \"read-only\""), who, "access"),
        Some(Way::Wider)
    );
    assert_eq!(
        looks(&tool("access = \"read-only\""), &tool("access = \"destructive\""), who, "access"),
        Some(Way::Narrower)
    );
    let args = |args: &str| tool(&format!("access = \"read-only\"\npath_args = [{args}]"));
    assert_eq!(looks(&args("\"/a\", \"/b\""), &args("\"/a\""), who, "path_args"), Some(Way::Wider));
    assert_eq!(looks(&args("\"/a\""), &args("\"/a\", \"/b\""), who, "path_args"), Some(Way::Narrower));
    let effect = |effect: &str| tool(&format!("access = \"read-only\"\neffect = \"{effect}\""));
    assert_eq!(looks(&effect("pure"), &effect("once"), who, "effect"), Some(Way::Neutral));
    assert!(!is_wider(&changes(&effect("pure"), &effect("once"))));
}

#[test]
fn a_file_is_no_different_from_itself_and_from_itself_with_other_lines() {
    let small = "[policy]\nmax_access = \"read-only\"\n[agents.a]\nprompt = \"p\"\n";
    assert_eq!(changes(small, &format!("# more\n{small}")), []);
}

fn with_root(policy: &Policy, root: policies::grant::Grant) -> Policy {
    Policy { root: Arc::new(root), ..policy.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Somebody is told to be wider exactly when some effective grant is not within what it was.
    #[test]
    fn wider_is_said_exactly_where_it_is_so(old in grant(), new in grant()) {
        let file = format!(
            "{HEAD}[agents.x]\nprompt = \"p\"\nsubagents = [\"y\"]\n[agents.x.subagent_policy]\nmax_access = \"read-only\"\n\
             [agents.y]\nprompt = \"p\"\n"
        );
        let base = load(&file).unwrap();
        let (before, after) = (with_root(&base, old.clone()), with_root(&base, new.clone()));
        let all = diff(&before, &after, Path::new("/work"));
        let says = |who: &str| all.iter().any(|c| c.who == who && c.way.is_wider());
        prop_assert_eq!(says("root policy"), !new.within(&old), "{:?}", all);
        for agent in ["x", "y"] {
            let own = |policy: &Policy| {
                let agent = policy.agents.values().find(|a| a.name.as_str() == agent).unwrap();
                policies::authority::RunAuthority::spawn(&policy.door(None), &agent.policy, None).unwrap()
            };
            let (was, is) = (own(&before), own(&after));
            let wider = !is.use_.grant().within(was.use_.grant());
            prop_assert_eq!(says(&format!("agent {agent}")), wider);
            let gives = agent == "x" && !is.delegate.grant().within(was.delegate.grant());
            prop_assert_eq!(says(&format!("children of agent {agent}")), gives);
        }
        // Nothing is said to change that did not, and what is said has words.
        prop_assert_eq!(all.is_empty() || old != new, true);
        prop_assert!(all.iter().all(|c| !c.says.trim().is_empty()));
    }
}
