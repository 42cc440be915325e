//! Chat completions.

use super::*;
use subagents::event::Usage;

fn chunk(delta: Value, finish: Option<&str>) -> Value {
    json!({ "id": "c", "object": "chat.completion.chunk", "model": "gpt", "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] })
}
fn used() -> Value {
    json!({ "model": "gpt", "choices": [], "usage": { "prompt_tokens": 100, "completion_tokens": 20,
        "prompt_tokens_details": { "cached_tokens": 60 }, "completion_tokens_details": { "reasoning_tokens": 15 } } })
}
pub(super) fn chunks(list: &[Value]) -> Answer {
    Answer::events(list).then("data: [DONE]\n\n")
}
pub(super) fn hi() -> Answer {
    chunks(&[
        chunk(json!({ "role": "assistant", "content": "" }), None),
        chunk(json!({ "content": "Hel" }), None),
        chunk(json!({ "content": "lo" }), None),
        chunk(json!({}), Some("stop")),
        used(),
    ])
}
fn piece(index: Value, id: Value, name: Value, arguments: Value) -> Value {
    let mut call =
        json!({ "index": index, "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
    for key in ["index", "id"] {
        if call[key].is_null() {
            call.as_object_mut().unwrap().remove(key);
        }
    }
    call
}
async fn world(answers: impl IntoIterator<Item = Answer>) -> (Double, World) {
    let double = Double::new(answers).await;
    let world = World::of("openai", "gpt", &double, "");
    (double, world)
}

#[tokio::test(start_paused = true)]
async fn text_streams_and_the_request_is_as_the_api_wants_it() {
    let double = Double::new([hi()]).await;
    let world = World::of("openai", "gpt", &double, "effort = \"max\"\nmax_output = 1000");
    let messages = [
        Message::User("one".into()),
        Message::Assistant {
            text: String::new(),
            calls: vec![call("t1", "w", json!({ "city": "Oslo" }))],
            blocks: None,
        },
        Message::Results(vec![result("t1", "cold", false)]),
    ];
    let (tools, run) = ([tool("w")], RunId::known("r-1"));
    let schema = json!({ "type": "object", "properties": {} });
    let reply = world.ask(Request { schema: Some(&schema), ..request(&messages, &tools, &run) }).await.unwrap();
    let usage = Usage { input: 40, output: 20, cache_read: 60, ..Usage::default() };
    let expected =
        Reply { text: "Hello".into(), calls: vec![], stop: "end_turn".into(), usage, blocks: None, answered_by: None };
    assert_eq!((reply, world.told()), (expected, "Hello".into()));
    let Seen { path, headers, body, .. } = double.seen().remove(0);
    assert_eq!(
        (path.as_str(), headers["authorization"].to_str().unwrap()),
        ("/v1/chat/completions", format!("Bearer {KEY}").as_str())
    );
    let expected = json!({
        "model": "gpt", "stream": true, "stream_options": { "include_usage": true }, "max_completion_tokens": 1000,
        "reasoning_effort": "xhigh",
        "response_format": { "type": "json_schema", "json_schema": { "name": "answer", "strict": false, "schema": schema } },
        "tools": [{ "type": "function", "function": { "name": "w", "description": "d", "parameters": tools[0].input_schema } }],
        "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "one" },
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "t1", "type": "function", "function": { "name": "w", "arguments": "{\"city\":\"Oslo\"}" } },
            ] },
            { "role": "tool", "tool_call_id": "t1", "content": "cold" },
        ],
    });
    assert_eq!(body, expected);
}

#[tokio::test(start_paused = true)]
async fn parallel_calls_are_assembled_however_they_are_cut() {
    let null = Value::Null;
    let two = [
        chunk(json!({ "tool_calls": [piece(json!(0), json!("t1"), json!("w"), json!(""))] }), None),
        chunk(json!({ "tool_calls": [piece(json!(1), json!("t2"), json!("w"), json!("{\"city\""))] }), None),
        chunk(
            json!({ "tool_calls": [piece(json!(0), null.clone(), null.clone(), json!("{\"city\":\"Oslo\"}"))] }),
            None,
        ),
        chunk(json!({ "tool_calls": [piece(json!(1), null.clone(), null.clone(), json!(":\"Rome\"}"))] }), None),
        chunk(json!({}), Some("tool_calls")),
        used(),
    ];
    // Servers that number all calls 0, or none, and end with `stop`.
    let zero = [
        chunk(json!({ "tool_calls": [piece(json!(0), json!("t1"), json!("w"), json!("{\"city\":\"Oslo\"}"))] }), None),
        chunk(
            json!({ "tool_calls": [piece(json!(0), json!("t2"), json!("w"), json!("{\"city\":\"Rome\"}"))] }),
            Some("stop"),
        ),
    ];
    let none = [chunk(
        json!({ "tool_calls": [
            piece(null.clone(), json!("t1"), json!("w"), json!({ "city": "Oslo" })),
            piece(null.clone(), json!("t2"), json!("w"), json!({ "city": "Rome" })),
        ] }),
        Some("stop"),
    )];
    let nameless = [chunk(
        json!({ "tool_calls": [
            piece(null.clone(), null.clone(), json!("w"), json!("{\"city\":\"Oslo\"}")),
            piece(null.clone(), null.clone(), json!("w"), json!("{\"city\":\"Rome\"}")),
        ] }),
        Some("stop"),
    )];
    let (_double, world) = world([chunks(&two), chunks(&zero), Answer::events(&none), chunks(&nameless)]).await;
    for ids in [["t1", "t2"], ["t1", "t2"], ["t1", "t2"], ["call_0_0", "call_0_1"]] {
        let reply = world.hello().await.unwrap();
        let calls: Vec<ToolCall> =
            ids.iter().zip(["Oslo", "Rome"]).map(|(id, city)| call(id, "w", json!({ "city": city }))).collect();
        assert_eq!((reply.calls, reply.stop.as_str(), reply.blocks), (calls, "tool_use", None));
        assert!(reply.usage.input > 0, "counted, or estimated");
    }
}

/// Signatures on calls and the thinking before them come back; without calls they do not.
#[tokio::test(start_paused = true)]
async fn what_must_come_back_does() {
    let signed = json!({ "index": 0, "id": "t1", "type": "function", "function": { "name": "w", "arguments": "{}" },
        "extra_content": { "google": { "thought_signature": "AB==" } } });
    let answer = chunks(&[
        chunk(json!({ "role": "assistant", "content": null, "reasoning_content": "Hm" }), None),
        chunk(json!({ "reasoning_content": "m." }), None),
        chunk(json!({ "tool_calls": [signed] }), Some("tool_calls")),
    ]);
    let silent = chunks(&[chunk(json!({ "reasoning_content": "Hm", "content": "x" }), Some("stop"))]);
    let (double, world) = world([answer, hi(), silent]).await;
    let (tools, run, first) = ([tool("w")], RunId::known("r-1"), [Message::User("go".into())]);
    let reply = world.ask(request(&first, &tools, &run)).await.unwrap();
    assert_eq!(world.told(), "", "thinking is not told");
    let second = [first[0].clone(), assistant(&reply), Message::Results(vec![result("t1", "x", false)])];
    world.ask(request(&second, &tools, &run)).await.unwrap();
    assert_eq!(
        double.seen()[1].body["messages"][2],
        json!({ "role": "assistant", "content": null, "reasoning_content": "Hmm.", "tool_calls": [{
            "id": "t1", "type": "function", "function": { "name": "w", "arguments": "{}" },
            "extra_content": { "google": { "thought_signature": "AB==" } },
        }] })
    );
    assert_eq!(world.hello().await.unwrap().blocks, None);
}

#[tokio::test(start_paused = true)]
async fn ways_to_stop() {
    let answers = [
        chunks(&[chunk(json!({ "refusal": "I will not." }), None), chunk(json!({}), Some("stop"))]),
        chunks(&[chunk(json!({ "content": "x" }), Some("length"))]),
        chunks(&[chunk(json!({ "content": "" }), Some("content_filter"))]),
        chunks(&[chunk(
            json!({ "tool_calls": [piece(json!(0), json!("t"), json!("w"), json!("{\"ci"))] }),
            Some("length"),
        )]),
        chunks(&[chunk(json!({ "content": "x" }), Some("novel"))]),
    ];
    let (_double, world) = world(answers).await;
    let reply = world.hello().await.unwrap();
    assert_eq!((reply.stop.as_str(), reply.text.as_str()), ("refusal", "I will not."));
    assert_eq!(world.hello().await.unwrap().stop, "max_tokens");
    assert_eq!(world.hello().await.unwrap().stop, "refusal");
    let reply = world.hello().await.unwrap();
    assert_eq!((reply.stop.as_str(), reply.calls.len()), ("max_tokens", 0));
    assert_eq!(world.hello().await.unwrap().stop, "novel");
}

#[tokio::test(start_paused = true)]
async fn a_server_is_asked_in_the_words_it_knows() {
    let unknown = |word: &str| {
        Answer::error(
            400,
            &json!({ "error": { "message": format!("Unsupported parameter: '{word}' is not supported"), "type": "invalid_request_error" } }),
        )
    };
    let (double, world) = world([unknown("max_completion_tokens"), unknown("stream_options"), hi()]).await;
    assert_eq!(world.hello().await.unwrap().text, "Hello");
    world.hello().await.unwrap();
    let seen = double.seen();
    assert_eq!(seen.len(), 4, "found out once");
    for request in &seen[2..] {
        assert_eq!(request.body["max_tokens"], 8_192);
        assert_eq!((request.body.get("max_completion_tokens"), request.body.get("stream_options")), (None, None));
    }
    // A limit that is too high is no unknown word.
    let high =
        json!({ "error": { "message": "max_completion_tokens is too large: 9. This model supports at most 8" } });
    let (double, world) = super::openai::world([Answer::error(400, &high)]).await;
    assert!(world.hello().await.unwrap_err().why.contains("too large"));
    assert_eq!(double.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_document_instead_of_a_stream_and_no_usage() {
    let whole = json!({ "model": "org/GPT-2026-01-02", "choices": [{ "index": 0, "message": { "role": "assistant", "content": [{ "type": "text", "text": "hi" }] } }] });
    let (_double, world) = world([
        Answer::raw("application/json", vec![whole.to_string()]),
        chunks(&[json!({ "model": "other", "choices": [{ "delta": { "content": "x" }, "finish_reason": "stop" }] })]),
    ])
    .await;
    let reply = world.hello().await.unwrap();
    assert_eq!((reply.text.as_str(), reply.stop.as_str(), reply.answered_by), ("hi", "end_turn", None));
    assert!(reply.usage.input > 0 && reply.usage.output > 0, "estimated");
    assert_eq!(world.hello().await.unwrap().answered_by.as_deref(), Some("other"));
}
