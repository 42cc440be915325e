//! `output_schema`: the form an agent's answer must have.

use super::Resolver;
use crate::file::{Node, Value};
use crate::json::{Json, Limits};
use crate::manifest::Schema;
use std::sync::Arc;

/// The form of an agent's answer: a JSON Schema, compiled once. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OutputSchema {
    value: Arc<serde_json::Value>,
    compiled: Schema,
}

impl OutputSchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn new(schema: &Json) -> Result<Self, String> {
        let compiled = Schema::compile(schema).map_err(|e| e.to_string())?;
        Ok(Self { value: Arc::new(schema.to_serde()), compiled })
    }
    /// The schema, for models that can be held to one.
    pub fn value(&self) -> &serde_json::Value {
        &self.value
    }
    /// Checks an answer: the text must be JSON of this form. Gives the value.
    ///
    /// # Errors
    /// What does not fit, for the model to correct.
    pub fn check(&self, answer: &str) -> Result<serde_json::Value, String> {
        let value: serde_json::Value =
            serde_json::from_str(answer.trim()).map_err(|e| format!("the answer is not JSON: {e}"))?;
        self.compiled.check_serde(&value)?;
        Ok(value)
    }
}

impl PartialEq for OutputSchema {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}
impl Eq for OutputSchema {}

impl Resolver<'_> {
    pub(super) fn output_schema(&mut self, agent: &Node) -> Option<OutputSchema> {
        let node = agent.get("output_schema")?;
        let (schema, of) = self.document(node, "output_schema")?;
        match OutputSchema::new(&schema) {
            Ok(schema) => Some(schema),
            Err(why) => {
                self.error(&node.place, format!("{of} is no JSON Schema: {why}"));
                None
            }
        }
    }

    /// A JSON document, written as a table or named as a file; and how it is called in errors.
    pub(super) fn document(&mut self, node: &Node, key: &str) -> Option<(Json, String)> {
        let Some(file) = node.text() else {
            return match to_json(node) {
                Ok(value) => Some((Json::from(&value), key.to_owned())),
                Err(at) => {
                    self.error(&at.place, format!("{key} holds what JSON has not: a time, or a number without end"));
                    None
                }
            };
        };
        let path = self.absolute(file);
        let text = match self.around.read_text(&path) {
            Ok(text) => text,
            Err(why) => {
                self.error(&node.place, format!("{key} {}: {why}", path.display()));
                return None;
            }
        };
        match Json::parse(text.as_bytes(), Limits::default()) {
            Ok(document) => Some((document, format!("{key} {}", path.display()))),
            Err(why) => {
                self.error(&node.place, format!("{key} {} is not JSON: {why}", path.display()));
                None
            }
        }
    }
}

/// A TOML value as JSON, or the value that has no counterpart there.
fn to_json(node: &Node) -> Result<serde_json::Value, &Node> {
    use serde_json::Value as J;
    Ok(match &node.value {
        Value::Text(text) => J::from(text.as_str()),
        Value::Int(n) => J::from(*n),
        Value::Float(n) => J::Number(serde_json::Number::from_f64(*n).ok_or(node)?),
        Value::Bool(b) => J::from(*b),
        Value::Time => return Err(node),
        Value::List(items) => J::Array(items.iter().map(to_json).collect::<Result<_, _>>()?),
        Value::Table(entries) => {
            let entries = entries.iter().map(|(key, _, value)| Ok((key.clone(), to_json(value)?)));
            J::Object(entries.collect::<Result<_, &Node>>()?)
        }
    })
}
