//! Budgets: read wherever they may stand, and said in words.

use crate::world::{World, load};
use policies::json::{Json, Limits as Bounds};
use policies::price::Usd;
use policies::resolve::{Limits, budget_request, request};
use std::path::Path;
use std::time::Duration;

fn sample(name: &str) -> policies::resolve::Policy {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/valid").join(name);
    load(&std::fs::read_to_string(path).unwrap()).unwrap()
}
fn json(text: &str) -> Json {
    Json::parse(text.as_bytes(), Bounds::default()).unwrap()
}
fn minutes(n: u64) -> Option<Duration> {
    Some(Duration::from_secs(n * 60))
}

#[test]
fn a_budget_is_read_wherever_it_may_stand() {
    let policy = sample("budgets.toml");
    let root = Limits { turns: 200, tool_calls: 500, usd: Usd(2_000_000_000), tokens: 500_000, wall: minutes(30) };
    assert_eq!(policy.root_limits, root, "what the root says holds, more turns than the default too");
    let client = policy.clients.as_ref().unwrap().values().next().unwrap();
    assert_eq!(client.limits, Limits { usd: Usd(1_000_000_000), ..Limits::NONE });
    assert!(client.can_approve);
    let lead = policy.agents.values().find(|a| a.name.as_str() == "lead").unwrap();
    let wall = Some(Duration::from_secs(45));
    assert_eq!(lead.limits, Limits { usd: Usd(500_000_000), wall, ..Limits::NONE });
    assert_eq!(lead.subagent_limits, Limits { tokens: 1_000, wall: minutes(120), ..Limits::NONE });
    assert_eq!(policy.root_limits.meet(lead.subagent_limits).wall, minutes(30), "the lesser holds");
}

#[test]
fn absent_is_the_default_at_the_root_and_nothing_below() {
    assert_eq!(load("version = 1\n[policy]\n").unwrap().root_limits, Limits::DEFAULT);
    let policy = load("version = 1\n[policy.budget]\nwall = \"2h\"").unwrap();
    assert_eq!(policy.root_limits, Limits { wall: minutes(120), ..Limits::DEFAULT });
    assert_eq!((Limits::DEFAULT.turns, Limits::DEFAULT.usd), (100, Usd::MAX));
}

#[test]
fn a_spawn_request_may_name_each_limit() {
    let asks = json(r#"{"budget":{"usd":0.25,"tokens":1000,"turns":3,"tool_calls":0,"wall":"10m"}}"#);
    let (_, limits) = request(&asks, &World::default()).unwrap();
    let expected = Limits { turns: 3, tool_calls: 0, usd: Usd(250_000_000), tokens: 1_000, wall: minutes(10) };
    assert_eq!(limits, expected);
    assert_eq!(budget_request(asks.get("budget").unwrap()), Ok(expected));
    assert_eq!(budget_request(&json("{}")), Ok(Limits::NONE));
    for (wrong, why) in [
        (r#"{"usd":-1}"#, "budget.usd lies between 0"),
        (r#"{"usd":null}"#, "budget.usd is a number"),
        (r#"{"tokens":"many"}"#, "budget.tokens is an integer"),
        (r#"{"wall":60}"#, "budget.wall is a string"),
        (r#"{"wal":"1m"}"#, "did you mean \"wall\"?"),
        ("[]", "budget is a table"),
    ] {
        let said = budget_request(&json(wrong)).unwrap_err();
        assert!(said.contains(why), "{wrong}: {said}");
    }
}

#[test]
fn the_sentences_speak_of_budgets() {
    let policy = sample("budgets.toml");
    let sentences = policies::explain::sentences(&policy, Path::new("/work"));
    let says = |text: &str| assert!(sentences.iter().any(|s| s.contains(text)), "{text}: {sentences:#?}");
    says("It may spend $2.00, 500000 tokens, 200 turns, 500 tool calls, 30 minutes.");
    says("It may spend $0.50, 500000 tokens, 200 turns, 500 tool calls, 45 seconds.");
    says("Each of them may spend $0.50, 1000 tokens, 200 turns, 500 tool calls, 45 seconds.");
    assert_eq!(policies::explain::spends("It", &Limits::NONE), "It may spend without limit.");
    let one = Limits { turns: 1, ..Limits::NONE };
    assert_eq!(policies::explain::spends("It", &one), "It may spend 1 turn.");
}

#[test]
fn check_warns_of_a_budget_the_root_does_not_hold() {
    let source = "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"r\"\n[policy.budget]\nusd = 1\n\
                  [agents.a]\nprompt = \"p\"\npolicy.budget = { usd = 2, turns = 200, wall = \"1h\" }\n\
                  subagent_policy.budget = { usd = 1, tokens = 5 }";
    let warnings: Vec<String> = load(source).unwrap().warnings.iter().map(ToString::to_string).collect();
    let expected =
        "pleach.toml:9:8: agent a: policy.budget names more usd, turns than the root policy holds; the lesser counts";
    assert_eq!(warnings, [expected]);
}

#[test]
fn an_answer_is_held_to_its_schema() {
    let policy = sample("budgets.toml");
    let schema = |name: &str| {
        let agent = policy.agents.values().find(|a| a.name.as_str() == name).unwrap();
        agent.output_schema.clone().unwrap()
    };
    assert_eq!(schema("lead").check(r#" {"answer":"42"} "#).unwrap()["answer"], "42");
    assert!(schema("lead").check("{}").unwrap_err().contains("answer"));
    assert!(schema("lead").check("Forty-two.").unwrap_err().contains("is not JSON"));
    assert_eq!(schema("worker").value()["properties"]["pages"]["minimum"], 1);
    let said = schema("worker").check(r#"{"pages":0}"#).unwrap_err();
    assert!(said.starts_with("/pages: "), "{said}");
    assert_eq!(schema("lead"), schema("lead"));
}
