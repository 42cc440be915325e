//! A [`crate::mirror`] in a process of its own.

use crate::official::binary;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A mirror over HTTP, ended when dropped.
pub struct Mirror {
    child: Child,
    /// Where it is reached.
    pub url: String,
}

impl Mirror {
    /// Starts one at an address.
    ///
    /// # Panics
    /// When it does not come up.
    #[allow(clippy::unwrap_used)]
    pub fn start(era: &str, address: &str) -> Self {
        let mut command = Command::new(binary());
        let mut child = command.args(["mirror", era, "http", address]).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }
    /// The lines of a `[servers.x]` table that reach it; over standard streams without one.
    pub fn entry(mirror: Option<&Self>, era: &str) -> String {
        match mirror {
            Some(mirror) => format!("url = {:?}", mirror.url),
            None => {
                let exe = binary().display().to_string();
                format!("command = {exe:?}\nargs = [\"mirror\", {era:?}, \"stdio\"]")
            }
        }
    }
    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.kill();
    }
}
