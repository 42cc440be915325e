//! What this process writes and passes on, without the values of its secrets. There is one set
//! for the whole process: a log line does not know whose words it holds.
//!
//! Once a value was in use it stays hidden, also when the policy has another by now.

use policies::json::Json;
use policies::secrets::Hidden;
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

static HIDDEN: RwLock<Option<Hidden>> = RwLock::new(None);
/// Asked for every message: no lock where there is nothing to hide.
static ANY: AtomicBool = AtomicBool::new(false);

/// Hides these too from now on.
pub fn hide(values: &Hidden) {
    if values.is_empty() {
        return;
    }
    HIDDEN.write().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().add(values);
    ANY.store(true, Ordering::Release);
}

/// A text without them.
pub fn in_text(text: &str) -> Cow<'_, str> {
    if !ANY.load(Ordering::Acquire) {
        return Cow::Borrowed(text);
    }
    let hidden = HIDDEN.read().unwrap_or_else(PoisonError::into_inner);
    hidden.as_ref().map_or(Cow::Borrowed(text), |hidden| hidden.redact(text))
}

/// A value without them.
pub fn in_json(value: &mut Json) {
    if ANY.load(Ordering::Acquire)
        && let Some(hidden) = HIDDEN.read().unwrap_or_else(PoisonError::into_inner).as_ref()
    {
        hidden.redact_json(value);
    }
}
