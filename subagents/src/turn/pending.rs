//! What a state leaves to be done.

use super::{Effect, Stage, State};
use crate::run;

/// All that is still to be done, in a fixed order. What a driver has in hand already is in it as
/// well: [`Effect::key`] tells.
pub fn pending(state: &State) -> Vec<Effect> {
    if state.end.is_some() || !state.started {
        return Vec::new();
    }
    let children = state.background.iter().map(|b| Effect::AwaitChild { run: b.run.clone(), call: None });
    let mut effects: Vec<Effect> = children.collect();
    if state.paused {
        return effects;
    }
    if !state.calls.is_empty() {
        effects.extend(state.calls.iter().filter_map(|open| match &open.stage {
            Stage::Wanted => Some(Effect::Act(open.call.clone(), open.asked.clone())),
            Stage::Refused(why) => Some(Effect::Refuse(open.call.clone(), why.clone())),
            Stage::Asked(waiting) => Some(Effect::Await(waiting.clone())),
            Stage::Sent { effect, key, attempt } => Some(Effect::Redo {
                call: open.call.clone(),
                asked: open.asked.clone(),
                effect: effect.clone(),
                key: key.clone(),
                attempt: *attempt,
            }),
            Stage::Child(run) => Some(Effect::AwaitChild { run: run.clone(), call: Some(open.call.id.clone()) }),
            Stage::Done(_) => None,
        }));
        return effects;
    }
    match (&state.word, &state.asking) {
        (Some((run::State::Completed, text)), _) if effects.is_empty() && state.schema.is_some() && !state.fits => {
            effects.push(Effect::Check { turn: state.turns, text: text.clone() });
        }
        (Some((end, text)), _) if effects.is_empty() => effects.push(Effect::Finish(*end, text.clone())),
        // The last word waits for what works in the background.
        (Some(_), _) => {}
        (None, Some(asking)) => effects.push(Effect::Think(asking.turn)),
        (None, None) if state.counted().0 >= state.max_turns => {
            let made = state.counted().0;
            let text = format!("budget.turns is reached: {made} of {} model calls made", state.max_turns);
            effects.push(Effect::Finish(run::State::OverBudget, text));
        }
        (None, None) => effects.push(Effect::Think(state.turns)),
    }
    effects
}
