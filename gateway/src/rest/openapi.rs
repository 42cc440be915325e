//! `/openapi.json`: OpenAPI 3.1, made of [`ROUTES`] and [`schema`].

use super::problem::Kind;
use super::request::{Answered, Call, json};
use super::routes::{Good, Param, ROUTES, Route};
use super::schema;
use http::StatusCode;
use serde_json::{Map, Value, json as value};

/// `GET /openapi.json`
pub(super) async fn get(call: Call) -> Answered {
    let gateway = &call.door.0.live.now().policy.gateway;
    Ok(json(StatusCode::OK, &document(gateway.public_url.as_ref().map(url::Url::as_str))))
}

/// The document.
pub(super) fn document(public_url: Option<&str>) -> Value {
    let mut paths = Map::new();
    for route in &ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| value!({}));
        path[route.method.as_str().to_lowercase()] = operation(route);
    }
    let mut document = value!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pleach", "version": env!("CARGO_PKG_VERSION"),
            "description": "Runs of agents: start, follow, answer, cancel. A run a stranger owns looks like none.",
        },
        "paths": paths,
        "components": {
            "schemas": schema::all(),
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
        // Where no clients are named, a local caller needs none.
        "security": [{ "bearer": [] }, {}],
    });
    if let Some(url) = public_url {
        document["servers"] = value!([{ "url": url }]);
    }
    document
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = Vec::new();
    if route.path.contains("{id}") {
        parameters.push(value!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } }));
    }
    let given = |at: &'static str| move |p: &Param| value!({ "name": p.name, "in": at, "description": p.text, "schema": { "type": p.kind } });
    parameters.extend(route.query.iter().map(given("query")));
    parameters.extend(route.headers.iter().map(given("header")));
    let mut responses = Map::new();
    for good in route.good {
        responses.insert(good.status.to_owned(), response(route, good));
    }
    // Foreign hosts and origins are refused everywhere.
    let any: &[u16] = if route.open { &[403] } else { &[401, 403, 500, 503] };
    for status in any.iter().chain(route.bad) {
        responses.insert(status.to_string(), problem(*status));
    }
    let mut operation = value!({
        "operationId": route.id, "summary": route.text, "parameters": parameters, "responses": responses,
    });
    if let Some(body) = route.body {
        let content = value!({ "application/json": { "schema": reference(body) } });
        operation["requestBody"] = value!({ "required": true, "content": content });
    }
    if route.open {
        operation["security"] = value!([]);
    }
    operation
}

fn response(route: &Route, good: &Good) -> Value {
    let mut response = value!({ "description": good.text });
    if let Some((media, name)) = good.content {
        let schema = match name {
            Some(name) => reference(name),
            None if media == "application/json" => value!({ "type": "object" }),
            None => value!({ "type": "string" }),
        };
        response["content"] = value!({ media: { "schema": schema } });
    }
    if matches!(good.status, "201" | "202") && matches!(route.id, "startRun" | "forkRun") {
        response["headers"] = value!({ "Location": { "schema": { "type": "string" } } });
    }
    response
}

fn problem(status: u16) -> Value {
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.status().as_u16() == status);
    let titles: Vec<&str> = kinds.map(Kind::title).collect();
    let mut response = value!({
        "description": titles.join(", or: "),
        "content": { "application/problem+json": { "schema": reference("Problem") } },
    });
    if matches!(status, 429 | 503) {
        response["headers"] = value!({ "Retry-After": { "schema": { "type": "integer" } } });
    }
    response
}

fn reference(name: &str) -> Value {
    value!({ "$ref": format!("#/components/schemas/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_document_and_the_routes_are_one() {
        let document = document(None);
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                described.insert((method.to_uppercase(), path.clone()));
            }
        }
        let mounted: BTreeSet<(String, String)> =
            ROUTES.iter().map(|r| (r.method.as_str().to_owned(), r.path.to_owned())).collect();
        assert_eq!(described, mounted);
        assert_eq!(mounted.len(), ROUTES.len(), "none is there twice");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, out: &mut BTreeSet<String>) {
            match value {
                Value::Object(fields) => {
                    out.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|v| references(v, out));
                }
                Value::Array(items) => items.iter().for_each(|v| references(v, out)),
                _ => {}
            }
        }
        let document = document(Some("https://p.example/"));
        let mut all = BTreeSet::new();
        references(&document, &mut all);
        assert!(all.len() > 5);
        for reference in all {
            let found = document.pointer(reference.trim_start_matches('#'));
            assert!(found.is_some_and(Value::is_object), "{reference}");
        }
        for route in &ROUTES {
            for status in route.bad {
                assert!(Kind::ALL.iter().any(|k| k.status().as_u16() == *status), "{status} of {}", route.id);
            }
        }
    }
}
