//! What the first bytes of a tunnel are.

use super::hello::{self, Hello};

/// The first line of a request may have this many bytes.
const MAX_LINE: usize = 16 << 10;

/// What a tunnel begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum First {
    /// Too little to tell.
    More,
    /// A TLS greeting.
    Tls {
        /// The name it asks for.
        name: Option<String>,
        /// Whether it hides another.
        hides: bool,
    },
    /// HTTP/1, whose requests name their host.
    Http,
    /// HTTP/2 in the clear.
    Http2,
    /// Something else.
    Other,
    /// Something that claims to be one of them and is not.
    Broken(&'static str),
}

/// Reads the first bytes.
pub(super) fn read(bytes: &[u8]) -> First {
    match bytes.first() {
        None => return First::More,
        // Records of TLS that begin no conversation: whoever skips them reads something else than we.
        Some(20 | 21 | 23 | 24) => match bytes.get(1) {
            None => return First::More,
            Some(3) => return First::Broken("it begins with TLS, but not with a greeting"),
            Some(_) => {}
        },
        Some(22) => {
            return match hello::read(bytes) {
                Hello::More => First::More,
                Hello::Broken(why) => First::Broken(why),
                Hello::Whole { name, hides } => First::Tls { name, hides },
            };
        }
        Some(_) => {}
    }
    // Servers skip empty lines before a request, and some whatever space there is.
    let skipped = bytes.iter().take_while(|b| b.is_ascii_whitespace() || **b == 11).count();
    if skipped > MAX_LINE {
        return First::Broken("it begins with nothing but space");
    }
    let text = &bytes[skipped..];
    let method = text.iter().take_while(|b| is_token(**b)).count();
    match text.get(method) {
        // Nothing but a word so far: a banner that ends in time is told by its end.
        None if method < MAX_LINE => return First::More,
        Some(b' ' | b'\t') if method > 0 => {}
        _ => return First::Other,
    }
    let Some(end) = text.iter().position(|b| *b == b'\n') else {
        return if text.len() < MAX_LINE { First::More } else { First::Broken("its first line does not end") };
    };
    let line = text[..end].trim_ascii_end().to_ascii_uppercase();
    if line.starts_with(b"PRI ") && line.ends_with(b"HTTP/2.0") {
        return First::Http2;
    }
    // However it is spelt: some server may read it.
    match line.windows(5).any(|part| part == b"HTTP/") {
        true => First::Http,
        false => First::Other,
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_told_apart() {
        for (bytes, first) in [
            (&b""[..], First::More),
            (b"GE", First::More),
            (b"GET / HTT", First::More),
            (b"GET / HTTP/1.1\r\n", First::Http),
            (b"\r\n\r\nGET / HTTP/1.1\r\n", First::Http),
            (b"get\t/ http/1.0\n", First::Http),
            (b" GET / HTTP/1.1\r\n", First::Http),
            (b"\n \t\x0b\x0c\r\nGET / HTTP/1.1\r\n", First::Http),
            (b"  hello\r\n", First::Other),
            (&[21], First::More),
            (&[21, 3, 1, 0, 2, 1, 0], First::Broken("it begins with TLS, but not with a greeting")),
            (&[23, 3, 3, 0, 9], First::Broken("it begins with TLS, but not with a greeting")),
            (&[20, 0, 3], First::Other),
            (b"BREW /a b HTTP/1.1 x\r\n", First::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", First::Http2),
            (b"EHLO me\r\n", First::Other),
            (b"a1 LOGIN x y\r\n", First::Other),
            (b"SSH-2.0-OpenSSH_9.6\r\n", First::Other),
            (b"*1\r\n$4\r\nPING\r\n", First::Other),
            (&[0, 0, 0, 8, 4, 210, 22, 47], First::Other),
            (b"\r\n\r\n", First::More),
            (&[22, 3], First::More),
            (&[22, 9, 9, 9, 9], First::Broken("it does not begin with a TLS greeting")),
        ] {
            assert_eq!(read(bytes), first, "{}", String::from_utf8_lossy(bytes));
        }
        let endless = [b"GET ".to_vec(), vec![b'a'; MAX_LINE]].concat();
        assert_eq!(read(&endless), First::Broken("its first line does not end"));
    }
}
