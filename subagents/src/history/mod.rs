//! How a conversation stays within its model's window.
//!
//! ```text
//!  [0] what the run was asked       stays
//!  [1] … old turns …                1. large results become a line with a handle (trimmed)
//!                                   2. all of it becomes one message, a summary   (compacted)
//!  [b] … the last turns             stay; their results only become lines when nothing else helps
//! ```
//!
//! Everything here is pure. What the model sees follows from the events alone: the driver works
//! out *what* to replace ([`large`], [`boundary`]) and writes that down; the fold replaces it
//! (`trimmed`, `compacted`). So a resumed run sees the same bytes as the one that died.
//! Between two such events a conversation only grows at its end, which is what a provider's
//! prompt cache lives from: both are rare, and each makes much room at once.

mod summary;

pub use summary::{INSTRUCTION, question};

use crate::event::Replaced;
use crate::turn::{Message, ToolResult};

/// A result longer than this is large.
pub const LARGE: usize = 1 << 10;
/// The last turns that are left alone while there is anything else.
pub const LAST_TURNS: usize = 4;

/// Tokens a request may read before something must give room: four fifths of the window that is
/// left beside the reply. A window of unknown size (0) is taken to hold everything.
pub fn threshold(context: u64, max_output: u64) -> u64 {
    if context == 0 || context == u64::MAX {
        return u64::MAX;
    }
    // A model that may write as much as it reads would have no room to read.
    let room = context.saturating_sub(max_output).max(context / 2);
    room / 5 * 4
}

/// Where the last `turns` turns begin: at what the model said, so that no call is without its
/// result. `None` when there are not that many.
pub fn boundary(messages: &[Message], turns: usize) -> Option<usize> {
    let said = messages.iter().enumerate().rev().filter(|(_, m)| matches!(m, Message::Assistant { .. }));
    said.map(|(at, _)| at).nth(turns.checked_sub(1)?)
}

/// A result that could make room.
#[derive(Debug, Clone, PartialEq)]
pub struct Large<'a> {
    /// Which message.
    pub message: usize,
    /// Which result in it.
    pub result: usize,
    /// It.
    pub of: &'a ToolResult,
}

/// The results before a message that are longer than `least`.
pub fn large(messages: &[Message], before: usize, least: usize) -> Vec<Large<'_>> {
    let old = messages.iter().take(before).enumerate();
    let results = old.filter_map(|(at, message)| match message {
        Message::Results(results) => Some((at, results)),
        _ => None,
    });
    let each = results.flat_map(|(message, results)| {
        results.iter().enumerate().map(move |(result, of)| Large { message, result, of })
    });
    each.filter(|large| large.of.text.len() > least).collect()
}

/// Bytes of what a model reads, for comparisons of one part of a conversation with another.
pub fn bytes(messages: &[Message]) -> usize {
    let of = |message: &Message| match message {
        Message::User(text) => text.len(),
        Message::Results(results) => results.iter().map(|r| r.text.len() + r.id.len() + r.name.len()).sum(),
        Message::Assistant { text, calls, blocks } => {
            let calls: usize = calls.iter().map(|c| c.input.to_string().len() + c.name.len() + c.id.len()).sum();
            blocks.as_ref().map_or(text.len() + calls, |b| b.to_string().len().max(text.len() + calls))
        }
    };
    messages.iter().map(of).sum()
}

/// The last place at or before `at` where a character begins.
pub(crate) fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}

/// What a model sees in the place of a result.
pub fn line(result: &ToolResult, blob: Option<&str>) -> String {
    let bytes = result.text.len();
    match blob {
        Some(blob) => format!(
            "[{bytes} bytes of {}, put away to make room; read_result {{\"blob\": \"{blob}\"}} gives them]",
            result.name
        ),
        None => format!("[{bytes} bytes of {}, left out to make room; call it again where you need them]", result.name),
    }
}

/// The fold of `context.trimmed`.
pub(crate) fn trimmed(messages: &mut [Message], replaced: &[Replaced]) {
    for one in replaced {
        if let Some(Message::Results(results)) = messages.get_mut(one.message as usize)
            && let Some(result) = results.get_mut(one.result as usize)
        {
            result.text.clone_from(&one.text);
        }
    }
}

/// The fold of `context.compacted`.
pub(crate) fn compacted(messages: &mut Vec<Message>, through: usize, summary: &str) {
    let through = through.min(messages.len());
    if through > 1 {
        messages.splice(1..through, [Message::User(summary::told(summary))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ToolCall;

    fn turn(i: usize, size: usize) -> [Message; 2] {
        let call = ToolCall { id: format!("{i}"), name: "t".into(), input: serde_json::json!({}) };
        let result = ToolResult { id: format!("{i}"), name: "t".into(), text: "x".repeat(size), error: false };
        [Message::Assistant { text: String::new(), calls: vec![call], blocks: None }, Message::Results(vec![result])]
    }
    fn conversation(turns: usize) -> Vec<Message> {
        let first = [Message::User("do it".into())].into_iter();
        first.chain((0..turns).flat_map(|i| turn(i, 2_000))).collect()
    }

    #[test]
    fn a_boundary_never_splits_a_call_from_its_result() {
        let messages = conversation(6);
        assert_eq!(boundary(&messages, 4), Some(5));
        assert!(matches!(messages[5], Message::Assistant { .. }));
        assert_eq!(boundary(&messages, 7), None);
        assert_eq!(boundary(&messages, 0), None);
    }
    #[test]
    fn a_summary_stands_between_the_first_message_and_the_last_turns() {
        let mut messages = conversation(6);
        let last = messages[9..].to_vec();
        compacted(&mut messages, 9, "so far so good");
        assert_eq!(messages.len(), 6);
        assert!(matches!(&messages[1], Message::User(text) if text.contains("so far so good")));
        assert_eq!(messages[2..], last);
        assert_eq!(messages[0], Message::User("do it".into()));
    }
    #[test]
    fn old_results_become_lines_and_no_others() {
        let mut messages = conversation(6);
        let found = large(&messages, 5, LARGE);
        assert_eq!(found.iter().map(|l| l.message).collect::<Vec<_>>(), [2, 4]);
        let replaced: Vec<Replaced> = found
            .iter()
            .map(|l| Replaced { message: l.message as u32, result: 0, text: line(l.of, Some("b")) })
            .collect();
        let before = bytes(&messages);
        trimmed(&mut messages, &replaced);
        assert!(bytes(&messages) < before - 3_500);
        assert!(large(&messages, 5, LARGE).is_empty());
        assert_eq!(large(&messages, 99, LARGE).len(), 4);
    }
    #[test]
    fn a_window_keeps_room_for_the_reply() {
        assert_eq!(threshold(40_000, 4_000), 28_800);
        assert_eq!(threshold(10_000, 32_000), 4_000);
        assert_eq!(threshold(u64::MAX, 32_000), u64::MAX);
        assert_eq!(threshold(0, 1), u64::MAX);
    }
}
