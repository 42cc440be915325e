//! A tool's result as a model is told it, and a tool as a model is shown it.

use policies::json::Json;
use policies::manifest::Tool;
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
    ToolOutput { text, error: result.get("isError").and_then(Json::as_bool) == Some(true) }
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
