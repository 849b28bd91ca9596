//! `/openapi.json`: the table of routes as an OpenAPI 3.1 document.

use schemars::Schema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::Api;
use super::call::{Call, Reply};
use super::common;
use super::events;
use super::example::REQUEST_ID;
use super::parameter::{Place, Told};
use super::problem::{self, ProblemShape};
use super::routes::{self, Answer, Body, Content, Document, Example, Lane, Route};
use crate::http::Response;

/// A document such as this one.
#[derive(schemars::JsonSchema)]
#[schemars(inline, extend("additionalProperties" = true))]
#[allow(dead_code, reason = "read by the schema generator only")]
struct OpenApi {
    openapi: &'static str,
    info: Map<String, Value>,
}

pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/openapi.json",
    handler: show,
    lane: Lane::Here,
    token: false,
    limited: true,
    document: Document {
        name: "getDocument",
        summary: "This document",
        parameters: &[],
        request: None,
        answers: &[Answer::json::<OpenApi>(200, "OpenAPI 3.1")],
    },
}];

impl Example for OpenApi {
    fn example() -> Value {
        head()
    }
}

fn show(api: &Api, _: &Call) -> Result<Reply, super::problem::Problem> {
    Ok(Reply::Now(Response::new(200, JSON, api.openapi.clone())))
}

const JSON: &str = "application/json";

/// What is said of the whole, besides which nothing is said without routes.
fn head() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Runs analyses for several people at once and never loses one.",
            "description": "Errors are problems (RFC 9457) with one plain sentence in `detail` and the faults of a request, at \
                most 20, in `errors`. Every answer has an `X-Request-Id`: the one of the request if that has 1 to 128 of \
                `[A-Za-z0-9._-]`, else a new one; the log names it. `HEAD` works wherever `GET` does, `OPTIONS` everywhere, \
                and another method than those of a path is answered 405 with `Allow`. Parameters of a query that are not \
                listed are ignored, and so are listed ones that are blank; a listed parameter that is given twice is 422. A body \
                nests at most 64 levels (400) and names no member twice (422). Nothing has an entity tag: `If-Match` with \
                tags and `If-None-Match: *` never hold (412, or 304 to what only reads and would succeed), and conditions on \
                dates and `Range` are ignored. Whoever asks too often waits for a turn, at most 5 s, before there is a 429. \
                Bodies over 1 KB are compressed for whoever \
                accepts gzip.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
    })
}

/// The document in the bytes that are sent, kept once: the server's engines are known when it starts, and do not change.
pub(super) fn serialised(engines: &[&str]) -> Vec<u8> {
    let mut document = document();
    let engine = &mut document["components"]["schemas"]["AnalyzeRequest"]["properties"]["engine"];
    assert!(engine.is_object(), "a question may name its engine");
    // It may be null: whoever has no wish.
    engine["enum"] = engines.iter().map(|engine| json!(engine)).chain([Value::Null]).collect();
    let mut bytes = document.to_string().into_bytes();
    bytes.shrink_to_fit();
    bytes
}

fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.for_serialize().into_generator();
    let problem = generator.subschema_for::<ProblemShape>();
    let mut paths: Map<String, Value> = Map::new();
    for subject in routes::SUBJECTS {
        for route in subject.tables.iter().copied().flatten() {
            let item = paths.entry(route.path).or_insert_with(|| json!({}));
            item[route.method.to_ascii_lowercase()] = operation(route, subject.name, &mut generator, &problem);
        }
    }
    let mut responses: Map<String, Value> =
        common::ANSWERS.iter().map(|answer| (answer.name.to_owned(), common_response(answer, &problem))).collect();
    let (name, meaning) = common::NOT_MODIFIED;
    responses.insert(name.into(), json!({"description": meaning, "headers": references(&[])}));
    let headers: Map<String, Value> = common::HEADERS.iter().map(header).collect();
    let mut document = head();
    document["tags"] =
        routes::SUBJECTS.iter().map(|subject| json!({"name": subject.name, "description": subject.meaning})).collect();
    document["paths"] = paths.into();
    document["components"] = json!({
        "schemas": generator.take_definitions(true),
        "responses": responses,
        "headers": headers,
        "securitySchemes": {"token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A JWT in `Authorization: Bearer`; `holdfast token --email you@localhost` makes one.",
        }},
    });
    document
}

fn operation(route: &Route, tag: &str, generator: &mut SchemaGenerator, problem: &Schema) -> Value {
    let Document { name, summary, parameters, request, answers } = &route.document;
    let mut operation = json!({"operationId": name, "tags": [tag], "summary": summary});
    if !parameters.is_empty() {
        operation["parameters"] = parameters.iter().map(|told| parameter(told, generator)).collect();
    }
    if let Some(Body { schema, example }) = request {
        let content = json!({JSON: {"schema": schema(generator), "example": example()}});
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    let mut responses: Vec<(u16, Value)> =
        answers.iter().map(|answer| (answer.status, response(answer, generator, problem))).collect();
    if route.limited {
        for (_, response) in &mut responses {
            for name in common::STANDING {
                response["headers"][name] = reference(name);
            }
        }
    }
    for answer in common::ANSWERS.iter().filter(|answer| (answer.concerns)(route)) {
        if let Some((_, response)) = responses.iter_mut().find(|(status, _)| *status == answer.status) {
            // The route's own reason comes first.
            add_reason(response, answer);
        } else {
            responses.push((answer.status, common_reference(answer.name)));
        }
    }
    if route.method == "GET" {
        responses.push((304, common_reference(common::NOT_MODIFIED.0)));
    }
    responses.sort_by_key(|(status, _)| *status);
    operation["responses"] =
        responses.into_iter().map(|(status, response)| (status.to_string(), response)).collect::<Map<_, _>>().into();
    if route.token {
        operation["security"] = json!([{"token": []}]);
    }
    operation
}

fn parameter(told: &Told, generator: &mut SchemaGenerator) -> Value {
    let schema = told.schema(generator);
    let mut parameter = json!({
        "name": told.name,
        "in": told.place.as_str(),
        "description": told.meaning,
        "schema": schema,
    });
    match told.place {
        Place::Path => parameter["required"] = true.into(),
        // What a form sends of a field that was left alone.
        Place::Query => parameter["allowEmptyValue"] = true.into(),
        Place::Header => {}
    }
    if let Some(example) = told.example {
        parameter["example"] = example.into();
    }
    parameter
}

fn response(answer: &Answer, generator: &mut SchemaGenerator, problem: &Schema) -> Value {
    let mut headers: Vec<&str> = answer.headers.to_vec();
    let content: Map<String, Value> = match &answer.content {
        Content::Json(Body { schema, example }) => {
            [(JSON.to_owned(), json!({"schema": schema(generator), "example": example()}))].into_iter().collect()
        }
        Content::Text(media_types) => media_types
            .iter()
            .map(|media_type| ((*media_type).to_owned(), json!({"schema": {"type": "string"}})))
            .collect(),
        Content::Events(Body { schema, example }) => {
            [(events::MEDIA_TYPE.to_owned(), json!({"schema": schema(generator), "example": example()}))]
                .into_iter()
                .collect()
        }
        Content::Problem(example) => {
            let example = example();
            assert_eq!(example.status(), answer.status, "{}", answer.meaning);
            headers.extend(example.headers());
            let examples = json!({"route": {"value": example.body(REQUEST_ID)}});
            let content = json!({"schema": problem, "examples": examples});
            [(problem::MEDIA_TYPE.to_owned(), content)].into_iter().collect()
        }
    };
    json!({"description": answer.meaning, "headers": references(&headers), "content": content})
}

/// What a route says of a status, and what holds for every route as well.
fn add_reason(response: &mut Value, answer: &common::Answer) {
    let own = response["description"].as_str().unwrap_or_default();
    response["description"] = format!("{own}; or {}", answer.meaning).into();
    let example = (answer.example)();
    for name in example.headers() {
        response["headers"][name] = reference(name);
    }
    let content = &mut response["content"][problem::MEDIA_TYPE];
    content["schema"] = json!({"$ref": "#/components/schemas/Problem"});
    content["examples"][answer.name] = json!({"value": example.body(REQUEST_ID)});
}

fn common_response(answer: &common::Answer, problem: &Schema) -> Value {
    let example = (answer.example)();
    assert_eq!(example.status(), answer.status, "{}", answer.name);
    let is_limited = answer.status == 429;
    let headers: Vec<&str> = example.headers().chain(common::STANDING.into_iter().filter(|_| is_limited)).collect();
    json!({
        "description": answer.meaning,
        "headers": references(&headers),
        "content": {problem::MEDIA_TYPE: {"schema": problem, "example": example.body(REQUEST_ID)}},
    })
}

fn common_reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/responses/{name}")})
}

fn references(names: &[&str]) -> Map<String, Value> {
    ["X-Request-Id"].iter().chain(names).map(|name| ((*name).to_owned(), reference(name))).collect()
}

fn reference(header: &str) -> Value {
    assert!(common::HEADERS.iter().any(|known| known.name == header), "nothing is told about the header {header}");
    json!({"$ref": format!("#/components/headers/{header}")})
}

fn header(header: &common::Header) -> (String, Value) {
    let told = json!({
        "description": header.meaning,
        "required": header.is_always,
        "schema": (header.schema)(),
    });
    (header.name.to_owned(), told)
}
