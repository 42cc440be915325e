use super::words::say;
use crate::error::Outcome;

/// Print the JSON Schema of the policy file, for editors.
///
/// Example: pleach schema > pleach.schema.json
#[derive(clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: Args) -> Outcome {
    say!("{:#}", policies::file::shapes::schema());
    Ok(0)
}
