//! What goes wrong on the way: the same for both formats.

use super::anthropic::overloaded;
use super::*;
use std::time::Duration;
use subagents::event::Usage;
use subagents::ports::ModelFailure;
use tokio::time::Instant;

/// Of both: the provider's word, its model, and an answer that says Hello.
fn both() -> [(&'static str, &'static str, Answer); 2] {
    [("anthropic", "claude-sonnet-5-5", anthropic::hi()), ("openai", "gpt", openai::hi())]
}

fn limited() -> Answer {
    Answer::error(429, &json!({ "type": "error", "error": { "type": "rate_limit_error", "message": "Slow down" } }))
}

#[tokio::test(start_paused = true)]
async fn a_limit_is_waited_for_as_long_as_was_said() {
    for (provider, model, hi) in both() {
        let double = Double::new([limited().with("retry-after-ms", 3_000).with("retry-after", 60), hi]).await;
        let world = World::of(provider, model, &double, "");
        assert_eq!(world.hello().await.unwrap().text, "Hello");
        let seen = double.seen();
        let waited = seen[1].at - seen[0].at;
        assert!((3_000..3_100).contains(&waited.as_millis()), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_money_is_not_waited_for() {
    for (provider, model, hi) in both() {
        for body in [
            json!({ "error": { "type": "rate_limit_error", "message": "x", "details": { "error_code": "enforced_spend_limit_reached" } } }),
            json!({ "error": { "type": "rate_limit_error", "message": "x", "details": { "error_code": "contract_enforced_spend_limit_reached" } } }),
        ] {
            let double = Double::new([Answer::error(429, &body), hi.clone()]).await;
            // Money at another provider is another matter, but nobody asked for that.
            let world = World::new(&format!(
                "{}{}",
                entry("m", provider, model, &double, "fallback = [\"b\"]"),
                entry("b", provider, model, &double, "")
            ));
            assert_eq!(world.hello().await.unwrap_err().kind, ModelFailure::Spend);
            assert_eq!(double.seen().len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_model_is_tried_again_then_another_answers() {
    for (provider, model, hi) in both() {
        let (bad, good) = (Double::new([overloaded(529)]).await, Double::new([hi]).await);
        let two = format!(
            "{}{}",
            entry("m", provider, model, &bad, "fallback = [\"b\"]"),
            entry("b", provider, "cheap", &good, "")
        );
        let world = World::new(&two);
        let began = Instant::now();
        let reply = world.hello().await.unwrap();
        assert_eq!(reply.text, "Hello");
        assert!(reply.answered_by.is_some());
        assert_eq!(bad.seen().len(), 5);
        let waited = began.elapsed().as_millis();
        assert!((5_600..7_700).contains(&waited), "0.5 + 1 + 2 + 4 s less a quarter: {waited}");
        // After three in a row it is left alone, and tried once when it has cooled down.
        world.hello().await.unwrap();
        world.hello().await.unwrap();
        let before = Instant::now();
        world.hello().await.unwrap();
        assert_eq!((bad.seen().len(), good.seen().len()), (15, 4));
        assert!(before.elapsed() < Duration::from_millis(100));
        tokio::time::advance(Duration::from_secs(20)).await;
        world.hello().await.unwrap();
        assert_eq!(bad.seen().len(), 16);
        // Without a fallback the error says all of that.
        let alone = World::new(&entry("m", provider, model, &bad, ""));
        let error = alone.hello().await.unwrap_err();
        let host = bad.url().replace("http://", "");
        let expected = format!("{provider} {model} at {host}: HTTP 529 overloaded_error: Overloaded (5 tries)");
        assert_eq!((error.kind, error.why), (ModelFailure::Unavailable, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_out_of_reach() {
    let gone = Double::new([limited()]).await;
    let world = World::of("openai", "gpt", &gone, "");
    drop(gone);
    tokio::task::yield_now().await;
    let error = world.hello().await.unwrap_err();
    assert_eq!(error.kind, ModelFailure::Unavailable);
    assert!(error.why.contains("(5 tries)"), "{}", error.why);
}

/// An answer's events up to where it breaks.
fn half(provider: &str, told: bool) -> Vec<Value> {
    let text = if told { "Hel" } else { "" };
    match provider {
        "openai" => vec![
            json!({ "model": "gpt", "choices": [{ "index": 0, "delta": { "role": "assistant", "content": text } }] }),
        ],
        _ => vec![
            json!({ "type": "message_start", "message": { "model": "claude-sonnet-5-5", "usage": { "input_tokens": 10, "output_tokens": 1 } } }),
            json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
            json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } }),
        ],
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_is_tried_again_unless_something_was_told() {
    for (provider, model, hi) in both() {
        let events = |told| Answer::events(&half(provider, told));
        for broken in [
            events(false).broken(),
            events(false),
            events(false).endless(),
            events(false).then("data: {garbage\n\n"),
            events(false)
                .then("data: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}\n\n"),
            Answer::raw("text/event-stream", vec![]),
            Answer::raw("text/html", vec!["<html>hello</html>".into()]),
            Answer::raw("application/json", vec!["{\"nothing\":1}".into()]),
        ] {
            let double = Double::new([broken, hi.clone()]).await;
            let world = World::of(provider, model, &double, "");
            let reply = world.hello().await.unwrap();
            assert_eq!((reply.text.as_str(), world.told().as_str(), double.seen().len()), ("Hello", "Hello", 2));
        }
        // What somebody has read already is not said again, by nobody.
        let double = Double::new([events(true).broken(), hi]).await;
        let two = format!(
            "{}{}",
            entry("m", provider, model, &double, "fallback = [\"b\"]"),
            entry("b", provider, model, &double, "")
        );
        let world = World::new(&two);
        let error = world.hello().await.unwrap_err();
        assert_eq!((error.kind, world.told().as_str(), double.seen().len()), (ModelFailure::Unavailable, "Hel", 1));
        assert!(error.usage.input > 0 && error.usage.output > 0, "what was billed is told: {:?}", error.usage);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_try_is_counted_with_the_answer() {
    let double = Double::new([Answer::events(&half("anthropic", false)).broken(), anthropic::hi()]).await;
    let world = World::of("anthropic", "claude-sonnet-5-5", &double, "");
    assert_eq!(world.hello().await.unwrap().usage, Usage { input: 20, output: 8, ..Usage::default() });
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_end_ends() {
    for (provider, model, _) in both() {
        let line = format!("data: {}\n\n", json!({ "type": "ping", "x": "y".repeat(1 << 20) }));
        let double = Double::new([Answer::raw("text/event-stream", vec![line; 70])]).await;
        let error = World::of(provider, model, &double, "").hello().await.unwrap_err();
        assert!(error.why.contains("larger than"), "{}", error.why);
        assert_eq!(double.seen().len(), 1, "one more would be as large");
        let ping = format!("data: {}\n\n", json!({ "type": "ping" }));
        let double =
            Double::new([Answer::raw("text/event-stream", vec![ping; 80]).slow(Duration::from_secs(60))]).await;
        let began = Instant::now();
        let error = World::of(provider, model, &double, "").hello().await.unwrap_err();
        assert!(error.why.contains("more than 3600 s") && began.elapsed().as_secs() < 3_700, "{}", error.why);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_an_answer() {
    for (provider, model, hi) in both() {
        let double = Double::new([hi.slow(Duration::from_secs(100))]).await;
        assert_eq!(World::of(provider, model, &double, "").hello().await.unwrap().text, "Hello");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_closes_the_connection() {
    for (provider, model, _) in both() {
        let double = Double::new([Answer::events(&half(provider, true)).endless()]).await;
        let world = World::of(provider, model, &double, "");
        let left = tokio::time::timeout(Duration::from_secs(5), world.hello()).await;
        assert!(left.is_err());
        assert_eq!(world.told(), "Hel");
        double.left().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_key_is_in_no_error() {
    for (provider, model, _) in both() {
        for answer in [
            Answer::error(
                401,
                &json!({ "error": { "type": "authentication_error", "message": format!("invalid key {KEY}") } }),
            ),
            Answer::raw(
                "text/event-stream",
                vec![format!("data: {{\"error\":{{\"message\":\"{KEY}\",\"code\":400}}}}\n\n")],
            ),
        ] {
            let double = Double::new([answer]).await;
            let world = World::of(provider, model, &double, "");
            let error = world.hello().await.unwrap_err();
            assert_eq!(error.kind, ModelFailure::Refused, "{}", error.why);
            assert!(error.why.contains("[key]") && !error.why.contains(KEY), "{}", error.why);
            assert!(!format!("{:?}", world.policy).contains(KEY));
            assert_eq!(double.seen().len(), 1, "no retry helps");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_script_can_answer_instead() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("r.toml");
    std::fs::write(&script, "[[reply]]\ntext = \"from the file\"\n").unwrap();
    let bad = Double::new([overloaded(503)]).await;
    let script = format!("[models.b]\nprovider = \"scripted\"\nscript = \"{}\"\n", script.display());
    let world = World::new(&format!("{}{script}", entry("m", "openai", "gpt", &bad, "fallback = [\"b\"]")));
    let reply = world.hello().await.unwrap();
    assert_eq!((reply.text.as_str(), reply.answered_by.as_deref()), ("from the file", Some("b")));
}

/// Two models of a family share a limit; another family has its own.
#[tokio::test(start_paused = true)]
async fn a_family_waits_together() {
    let double = Double::new([limited().with("retry-after", 30), anthropic::hi()]).await;
    let models = [("m", "claude-opus-5-5"), ("same", "claude-opus-5"), ("other", "claude-haiku-5-5")];
    let models: String = models.iter().map(|(n, model)| entry(n, "anthropic", model, &double, "")).collect();
    let world = World::new(&models);
    let ask = |which: &'static str, after: u64| {
        let world = &world;
        async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            let began = Instant::now();
            let Verdict::Allow(permit, _) = decide::complete(&world.policy.door(None), name(which)) else { panic!() };
            let (messages, run) = ([Message::User("hello".into())], RunId::known("r-1"));
            world.models[&name(which)].complete(permit, request(&messages, &[], &run), &|_| {}).await.unwrap();
            began.elapsed().as_secs()
        }
    };
    let waited = tokio::join!(ask("m", 0), ask("same", 100), ask("other", 200));
    assert_eq!(waited, (30, 29, 0));
}
