//! JSON with comments and trailing commas, as editors write it.

use serde_json::Value;

/// Parses it.
///
/// # Errors
/// Line and column of what is wrong.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(&strip(text.trim_start_matches('\u{feff}'))).map_err(|e| e.to_string())
}

/// Blanks comments and trailing commas, keeping every line where it was.
fn strip(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out: Vec<char> = Vec::with_capacity(chars.len());
    let (mut i, mut in_string) = (0, false);
    while i < chars.len() {
        let (c, next) = (chars[i], chars.get(i + 1).copied());
        if in_string {
            out.push(c);
            if c == '\\' {
                out.extend(next);
                i += 1;
            } else if c == '"' {
                in_string = false;
            }
        } else if c == '"' {
            in_string = true;
            out.push(c);
        } else if c == '/' && next == Some('/') {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
            continue;
        } else if c == '/' && next == Some('*') {
            i += 2;
            while i < chars.len() && !(chars[i] == '*' && chars.get(i + 1) == Some(&'/')) {
                if chars[i] == '\n' {
                    out.push('\n');
                }
                i += 1;
            }
            i += 1;
        } else if matches!(c, ']' | '}') {
            if let Some(at) = out.iter().rposition(|c| !c.is_whitespace()).filter(|at| out[*at] == ',') {
                out[at] = ' ';
            }
            out.push(c);
        } else {
            out.push(c);
        }
        i += 1;
    }
    out.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn comments_and_trailing_commas_go_strings_stay() {
        let text = "{ // one\n \"a\": \"//x /* y */ ,]\", /* two\n */ \"b\": [1, 2, ],\n}";
        assert_eq!(parse(text).unwrap(), serde_json::json!({ "a": "//x /* y */ ,]", "b": [1, 2] }));
        assert!(parse("{\n  \"a\": }").unwrap_err().contains("line 2"));
    }
}
