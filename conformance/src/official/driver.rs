//! The client under test: a Pleach in front of the suite's server, and a modern client that
//! asks Pleach for what the scenario wants to see arrive.

use crate::pleach::Folder;
use crate::served::{Answer, Served};
use serde_json::{Value, json};

/// Runs the scenario the suite named in the environment against its server at `url`.
///
/// # Errors
/// When Pleach cannot be asked.
pub fn drive(url: &str) -> Result<(), String> {
    let scenario = std::env::var("MCP_CONFORMANCE_SCENARIO").unwrap_or_default();
    let context: Value = std::env::var("MCP_CONFORMANCE_CONTEXT")
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    let runtime = tokio::runtime::Runtime::new().map_err(|e| e.to_string())?;
    if scenario.starts_with("auth/") {
        return runtime.block_on(super::authorized::run(&scenario, url, &context));
    }
    runtime.block_on(async {
        let folder = Folder::new(&super::policy(&format!("url = {url:?}")));
        let served = Served::start(&folder);
        let client = Client { served };
        let tools = client.list("tools/list", "tools").await;
        match scenario.as_str() {
            "http-custom-headers" => {
                for call in context["toolCalls"].as_array().into_iter().flatten() {
                    client.call(&call["name"], &call["arguments"], &tools).await;
                }
            }
            "json-schema-2020-12-preservation" => {
                // The schema as Pleach showed it, sent back.
                let rich = tools.iter().find(|t| !t["inputSchema"]["$schema"].is_null());
                let schema = rich.map(|t| t["inputSchema"].clone()).unwrap_or_default();
                let echo = tools.iter().find(|t| !t["inputSchema"]["properties"]["schema"].is_null());
                let name = echo.map(|t| t["name"].clone()).unwrap_or_default();
                client.call(&name, &json!({ "schema": schema }), &tools).await;
            }
            "sep-2322-client-request-state" => {
                for name in
                    ["test_mrtr_echo_state", "test_mrtr_unrelated", "test_mrtr_no_state", "test_mrtr_no_result_type"]
                {
                    client.call(&name.into(), &json!({}), &tools).await;
                }
            }
            _ => client.everything(&tools).await,
        }
        Ok(())
    })
}

struct Client {
    served: Served,
}

impl Client {
    async fn list(&self, method: &str, key: &str) -> Vec<Value> {
        let answer = self.send(method, json!({}), &[]).await.json();
        answer["result"][key].as_array().cloned().unwrap_or_default()
    }

    /// Every tool, prompt and resource once.
    async fn everything(&self, tools: &[Value]) {
        for tool in tools {
            let arguments = arguments(&tool["inputSchema"]);
            self.call(&tool["name"], &arguments, tools).await;
        }
        for resource in self.list("resources/list", "resources").await {
            self.send("resources/read", json!({ "uri": resource["uri"] }), &[]).await;
        }
        for prompt in self.list("prompts/list", "prompts").await {
            self.send("prompts/get", json!({ "name": prompt["name"] }), &[]).await;
        }
    }

    /// Calls a tool, answering whatever it asks.
    async fn call(&self, name: &Value, arguments: &Value, tools: &[Value]) {
        let mut params = json!({ "name": name, "arguments": arguments });
        let schema = tools.iter().find(|t| t["name"] == *name).map(|t| t["inputSchema"].clone()).unwrap_or_default();
        let mirrored = mirrored(&schema, arguments);
        let headers: Vec<(&str, &str)> = mirrored.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        for _ in 0..8 {
            let answer = self.send("tools/call", params.clone(), &headers).await.json();
            let result = &answer["result"];
            if result["resultType"] != "input_required" {
                return;
            }
            let asked = result["inputRequests"].as_object().cloned().unwrap_or_default();
            let answers = asked.iter().map(|(key, request)| (key.clone(), reply(request)));
            params["inputResponses"] = Value::Object(answers.collect());
            match &result["requestState"] {
                Value::Null => drop(params.as_object_mut().map(|p| p.remove("requestState"))),
                state => params["requestState"] = state.clone(),
            }
        }
    }

    async fn send(&self, method: &str, mut params: Value, more: &[(&str, &str)]) -> Answer {
        let can = json!({ "elicitation": { "form": {} }, "sampling": {}, "roots": {} });
        params["_meta"] = json!({ "io.modelcontextprotocol/clientCapabilities": can });
        self.served.modern("/mcp", method, params, more).await
    }
}

/// An answer to a question of a server.
fn reply(request: &Value) -> Value {
    match request["method"].as_str() {
        Some("elicitation/create") => {
            let properties = request["params"]["requestedSchema"]["properties"].as_object().cloned();
            let filled = properties.unwrap_or_default().into_iter().map(|(key, schema)| (key, sample(&schema)));
            json!({ "action": "accept", "content": Value::Object(filled.collect()) })
        }
        Some("roots/list") => json!({ "roots": [] }),
        _ => json!({ "role": "assistant", "content": { "type": "text", "text": "yes" }, "model": "m" }),
    }
}

/// Something that fits a schema: its default where it has one.
fn sample(schema: &Value) -> Value {
    if !schema["default"].is_null() {
        return schema["default"].clone();
    }
    match schema["type"].as_str() {
        Some("number" | "integer") => 5.into(),
        Some("boolean") => true.into(),
        Some("array") => json!([]),
        Some("object") => arguments(schema),
        _ => "text".into(),
    }
}

fn arguments(schema: &Value) -> Value {
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    Value::Object(properties.iter().map(|(key, schema)| (key.clone(), sample(schema))).collect())
}

/// The headers that repeat annotated arguments, as a client must send them.
fn mirrored(schema: &Value, arguments: &Value) -> Vec<(String, String)> {
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    let header = |(key, schema): (String, Value)| {
        let name = schema["x-mcp-header"].as_str()?.to_owned();
        let value = match &arguments[&key] {
            Value::String(text) => encode(text),
            Value::Null => return None,
            other => other.to_string(),
        };
        Some((format!("mcp-param-{}", name.to_ascii_lowercase()), value))
    };
    properties.into_iter().filter_map(header).collect()
}

fn encode(text: &str) -> String {
    let blank = |c: Option<char>| c.is_some_and(|c| c == ' ' || c == '\t');
    let plain =
        text.chars().all(|c| (' '..='~').contains(&c)) && !blank(text.chars().next()) && !blank(text.chars().last());
    if plain { text.to_owned() } else { format!("=?base64?{}?=", base64(text.as_bytes())) }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, b| word << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let index = (word >> (18 - 6 * at)) & 63;
            out.push(if at > chunk.len() { '=' } else { char::from(ALPHABET[index as usize]) });
        }
    }
    out
}
