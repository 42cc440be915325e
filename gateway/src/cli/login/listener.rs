//! Loopback, until the browser is sent back there (RFC 8252, section 7.3).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// Where the answer is expected.
pub(super) const PATH: &str = "/callback";
const MAX_HEAD: usize = 16 << 10;
const SLOW: Duration = Duration::from_secs(5);

pub(super) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on the port of the policy file, else on that of last time, else on a free one.
    pub(super) async fn bind(fixed: Option<u16>, before: Option<u16>) -> Result<Self, String> {
        let on = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = match (fixed, before) {
            (Some(port), _) => on(port).await.map_err(|e| format!("auth.redirect_port {port}: {e}"))?,
            (None, Some(port)) => match on(port).await {
                Ok(listener) => listener,
                Err(_) => on(0).await.map_err(|e| e.to_string())?,
            },
            (None, None) => on(0).await.map_err(|e| e.to_string())?,
        };
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        Ok(Self { listener, address })
    }
    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The first address that answers the question with this `state`; what it answers is read
    /// elsewhere. Any page and program of this machine can call here, so whatever does not know
    /// the state changes nothing.
    pub(super) async fn answer(&self, state: &str) -> Result<Url, String> {
        loop {
            let (mut stream, _) = self.listener.accept().await.map_err(|e| e.to_string())?;
            let target = tokio::time::timeout(SLOW, target(&mut stream)).await.ok().flatten();
            let answer = target.and_then(|target| self.read(&target, state));
            let (status, text) = match &answer {
                Some(_) => ("200 OK", "Pleach has its answer. You can close this window.\n"),
                None => ("400 Bad Request", "This is not the answer pleach waits for.\n"),
            };
            let response = format!(
                "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
                 cache-control: no-store\r\nreferrer-policy: no-referrer\r\nconnection: close\r\n\r\n{text}",
                text.len()
            );
            let _ = tokio::time::timeout(SLOW, stream.write_all(response.as_bytes())).await;
            let _ = stream.shutdown().await;
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
    }

    /// An answer has the state of the question, once, and a code or an error.
    fn read(&self, target: &str, state: &str) -> Option<Url> {
        let url = Url::parse(&format!("http://{}{target}", self.address)).ok()?;
        let has = |name: &str| url.query_pairs().any(|(key, _)| key == name);
        let states: Vec<_> = url.query_pairs().filter(|(key, _)| key == "state").collect();
        let ours = matches!(states.as_slice(), [(_, only)] if only == state);
        (url.path() == PATH && ours && (has("code") || has("error"))).then_some(url)
    }
}

/// The target of a GET, from the first line of the request.
async fn target(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut chunk = [0u8; 2048];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let n = stream.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        head.extend_from_slice(&chunk[..n]);
        if head.len() > MAX_HEAD {
            return None;
        }
    }
    let text = String::from_utf8(head).ok()?;
    let mut words = text.lines().next()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    (method == "GET" && target.starts_with('/')).then(|| target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn noise_is_passed_over_and_the_answer_taken() {
        let listener = Listener::bind(None, None).await.unwrap();
        let address = listener.address;
        let send = move |head: String| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            answer
        };
        let asking = async {
            for noise in [
                "GET /favicon.ico",
                "GET /callback",
                "GET /callback?state=s",
                "POST /callback?state=s&code=c",
                "GET /x?state=s&code=c",
                // What a page that knows the address, and not the state, can send.
                "GET /callback?state=t&code=c",
                "GET /callback?state=t&error=access_denied",
                "GET /callback?state=&code=c",
                "GET /callback?code=c",
                "GET /callback?state=t&state=s&code=c",
            ] {
                let answer = send(format!("{noise} HTTP/1.1\r\n\r\n")).await;
                assert!(answer.starts_with("HTTP/1.1 400"), "{noise}: {answer}");
            }
            send("GET /callback?code=a%20b&state=s HTTP/1.1\r\nhost: x\r\n\r\n".into()).await
        };
        let (answer, page) = tokio::join!(listener.answer("s"), asking);
        assert_eq!(answer.unwrap().query(), Some("code=a%20b&state=s"));
        assert!(page.starts_with("HTTP/1.1 200"));
    }
}
