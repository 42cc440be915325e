//! `pleach`: composes, guards, serves. `main` is synchronous, because the launcher of the
//! sandbox must run before any thread or runtime exists.

mod a2a;
mod audit;
mod auth;
mod cli;
mod compose;
mod egress;
mod error;
mod fetched;
mod guard;
mod hosted;
mod live;
mod mcp;
mod oauth;
mod rest;
mod resume;
mod serve;
mod servers;
mod settings;
mod shown;
mod telemetry;
mod webhook;

/// A relayed call is mostly small allocations: a quarter of its instructions with the C library's
/// allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|a| a.to_str()) {
        Some(adapters::sandbox::ENTRY) => adapters::sandbox::enter(),
        Some(adapters::builtin::ENTRY) => {
            let which = args.next().and_then(|which| which.into_string().ok()).unwrap_or_default();
            match adapters::builtin::serve(&which) {
                Ok(()) => std::process::ExitCode::SUCCESS,
                Err(e) => {
                    eprintln!("pleach {which} server: {e}");
                    std::process::ExitCode::FAILURE
                }
            }
        }
        _ => cli::main(),
    }
}
