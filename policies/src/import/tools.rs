//! The names Claude Code gives tools, and what they are called here.

use crate::file::Node;
use crate::names::nearest;
use crate::tools::Glob;

/// A rule or a tool of a list: `Bash`, `Agent(worker, researcher)`, `mcp__git__git_log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word<'a> {
    pub(super) tool: &'a str,
    pub(super) scope: Option<&'a str>,
}

impl<'a> Word<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        let text = text.trim();
        let Some((tool, rest)) = text.split_once('(') else {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*' | '.' | '/');
            return match !text.is_empty() && text.chars().all(fits) {
                true => Ok(Self { tool: text, scope: None }),
                false => Err(format!("{text:?} is no tool")),
            };
        };
        let scope = rest.strip_suffix(')').ok_or_else(|| format!("{text:?} has no `)` at its end"))?;
        let tool = tool.trim();
        if tool.is_empty() || !tool.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*')) {
            return Err(format!("{text:?} is no tool"));
        }
        let scope = scope.trim();
        // `Bash(*)` and `Bash()` say no more than `Bash`.
        Ok(Self { tool, scope: (!matches!(scope, "" | "*" | ":*" | "**")).then_some(scope) })
    }
}

/// What a tool's name means here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Means {
    /// Patterns over outside names.
    Tools(Vec<String>),
    /// Starting agents.
    Agent,
    /// A tool of the runtime, which needs no allow.
    Runtime(&'static str),
    /// Nothing: there is no such tool here.
    Absent(&'static str),
    /// A tool of a built-in server that is not registered.
    Unserved(String),
    /// Tools there are here, but patterns over outside names cannot say which, for this reason.
    Unsayable(String),
}

/// The names of the policy file, those imported included.
pub(super) struct Known<'a> {
    root: &'a Node,
}

const WORKSPACE: [&str; 6] = ["Read", "Write", "Edit", "Glob", "Grep", "Bash"];
const RUNTIME: [(&str, &str); 4] = [
    ("AskUserQuestion", "ask_user"),
    ("SendMessage", "send_message"),
    ("TaskStop", "stop_agent"),
    ("ListAgents", "list_agents"),
];
const ABSENT: [(&str, &str); 33] = [
    ("WebFetch", "no server fetches; add [servers.web] with builtin = \"web\" to the policy file"),
    ("WebSearch", "register a server that searches"),
    ("MultiEdit", "Edit is the tool that edits"),
    ("NotebookEdit", "Edit edits every file"),
    ("NotebookRead", "Read reads every file"),
    ("LS", "Glob lists files"),
    ("TodoRead", "runs keep no list of tasks"),
    ("TodoWrite", "runs keep no list of tasks"),
    ("TaskCreate", "runs keep no list of tasks"),
    ("TaskGet", "runs keep no list of tasks"),
    ("TaskList", "runs keep no list of tasks"),
    ("TaskUpdate", "runs keep no list of tasks"),
    ("TaskOutput", "an agent's answer comes by itself"),
    ("BashOutput", "Bash answers when the command ends"),
    ("KillShell", "Bash answers when the command ends"),
    ("KillBash", "Bash answers when the command ends"),
    ("Monitor", "Bash answers when the command ends"),
    ("Skill", "skills are not in this version"),
    ("SlashCommand", "commands belong to the client"),
    ("ExitPlanMode", "max_access says what an agent may do"),
    ("EnterPlanMode", "max_access says what an agent may do"),
    ("EnterWorktree", "worktrees are not in this version"),
    ("ExitWorktree", "worktrees are not in this version"),
    ("ScheduleWakeup", "runs wake when something happens"),
    ("CronCreate", "runs are started from outside"),
    ("CronDelete", "runs are started from outside"),
    ("CronList", "runs are started from outside"),
    ("Workflow", "agents start agents"),
    ("ToolSearch", "an agent sees all its tools"),
    ("WaitForMcpServers", "servers are started when they are needed"),
    ("ListMcpResourcesTool", "resources are read through /mcp"),
    ("ReadMcpResourceTool", "resources are read through /mcp"),
    ("LSP", "register a server that offers it"),
];

impl<'a> Known<'a> {
    pub(super) fn new(root: &'a Node) -> Self {
        Self { root }
    }
    fn table(&self, name: &str) -> impl Iterator<Item = (&'a str, &'a Node)> + use<'a> {
        let entries = self.root.get(name).map(Node::entries).unwrap_or_default();
        entries.iter().map(|(key, _, node)| (key.as_str(), node))
    }
    pub(super) fn agents(&self) -> Vec<&'a str> {
        self.table("agents").map(|(name, _)| name).collect()
    }
    pub(super) fn server(&self, name: &str) -> Option<&'a Node> {
        self.table("servers").find(|(key, _)| *key == name).map(|(_, node)| node)
    }
    pub(super) fn server_names(&self) -> Vec<&'a str> {
        self.table("servers").filter(|(_, node)| node.get("builtin").is_none()).map(|(name, _)| name).collect()
    }
    pub(super) fn models(&self) -> Vec<(&'a str, &'a Node)> {
        self.table("models").collect()
    }

    /// Patterns for tools of the built-in workspace servers; none without such a server.
    pub(super) fn workspace(&self, tools: &[&str]) -> Vec<String> {
        self.built_in("workspace", tools)
    }
    fn built_in(&self, which: &str, tools: &[&str]) -> Vec<String> {
        let built_in = self.table("servers").filter(|(_, node)| node.text_at("builtin") == Some(which));
        built_in.flat_map(|(name, node)| tools.iter().flat_map(move |tool| outside(name, node, tool))).collect()
    }

    /// What a tool of Claude Code is here. A rule about Read is about every reader, one about
    /// Edit about every writer; a list of tools names single ones.
    ///
    /// # Errors
    /// The name means nothing there or here.
    pub(super) fn means(&self, tool: &str, rule: bool) -> Result<Means, String> {
        if matches!(tool, "Agent" | "Task") {
            return Ok(Means::Agent);
        }
        if tool == "*" {
            return Ok(Means::Tools(vec!["*".into()]));
        }
        if let Some(found) = RUNTIME.iter().find(|(name, _)| *name == tool) {
            return Ok(Means::Runtime(found.1));
        }
        if WORKSPACE.contains(&tool) {
            let several: &[&str] = match tool {
                "Read" if rule => &["Read", "Glob", "Grep"],
                "Edit" if rule => &["Edit", "Write"],
                one => &[WORKSPACE[WORKSPACE.iter().position(|w| *w == one).unwrap_or(0)]],
            };
            let globs = self.workspace(several);
            return match globs.is_empty() {
                true => Ok(Means::Unserved(format!(
                    "no server offers {tool}; add [servers.files] with builtin = \"workspace\" to the policy file"
                ))),
                false => Ok(Means::Tools(globs)),
            };
        }
        if let Some(rest) = tool.strip_prefix("mcp__") {
            return self.of_server(rest);
        }
        if tool == "WebFetch" {
            let globs = self.built_in("web", &["WebFetch"]);
            if !globs.is_empty() {
                return Ok(Means::Tools(globs));
            }
        }
        if let Some((_, why)) = ABSENT.iter().find(|(name, _)| *name == tool) {
            return Ok(Means::Absent(why));
        }
        if tool.contains('*') {
            return Ok(Means::Unsayable("a pattern is of the tools of one server; name the tools one by one".into()));
        }
        let names = WORKSPACE.into_iter().chain(["Agent"]).chain(ABSENT.iter().map(|(name, _)| *name));
        let hint = nearest(tool, names).map(|n| format!("; did you mean {n:?}?"));
        Err(format!("no tool is named {tool:?}{}", hint.unwrap_or_default()))
    }

    fn of_server(&self, rest: &str) -> Result<Means, String> {
        if rest == "*" {
            let mut globs = Vec::new();
            for name in self.server_names() {
                match self.of_server(name)? {
                    Means::Tools(more) => globs.extend(more),
                    other => return Ok(other),
                }
            }
            return Ok(Means::Tools(globs));
        }
        let (server, tool) = rest.split_once("__").unwrap_or((rest, "*"));
        if server.contains('*') {
            return Ok(Means::Unsayable("a pattern over servers is not held here; name each server".into()));
        }
        let Some(node) = self.server(server) else {
            let names = self.server_names();
            let hint = match nearest(server, names.iter().copied()) {
                Some(near) => format!("; did you mean \"mcp__{near}…\"?"),
                None => format!("; register it under [servers.{server}], or import the .mcp.json that does"),
            };
            return Err(format!("no server is named {server:?}{hint}"));
        };
        if !tool.contains('*') {
            return Ok(Means::Tools(outside(server, node, tool)));
        }
        if let Some(prefix) = node.text_at("prefix").filter(|p| *p != "always") {
            return Ok(Means::Unsayable(format!(
                "the tools of {server} have no prefix here (prefix = {prefix:?}), so name them one by one"
            )));
        }
        let mut globs = vec![format!("{server}__{tool}")];
        let pattern = Glob::try_from(tool).map_err(|e| format!("{tool:?}: {e}"))?;
        // Renamed tools go by their own names there, and by others here.
        for (own, _, words) in node.get("tools").map(Node::entries).unwrap_or_default() {
            let Some(renamed) = words.text_at("rename") else { continue };
            match (pattern.matches(own), pattern.matches(renamed)) {
                (true, false) => globs.push(format!("{server}__{renamed}")),
                (false, true) => {
                    return Ok(Means::Unsayable(format!(
                        "{own} of {server} is called {renamed} here, which it would match; name the tools one by one"
                    )));
                }
                _ => {}
            }
        }
        Ok(Means::Tools(globs))
    }
}

/// The names a server's tool may have outside.
fn outside(server: &str, node: &Node, tool: &str) -> Vec<String> {
    let renamed = node.get("tools").and_then(|t| t.get(tool)).and_then(|t| t.text_at("rename")).unwrap_or(tool);
    match node.text_at("prefix") {
        Some("none") => vec![renamed.to_owned()],
        Some("auto") => vec![renamed.to_owned(), format!("{server}__{renamed}")],
        _ => vec![format!("{server}__{renamed}")],
    }
}

/// Splits `Read, Agent(a, b), Bash` at the commas outside parentheses, with where each begins.
pub(super) fn split(text: &str) -> Vec<(usize, &str)> {
    let (mut out, mut start, mut inside) = (Vec::new(), 0, 0usize);
    for (at, c) in text.char_indices() {
        match c {
            '(' => inside += 1,
            ')' => inside = inside.saturating_sub(1),
            ',' if inside == 0 => {
                out.push((start, &text[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    out.push((start, &text[start..]));
    out.into_iter()
        .map(|(at, part)| (at + part.len() - part.trim_start().len(), part.trim()))
        .filter(|(_, part)| !part.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_lists_are_read() {
        assert_eq!(Word::parse(" Bash(git push:*) ").unwrap(), Word { tool: "Bash", scope: Some("git push:*") });
        assert_eq!(Word::parse("Bash(*)").unwrap().scope, None);
        assert_eq!(Word::parse("mcp__a__b").unwrap().tool, "mcp__a__b");
        for wrong in ["", "Bash(git", "Read Grep", "(x)"] {
            assert!(Word::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(split("Read, Agent(a, b),Bash,"), [(0, "Read"), (6, "Agent(a, b)"), (18, "Bash")]);
    }
}
