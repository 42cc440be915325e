//! What somebody in the sandbox does, once, by its name. Each leaves something outside that can
//! be looked for, or says what it found.

use super::raw;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What an attacker leaves.
pub(super) const EVIL: &str = "evil-4b1c";

/// In the sandbox: the attack's name and what it needs.
pub(super) fn perform(args: &[String]) -> i32 {
    let done = attack(args);
    // Nothing is flushed where this process ends.
    match done.and_then(|()| std::io::stdout().flush()) {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("{e}");
            1
        }
    }
}

fn attack(args: &[String]) -> std::io::Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["read", path] => std::io::stdout().write_all(&std::fs::read(path)?),
        ["size", path] => {
            println!("{} bytes", std::fs::metadata(path)?.len());
            Ok(())
        }
        ["write", path] => {
            std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?.write_all(EVIL.as_bytes())
        }
        ["mode", path] => std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)),
        ["unseal", path] => {
            raw::unseal()?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
        }
        ["replace", folder, file] => {
            // A folder with its mask goes aside, and a new one stands in its place.
            std::fs::rename(folder, format!("{folder}.moved"))?;
            let path = Path::new(folder).join(file);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
            std::fs::write(path, EVIL)
        }
        ["large", path] => std::fs::File::create(path)?.set_len(9 << 30),
        ["connect", address] => TcpStream::connect(address)?.write_all(EVIL.as_bytes()),
        ["unix", path] => UnixStream::connect(path)?.write_all(EVIL.as_bytes()),
        ["through", target] => {
            let mut proxy = TcpStream::connect(("127.0.0.1", crate::sandbox::PROXY_PORT))?;
            proxy.write_all(format!("{target}\n{EVIL}").as_bytes())?;
            proxy.shutdown(std::net::Shutdown::Write)?;
            proxy.read_to_end(&mut Vec::new()).map(drop)
        }
        ["segment", key] => {
            let bytes = raw::shared_segment(key.parse().unwrap_or(0))?;
            std::io::stdout().write_all(&bytes)
        }
        ["descriptor", number] => std::io::stdout().write_all(&raw::read_at(number.parse().unwrap_or(-1))?),
        ["environment"] => {
            std::env::vars().for_each(|(name, value)| println!("{name}={value}"));
            Ok(())
        }
        // Lives on by itself: in a session of its own, its parent gone.
        ["stay", seconds] => {
            let script = format!("setsid sleep {seconds} </dev/null >/dev/null 2>&1 &");
            Command::new("/bin/sh").args(["-c", &script]).status().map(drop)
        }
        ["sleep", seconds] => {
            println!("ready");
            std::io::stdout().flush()?;
            Command::new("/bin/sleep").arg(seconds).stdout(std::process::Stdio::null()).status().map(drop)
        }
        ["hoard", mebibytes] => hoard(mebibytes),
        ["hold", mebibytes] => {
            let bytes = vec![1u8; mebibytes.parse::<usize>().unwrap_or(0) << 20];
            println!("{}", std::hint::black_box(&bytes).len());
            std::io::stdin().read_to_end(&mut Vec::new()).map(drop)
        }
        _ => Err(std::io::Error::other(format!("no attack {args:?}"))),
    }
}

/// Three processes that hold this much each, at once.
fn hoard(mebibytes: &str) -> std::io::Result<()> {
    let own = std::env::current_exe()?;
    let hold = || {
        Command::new(&own).args([super::ATTACK, "hold", mebibytes]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
    };
    let mut children = (0..3).map(|_| hold()).collect::<std::io::Result<Vec<Child>>>()?;
    let mut holding = 0;
    for child in &mut children {
        let mut line = String::new();
        if let Some(said) = &mut child.stdout {
            BufReader::new(said).read_line(&mut line)?;
        }
        holding += usize::from(!line.is_empty());
    }
    // Whoever said so earlier may have been ended for it since.
    for child in &mut children {
        holding -= usize::from(child.try_wait()?.is_some());
        let _ = child.kill();
        child.wait()?;
    }
    println!("{holding} hold {mebibytes} MiB at once");
    Ok(())
}
