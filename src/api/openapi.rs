//! `/openapi.json`: the table of routes as an OpenAPI 3.1 document.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::Api;
use super::call::{Call, Reply};
use super::problem::{Problem, ProblemShape};
use super::routes::{self, Document, Lane, Route, schema};
use crate::http::{Response, StatusCode};

pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/openapi.json",
    handler: show,
    lane: Lane::Here,
    token: false,
    limited: true,
    document: Document {
        summary: "This document",
        parameters: &[],
        request: None,
        answers: &[(200, "OpenAPI 3.1", None)],
    },
}];

fn show(api: &Api, _: &Call) -> Result<Reply, Problem> {
    Ok(Reply::Now(Response::new(200, "application/json", api.openapi.clone())))
}

/// The document, serialised.
pub(super) fn document() -> Vec<u8> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.for_serialize().into_generator();
    let problem = schema::<ProblemShape>(&mut generator);
    let mut paths: Map<String, Value> = Map::new();
    for route in routes::all() {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.to_ascii_lowercase()] = operation(route, &mut generator, &problem);
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Runs analyses for several people at once and never loses one.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    });
    document.to_string().into_bytes()
}

fn operation(route: &Route, generator: &mut SchemaGenerator, problem: &schemars::Schema) -> Value {
    let Document { summary, parameters, request, answers } = &route.document;
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|parameter| {
            json!({
                "name": parameter.name,
                "in": parameter.place,
                "required": parameter.place == "path",
                "description": parameter.meaning,
                "schema": {"type": "string"},
            })
        })
        .collect();
    let mut responses = Map::new();
    for (status, meaning, shape) in *answers {
        let content = match shape {
            Some(shape) => {
                let schema = shape(generator);
                // A text that is not JSON says so itself.
                let media_type = schema.get("contentMediaType").and_then(Value::as_str).unwrap_or("application/json");
                json!({media_type: {"schema": schema}})
            }
            None if *status >= 400 => json!({"application/problem+json": {"schema": problem}}),
            None => json!({}),
        };
        responses.insert(status.to_string(), json!({"description": meaning, "content": content}));
    }
    let mut common: Vec<u16> = vec![400];
    common.extend(route.token.then_some(401));
    common.extend(request.is_some().then_some([413, 415]).into_iter().flatten());
    common.extend((!route.document.parameters.is_empty() || request.is_some()).then_some(422));
    common.extend(route.limited.then_some(429));
    // Without a lane, too: the keys that tokens are verified with may be away.
    common.extend((route.token || route.lane != Lane::Here).then_some(503));
    for status in common {
        let description = StatusCode(status).default_reason_phrase();
        let content = json!({"application/problem+json": {"schema": problem}});
        let answer = json!({"description": description, "content": content});
        responses.entry(status.to_string()).or_insert(answer);
    }
    let mut operation = json!({"summary": summary, "parameters": parameters, "responses": responses});
    if let Some(shape) = request {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": shape(generator)}}});
    }
    if route.token {
        operation["security"] = json!([{"token": []}]);
    }
    operation
}
