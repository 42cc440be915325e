//! A tool's result as a model is told it, and a tool as a model is shown it.

use adapters::mcp::meta;
use policies::json::Json;
use policies::manifest::Tool;
use subagents::event::Elsewhere;
use subagents::ports::{ToolOutput, ToolSpec};

/// A model is told no more than this of one result.
const MAX_TEXT: usize = 1 << 20;

pub(super) fn spec(tool: &Tool) -> ToolSpec {
    ToolSpec {
        name: tool.name.clone(),
        description: tool.definition.get("description").and_then(Json::as_str).unwrap_or("").to_owned(),
        input_schema: tool.definition.get("inputSchema").map(Json::to_serde).unwrap_or_default(),
    }
}

/// The text of a result (MCP `CallToolResult`). What is no text is named, not shown.
pub(super) fn output(result: &Json) -> ToolOutput {
    let blocks = result.get("content").and_then(Json::as_array).unwrap_or_default();
    let mut parts: Vec<String> = blocks.iter().map(block).collect();
    if parts.is_empty()
        && let Some(structured) = result.get("structuredContent")
    {
        parts.push(structured.to_text());
    }
    let mut text = parts.join("\n");
    if text.len() > MAX_TEXT {
        let mut cut = MAX_TEXT;
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        let left = text.len() - cut;
        text.truncate(cut);
        text.push_str(&format!("\n… {left} bytes left out; ask for less at a time"));
    }
    let error = result.get("isError").and_then(Json::as_bool) == Some(true);
    ToolOutput { text, error, used: Elsewhere::default() }
}

/// More than anything uses.
const MUCH: u64 = 1 << 50;

/// What a task elsewhere says that it used. Nothing of it is below zero; what is no number counts as
/// nothing, and more than was given as no more than that, where it is counted.
pub(super) fn used(result: &Json) -> Elsewhere {
    let said = result.get("_meta").and_then(|own| own.get(meta::USED));
    // Sums of a tree stay numbers whatever somebody says.
    let number = |key: &str| said.and_then(|said| said.get(key)).and_then(Json::as_u64).unwrap_or(0).min(MUCH);
    let small = |key: &str| u32::try_from(number(key)).unwrap_or(u32::MAX);
    Elsewhere {
        usd: number("usd"),
        tokens: number("tokens"),
        turns: small("turns"),
        tool_calls: small("tool_calls"),
        runs: small("runs"),
    }
}

fn block(block: &Json) -> String {
    let text = |key: &str| block.get(key).and_then(Json::as_str);
    match text("type") {
        Some("text") => text("text").unwrap_or("").to_owned(),
        Some(kind @ ("image" | "audio")) => {
            let size = text("data").map_or(0, |d| d.len() / 4 * 3);
            format!("[{kind} {}, about {size} bytes]", text("mimeType").unwrap_or("of unknown type"))
        }
        Some("resource_link") => format!("[resource {}]", text("uri").unwrap_or("?")),
        Some("resource") => {
            let resource = block.get("resource");
            let inner = |key: &str| resource.and_then(|r| r.get(key)).and_then(Json::as_str);
            inner("text").map_or_else(|| format!("[resource {}]", inner("uri").unwrap_or("?")), str::to_owned)
        }
        other => format!("[content of type {}]", other.unwrap_or("unknown")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::json::Limits;

    fn said(used: &str) -> Elsewhere {
        let result = format!("{{\"content\": [], \"_meta\": {{\"pleach/used\": {used}}}}}");
        super::used(&Json::parse(result.as_bytes(), Limits::default()).unwrap())
    }

    #[test]
    fn nobody_says_that_it_used_less_than_nothing() {
        let all = Elsewhere { usd: 1, tokens: 2, turns: 3, tool_calls: 4, runs: 5 };
        assert_eq!(said(r#"{"usd": 1, "tokens": 2, "turns": 3, "tool_calls": 4, "runs": 5, "more": 6}"#), all);
        for odd in ["{\"tokens\": -5}", "{\"tokens\": \"9\", \"runs\": null}", "[]", "7", "{\"usd\": -0.5}"] {
            assert_eq!(said(odd), Elsewhere::default(), "{odd}");
        }
        assert_eq!(said("{\"turns\": 5000000000}").turns, u32::MAX);
    }
}
