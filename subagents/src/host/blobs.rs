//! Long results: kept whole, shown by their beginning and end, read by range.

use super::HostError;
use super::drive::At;

/// A result longer than this is not shown whole.
const MOST: usize = 64 << 10;
/// What is shown of each end of one.
const END: usize = 8 << 10;

impl At {
    /// The text itself, or what is shown of it with the handle of the whole.
    pub(crate) async fn bounded(&self, text: String) -> Result<String, HostError> {
        if text.len() <= MOST {
            return Ok(text);
        }
        let bytes = text.len();
        let (head, tail) = (&text[..floor(&text, END)], &text[floor(&text, bytes - END)..]);
        let shown = |name: &str| {
            format!(
                "{head}\n[… {bytes} bytes in all; the whole is {name}: read_result {{\"blob\": \"{name}\", \
                 \"offset\": {}, \"limit\": {MOST}}} …]\n{tail}",
                head.len()
            )
        };
        let name = self.keep(text.clone().into_bytes()).await?;
        Ok(shown(&name))
    }
    /// Keeps bytes.
    pub(crate) async fn keep(&self, bytes: Vec<u8>) -> Result<String, HostError> {
        self.host.ports.journal.put_blob(bytes).await.map_err(|e| self.tree.break_off(e.into()))
    }
}

/// The last place at or before `at` where a character begins.
pub(crate) fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}
