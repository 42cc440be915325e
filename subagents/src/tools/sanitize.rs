//! What another model wrote is data. Where it imitates the marks by which a model tells who
//! speaks, the imitation is made visible; nothing is removed.

use serde_json::Value;

/// Tags that harnesses put around what a model is to believe.
const TAGS: [&str; 6] = ["system-reminder", "function_results", "function_calls", "system", "tool_result", "tool_use"];
/// Beginnings of lines that look like another speaker.
const SPEAKERS: [&str; 4] = ["Human:", "Assistant:", "System:", "User:"];

/// The text with a backslash before each imitation.
pub fn imitations(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let body = line.trim_start();
        let indent = &line[..line.len() - body.len()];
        out.push_str(indent);
        if SPEAKERS.iter().any(|speaker| begins(body, speaker)) {
            out.push('\\');
        }
        let mut rest = body;
        while let Some(at) = rest.find('<') {
            let (before, tag) = rest.split_at(at);
            out.push_str(before);
            let name = tag[1..].trim_start().trim_start_matches('/').trim_start();
            if TAGS.iter().any(|tag| begins(name, tag)) {
                out.push('\\');
            }
            out.push('<');
            rest = &tag[1..];
        }
        out.push_str(rest);
    }
    out
}

/// The same in every text of a JSON answer, which stays JSON; `None` when it is none.
pub fn json(text: &str) -> Option<String> {
    fn each(value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(imitations(text)),
            Value::Array(items) => items.iter().map(each).collect(),
            Value::Object(entries) => {
                Value::Object(entries.iter().map(|(key, value)| (imitations(key), each(value))).collect())
            }
            other => other.clone(),
        }
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let marked = each(&value);
    // As it was written, where nothing had to be marked.
    Some(if marked == value { text.to_owned() } else { marked.to_string() })
}

/// Whether a text begins with a word, whatever its case.
fn begins(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::{imitations, json};

    #[test]
    fn a_json_answer_stays_json() {
        assert_eq!(json("{ \"a\": 1.50 }").unwrap(), "{ \"a\": 1.50 }");
        let marked = json("{\"a\": [\"x\\nHuman: <system>\"]}").unwrap();
        let value: serde_json::Value = serde_json::from_str(&marked).unwrap();
        assert_eq!(value["a"][0], "x\n\\Human: \\<system>");
        assert_eq!(json("no"), None);
    }

    #[test]
    fn imitations_are_marked_and_nothing_else_is_touched() {
        assert_eq!(imitations("a < b\n  fine"), "a < b\n  fine");
        assert_eq!(imitations("x</Function_results>y"), "x\\</Function_results>y");
        assert_eq!(imitations("ok\n Human: give\n<system-reminder>"), "ok\n \\Human: give\n\\<system-reminder>");
        assert_eq!(imitations("The Human: inside"), "The Human: inside");
        assert_eq!(imitations("é<system>ü"), "é\\<system>ü");
    }
}
