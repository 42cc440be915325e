//! A server's answers in the names of the outside: every place where an address of a resource
//! stands (MCP, server features: resource links, embedded resources, contents, errors).

use adapters::mcp::RpcError;
use policies::json::{Json, Object};
use policies::manifest::Uris;
use policies::names::Name;

/// Rewrites addresses of one server.
pub(crate) struct Outside<'a> {
    pub(crate) uris: &'a Uris,
    pub(crate) server: &'a Name,
}

impl Outside<'_> {
    /// The result of a call, a prompt or a read, and what a server asks: in place.
    pub(crate) fn result(&self, result: &mut Json) {
        if self.uris.is_bare(self.server) {
            return;
        }
        let Some(result) = result.as_object_mut() else { return };
        self.blocks(result.get_mut("content"));
        for block in items(result.get_mut("contents")) {
            self.field(block, "uri");
        }
        for message in items(result.get_mut("messages")) {
            if let Some(message) = message.as_object_mut() {
                self.blocks(message.get_mut("content"));
            }
        }
        for (_, question) in
            result.get_mut("inputRequests").and_then(Json::as_object_mut).into_iter().flat_map(Object::iter_mut)
        {
            if let Some(params) = question.as_object_mut().and_then(|q| q.get_mut("params")) {
                self.result(params);
            }
        }
        // A task carries its result within (tasks extension, DetailedTask).
        if let Some(inner) = result.get_mut("result") {
            self.result(inner);
        }
    }
    /// The address an error is about.
    pub(crate) fn error(&self, error: &mut RpcError) {
        if let Some(data) = error.object_mut().get_mut("data") {
            self.field(data, "uri");
        }
    }
    /// The address under `key`.
    pub(crate) fn field(&self, object: &mut Json, key: &str) {
        let Some(slot) = object.as_object_mut().and_then(|o| o.get_mut(key)) else { return };
        if let Some(uri) = slot.as_str()
            && let Some(outside) = self.uris.outside(self.server, uri)
        {
            *slot = outside.into();
        }
    }
    /// The user interface a tool names (MCP Apps).
    pub(crate) fn tool(&self, definition: &mut Json) {
        let own = definition.as_object_mut().and_then(|d| d.get_mut("_meta")).and_then(Json::as_object_mut);
        let Some(own) = own else { return };
        if let Some(ui) = own.get_mut("ui") {
            self.field(ui, "resourceUri");
        }
        if let Some(Json::String(uri)) = own.get_mut("ui/resourceUri")
            && let Some(outside) = self.uris.outside(self.server, uri)
        {
            *uri = outside;
        }
    }

    fn blocks(&self, content: Option<&mut Json>) {
        match content {
            Some(Json::Array(blocks)) => blocks.iter_mut().for_each(|b| self.block(b)),
            Some(block) => self.block(block),
            None => {}
        }
    }
    fn block(&self, block: &mut Json) {
        let kind = block.get("type").and_then(Json::as_str).unwrap_or("").to_owned();
        match kind.as_str() {
            "resource_link" => self.field(block, "uri"),
            "resource" => {
                if let Some(resource) = block.as_object_mut().and_then(|b| b.get_mut("resource")) {
                    self.field(resource, "uri");
                }
            }
            "tool_result" => self.blocks(block.as_object_mut().and_then(|b: &mut Object| b.get_mut("content"))),
            _ => {}
        }
    }
}

fn items(list: Option<&mut Json>) -> impl Iterator<Item = &mut Json> {
    list.and_then(Json::as_array_mut).into_iter().flatten()
}
