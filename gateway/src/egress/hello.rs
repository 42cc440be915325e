//! What a TLS greeting says of whom it is for (RFC 8446, section 4.1.2; RFC 6066, section 3).

/// A greeting of more bytes is none we wait for.
const MAX_HELLO: usize = 16 << 10;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
/// Encrypted greetings: the name in the clear is not the one that counts.
const HIDING: [u16; 2] = [0xfe0d, 0xffce];

/// What was understood so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hello {
    /// It goes on.
    More,
    /// It is no TLS greeting.
    Broken(&'static str),
    /// All of it.
    Whole {
        /// The name it asks for.
        name: Option<String>,
        /// Whether it hides another one.
        hides: bool,
    },
}

/// Reads a greeting from the bytes that came so far, in as many records as it likes.
pub(super) fn read(bytes: &[u8]) -> Hello {
    let (mut message, mut rest) = (Vec::new(), bytes);
    loop {
        let Some((head, after)) = rest.split_at_checked(5) else { return Hello::More };
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if head[0] != HANDSHAKE || head[1] != 3 || length == 0 || length > 1 << 14 {
            return Hello::Broken("it does not begin with a TLS greeting");
        }
        let part = &after[..after.len().min(length)];
        message.extend_from_slice(part);
        if let [kind, ..] = message[..]
            && kind != CLIENT_HELLO
        {
            return Hello::Broken("it does not begin with a TLS greeting");
        }
        if let [_, a, b, c, body @ ..] = &message[..] {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if length > MAX_HELLO {
                return Hello::Broken("its TLS greeting is too long");
            }
            if let Some(body) = body.get(..length) {
                return understood(body).unwrap_or(Hello::Broken("its TLS greeting is malformed"));
            }
        }
        if part.len() < length {
            return Hello::More;
        }
        rest = &after[length..];
    }
}

/// Bytes read from the front; `None` where there are too few.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }
    fn short(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }
    /// What follows its own length.
    fn sized(&mut self, wide: bool) -> Option<Reader<'a>> {
        let length = if wide { usize::from(self.short()?) } else { usize::from(self.byte()?) };
        self.take(length).map(Reader)
    }
}

fn understood(body: &[u8]) -> Option<Hello> {
    let mut body = Reader(body);
    // Version and random; session, cipher suites and compressions are nobody's business here.
    body.take(2 + 32)?;
    body.sized(false)?;
    body.sized(true)?;
    body.sized(false)?;
    let (mut name, mut hides) = (None, false);
    if body.0.is_empty() {
        return Some(Hello::Whole { name, hides });
    }
    let mut extensions = body.sized(true)?;
    while !extensions.0.is_empty() {
        let kind = extensions.short()?;
        let mut inside = extensions.sized(true)?;
        if kind == SERVER_NAME {
            let mut list = inside.sized(true)?;
            let (0, mut said) = (list.byte()?, list.sized(true)?) else { return None };
            // One name: of two, each side could mean another.
            if name.is_some() || !list.0.is_empty() || !inside.0.is_empty() {
                return None;
            }
            let length = said.0.len();
            name = Some(std::str::from_utf8(said.take(length)?).ok()?.to_owned());
        }
        hides |= HIDING.contains(&kind);
    }
    body.0.is_empty().then_some(Hello::Whole { name, hides })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn sized(wide: bool, bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [if wide { &length[..] } else { &length[1..] }, bytes].concat()
    }
    fn extension(kind: u16, bytes: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &sized(true, bytes)].concat()
    }
    fn server_name(name: &str) -> Vec<u8> {
        extension(SERVER_NAME, &sized(true, &[&[0][..], &sized(true, name.as_bytes())].concat()))
    }
    fn hello(extensions: &[u8]) -> Vec<u8> {
        let body = [&[3, 3][..], &[7; 32], &sized(false, &[]), &sized(true, &[0x13, 1]), &sized(false, &[0])].concat();
        let body = [body, sized(true, extensions)].concat();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[CLIENT_HELLO][..], &length[1..], &body].concat()
    }
    /// In records of so many bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &sized(true, part)].concat()).collect()
    }
    pub(in crate::egress) fn greeting(name: Option<&str>) -> Vec<u8> {
        records(&hello(&name.map(server_name).unwrap_or_default()), 16_000)
    }

    #[test]
    fn a_greeting_is_read_in_whatever_pieces_it_comes() {
        let message = hello(&[extension(43, &[2, 3, 4]), server_name("api.example.com")].concat());
        let whole = Hello::Whole { name: Some("api.example.com".into()), hides: false };
        for size in [1, 7, 16_000] {
            let bytes = records(&message, size);
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end]), Hello::More, "{end} of {}", bytes.len());
            }
            assert_eq!(read(&bytes), whole);
            assert_eq!(read(&[bytes, vec![1, 2, 3]].concat()), whole, "more may follow");
        }
    }

    #[test]
    fn what_cannot_be_judged_is_told_apart() {
        let read = |extensions: &[u8]| super::read(&records(&hello(extensions), 16_000));
        assert_eq!(read(&[]), Hello::Whole { name: None, hides: false });
        let hiding = [server_name("front.example"), extension(0xfe0d, &[0; 20])].concat();
        assert_eq!(read(&hiding), Hello::Whole { name: Some("front.example".into()), hides: true });
        let malformed = Hello::Broken("its TLS greeting is malformed");
        assert_eq!(read(&[server_name("a.example"), server_name("b.example")].concat()), malformed);
        let two = [&[0][..], &sized(true, b"a"), &[0], &sized(true, b"b")].concat();
        assert_eq!(read(&extension(SERVER_NAME, &sized(true, &two))), malformed);
        assert_eq!(read(&server_name("a.example")[..6]), malformed);
        let none = Hello::Broken("it does not begin with a TLS greeting");
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], &[22, 3, 1, 0, 0, 1], &[22, 3, 1, 0, 1, 2], &[22, 2, 0, 0, 9]] {
            assert_eq!(super::read(bytes), none, "{bytes:?}");
        }
        let long = [&[HANDSHAKE, 3, 1, 0, 9, CLIENT_HELLO, 1, 0, 0][..], &[0; 5]].concat();
        assert_eq!(super::read(&long), Hello::Broken("its TLS greeting is too long"));
    }

    proptest::proptest! {
        /// Whatever comes, it is read to its end or refused, and never twice differently.
        #[test]
        fn nothing_trips_it(bytes: Vec<u8>, cut in 0usize..64) {
            let start = [&[HANDSHAKE, 3, 1][..], &bytes].concat();
            let first = read(&start);
            proptest::prop_assert_eq!(&first, &read(&start));
            let shorter = read(&start[..start.len().saturating_sub(cut)]);
            if shorter != Hello::More {
                proptest::prop_assert_eq!(shorter, first);
            }
        }
    }
}
