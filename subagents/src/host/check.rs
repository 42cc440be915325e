//! Answers that must have a form: looked at before they are the run's.

use super::HostError;
use super::drive::{At, Flow};
use crate::event::Event;
use policies::json::Json;
use policies::resolve::OutputSchema;

impl At {
    /// Writes down whether the last word fits. The schema is the one the run began with; what is
    /// wrong is in the journal, so that a replay needs no validator.
    pub(super) async fn check(&self, turn: u32, text: &str) -> Result<Flow, HostError> {
        let schema = self.run.log.lock().await.state.schema.clone();
        let problem = schema.and_then(|schema| match OutputSchema::new(&Json::from(&*schema)) {
            Ok(schema) => schema.check(text).err(),
            Err(why) => Some(format!("the schema itself cannot be used: {why}")),
        });
        self.append(vec![Event::AnswerChecked { turn, problem }]).await
    }
}
