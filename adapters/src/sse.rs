//! Server-sent events, as far as MCP and the models use them (WHATWG HTML section 9.2.6).

use std::time::Duration;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its data; empty for one that only carries an id or a delay.
    pub(crate) data: Vec<u8>,
    /// Its id.
    pub(crate) id: Option<String>,
    /// How long to wait before coming again.
    pub(crate) retry: Option<Duration>,
}

/// Splits a byte stream into events, line by line; no byte is looked at twice.
#[derive(Debug, Default)]
pub(crate) struct Events {
    line: Vec<u8>,
    event: Event,
    lines: usize,
    after_cr: bool,
}

impl Events {
    /// Takes bytes in, gives complete events out.
    ///
    /// # Errors
    /// When an event grows beyond `limit` bytes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], limit: usize) -> Result<Vec<Event>, String> {
        let mut out = Vec::new();
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(at) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) else {
                self.line.extend_from_slice(bytes);
                break;
            };
            self.line.extend_from_slice(&bytes[..at]);
            self.after_cr = bytes[at] == b'\r';
            bytes = &bytes[at + 1..];
            out.extend(self.end_of_line());
        }
        if self.line.len() + self.event.data.len() > limit {
            return Err(format!("an event larger than {limit} bytes"));
        }
        Ok(out)
    }

    fn end_of_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            self.lines = 0;
            let event = std::mem::take(&mut self.event);
            return (event != Event::default()).then_some(event);
        }
        let (field, value) = match line.iter().position(|b| *b == b':') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (&line[..], &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.lines > 0 {
                    self.event.data.push(b'\n');
                }
                self.lines += 1;
                self.event.data.extend_from_slice(value);
            }
            b"id" if !value.contains(&0) => self.event.id = std::str::from_utf8(value).ok().map(str::to_owned),
            b"retry" => {
                let text = std::str::from_utf8(value).ok();
                self.event.retry = text.and_then(|t| t.parse().ok()).map(Duration::from_millis);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_in_any_slicing() {
        let text = b": comment\n\nid: 1\ndata: {\"a\":1}\n\nevent: x\r\ndata: {\"b\":\r\ndata:2}\r\n\r\ndata\n\nid: 7\nretry: 20\n\n";
        for size in 1..text.len() {
            let mut events = Events::default();
            let got: Vec<Event> = text.chunks(size).flat_map(|c| events.feed(c, 1000).unwrap()).collect();
            let event =
                |data: &[u8], id: Option<&str>, retry| Event { data: data.to_vec(), id: id.map(str::to_owned), retry };
            let expected = [
                event(b"{\"a\":1}", Some("1"), None),
                event(b"{\"b\":\n2}", None, None),
                event(b"", Some("7"), Some(Duration::from_millis(20))),
            ];
            assert_eq!(got, expected, "{size}");
        }
        assert!(Events::default().feed(&[b'x'; 2000], 1000).is_err());
    }
}
