//! A tunnel: the first bytes of the client are held until they were judged. What the other side
//! says meanwhile goes through, since some protocols begin there.

use super::first::{self, First};
use super::meter::{Metered, Watch};
use super::{Opened, PATIENCE, Target, Way, fits, http};
use policies::domain::Host;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tracing::info;

/// TLS says so that it does not know the name.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// The client's side of a tunnel.
pub(super) trait Client: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Client for T {}

/// How a tunnel goes on.
enum Next {
    /// Everything is copied.
    Copy,
    /// Each request is looked at.
    Http,
    /// Not at all.
    End,
}

pub(super) async fn run(mut client: impl Client, opened: Opened, way: Way) {
    let Opened { mut stream, target } = opened;
    let watch = stream.watch();
    let through = async {
        let held = match held(&mut client, &mut stream).await {
            Ok(Some(held)) => held,
            Ok(None) | Err(_) => return,
        };
        match judged(&mut client, &held, &target, &way).await {
            Next::End => {}
            Next::Http => http::inside(Held { held, at: 0, client }, stream, target, way.clone()).await,
            Next::Copy => {
                if stream.write_all(&held).await.is_ok() {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut stream).await;
                }
            }
        }
    };
    let stop = way.stop.clone();
    tokio::select! {
        () = stop.cancelled() => {}
        () = ended(&watch, &way) => {}
        () = through => {}
    }
}

async fn ended(watch: &Watch, way: &Way) {
    let why = watch.over().await;
    info!(owner = way.owner.name(), "egress: a connection was ended, because {why}");
}

/// The client's first bytes, as many as it takes to know what they are; `None` where the tunnel
/// ends before.
async fn held(client: &mut impl Client, stream: &mut Metered) -> io::Result<Option<Vec<u8>>> {
    let mut held = Vec::new();
    let (mut up, mut down) = (vec![0u8; 8192], vec![0u8; 8192]);
    let mut late: Option<Pin<Box<tokio::time::Sleep>>> = None;
    loop {
        let begun = late.as_mut();
        tokio::select! {
            read = client.read(&mut up) => {
                let read = read?;
                held.extend_from_slice(&up[..read]);
                if read == 0 || first::read(&held) != First::More {
                    return Ok((!held.is_empty()).then_some(held));
                }
                late.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
            }
            read = stream.read(&mut down) => match read? {
                0 => return Ok(None),
                read => client.write_all(&down[..read]).await?,
            },
            // Who began to say something goes on.
            () = async { match begun { Some(late) => late.await, None => std::future::pending().await } } => return Ok(None),
        }
    }
}

/// What the first bytes say of whom they are for.
#[derive(Debug, PartialEq, Eq)]
enum Says {
    /// Nothing that could be told apart from the target.
    Nothing,
    /// It stands in each request.
    Requests,
    /// This host; or why none can be known.
    Host(Result<Host, String>),
}

fn says(first: First, target: &Target) -> Says {
    let address = matches!(target.host, Host::Address(_));
    Says::Host(match first {
        First::Tls { name: Some(name), .. } => {
            Host::parse(&name).map_err(|e| format!("its TLS greeting names no host: {e}"))
        }
        // An address has no name to ask for.
        First::Tls { name: None, .. } if address => return Says::Nothing,
        First::Tls { name: None, .. } => Err("its TLS greeting names no host (no SNI)".into()),
        First::Broken(why) => Err(why.into()),
        _ if target.port == 443 => Err("it does not speak TLS on port 443".into()),
        First::Http => return Says::Requests,
        First::Http2 if address => return Says::Nothing,
        First::Http2 => Err("it speaks HTTP/2 in the clear, whose hosts are not looked at".into()),
        First::Other | First::More if target.port == 80 => Err("it does not speak HTTP on port 80".into()),
        First::Other => return Says::Nothing,
        First::More => Err("it ended before it said what it is".into()),
    })
}

/// A name hidden behind one that is shown (ECH) is known to the front alone, and fronts are shared: with
/// one name of theirs that is allowed, all of theirs would be. Its GREASE, which browsers send to
/// everybody, looks the same.
const HIDDEN: &str = "its TLS greeting hides another name, or looks as if it did (ECH); have the client send no ECH";

/// What the first bytes lead to.
async fn judged(client: &mut impl Client, held: &[u8], target: &Target, way: &Way) -> Next {
    let first = first::read(held);
    let hides = matches!(first, First::Tls { hides: true, .. });
    let said = match says(first, target) {
        _ if hides => Err(HIDDEN.to_owned()),
        Says::Nothing => return Next::Copy,
        Says::Requests => return Next::Http,
        Says::Host(said) => said,
    };
    let Err(why) = fits(&*way.owner, target, said) else { return Next::Copy };
    let answer = match held.first() {
        Some(22) => UNRECOGNIZED_NAME.to_vec(),
        _ => {
            let said = format!("pleach: {why}\n");
            let head = format!("HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", said.len());
            [head, said].concat().into_bytes()
        }
    };
    let _ = client.write_all(&answer).await;
    let _ = client.shutdown().await;
    Next::End
}

/// A client whose first bytes were read already.
pub(super) struct Held<C> {
    held: Vec<u8>,
    at: usize,
    client: C,
}

impl<C: Client> AsyncRead for Held<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.at < self.held.len() {
            let rest = &self.held[self.at..];
            let part = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..part]);
            self.at += part;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.client).poll_read(cx, buf)
    }
}

impl<C: Client> AsyncWrite for Held<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.client).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::hello::tests::greeting;

    fn target(host: &str, port: u16) -> Target {
        Target { host: Host::parse(host).unwrap(), port }
    }

    #[test]
    fn first_bytes_say_whom_they_are_for() {
        let says = |bytes: &[u8], host: &str, port: u16| super::says(first::read(bytes), &target(host, port));
        let named = |host: &str| Says::Host(Ok(Host::parse(host).unwrap()));
        let unknown = |said: Says| matches!(said, Says::Host(Err(_)));
        let (tls, nameless) = (greeting(Some("API.example.com")), greeting(None));
        for port in [443, 8443, 80] {
            assert_eq!(says(&tls, "api.example.com", port), named("api.example.com"));
            assert!(unknown(says(&nameless, "api.example.com", port)));
            assert_eq!(says(&nameless, "10.0.0.1", port), Says::Nothing);
        }
        let (get, prior, other) = (&b"GET / HTTP/1.1\r\n"[..], &b"PRI * HTTP/2.0\r\n"[..], &[0, 1, 2][..]);
        assert_eq!(says(get, "a.example", 80), Says::Requests);
        assert_eq!(says(get, "a.example", 8080), Says::Requests);
        assert_eq!(says(prior, "10.0.0.1", 50051), Says::Nothing);
        assert_eq!(says(other, "a.example", 22), Says::Nothing);
        for (bytes, port) in [(get, 443), (prior, 443), (prior, 8080), (other, 443), (other, 80), (&tls[..9], 8443)] {
            assert!(unknown(says(bytes, "a.example", port)), "{bytes:?} on {port}");
        }
    }
}
