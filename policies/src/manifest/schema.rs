//! Input schemas: JSON Schema 2020-12 unless the schema says otherwise, compiled once, without
//! ever fetching a reference and with bounded patterns.

use crate::json::Json;
use std::fmt;
use std::sync::Arc;

/// Bytes of a schema beyond which it is refused: compiled schemas are kept for good.
const MAX_SCHEMA: usize = 512 << 10;
/// Steps a single `pattern` may take before it counts as not matching.
const MAX_BACKTRACK: usize = 100_000;

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// Larger than the bound.
    #[error("it is larger than {MAX_SCHEMA} bytes")]
    TooLarge,
    /// Refused by the compiler: unknown draft, remote reference, bad pattern, wrong shape.
    #[error("{0}")]
    Invalid(String),
}

/// A compiled schema. Cheap to clone.
#[derive(Clone)]
pub struct Schema(Arc<jsonschema::Validator>);

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn compile(schema: &Json) -> Result<Self, SchemaError> {
        if schema.to_text().len() > MAX_SCHEMA {
            return Err(SchemaError::TooLarge);
        }
        jsonschema::options()
            .offline()
            .with_pattern_options(jsonschema::PatternOptions::fancy_regex().backtrack_limit(MAX_BACKTRACK))
            .build(&schema.to_serde())
            .map(|validator| Self(Arc::new(validator)))
            .map_err(|e| SchemaError::Invalid(first_line(&e.to_string())))
    }
    pub(super) fn check(&self, value: &Json) -> Result<(), String> {
        self.check_serde(&value.to_serde())
    }
    /// Checks a value.
    ///
    /// # Errors
    /// The first thing that does not fit, and where.
    pub fn check_serde(&self, value: &serde_json::Value) -> Result<(), String> {
        self.0.validate(value).map_err(|e| {
            let at = e.instance_path().to_string();
            let what = first_line(&e.to_string());
            if at.is_empty() { what } else { format!("{at}: {what}") }
        })
    }
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or("");
    match line.char_indices().nth(300) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}
