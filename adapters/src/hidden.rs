//! What this process writes and passes on, without the values of its secrets. There is one set
//! for the whole process: a log line does not know whose words it holds.
//!
//! Once a value was in use it stays hidden, also when the policy has another by now.

use policies::json::Json;
use policies::secrets::Hidden;
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

static HIDDEN: RwLock<Option<Arc<Hidden>>> = RwLock::new(None);
/// Asked for every message: no lock where there is nothing to hide.
static ANY: AtomicBool = AtomicBool::new(false);

/// Hides these too from now on.
pub fn hide(values: &Hidden) {
    if values.is_empty() {
        return;
    }
    let mut hidden = HIDDEN.write().unwrap_or_else(PoisonError::into_inner);
    Arc::make_mut(hidden.get_or_insert_default()).add(values);
    ANY.store(true, Ordering::Release);
}

/// A text without them.
pub fn in_text(text: &str) -> Cow<'_, str> {
    if !ANY.load(Ordering::Acquire) {
        return Cow::Borrowed(text);
    }
    known().map_or(Cow::Borrowed(text), |hidden| hidden.redact(text))
}

/// Looked through without the lock: a long text must hold nobody up.
fn known() -> Option<Arc<Hidden>> {
    HIDDEN.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A value without them.
pub fn in_json(value: &mut Json) {
    if ANY.load(Ordering::Acquire)
        && let Some(hidden) = known()
    {
        hidden.redact_json(value);
    }
}
