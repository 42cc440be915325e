//! SOCKS5 (RFC 1928, RFC 1929): CONNECT, by address or by name. Names are resolved here. A user
//! name and password are taken where a client will not do without, and say nothing: who connects
//! is known by where.

use super::{Kind, PATIENCE, Refused, Way, open, tunnel};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::{debug, info};

/// The first byte of what a client says.
pub(super) const VERSION: u8 = 5;

const NO_AUTHENTICATION: u8 = 0;
const PASSWORD: u8 = 2;
const NONE_ACCEPTED: u8 = 0xff;

const CONNECT: u8 = 1;

const SUCCEEDED: u8 = 0;
const NOT_ALLOWED: u8 = 2;
const HOST_UNREACHABLE: u8 = 4;
const CONNECTION_REFUSED: u8 = 5;
const COMMAND_NOT_SUPPORTED: u8 = 7;
const ADDRESS_NOT_SUPPORTED: u8 = 8;

pub(super) async fn serve(mut stream: TcpStream, way: Way) {
    let asked = match tokio::time::timeout(PATIENCE, asked(&mut stream)).await {
        Ok(Ok(asked)) => asked,
        Ok(Err(e)) => return debug!("SOCKS: {e}"),
        Err(_) => return,
    };
    let opened = match asked {
        Ok((host, port)) => open(&*way.owner, &host, port).await.map_err(|Refused { kind, why }| {
            info!(owner = way.owner.name(), "egress {why}");
            match kind {
                Kind::Bad | Kind::Denied => NOT_ALLOWED,
                Kind::Unresolved => HOST_UNREACHABLE,
                Kind::Unreachable => CONNECTION_REFUSED,
            }
        }),
        Err(code) => Err(code),
    };
    let code = opened.as_ref().err().copied().unwrap_or(SUCCEEDED);
    // Which address of ours it left from is not the client's to know.
    let answered = stream.write_all(&[VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    if let (Ok(opened), Ok(())) = (opened, answered) {
        tunnel::run(stream, opened, way).await;
    }
}

type Asked = Result<(String, u16), u8>;

/// What the client wants; the code it is refused by where that is not served.
async fn asked(stream: &mut TcpStream) -> io::Result<Asked> {
    let wrong = |what: &str| io::Error::other(what.to_owned());
    let [version, count] = bytes(stream).await?;
    if version != VERSION {
        return Err(wrong("not version 5"));
    }
    let methods = sized(stream, count).await?;
    if methods.contains(&NO_AUTHENTICATION) {
        stream.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    } else if methods.contains(&PASSWORD) {
        stream.write_all(&[VERSION, PASSWORD]).await?;
        let [version, length] = bytes(stream).await?;
        if version != 1 {
            return Err(wrong("not version 1 of the password method"));
        }
        sized(stream, length).await?;
        let [length] = bytes(stream).await?;
        sized(stream, length).await?;
        stream.write_all(&[1, 0]).await?;
    } else {
        stream.write_all(&[VERSION, NONE_ACCEPTED]).await?;
        return Err(wrong("no method in common"));
    }
    let [version, command, _, kind] = bytes(stream).await?;
    if version != VERSION {
        return Err(wrong("not version 5"));
    }
    let host = match kind {
        1 => Ipv4Addr::from(bytes::<4>(stream).await?).to_string(),
        4 => Ipv6Addr::from(bytes::<16>(stream).await?).to_string(),
        3 => {
            let [length] = bytes(stream).await?;
            // What is no text is no host: judged as a whole or not at all.
            match String::from_utf8(sized(stream, length).await?) {
                Ok(host) => host,
                Err(_) => return Ok(Err(ADDRESS_NOT_SUPPORTED)),
            }
        }
        _ => return Ok(Err(ADDRESS_NOT_SUPPORTED)),
    };
    let port = u16::from_be_bytes(bytes(stream).await?);
    Ok(if command == CONNECT { Ok((host, port)) } else { Err(COMMAND_NOT_SUPPORTED) })
}

async fn bytes<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn sized(stream: &mut TcpStream, length: u8) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
