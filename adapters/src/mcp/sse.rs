//! Server-sent events, as far as MCP uses them (WHATWG HTML section 9.2.6).

/// Splits a byte stream into the data of its events.
#[derive(Debug, Default)]
pub(super) struct Events {
    buffer: Vec<u8>,
}

impl Events {
    /// Takes bytes in, gives complete events out.
    ///
    /// # Errors
    /// When an event grows beyond `limit` bytes.
    pub(super) fn feed(&mut self, bytes: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, String> {
        self.buffer.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some((end, skip)) = boundary(&self.buffer) {
            let rest = self.buffer.split_off(end + skip);
            let event = std::mem::replace(&mut self.buffer, rest);
            let data = data_of(&event[..end]);
            if !data.is_empty() {
                out.push(data);
            }
        }
        if self.buffer.len() > limit {
            return Err(format!("an event larger than {limit} bytes"));
        }
        Ok(out)
    }
}

/// The end of the first event: an empty line, in any of the three line endings.
fn boundary(buffer: &[u8]) -> Option<(usize, usize)> {
    let ends: [&[u8]; 3] = [b"\r\n\r\n", b"\n\n", b"\r\r"];
    let find = |end: &[u8]| buffer.windows(end.len()).position(|w| w == end).map(|at| (at, end.len()));
    ends.into_iter().filter_map(find).min()
}

fn data_of(event: &[u8]) -> Vec<u8> {
    let mut data: Vec<u8> = Vec::new();
    let mut first = true;
    for line in event.split(|b| *b == b'\n' || *b == b'\r') {
        let Some(value) = line.strip_prefix(b"data:") else { continue };
        if !first {
            data.push(b'\n');
        }
        first = false;
        data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_in_any_slicing() {
        let text = b": comment\n\nid: 1\ndata: {\"a\":1}\n\nevent: x\r\ndata: {\"b\":\r\ndata:2}\r\n\r\ndata\n\n";
        for size in 1..text.len() {
            let mut events = Events::default();
            let got: Vec<Vec<u8>> = text.chunks(size).flat_map(|c| events.feed(c, 1000).unwrap()).collect();
            assert_eq!(got, [b"{\"a\":1}".to_vec(), b"{\"b\":\n2}".to_vec()], "{size}");
        }
        assert!(Events::default().feed(&[b'x'; 2000], 1000).is_err());
    }
}
