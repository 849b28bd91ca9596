//! `/openapi.json`, the page that users read: valid, and true.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::util::{Client, Launch, sql};

/// Every route of the contract.
const ROUTES: &[&str] = &[
    "GET /",
    "GET /page.css",
    "GET /page.js",
    "GET /openapi.json",
    "GET /health",
    "GET /health/live",
    "GET /health/ready",
    "GET /health/database",
    "GET /health/memory",
    "GET /health/rate-limits",
    "GET /debug/pool-status",
    "GET /metrics",
    "GET /debug/chat/{thread_id}/checkpoints",
    "GET /debug/run-id/{run_id}",
    "POST /analyze",
    "GET /runs",
    "GET /runs/{run_id}",
    "GET /runs/{run_id}/wait",
    "GET /runs/{run_id}/events",
    "POST /runs/{run_id}/cancel",
    "GET /chat-threads",
    "GET /chat/{thread_id}/messages",
    "GET /chat/{thread_id}/run-ids",
    "GET /chat/{thread_id}/sentiments",
    "GET /chat/all-messages",
    "POST /feedback",
    "POST /sentiment",
    "DELETE /chat/{thread_id}",
    "GET /catalog",
    "GET /data-tables",
    "GET /data-table",
];

fn document(client: &mut Client) -> Value {
    let answer = client.get("/openapi.json");
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
    answer.json()
}

/// Method, path and operation of each route.
fn operations(document: &Value) -> impl Iterator<Item = (String, &String, &Map<String, Value>)> {
    document["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        item.as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| (method.to_ascii_uppercase(), path, operation.as_object().unwrap()))
    })
}

#[test]
fn it_lists_exactly_the_routes() {
    let server = Launch::holdfast().start();
    let document = document(&mut server.anonymous());
    let listed: BTreeSet<String> = operations(&document).map(|(method, path, _)| format!("{method} {path}")).collect();
    let expected: BTreeSet<String> = ROUTES.iter().map(|route| (*route).to_owned()).collect();
    assert_eq!(listed, expected);
}

/// OpenAPI 3.1: what a generator of clients stumbles over.
#[test]
fn it_is_sound() {
    let server = Launch::holdfast().start();
    let document = document(&mut server.anonymous());
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"] == env!("CARGO_PKG_VERSION"));
    for (method, path, operation) in operations(&document) {
        let route = format!("{method} {path}");
        assert!(["GET", "POST", "DELETE"].contains(&&*method) && path.starts_with('/'), "{route}");
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{route}");
        let parameters = operation.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut in_path = BTreeSet::new();
        let mut names = BTreeSet::new();
        for parameter in &parameters {
            let (name, place) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
            assert!(["path", "query", "header"].contains(&place), "{route} {name}");
            assert!(names.insert((name, place)), "{route} has two parameters {name}");
            assert!(parameter["schema"].is_object() && parameter["description"].is_string(), "{route} {name}");
            if place == "path" {
                assert_eq!(parameter["required"], true, "{route} {name}");
                in_path.insert(name.to_owned());
            }
        }
        let placeholders: BTreeSet<String> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(str::to_owned).collect();
        assert_eq!(in_path, placeholders, "{route}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{route}");
        for (status, response) in responses {
            assert!(status.len() == 3 && (100..600).contains(&status.parse::<u16>().unwrap()), "{route} {status}");
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{route} {status}");
            let content = response["content"].as_object().unwrap();
            if status.starts_with('4') {
                assert!(content.contains_key("application/problem+json"), "{route} {status}");
            }
        }
        assert_eq!(operation.contains_key("security"), responses.contains_key("401"), "{route}");
        assert_eq!(operation.contains_key("requestBody"), responses.contains_key("415"), "{route}");
    }
    let mut references = BTreeSet::new();
    references_in(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} is elsewhere"));
        assert!(document.pointer(pointer).is_some_and(Value::is_object), "{reference} leads nowhere");
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    assert!(schemas.keys().all(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))));
}

fn references_in(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
            object.values().for_each(|value| references_in(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references_in(value, found)),
        _ => {}
    }
}

#[test]
fn each_route_that_it_lists_answers_as_it_says() {
    let server = Launch::holdfast().start();
    let (mut ann, mut anonymous) = (server.client("ann@example.org"), server.anonymous());
    let run_id = ann.post("/analyze", &sql("t", "SELECT 1")).run_id();
    let document = document(&mut anonymous);
    // What deletes comes last.
    let (last, first): (Vec<_>, Vec<_>) = operations(&document).partition(|(method, ..)| method == "DELETE");
    for (method, path, operation) in first.into_iter().chain(last) {
        let target = path.replace("{run_id}", &run_id).replace("{thread_id}", "t");
        let responses = operation["responses"].as_object().unwrap();
        let unknown = anonymous.request(&method, &target, &[], &[]);
        assert_eq!(unknown.status == 401, operation.contains_key("security"), "{method} {path}: {unknown:?}");
        let answer = ann.request(&method, &target, &[], &[]);
        assert!(!matches!(answer.status, 404 | 405 | 500..), "{method} {path}: {answer:?}");
        let listed = &responses[&answer.status.to_string()];
        // What is not JSON is not described any further.
        if let Some((content_type, _)) = listed["content"].as_object().unwrap().iter().next() {
            assert_eq!(answer.header("Content-Type"), Some(&**content_type), "{method} {path}");
        }
        if let Some(reference) = listed.pointer("/content/application~1json/schema/$ref").and_then(Value::as_str) {
            let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
            has_what_is_required(&answer.json(), schema, &format!("{method} {path}"));
        }
    }
}

/// Each required member is there, and each member that is there is described.
fn has_what_is_required(value: &Value, schema: &Value, route: &str) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(required.as_str().unwrap()).is_some(), "{route} promises {required}: {value}");
    }
    let is_open = ["allOf", "anyOf", "oneOf", "$ref"].iter().any(|keyword| schema.get(keyword).is_some());
    for member in value.as_object().unwrap().keys().filter(|_| !is_open) {
        assert!(properties.contains_key(member), "{route} does not say that there is {member}");
    }
}

#[test]
fn wrong_methods_on_listed_paths_are_told_the_listed_ones() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let document = document(&mut ann);
    let paths = document["paths"].as_object().unwrap();
    for path in paths.keys() {
        let target = path.replace("{run_id}", "x").replace("{thread_id}", "x");
        let answer = ann.request("PUT", &target, &[], &[]);
        // A literal path may be what the placeholder of another one stands for.
        let fitting = paths.iter().filter(|(pattern, _)| fits(pattern, &target));
        let mut allowed: BTreeSet<String> = fitting
            .flat_map(|(_, item)| item.as_object().unwrap().keys().map(|method| method.to_ascii_uppercase()))
            .collect();
        if allowed.contains("GET") {
            allowed.insert("HEAD".into());
        }
        let told: BTreeSet<String> = answer.header("Allow").unwrap().split(", ").map(str::to_owned).collect();
        assert_eq!((answer.status, told), (405, allowed), "{path}");
    }
}

fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() == path.len() && pattern.iter().zip(&path).all(|(a, b)| a == b || a.starts_with('{'))
}
