//! `GET /openapi.json`: the API as an OpenAPI 3.1 document, made from the table that the router is made from ([`crate::router`]), so
//! that a route cannot be in one and not in the other. No token is needed.
//!
//! Bodies and queries are described by the schemas that they are checked against ([`schemas`]), of all microversions.

mod schemas;

use axum::Json;
use serde_json::{Map, Value, json};

use crate::microversion::{MAX, v2};
use crate::router::{COMPUTE, EXTENSION, Operation};
use crate::validation::Schemas;

/// What may come of any request, whatever it asks for.
const FAULTS: [(&str, &str); 10] = [
    ("400", "The request makes no sense, or asks for what cannot be."),
    ("401", "No token, or one that is none."),
    ("403", "The policy says no."),
    ("404", "There is no such thing, or not in this microversion."),
    ("406", "The microversion is not served."),
    ("409", "What it is about is in a state in which that cannot be done."),
    ("413", "The body is too long."),
    ("415", "The body is not JSON by its own word."),
    ("500", "A defect."),
    ("503", "The database, or something else that is needed, is away and will be back."),
];

/// `GET /openapi.json`
pub(crate) async fn show() -> Json<Value> {
    Json(document())
}

fn document() -> Value {
    let mut paths = Map::new();
    for (prefix, operations) in [("/v2.1", COMPUTE), ("", EXTENSION)] {
        for operation in operations {
            let path = format!("{prefix}{}", operation.path);
            let item = paths.entry(path).or_insert_with(|| json!({"parameters": path_parameters(operation.path)}));
            item[operation.method.to_lowercase()] = describe(operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Drover",
            "version": MAX.to_string(),
            "description": "OpenStack Nova's Compute API as far as live migration and its clients need it, and Drover's own part.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
            "parameters": {"microversion": {
                "name": "OpenStack-API-Version",
                "in": "header",
                "description": "`compute 2.x` or `compute latest`; 2.1 without it.",
                "schema": {"type": "string"},
            }},
            "responses": FAULTS.iter().map(|(status, text)| ((*status).to_owned(), fault(text))).collect::<Map<_, _>>(),
        },
    })
}

/// Nova's envelope has one key, which depends on the status; in front of it other forms are possible.
fn fault(text: &str) -> Value {
    json!({"description": text, "content": {"application/json": {"schema": {"type": "object"}}}})
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})).collect()
}

fn describe(operation: &Operation) -> Value {
    let mut responses: Map<String, Value> = FAULTS
        .iter()
        .map(|(status, _)| ((*status).to_owned(), json!({"$ref": format!("#/components/responses/{status}")})))
        .collect();
    for (place, status) in operation.success.iter().enumerate() {
        let mut response = json!({"description": if place == 0 { "Done." } else { "Done, otherwise." }});
        if *status == 200 && operation.method != "DELETE" {
            response["content"] = json!({"application/json": {"schema": {"type": "object"}}});
        }
        responses.insert(status.to_string(), response);
    }
    let mut described = json!({
        "operationId": operation.handler.replace("::", "_").replace(' ', ""),
        "summary": operation.summary,
        "parameters": [{"$ref": "#/components/parameters/microversion"}],
        "responses": responses,
        "x-openstack": {"min-ver": v2(operation.since).to_string()},
    });
    if let Some(until) = operation.until {
        described["x-openstack"]["max-ver"] = json!(v2(until).to_string());
    }
    let handler = operation.handler.replace(' ', "");
    if let Some(parameters) = described["parameters"].as_array_mut() {
        let query = schemas::query(&handler).map(Schemas::parameters).unwrap_or_default();
        parameters.extend(query.into_iter().map(|(name, schema)| json!({"name": name, "in": "query", "schema": schema})));
    }
    let mut bodies = schemas::body(&handler);
    if !bodies.is_empty() {
        let schema = if bodies.len() == 1 { bodies.remove(0) } else { json!({"anyOf": bodies}) };
        described["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    described
}
