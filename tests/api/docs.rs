//! `/docs`, the page for people: all of the document, and nothing from elsewhere.

use std::collections::BTreeSet;

use crate::util::Launch;

/// The values of an attribute.
fn values<'p>(page: &'p str, attribute: &str) -> Vec<&'p str> {
    page.split(&format!(" {attribute}=\"")).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn the_page_shows_every_operation_with_a_line_to_copy() {
    let server = Launch::holdfast().start();
    let mut client = server.anonymous();
    let document = client.get("/openapi.json").json();
    let answer = client.get("/docs");
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    let page = answer.text();
    let base = format!("http://{}", server.address());
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            let section = page.split(&format!("<section id=\"{name}\">")).nth(1).unwrap_or_else(|| panic!("{name}"));
            let section = section.split("</section>").next().unwrap();
            assert!(section.contains(&format!("<code>{} {path}</code>", method.to_ascii_uppercase())), "{section}");
            let target = path.replace("{run_id}", "$RUN_ID").replace("{thread_id}", "$THREAD_ID");
            assert!(section.contains("<pre>curl ") && section.contains(&format!("{base}{target}")), "{section}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(
                    section.contains(&format!("<code>{}</code>", parameter["name"].as_str().unwrap())),
                    "{section}"
                );
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                let shared = response["$ref"].as_str().map(|reference| reference.rsplit('/').next().unwrap());
                let expected = match shared {
                    Some(name) => format!("<a href=\"#answer-{name}\">{status}</a>"),
                    None => format!("<strong>{status}</strong>"),
                };
                assert!(section.contains(&expected), "{name} {status}: {section}");
            }
        }
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("id=\"type-{name}\"")), "{name}");
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_no_script() {
    let server = Launch::holdfast().start();
    let mut client = server.anonymous();
    let answer = client.get("/docs");
    let policy = answer.header("Content-Security-Policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let page = answer.text();
    assert!(!page.contains("<script") && !page.contains(" style=") && !page.contains(" src="));
    let ids: Vec<&str> = values(&page, "id");
    assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "an id is given twice");
    for link in values(&page, "href") {
        match link.strip_prefix('#') {
            Some(id) => assert!(ids.contains(&id), "{link} leads nowhere"),
            None => assert!(link.starts_with('/') && client.get(link).status == 200, "{link}"),
        }
    }
    for tag in ["section", "table", "details", "pre", "ul", "p", "a", "code", "tr", "td", "th"] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    assert!(!["{version}", "{operations}", "{types}"].iter().any(|left| page.contains(left)));
    let first = client.request("GET", "/", &[("Accept", "text/html")], &[]);
    assert!(values(&first.text(), "href").contains(&"/docs"));
}

#[test]
fn a_host_that_is_none_does_not_get_into_the_page() {
    let server = Launch::holdfast().start();
    for host in ["a'b", "x$(id)", "x&y", "{types}"] {
        let mut client = server.anonymous();
        client.send_raw(format!("GET /docs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes());
        let answer = client.receive();
        assert!(answer.status == 400 || (answer.status == 200 && !answer.text().contains(host)), "{answer:?}");
        assert!(answer.status == 400 || answer.text().contains("curl http://localhost/"));
    }
}
