//! Values of secrets, from where they are: a file that its owner reads, or a program that is run
//! outside every sandbox, as the operator's own. No error holds anything of what was read.

use policies::resolve::SecretFile;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A value may have this many bytes.
const MAX_VALUE: u64 = 64 << 10;
/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The file of a secret.
///
/// # Errors
/// Why it cannot be read, with what to do.
pub(crate) fn file(path: &Path) -> Result<SecretFile, String> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => "it is not there; write the value there (chmod 600), or name another file".into(),
        io::ErrorKind::PermissionDenied => format!("{e}; make it readable for the user pleach runs as"),
        _ => e.to_string(),
    };
    // Looked at before it is opened: a pipe would keep us waiting.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err("it is no regular file; name the file that holds the value".into());
    }
    let opened = std::fs::File::open(path).map_err(failed)?;
    let mode = opened.metadata().map_err(failed)?.permissions().mode() & 0o777;
    let text = text(bounded(opened).map_err(failed)?)?;
    Ok(SecretFile { text, open: (mode & 0o077 != 0).then_some(mode) })
}

/// What a program prints.
///
/// # Errors
/// Why it gave no value: never with what it printed.
pub(crate) fn command(words: &[String]) -> Result<String, String> {
    let (program, arguments) = words.split_first().ok_or("it names no program")?;
    let mut command = Command::new(program);
    // Not where agents may write: interpreters and tools look around where they are started.
    command.args(arguments).current_dir("/").process_group(0);
    // What it says on standard error may hold the value too.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => "it is not installed, or not on PATH".to_owned(),
        _ => format!("it cannot be run: {e}"),
    })?;
    let read = printed(&mut child);
    if read.is_err() {
        let _ = child.kill();
    }
    let ended = child.wait().map_err(|e| e.to_string())?;
    let printed = read?;
    if !ended.success() {
        return Err(format!("{}; run it by hand to see why", how(ended)));
    }
    text(printed)
}

/// All it prints, until it prints no more.
fn printed(child: &mut Child) -> Result<Vec<u8>, String> {
    let output = child.stdout.take().ok_or("its output is not piped")?;
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || done.send(bounded(output)));
    match wait.recv_timeout(LIMIT) {
        Ok(read) => read.map_err(|e| e.to_string()),
        Err(_) => Err(format!("it did not end within {} s; it is asked nothing and must not wait", LIMIT.as_secs())),
    }
}

fn how(ended: ExitStatus) -> String {
    match (ended.code(), ended.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, Some(signal)) => format!("signal {signal} ended it"),
        _ => "it failed".into(),
    }
}

fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_VALUE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_VALUE {
        true => Err(io::Error::other(format!("it holds more than {MAX_VALUE} bytes"))),
        false => Ok(bytes),
    }
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| "what it holds is no UTF-8 text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Result<String, String> {
        command(&["sh".into(), "-c".into(), script.into()])
    }

    #[test]
    fn a_program_gives_what_it_prints_and_its_errors_give_nothing_of_it() {
        assert_eq!(run("printf canary"), Ok("canary".into()));
        let failed = run("echo canary; echo canary >&2; exit 3").unwrap_err();
        assert_eq!(failed, "it ended with exit code 3; run it by hand to see why");
        assert_eq!(run("kill -9 $$").unwrap_err(), "signal 9 ended it; run it by hand to see why");
        assert!(run("head -c 70000 /dev/zero").unwrap_err().contains("more than 65536 bytes"));
        let missing = command(&["no-such-program-anywhere".into()]).unwrap_err();
        assert_eq!(missing, "it is not installed, or not on PATH");
    }

    #[test]
    fn a_file_tells_who_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(file(&path).unwrap_err().starts_with("it is not there"));
        assert!(file(folder.path()).unwrap_err().starts_with("it is no regular file"));
        std::fs::write(&path, "canary\n").unwrap();
        for (mode, open) in [(0o600, None), (0o400, None), (0o640, Some(0o640)), (0o602, Some(0o602))] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(file(&path), Ok(SecretFile { text: "canary\n".into(), open }));
        }
    }
}
