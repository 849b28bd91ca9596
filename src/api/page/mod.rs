//! `GET /`: what this is, how it is doing, and the lines to copy for a first question.

use super::Api;
use super::call::{Call, Reply};
use super::health;
use super::problem::Problem;
use super::routes::{Answer, Document, Lane, Route};
use crate::http::{Request, Response};

/// A first question about the sample data; any other data has other tables, and then the answer says which.
pub const FIRST_QUESTION: &str = r#"{"thread_id": "first", "prompt": "SELECT weather, count(*) AS days FROM seattle_weather GROUP BY weather ORDER BY days DESC"}"#;

/// Pages load nothing from elsewhere and may not be framed.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What a page is.
pub(super) const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const fn route(path: &'static str, handler: fn(&Api, &Call) -> Result<Reply, Problem>, document: Document) -> Route {
    Route { method: "GET", path, handler, lane: Lane::Here, token: false, limited: true, document }
}

const fn document(name: &'static str, summary: &'static str, answers: &'static [Answer]) -> Document {
    Document { name, summary, parameters: &[], request: None, answers }
}

pub(super) const ROUTES: &[Route] = &[
    route(
        "/",
        show,
        document(
            "showPage",
            "What this is and how to ask a first question: HTML for browsers, text for everyone else",
            &[Answer::text("for people", &[HTML, TEXT])],
        ),
    ),
    route(
        "/page.css",
        |_, _| asset(STYLE, include_str!("page.css")),
        document("getStyle", "The pages' style", &[Answer::text("for browsers", &[STYLE])]),
    ),
    route(
        "/page.js",
        |_, _| asset(SCRIPT, include_str!("page.js")),
        document("getScript", "The page's script", &[Answer::text("for browsers", &[SCRIPT])]),
    ),
];

fn asset(content_type: &str, text: &'static str) -> Result<Reply, Problem> {
    Ok(Reply::Now(Response::new(200, content_type, text.as_bytes())))
}

fn show(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let wants_html = call.request.header_values("accept").any(|accept| accept.contains("text/html"));
    let health = format!("{}, {}", health::status(api), health::load(api));
    let base = format!("http://{}", host(&call.request));
    let fill = |template: &str, escape: fn(&str) -> String| {
        template
            .replace("{version}", env!("CARGO_PKG_VERSION"))
            .replace("{health}", &escape(&health))
            .replace("{base}", &escape(&base))
            .replace("{question}", &escape(FIRST_QUESTION))
    };
    Ok(Reply::Now(if wants_html {
        Response::new(200, HTML, fill(include_str!("page.html"), escape).into_bytes())
            .with_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
            .with_header("Vary", "Accept")
    } else {
        Response::new(200, TEXT, fill(include_str!("page.txt"), str::to_owned).into_bytes())
            .with_header("Vary", "Accept")
    }))
}

/// The host by which the client reached this server.
pub(super) fn host(request: &Request) -> &str {
    let is_host = |host: &&str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    request.header("host").filter(is_host).unwrap_or("localhost")
}

/// A text within HTML, or within a quoted attribute of it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
