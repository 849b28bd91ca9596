//! Row `too much`: what is larger than it may be, and what is just as large.

use super::Setting;
use crate::hostile::case::Case;
use crate::util::sql;

fn head(more: &str) -> String {
    format!("POST /analyze HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{more}\r\n")
}

pub(super) fn cases() -> Vec<Case> {
    let lines = |count: usize| "A: b\r\n".repeat(count);
    let nines = "9".repeat(1000);
    let chunk = |bytes: usize| format!("{bytes:x}\r\n{}\r\n", "x".repeat(bytes));
    let chunked = head("Transfer-Encoding: chunked\r\n");
    [
        ("a long value", head(&format!("A: {}\r\n", "b".repeat(16 * 1024))), 431),
        ("a long name", head(&format!("{}: b\r\n", "A".repeat(16 * 1024))), 431),
        ("101 lines", head(&lines(99)), 431),
        ("5000 lines", head(&lines(5000)), 431),
        ("empty values", head(&"A:\r\n".repeat(3000)), 431),
        ("a head without an end", format!("GET /health HTTP/1.1\r\nHost: x\r\nA: {}", "b".repeat(17 * 1024)), 431),
        ("a long path", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(8 * 1024)), 414),
        ("a long query", format!("GET /health?{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(8 * 1024)), 414),
        ("a path without an end", format!("GET /{}", "a".repeat(20 * 1024)), 414),
        ("a method without an end", "G".repeat(20 * 1024), 431),
        ("a body of a byte more", head("Content-Length: 1048577\r\n"), 413),
        ("a body of a petabyte", head("Content-Length: 999999999999999\r\n"), 413),
        ("2^63 - 1", head("Content-Length: 9223372036854775807\r\n"), 413),
        ("2^64 - 1", head("Content-Length: 18446744073709551615\r\n"), 413),
        ("2^64", head("Content-Length: 18446744073709551616\r\n"), 413),
        ("2^64 + 2", head("Content-Length: 18446744073709551618\r\n"), 413),
        ("a thousand digits", head(&format!("Content-Length: {nines}\r\n")), 413),
        ("and is not asked to go on", head("Content-Length: 999999999999999\r\nExpect: 100-continue\r\n"), 413),
        ("a chunk of a byte more", chunked.clone() + "100001\r\n", 413),
        ("a chunk of 2^64", chunked.clone() + "10000000000000000\r\n", 413),
        ("a chunk of 2^80", chunked.clone() + "ffffffffffffffffffff\r\n", 413),
        ("many chunks", chunked.clone() + &chunk(0x1_0000).repeat(17), 413),
        ("a chunk extension without an end", chunked.clone() + "2;" + &"a".repeat(20 * 1024), 400),
        ("many chunk extensions", chunked.clone() + &"1;aaaaaaaa\r\nx\r\n".repeat(3000), 400),
        ("a chunk size of many zeros", chunked.clone() + &"0".repeat(20 * 1024), 400),
        ("many trailers", chunked + "0\r\n" + &lines(5000), 431),
    ]
    .map(|(name, bytes, status)| Case::refused(bytes, status).named(name))
    .into()
}

/// What is just within the limits. Questions among it are asked.
pub(super) fn within(setting: &Setting) -> Vec<Case> {
    let get = |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
    let mut body = sql("within", "SELECT 1").to_string();
    body += &" ".repeat(1024 * 1024 - body.len());
    let fill = 16 * 1024 - get("/health/live", "A: \r\n").len();
    vec![
        Case::new(get("/health/live", &"A: b\r\n".repeat(99)), &[200]).named("100 headers"),
        Case::new(get(&format!("/health?{}", "a".repeat(8 * 1024 - 8)), ""), &[200]).named("a target of 8 KiB"),
        Case::new(get("/health/live", &format!("A: {}\r\n", "b".repeat(fill))), &[200]).named("a head of 16 KiB"),
        Case::refused(get("/health/live", &format!("A: {}\r\n", "b".repeat(fill + 1))), 431).named("a byte more"),
        Case::new(setting.post("/analyze", body), &[200]).named("a body of 1 MiB"),
    ]
}
