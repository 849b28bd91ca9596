//! `GET /metrics`: what is counted, as Prometheus reads it.

use holdfast::metrics;

use crate::util::{Launch, Server};

fn text(server: &Server) -> String {
    let answer = server.anonymous().get("/metrics");
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some(metrics::CONTENT_TYPE)));
    answer.text()
}

/// The value of a series; `None` of what has not happened yet.
fn value(text: &str, series: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn what_happened_is_counted_by_its_class() {
    let server = Launch::holdfast().start();
    let begun = value(&text(&server), "holdfast_answers_total{class=\"2xx\"}");
    let mut nobody = server.anonymous();
    for path in ["/health", "/runs", "/nowhere", "/nowhere", "/%zz"] {
        nobody.get(path);
    }
    let mut refused = server.anonymous();
    refused.send_raw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n");
    assert_eq!(refused.receive().status, 413);
    let text = text(&server);
    for (series, expected) in [
        ("holdfast_tokens_refused_total{reason=\"missing\"}", 1),
        ("holdfast_http_refusals_total{status=\"413\"}", 1),
        ("holdfast_answers_total{class=\"4xx\"}", 5),
        ("holdfast_rate_limit_waiting", 0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series} in {text}");
    }
    let successes = value(&text, "holdfast_answers_total{class=\"2xx\"}");
    assert_eq!(successes, begun.unwrap_or(0).checked_add(2), "/health, and /metrics before");
    assert!(text.ends_with("# EOF\n"));
}

/// The format's own rules, as far as a scraper stumbles over them.
#[test]
fn every_line_is_a_comment_or_a_sample_of_a_described_metric() {
    let server = Launch::holdfast().start();
    server.anonymous().get("/runs");
    let text = text(&server);
    let mut described = "";
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            assert!(["HELP", "TYPE"].contains(&words.next().unwrap()), "{line}");
            described = words.next().unwrap();
            assert!(described.starts_with("holdfast_"), "{line}");
        } else {
            let (series, number) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert_eq!(name.trim_end_matches("_total"), described, "{line}");
            assert!(number.parse::<f64>().is_ok(), "{line}");
        }
    }
}
