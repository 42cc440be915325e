//! The effect class of an imported tool: the operator's word, else what its access class and
//! believed hints amount to.

use super::{ServerWords, Tool, ToolWords};
use crate::action::Effect;
use crate::json::Json;
use crate::permission::Access;
use std::collections::BTreeMap;

pub(super) fn classify(
    words: &ServerWords,
    own: Option<&ToolWords>,
    access: Access,
    annotations: Option<&Json>,
) -> Effect {
    if let Some(effect) = own.and_then(|w| w.effect) {
        return effect;
    }
    // Whoever may not grant by its hints may not have its calls repeated by them either.
    let believed = words.builtin || words.trust_annotations;
    let idempotent = annotations.and_then(|a| a.get("idempotentHint")).and_then(Json::as_bool);
    match Effect::of_access(access) {
        Effect::Once if believed && idempotent == Some(true) => Effect::Idempotent,
        effect => effect,
    }
}

/// A tool whose verifier is not there, or would itself be an effect to repeat, counts as `once`.
/// Gives the tools concerned and the reason.
pub(super) fn check_verifiers(tools: &mut [Tool]) -> Vec<(String, String)> {
    let effects: BTreeMap<String, Effect> = tools.iter().map(|t| (t.upstream.clone(), t.effect)).collect();
    let mut notes = Vec::new();
    for tool in tools {
        let Some(by) = tool.verify_with.clone() else { continue };
        let why = match effects.get(&by) {
            Some(Effect::Pure | Effect::Idempotent) => continue,
            Some(effect) => format!("verify_with = {by:?}, but that is {} itself; it counts as once", effect.as_str()),
            None => format!("verify_with = {by:?}, which the server does not offer; it counts as once"),
        };
        tool.effect = Effect::Once;
        tool.verify_with = None;
        notes.push((tool.upstream.clone(), why));
    }
    notes
}
