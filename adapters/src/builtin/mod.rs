//! Servers that ship with Pleach, run like any other: our own binary, re-executed inside the
//! sandbox, speaking MCP on its standard streams through rmcp. Nothing here checks policy; the
//! guard did, and the kernel does.

mod bash;
mod files;
mod search;
mod web;

use rmcp::ServiceExt;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, JsonObject, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::{RequestContext, RoleServer};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The first argument that makes our binary a built-in server; the second says which.
pub const ENTRY: &str = "__builtin";
/// Read, Write, Edit, Glob, Grep and Bash over the working folder.
pub const WORKSPACE: &str = "workspace";
/// WebFetch.
pub const WEB: &str = "web";

/// What a tool gives back: text, or text that says what went wrong.
type Outcome = Result<String, String>;

/// Serves until its input closes. Called inside the sandbox.
///
/// # Errors
/// When the streams cannot be used, or nothing goes by that name.
pub fn serve(which: &str) -> std::io::Result<()> {
    let web = match which {
        WORKSPACE => false,
        WEB => true,
        other => return Err(std::io::Error::other(format!("there is no built-in server {other:?}"))),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Builtin { folder: std::env::current_dir()?, web };
        let running = server.serve(rmcp::transport::stdio()).await.map_err(std::io::Error::other)?;
        running.waiting().await.map(drop).map_err(std::io::Error::other)
    })
}

/// One of them.
#[derive(Clone)]
struct Builtin {
    folder: PathBuf,
    /// Whether it is the web server; else the workspace's.
    web: bool,
}

impl ServerHandler for Builtin {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info =
            Implementation::new(if self.web { "pleach-web" } else { "pleach-workspace" }, env!("CARGO_PKG_VERSION"));
        info
    }
    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, rmcp::ErrorData> {
        Ok(ListToolsResult::with_all_items(if self.web { web::tools() } else { tools() }))
    }
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, rmcp::ErrorData> {
        let args = Arguments { values: request.arguments.unwrap_or_default(), folder: self.folder.clone() };
        let outcome = match request.name.as_ref() {
            "WebFetch" if self.web => web::fetch(args).await,
            other if self.web => Err(format!("there is no tool {other}")),
            "Bash" => bash::run(args, context.ct.clone()).await,
            name => {
                let name = name.to_owned();
                // Files block; the reader of our input must not.
                tokio::task::spawn_blocking(move || match name.as_str() {
                    "Read" => files::read(&args),
                    "Write" => files::write(&args),
                    "Edit" => files::edit(&args),
                    "Glob" => search::glob(&args),
                    "Grep" => search::grep(&args),
                    other => Err(format!("there is no tool {other}")),
                })
                .await
                .unwrap_or_else(|e| Err(format!("the tool failed: {e}")))
            }
        };
        let result = match outcome {
            Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
            Err(text) => CallToolResult::error(vec![ContentBlock::text(text)]),
        };
        Ok(result.into())
    }
}

/// Arguments, already checked against the schema by the guard.
struct Arguments {
    values: JsonObject,
    folder: PathBuf,
}

impl Arguments {
    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(Value::as_str)
    }
    fn need(&self, name: &str) -> Result<&str, String> {
        self.text(name).ok_or_else(|| format!("{name} is missing"))
    }
    fn number(&self, name: &str) -> Option<usize> {
        self.values.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok())
    }
    fn flag(&self, name: &str) -> bool {
        self.values.get(name).and_then(Value::as_bool).unwrap_or(false)
    }
    /// A path argument; relative is against the working folder.
    fn path(&self, name: &str) -> Result<PathBuf, String> {
        Ok(self.folder.join(self.need(name)?))
    }
    fn path_or_folder(&self, name: &str) -> PathBuf {
        self.text(name).map_or_else(|| self.folder.clone(), |p| self.folder.join(p))
    }
}

/// What the system said, with the path.
fn failed(path: &Path, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("{} does not exist", path.display()),
        std::io::ErrorKind::PermissionDenied => {
            format!("{}: permission denied by the sandbox or the file's mode", path.display())
        }
        _ => format!("{}: {error}", path.display()),
    }
}

fn tools() -> Vec<Tool> {
    let text = |doc: &str| json!({ "type": "string", "description": doc });
    let path = |doc: &str| json!({ "type": "string", "format": "path", "description": doc });
    let count = |doc: &str| json!({ "type": "integer", "minimum": 0, "description": doc });
    let flag = |doc: &str| json!({ "type": "boolean", "description": doc });
    vec![
        tool(
            "Read",
            "Reads a text file, with line numbers. Long files are read in pieces with offset and limit.",
            json!({ "file_path": path("The file; relative to the working folder or absolute."),
                    "offset": count("The first line, from 1."), "limit": count("How many lines; default 2000.") }),
            &["file_path"],
            Effect::Reads,
        ),
        tool(
            "Write",
            "Writes a file, replacing what was there. Missing folders are made.",
            json!({ "file_path": path("The file."), "content": text("Its whole new content.") }),
            &["file_path", "content"],
            Effect::Writes,
        ),
        tool(
            "Edit",
            "Replaces old_string by new_string in a file. old_string must stand there exactly once, unless replace_all is set.",
            json!({ "file_path": path("The file."), "old_string": text("The text to replace, exactly."),
                    "new_string": text("The text to put there."), "replace_all": flag("Replace every occurrence.") }),
            &["file_path", "old_string", "new_string"],
            Effect::Writes,
        ),
        tool(
            "Glob",
            "Lists files whose path matches a pattern such as **/*.rs, newest first.",
            json!({ "pattern": text("The pattern, relative to path."), "path": path("The folder; default: the working folder.") }),
            &["pattern"],
            Effect::Reads,
        ),
        tool(
            "Grep",
            "Searches file contents with a regular expression. Honours .gitignore.",
            json!({ "pattern": text("The regular expression."), "path": path("The file or folder; default: the working folder."),
                    "glob": text("Only files that match this pattern."),
                    "output_mode": { "type": "string", "enum": ["files_with_matches", "content", "count"], "description": "Default files_with_matches." },
                    "-i": flag("Ignore case."), "-n": flag("Show line numbers in content mode; default true."),
                    "-A": count("Lines after each match."), "-B": count("Lines before each match."), "-C": count("Lines around each match."),
                    "multiline": flag("Let the pattern span lines."), "head_limit": count("Stop after this many lines of output.") }),
            &["pattern"],
            Effect::Reads,
        ),
        tool(
            "Bash",
            "Runs a command with bash in the working folder. Its files and network are those of this sandbox.",
            json!({ "command": text("The command."), "timeout": count("Milliseconds; default 120000, at most 600000."),
                    "description": text("What it does, in five to ten words.") }),
            &["command"],
            Effect::Anything,
        ),
    ]
}

enum Effect {
    Reads,
    Writes,
    Anything,
}

fn tool(name: &'static str, description: &'static str, properties: Value, required: &[&str], effect: Effect) -> Tool {
    let schema = json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    });
    let schema = schema.as_object().cloned().unwrap_or_default();
    let mut hints = ToolAnnotations::new();
    hints.read_only_hint = Some(matches!(effect, Effect::Reads));
    hints.destructive_hint = Some(matches!(effect, Effect::Anything));
    hints.open_world_hint = Some(matches!(effect, Effect::Anything));
    Tool::new(name, description, Arc::new(schema)).with_annotations(hints)
}
