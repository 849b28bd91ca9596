//! `/openapi.json`, the page that users read: valid, and true.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::encoded;
use crate::util::{Client, Launch, Response, sql};

/// Every route of the contract.
const ROUTES: &[&str] = &[
    "GET /",
    "GET /page.css",
    "GET /page.js",
    "GET /docs",
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
    let tags: Vec<&Value> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let route = format!("{method} {path}");
        assert!(["GET", "POST", "DELETE"].contains(&&*method) && path.starts_with('/'), "{route}");
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{route}");
        assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{route} has the name of another");
        assert!(operation["tags"].as_array().unwrap().iter().all(|tag| tags.contains(&tag)), "{route}");
        let parameters = operation.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut in_path = BTreeSet::new();
        let mut given = BTreeSet::new();
        for parameter in &parameters {
            let (name, place) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
            assert!(["path", "query", "header"].contains(&place), "{route} {name}");
            assert!(given.insert((name, place)), "{route} has two parameters {name}");
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
            let response = resolved(&document, response);
            assert!(status.len() == 3 && (100..600).contains(&status.parse::<u16>().unwrap()), "{route} {status}");
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{route} {status}");
            let content = response.get("content").and_then(Value::as_object);
            assert_eq!(content.is_none(), status == "304", "{route} {status}");
            if status.starts_with('4') {
                assert!(content.unwrap().contains_key("application/problem+json"), "{route} {status}");
            }
            assert!(response["headers"]["X-Request-Id"].is_object(), "{route} {status}");
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

/// What a reference leads to.
fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// Fails unless the value is what the schema says, with no member that it does not tell of.
#[track_caller]
fn fits_schema(document: &Value, schema: &Value, value: &Value, what: &str) {
    // References lead from the root.
    let root = json!({"components": document["components"], "allOf": [schema], "unevaluatedProperties": false});
    let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&root).unwrap();
    let faults: Vec<String> =
        validator.iter_errors(value).map(|fault| format!("{} at {}", fault, fault.instance_path())).collect();
    assert!(faults.is_empty(), "{what}: {faults:#?} in {value}");
}

/// Each media type of a body or an answer, and where it stands.
fn contents(document: &Value) -> Vec<(String, &String, &Value)> {
    let mut holders: Vec<(String, &Value)> = Vec::new();
    for (method, path, operation) in operations(document) {
        holders.extend(operation.get("requestBody").map(|body| (format!("the body of {method} {path}"), body)));
        let responses = operation["responses"].as_object().unwrap().iter();
        holders.extend(responses.map(|(status, response)| (format!("{method} {path} {status}"), response)));
    }
    let common = document["components"]["responses"].as_object().unwrap().iter();
    holders.extend(common.map(|(name, response)| (name.clone(), response)));
    let content = |holder: &'_ Value| holder.get("content").is_some();
    holders
        .into_iter()
        .filter(|(_, holder)| content(holder))
        .flat_map(|(what, holder)| {
            let content = holder["content"].as_object().unwrap().iter();
            content.map(move |(media_type, content)| (what.clone(), media_type, content)).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn each_json_has_an_example_that_is_what_its_schema_says() {
    let server = Launch::holdfast().start();
    let document = document(&mut server.anonymous());
    let mut seen = 0;
    for (what, media_type, content) in contents(&document) {
        if !media_type.ends_with("json") {
            continue;
        }
        let examples = content.get("examples").and_then(Value::as_object).into_iter().flat_map(Map::values);
        let examples: Vec<&Value> =
            content.get("example").into_iter().chain(examples.map(|example| &example["value"])).collect();
        assert!(!examples.is_empty(), "{what} has no example");
        for example in examples {
            fits_schema(&document, &content["schema"], example, &what);
            if media_type == "application/problem+json" {
                let status = example["status"].as_u64().unwrap().to_string();
                assert!(!what.contains(' ') || what.ends_with(&status), "{what} shows a {status}");
                let title = example["title"].as_str().unwrap();
                assert!(!title.is_empty() && title != "Unknown", "{what}: {title}");
            }
            seen += 1;
        }
    }
    assert!(seen > 70, "{seen}");
    for (method, path, operation) in operations(&document) {
        for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
            if let Some(example) = parameter.get("example") {
                fits_schema(
                    &document,
                    &parameter["schema"],
                    example,
                    &format!("{method} {path} {}", parameter["name"]),
                );
            }
        }
    }
}

#[test]
fn the_answer_that_it_shows_is_the_one_that_its_question_gets() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let document = document(&mut ann);
    let analyze = &document["paths"]["/analyze"]["post"];
    let question = &analyze["requestBody"]["content"]["application/json"]["example"];
    let mut shown = analyze["responses"]["200"]["content"]["application/json"]["example"].clone();
    let mut answer = ann.post("/analyze", question).json();
    for of_its_time in ["run_id", "submitted_at", "started_at", "finished_at", "duration_ms"] {
        assert!(shown[of_its_time].take() != Value::Null && answer[of_its_time].take() != Value::Null, "{of_its_time}");
    }
    assert_eq!(answer, shown);
}

/// Fails unless the answer is one of those that the operation lists: status, headers, media type and shape.
#[track_caller]
fn is_listed(document: &Value, operation: &Map<String, Value>, answer: &Response, route: &str) {
    let listed = operation["responses"].get(answer.status.to_string());
    let listed = resolved(document, listed.unwrap_or_else(|| panic!("{route} lists no {}: {answer:?}", answer.status)));
    for (name, header) in listed["headers"].as_object().unwrap() {
        let header = resolved(document, header);
        let value = answer.header(name);
        assert!(value.is_some() || header["required"] == false, "{route} promises {name}: {answer:?}");
        if let Some(value) = value {
            let value =
                if header["schema"]["type"] == "integer" { json!(value.parse::<u64>().unwrap()) } else { json!(value) };
            fits_schema(document, &header["schema"], &value, &format!("{route} {name}"));
        }
    }
    if answer.status == 304 {
        return;
    }
    let content_type = answer.header("Content-Type").unwrap();
    let content = listed["content"].get(content_type).unwrap_or_else(|| panic!("{route} lists no {content_type}"));
    if content_type.ends_with("json") {
        fits_schema(document, &content["schema"], &answer.json(), &format!("{route} {}", answer.status));
    }
}

/// What a call of the route looks like that succeeds as far as any call can: the path, and the body in JSON.
fn call_of(document: &Value, path: &str, operation: &Map<String, Value>, run_id: &str) -> (String, Option<Value>) {
    let target = path.replace("{run_id}", run_id).replace("{thread_id}", "first");
    let body = operation.get("requestBody").map(|body| {
        let mut body = body["content"]["application/json"]["example"].clone();
        if body.get("run_id").is_some() {
            body["run_id"] = run_id.into();
        }
        fits_schema(document, &operation["requestBody"]["content"]["application/json"]["schema"], &body, path);
        body
    });
    (target, body)
}

#[test]
fn each_route_that_it_lists_answers_as_it_says() {
    let server = Launch::holdfast().start();
    let (mut ann, mut anonymous) = (server.client("ann@example.org"), server.anonymous());
    let run_id = ann.post("/analyze", &sql("first", "SELECT 1")).run_id();
    let document = document(&mut anonymous);
    // What deletes comes last.
    let (last, first): (Vec<_>, Vec<_>) = operations(&document).partition(|(method, ..)| method == "DELETE");
    for (method, path, operation) in first.into_iter().chain(last) {
        let route = format!("{method} {path}");
        let (target, body) = call_of(&document, path, operation, &run_id);
        let json = [("Content-Type", "application/json")];
        let headers: &[(&str, &str)] = if body.is_some() { &json } else { &[] };
        let bytes = body.as_ref().map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let unknown = anonymous.request(&method, &target, headers, &bytes);
        assert_eq!(unknown.status == 401, operation.contains_key("security"), "{route}: {unknown:?}");
        is_listed(&document, operation, &unknown, &route);
        let answer = ann.request(&method, &target, headers, &bytes);
        // A run that has ended is not cancelled any more; everything else succeeds.
        let expected = if path.ends_with("/cancel") { 409 } else { 200 };
        assert_eq!(answer.status, expected, "{route}: {answer:?}");
        is_listed(&document, operation, &answer, &route);
        // And when it is about what there is not, or not to be read.
        let nowhere = path.replace("{run_id}", "0").replace("{thread_id}", "nothing");
        is_listed(&document, operation, &ann.request(&method, &nowhere, headers, b"{"), &route);
        is_listed(&document, operation, &ann.request(&method, &format!("{target}?limit=%"), headers, &bytes), &route);
        // Nothing here has a tag: a condition that cannot hold, where it would be a success.
        let expected = if method == "GET" { [412, 304] } else { [412, 412] };
        for (condition, status) in [("If-Match", "\"a\""), ("If-None-Match", "*")].into_iter().zip(expected) {
            let answer = ann.request(&method, &target, &[headers, &[condition]].concat(), &bytes);
            assert_eq!(answer.status, status, "{route} {condition:?}: {answer:?}");
            is_listed(&document, operation, &answer, &route);
        }
        if body.is_some() {
            is_listed(&document, operation, &ann.request(&method, &target, &[], &bytes), &route);
            is_listed(&document, operation, &ann.request(&method, &target, headers, b"[]"), &route);
        }
    }
}

/// Goal: the bounds that it tells are those that hold, on either side of each. What it tells of texts as patterns is tried by
/// schemathesis.
#[test]
fn the_bounds_of_parameters_are_those_that_it_tells() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let run_id = ann.post("/analyze", &sql("first", "SELECT 1")).run_id();
    let document = document(&mut ann);
    let mut tried = 0;
    for (method, path, operation) in operations(&document).filter(|(method, ..)| method == "GET") {
        for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            // A header that may also be blank.
            let schema = parameter["schema"].pointer("/anyOf/0").unwrap_or(&parameter["schema"]);
            let mut cases: Vec<(String, bool)> = Vec::new();
            if let (Some(min), Some(max)) = (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
                cases.extend([(min.to_string(), true), (max.to_string(), true), ((max + 1).to_string(), false)]);
                cases.extend([("-1".into(), false), ("1.5".into(), false), ("x".into(), false)]);
                cases.extend(min.checked_sub(1).map(|below| (below.to_string(), false)));
            }
            if let Some(max) = schema["maxLength"].as_u64() {
                cases.extend([("é".repeat(max as usize), true), ("é".repeat(max as usize + 1), false)]);
            }
            if schema["format"] == "uuid" && parameter["in"] == "query" {
                cases.extend([(run_id.clone(), true), ("0".into(), false)]);
            }
            for value in resolved(&document, schema).get("oneOf").and_then(Value::as_array).into_iter().flatten() {
                let value = value["const"].as_str().unwrap();
                cases.extend([(value.to_owned(), true), (value.to_ascii_uppercase(), false)]);
            }
            for (value, is_allowed) in cases {
                let (own, others, headers) = match parameter["in"].as_str().unwrap() {
                    "path" => (encoded(&value), String::new(), vec![]),
                    "query" => (run_id.clone(), format!("?{name}={}", encoded(&value)), vec![]),
                    _ => (run_id.clone(), String::new(), vec![(name, &*value)]),
                };
                let thread_id = if parameter["in"] == "path" { &*own } else { "first" };
                let target = path.replace("{run_id}", &own).replace("{thread_id}", thread_id) + &others;
                let answer = if path.ends_with("/events") && is_allowed {
                    ann.watch_with(&target, &headers).rest();
                    continue;
                } else {
                    ann.request(&method, &target, &headers, &[])
                };
                assert_eq!(answer.status, if is_allowed { 200 } else { 422 }, "{target} {headers:?}: {answer:?}");
                is_listed(&document, operation, &answer, &format!("{method} {path}"));
                tried += 1;
            }
        }
    }
    assert!(tried > 60, "{tried}");
}

#[test]
fn the_bounds_of_bodies_are_those_that_it_tells() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let run_id = ann.post("/analyze", &sql("first", "SELECT 1")).run_id();
    let document = document(&mut ann);
    let mut tried = 0;
    for (method, path, operation) in
        operations(&document).filter(|(.., operation)| operation.contains_key("requestBody"))
    {
        let (target, body) = call_of(&document, path, operation, &run_id);
        let body = body.unwrap();
        let schema = resolved(&document, &operation["requestBody"]["content"]["application/json"]["schema"]);
        assert_eq!(schema["additionalProperties"], false, "{path}");
        let mut cases: Vec<(Value, bool)> = Vec::new();
        let with = |name: &str, value: Value| {
            let mut changed = body.clone();
            changed[name] = value;
            changed
        };
        let without = |name: &str| {
            let mut changed = body.clone();
            changed.as_object_mut().unwrap().remove(name);
            changed
        };
        cases.push((with("extra", 1.into()), false));
        for (name, member) in schema["properties"].as_object().unwrap() {
            let is_required = schema["required"].as_array().unwrap().contains(&json!(name));
            cases.push((without(name), !is_required));
            let types = member["type"].as_array().cloned().unwrap_or_else(|| vec![member["type"].clone()]);
            cases.push((with(name, Value::Null), types.contains(&"null".into())));
            cases.push((with(name, json!({})), false));
            if let Some(max) = member["maxLength"].as_u64() {
                cases.extend([(with(name, "é".repeat(max as usize + 1).into()), false)]);
                cases.extend([(with(name, "é".repeat(max as usize).into()), true)]);
                cases.extend([(with(name, "\0".into()), false)]);
            }
            if member["minLength"] == 1 {
                cases.extend([(with(name, "".into()), false), (with(name, "\u{2003}".into()), false)]);
            }
            if let Some(max) = member["maximum"].as_u64() {
                cases.extend([(with(name, max.into()), true), (with(name, (max + 1).into()), false)]);
                cases.extend([
                    (with(name, (-1).into()), false),
                    (with(name, 0.5.into()), false),
                    (with(name, 1.0.into()), true),
                ]);
            }
            for value in member["enum"].as_array().into_iter().flatten() {
                cases.extend([(with(name, value.clone()), true), (with(name, format!("{value}x").into()), false)]);
            }
        }
        for (body, is_allowed) in cases {
            let answer = ann.request(
                &method,
                &target,
                &[("Content-Type", "application/json"), ("Prefer", "respond-async")],
                body.to_string().as_bytes(),
            );
            assert_eq!(answer.status < 300, is_allowed, "{path} {body}: {answer:?}");
            is_listed(&document, operation, &answer, &format!("{method} {path}"));
            tried += 1;
        }
    }
    assert!(tried > 30, "{tried}");
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
