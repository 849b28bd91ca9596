//! `GET /docs`: the OpenAPI document for people, as one page that needs nothing from elsewhere.

use serde_json::{Map, Value};

use super::Api;
use super::call::{Call, Reply};
use super::page::{CONTENT_SECURITY_POLICY, HTML, escape, host};
use super::problem::Problem;
use super::routes::{Answer, Document, Lane, Route};
use super::words::{kind, prose, type_table};
use crate::http::Response;

pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/docs",
    handler: show,
    // Not on the http thread, which strangers could keep from answering by asking for it.
    lane: Lane::Data,
    token: false,
    limited: true,
    document: Document {
        name: "showDocs",
        summary: "This document for people",
        parameters: &[],
        request: None,
        answers: &[Answer::text("for people", &[HTML])],
    },
}];

/// Made anew for whoever asks, in two or three milliseconds: it is seldom asked for, and kept it would be the larger part of what
/// an idle server holds.
fn show(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let document: Value = serde_json::from_slice(&api.openapi).expect("the document is JSON");
    let page = page(&document, &format!("http://{}", host(&call.request)));
    let response = Response::new(200, HTML, page.into_bytes());
    Ok(Reply::Now(response.with_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)))
}

fn page(document: &Value, base: &str) -> String {
    let components = &document["components"];
    let mut contents = String::new();
    let mut operations = String::new();
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = text(&tag["name"]);
        contents += &format!("<p>{}</p>\n<ul>\n", escape(name));
        operations += &format!("<h2>{}</h2>\n<p>{}</p>\n", escape(name), prose(text(&tag["description"])));
        for (path, method, operation) in all(document).filter(|(.., operation)| operation["tags"][0] == name) {
            let id = escape(text(&operation["operationId"]));
            let title = format!("<code>{} {}</code>", method.to_ascii_uppercase(), escape(path));
            contents += &format!("<li><a href=\"#{id}\">{title}</a></li>\n");
            let summary = prose(text(&operation["summary"]));
            operations += &format!("<section id=\"{id}\">\n<h3>{title}</h3>\n<p>{summary}.</p>\n");
            operations += &described(operation);
            operations += &format!("<pre>{}</pre>\n</section>\n", escape(&curl(base, path, method, operation)));
        }
        contents += "</ul>\n";
    }
    let common: String = members(&components["responses"]).map(|(name, response)| common(name, response)).collect();
    let mut types = String::new();
    for (name, schema) in members(&components["schemas"]) {
        types += &format!("<h3 id=\"type-{0}\">{0}</h3>\n{1}", escape(name), type_table(schema));
    }
    let headers = table(members(&components["headers"]).map(|(name, header)| {
        let told = format!("{}: {}", prose(text(&header["description"])), kind(&header["schema"]));
        (format!("<code id=\"header-{0}\">{0}</code>", escape(name)), told)
    }));
    include_str!("page/docs.html")
        .replace("{version}", &escape(text(&document["info"]["version"])))
        .replace("{about}", &format!("<p>{}</p>", prose(text(&document["info"]["description"]))))
        .replace("{contents}", &contents)
        .replace("{common}", &common)
        .replace("{headers}", &headers)
        .replace("{types}", &types)
        // Last, because only here is there anything of a request: the host by which it came.
        .replace("{operations}", &operations)
}

/// Path, method and operation, in the order of the document.
fn all(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    members(&document["paths"]).flat_map(|(path, item)| members(item).map(move |(method, told)| (path, method, told)))
}

fn members(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    object.as_object().into_iter().flat_map(Map::iter).map(|(name, value)| (name.as_str(), value))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn table(rows: impl Iterator<Item = (String, String)>) -> String {
    let rows: Vec<String> =
        rows.map(|(head, told)| format!("<tr><th scope=\"row\">{head}</th><td>{told}</td></tr>\n")).collect();
    if rows.is_empty() { String::new() } else { format!("<table>\n{}</table>\n", rows.concat()) }
}

/// Parameters, body and answers of an operation.
fn described(operation: &Value) -> String {
    let mut page = table(operation["parameters"].as_array().into_iter().flatten().map(|parameter| {
        let place = text(&parameter["in"]);
        let head = format!("<code>{}</code> {}", escape(text(&parameter["name"])), escape(place));
        (head, format!("{}: {}", prose(text(&parameter["description"])), kind(&parameter["schema"])))
    }));
    for (media_type, content) in members(&operation["requestBody"]["content"]) {
        page += &format!("<details>\n<summary>Body: {}</summary>\n", kind(&content["schema"]));
        page += &format!("<p>{}, such as</p>\n{}</details>\n", escape(media_type), example(&content["example"]));
    }
    page += "<details>\n<summary>Answers</summary>\n";
    let mut shared = Vec::new();
    for (status, response) in members(&operation["responses"]) {
        match response["$ref"].as_str() {
            Some(reference) => shared.push((status, name_in(reference))),
            None => page += &answer(status, response),
        }
    }
    let shared: Vec<String> =
        shared.iter().map(|(status, name)| format!("<a href=\"#answer-{0}\">{status}</a>", escape(name))).collect();
    page + &format!("<p>And: {}.</p>\n</details>\n", shared.join(", "))
}

fn answer(status: &str, response: &Value) -> String {
    let mut page = format!("<p><strong>{}</strong>: {}.", escape(status), prose(text(&response["description"])));
    let headers: Vec<String> = members(&response["headers"])
        .filter(|(name, _)| *name != "X-Request-Id")
        .map(|(name, _)| format!("<a href=\"#header-{0}\">{0}</a>", escape(name)))
        .collect();
    if !headers.is_empty() {
        page += &format!(" With {}.", headers.join(", "));
    }
    page += "</p>\n";
    for (media_type, content) in members(&response["content"]) {
        page += &format!("<p>{}: {}</p>\n", escape(media_type), kind(&content["schema"]));
        page += &example(&content["example"]);
        page += &members(&content["examples"]).map(|(_, shown)| example(&shown["value"])).collect::<String>();
    }
    page
}

fn common(name: &str, response: &Value) -> String {
    let content = &response["content"]["application/problem+json"];
    // The one without a body is the one that is no problem.
    let status = content["example"]["status"].as_u64().unwrap_or(304).to_string();
    format!("<section id=\"answer-{}\">\n{}</section>\n", escape(name), answer(&status, response))
}

fn example(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => format!("<pre>{}</pre>\n", escape(text)),
        value => {
            let text = serde_json::to_string_pretty(value).expect("a JSON value can be written");
            format!("<pre>{}</pre>\n", escape(&text))
        }
    }
}

/// What a reference ends with.
pub(super) fn name_in(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or_default()
}

/// The call as a line for a shell, with variables for what only the user knows.
fn curl(base: &str, path: &str, method: &str, operation: &Value) -> String {
    let target: Vec<String> = path
        .split('/')
        .map(|segment| match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) => format!("${}", name.to_ascii_uppercase()),
            None => segment.to_owned(),
        })
        .collect();
    let mut line = format!("curl {base}{}", target.join("/"));
    let body = &operation["requestBody"]["content"]["application/json"]["example"];
    if method != "get" && body.is_null() {
        line = line.replacen("curl", &format!("curl -X {}", method.to_ascii_uppercase()), 1);
    }
    if operation.get("security").is_some() {
        line += " -H \"Authorization: Bearer $TOKEN\"";
    }
    if !body.is_null() {
        // Within single quotes a shell changes nothing, and knows no other way for one itself.
        let body = body.to_string().replace('\'', "'\\''");
        line += &format!(" -H \"Content-Type: application/json\" \\\n  -d '{body}'");
    }
    line
}
