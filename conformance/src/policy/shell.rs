//! Acts of a program in the sandbox: `pleach exec` in a fresh world, judged by the world.

use super::arena::Arena;
use super::world::{POLICY, World};
use super::{Act, Case};
use crate::pleach::Ran;

/// What surrounds a script.
#[derive(Clone, Default)]
pub(super) struct Scene {
    policy: Option<String>,
    setup: String,
    python: bool,
    env: Vec<(&'static str, String)>,
    alive: bool,
}

impl Scene {
    /// The world as it is.
    pub(super) fn plain() -> Self {
        Self::default()
    }
    /// Scripts are Python's.
    pub(super) fn python() -> Self {
        Self { python: true, ..Self::default() }
    }
    /// Something the attacker, or chance, left there before: a script of bash.
    pub(super) fn after(mut self, setup: &str) -> Self {
        self.setup = setup.to_owned();
        self
    }
    /// Under another policy.
    pub(super) fn under(mut self, policy: &str) -> Self {
        self.policy = Some(policy.to_owned());
        self
    }
    /// Pleach itself is started with this in its environment.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }
    /// What is to be seen is a process that lives on after the command; its name is `{tag}`.
    pub(super) fn lives_on(mut self) -> Self {
        self.alive = true;
        self
    }
    /// A case of two scripts.
    pub(super) fn case(&self, id: &str, says: &str, attack: &str, twin: &str) -> Case {
        Case::new(id, says, self.act(attack, true), self.act(twin, false))
    }
    fn act(&self, script: &str, attack: bool) -> Act {
        let (scene, script) = (self.clone(), script.to_owned());
        Box::new(move |arena| {
            let tag = arena.tag();
            let policy = scene.policy.clone().unwrap_or_else(|| format!("{POLICY}\n[agents.a]\nprompt = \"\"\n"));
            let world = World::new(&policy, &scene.setup.replace("{tag}", &tag))?;
            let filled = script.replace("{tag}", &tag).replace("{root}", &world.root());
            let ran = scene.play(arena, &world, &filled)?;
            if std::env::var_os("PLEACH_POLICY_SHOW").is_some() {
                println!("{}: {script}\n{ran:?}\n{:?}", if attack { "attack" } else { "twin" }, world.changes());
            }
            if scene.alive && attack {
                return Ok(super::arena::alive(&tag));
            }
            Ok(if attack { world.broken(&ran) } else { world.done(&ran) })
        })
    }
    fn play(&self, arena: &Arena, world: &World, script: &str) -> Result<Ran, String> {
        let program: &[&str] = match self.python {
            true => &[&arena.python, "-I", "-S", "-c", script],
            false => &["bash", "-c", script],
        };
        let mut command = world.folder.command(&["exec", "--"]);
        if arena.bare {
            command = std::process::Command::new(program[0]);
            command.args(&program[1..]).current_dir(world.folder.path());
        } else {
            command.args(program);
        }
        for (name, value) in &self.env {
            command.env(name, value);
        }
        command.stdin(std::process::Stdio::null());
        Ok(Ran::of(command.output().map_err(|e| e.to_string())?))
    }
}
