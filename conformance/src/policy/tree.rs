//! Acts of agents: `pleach run` with scripted models in a fresh world, judged by the world.

use super::world::{POLICY, World};
use super::{Act, Case};
use crate::pleach::Ran;
use serde_json::{Value, json};

/// What an agent does, turn by turn: a tool and its input.
pub(super) type Steps = Vec<(&'static str, Vec<(&'static str, Value)>)>;

/// Agents, and how they are started.
#[derive(Clone)]
pub(super) struct Tree {
    policy: String,
}

impl Tree {
    /// The world's root grant with these agents; `lead` is started.
    pub(super) fn of(agents: &str) -> Self {
        Self { policy: format!("{POLICY}{agents}") }
    }
    /// A case of two scripts.
    pub(super) fn case(&self, id: &str, says: &str, attack: Steps, twin: Steps) -> Case {
        Case::new(id, says, self.act(attack, true), self.act(twin, false))
    }
    fn act(&self, steps: Steps, attack: bool) -> Act {
        let tree = self.clone();
        Box::new(move |_| {
            let mut world = World::new(&tree.policy, "")?;
            let root = world.root();
            world.replies(&script(&steps)?.replace("{root}", &root));
            let ran = world.folder.run(&["run", "--agent", "lead", "--json", "go"]);
            tell(&ran, attack);
            Ok(if attack { world.broken(&ran) } else { world.done(&ran) })
        })
    }
}

pub(super) fn tell(ran: &Ran, attack: bool) {
    if std::env::var_os("PLEACH_POLICY_SHOW").is_some() {
        println!("{}: {ran:?}", if attack { "attack" } else { "twin" });
    }
}

/// The file of replies: each agent's turns, and a last one that tells what came of them.
pub(super) fn script(steps: &Steps) -> Result<String, String> {
    let mut replies = Vec::new();
    for (agent, turns) in steps {
        for (tool, input) in turns {
            replies.push(json!({ "agent": agent, "text": "so", "tool": [{ "name": tool, "input": input }] }));
        }
        replies.push(json!({ "agent": agent, "text": "{{results}}" }));
    }
    toml::to_string(&json!({ "reply": replies })).map_err(|e| e.to_string())
}

/// The input of a spawn that asks for this policy.
pub(super) fn spawn(agent: &str, policy: Value) -> (&'static str, Value) {
    let mut input = json!({ "description": "d", "prompt": "p", "subagent_type": agent });
    if !policy.is_null() {
        input["policy"] = policy;
    }
    ("Agent", input)
}

/// Reading, writing and running, as a model asks for it.
pub(super) fn read(path: &str) -> (&'static str, Value) {
    ("files__Read", json!({ "file_path": path }))
}
pub(super) fn write(path: &str) -> (&'static str, Value) {
    ("files__Write", json!({ "file_path": path, "content": "x" }))
}
pub(super) fn bash(command: &str) -> (&'static str, Value) {
    ("files__Bash", json!({ "command": command }))
}
