//! How much goes through the way out of a sandbox: one large answer, fetched by curl directly and
//! by curl in a sandbox, in turn.

use crate::median;
use conformance::pleach::{Folder, Ran};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;

const BYTES: usize = 512 << 20;
const ROUNDS: usize = 7;

/// Answers every request with the same bytes.
fn flood() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let chunk = vec![b'x'; 256 << 10];
        for stream in listener.incoming().map_while(Result::ok) {
            let chunk = chunk.clone();
            std::thread::spawn(move || {
                let mut stream = stream;
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                if lines.take_while(|line| !line.is_empty()).count() == 0 {
                    return;
                }
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\nconnection: close\r\n\r\n");
                let all = std::iter::repeat_n(&chunk, BYTES / chunk.len());
                let _ = stream
                    .write_all(head.as_bytes())
                    .and_then(|()| all.into_iter().try_for_each(|chunk| stream.write_all(chunk)));
            });
        }
    });
    port
}

/// Bytes a second, as curl has it; `command` is curl, or what runs it.
fn speed(mut command: Command, arguments: &[&str], port: u16) -> f64 {
    let told = ["-sS", "-o", "/dev/null", "-w", "%{size_download} %{speed_download}"];
    command.args(told).args(arguments).arg(format!("http://127.0.0.1:{port}/"));
    let ran = Ran::of(command.output().unwrap());
    let mut words = ran.out.split_whitespace();
    assert_eq!(words.next(), Some(BYTES.to_string().as_str()), "{ran:?}");
    words.next().unwrap().parse().unwrap()
}

/// Directly, through the proxy as a request, and through it as a tunnel.
pub(crate) fn egress() {
    let port = flood();
    let folder = Folder::new(
        "version = 1\n[models.default]\nprovider = \"scripted\"\nscript = \"replies.toml\"\n[policy]\nnetworks = { allow = [\"127.0.0.1/32\"] }\n[agents.a]\nprompt = \"\"\n",
    );
    let mut all = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        let inside = || folder.command(&["exec", "--", "curl"]);
        let speeds = [
            speed(Command::new("curl"), &["--noproxy", "*"], port),
            speed(inside(), &["--noproxy", ""], port),
            speed(inside(), &["--noproxy", "", "--proxytunnel"], port),
        ];
        // The first round warms what it can.
        if round > 0 {
            all.iter_mut().zip(speeds).for_each(|(kept, speed)| kept.push(speed));
        }
    }
    let [direct, request, tunnel] = all.map(|mut speeds| median(&mut speeds) / f64::from(1 << 20));
    println!("egress: direct {direct:.0} MiB/s");
    println!("egress through the sandbox's proxy, a request: {request:.0} MiB/s, {:.2} of direct", request / direct);
    println!("egress through the sandbox's proxy, a tunnel: {tunnel:.0} MiB/s, {:.2} of direct", tunnel / direct);
}
