//! Long results: kept whole, shown by their beginning and end, read by range.

use super::HostError;
use super::drive::At;
use crate::event::Event;
use crate::history::floor;
use crate::tools::PART;

/// A result longer than this is not shown whole.
const MOST: usize = 64 << 10;
/// What is shown of each end of one.
const END: usize = 8 << 10;

impl At {
    /// The text itself, or what is shown of it with the handle of the whole; and what is to be
    /// written down before it: only handles that were given can be read.
    pub(crate) async fn bounded(&self, call: Option<&str>, text: String) -> Result<(String, Option<Event>), HostError> {
        if text.len() <= MOST {
            return Ok((text, None));
        }
        let bytes = text.len();
        let (head, tail) = (&text[..floor(&text, END)], &text[floor(&text, bytes - END)..]);
        let shown = |name: &str| {
            format!(
                "{head}\n[… {bytes} bytes in all; the whole is {name}: read_result {{\"blob\": \"{name}\", \
                 \"offset\": {}, \"limit\": {PART}}} …]\n{tail}",
                head.len()
            )
        };
        let name = self.keep(text.clone().into_bytes()).await?;
        let shown = shown(&name);
        let kept = Event::ResultKept { call: call.map(str::to_owned), blob: name, bytes: bytes as u64 };
        Ok((shown, Some(kept)))
    }
    /// Keeps bytes.
    pub(crate) async fn keep(&self, bytes: Vec<u8>) -> Result<String, HostError> {
        self.host.ports.journal.put_blob(bytes).await.map_err(|e| self.tree.break_off(e.into()))
    }
}
