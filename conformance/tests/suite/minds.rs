//! How hard agents think, as the provider hears it.

use conformance::pleach::Folder;
use conformance::upstream::{Act, Upstream};
use serde_json::{Value, json};

/// The effort of an agent beats that of its model; another model asked for by a call thinks as it
/// is said of itself.
#[test]
fn the_effort_of_an_agent_beats_its_models() {
    let provider = Upstream::start(|seen| {
        let first = seen.body["messages"].as_array().map_or(0, Vec::len) == 2;
        let spawns = seen.body["messages"][0]["content"] == "Lead." && first;
        let input = json!({ "description": "d", "prompt": "p", "subagent_type": "kid", "model": "deep" });
        let call =
            json!({ "id": "c1", "type": "function", "function": { "name": "Agent", "arguments": input.to_string() } });
        let message = match spawns {
            true => json!({ "role": "assistant", "content": null, "tool_calls": [call] }),
            false => json!({ "role": "assistant", "content": "done" }),
        };
        let stop = if spawns { "tool_calls" } else { "stop" };
        Act::Status(
            200,
            json!({ "model": "m", "choices": [{ "index": 0, "message": message, "finish_reason": stop }] }),
        )
    });
    let base = &provider.base;
    let folder = Folder::new(&format!(
        "version = 1\n[gateway]\ndefault_agent = \"lead\"\n\
         [models.default]\nprovider = \"openai\"\nmodel = \"m\"\nbase_url = \"{base}/v1\"\neffort = \"low\"\n\
         [models.deep]\nprovider = \"openai\"\nmodel = \"m\"\nbase_url = \"{base}/v1\"\neffort = \"xhigh\"\n[policy]\n\
         [agents.lead]\nprompt = \"Lead.\"\neffort = \"high\"\nsubagents = [\"kid\"]\n[agents.kid]\nprompt = \"Kid.\"\neffort = \"medium\"\n\
         [agents.plain]\nprompt = \"Plain.\"\n"
    ));
    let ran = folder.run(&["run", "Go."]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "done\n"), "{ran:?}");
    assert_eq!(folder.run(&["run", "--agent", "plain", "Go."]).code, 0);
    let heard: Vec<(Value, Value)> = provider
        .came("POST")
        .iter()
        .map(|s| (s.body["messages"][0]["content"].clone(), s.body["reasoning_effort"].clone()))
        .collect();
    let expected = [("Lead.", "high"), ("Kid.", "xhigh"), ("Lead.", "high"), ("Plain.", "low")];
    assert_eq!(heard, expected.map(|(who, effort)| (who.into(), effort.into())), "{heard:?}");
}
