//! What a caller can be asked: the part of MCP client capabilities that decides which instance
//! of a legacy server serves it, since such a server is told once, when it starts.

use policies::json::{Json, Object};

/// Capabilities a server may use towards a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Abilities {
    roots: bool,
    /// It says when they change.
    roots_change: bool,
    form: bool,
    url: bool,
    sampling: bool,
    sampling_tools: bool,
    sampling_context: bool,
}

impl Abilities {
    /// Reads client capabilities.
    pub(crate) fn of(capabilities: &Object) -> Self {
        let elicitation = capabilities.get("elicitation");
        let mode = |key: &str| elicitation.is_some_and(|e| e.get(key).is_some());
        let sampling = capabilities.get("sampling");
        let sampling_can = |key: &str| sampling.is_some_and(|s| s.get(key).is_some());
        Self {
            roots: capabilities.get("roots").is_some(),
            roots_change: capabilities.get("roots").and_then(|r| r.get("listChanged")?.as_bool()) == Some(true),
            // An empty object means forms, as before there were modes (2025-11-25, elicitation).
            form: elicitation.is_some() && (mode("form") || !mode("url")),
            url: mode("url"),
            sampling: sampling.is_some(),
            sampling_tools: sampling_can("tools"),
            sampling_context: sampling_can("context"),
        }
    }
    /// Whether it takes elicitation, by page or by form.
    pub(crate) fn elicits(self, by_page: bool) -> bool {
        if by_page { self.url } else { self.form }
    }
    /// Whether it lends its model.
    pub(crate) fn samples(self) -> bool {
        self.sampling
    }
    /// Whether that model may be given tools.
    pub(crate) fn samples_with_tools(self) -> bool {
        self.sampling_tools
    }
    /// As client capabilities of 2025-11-25.
    pub(crate) fn to_json(self) -> Object {
        let empty = || Json::Object(Object::new());
        let of = |parts: &[(&str, bool)]| -> Json {
            let set = parts.iter().filter(|(_, on)| *on).map(|(key, _)| ((*key).to_owned(), empty()));
            set.collect::<Object>().into()
        };
        let mut out = Object::new();
        if self.roots {
            let changing = || Json::object([("listChanged", true.into())]);
            out.set("roots", if self.roots_change { changing() } else { empty() });
        }
        if self.form || self.url {
            out.set("elicitation", of(&[("form", self.form), ("url", self.url)]));
        }
        if self.sampling {
            out.set("sampling", of(&[("tools", self.sampling_tools), ("context", self.sampling_context)]));
        }
        out
    }
}
