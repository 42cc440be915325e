//! Trials of the sandbox itself: what the kernel really refuses, against what `policies` decides
//! (`kernel`), and what each part stops that no other does (`table`).
//!
//! The launcher re-executes its own binary, which here is this test binary. So what `main` does
//! in `pleach` happens here before any `main`, and so before any thread: a function the loader
//! calls looks at the first argument.
//!
//! ```text
//!  test ── launch ─▶ test binary as launcher ── enter ─▶ test binary as program
//!    │                                                     ├ acts: one a line, told and answered
//!    └── looks at what lies on disk, arrived, lives ◀──────┴ attacks: one, then it ends
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod acts;
mod attacks;
mod groups;
mod kernel;
mod raw;
mod table;
mod tree;

use super::{LaunchError, Pipes, Spec, launch, runtime};
use std::path::{Path, PathBuf};
use tokio::io::AsyncReadExt;

/// The first arguments that make this binary a program in the sandbox.
const ACTS: &str = "__trial_acts";
const ATTACK: &str = "__trial_attack";

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some(super::ENTRY) => super::enter(),
        Some(ACTS) => super::enter::exit(acts::perform()),
        Some(ATTACK) => super::enter::exit(attacks::perform(&args.collect::<Vec<_>>())),
        _ => {}
    }
}

/// This binary as a program of the sandbox; nothing is granted yet.
fn program(first: &str, args: &[String], cwd: &Path, home: &Path) -> Spec {
    let program = std::env::current_exe().unwrap().canonicalize().unwrap();
    let found = runtime::Runtime { paths: [program.clone()].into(), program };
    let args = std::iter::once(first.to_owned()).chain(args.iter().cloned()).collect();
    Spec::new(found, args, cwd.to_owned(), home.to_owned())
}

/// What an instance said and how it ended.
async fn output(spec: &Spec) -> Result<String, LaunchError> {
    let mut instance = launch(spec, Pipes::piped()).await?;
    let (mut said, mut errors) = (Vec::new(), Vec::new());
    instance.child.stdout.take().unwrap().read_to_end(&mut said).await?;
    instance.child.stderr.take().unwrap().read_to_end(&mut errors).await?;
    instance.child.wait().await?;
    Ok(String::from_utf8_lossy(&[said, errors].concat()).into_owned())
}

/// A folder that is gone with its owner, by its canonical name.
fn folder(parent: &Path) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir_in(parent).unwrap();
    let path = folder.path().canonicalize().unwrap();
    (folder, path)
}
