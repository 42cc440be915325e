use super::words::say;
use crate::error::{Exit, Outcome};
use adapters::sandbox::probe;
use serde_json::json;

/// Try every layer of the sandbox on this machine and print the cure for what does not hold.
///
/// Exits 0 when the profile "full" holds, 1 otherwise.
///
/// Example: pleach doctor
#[derive(clap::Args)]
pub(super) struct Args {
    /// Print one JSON object a line: `layer`, `ok`, `seen`, `cure`.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args) -> Outcome {
    let home = std::env::temp_dir().join(format!("pleach-doctor-{}", std::process::id()));
    std::fs::create_dir_all(&home)?;
    let probes = probe::probe(home.canonicalize()?).await;
    let _ = std::fs::remove_dir_all(&home);
    let full = probes.iter().all(|p| p.ok || p.layer == "profile no-namespaces");
    for probe in &probes {
        if args.json {
            say!("{}", json!({ "layer": probe.layer, "ok": probe.ok, "seen": probe.seen, "cure": probe.cure }));
            continue;
        }
        say!("{} {}: {}", if probe.ok { "ok  " } else { "FAIL" }, probe.layer, probe.seen);
        if let Some(cure) = &probe.cure {
            say!("     cure: {cure}");
        }
    }
    if !full && !args.json {
        let binary = std::env::current_exe()?;
        say!("\nThe AppArmor profile for Ubuntu 23.10 and later:\n{}", probe::apparmor_profile(&binary));
    }
    Ok(if full { 0 } else { Exit::Failed as u8 })
}
