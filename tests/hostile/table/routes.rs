//! Row `wrong route`, and what is wrong with addresses and their queries.

use super::Setting;
use crate::hostile::case::Case;

fn ask(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

pub(super) fn cases(setting: &Setting) -> Vec<Case> {
    let mut cases = Vec::new();
    for path in [
        "/nowhere",
        "/health/",
        "//health",
        "/Health",
        "/runs/a/b/c",
        "/chat",
        "/health%2Flive",
        "/..",
        "/../etc/passwd",
        "/%2e%2e/health",
        "/./health",
        "/health;x=1",
        "/health%20",
        "/chat//messages",
        "/.env",
        "/wp-login.php",
        "/cgi-bin/%7C",
    ] {
        for method in ["GET", "POST", "OPTIONS", "BREW"] {
            cases.push(Case::new(ask(method, path), &[404]));
        }
    }
    for path in ["/%", "/%zz", "/%0", "/runs/%00", "/chat/%ff/messages", "/chat/%c0%af/messages", "/%u0041"] {
        cases.push(Case::new(ask("GET", path), &[400]).detail("cannot be read"));
    }
    for path in ["/runs?limit=%", "/runs?limit=%00", "/runs?%ff=1", "/catalog?q=%zz"] {
        cases.push(Case::new(setting.get(path, ""), &[400]).named(path));
    }
    for path in ["/runs?limit=0", "/runs?limit=-1", "/runs?limit=x", "/runs?status=nope", "/catalog?page_size=10001"] {
        cases.push(Case::new(setting.get(path, ""), &[422]).named(path));
    }
    for path in ["/catalog?page=99999999999999999999", "/runs?cursor=nonsense", "/chat-threads?cursor=%3B"] {
        cases.push(Case::new(setting.get(path, ""), &[422]).named(path));
    }
    for (path, allowed) in [
        ("/health", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/analyze", "POST"),
        ("/runs", "GET, HEAD"),
        ("/runs/x", "GET, HEAD"),
        ("/runs/x/cancel", "POST"),
        ("/chat/t", "DELETE"),
        ("/chat/t/messages", "GET, HEAD"),
        ("/data-table", "GET, HEAD"),
    ] {
        for method in ["PUT", "PATCH", "TRACE", "CONNECT", "get", "BREW"] {
            cases.push(Case::new(ask(method, path), &[405]).header("allow", Some(allowed)));
        }
        let all = format!("{allowed}, OPTIONS");
        cases.push(Case::new(ask("OPTIONS", path), &[204]).header("allow", Some(&all)));
    }
    cases.push(Case::new(ask("GET", "/analyze"), &[405]).header("allow", Some("POST")));
    cases.push(Case::new(ask("OPTIONS", "*"), &[204]));
    for (path, status) in [("/health/live", 200), ("/", 200), ("/openapi.json", 200), ("/nowhere", 404), ("/runs", 401)]
    {
        let head = Case::new(ask("HEAD", path), &[status]);
        cases.push(head.body(|answer| answer.body.is_empty() && answer.header("content-length") != Some("0")));
    }
    let refused_head = Case::new("HEAD / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", &[400]).closes();
    cases.push(refused_head.body(|answer| answer.body.is_empty()));
    let broken_head = Case::new("HEAD / HTTP/1.1\r\nHost: x\r\nA b\r\n\r\n", &[400]).closes();
    cases.push(broken_head.body(|answer| answer.body.is_empty()));
    cases
}
