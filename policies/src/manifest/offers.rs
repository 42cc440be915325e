//! Prompts, resources and resource templates as a server lists them. As with tools, a bad entry
//! costs itself, never the list, and a definition is kept as it came.

use super::hidden_in;
use crate::json::{Json, Object};
use crate::names::Name;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Entries of one list beyond this are rejected.
const MAX_ENTRIES: usize = 50_000;
/// Bytes a name or an address may have.
const MAX_NAME: usize = 4096;

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The server.
    pub server: Name,
    /// The server's own name for it.
    pub upstream: String,
    /// The definition as received.
    pub definition: Object,
}

impl Prompt {
    /// The name the tool rules are asked under.
    pub fn rule(&self) -> String {
        format!("{}__prompts/{}", self.server, self.upstream)
    }
}

/// A resource, or a template of resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The server.
    pub server: Name,
    /// The server's own address for it, or the template of addresses.
    pub uri: String,
    /// The definition as received.
    pub definition: Object,
}

impl Resource {
    /// The name the tool rules are asked under: one for all resources of a server.
    pub fn rule(server: &Name) -> String {
        format!("{server}__resources/read")
    }
}

/// What a server offers besides tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offers {
    /// Its prompts, in its order.
    pub prompts: Vec<Arc<Prompt>>,
    /// Its resources, in its order.
    pub resources: Vec<Arc<Resource>>,
    /// Its templates, in its order.
    pub templates: Vec<Arc<Resource>>,
    /// What was rejected: the name as far as it could be read, and the reason.
    pub rejected: Vec<(String, String)>,
}

/// Reads the lists of a server.
pub fn offers(server: &Name, prompts: &[Json], resources: &[Json], templates: &[Json]) -> Offers {
    let mut out = Offers::default();
    let prompt =
        |name: String, definition: Object| Arc::new(Prompt { server: server.clone(), upstream: name, definition });
    let resource = |uri: String, definition: Object| Arc::new(Resource { server: server.clone(), uri, definition });
    out.prompts = entries(prompts, "name", &mut out.rejected, prompt);
    out.resources = entries(resources, "uri", &mut out.rejected, resource);
    out.templates = entries(templates, "uriTemplate", &mut out.rejected, resource);
    out
}

fn entries<T>(
    list: &[Json],
    key: &str,
    rejected: &mut Vec<(String, String)>,
    make: impl Fn(String, Object) -> T,
) -> Vec<T> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut out = Vec::new();
    for (at, entry) in list.iter().enumerate() {
        let name = entry.get(key).and_then(Json::as_str);
        let why = match (entry, name) {
            _ if at >= MAX_ENTRIES => format!("more than {MAX_ENTRIES} entries"),
            (Json::Object(_), None | Some("")) => format!("it has no {key}"),
            (Json::Object(_), Some(name)) if name.len() > MAX_NAME => format!("its {key} is over {MAX_NAME} bytes"),
            (Json::Object(_), Some(name)) if name.contains(['\n', '\r', '\t']) => {
                format!("its {key} holds a control character")
            }
            (Json::Object(_), _) if !hidden_in(entry).is_empty() => {
                hidden_in(entry).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            }
            (Json::Object(_), Some(name)) if key != "name" && name.starts_with(super::uris::SCHEME) => {
                format!("addresses that begin with {} are Pleach's own", super::uris::SCHEME)
            }
            (Json::Object(_), Some(name)) if !seen.insert(name) => "listed twice; the first is used".into(),
            (Json::Object(definition), Some(name)) => {
                out.push(make(name.to_owned(), definition.clone()));
                continue;
            }
            _ => "it is not an object".into(),
        };
        rejected.push((name.unwrap_or("").to_owned(), why));
    }
    out
}
