//! The Messages API.

use super::*;
use subagents::event::Usage;
use subagents::ports::ModelFailure;

const MODEL: &str = "claude-sonnet-5-5";

fn start(usage: Value) -> Value {
    json!({ "type": "message_start", "message": { "id": "msg_1", "type": "message", "role": "assistant",
        "content": [], "model": MODEL, "stop_reason": null, "usage": usage } })
}
fn stop(reason: &str, output: u64) -> [Value; 2] {
    let delta = json!({ "stop_reason": reason, "stop_sequence": null });
    [
        json!({ "type": "message_delta", "delta": delta, "usage": { "output_tokens": output } }),
        json!({ "type": "message_stop" }),
    ]
}
/// A block, with pieces that continue it.
fn block(index: usize, block: Value, deltas: &[Value]) -> Vec<Value> {
    let mut out = vec![json!({ "type": "content_block_start", "index": index, "content_block": block })];
    out.extend(deltas.iter().map(|d| json!({ "type": "content_block_delta", "index": index, "delta": d })));
    out.push(json!({ "type": "content_block_stop", "index": index }));
    out
}
fn text(index: usize, pieces: &[&str]) -> Vec<Value> {
    let deltas: Vec<Value> = pieces.iter().map(|t| json!({ "type": "text_delta", "text": t })).collect();
    block(index, json!({ "type": "text", "text": "" }), &deltas)
}
fn tool_use(index: usize, id: &str, name: &str, pieces: &[&str]) -> Vec<Value> {
    let deltas: Vec<Value> = pieces.iter().map(|t| json!({ "type": "input_json_delta", "partial_json": t })).collect();
    block(index, json!({ "type": "tool_use", "id": id, "name": name, "input": {} }), &deltas)
}
/// A whole answer of blocks.
pub(super) fn message(blocks: &[Vec<Value>], reason: &str) -> Answer {
    let mut events = vec![start(json!({ "input_tokens": 10, "output_tokens": 1 })), json!({ "type": "ping" })];
    events.extend(blocks.iter().flatten().cloned());
    events.extend(stop(reason, 7));
    Answer::events(&events)
}
pub(super) fn hi() -> Answer {
    message(&[text(0, &["Hel", "lo"])], "end_turn")
}
pub(super) fn overloaded(status: u16) -> Answer {
    let body = json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } });
    Answer::error(status, &body)
}
async fn world(answers: impl IntoIterator<Item = Answer>) -> (Double, World) {
    let double = Double::new(answers).await;
    let world = World::of("anthropic", MODEL, &double, "");
    (double, world)
}

#[tokio::test(start_paused = true)]
async fn text_streams_and_the_request_is_as_the_api_wants_it() {
    let mut events = vec![start(json!({
        "input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 50,
        "cache_creation": { "ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30 }, "output_tokens": 1,
    }))];
    events.extend([json!({ "type": "future_event", "x": 1 }), json!({ "type": "ping" })]);
    events.extend(text(0, &["Hel", "lo"]));
    events.extend(stop("end_turn", 7));
    let double = Double::new([Answer::events(&events)]).await;
    let world = World::of("anthropic", MODEL, &double, "effort = \"high\"");
    let messages = [
        Message::User("one".into()),
        Message::Assistant {
            text: "I look.".into(),
            calls: vec![call("t1", "odd.name", json!({ "city": "Oslo" }))],
            blocks: None,
        },
        Message::Results(vec![result("t1", "cold", false), result("t2", "denied: no", true)]),
        Message::User("and?".into()),
    ];
    let (tools, run) = ([tool("files__Read"), tool("odd.name")], RunId::known("r-1"));
    let schema = json!({ "type": "object" });
    let asked = Request { schema: Some(&schema), max_output: 500_000, ..request(&messages, &tools, &run) };
    let reply = world.ask(asked).await.unwrap();
    let usage =
        Usage { input: 10, output: 7, cache_read: 100, cache_write: 20, cache_write_long: 30, ..Usage::default() };
    let expected =
        Reply { text: "Hello".into(), calls: vec![], stop: "end_turn".into(), usage, blocks: None, answered_by: None };
    assert_eq!((reply, world.told()), (expected, "Hello".into()));

    let Seen { path, headers, body, .. } = double.seen().remove(0);
    assert_eq!(
        (path.as_str(), &headers["x-api-key"], &headers["anthropic-version"]),
        ("/v1/messages", &KEY.parse().unwrap(), &"2026-10-21".parse().unwrap())
    );
    let mark = json!({ "type": "ephemeral" });
    let odd = body["tools"][1]["name"].as_str().unwrap().to_owned();
    assert!(odd.starts_with("odd_name_"), "{odd}");
    assert_eq!(body["tools"][0].get("cache_control"), None);
    assert_eq!(body["tools"][1]["cache_control"], mark);
    assert_eq!(body["system"], json!([{ "type": "text", "text": "Be brief.", "cache_control": mark }]));
    assert_eq!(
        body["messages"],
        json!([
            { "role": "user", "content": [{ "type": "text", "text": "one", "cache_control": mark }] },
            { "role": "assistant", "content": [
                { "type": "text", "text": "I look." },
                { "type": "tool_use", "id": "t1", "name": odd, "input": { "city": "Oslo" } },
            ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "t1", "content": "cold" },
                { "type": "tool_result", "tool_use_id": "t2", "content": "denied: no", "is_error": true },
                { "type": "text", "text": "and?", "cache_control": mark },
            ] },
        ])
    );
    assert_eq!(
        body["output_config"],
        json!({ "effort": "high", "format": { "type": "json_schema", "schema": schema } })
    );
    assert_eq!((&body["thinking"], &body["max_tokens"]), (&json!({ "type": "adaptive" }), &json!(128_000)));
    for absent in ["temperature", "top_p", "top_k", "tool_choice"] {
        assert_eq!(body.get(absent), None, "{absent}");
    }
}

/// Thinking, its signature and blocks of kinds nobody knows here go back as they came.
#[tokio::test(start_paused = true)]
async fn what_the_model_wrote_comes_back_unchanged() {
    let thinking = block(
        0,
        json!({ "type": "thinking", "thinking": "", "signature": "" }),
        &[
            json!({ "type": "thinking_delta", "thinking": "Let " }),
            json!({ "type": "thinking_delta", "thinking": "me." }),
            json!({ "type": "signature_delta", "signature": "EqQB+/=" }),
        ],
    );
    let unknown =
        block(1, json!({ "type": "novel", "data": "a", "n": 1.5 }), &[json!({ "type": "novel_delta", "data": "b" })]);
    let cited = block(
        2,
        json!({ "type": "text", "text": "", "citations": null }),
        &[
            json!({ "type": "text_delta", "text": "So" }),
            json!({ "type": "citations_delta", "citation": { "cited_text": "x" } }),
        ],
    );
    let called = block(
        3,
        json!({ "type": "tool_use", "id": "t1", "name": "w", "input": {}, "caller": { "type": "direct" } }),
        &[
            json!({ "type": "input_json_delta", "partial_json": "" }),
            json!({ "type": "input_json_delta", "partial_json": "{\"city\":" }),
            json!({ "type": "input_json_delta", "partial_json": "\"Oslo\"}" }),
        ],
    );
    let redacted = block(4, json!({ "type": "redacted_thinking", "data": "zzz" }), &[]);
    let blocks = [thinking, unknown, cited, called, redacted];
    let (double, world) = world([message(&blocks, "tool_use"), hi()]).await;
    let (tools, run) = ([tool("w")], RunId::known("r-1"));
    let first = [Message::User("go".into())];
    let reply = world.ask(request(&first, &tools, &run)).await.unwrap();
    assert_eq!((reply.text.as_str(), world.told().as_str()), ("So", "So"), "thinking is not told");
    assert_eq!(reply.calls, [call("t1", "w", json!({ "city": "Oslo" }))]);
    // As it comes out of the journal.
    let kept = reply.blocks.clone().map(|b| serde_json::from_str(&b.to_string()).unwrap());
    let reply = Reply { blocks: kept, ..reply };
    let second = [first[0].clone(), assistant(&reply), Message::Results(vec![result("t1", "cold", false)])];
    world.ask(request(&second, &tools, &run)).await.unwrap();
    let sent = double.seen()[1].body["messages"][1].clone();
    let wrote = json!([
        { "type": "thinking", "thinking": "Let me.", "signature": "EqQB+/=" },
        { "type": "novel", "data": "ab", "n": 1.5 },
        { "type": "text", "text": "So", "citations": [{ "cited_text": "x" }] },
        { "type": "tool_use", "id": "t1", "name": "w", "input": { "city": "Oslo" }, "caller": { "type": "direct" } },
        { "type": "redacted_thinking", "data": "zzz" },
    ]);
    assert_eq!(sent, json!({ "role": "assistant", "content": wrote }));
    assert_eq!(sent["content"].to_string(), wrote.to_string());
    // The beginning of both requests is the same, but for where the marks stand.
    let (a, b) = (&double.seen()[0].body, &double.seen()[1].body);
    assert_eq!((a["tools"].to_string(), a["system"].to_string()), (b["tools"].to_string(), b["system"].to_string()));
    assert_eq!(a["messages"][0], b["messages"][0]);

    // Another model is not given this one's thoughts; another format is given words and calls.
    let other = World::of("anthropic", "claude-opus-5-5", &double, "");
    other.ask(request(&second, &tools, &run)).await.unwrap();
    let kinds: Vec<Value> =
        double.seen()[2].body["messages"][1]["content"].as_array().unwrap().iter().map(|b| b["type"].clone()).collect();
    assert_eq!(kinds, ["novel", "text", "tool_use"]);
}

#[tokio::test(start_paused = true)]
async fn parallel_calls_and_what_is_wrong_with_them() {
    let calls = [
        text(0, &["Both."]),
        tool_use(1, "t1", "w", &["{\"city\":\"Oslo\"}"]),
        tool_use(2, "t1", "w", &[]),
        tool_use(3, "", "w", &["{\"city\": Oslo}"]),
    ];
    let (double, world) = world([message(&calls, "tool_use"), hi()]).await;
    let (tools, run, first) = ([tool("w")], RunId::known("r-1"), [Message::User("go".into())]);
    let reply = world.ask(request(&first, &tools, &run)).await.unwrap();
    let broken = json!({ "value": "{\"city\": Oslo}" });
    assert_eq!(
        reply.calls,
        [call("t1", "w", json!({ "city": "Oslo" })), call("t1_0_1", "w", json!({})), call("call_0_2", "w", broken)],
        "ids are made different, arguments that are none are shown to be none"
    );
    assert_eq!(reply.blocks, None, "words and calls say all of it");
    let results = reply.calls.iter().map(|c| result(&c.id, "x", false)).collect();
    let second = [first[0].clone(), assistant(&reply), Message::Results(results)];
    world.ask(request(&second, &tools, &run)).await.unwrap();
    let sent = double.seen()[1].body["messages"].clone();
    let ids = |of: &Value, key: &str| -> Vec<String> {
        of["content"].as_array().unwrap().iter().filter_map(|b| b[key].as_str()).map(str::to_owned).collect()
    };
    assert_eq!(ids(&sent[1], "id"), ids(&sent[2], "tool_use_id"), "one message of results for all");
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_gone_on_with_within_the_call() {
    let search = block(0, json!({ "type": "server_tool_use", "id": "s1", "name": "web_search", "input": {} }), &[]);
    let (double, world) = world([message(&[search], "pause_turn"), hi()]).await;
    let reply = world.hello().await.unwrap();
    assert_eq!((reply.text.as_str(), reply.stop.as_str()), ("Hello", "end_turn"));
    assert_eq!(reply.usage, Usage { input: 20, output: 14, ..Usage::default() });
    let kept = &reply.blocks.unwrap()["content"];
    assert_eq!((&kept[0]["type"], &kept[1]["text"]), (&json!("server_tool_use"), &json!("Hello")));
    let sent = double.seen()[1].body["messages"].clone();
    assert_eq!(sent[1], json!({ "role": "assistant", "content": [kept[0].clone()] }));
    // Not for ever.
    let again = block(0, json!({ "type": "server_tool_use", "id": "s", "name": "x", "input": {} }), &[]);
    let (double, world) = super::anthropic::world([message(&[again], "pause_turn")]).await;
    assert_eq!(world.hello().await.unwrap().stop, "pause_turn");
    assert_eq!(double.seen().len(), 8);
}

#[tokio::test(start_paused = true)]
async fn ways_to_stop() {
    let mut refused = vec![start(json!({ "input_tokens": 1 }))];
    refused.extend(tool_use(0, "t", "w", &["{}"]));
    refused.push(json!({ "type": "message_delta", "delta": { "stop_reason": "refusal",
        "stop_details": { "type": "refusal", "category": "cyber", "explanation": "Not this." } }, "usage": {} }));
    refused.push(json!({ "type": "message_stop" }));
    let cut = [tool_use(0, "t1", "w", &["{}"]), tool_use(1, "t2", "w", &["{\"ci"])];
    let answers = [
        Answer::events(&refused),
        message(&cut, "max_tokens"),
        message(&[text(0, &["x"])], "model_context_window_exceeded"),
        message(&[], "end_turn"),
    ];
    let (_double, world) = world(answers).await;
    let reply = world.hello().await.unwrap();
    assert_eq!((reply.stop.as_str(), reply.text.as_str(), reply.calls.len()), ("refusal", "Not this.", 0));
    let reply = world.hello().await.unwrap();
    let ids: Vec<&str> = reply.calls.iter().map(|c| c.id.as_str()).collect();
    assert_eq!((reply.stop.as_str(), ids, reply.blocks), ("max_tokens", vec!["t1"], None), "a call cut off is none");
    assert_eq!(world.hello().await.unwrap().stop, "context");
    assert_eq!(world.hello().await.unwrap().text, "");
}

#[tokio::test(start_paused = true)]
async fn tokens_are_counted_there_or_estimated() {
    let counted = Answer::raw("application/json", vec![json!({ "input_tokens": 42 }).to_string()]);
    let (double, world) = world([counted, overloaded(500)]).await;
    let (messages, run) = ([Message::User("x".repeat(3_000))], RunId::known("r-1"));
    let model = &world.models[&name("m")];
    assert_eq!(model.count(&request(&messages, &[], &run)).await, 42);
    let seen = double.seen().remove(0);
    assert_eq!(seen.path, "/v1/messages/count_tokens");
    assert_eq!((seen.body.get("max_tokens"), seen.body.get("stream")), (None, None));
    let estimated = model.count(&request(&messages, &[], &run)).await;
    assert!((1_000..1_100).contains(&estimated), "{estimated}");
    let facts = model.facts();
    assert_eq!((facts.context, facts.max_output, facts.price.unwrap().input), (1_000_000, 128_000, 2_000));
}

#[tokio::test(start_paused = true)]
async fn a_document_instead_of_a_stream_and_versions() {
    let whole = json!({ "type": "message", "model": "claude-sonnet-5-5-20260901", "content": [{ "type": "text", "text": "hi" }],
        "stop_reason": "end_turn", "usage": { "input_tokens": 3, "output_tokens": 2 } });
    let double = Double::new([Answer::raw("application/json", vec![whole.to_string()])]).await;
    let world = World::of("anthropic", MODEL, &double, "version = \"2023-06-01\"");
    let reply = world.hello().await.unwrap();
    assert_eq!((reply.text.as_str(), reply.usage.output, reply.answered_by), ("hi", 2, None));
    assert_eq!(double.seen()[0].headers["anthropic-version"], "2023-06-01");
    // A model of another maker behind this API is not told to think.
    let other = World::of("anthropic", "qwen", &double, "");
    assert_eq!(other.hello().await.unwrap().answered_by.as_deref(), Some("claude-sonnet-5-5-20260901"));
    assert_eq!(double.seen()[1].body.get("thinking"), None);
    let old = World::of("anthropic", "claude-haiku-4-5-20251001", &double, "");
    old.hello().await.unwrap();
    assert_eq!(double.seen()[2].body.get("thinking"), None);
    assert_eq!(double.seen()[2].body["max_tokens"], 32_000);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_says_so() {
    let body = json!({ "type": "error", "error": { "type": "invalid_request_error", "message": "prompt is too long: 2 tokens > 1 maximum" } });
    let (double, world) = world([Answer::error(400, &body)]).await;
    assert_eq!(world.hello().await.unwrap_err().kind, ModelFailure::TooLong);
    assert_eq!(double.seen().len(), 1);
}
