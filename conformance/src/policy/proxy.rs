//! Acts of a program that wants out: `pleach exec` with a network grant, judged by what came to a
//! listener that stands at every address.

use super::arena::{Arena, Everywhere, FRIEND};
use super::world::World;
use super::{Act, Case};
use crate::pleach::Ran;

const PONG: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\npong";

/// A grant towards the network, and what listens there.
#[derive(Clone)]
pub(super) struct Way {
    grants: String,
    answer: String,
    python: bool,
    names: bool,
    elsewhere: bool,
    word: &'static str,
}

impl Way {
    /// A grant: lines of `[policy]`.
    pub(super) fn granted(grants: &str) -> Self {
        Self {
            grants: grants.to_owned(),
            answer: PONG.to_owned(),
            python: false,
            names: false,
            elsewhere: false,
            word: "",
        }
    }
    /// The listener says this instead.
    pub(super) fn answered(mut self, answer: &str) -> Self {
        self.answer = answer.to_owned();
        self
    }
    /// Scripts are Python's.
    pub(super) fn python(mut self) -> Self {
        self.python = true;
        self
    }
    /// What is to be seen is a name with `{tag}` at the resolver.
    pub(super) fn by_name(mut self) -> Self {
        self.names = true;
        self
    }
    /// Only what comes to another address than the friend's counts.
    pub(super) fn elsewhere(mut self) -> Self {
        self.elsewhere = true;
        self
    }
    /// Only bytes with this word count.
    pub(super) fn word(mut self, word: &'static str) -> Self {
        self.word = word;
        self
    }
    /// A case of two scripts; `{port}` is the listener's.
    pub(super) fn case(&self, id: &str, says: &str, attack: &str, twin: &str) -> Case {
        Case::new(id, says, self.act(attack, true), self.act(twin, false))
    }
    /// The same by two URLs that curl is asked for.
    pub(super) fn urls(&self, id: &str, says: &str, attack: &str, twin: &str) -> Case {
        let curl = |url: &str| format!("curl -sS -g -m 10 --noproxy '' -- '{url}'");
        self.case(id, says, &curl(attack), &curl(twin))
    }
    /// The same by two texts said to the proxy as they are; `\r\n` is written so.
    pub(super) fn said(&self, id: &str, says: &str, attack: &str, twin: &str) -> Case {
        let say = |text: &str| format!("exec 3<>/dev/tcp/127.0.0.1/3128; printf '{text}' >&3; timeout 2 cat <&3");
        self.case(id, says, &say(attack), &say(twin))
    }
    /// One half of a case.
    pub(super) fn act(&self, script: &str, attack: bool) -> Act {
        let (way, script) = (self.clone(), script.to_owned());
        Box::new(move |arena| {
            let tag = arena.tag();
            let listener = Everywhere::listen(&way.answer)?;
            let policy = format!(
                "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy]\n\
                 max_access = \"destructive\"\nfilesystem.read = [\"docs\", \"docs_evil\"]\n{}\n[agents.a]\nprompt = \"\"\n",
                way.grants.replace("{port}", &listener.port.to_string())
            );
            let world = World::new(&policy, "")?;
            let filled = script.replace("{tag}", &tag).replace("{port}", &listener.port.to_string());
            let ran = way.play(arena, &world, &filled)?;
            let seen = listener.seen();
            if std::env::var_os("PLEACH_POLICY_SHOW").is_some() {
                println!("{}: {script}\n{ran:?}\n{seen:?}", if attack { "attack" } else { "twin" });
            }
            if way.names {
                return Ok(arena.names.asked(&tag));
            }
            // For the attack a connection is enough; the twin has to say something.
            let friend = |at: &std::net::IpAddr| at.to_string() == FRIEND;
            Ok(match attack {
                false => seen.iter().any(|(_, bytes)| !bytes.is_empty()),
                true if way.elsewhere => seen.iter().any(|(at, _)| !friend(at)),
                true => seen.iter().any(|(_, bytes)| bytes.to_lowercase().contains(way.word)),
            })
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
        command.stdin(std::process::Stdio::null());
        Ok(Ran::of(command.output().map_err(|e| e.to_string())?))
    }
}
